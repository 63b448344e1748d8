"""Bins against a loop over pixels, errors by hand, and torchmetrics where the definitions agree."""

import numpy as np
import pytest
import torch

from segctl.errors import InputError
from segctl.metrics.calibration import BINS, CALIBRATION_SCORES, CalibrationTable, calibration_scores, fill_bins

IGNORED = 255


def maps(seed, batch=2, classes=4, size=(6, 7)):
    """Probabilities (B, C, H, W) and a label with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((batch, classes, *size), generator=generator)
    label = torch.randint(0, classes, (batch, *size), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.2] = IGNORED
    return logits.softmax(1), label


def table_of(probabilities, label):
    bins = fill_bins(probabilities, label).numpy()
    return CalibrationTable(tuple(f"{index}" for index in range(len(bins))), bins)


def slow_error(pairs):
    """pairs: (confidence, right) of each pixel."""
    error = 0.0
    for low in range(BINS):
        inside = [(p, hit) for p, hit in pairs if min(int(p * BINS), BINS - 1) == low]
        if inside:
            gap = abs(np.mean([hit for _, hit in inside]) - np.mean([p for p, _ in inside]))
            error += len(inside) / len(pairs) * gap
    return 100 * error


def pixels(probabilities, label, index):
    """The valid pixels of one image: (probabilities of the classes, label)."""
    found = []
    for y in range(label.shape[1]):
        for x in range(label.shape[2]):
            if label[index, y, x] != IGNORED:
                found.append((probabilities[index, :, y, x].numpy(), int(label[index, y, x])))
    return found


def slow_scores(probabilities, label):
    images = [found for index in range(len(label)) if (found := pixels(probabilities, label, index))]
    together = [pixel for image in images for pixel in image]

    def ece(found):
        return slow_error([(p.max(), p.argmax() == truth) for p, truth in found])

    def sce(found):
        classes = range(probabilities.shape[1])
        return np.mean([slow_error([(p[c], c == truth) for p, truth in found]) for c in classes])

    return {
        "ECE_D": ece(together),
        "ECE_I": np.mean([ece(image) for image in images]),
        "SCE_D": sce(together),
        "SCE_I": np.mean([sce(image) for image in images]),
    }


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_a_loop_over_pixels(seed):
    probabilities, label = maps(seed)
    assert calibration_scores(table_of(probabilities, label)) == pytest.approx(slow_scores(probabilities, label), rel=1e-5)


def test_two_pixels_by_hand():
    # Both say class 0 with 0.75; one is right. Confidence 0.75, accuracy 0.5.
    probabilities = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    found = calibration_scores(table_of(probabilities, torch.tensor([[[0, 1]]])))
    assert found == pytest.approx({"ECE_D": 25, "ECE_I": 25, "SCE_D": 25, "SCE_I": 25})


def test_sure_and_right_is_calibrated():
    probabilities = torch.zeros(1, 3, 2, 2)
    probabilities[:, 1] = 1
    assert calibration_scores(table_of(probabilities, torch.ones(1, 2, 2, dtype=torch.long))) == dict.fromkeys(
        CALIBRATION_SCORES, 0
    )


def test_binary_sce_is_of_the_foreground():
    probabilities, label = maps(1, classes=2)
    pairs = [(p[1], truth == 1) for index in range(2) for p, truth in pixels(probabilities, label, index)]
    assert calibration_scores(table_of(probabilities, label), binary=True)["SCE_D"] == pytest.approx(slow_error(pairs), rel=1e-5)


def test_an_image_without_a_valid_pixel_is_left_out():
    probabilities, label = maps(2)
    label[1] = IGNORED
    assert calibration_scores(table_of(probabilities, label)) == calibration_scores(table_of(probabilities[:1], label[:1]))


def test_no_valid_pixel_at_all_is_undefined():
    probabilities, label = maps(2)
    assert set(calibration_scores(table_of(probabilities, torch.full_like(label, IGNORED))).values()) == {None}


def test_a_batch_has_the_bins_of_its_images():
    probabilities, label = maps(3, batch=3)
    alone = torch.cat([fill_bins(probabilities[i : i + 1], label[i : i + 1]) for i in range(3)])
    assert torch.equal(fill_bins(probabilities, label), alone)


def test_half_precision_probabilities_are_summed_exactly():
    probabilities, label = maps(0)
    rounded = probabilities.half()
    assert torch.equal(fill_bins(rounded, label)[..., 1], fill_bins(rounded.float(), label)[..., 1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError) as error:
        fill_bins(torch.zeros(1, 3, 4, 5), torch.zeros(1, 4, 4))
    assert str(error.value) == (
        "got probabilities of shape (1, 3, 4, 5) and a label of shape (1, 4, 4), wanted (B, C, H, W) and (B, H, W)"
    )


@pytest.mark.parametrize("seed", range(3))
def test_ece_is_that_of_torchmetrics(seed):
    classification = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is not installed")
    probabilities, label = maps(seed, size=(30, 40))
    expected = classification.multiclass_calibration_error(probabilities, label, 4, n_bins=BINS, norm="l1", ignore_index=IGNORED)
    assert calibration_scores(table_of(probabilities, label))["ECE_D"] == pytest.approx(100 * float(expected), rel=1e-4)
