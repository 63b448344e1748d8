"""Af-DCD."""

import math

import pytest
import torch
from distillers_golden import golden_features, outputs, pair_of
from torch import Tensor, nn

from segctl.distillers.newer.afdcd import OmniContrast, omni_contrast
from segctl.schema.terms.distill_terms import OmniContrastSpec


def maps() -> tuple[Tensor, Tensor]:
    """Student features (2, 4, 16, 16) and teacher features (2, 6, 16, 16)."""
    ours, theirs = (torch.arange(2 * channels * 256, dtype=torch.float64) for channels in (4, 6))
    return (torch.sin(0.11 * ours + 0.5) + 0.2).view(2, 4, 16, 16), (torch.cos(0.19 * theirs) + 0.1).view(2, 6, 16, 16)


def filled(module: nn.Module) -> nn.Module:
    module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.3 * torch.sin(0.7 * index + 0.1 + number)).view_as(parameter))
    return module


@pytest.mark.parametrize(
    ("generator", "features", "contrast"), [("plain", 0.56388608, 14.80922696), ("enhanced", 0.65046396, 15.18462736)]
)
def test_the_authors_code_gives_the_same_numbers(generator: str, features: float, contrast: float) -> None:
    """OSVAI/Af-DCD, losses/ocmgd.py at 5b086a7, on 16×16 maps with 3 groups and a pool of 2; its features are a sum."""
    student, teacher = (outputs(x, size=(16, 16)) for x in maps())
    spec = OmniContrastSpec.model_validate({"generator": generator, "groups": 3, "pool": 2})
    term = filled(OmniContrast.of(spec, pair_of(student, teacher)))
    torch.manual_seed(0)
    found = term(student, teacher, torch.zeros(2, 16, 16, dtype=torch.int64))
    assert found["features"].item() == pytest.approx(features, abs=1e-8)
    assert found["contrast"].item() == pytest.approx(contrast, abs=1e-7)


def slow(student: Tensor, teacher: Tensor, groups: int, patch: int, temperature: float) -> float:
    """Token by token, without pooling."""
    each, losses = student.shape[1] // groups, []
    for image in range(len(student)):
        for top in range(0, student.shape[2], patch):
            for left in range(0, student.shape[3], patch):
                tokens = [(m, r, c) for r in range(top, top + patch) for c in range(left, left + patch) for m in range(groups)]
                for m, r, c in tokens:
                    mine = student[image, m * each : (m + 1) * each, r, c]

                    def alike(n: int, y: int, x: int, mine: Tensor = mine, image: int = image) -> float:
                        theirs = teacher[image, n * each : (n + 1) * each, y, x]
                        return math.exp(-(mine - theirs).abs().sum().item() / temperature)

                    own = alike(m, r, c)
                    losses.append(-math.log(own / (own + sum(alike(n, y, x) for n, y, x in tokens if n != m))))
    return groups * sum(losses) / len(losses)


def test_slow_loops_and_the_authors_code_give_the_same_contrast() -> None:
    """The second number: the authors' code for two groups at temperature 2, without pooling."""
    _, teacher = maps()
    student = 0.9 * teacher + 0.05 * torch.sin(3 * teacher)
    found = omni_contrast(student, teacher, groups=2, pool=1, temperature=2.0).item()
    assert found == pytest.approx(3.58365020, abs=1e-7)
    small = (student[:1, :, :4, :8], teacher[:1, :, :4, :8])
    assert omni_contrast(*small, groups=3, patch=2, pool=1, temperature=1.5).item() == pytest.approx(
        slow(*small, groups=3, patch=2, temperature=1.5), rel=1e-10
    )


def test_one_position_of_two_groups_comes_out_as_by_hand() -> None:
    """The student has (1, 5), the teacher (1, 3). Own distances are 0 and 2, the others' 2 and 4: log(1 + e⁻²) each."""
    student, teacher = (torch.tensor(x, dtype=torch.float64).view(1, 2, 1, 1) for x in ([1.0, 5.0], [1.0, 3.0]))
    assert omni_contrast(student, teacher, groups=2, temperature=1.0).item() == pytest.approx(2 * math.log1p(math.exp(-2)))


@pytest.mark.parametrize("size", [(45, 60), (3, 3), (1, 1), (17, 9)])
def test_any_size_of_map_and_number_of_channels_gives_finite_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for channels in (2, 17, 40):
        student, teacher = torch.randn(2, 2, channels, *size).unbind(0)
        student.requires_grad_()
        value = omni_contrast(student, teacher)
        value.backward()
        assert value.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_the_published_weights_are_those_of_a_sum_over_the_published_maps() -> None:
    assert OmniContrastSpec().features_weight == pytest.approx(2e-6 * 2048 * 64 * 128, rel=2e-3)
    student, teacher = (outputs(x) for x in golden_features())
    assert "afdcd: a generator of" in OmniContrast.of(OmniContrastSpec(), pair_of(student, teacher)).generated.announcement
