"""Half precision: weights of two bytes, pixels in and classes out as before."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from segctl.errors import InputError
from segctl.export.half import halved
from segctl.programs import open_program, program_facts


def test_the_weights_are_float16_and_the_classes_those_of_float32(toy_export: Path) -> None:
    file = toy_export / "export" / "model.onnx"
    body = file.read_bytes()[: program_facts(file).checked_bytes]
    small = halved(body)
    kinds = [tensor.data_type for tensor in onnx.load_from_string(small).graph.initializer]
    assert onnx.TensorProto.FLOAT16 in kinds
    assert len(small) < 0.6 * len(body)
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    assert [(one.type, len(one.shape)) for one in (*session.get_inputs(), *session.get_outputs())] == [
        ("tensor(uint8)", 4), ("tensor(uint8)", 3)
    ]  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    (found,) = session.run(None, {"images": images})
    assert (found != open_program(file).labels(images)).mean() < 0.01


def test_what_is_no_model_is_a_sentence() -> None:
    with pytest.raises(InputError, match=r"onnxruntime cannot convert this network to float16: .*; leave --fp16 out"):
        halved(b"no model")


def test_sixteen_bits_are_normalised_in_float32() -> None:
    """float16 has 11 bits: 60000 and 60001 would be one number, and so would the normalised values before the convolution."""
    inputs = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT16, [1, 1, 2, 1])
    outputs = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 1, 2, 1])
    numbers = {"mean": 60000.0, "std": 0.5, "weight": 1.0}
    nodes = [
        onnx.helper.make_node("Transpose", ["images"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Cast", ["planes"], ["float"], "cast", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Sub", ["float", "mean"], ["centred"], "sub"),
        onnx.helper.make_node("Div", ["centred", "std"], ["normalised"], "div"),
        onnx.helper.make_node("Conv", ["normalised", "weight"], ["maps"], "conv"),
        onnx.helper.make_node("Transpose", ["maps"], ["logits"], "after", perm=[0, 1, 3, 2]),
    ]
    weights = [onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [1, 1, 1, 1], [value]) for name, value in numbers.items()]
    graph = onnx.helper.make_graph(nodes, "toy", [inputs], [outputs], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    small = halved(model.SerializeToString())
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": np.array([60001, 62000], np.uint16).reshape(1, 1, 2, 1)})
    assert found.ravel().tolist() == [2.0, 4000.0]
    # onnxruntime computes in float32 on a CPU in any case, so the file itself is looked at too.
    made = onnx.load_from_string(small).graph
    kinds = {tensor.name: tensor.data_type for tensor in made.initializer}
    assert kinds == {"mean": onnx.TensorProto.FLOAT, "std": onnx.TensorProto.FLOAT, "weight": onnx.TensorProto.FLOAT16}
    steps = {node.name: node for node in made.node}
    for before, after in (("transpose", "cast"), ("cast", "sub"), ("sub", "div")):
        assert steps[after].input[0] == steps[before].output[0]
    assert steps["conv"].input[0] != steps["div"].output[0]  # a cast to float16 lies between
