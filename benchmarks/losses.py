"""What the losses cost beside torch's cross-entropy: forward plus backward, pairs alternated in one run, and peak memory.

    python benchmarks/losses.py [--classes 19 150] [--size 512] [--rounds 9] [--load] [--slow] [--device cpu] [--save [NOTE]]

Batch 4, logits float32 (on a GPU also bf16), labels blocky (32-pixel squares) and random.
  cross_entropy     torch.nn.functional.cross_entropy on hard labels: 1.00 by definition
  jaccard           JDTLoss on hard labels
  jaccard_soft      JDTLoss on soft labels
  ce_jaccard        CrossEntropyLoss and JDTLoss on the same logits and hard labels, as a preset's loss reads them
  kl_jaccard_soft   KLLoss and JDTLoss on the same logits and soft labels
  --slow adds jaccard_plain and jaccard_soft_plain, the same without the fast way, and Lovász-Softmax
Prints median milliseconds, and the median over the rounds of each loss's time over cross-entropy's in that round; then the
peak memory above logits and labels, the logits' gradient included, in multiples of the logits: by resident size in a fresh
process, or by the CUDA allocator.  --load keeps every core busy with another process meanwhile, as data workers do.
--save keeps the result (benchmarks/record.py).
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import record
import torch
import torch.nn.functional as F
from torch import Tensor

from segctl.losses import CrossEntropyLoss, JDTLoss, KLLoss, LossTerms, LovaszSoftmaxLoss, NamedLoss
from segctl.losses.sums.choose import plain

BATCH = 4
SOFT = ("jaccard_soft", "kl_jaccard_soft", "jaccard_soft_plain")
USUAL = ("cross_entropy", "jaccard", "jaccard_soft", "ce_jaccard", "kl_jaccard_soft")
SLOW = ("jaccard_plain", "jaccard_soft_plain", "lovasz")


def task_loss(pixel: CrossEntropyLoss | KLLoss) -> Callable[[Tensor, Tensor], Tensor]:
    """A quarter of the pixel loss and three quarters of the metric loss, as in the JML recipe."""
    metric = JDTLoss(ignore_index=255, smooth=1.0)
    terms = LossTerms([NamedLoss("pixel", "main", 0.25, pixel), NamedLoss("metric", "main", 0.75, metric)])

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        values = terms(lambda output: logits, label)
        return 0.25 * values["pixel"] + 0.75 * values["metric"]

    return loss


def rival(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    match name:
        case "cross_entropy":
            return lambda logits, label: F.cross_entropy(logits, label, ignore_index=255)
        case "ce_jaccard":
            return task_loss(CrossEntropyLoss())
        case "kl_jaccard_soft":
            return task_loss(KLLoss())
        case "lovasz":
            return LovaszSoftmaxLoss()
        case _:
            return JDTLoss(ignore_index=255, smooth=1.0)


def make_logits(classes: int, size: int, device: str, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(BATCH, classes, size, size, device=device).mul_(3).to(dtype).requires_grad_()


def make_label(kind: str, classes: int, size: int, device: str) -> Tensor:
    if kind == "soft":
        return torch.randn(BATCH, classes, size, size, device=device).mul_(3).softmax(1)
    if kind == "random":
        return torch.randint(0, classes, (BATCH, size, size), device=device)
    blocks = torch.randint(0, classes, (BATCH, size // 32, size // 32), device=device)
    return blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)


def step(name: str, logits: Tensor, label: Tensor) -> float:
    """Milliseconds of one forward and backward pass."""
    logits.grad = None
    loss = rival(name)
    with plain() if name.endswith("plain") else nullcontext():
        if logits.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        loss(logits, label).backward()
        if logits.is_cuda:
            torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def _spin() -> None:
    while True:
        sum(range(10_000))


@contextmanager
def every_core_busy(wanted: bool) -> Iterator[None]:
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)] if wanted else []
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()


def compare_times(case: str, names: tuple[str, ...], logits: Tensor, hard_kind: str, rounds: int) -> Iterator[record.Figure]:
    classes, size, device = logits.shape[1], logits.shape[2], str(logits.device)
    hard = make_label(hard_kind, classes, size, device)
    soft = make_label("soft", classes, size, device)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            taken = step(name, logits, soft if name in SOFT else hard)
            if number > 0:
                times[name].append(taken)
    for name in names:
        ratios = [mine / other for mine, other in zip(times[name], times["cross_entropy"], strict=True)]
        yield record.timed(case, name, times[name], "ms", ratios, "this / cross_entropy")


def measure_memory(name: str, classes: int, size: int, device: str, dtype: torch.dtype) -> float:
    """Peak above logits and labels, in logits; meant for a fresh process, because memory once freed stays resident."""
    small = make_logits(classes, 64, device, dtype)
    step(name, small, make_label("soft" if name in SOFT else "random", classes, 64, device))  # libraries load, buffers settle
    logits, label = (
        make_logits(classes, size, device, dtype),
        make_label("soft" if name in SOFT else "random", classes, size, device),
    )
    if logits.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(name, logits, label)
        return (torch.cuda.max_memory_allocated() - before) / logits.nbytes
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    step(name, logits, label)
    return (_status("VmHWM") - before) / logits.nbytes


def _status(field: str) -> int:
    """Bytes of a field of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    parser.add_argument("--size", type=int, default=512, help="height and width")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--load", action="store_true", help="keep every core busy with another process")
    parser.add_argument("--slow", action="store_true", help="add the plain way and Lovász-Softmax")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    record.add_options(parser)
    arguments = parser.parse_args()
    if arguments.memory_of:
        dtype = getattr(torch, arguments.dtype)
        print(measure_memory(arguments.memory_of, arguments.classes[0], arguments.size, arguments.device, dtype))
        return
    about = "Forward and backward pass of each loss against torch's cross-entropy, and the peak memory of each."
    budget = record.Budget(arguments.rounds, 1, [0], f"{arguments.rounds} rounds, in each of which every loss takes one step")
    record.run("losses", about, arguments, measure(arguments), budget)


def measure(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    names = USUAL + SLOW if arguments.slow else USUAL
    for classes in arguments.classes:
        for dtype in ("float32", "bfloat16") if arguments.device != "cpu" else ("float32",):
            yield from compare(names, classes, dtype, arguments)


def compare(names: tuple[str, ...], classes: int, dtype: str, arguments: argparse.Namespace) -> Iterator[record.Figure]:
    case = f"{classes} classes, {dtype}"
    logits = make_logits(classes, arguments.size, arguments.device, getattr(torch, dtype))
    for kind in ("blocky", "random"):
        with every_core_busy(arguments.load):
            yield from compare_times(f"{case}, {kind} labels", names, logits, kind, arguments.rounds)
    del logits
    for name in names:
        if record.on_pretend_device():
            yield record.left_out(f"{case}, peak memory", name, "× logits", "the pretend device has no memory of its own")
            continue
        command = [sys.executable, __file__, "--memory-of", name, "--classes", str(classes), "--size", str(arguments.size)]
        command += ["--device", arguments.device, "--dtype", dtype]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        yield record.Figure(f"{case}, peak memory", name, float(found), "× logits", "one run")


if __name__ == "__main__":
    main()
