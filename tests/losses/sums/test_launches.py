"""How many operations the losses of JML-KD start on a GPU. Each is a launch, and none may be added by a larger batch."""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.distillers.seen import labelled_pixels
from segctl.losses import build_losses
from segctl.losses.pixels import assert_class_ids
from segctl.losses.sums import choose, fast, on_gpu
from segctl.losses.sums.plain import plain_sums
from segctl.models.outputs import Outputs, Prediction
from segctl.runtime import fast_way
from segctl.schema.terms.loss_terms import CrossEntropySpec, JDTSpec
from segctl.schema.terms.methods import METHODS

VIEWS = ("view", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose", "permute", "as_strided", "detach", "alias",
         "t.", "unbind", "empty", "_unsafe_view", "split", "lift_fresh", "is_same_size", "resolve")  # fmt: skip


MOST = 40
"""Most launches of a process that trains alone, with 22 kernels: four for each of 4 readings, one for each of 6 losses."""


MOST_COMPILED = 140
"""The same where the kernels do not serve and torch compiles sums: what is around the compiled ones."""


class Launches(TorchDispatchMode):
    """Counts operations that are neither views nor allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not str(func).removeprefix("aten.").startswith(VIEWS)
        return func(*args, **(kwargs or {}))


def losses_of_jml(images: int, count: Launches) -> None:
    torch.manual_seed(0)
    student = Prediction(*(torch.randn(images, 5, 4, 6, requires_grad=True) for _ in range(2)), None)
    teacher = Prediction(*(torch.randn(images, 5, 4, 6) for _ in range(2)), None)
    label = torch.randint(0, 5, (images, 16, 24)).to(torch.uint8)
    recipe = METHODS["jml"]
    assert recipe is not None
    distiller = build_distiller(recipe, Pair(Shape(5, 1, (4, 6), (4, 6), (4, 6)), Shape(5, 1, (4, 6), (4, 6), (4, 6))))
    task = build_losses([CrossEntropySpec(weight=0.25), JDTSpec(weight=0.75), CrossEntropySpec(logits="aux", weight=0.4)], 5)
    ours, theirs = Outputs(student, (16, 24)), Outputs(teacher, (16, 24))
    with count:
        values = task(ours.upsampled, label, labelled_pixels(ours, label), ours.at_head_stride) | distiller(ours, theirs, label)
        torch.stack(list(values.values())).sum().backward()


def launches(images: int) -> int:
    count = Launches()
    losses_of_jml(images, count)
    return count.number


def test_without_kernels_the_number_does_not_grow_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a GPU: the whole batch at once, after upsampling."""
    monkeypatch.setattr(choose, "sums_at_stride", lambda *arguments: None)
    monkeypatch.setattr("segctl.losses.weighted_terms.sums_at_stride", lambda *arguments, **options: None)
    monkeypatch.setattr("segctl.distillers.jml.sums_at_stride", lambda *arguments: None)
    whole = property(lambda reading: (reading.logits.shape[0], reading.logits.shape[2]))
    monkeypatch.setattr(fast.Reading, "block_shape", whole)
    assert launches(2) == launches(16)


NAMES = ("sum_cells", "add_groups", "cell_gradients", "add_corners", "mean_of_sums", "ratio_of_sums")


def idle_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kernels that do nothing but say here that they were started; class ids are checked as a GPU checks them."""
    started: list[str] = []

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **options: started.append(self.name)

    kernels = SimpleNamespace(**{name: Kernel(name) for name in NAMES})
    monkeypatch.setattr(on_gpu, "triton_kernels", lambda: kernels)
    monkeypatch.setattr(fast_way, "is_right", lambda *arguments: True)
    monkeypatch.setattr("segctl.losses.weighted_terms.check_class_ids", assert_class_ids)
    return started


def test_with_kernels_the_number_is_smaller_and_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operations around the kernels are real."""
    started = idle_kernels(monkeypatch)

    def by_kernels(logits: Tensor, label: Any, size: Any, valid: Any, norm: int, with_log: bool = False) -> Any:
        return on_gpu.kernel_sums(logits, label, size, valid, norm, with_log)

    monkeypatch.setattr("segctl.losses.weighted_terms.sums_at_stride", by_kernels)
    monkeypatch.setattr("segctl.distillers.jml.sums_at_stride", by_kernels)
    launches(2)  # the tables of places are made once
    started.clear()
    found = [launches(images) for images in (2, 16)]
    assert found[0] == found[1]
    readings = 4  # main and auxiliary logits, against the label and against the teacher
    losses = {"mean_of_sums": 4, "ratio_of_sums": 2}
    assert Counter(started) == {**dict.fromkeys(NAMES[:4], 2 * readings), **{name: 2 * n for name, n in losses.items()}}
    assert found[0] + len(started) // 2 <= MOST


class Compiled(torch.autograd.Function):
    """In place of sums that torch compiles: two tables, and nothing that counts."""

    calls = 0

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        Compiled.calls += 1
        ctx.save_for_backward(logits)
        learned, counted = (torch.empty(3, *logits.shape[:2]) for _ in range(2))
        ctx.mark_non_differentiable(counted)
        return learned, counted

    @staticmethod
    def backward(ctx: Any, *of_tables: Tensor) -> Tensor:
        return torch.empty_like(ctx.saved_tensors[0])


def test_compiled_sums_become_losses_in_one_kernel_each(monkeypatch: pytest.MonkeyPatch) -> None:
    started = idle_kernels(monkeypatch)
    monkeypatch.setattr(on_gpu, "_compiled_tables", lambda: lambda logits, *others: Compiled.apply(logits))
    monkeypatch.setattr(on_gpu, "find_spec", lambda name: True)
    monkeypatch.setattr(choose, "block_sums", on_gpu.checked_compiled_sums)
    monkeypatch.setattr(choose, "WORTHWHILE", 0)
    monkeypatch.setattr("segctl.losses.weighted_terms.sums_at_stride", lambda *arguments, **options: None)
    monkeypatch.setattr("segctl.distillers.jml.sums_at_stride", lambda *arguments: None)
    found = [launches(images) for images in (2, 16)]
    assert found[0] == found[1] <= MOST_COMPILED
    assert Compiled.calls == 4  # cross-entropy and Jaccard of the main logits, and Jaccard against the teacher; twice
    assert Counter(started) == {"mean_of_sums": 2, "ratio_of_sums": 4}


@pytest.mark.slow
def test_compiled_sums_are_those_of_torch_s_own_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_way, "_verdicts", {})
    monkeypatch.setattr(on_gpu, "find_spec", lambda name: True)
    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 8, 9), torch.randint(0, 5, (2, 8, 9))
    valid = torch.rand(2, 8, 9) > 0.2
    with torch.compiler.set_stance("force_eager"):
        for target in (label, torch.rand(2, 5, 8, 9).softmax(1)):
            found = on_gpu.checked_compiled_sums(logits, target, valid, 1, True)
            assert isinstance(found, on_gpu.SumTables)
            for mine, theirs in zip(found, plain_sums(logits, target, valid, 1, True), strict=True):
                torch.testing.assert_close(mine, theirs)
        many = on_gpu.checked_compiled_sums(torch.randn(1, 257, 2, 2), label[:1, :2, :2], None, 1, True)
    assert not isinstance(many, on_gpu.SumTables)  # the kernels take 256 classes
