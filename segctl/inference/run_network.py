"""A run's network for pictures, applied as its preset says. Needs torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segctl.data.files.windows import Windows
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.evaluate.draw_masks import class_colors
from segctl.evaluate.predictor import class_probabilities, predict_classes, sliding_rows
from segctl.inference.network import PictureNetwork, scaling_of
from segctl.models import SavedModel, Segmenter, read, restore
from segctl.runtime.device import Compute, choose_scoring_compute
from segctl.runtime.memory import out_of_memory_in_words
from segctl.runtime.upload import upload
from segctl.schema.evaluate import EvaluateSpec, ProtocolChange, SlidingProtocol, protocol_in_words
from segctl.schema.load import validate_run
from segctl.schema.run import TrainRun

IN_PARTS_PX = 2**24
"""Pictures of more pixels are predicted part by part, so that memory holds neither their pixels nor their logits."""
PREDICT_WITH_LESS = "predict in tiles (--protocol sliding --tile 512x512), or with --device cpu"


class RunNetwork(PictureNetwork):
    """The network of a run or model file. `module` is the torch module, in eval mode; calling this object calls it."""

    def __init__(self, saved: SavedModel, spec: TrainRun, protocol: EvaluateSpec, compute: Compute, palette: Any) -> None:
        self.path, self.class_names, self.palette = saved.path, saved.class_names, palette
        self.protocol, self.precision = protocol_in_words(protocol), compute.precision
        self.preset, self.pixels = spec.name, scaling_of(saved.pixels, saved.path)
        self.module: Segmenter = restore(saved).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._protocol, self._compute = protocol, compute

    @staticmethod
    def open(path: Path, data_root: Path, device: str | None, precision: str | None, change: ProtocolChange) -> "RunNetwork":
        """Raises InputError for a path that is not a finished run, and for changes that do not fit."""
        saved = read(path)
        spec = validate_run(saved.run, f"'{saved.path}'")
        protocol = change.apply(spec.evaluate, spec.data.crop)
        compute = choose_scoring_compute(device, spec.train.precision, precision)
        return RunNetwork(saved, spec, protocol, compute, _palette(data_root, spec, saved.class_names))

    def __call__(self, images: Tensor) -> Any:
        """The Prediction of normalised images (B, bands, H, W)."""
        return self.module(images)

    def __repr__(self) -> str:
        return f"<network of {self.preset}: {len(self.class_names)} classes, '{self.path}'>"

    def ids(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """(B, H, W, bands) -> uint8 (B, H, W)."""
        with out_of_memory_in_words(self._compute.device, PREDICT_WITH_LESS):
            found: NDArray[np.uint8] = (
                predict_classes(self.module, self._sent(images), self._protocol, self._compute).cpu().numpy()
            )
        return found

    def windowed(self, size: tuple[int, int]) -> bool:
        """Whether a picture of that (H, W) is predicted part by part: a large one, in sliding tiles and one view."""
        protocol = self._protocol.protocol
        one_view = self._protocol.scales == (1.0,) and not self._protocol.flip
        if not isinstance(protocol, SlidingProtocol) or not one_view or size[0] * size[1] <= IN_PARTS_PX:
            return False
        return all(side >= tile for side, tile in zip(size, protocol.tile, strict=True))

    def id_rows(self, windows: Windows) -> Iterator[NDArray[np.uint8]]:
        """The class of each pixel of an open picture in parts uint8 (rows, W) from top to bottom."""
        assert isinstance(self._protocol.protocol, SlidingProtocol)

        def read(top: int, rows: int) -> Tensor:
            return torch.from_numpy(windows.read(top, 0, rows, windows.width))

        size = windows.height, windows.width
        with out_of_memory_in_words(self._compute.device, PREDICT_WITH_LESS):
            for part in sliding_rows(self.module, size, read, self._protocol.protocol, self._compute):
                yield part.numpy()

    def class_probabilities(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """(B, H, W, bands) -> float32 (B, C, H, W), the mean over the protocol's views."""
        with out_of_memory_in_words(self._compute.device, PREDICT_WITH_LESS):
            found = class_probabilities(self.module, self._sent(images), self._protocol, self._compute)
        return found.float().cpu().numpy()

    def _sent(self, images: NDArray[Any]) -> Tensor:
        return upload(torch.from_numpy(np.ascontiguousarray(images)), self._compute.device)


def _palette(data_root: Path, spec: TrainRun, class_names: list[str]) -> NDArray[np.uint8]:
    """uint8 (256, 3): the colours of the dataset if it is prepared here, else any."""
    try:
        classes = open_dataset(data_root, spec.data.dataset).classes
        if classes.names == class_names:
            return classes.palette()
    except InputError:
        pass  # predicting needs no dataset, only its colours would be nicer
    return class_colors(len(class_names))
