"""The deterministic forms of resizing and averaging against torch's own, values and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.models import deterministic_resize

SIZES = [((5, 7), (40, 50)), ((33, 64), (13, 70)), ((1, 1), (6, 6)), ((4, 6), (4, 9)), ((3, 2), (1, 1))]


def both(form: Callable[[Tensor], Tensor], torchs: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = form(maps), torchs(maps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    slope = torch.randn_like(theirs)
    ((mine,), (wanted,)) = (torch.autograd.grad(found, maps, slope) for found in (ours, theirs))
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_resizing_is_torchs_bilinear(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    def torchs(maps: Tensor) -> Tensor:
        return F.interpolate(maps, size=wanted, mode="bilinear", align_corners=False)

    both(lambda maps: deterministic_resize.resized(maps, wanted), torchs, size)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(4, 6), (33, 64), (1, 5)])
def test_bin_means_are_torchs_adaptive_averages(size: tuple[int, int], bins: int) -> None:
    both(lambda maps: deterministic_resize.bin_means(maps, bins), lambda maps: F.adaptive_avg_pool2d(maps, bins), size)


def test_two_pixels_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 8.0]]]])
    assert deterministic_resize.resized(maps, (1, 4)).flatten().tolist() == [0.0, 2.0, 6.0, 8.0]
    assert deterministic_resize.bin_means(maps, 1).item() == 4.0


def test_half_precision_is_computed_in_float32_and_given_back_in_its_own_type_and_layout() -> None:
    maps = torch.randn(2, 8, 5, 7).to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = deterministic_resize.resized(maps, (9, 13))
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = F.interpolate(maps.double(), size=(9, 13), mode="bilinear", align_corners=False)
    assert torch.equal(found, exact.float().to(torch.bfloat16)) or (found.double() - exact).abs().max() < 0.02


def test_a_cpu_has_no_need_of_them() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert not deterministic_resize.wanted_for(torch.zeros(1))
    finally:
        torch.use_deterministic_algorithms(False)
