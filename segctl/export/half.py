"""An ONNX model in half precision, for GPUs: half the size, and a multiple of the speed on tensor cores."""

import warnings
from typing import Any

from segctl.errors import InputError, first_line

IN_FLOAT32 = ("Resize", "Softmax", "ArgMax", "ReduceMean")
"""Operations that stay in float32: they bring the logits to the picture's size and choose the class, and average many pixels."""
NORMALISING = ("Transpose", "Cast", "Sub", "Div")
"""Operations between the pictures and the first convolution. float16 ends at 65504 and counts in ones up to 2048 alone, so for
uint16 pictures they stay in float32."""


def halved(body: bytes) -> bytes:
    """A serialised ONNX model whose weights and maps are float16. What it takes and returns keeps its types.

    Raises InputError where onnxruntime's converter cannot convert the model.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    try:
        model = onnx.load_from_string(body)
        kept = _normalising(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every weight below float16's smallest number, which becomes that
            model = convert_float_to_float16(
                model,
                keep_io_types=True,
                op_block_list=[*DEFAULT_OP_BLOCK_LIST, *IN_FLOAT32],
                node_block_list=kept,
            )
        _join(model, kept)
    except Exception as error:  # onnx raises kinds of its own
        raise InputError(
            f"onnxruntime cannot convert this network to float16: {first_line(error)[:200]}", "leave --fp16 out"
        ) from error
    return bytes(model.SerializeToString(deterministic=True))


def _normalising(model: Any) -> list[str]:
    """The names of the nodes that normalise uint16 pictures; none for uint8 pictures, which float16 holds exactly."""
    import onnx

    image = model.graph.input[0]
    if image.type.tensor_type.elem_type != onnx.TensorProto.UINT16:
        return []
    found, reached = [], {image.name}
    for node in model.graph.node:  # in the order in which they run
        if node.op_type in NORMALISING and reached & set(node.input):
            found.append(node.name)
            reached |= set(node.output)
    return found


def _join(model: Any, kept: list[str]) -> None:
    """Connect the nodes that stay in float32 directly, in place: the converter puts a cast to float16 and back between them.

    The casts that are then read by nothing are dropped when the file is loaded.
    """
    producers = {name: node for node in model.graph.node for name in node.output}

    def before_cast(name: str) -> str | None:
        """What a cast that the converter made turns into `name`; None if no such cast makes it."""
        cast = producers.get(name)
        return None if cast is None or cast.op_type != "Cast" or cast.name in kept else cast.input[0]

    for node in model.graph.node:
        for place, name in enumerate(node.input if node.name in kept else ()):
            halved_map = before_cast(name)
            source = None if halved_map is None else before_cast(halved_map)
            if source is not None:
                node.input[place] = source
