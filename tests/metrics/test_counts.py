"""Counts against a loop over pixels, cases of two pixels, and every kind of input."""

import numpy as np
import pytest
import torch

from segctl.errors import InputError
from segctl.metrics.counts import checked_pairs, confusion, count, counts_of, pairs, queue_pairs, scatter_pairs

IGNORED = 255


def slow_count(prediction, label, num_classes, ignore_index=IGNORED):
    counts = np.zeros((len(label), num_classes, 3), np.int64)
    for image in range(len(label)):
        for guess, truth in zip(prediction[image].flat, label[image].flat, strict=True):
            if truth == ignore_index:
                continue
            if guess == truth:
                counts[image, truth, 0] += 1
                continue
            counts[image, truth, 2] += 1
            if 0 <= guess < num_classes:
                counts[image, guess, 1] += 1
    return counts


def random_maps(seed, num_classes=5, shape=(3, 7, 9), outside=True):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, shape)
    prediction = np.where(rng.random(shape) < 0.5, label, rng.integers(0, num_classes + 2 * outside, shape))
    label[rng.random(shape) < 0.2] = IGNORED
    return prediction, label


def pixels(*values):
    """One image of one row."""
    return np.array([[values]], np.uint8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("prediction_type", "label_type"), [("uint8", "uint8"), ("int64", "uint8"), ("int32", "int16")])
def test_counts_equal_a_loop_over_pixels(seed, prediction_type, label_type):
    prediction, label = random_maps(seed)
    expected = slow_count(prediction, label, 5)
    found = count(prediction.astype(prediction_type), label.astype(label_type), 5)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ((0, 1), (0, 1), [[1, 0, 0], [1, 0, 0]]),
        ((1, 0), (0, 1), [[0, 1, 1], [0, 1, 1]]),
        ((0, 0), (0, 1), [[1, 1, 0], [0, 0, 1]]),
        ((0, 0), (IGNORED, 1), [[0, 1, 0], [0, 0, 1]]),
        ((0, 1), (IGNORED, IGNORED), [[0, 0, 0], [0, 0, 0]]),
        ((2, 1), (0, 1), [[0, 0, 1], [1, 0, 0]]),
        ((IGNORED, 1), (0, 1), [[0, 0, 1], [1, 0, 0]]),
    ],
)
def test_two_pixels_by_hand(prediction, label, expected):
    assert count(pixels(*prediction), pixels(*label), 2)[0].tolist() == expected


def test_outside_predictions_are_misses_minus_false_positives():
    prediction, label = random_maps(3)
    counts = count(prediction, label, 5)
    outside = ((label != IGNORED) & (prediction >= 5)).sum()
    assert outside > 0
    assert counts[..., 2].sum() - counts[..., 1].sum() == outside


@pytest.mark.parametrize("seed", range(3))
def test_confusion_has_the_truth_in_rows(seed):
    prediction, label = random_maps(seed)
    expected = np.zeros((5, 5), np.int64)
    for truth in range(5):
        for guess in range(5):
            expected[truth, guess] = ((label == truth) & (prediction == guess)).sum()
    np.testing.assert_array_equal(confusion(prediction.astype(np.uint8), label.astype(np.uint8), 5), expected)


@pytest.mark.parametrize("ignore_index", [-1, -100, 0, 255, 1000])
def test_any_ignore_index_counts_nowhere(ignore_index):
    prediction, label = random_maps(7)
    label[label == IGNORED] = ignore_index
    np.testing.assert_array_equal(count(prediction, label, 5, ignore_index), slow_count(prediction, label, 5, ignore_index))


def test_ids_beyond_a_byte_are_counted():
    prediction, label = random_maps(11, num_classes=300)
    label[label == IGNORED] = 999
    np.testing.assert_array_equal(count(prediction, label, 300, 999), slow_count(prediction, label, 300, 999))


def test_negative_predictions_are_outside():
    prediction, label = random_maps(2)
    prediction[0, 0] = -1
    np.testing.assert_array_equal(count(prediction, label, 5), slow_count(prediction, label, 5))


def test_sums_are_exact_where_float32_is_not():
    pixels_on_a_side = 4200  # 17,640,000 pixels, above 2 ** 24
    label = np.zeros((1, pixels_on_a_side, pixels_on_a_side), np.uint8)
    assert count(label, label, 2)[0, 0, 0] == pixels_on_a_side**2


def test_counts_and_confusion_are_read_off_the_same_pairs():
    prediction, label = random_maps(9)
    found = pairs(prediction, label, 5)
    assert found.shape == (3, 5, 6)
    np.testing.assert_array_equal(counts_of(found), count(prediction, label, 5))
    np.testing.assert_array_equal(found[:, :, :5].sum(0), confusion(prediction, label, 5))


