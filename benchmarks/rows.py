"""What CIRKD's rows of similarities cost by Triton kernels, which keep none of them, beside torch's own operations.

    python benchmarks/rows.py [--grid 64 128] [--batch 8] [--width 512] [--rounds 9] [--save [NOTE]]

Forward plus backward, and the most memory allocated above the inputs. Random unit vectors; the sizes are those of 512 by 1024
crops at stride 8 and 19 classes.
  images    all pixels of two images with all pixels of both, as often as a batch has pairs; gradients to both sides
  pixels    all pixels of a batch with 4,104 stored pixels
  regions   all pixels of a batch with 1,026 stored regions
Each in full float32 and where TF32 is permitted, as beside bf16 and fp16; the kernels then round vectors to float16.
plain is torch's own way, kernels ours; both take one step a round. Where the kernels do not serve, a line says why.
TFLOP/s counts 2·M·N·D for each product of plain, so that both do the same work. Then the relative difference of the two values.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import record
import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.rows import on_gpu
from segctl.distillers.rows.plain import SimilarityRows, plain_divergence


def unit(device: str, *shape: int) -> Tensor:
    return F.normalize(torch.randn(shape, device=device), dim=-1)


def inputs(case: str, arguments: argparse.Namespace) -> tuple[SimilarityRows, int]:
    """What is compared, and how often a step does so."""
    torch.manual_seed(0)
    pixels, device, width = arguments.grid[0] * arguments.grid[1], arguments.device, arguments.width
    if case == "images":
        ours, theirs = (unit(device, 2, pixels, width) for _ in range(2))
        rows = ours.flatten(0, 1).requires_grad_()
        return SimilarityRows(rows, ours.clone().requires_grad_(), theirs.flatten(0, 1), theirs, 0.1), max(
            1, arguments.batch // 2
        )
    number = arguments.batch * pixels
    stored = unit(device, 1, 4104 if case == "pixels" else 1026, width)
    counted = torch.rand(number, device=device) < 0.9
    return SimilarityRows(
        unit(device, number, width).requires_grad_(), stored, unit(device, number, width), stored, 0.1, counted
    ), 1


def timed_step(of: SimilarityRows, times: int, divergence_of: Callable[[SimilarityRows], Tensor]) -> tuple[float, float, float]:
    """Milliseconds, MiB above the inputs (0 on a CPU), and the value."""
    on_cuda = of.rows.is_cuda
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.cuda.synchronize()
    began = time.perf_counter()
    learned = [x for x in of[:2] if isinstance(x, Tensor) and x.requires_grad]
    for _ in range(times):
        value = divergence_of(of)
        torch.autograd.grad(value, learned)
    if on_cuda:
        torch.cuda.synchronize()
    taken = 1000 * (time.perf_counter() - began)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if on_cuda else 0.0
    return taken, peak, value.item()


def why_no_kernels(of: SimilarityRows) -> str:
    """Why `checked_divergence` takes torch's own operations."""
    if not of.rows.is_cuda:
        return "they need a GPU"
    if len(of.rows) * of.keys[..., 0].numel() < on_gpu.FEWEST_SIMILARITIES:
        return f"fewer than {on_gpu.FEWEST_SIMILARITIES:,} similarities, which torch's own operations take faster"
    if torch.cuda.get_device_capability(of.rows.device) < (8, 0):
        return "they need compute capability 8.0"
    return "they cannot be built or run here, or are wrong, as the warning says"


def measure(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    before = torch.get_float32_matmul_precision()
    try:
        for permitted in ("highest", "high"):
            torch.set_float32_matmul_precision(permitted)
            yield from measure_cases(arguments, full=permitted == "highest")
    finally:
        torch.set_float32_matmul_precision(before)


def measure_cases(arguments: argparse.Namespace, full: bool) -> Iterator[record.Figure]:
    """The three comparisons; full: products of float32 stay in full precision."""
    for case in ("images", "pixels", "regions"):
        of, times = inputs(case, arguments)
        rivals: dict[str, Callable[[SimilarityRows], Tensor]] = {"plain": plain_divergence}
        kernels = on_gpu.checked_divergence(of) is not None  # it warns where they fail
        if kernels:
            rivals["kernels"] = lambda each: on_gpu.kernel_divergence(each, full)
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rivals}
        for number in range(arguments.rounds + 1):
            for name in list(rivals)[:: 1 if number % 2 else -1]:
                step = timed_step(of, times, rivals[name])
                if number > 0:
                    found[name].append(step)
        products = 4 if of.keys.requires_grad else 3
        work = 2e-12 * times * products * len(of.rows) * of.keys[..., 0].numel() * arguments.width
        reference = found["plain"]
        name_of_case = f"{case}, {'float32' if full else 'TF32 permitted'}"
        for name, steps in found.items():
            ratios = [mine[0] / other[0] for mine, other in zip(steps, reference, strict=True)]
            figure = record.timed(name_of_case, name, [step[0] for step in steps], "ms", ratios, "this / plain")
            assert figure.value is not None
            figure.more.update({
                "TFLOP/s": work / (figure.value / 1000),
                "peak MiB": max(step[1] for step in steps),
                "difference of value": abs(steps[0][2] / reference[0][2] - 1),
            })  # fmt: skip
            yield figure
        if not kernels:
            yield record.left_out(name_of_case, "kernels", "ms", why_no_kernels(of))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, nargs=2, default=(64, 128), metavar=("h", "w"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=512, help="channels of student and teacher")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    record.add_options(parser)
    arguments = parser.parse_args()
    about = "Rows of similarities by Triton kernels against torch's own operations, forward and backward."
    budget = record.Budget(arguments.rounds, 1, [0], f"{arguments.rounds} rounds, in each of which each way takes one step")
    record.run("rows", about, arguments, measure(arguments), budget)


if __name__ == "__main__":
    main()
