"""Class weights by hand, by a slow reference, and as the losses take them."""

import numpy as np
import pytest
import torch

from segctl.errors import ArgumentError
from segctl.losses import build_losses
from segctl.losses.class_weights import CAP, balanced_weights
from segctl.schema.terms.loss_terms import CrossEntropySpec, FocalSpec


def test_weights_by_hand() -> None:
    # 64, 16, 1 and 0 pixels: 1, 2, 8 and the cap times the smallest; a pixel weighs (64·1 + 16·2 + 1·8) / 81 of it on average.
    average = 104 / 81
    assert balanced_weights([64, 16, 1, 0]) == pytest.approx([1 / average, 2 / average, 8 / average, 10 / average], abs=5e-5)


def test_equal_classes_weigh_one() -> None:
    assert balanced_weights([5, 5, 5]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_the_inverse_root_of_the_frequency_and_one_on_average(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(1, 10_000_000, 12)
    weights = np.array(balanced_weights(pixels.tolist()))
    share = pixels / pixels.sum()
    reference = 1 / np.sqrt(share)
    reference = np.minimum(reference, CAP * reference.min())
    assert weights == pytest.approx(reference / (share * reference).sum(), abs=5e-5)
    assert (share * weights).sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("spec", [CrossEntropySpec(class_weights="auto"), FocalSpec(class_weights="auto")])
def test_a_loss_without_a_dataset_refuses_auto(spec: CrossEntropySpec | FocalSpec) -> None:
    with pytest.raises(ArgumentError, match="class_weights is 'auto', wanted numbers"):
        build_losses([spec], 4)


def test_counted_weights_and_the_same_numbers_are_one_loss() -> None:
    numbers = balanced_weights([900, 90, 10])
    logits, label = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.randint(0, 3, (2, 4, 4))
    loss = build_losses([CrossEntropySpec(class_weights=numbers)], 3)
    ours = loss(lambda name: logits, label)["cross_entropy_main"]
    assert ours.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, label, torch.tensor(numbers)).item())
