"""The GPU kernels, in Triton's interpreter and through NVIDIA's assembler, and what happens where they fail."""

from pathlib import Path

import pytest
import torch
from interpreted import assembled, interpret

from segctl.losses.sums import on_gpu
from segctl.losses.sums.on_gpu import checked_sums, group_constants, kernel_constants
from segctl.losses.sums.plain import Sums
from segctl.runtime import fast_way

KERNELS = Path(__file__).with_name("interpreted_kernels.py")
ARCHITECTURES = (75, 80, 89, 90)
CHANGES = {
    "logits": "*bf16",
    "theirs": "*bf16",
    "valid": "*u8",
    "out": "*fp32",
    "grads": "*fp32",
    "tall": "*fp32",
    "wide": "*fp32",
}


@pytest.mark.slow
def test_interpreted_kernels_give_the_sums_and_gradients_of_float64() -> None:
    assert interpret(KERNELS) == "right"


@pytest.mark.slow
def test_interpreted_kernels_over_every_option() -> None:
    assert interpret(KERNELS, "long") == "right"


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 16, 19, 64, 150, 256])
@pytest.mark.parametrize("hard", [True, False])
def test_no_architecture_spills(classes: int, hard: bool, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
    from segctl.losses.sums import kernels

    for kernel in (kernels.sum_cells, kernels.cell_gradients):
        for architecture in ARCHITECTURES:
            registers, spilled = assemble(kernel, architecture, classes, hard, tmp_path)
            print(
                f"{kernel.fn.__name__} sm_{architecture} C={classes} hard={hard}: {registers} registers, {spilled} bytes spilled"
            )
            assert spilled == 0


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_of_few_classes_spill_for_no_number_of_them(architecture: int, tmp_path: Path) -> None:
    """There the assembler chooses the number of registers by rules of its own, and spills for one number and not for the next."""
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
    from segctl.losses.sums import kernels

    spilled = {classes: assemble(kernels.sum_cells, architecture, classes, True, tmp_path)[1] for classes in range(2, 17)}
    assert spilled == dict.fromkeys(range(2, 17), 0)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [19, 256])
def test_the_kernels_of_losses_are_assembled_without_spilling(classes: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
    from segctl.losses.sums import kernels

    switches = ("ENTROPY", "WEIGHTED", "ALL", "LOG", "POWER", "OVER_BATCH", "BY_IMAGE")
    constants = {**group_constants(classes), **dict.fromkeys(switches, True)}
    types: dict[str, object] = dict.fromkeys(("parts", "learned", "counted", "weights", "value", "gradient"), "*fp32")
    numbers = ("scale", "floor", "miou_d", "miou_i", "miou_c", "alpha", "beta", "gamma", "smooth", "threshold")
    types |= dict.fromkeys(numbers, "fp32")
    for kernel in (kernels.add_groups, kernels.mean_of_sums, kernels.ratio_of_sums):
        for architecture in ARCHITECTURES:
            _, spilled = assembled(kernel, architecture, constants, types, tmp_path)
            assert spilled == 0


def assemble(kernel: object, architecture: int, classes: int, hard: bool, folder: Path) -> tuple[int, int]:
    """Registers and bytes spilled of a kernel that reads logits, as NVIDIA's assembler reports them."""
    switches = {"CELLS": on_gpu.CELLS_AT_ONCE, "HARD": hard, "MASKED": True, "SQUARES": False, "WITH_LOG": True}
    types: dict[str, object] = {"label": "*i64" if hard else "*bf16", "strides": ("i32",) * 4, "their_strides": ("i32",) * 4}
    types |= dict.fromkeys(("first_row", "first_column"), "*i32") | {f"their_{name}": "*fp32" for name in ("tall", "wide")}
    return assembled(kernel, architecture, kernel_constants(classes) | switches, CHANGES | types, folder)


def ask() -> Sums | None:
    torch.manual_seed(0)
    return checked_sums(torch.randn(3, 4, 2, 2), torch.randint(0, 4, (3, 8, 8)), (8, 8), None, 1, True)


@pytest.fixture(autouse=True)
def _no_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_way, "_verdicts", {})
    monkeypatch.setattr(on_gpu, "find_spec", lambda name: name)


def test_kernels_that_cannot_run_are_left_with_a_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> Sums:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(on_gpu, "kernel_sums", fail)
    with pytest.warns(UserWarning, match="cannot be built or run here .*no kernel image is available"):
        assert ask() is None
    assert ask() is None  # without a second warning, which would be an error in this suite


@pytest.mark.parametrize(("factor", "taken"), [(1.0, True), (1.01, False)])
def test_kernels_that_give_other_numbers_are_left_with_a_reason(
    factor: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(logits, label, size, valid, norm, with_log):  # type: ignore[no-untyped-def]
        call = on_gpu.KernelCall(size, norm, with_log, hard=True, align_corners=False)
        sums = on_gpu.plain_at_size(logits, label, valid, call)
        return sums._replace(predicted=factor * sums.predicted)

    monkeypatch.setattr(on_gpu, "kernel_sums", wrong)
    if taken:
        assert ask() is not None
        return
    with pytest.warns(UserWarning, match="they differ from torch's own operations by"):
        assert ask() is None


def test_what_the_kernels_do_not_take_is_not_tried() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    assert checked_sums(torch.randn(1, 3, 2, 2).double(), label, (4, 4), None, 1, True) is None
    assert checked_sums(torch.randn(1, 257, 2, 2), label, (4, 4), None, 1, True) is None
    assert checked_sums(torch.randn(1, 3, 2, 2), torch.rand(1, 3, 4, 4), (4, 4), None, 1, True) is None


def test_the_check_draws_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed checks again, and must go on with the numbers of the run that was not interrupted."""
    monkeypatch.setattr(on_gpu, "kernel_sums", lambda x, y, size, valid, *rest: on_gpu.plain_at_size(
        x, y, valid, on_gpu.KernelCall(size, *rest, hard=True, align_corners=False)))  # fmt: skip
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 2, 2)
    before = torch.get_rng_state()
    assert checked_sums(logits, torch.zeros(3, 8, 8, dtype=torch.long), (8, 8), None, 1, True) is not None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_takes_the_kernels(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 19, 16, 32, device="cuda").to(dtype)
    label = torch.randint(0, 19, (4, 128, 256), device="cuda")
    monkey = checked_sums(logits, label, (128, 256), label != 0, 1, True)
    assert monkey is not None
