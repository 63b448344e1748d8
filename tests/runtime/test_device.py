"""What a run says about the precision of its device."""

import pytest
import torch

from segctl.runtime import device
from segctl.runtime.device import Compute, choose_compute, tf32


def on_gpu(precision: str) -> Compute:
    return Compute(torch.device("cuda"), "found", precision, "as given")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capability", "allowed", "precision", "convolutions"),
    [((8, 0), True, "fp32", True), ((9, 0), True, "fp32", True), ((7, 0), True, "fp32", False), ((8, 0), False, "fp32", False),
     ((8, 0), True, "bf16", False)],
)  # fmt: skip
def test_tf32_is_said_where_a_gpu_rounds_to_it(
    capability: tuple[int, int], allowed: bool, precision: str, convolutions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert tf32(on_gpu(precision)) == {"convolutions": convolutions, "products": False}
    said = device._choose_precision(precision, torch.device("cuda"))[1]
    assert said == ("as given, convolutions in TF32" if convolutions else "as given")


def test_a_cpu_has_no_tf32() -> None:
    compute = choose_compute("cpu", "fp32")
    assert tf32(compute) == {"convolutions": False, "products": False}
    assert str(compute) == "device cpu (as given)   precision fp32 (as given)"
