"""The discriminator: its shapes, who feels which loss, and small maps."""

import pytest
import torch
from distillers_golden import outputs
from torch import Tensor

from segctl.distillers.discriminator import Adversarial, Discriminator, wide_enough


@pytest.mark.parametrize(("size", "answer"), [((64, 64), (1, 1)), ((64, 128), (1, 5))])
def test_its_answer_has_the_published_shape(size: tuple[int, int], answer: tuple[int, int]) -> None:
    assert Discriminator(19)(torch.randn(2, 19, *size)).shape == (2, 1, *answer)


def test_it_has_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in Discriminator(19).parameters()) == pytest.approx(3.19e6, rel=5e-3)


@pytest.mark.parametrize(
    ("grid", "size"), [((64, 128), (64, 128)), ((30, 40), (64, 85)), ((40, 30), (85, 64)), ((6, 300), (64, 3200))]
)
def test_small_maps_grow_in_their_own_shape(grid: tuple[int, int], size: tuple[int, int]) -> None:
    assert wide_enough(grid) == size


def term(loss: str = "hinge") -> Adversarial:
    torch.manual_seed(0)
    return Adversarial("main", 3, (4, 5), loss)  # type: ignore[arg-type]


def maps() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5), torch.zeros(2, 8, 10, dtype=torch.long)


@pytest.mark.parametrize("loss", ["hinge", "wgan_gp"])
def test_each_side_feels_its_own_loss_and_no_other(loss: str) -> None:
    game, (student, teacher, label) = term(loss), maps()
    found = game(outputs(student), outputs(teacher), label)
    weights = list(game.discriminator.parameters())
    assert torch.autograd.grad(found["generator"], student, retain_graph=True)[0].abs().sum() > 0
    assert not any(torch.autograd.grad(found["generator"], weights, retain_graph=True, allow_unused=True))
    assert torch.autograd.grad(found["discriminator"], [student], retain_graph=True, allow_unused=True) == (None,)
    assert all(gradient is not None for gradient in torch.autograd.grad(found["discriminator"], weights, allow_unused=True))


def test_the_hinge_by_its_formula() -> None:
    game, (student, teacher, label) = term().eval(), maps()
    found = game(outputs(student), outputs(teacher), label)
    with torch.no_grad():
        size = (64, 80)
        grown = [torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (student, teacher)]
        on_fake, on_real = (game.discriminator(x) for x in grown)
    assert found["generator"].item() == pytest.approx(-on_fake.mean().item(), abs=1e-6)
    wanted = (1 - on_real).clamp(min=0).mean() + (1 + on_fake).clamp(min=0).mean()
    assert found["discriminator"].item() == pytest.approx(wanted.item(), abs=1e-6)


@pytest.mark.slow
def test_the_discriminator_learns_to_tell_them_apart() -> None:
    game, (student, teacher, label) = term(), maps()
    optimizer = torch.optim.Adam(game.discriminator.parameters(), lr=game.opponent.lr, betas=game.opponent.betas)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = game(outputs(student), outputs(teacher + 2), label)["discriminator"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_it_says_what_it_makes_and_what_it_enlarges() -> None:
    assert term().announcement == (
        "adversarial_main: a discriminator of 3,175,305 parameters with an Adam of its own; "
        "logit maps of 4×5 are upsampled to 64×80 for it"
    )
    wide = Adversarial("aux", 3, (64, 128))
    assert wide.announcement == "adversarial_aux: a discriminator of 3,175,305 parameters with an Adam of its own"
