"""The mean of several networks' probabilities, against loops over members and views."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.models.averaged import AveragedNetwork
from segctl.models.forward import forward_images, resized_images
from segctl.models.normalize import Normalizing
from segctl.models.outputs import CornerAlignedPrediction, Prediction


class Toy(Normalizing):
    """A convolution of stride 2 or 4, another mean of pixels for each seed, with features and perhaps auxiliary logits."""

    def __init__(self, seed: int, stride: int = 4, aux: bool = True, returns: type[Prediction] = Prediction) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 6, 3, stride=stride, padding=1)
        self.classifier, self.second = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1) if aux else None
        self.remember_pixels([0.1 * seed, 0.4, 0.5], [0.2, 0.2 + 0.1 * seed, 0.3])
        self.num_classes, self.returns = 4, returns

    def forward(self, images: Tensor) -> Prediction:
        """Normalised float (B, 3, H, W)."""
        features = self.conv(images)
        aux = None if self.second is None else 3 * self.second(features)
        return self.returns(5 * self.classifier(features), aux, features)


NAMES = list("abcd")


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 24, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def slow(members: list[Toy], weights: list[float], scales: list[float], flip: bool, images: Tensor, aux: bool = False) -> Tensor:
    """Mean probabilities on the finest grid at scale 1, view by view."""
    plain = [forward_images(member, images).logits.shape[-2:] for member in members]
    size = (max(h for h, _ in plain), max(w for _, w in plain))
    total, shares = torch.zeros(2, 4, *size), 0.0
    for member, weight in zip(members, weights, strict=True):
        for scale in scales:
            for mirrored in (False, True) if flip else (False,):
                view = resized_images(images, scale)
                found = forward_images(member, view.flip(2) if mirrored else view)
                logits = found.aux_logits if aux else found.logits
                assert logits is not None
                logits = logits.flip(3) if mirrored else logits
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=found.align_corners)
                total += weight * logits.softmax(1)
                shares += weight
    return total / shares


@pytest.mark.parametrize("returns", [Prediction, CornerAlignedPrediction])
@pytest.mark.parametrize(("scales", "flip"), [([1.0], False), ([0.75, 1.0, 1.5], False), ([1.0], True), ([1.0, 0.5], True)])
@torch.no_grad()
def test_the_softmax_of_its_logits_is_the_mean_of_all_views(
    scales: list[float], flip: bool, returns: type[Prediction], images: Tensor
) -> None:
    members, weights = [Toy(1, returns=returns), Toy(2, stride=2, returns=returns), Toy(3, returns=returns)], [1.0, 3.0, 0.5]
    network = AveragedNetwork(members, weights, NAMES, returns=returns, scales=scales, flip=flip)
    found = forward_images(network, images)
    assert type(found) is returns
    assert found.features is None
    assert found.aux_logits is not None
    torch.testing.assert_close(found.logits.softmax(1), slow(members, weights, scales, flip, images))
    torch.testing.assert_close(found.aux_logits.softmax(1), slow(members, weights, scales, flip, images, aux=True))
    torch.testing.assert_close(found.logits.exp().sum(1), torch.ones(2, 12, 16))


class Certain(Normalizing):
    """The same logits at every pixel."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.remember_pixels([0.5] * 3, [0.5] * 3)
        self.logits, self.num_classes = torch.tensor(logits), len(logits)

    def forward(self, images: Tensor) -> Prediction:
        """Normalised float (B, 3, H, W)."""
        return Prediction(self.logits.view(1, -1, 1, 1).expand(len(images), -1, 2, 2), None, None)


def test_two_networks_come_out_as_by_hand(images: Tensor) -> None:
    """(¾, ¼) counts once and (¼, ¾) three times: (3/4 + 3·1/4) / 4 = 3/8."""
    first, second = Certain([math.log(3), 0.0]), Certain([0.0, math.log(3)])
    found = forward_images(AveragedNetwork([first, second], [2.0, 6.0], ["a", "b"]), images)
    assert found.logits.exp()[0, :, 0, 0].tolist() == pytest.approx([3 / 8, 5 / 8])


def test_networks_that_are_entirely_sure_give_finite_logits(images: Tensor) -> None:
    """Probabilities below the smallest float stay apart as logarithms."""
    network = AveragedNetwork([Certain([500.0, 0.0, -500.0]), Certain([400.0, 0.0, -400.0])], [1.0, 1.0], ["a", "b", "c"])
    found = forward_images(network, images).logits[0, :, 0, 0].tolist()
    assert found == pytest.approx([0.0, -400.0 - math.log(2), -800.0 - math.log(2)], rel=1e-6)


def test_one_member_without_auxiliary_logits_leaves_none_and_only_the_named_ones_features_are_given(images: Tensor) -> None:
    members = [Toy(1), Toy(2, aux=False)]
    found = forward_images(AveragedNetwork(members, [1.0, 1.0], NAMES, featured=1), images)
    assert found.aux_logits is None
    assert found.features is not None
    assert torch.equal(found.features, forward_images(members[1], images).features)  # type: ignore[arg-type]


def test_it_stays_in_eval_and_takes_the_bands_of_its_members(images: Tensor) -> None:
    network = AveragedNetwork([Toy(1).train(), Toy(2)], [1.0, 1.0], NAMES)
    network.train()
    assert not any(part.training for member in network.members for part in member.modules())
    assert not network.training
    assert (network.bands, network.num_classes, network.class_names) == (3, 4, NAMES)


def test_shrinking_and_growing_keep_the_type_and_round_to_the_nearest_size(images: Tensor) -> None:
    assert resized_images(images, 1) is images
    assert resized_images(images, 0.5).shape == (2, 12, 16, 3)
    assert resized_images(images, 1.3).shape == (2, 31, 42, 3)
    assert resized_images(images, 0.001).shape == (2, 1, 1, 3)
    assert resized_images(images, 2).dtype == torch.uint8
