"""Which pixels count, and what is refused."""

import pytest
import torch

from segctl.losses.pixels import check_shapes, count_valid, mean_over_valid, sum_dtype, valid_pixels, wide_dtype


def test_without_ignored_pixels_all_of_them_count() -> None:
    assert valid_pixels(torch.zeros(1, 4, dtype=torch.long), None, None) is None


def test_soft_labels_are_masked_by_keep_mask_alone() -> None:
    keep_mask = torch.tensor([[True, False]])
    assert valid_pixels(torch.full((1, 3, 2), 255.0), 255, keep_mask) is keep_mask


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_hard_labels_lose_the_ignored_id_in_every_integer_type(dtype: torch.dtype) -> None:
    label = torch.tensor([[0, 255, 1]], dtype=dtype)
    valid = valid_pixels(label, 255, torch.tensor([[True, True, False]]))
    assert valid is not None
    assert valid.tolist() == [[True, False, False]]


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sums_are_in_float32_or_better(dtype: torch.dtype, wanted: torch.dtype) -> None:
    assert sum_dtype(torch.zeros(1, dtype=dtype)) == wanted


def test_the_mean_skips_what_is_not_valid() -> None:
    assert mean_over_valid(torch.tensor([[1.0, float("nan"), 3.0]]), torch.tensor([[True, False, True]])).item() == 2.0


def test_a_hard_label_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_shapes(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5, dtype=torch.long), None)
    assert str(error.value) == "label of class ids is (2, 3, 4, 5), wanted (2, 4, 5) for logits (2, 3, 4, 5)"


def test_a_soft_label_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_shapes(torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5), None)
    assert str(error.value) == "label of probabilities is (2, 4, 5), wanted (2, 3, 4, 5) for logits (2, 3, 4, 5)"


def test_a_mask_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_shapes(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4))
    assert str(error.value) == "keep_mask is torch.float32 (2, 4), wanted torch.bool (2, 4)"


def test_valid_pixels_are_counted_by_image() -> None:
    labels = torch.tensor([[[0, 255], [3, 255]], [[255, 255], [255, 255]], [[0, 1], [2, 254]]], dtype=torch.uint8)
    assert count_valid(labels).tolist() == [2, 0, 4]
    assert count_valid(labels).tolist() == (labels != 255).sum((1, 2)).tolist()


def test_an_apple_gpu_gets_sums_that_it_can_compute() -> None:
    assert wide_dtype(torch.device("mps")) == torch.float32
    assert wide_dtype(torch.device("cpu")) == wide_dtype(torch.device("cuda")) == torch.float64
