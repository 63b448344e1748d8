"""The linear probe is ridge regression: against numpy, and on features that a line can tell apart."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segctl.models import Segmenter
from segctl.models.backbone import Backbone
from segctl.models.heads.linear import LinearHead
from segctl.train.pretrain.probe import RIDGE, place_sums, set_head

CLASSES = 3


class Pixels(Backbone):
    """The pixels themselves are the features."""

    channels, strides = (3,), (1,)
    mean, std = (0.0, 0.0, 0.0), (1 / 255,) * 3

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]

    def load_weights(self, file: Path) -> None:
        raise AssertionError("this backbone has no weights to load")


def network() -> Segmenter:
    return Segmenter(Pixels(), LinearHead(3), CLASSES, None).eval()


def test_it_is_the_ridge_regression_of_standardised_features() -> None:
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (50, 3))
    labels = random.integers(0, CLASSES, 50)
    labels[:5] = 255
    maps = torch.tensor(features.T.reshape(1, 3, 5, 10), dtype=torch.float32)
    model = network()
    set_head(model, place_sums(maps, torch.tensor(labels.reshape(1, 5, 10), dtype=torch.uint8), CLASSES))
    kept, wanted = features[5:], np.eye(CLASSES)[labels[5:]]
    scaled = (kept - kept.mean(0)) / np.sqrt(kept.var(0) + 1e-5)
    weights = np.linalg.solve(scaled.T @ scaled / 45 + RIDGE * np.eye(3), scaled.T @ (wanted - wanted.mean(0)) / 45)
    everywhere = (features - kept.mean(0)) / np.sqrt(kept.var(0) + 1e-5) @ weights + wanted.mean(0)
    logits = model(maps).logits
    np.testing.assert_allclose(logits.detach().numpy()[0].reshape(CLASSES, 50).T, everywhere, atol=1e-4)


def test_classes_of_their_own_colours_are_told_apart() -> None:
    label = torch.arange(CLASSES, dtype=torch.uint8).repeat(4, 2).reshape(1, 4, 6)
    colours = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    maps = colours[label.long()].permute(0, 3, 1, 2)
    model = network()
    set_head(model, place_sums(maps, label, CLASSES))
    assert torch.equal(model(maps).logits.argmax(1), label.long())


def test_ignored_places_count_nothing() -> None:
    sums = place_sums(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8), CLASSES)
    assert sums.shape == (4, 4 + CLASSES)
    assert not sums.any()


def test_parts_add_up() -> None:
    maps, label = torch.randn(2, 3, 4, 4), torch.randint(0, CLASSES, (2, 8, 8), dtype=torch.uint8)
    parts = sum(place_sums(maps[i : i + 1], label[i : i + 1], CLASSES) for i in range(2))
    torch.testing.assert_close(place_sums(maps, label, CLASSES), parts)
