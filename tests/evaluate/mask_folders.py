"""Folders of PNGs as other frameworks leave them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def save_ids(path: Path, ids: np.ndarray, palette: Sequence[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path)
    return path


def draw_pair(seed: int, classes: int = 4, shape: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and ground truth, uint8 (H, W), with ignored pixels."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (shape[0] // 8, shape[1] // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    prediction = np.where(random.random(shape) < 0.7, truth, random.integers(0, classes, shape)).astype(np.uint8)
    truth[random.random(shape) < 0.1] = 255
    return prediction, truth


def make_folders(root: Path, images: int = 5, classes: int = 4) -> tuple[Path, Path]:
    """`root/pred` and `root/gt` with images of one name each."""
    for index in range(images):
        prediction, truth = draw_pair(index, classes)
        save_ids(root / "pred" / f"im{index:02d}.png", prediction)
        save_ids(root / "gt" / f"im{index:02d}.png", truth)
    return root / "pred", root / "gt"
