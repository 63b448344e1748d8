"""Folders in CamVid's published layout, of any sizes, for the tests to spoil."""

from pathlib import Path

import numpy as np
from PIL import Image

Sizes = dict[str, list[tuple[int, int]]]
"""(H, W) of each sample of a split."""


def draw_sample(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture with edges, uint8 (H, W, 3), and a label of blocks, uint8 (H, W), raw ids 0 to 11."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 12, (-(-height // 16), -(-width // 16))).astype(np.uint8)
    label = np.kron(blocks, np.ones((16, 16), np.uint8))[:height, :width]
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / 7 + k) + np.cos(x / 9 + 2 * k) for k in range(3)]
    image = 120 + 30 * np.stack(waves, -1) + 4 * label[..., None].astype(float)
    return image.astype(np.uint8), label


def draw_folder(folder: Path, sizes: Sizes) -> Path:
    """Write the samples `0001TP_00000`, `0001TP_00001` … of each split; names count on over the splits."""
    number = 0
    for split, split_sizes in sizes.items():
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        for height, width in split_sizes:
            name = f"{'0001TP' if number < 1 else '0016E5'}_{number:05d}.png"
            image, label = draw_sample(height, width, number)
            Image.fromarray(image).save(folder / split / name)
            Image.fromarray(label).save(folder / f"{split}annot" / name)
            number += 1
    return folder
