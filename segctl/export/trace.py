"""A network as a program: pictures in, classes out, traced for images of any size."""

import math
import operator
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from segctl.errors import InputError, first_line
from segctl.models import Segmenter
from segctl.models.deployed import DeployedNetwork
from segctl.models.tracing import traced_for_any_size
from segctl.programs.facts import ProgramOutput

EXAMPLE_SIZE = (97, 130)
"""Height and width of the image that a program for any size is traced with: prime, or twice a prime, so that no division comes
out even by chance."""
_LARGEST_SIDE = 1 << 20


def trace(network: Segmenter, output: ProgramOutput, size: tuple[int, int] | None) -> ExportedProgram:
    """The network as a program for any batch, and for images of `size` (height, width), or of any size for None.

    Raises InputError where torch cannot trace the network.
    """
    module = DeployedNetwork(network, output)
    height, width = size or EXAMPLE_SIZE
    example = network.blank(2, (height, width)).cpu()
    free = {0: Dim.AUTO, 1: Dim.AUTO, 2: Dim.AUTO} if size is None else {0: Dim.AUTO}
    try:
        with warnings.catch_warnings(), torch.no_grad(), _tracing_for(size):
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module, (example,), dynamic_shapes=(free,), strict=False, prefer_deferred_runtime_asserts_over_guards=True
            )
    except Exception as error:  # torch raises whatever the network's code does
        raise cannot_trace(size, error) from error
    _require_free(program, free, example.dtype)
    _without_assumptions(program)
    return program


def trace_script(network: Segmenter, output: ProgramOutput, size: tuple[int, int] | None) -> Any:
    """The same as a TorchScript program, batch norms folded into their convolutions."""
    module = DeployedNetwork(network, output)
    example = network.blank(2, size or EXAMPLE_SIZE).cpu()
    try:
        with warnings.catch_warnings(), torch.no_grad(), _tracing_for(size):
            warnings.simplefilter("ignore")
            return torch.jit.freeze(torch.jit.trace(module, (example,), check_trace=False).eval())  # type: ignore[no-untyped-call]
    except Exception as error:
        raise cannot_trace(size, error) from error


def cannot_trace(size: tuple[int, int] | None, error: Exception) -> InputError:
    """The sentence for a network that torch cannot trace, or a format cannot hold."""
    hint = "export it for one size with --size HxW" if size is None else "give another --size"
    what = "images of any size" if size is None else f"images of {size[0]}×{size[1]} pixels"
    return InputError(f"this network cannot be exported for {what}: {first_line(error)[:300]}", hint)


def _tracing_for(size: tuple[int, int] | None) -> AbstractContextManager[None]:
    return traced_for_any_size() if size is None else nullcontext()


def _require_free(program: ExportedProgram, free: dict[int, Any], dtype: torch.dtype) -> None:
    """Refuse a program in which torch has fixed a side that was to be free.  dtype: of the images, and of no weights."""
    image = next(node for node in program.graph.nodes if node.op == "placeholder" and node.meta["val"].dtype == dtype)
    fixed = [axis for axis in free if isinstance(image.meta["val"].shape[axis], int)]
    if fixed:
        raise cannot_trace(None, ValueError(f"torch fixes its {('batch', 'height', 'width')[fixed[0]]}"))


def _without_assumptions(program: ExportedProgram) -> None:
    """Let the program take every size from 1 pixel, in place.

    torch assumes that no side of any map is 1, and notes that images must be larger than the last map's stride; nothing in the
    program depends on it, which the comparison with the network at 1×1 pixels shows. It also notes equations of sides that
    hold for all sizes but that it cannot prove.
    """
    for symbol in program.range_constraints:
        program.range_constraints[symbol] = ValueRanges(1, _LARGEST_SIDE)
    graph = program.graph
    for node in list(graph.nodes):
        name = str(node.target)
        if node.op == "call_function" and not node.users and ("_assert" in name or "constrain_range" in name):
            graph.erase_node(node)
        elif node.op == "call_function" and node.target is math.ceil and node.args[0].target is operator.truediv:
            _in_whole_numbers(graph, node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _in_whole_numbers(graph: torch.fx.Graph, ceiling: torch.fx.Node) -> None:
    """Replace ceil(a / b) of sides by (a + b - 1) // b: a .pt2 file has no node for math.ceil.

    Not by -(-a // b), because ONNX divides whole numbers towards zero, and so would round this down.
    """

    def value(side: Any) -> Any:
        return side.meta["val"] if isinstance(side, torch.fx.Node) else side

    a, b = ceiling.args[0].args  # type: ignore[union-attr]
    with graph.inserting_before(ceiling):
        result: Any = a
        for function, more in ((operator.add, (b,)), (operator.sub, (1,)), (operator.floordiv, (b,))):
            node = graph.call_function(function, (result, *more))
            node.meta["val"] = function(value(result), *map(value, more))
            result = node
    ceiling.replace_all_uses_with(result)
