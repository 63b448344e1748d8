"""Small .onnx files as `segctl export` writes them: uint8 (B, H, W, 3) in, uint8 (B, H, W) out."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_onnx(path, *, height="height", width="width", kind=TensorProto.UINT8, channels=3):
    """A program that takes the brightest channel of each pixel after one 3→5 product; 15 weights and a whole number."""
    weights = numpy_helper.from_array(
        np.arange(15, dtype=np.float32).reshape(channels, -1)[:, :5] if channels == 3 else np.ones((channels, 5), np.float32),
        "weights",
    )
    axes = numpy_helper.from_array(np.array([3], np.int64), "unused_axis")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["pixels", "weights"], ["logits"]),
            helper.make_node("ArgMax", ["logits"], ["ids"], axis=3, keepdims=0),
            helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.UINT8),
        ],
        "toy",
        [helper.make_tensor_value_info("images", kind, ["batch", height, width, channels])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", height, width])],
        [weights, axes],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path