@pytest.mark.parametrize("view", [lambda ids: ids[:, ::2, 1:], lambda ids: ids.transpose(0, 2, 1), lambda ids: ids[:, ::-1]])
def test_views_that_are_not_contiguous_are_counted_as_they_look(view):
    prediction, label = (view(ids.astype(np.uint8)) for ids in random_maps(10))
    np.testing.assert_array_equal(count(prediction, label, 5), slow_count(prediction, label, 5))


@pytest.mark.parametrize("shape", [(1, 0, 4), (1, 4, 0), (2, 1, 1)])
def test_images_of_hardly_any_pixel_are_counted(shape):
    ids = np.zeros(shape, np.uint8)
    assert count(ids, ids, 3)[:, 0, 0].tolist() == [shape[1] * shape[2]] * shape[0]


def test_images_of_a_batch_are_counted_apart():
    prediction, label = random_maps(5)
    alone = np.concatenate([count(prediction[i : i + 1], label[i : i + 1], 5) for i in range(len(label))])
    np.testing.assert_array_equal(count(prediction, label, 5), alone)


def test_an_empty_batch_has_counts_of_no_image():
    empty = np.zeros((0, 4, 4), np.uint8)
    assert count(empty, empty, 3).shape == (0, 3, 3)


def test_tensors_give_tensors_with_the_same_counts():
    prediction, label = random_maps(4)
    found = count(torch.from_numpy(prediction), torch.from_numpy(label).to(torch.uint8), 5)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), count(prediction, label, 5))
    assert (
        confusion(torch.from_numpy(prediction), torch.from_numpy(label), 5).tolist() == confusion(prediction, label, 5).tolist()
    )


def test_a_mask_of_booleans_counts_as_two_classes():
    prediction, label = np.array([[[True, False]]]), np.array([[[True, True]]])
    assert count(prediction, label, 2)[0].tolist() == [[0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("ignore_index", [255, -1])
def test_the_gpu_path_equals_the_array_path(ignore_index):
    prediction, label = random_maps(6)
    label[label == IGNORED] = ignore_index
    queued = scatter_pairs(torch.from_numpy(prediction), torch.from_numpy(label), 5, ignore_index)
    found = checked_pairs(queued, ignore_index)
    np.testing.assert_array_equal(found.numpy(), pairs(prediction, label, 5, ignore_index))


def test_queued_pairs_are_those_of_pairs_once_checked():
    prediction, label = map(torch.from_numpy, random_maps(12))
    assert torch.equal(checked_pairs(queue_pairs(prediction, label, 5)), pairs(prediction, label, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_counts_equal_cpu_counts():
    prediction, label = random_maps(8)
    found = count(torch.from_numpy(prediction).cuda(), torch.from_numpy(label).cuda(), 5)
    assert found.device.type == "cuda"
    np.testing.assert_array_equal(found.cpu().numpy(), count(prediction, label, 5))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_a_label_outside_the_classes_is_refused(convert):
    label = np.array([[[0, 34]]])
    with pytest.raises(InputError) as error:
        count(convert(label), convert(label), 19)
    assert str(error.value) == "a label has the id 34, wanted 0 to 18 or 255 (ignored)"


@pytest.mark.parametrize("ignore_index", [255, -1])
def test_a_strange_label_is_refused_beyond_bytes_too(ignore_index):
    label = np.array([[[0, -7]]])
    with pytest.raises(InputError, match="a label has the id -7, wanted 0 to 1 or"):
        count(np.zeros_like(label), label, 2, ignore_index)


def test_a_strange_label_is_refused_on_the_gpu_path():
    label = torch.tensor([[[0, -7, 2]]])
    queued = scatter_pairs(torch.zeros_like(label), label, 2)
    with pytest.raises(InputError) as error:
        checked_pairs(queued)
    assert str(error.value) == "2 pixels of a label have an id that is not a class, wanted 0 to 1 or 255 (ignored)"


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError) as error:
        count(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 3, 2), np.uint8), 2)
    assert str(error.value) == (
        "got a prediction of shape (1, 2, 3) and a label of shape (1, 3, 2), wanted two of the same shape (B, H, W)"
    )


def test_a_single_image_without_a_batch_axis_is_refused():
    with pytest.raises(InputError, match=r"wanted two of the same shape \(B, H, W\)"):
        count(np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8), 2)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_logits_are_refused(convert):
    with pytest.raises(InputError, match="got class ids of type float32, wanted integers"):
        count(convert(np.zeros((1, 2, 2), np.float32)), convert(np.zeros((1, 2, 2), np.uint8)), 2)
