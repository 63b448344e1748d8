"""The images with the lowest scores, as PNGs: image, label and prediction in class colours, and where the two differ."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segctl.data.files.bands import shown_rgb
from segctl.data.shards.dataset import PreparedDataset
from segctl.evaluate.count_images import LabelMap, Scoring
from segctl.evaluate.draw_masks import RGB, write_picture
from segctl.evaluate.predictor import predict_classes
from segctl.files import write_json
from segctl.ignored import IGNORED
from segctl.metrics.scores import ImageScore
from segctl.models.forward import ImageNetwork

LONGEST_SIDE = 512
"""Pixels of a picture's longer side in the strips that trackers are given."""


def write_worst(folder: Path, worst: list[ImageScore], model: ImageNetwork, dataset: PreparedDataset, how: Scoring) -> None:
    """Write four PNGs for each image, and worst.json; remove the PNGs of an earlier evaluation."""
    entries = []
    for old in folder.glob("*.png"):
        old.unlink()
    model.eval()
    for rank, image in enumerate(worst):
        pixels, label = dataset.image(image.image), dataset.label(image.image)
        tiles = _tiles(pixels, label, _predict_one(model, pixels, how), dataset.classes.palette())
        stem = f"{rank:02d}_{image.image.replace('/', '_')}"
        files = {kind: f"{stem}_{kind}.png" for kind in tiles}
        for kind, tile in tiles.items():
            write_picture(folder / files[kind], tile)
        entries.append({"image": image.image, "mIoU_I": image.miou_i, "files": files})
    write_json(folder / "worst.json", entries)


def write_strips(
    folder: Path, worst: list[ImageScore], model: ImageNetwork, dataset: PreparedDataset, how: Scoring
) -> list[Path]:
    """Write a PNG for each image: its four pictures side by side, each of at most LONGEST_SIDE pixels; the files, worst first."""
    model.eval()
    files = []
    for rank, image in enumerate(worst):
        pixels, label = dataset.image(image.image), dataset.label(image.image)
        tiles = _tiles(pixels, label, _predict_one(model, pixels, how), dataset.classes.palette())
        smaller = max(1.0, max(label.shape) / LONGEST_SIDE)
        size = tuple(max(1, round(side / smaller)) for side in (label.shape[1], label.shape[0]))
        strip = np.concatenate(
            [np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.NEAREST)) for tile in tiles.values()], 1
        )
        files.append(folder / f"{rank:02d}_{image.image.replace('/', '_')}_mIoU_I_{image.miou_i:.1f}.png")
        write_picture(files[-1], strip)
    return files


def _predict_one(model: ImageNetwork, image: NDArray[Any], how: Scoring) -> LabelMap:
    """The class map uint8 (H, W) of an image (H, W, N)."""
    batch = torch.from_numpy(np.ascontiguousarray(image))[None].to(how.compute.device)
    prediction = predict_classes(model, batch, how.protocol, how.compute)
    if how.classes is not None:
        prediction = how.classes.of_predictions(prediction)
    found: LabelMap = prediction[0].cpu().numpy()
    return found


def _tiles(image: NDArray[Any], label: LabelMap, prediction: LabelMap, palette: NDArray[np.uint8]) -> dict[str, RGB]:
    """Four pictures uint8 (H, W, 3) by kind. `error` is red where wrong, a faint grey image where right, black where ignored.

    image: of any bands, uint8 or uint16.  label, prediction: (H, W).  palette: (256, 3).
    """
    brightness = image if image.dtype == np.uint8 else shown_rgb(image)
    grey = (brightness.mean(-1, keepdims=True) * 0.35 + 160).repeat(3, -1).astype(np.uint8)
    error = np.where((prediction != label)[..., None], np.array([215, 35, 35], np.uint8), grey)
    error[label == IGNORED] = 0
    return {"image": shown_rgb(image), "truth": palette[label], "prediction": palette[prediction], "error": error}
