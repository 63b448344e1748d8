"""Run with TRITON_INTERPRET=1: the divergence of rows by the kernels against its formula in float64.

Called by `test_row_kernels`.
"""

import math
import random
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from triton._C.libtriton.ir import INPUT_PRECISION
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from segctl.distillers.rows import on_gpu
from segctl.distillers.rows.on_gpu import kernel_divergence
from segctl.distillers.rows.plain import SimilarityRows

FULL = {"value": 1e-5, "gradient": 1e-4}
HALF = {"value": 2e-3, "gradient": 1e-2}
"""Bounds, relative to the largest number; of a value below 1, to 1. HALF is where vectors are rounded to float16."""


def to_tf32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 of any shape, rounded to 10 bits behind the first."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def dot_as_on_gpu(
    builder: object, a: TensorHandle, b: TensorHandle, d: TensorHandle, precision: object, most: int
) -> TensorHandle:
    """The interpreter's product, which is exact float32 whatever was asked for, but with the rounding of TF32 and `tf32x3`."""
    big = [to_tf32(x.data) if precision != INPUT_PRECISION.IEEE else x.data for x in (a, b)]
    found = np.matmul(*big, dtype=np.float32)
    if precision == INPUT_PRECISION.TF32x3:
        small = [to_tf32(x.data - rounded) for x, rounded in zip((a, b), big, strict=True)]
        found += np.matmul(big[0], small[1]) + np.matmul(small[0], big[1])
    return TensorHandle(found + d.data, d.dtype.scalar)


def slowly(compared: SimilarityRows) -> Tensor:
    """Row by row and group by group, by the formula; scalar."""
    rows, keys, their_rows, their_keys, temperature, counted, counted_keys = compared
    parts = [0 * (rows.sum() + keys.sum())]
    for index in range(len(rows)):
        for group in range(len(keys)):
            seen = torch.arange(keys.shape[1]) if counted_keys is None else counted_keys[group].nonzero().flatten()
            if len(seen) and (counted is None or bool(counted[index])):
                log_s = (keys[group, seen] @ rows[index] / temperature).log_softmax(0)
                log_t = (their_keys[group, seen] @ their_rows[index] / temperature).log_softmax(0)
                parts.append((log_t.exp() * (log_t - log_s)).sum())
    number = len(rows) if counted is None else int(counted.sum())
    return torch.stack(parts).sum() / max(1, number * len(keys))


def error(found: Tensor, wanted: Tensor, floor: float) -> float:
    return float((found.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max().clamp(min=floor))


def compare(about: object, compared: SimilarityRows, full: bool) -> None:
    ours, exact = ([x.detach().to(dtype).requires_grad_() for x in compared[:2]] for dtype in (torch.float32, torch.float64))
    found = kernel_divergence(SimilarityRows(*ours, *compared[2:]), full)
    wanted = slowly(SimilarityRows(*exact, *(x.double() for x in compared[2:4]), *compared[4:]))
    bounds = FULL if full else HALF
    assert error(found, wanted, 1.0) < bounds["value"], (about, full, found, wanted)
    slopes = [torch.autograd.grad(3 * value, xs) for value, xs in ((found, ours), (wanted, exact))]
    # The parts of a row's gradient, up to 1 / (T·M), may cancel, nearly wholly where D is 1. Then their rounding is left.
    floors = 0.1 / (compared.temperature * len(compared.rows)), 1e-6
    for name, mine, other, floor in zip(("rows", "keys"), *slopes, floors, strict=True):
        assert error(mine, other, floor) < bounds["gradient"], (about, full, name, error(mine, other, floor))


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(shape, dtype=torch.float64), dim=-1).float()


def random_case(number: int) -> None:
    draw = random.Random(number)
    torch.manual_seed(number)
    rows, groups, keys = draw.choice([1, 7, 16, 37]), draw.choice([1, 2, 3]), draw.choice([1, 5, 32, 41])
    width, their_width, temperature = draw.choice([1, 3, 16, 45]), draw.choice([2, 16, 21]), draw.choice([0.03, 0.1, 1.0])
    counted = draw.choice([None, torch.rand(rows) < 0.6])
    counted_keys = draw.choice([None, torch.rand(groups, keys) < 0.6])
    if counted_keys is not None and draw.random() < 0.5:
        counted_keys[0] = False
    tensors = unit(rows, width), unit(groups, keys, width), unit(rows, their_width), unit(groups, keys, their_width)
    for full in (True, False):
        compare(number, SimilarityRows(*tensors, temperature, counted, counted_keys), full)


def by_hand() -> None:
    """Similarities of 1 and 0 over 1/ln 3 are probabilities of 3/4 and 1/4; two equal ones are 1/2 each."""
    row, keys = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.eye(2).unsqueeze(0).requires_grad_()
    theirs = torch.full((1, 2), 0.5**0.5)
    for full in (True, False):
        found = kernel_divergence(SimilarityRows(row, keys, theirs, keys.detach(), 1 / math.log(3)), full)
        assert abs(found.item() - 0.5 * math.log(4 / 3)) < 1e-6
        to_row, to_keys = torch.autograd.grad(found, (row, keys))
        quarter = math.log(3) / 4
        torch.testing.assert_close(to_row, torch.tensor([[quarter, -quarter]]))
        torch.testing.assert_close(to_keys, torch.tensor([[[quarter, 0.0], [-quarter, 0.0]]]))


def main() -> None:
    long = "long" in sys.argv
    InterpreterBuilder.create_dot = dot_as_on_gpu
    by_hand()
    torch.manual_seed(0)
    # The sizes of tiles that a GPU has, and so many keys that most probabilities are below float16's smallest.
    rows, keys = unit(130, 70), unit(1, 700 if long else 200, 70)
    compare("large", SimilarityRows(rows, keys, F.normalize(rows + unit(130, 70), dim=1), keys, 0.05), full=False)
    compare("large", SimilarityRows(rows[:70], keys, unit(70, 33), unit(*keys.shape[:2], 33), 0.05), full=True)
    tiles = {"BD": 16, "ROWS": 16, "KEYS": 16}, {"BD": 16, "OWN": 16, "OTHER": 16, "OUT": 32}
    on_gpu.forward_tiles, on_gpu.backward_tiles = lambda full: tiles[0], lambda full, width: tiles[1]  # every edge of a tile
    for number in range(30 if long else 7):
        random_case(number)
    same = unit(9, 20)
    assert (
        kernel_divergence(SimilarityRows(same, unit(1, 1, 20), same, unit(1, 1, 20), 0.1), True).item() == 0
    )  # one key: no choice
    everything = SimilarityRows(same, same[None], same, same[None], 0.1)
    assert kernel_divergence(everything, True).item() == kernel_divergence(everything, False).item() == 0
    learning = SimilarityRows(unit(20, 30).requires_grad_(), unit(2, 20, 30).requires_grad_(), unit(20, 40), unit(2, 20, 40), 0.1)
    for full in (True, False):
        assert on_gpu._are_right(learning, full)  # the trial on the device, with its own bounds
    print("right")


if __name__ == "__main__":
    main()
