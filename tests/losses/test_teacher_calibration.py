"""Kernel calibration of teacher probabilities."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segctl.losses import teacher_calibration
from segctl.losses.soft_labels import boundary
from segctl.losses.teacher_calibration import calibrate, draw_keys

EVERY_PIXEL = 1000


def batch(height: int = 4, width: int = 7) -> tuple[Tensor, Tensor]:
    """Probabilities (2, 3, H, W) and a blocky label with ignored pixels; not square."""
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, 1, 2)).repeat_interleave(height, 1).repeat_interleave((width + 1) // 2, 2)[..., :width]
    label[:, 0, 0] = 255
    return torch.randn(2, 3, height, width, dtype=torch.float64).mul(2).softmax(1), label


def slow_calibration(q: np.ndarray, label: np.ndarray, replaced: np.ndarray, bandwidth: float) -> np.ndarray:
    """Every valid pixel of the image is a key; scipy's densities, summed one by one."""
    from scipy.stats import dirichlet  # takes half a second to import, in every process that collects the tests

    result = q.copy()
    for image, row, column in zip(*np.nonzero(replaced), strict=True):
        above = np.zeros(q.shape[1])
        for key_row, key_column in zip(*np.nonzero(label[image] != 255), strict=True):
            density = dirichlet.pdf(q[image, :, row, column], q[image, :, key_row, key_column] / bandwidth + 1)
            above[label[image, key_row, key_column]] += density
        result[image, :, row, column] = above / above.sum()
    return result


@pytest.mark.parametrize("bandwidth", [1.0, 0.1])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("size", [(4, 7), (6, 3)])
@pytest.mark.parametrize("chunk", [1, 1 << 22])
def test_it_agrees_with_the_slow_reference(
    bandwidth: float, balanced: bool, size: tuple[int, int], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_calibration, "CHUNK", chunk)
    q, label = batch(*size)
    found = calibrate(q, label, keys=EVERY_PIXEL, bandwidth=bandwidth, balanced=balanced)
    replaced = (label != 255) & ((q.argmax(1) != label) | boundary(label, 3))
    assert replaced.any()
    assert not replaced.all()
    expected = slow_calibration(q.numpy(), label.numpy(), replaced.numpy(), bandwidth)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_a_wrong_pixel_among_right_ones_like_it_takes_their_class() -> None:
    """The fourth pixel looks like the first three, whose class is 0; its own label is one of four."""
    q = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    label = torch.tensor([[[0, 0, 0, 1]]])
    found = calibrate(q, label, keys=EVERY_PIXEL, bandwidth=0.1, balanced=False)
    assert found[0, :, 0, 3].tolist() == pytest.approx([0.75, 0.25])
    assert found[0, :, 0, 0].tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("bandwidth", [1e-4, 1e-2])
def test_certain_teachers_and_narrow_kernels_stay_finite(bandwidth: float) -> None:
    """exp of these log densities would overflow or vanish."""
    q = torch.tensor([[[[1.0, 0.0, 1e-30, 1.0]], [[0.0, 1.0, 1.0, 0.0]]]])
    found = calibrate(q, torch.tensor([[[1, 0, 1, 0]]]), keys=EVERY_PIXEL, bandwidth=bandwidth)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(1, 1, 4))


def test_right_pixels_inside_a_class_and_ignored_ones_stay_as_they_are() -> None:
    q, label = batch()
    found = calibrate(q, label, keys=5, bandwidth=0.1)
    kept = (label == 255) | ((q.argmax(1) == label) & ~boundary(label, 3))
    assert torch.equal(found.movedim(1, -1)[kept], q.movedim(1, -1)[kept])


def test_an_all_ignored_image_stays_as_it_is() -> None:
    q, label = batch()
    label[1] = 255
    assert torch.equal(calibrate(q, label, keys=5, bandwidth=0.1)[1], q[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_dtype_stays_and_no_gradient_comes_back(dtype: torch.dtype) -> None:
    q, label = batch()
    found = calibrate(q.to(dtype).requires_grad_(), label.to(torch.uint8), keys=5, bandwidth=0.1)
    assert found.dtype == dtype
    assert not found.requires_grad
    torch.testing.assert_close(found.float().sum(1), torch.ones(2, 4, 7), atol=2e-3, rtol=0)


def test_balanced_keys_are_as_many_of_each_class_as_it_has_and_others_in_proportion() -> None:
    torch.manual_seed(0)
    label = torch.tensor([0] * 100 + [1] * 100 + [2] * 3 + [255] * 50)
    balanced = label[draw_keys(label, [100, 100, 3], 20, balanced=True)]
    assert balanced.bincount().tolist() == [7, 7, 3]
    anywhere = draw_keys(label, [100, 100, 3], 20, balanced=False)
    assert len(anywhere.unique()) == 20
    assert (label[anywhere] != 255).all()
    assert len(draw_keys(torch.full((9,), 255), [0, 0], 20, balanced=True)) == 0


def test_the_same_seed_draws_the_same_keys() -> None:
    q, label = batch(20, 30)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(calibrate(q, label, keys=10, bandwidth=0.1))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], calibrate(q, label, keys=10, bandwidth=0.1))


@pytest.mark.parametrize("options", [{"keys": 0, "bandwidth": 0.1}, {"keys": 4, "bandwidth": 0.0}])
def test_settings_without_a_meaning_are_value_errors(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted at least 1 and above 0"):
        calibrate(torch.full((1, 2, 3, 3), 0.5), torch.zeros(1, 3, 3, dtype=torch.long), **options)  # type: ignore[arg-type]
