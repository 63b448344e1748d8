"""What losses on head-stride logits cost beside torch's upsampling and cross-entropy: forward plus backward, and peak memory.

    python benchmarks/losses_at_stride.py [--classes 19] [--grid 64] [--size 512] [--rounds 9] [--save [NOTE]]

Batch 4, float32, a label of 32-pixel squares. Everything begins at logits (4, C, grid, grid) and ends at their gradient.
  cross_entropy      torch's bilinear upsampling and torch.nn.functional.cross_entropy: 1.00 by definition
  ce_jaccard         CrossEntropyLoss and JDTLoss by `LossTerms`, as a training step calls them: at head stride
  ce_jaccard_large   the same after torch's upsampling
  ce                 CrossEntropyLoss alone, at head stride
  soft               soft KL and soft Jaccard of JML-KD against a teacher's head-stride logits
  soft_large         the same after upsampling both
All rivals take one step a round. Prints the median milliseconds, and the median over the rounds of each rival's time over
cross_entropy's in that round; the same for the process's CPU time, which other processes disturb less. Then the peak resident
memory above the inputs, in fresh processes, in multiples of the upsampled logits. --save keeps the result (benchmarks/record.py).
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import record
import torch
from losses import _status, make_label
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.jml import SoftJDT, SoftKL
from segctl.losses import CrossEntropyLoss, JDTLoss, LossTerms, NamedLoss
from segctl.losses.sums import choose
from segctl.models.outputs import Outputs, Prediction

BATCH = 4
RIVALS = ("cross_entropy", "ce_jaccard", "ce_jaccard_large", "ce", "soft", "soft_large")
PAIR = LossTerms(
    [
        NamedLoss("pixel", "main", 0.25, CrossEntropyLoss()),
        NamedLoss("metric", "main", 0.75, JDTLoss(ignore_index=255, smooth=1.0)),
    ]
)
ALONE = LossTerms([NamedLoss("pixel", "main", 1.0, CrossEntropyLoss())])
SOFT = (SoftKL(), SoftJDT(JDTLoss(smooth=1.0)))


def step(rival: str, logits: Tensor, teacher: Tensor, label: Tensor) -> None:
    logits.grad = None
    size = (label.shape[1], label.shape[2])
    if rival == "cross_entropy":
        F.cross_entropy(F.interpolate(logits, size, mode="bilinear"), label, ignore_index=255).backward()
        return
    usual = choose.WORTHWHILE
    outputs, theirs = (Outputs(Prediction(maps, None, None), size) for maps in (logits, teacher))
    if rival.startswith("soft"):
        choose.WORTHWHILE = sys.maxsize if rival.endswith("large") else usual  # then nothing is read at head stride
        values = [term(outputs, theirs, label) for term in SOFT]
        choose.WORTHWHILE = usual
    else:
        terms, at_stride = ALONE if rival == "ce" else PAIR, None if rival.endswith("large") else outputs.at_head_stride
        values = list(terms(outputs.upsampled, label, label != 255, at_stride).values())
    torch.stack(values).sum().backward()


def inputs(classes: int, grid: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(BATCH, classes, grid, grid).mul_(3).requires_grad_()
    return logits, torch.randn(BATCH, classes, grid, grid).mul_(3), make_label("blocky", classes, size, "cpu")


def compare(case: str, rounds: int, *tensors: Tensor) -> Iterator[record.Figure]:
    taken: dict[str, list[float]] = {rival: [] for rival in RIVALS}
    worked: dict[str, list[float]] = {rival: [] for rival in RIVALS}
    for number in range(rounds + 1):
        for rival in RIVALS if number % 2 else RIVALS[::-1]:
            began, cpu = time.perf_counter(), time.process_time()
            step(rival, *tensors)
            if number > 0:
                taken[rival].append(1000 * (time.perf_counter() - began))
                worked[rival].append(1000 * (time.process_time() - cpu))
    for kind, times in (("time", taken), ("CPU time", worked)):
        for rival in RIVALS:
            ratios = [mine / other for mine, other in zip(times[rival], times["cross_entropy"], strict=True)]
            yield record.timed(f"{case}, {kind}", rival, times[rival], "ms", ratios, "this / cross_entropy")


def peak(rival: str, classes: int, grid: int, size: int) -> float:
    step(rival, *inputs(classes, 8, 64))  # libraries load
    logits, teacher, label = inputs(classes, grid, size)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    step(rival, logits, teacher, label)
    return (_status("VmHWM") - before) / (logits.nbytes * size**2 // grid**2)


def rerun(rival: str, arguments: argparse.Namespace) -> float:
    """The peak of a rival in a fresh process, because memory once freed stays resident."""
    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("classes", "grid", "size")]
    command = [sys.executable, __file__, f"--memory-of={rival}", *sizes]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    classes, grid, size = arguments.classes, arguments.grid, arguments.size
    case = f"{BATCH}×{classes}×{grid}×{grid} to {size}×{size}"
    yield from compare(case, arguments.rounds, *inputs(classes, grid, size))
    for rival in RIVALS:
        yield record.Figure(f"{case}, peak memory", rival, rerun(rival, arguments), "× upsampled logits", "one run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--grid", type=int, default=64, help="height and width at head stride")
    parser.add_argument("--size", type=int, default=512, help="height and width of the label")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    record.add_options(parser)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak(arguments.memory_of, arguments.classes, arguments.grid, arguments.size))
        return
    about = "Losses on head-stride logits against torch's upsampling and cross-entropy, forward and backward."
    budget = record.Budget(arguments.rounds, 1, [0], f"{arguments.rounds} rounds, in each of which every rival takes one step")
    record.run("losses_at_stride", about, arguments, measure(arguments), budget)


if __name__ == "__main__":
    main()
