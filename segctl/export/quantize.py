"""Static quantisation of an ONNX model by onnxruntime: 8-bit weights per channel, 8-bit maps, ranges from training crops."""

import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.data.batches.views import padding_of
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError, first_line
from segctl.programs.onnx_file import INPUT

QUANTISED = ("Conv", "Add", "Relu", "Clip", "Concat", "MaxPool", "AveragePool")
"""Operations on maps in 8 bits. Resizing the logits and choosing the class stay in float32."""


def calibration_crops(
    dataset: PreparedDataset, split: str, crop: tuple[int, int], count: int, seed: int
) -> Iterator[NDArray[Any]]:
    """`count` crops (1, H, W, bands) of training images drawn by `seed`; smaller images are padded with the mean colour."""
    draw = random.Random(seed)
    names = dataset.names(split)
    for name in draw.sample(names, min(count, len(names))):
        height, width = dataset.size(name)
        tall, wide = min(height, crop[0]), min(width, crop[1])
        part = dataset.image(name, draw.randint(0, height - tall), draw.randint(0, width - wide), tall, wide)
        canvas = np.empty((1, *crop, dataset.bands), dataset.pixel_type)
        canvas[:] = padding_of(dataset)
        canvas[0, :tall, :wide] = part
        yield canvas


def quantised(body: bytes, crops: Sequence[NDArray[Any]], *, spare_ends: bool) -> bytes:
    """A serialised ONNX model in int8. crops: (1, H, W, bands), on which the ranges of maps are measured.

    spare_ends: leave the first convolution and the classifier, which lose most by rounding, in float32.
    Raises InputError where onnxruntime cannot quantise the model.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(crops)

        def get_next(self) -> dict[str, Any] | None:
            crop = next(self.left, None)
            return None if crop is None else {INPUT: crop}

    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, folded, target = (Path(folder) / f"{name}.onnx" for name in ("source", "folded", "target"))
        source.write_bytes(body)
        try:
            quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)  # folds batch norms into convolutions
            convolutions = [node.name for node in onnx.load(folded).graph.node if node.op_type == "Conv"]
            quantize_static(
                str(folded),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[convolutions[0], convolutions[-1]] if spare_ends else [],
                extra_options={"ActivationSymmetric": False},
            )
        except Exception as error:  # onnxruntime raises kinds of its own
            raise InputError(
                f"onnxruntime cannot quantise this network: {first_line(error)[:200]}", "leave --int8 out"
            ) from error
        return target.read_bytes()
