"""The kernels of rows of similarities: in Triton's interpreter, through NVIDIA's assembler, and what happens where they fail."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interpreted import WHY_NOT, assembled, interpret
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segctl.distillers.rows import on_gpu
from segctl.distillers.rows.divergence import row_divergence
from segctl.distillers.rows.on_gpu import backward_tiles, checked_divergence, forward_tiles, kernel_divergence
from segctl.distillers.rows.plain import SimilarityRows, plain_divergence
from segctl.runtime import fast_way

ROWS = Path(__file__).with_name("interpreted_rows.py")


def compared(number: int = 6, device: str = "cpu") -> SimilarityRows:
    torch.manual_seed(0)
    rows, theirs = (F.normalize(torch.randn(number, 8), dim=1).to(device) for _ in range(2))
    keys, their_keys = (F.normalize(torch.randn(2, number, 8), dim=2).to(device) for _ in range(2))
    counted = (torch.arange(number) != 1).to(device)
    return SimilarityRows(rows.requires_grad_(), keys.requires_grad_(), theirs, their_keys, 0.1, counted)


@pytest.mark.slow
def test_interpreted_kernels_give_value_and_gradients_of_float64() -> None:
    assert interpret(ROWS) == "right"


@pytest.mark.slow
def test_interpreted_kernels_in_many_cases() -> None:
    assert interpret(ROWS, "long") == "right"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 89, 90])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("width", [128, 512])
def test_no_architecture_spills_a_register(architecture: int, full: bool, width: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason=WHY_NOT)
    from segctl.distillers.rows import kernels

    vectors = ("rows", "keys", "teacher_rows", "teacher_keys", "own", "other", "teacher_own", "teacher_other")
    numbers = ("found", "log_sums", "teacher_log_sums", "factor", "out")
    types: dict[str, object] = dict.fromkeys(vectors, "*fp32" if full else "*fp16") | dict.fromkeys(numbers, "*fp32")
    types |= dict.fromkeys(("counted", "counted_keys"), "*u8") | dict.fromkeys(("per_temperature", "nowhere"), "fp32")
    switches = {"FULL": full, "MASKED": True, "MASKED_KEYS": True, "PULL": on_gpu.PULL}
    to_keys = backward_tiles(full, width) | switches | {"TO_KEYS": True}
    for kernel, constants in (
        (kernels.row_divergences, forward_tiles(full) | switches),
        (kernels.row_gradients, to_keys),
        (kernels.row_gradients, to_keys | {"TO_KEYS": False}),
    ):
        sixteens = [name for name in kernel.arg_names if str(types.get(name)).startswith("*") or name.endswith("width")]
        registers, spilled = assembled(kernel, architecture, constants, types, tmp_path, sixteens)
        print(f"{kernel.fn.__name__} sm_{architecture} full={full} D={width}: {registers} registers, {spilled} bytes spilled")
        assert spilled == 0


def test_by_hand() -> None:
    """Similarities of 1 and 0 over 1/ln 3 are probabilities of 3/4 and 1/4; two equal ones are 1/2 each."""
    row, keys = torch.tensor([[1.0, 0.0]]).requires_grad_(), torch.eye(2).unsqueeze(0)
    value = row_divergence(row, keys, torch.full((1, 2), 0.5**0.5), keys, 1 / math.log(3))
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    assert torch.autograd.grad(value, row)[0].flatten().tolist() == pytest.approx([math.log(3) / 4, -math.log(3) / 4])


class Launches(TorchDispatchMode):
    """Names the operations that are neither views nor allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not name.startswith(("view", "detach", "empty", "unbind", "slice", "alias", "select")):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def idle(started: list[tuple[str, tuple[int, ...]]]) -> SimpleNamespace:
    """Kernels that do nothing but say here that they were started."""

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **options: started.append((self.name, grid))

    return SimpleNamespace(row_divergences=Kernel("forward"), row_gradients=Kernel("backward"))


@pytest.mark.parametrize("number", [6, 600])
def test_a_comparison_is_few_launches_whatever_its_size(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, tuple[int, ...]]] = []
    monkeypatch.setattr(on_gpu, "_kernels", lambda: idle(started))
    of = compared(number)
    with Launches() as count:
        kernel_divergence(of, full=False).backward()
    tiles = -(-number // 128), -(-number // 64)
    assert started == [("forward", (tiles[0], 2)), ("backward", (tiles[1], 1, 1)), ("backward", (tiles[1], 1, 2))]
    assert len(count.names) <= 20, count.names  # four roundings, four fillings up to 64 channels, the count, and the mean


@pytest.fixture
def _no_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_way, "_verdicts", {})


@pytest.mark.usefixtures("_no_verdicts")
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("factor", "taken"), [(1.0, True), (1.02, False)])
def test_kernels_that_give_other_numbers_are_left_with_a_reason(
    full: bool, factor: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_if(of: SimilarityRows, full: bool) -> Tensor:
        value = plain_divergence(of)
        return value + (factor - 1) * (value - value.detach())  # only the gradient is wrong

    monkeypatch.setattr(on_gpu, "kernel_divergence", as_if)
    if taken:
        assert on_gpu._are_right(compared(), full)
        return
    with pytest.warns(UserWarning, match="GPU kernels .similarities.: they differ from torch's own operations by 0.02"):
        assert not on_gpu._are_right(compared(), full)
    assert not on_gpu._are_right(compared(), full)  # without a second warning, which would be an error in this suite


@pytest.mark.usefixtures("_no_verdicts")
def test_kernels_that_cannot_run_are_left_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> Tensor:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(on_gpu, "kernel_divergence", fail)
    of = compared()
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="cannot be built or run here .*no kernel image is available"):
        assert not on_gpu._are_right(of, full=True)
    assert torch.equal(torch.get_rng_state(), before)  # a run that is resumed checks again, and draws as one that was not stopped


def test_what_learns_nothing_is_tried_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_way, "_verdicts", {})
    monkeypatch.setattr(on_gpu, "kernel_divergence", lambda of, full: plain_divergence(of))
    of = compared()
    assert on_gpu._are_right(of._replace(rows=of.rows.detach(), keys=of.keys.detach()), full=True)


def test_a_cpu_does_not_try_kernels() -> None:
    assert checked_divergence(compared(1100)) is None


@pytest.mark.gpu
@pytest.mark.usefixtures("_no_verdicts")
@pytest.mark.parametrize("permitted", ["highest", "high"])
def test_a_gpu_takes_the_kernels(permitted: str) -> None:
    """On one older than Ampere torch's own operations are the way, and the test is skipped."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("wants compute capability 8.0")
    usual = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(permitted)
        of = compared(1100, "cuda")
        found = checked_divergence(of)
        assert found is not None
        torch.testing.assert_close(found, plain_divergence(of), rtol=1e-4 if permitted == "highest" else 2e-3, atol=0.0)
    finally:
        torch.set_float32_matmul_precision(usual)
