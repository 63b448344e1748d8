"""Quantisation of a small model by onnxruntime, and the crops on which it measures."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from segctl.data.batches.augment import PADDING_RGB
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.export.quantize import calibration_crops, quantised


def three_convolutions():
    """images uint8 (1, H, W, 3) -> float (1, 4, H, W), by convolutions of 1×1."""
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape).astype(np.float32) for shape in ((8, 3, 1, 1), (8, 8, 1, 1), (4, 8, 1, 1))]
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["m0"], perm=[0, 3, 1, 2]),
        *(helper.make_node("Conv", [f"m{i}", f"w{i}"], [f"m{i + 1}"], name=f"conv{i}") for i in range(3)),
    ]
    ends = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, [1, "height", "width", 3]),
        helper.make_tensor_value_info("m3", TensorProto.FLOAT, [1, 4, "height", "width"]),
    ]
    tables = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tables)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def weights_in_8_bits(content):
    tables = onnx.load_from_string(content).graph.initializer
    return sum(table.data_type == TensorProto.INT8 and len(table.dims) == 4 for table in tables)


def test_weights_become_8_bits_and_the_result_stays_near():
    body = three_convolutions()
    images = np.random.default_rng(1).integers(0, 256, (1, 9, 7, 3), np.uint8)
    wanted = onnxruntime.InferenceSession(body).run(None, {"images": images})[0]
    for spare_ends, layers in ((False, 3), (True, 1)):
        content = quantised(body, [images], spare_ends=spare_ends)
        assert weights_in_8_bits(content) == layers
        found = onnxruntime.InferenceSession(content).run(None, {"images": images})[0]
        assert 0 < np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_what_is_not_a_model_is_a_sentence():
    with pytest.raises(InputError, match="onnxruntime cannot quantise this network: "):
        quantised(b"hello", [], spare_ends=False)


def test_crops_are_drawn_by_the_seed_and_padded(toy_data):
    dataset = open_dataset(toy_data, "camvid")

    def crops(seed):
        return np.concatenate(list(calibration_crops(dataset, "train", (40, 80), 4, seed)))

    assert crops(0).shape == (4, 40, 80, 3)
    assert (crops(0) == crops(0)).all()
    assert (crops(0) != crops(1)).any()
    assert (crops(0)[:, :, 64:] == PADDING_RGB).all()
    assert len(list(calibration_crops(dataset, "train", (8, 8), 99, 0))) == len(dataset.names("train"))
