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
