"""Label smoothing, everywhere and at boundaries."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.losses.soft_labels import average_raters, boundary, boundary_smooth, smooth


def golden_map() -> Tensor:
    """6×8: class 0, columns 4-7 class 1, rows 3-5 of columns 0-1 class 2, pixel (0, 7) ignored."""
    label = torch.zeros(1, 6, 8, dtype=torch.long)
    label[:, :, 4:] = 1
    label[:, 3:, :2] = 2
    label[:, 0, 7] = 255
    return label


def slow_boundary(label: np.ndarray, kernel_size: int) -> np.ndarray:
    """Look at every pixel's window, cut at the image border."""
    reach = kernel_size // 2
    found = np.zeros(label.shape, dtype=bool)
    for image, row, column in np.ndindex(label.shape):
        window = label[image, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        found[image, row, column] = 255 not in window and len(np.unique(window)) > 1
    return found


def test_smoothing_spreads_epsilon_over_all_classes() -> None:
    soft = smooth(torch.tensor([[[1, 255]]]), 5, 0.5)
    assert soft[0, :, 0, 0].tolist() == pytest.approx([0.1, 0.6, 0.1, 0.1, 0.1])
    assert soft[0, :, 0, 1].tolist() == [0.0] * 5


def test_golden_boundary_pixels() -> None:
    columns = [[3, 4], [3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    found = boundary(golden_map(), 3)[0]
    assert [row.nonzero().flatten().tolist() for row in found] == columns
    assert found.sum() == 22


def test_golden_smoothed_boundary_pixel() -> None:
    soft = boundary_smooth(golden_map(), 5, 0.5, 3)
    assert soft.shape == (1, 5, 6, 8)
    assert soft[0, :, 0, 4].tolist() == pytest.approx([0.1, 0.6, 0.1, 0.1, 0.1])
    assert soft[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_pixel_beside_an_ignored_one_keeps_its_hard_label() -> None:
    label = torch.tensor([[[0, 1, 255, 1]]])
    soft = boundary_smooth(label, 2, 0.5, 3)[0, :, 0]
    assert soft.T.tolist() == [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_the_boundary_agrees_with_the_slow_reference(kernel_size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(kernel_size)
    label = torch.randint(0, 4, (2, 4, 5)).repeat_interleave(3, 1).repeat_interleave(3, 2).to(dtype)
    label[torch.rand(label.shape) < 0.01] = 255
    assert np.array_equal(boundary(label, kernel_size).numpy(), slow_boundary(label.numpy(), kernel_size))


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_valid_pixels_sum_to_one_and_ignored_ones_to_zero(epsilon: float) -> None:
    label = golden_map()
    for soft in (smooth(label, 7, epsilon), boundary_smooth(label, 7, epsilon, 3)):
        torch.testing.assert_close(soft.sum(1), (label != 255).float())


def test_an_ignored_id_inside_the_classes_is_all_zero_too() -> None:
    assert smooth(torch.tensor([[[0, 1]]]), 2, 0.2, ignore_index=0)[0, :, 0].T.tolist() == [[0.0, 0.0], pytest.approx([0.1, 0.9])]


def test_an_even_window_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size is 4, wanted an odd number"):
        boundary(golden_map(), 4)


def slow_average(ratings: np.ndarray, rater_mask: np.ndarray | None, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """One pixel and one rater at a time."""
    batch, raters, *space = ratings.shape
    soft, keep = np.zeros((batch, num_classes, *space)), np.zeros((batch, *space), dtype=bool)
    for image, *place in np.ndindex(batch, *space):
        votes = [
            ratings[image, rater, *place]
            for rater in range(raters)
            if ratings[image, rater, *place] != 255 and (rater_mask is None or rater_mask[image, rater, *place])
        ]
        for vote in votes:
            soft[image, vote, *place] += 1 / len(votes)
        keep[image, *place] = bool(votes)
    return soft, keep


def test_three_raters_of_one_pixel_come_out_as_by_hand() -> None:
    ratings = torch.tensor([[[0, 1, 255], [0, 2, 255], [1, 255, 255]]])
    soft, keep = average_raters(ratings, 3)
    assert soft[0].T.tolist() == [pytest.approx([2 / 3, 1 / 3, 0]), [0, 0.5, 0.5], [0, 0, 0]]
    assert keep[0].tolist() == [True, True, False]


@pytest.mark.parametrize("space", [(7,), (3, 5), (2, 3, 2)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_averaged_raters_agree_with_the_slow_reference(space: tuple[int, ...], masked: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ratings = torch.randint(0, 4, (2, 3, *space)).masked_fill(torch.rand(2, 3, *space) < 0.3, 255).to(dtype)
    mask = torch.rand(2, 3, *space) < 0.7 if masked else None
    soft, keep = average_raters(ratings, 4, mask)
    wanted_soft, wanted_keep = slow_average(ratings.numpy(), None if mask is None else mask.numpy(), 4)
    np.testing.assert_allclose(soft.numpy(), wanted_soft, atol=1e-6)
    assert np.array_equal(keep.numpy(), wanted_keep)


def test_one_rater_is_a_hard_label() -> None:
    label = golden_map()
    soft, keep = average_raters(label.unsqueeze(1), 3)
    assert torch.equal(keep, label != 255)
    assert torch.equal(soft.argmax(1)[keep], label[keep])


def test_a_mask_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        average_raters(torch.zeros(1, 2, 4, dtype=torch.long), 3, torch.ones(1, 4, dtype=torch.bool))
    assert str(error.value) == "rater_mask is torch.bool (1, 4), wanted torch.bool (1, 2, 4)"


LABEL = torch.tensor([[[0, 1], [2, 255]]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: smooth(LABEL, 2, 0.1), "label holds class id 2, wanted 0 to 1 for 2 classes"),
        (lambda: smooth(LABEL, 3, 1.5), "epsilon is 1.5, wanted 0 to 1"),
        (lambda: smooth(LABEL[0], 3, 0.1), "wanted class ids"),
        (lambda: boundary_smooth(LABEL.float(), 3, 0.1, 3), "wanted class ids"),
        (lambda: boundary_smooth(LABEL, 3, 0.1, -1), "kernel_size is -1, wanted an odd number"),
        (lambda: average_raters(LABEL, 2), "label holds class id 2"),
        (lambda: average_raters(LABEL.float(), 3), "wanted class ids"),
    ],
)
def test_wrong_arguments_are_value_errors(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        wrong()


@pytest.mark.parametrize("wrong", [4, -1, -100])
@pytest.mark.parametrize(
    "make", [lambda label: smooth(label, 4, 0.1), lambda label: boundary_smooth(label, 4, 0.5, 3)], ids=["smooth", "boundary"]
)
def test_an_id_outside_the_classes_is_named_with_its_place(make: Callable[[Tensor], Tensor], wrong: int) -> None:
    label = torch.zeros(2, 5, 6, dtype=torch.long)
    label[1, 2, 3] = wrong
    named = rf"class id {wrong}, wanted 0 to 3 for 4 classes, first at \(1, 2, 3\) of \(2, 5, 6\)"
    with pytest.raises(ArgumentError, match=named):
        make(label)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.uint64])
def test_every_integer_type_is_smoothed_alike(dtype: torch.dtype) -> None:
    label = torch.randint(0, 4, (2, 5, 6)).masked_fill(torch.rand(2, 5, 6) < 0.2, 255)
    assert torch.equal(smooth(label.to(dtype), 4, 0.1), smooth(label, 4, 0.1))
    assert torch.equal(boundary_smooth(label.to(dtype), 4, 0.5, 3), boundary_smooth(label, 4, 0.5, 3))
    assert torch.equal(boundary(label.to(dtype), 3), boundary(label, 3))
