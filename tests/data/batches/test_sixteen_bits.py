"""Views and augmentations of uint16 images: what uint8 images give, with the low byte kept."""

import cv2
import numpy as np
import pytest

from segctl.data.batches.augment import UINT8_ALONE, apply
from segctl.schema.data import AffineSpec, AugmentSpec, BlurSpec, ColorSpec, CutoutSpec, GreySpec, VerticalFlipSpec

STEPS = [
    BlurSpec(sigma=(1.5, 1.5)),
    AffineSpec(degrees=20, shear=10, translate=0.1),
    CutoutSpec(holes=2),
    VerticalFlipSpec(),
    GreySpec(),
]


def applied(step: AugmentSpec, image: np.ndarray, label: np.ndarray, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """The changed image as float64, and the changed label.  unit: what one grey level of the padding is."""
    image, label = image.copy(), label.copy()
    padding = tuple(unit * (40 + band) for band in range(image.shape[2]))
    apply(step, image, label, np.random.default_rng(1), padding)
    return image.astype(np.float64), label


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kind)
def test_sixteen_bits_are_changed_as_eight_are_and_as_floating_point(step: AugmentSpec, bands: int) -> None:
    """257 · v is the same brightness in 16 bits. Against float32 the result is that number, rounded."""
    if isinstance(step, GreySpec) and bands != 3:
        pytest.skip("grey is for RGB")
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (40, 56, bands), np.uint8)
    label = random.integers(0, 3, (40, 56), np.uint8)
    low = random.integers(0, 257, small.shape, np.uint16)
    wide = np.minimum(small.astype(np.uint16) * np.uint16(257), np.uint16(65535 - 256)) + low
    found, marks = applied(step, wide, label, 257)
    rough, same = applied(step, small, label, 1)
    exact, _ = applied(step, wide.astype(np.float32), label, 257)
    np.testing.assert_array_equal(marks, same)
    assert np.abs(found / 257 - rough).max() < 2.6
    assert np.abs(found - exact).max() <= 1.5


def test_a_flip_and_a_cutout_keep_each_number_by_hand() -> None:
    image = np.array([[[1], [256]], [[257], [65535]]], np.uint16)
    found, _ = applied(VerticalFlipSpec(), image, np.zeros((2, 2), np.uint8), 1)
    assert found[..., 0].tolist() == [[257, 65535], [1, 256]]
    found, marks = applied(CutoutSpec(size=(0.5, 0.5)), image, np.zeros((2, 2), np.uint8), 1000)
    assert (found == 40000).sum() == (marks == 255).sum() == 1


def test_the_operations_of_256_levels_are_named() -> None:
    assert {step.model_fields["kind"].default for step in UINT8_ALONE} == {"color", "jpeg", "noise"}
    with pytest.raises(cv2.error):  # a table of 256 values does not fit
        applied(ColorSpec(), np.full((4, 4, 3), 60000, np.uint16), np.zeros((4, 4), np.uint8), 1)
