"""An ONNX model in half precision, for GPUs: half the size, and a multiple of the speed on tensor cores."""

import warnings

from segctl.errors import InputError, first_line

IN_FLOAT32 = ("Resize", "Softmax", "ArgMax", "ReduceMean")
"""Operations that stay in float32: they bring the logits to the picture's size and choose the class, and average many pixels."""


def halved(body: bytes) -> bytes:
    """A serialised ONNX model whose weights and maps are float16. What it takes and returns keeps its types.

    Raises InputError where onnxruntime's converter cannot convert the model.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every weight below float16's smallest number, which becomes that
            model = convert_float_to_float16(
                onnx.load_from_string(body), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *IN_FLOAT32]
            )
    except Exception as error:  # onnx raises kinds of its own
        raise InputError(
            f"onnxruntime cannot convert this network to float16: {first_line(error)[:200]}", "leave --fp16 out"
        ) from error
    return bytes(model.SerializeToString(deterministic=True))
