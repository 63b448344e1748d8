"""Tiny files in Cityscapes' official layout."""

import io

import numpy as np
from PIL import Image

Tree = dict[str, bytes]
HEIGHT, WIDTH = 16, 32
FRAMES = {"train": ["aachen_000000_000019", "bochum_000000_000313"], "val": ["frankfurt_000000_000294"]}


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def draw_frame(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture uint8 (H, W, 3), labelIds uint8 (H, W), instanceIds uint16 (H, W): all 34 ids, two cars among them."""
    random = np.random.default_rng([ord(letter) for letter in name])
    image = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    ids = (np.arange(HEIGHT * WIDTH) // 15).reshape(HEIGHT, WIDTH).astype(np.uint8)
    ids = np.minimum(ids, 33)
    instance = ids.astype(np.uint16)
    instance[ids == 26] = 26000
    instance[(ids == 26) & (np.arange(WIDTH) % 2 == 0)] = 26001
    return image, ids, instance


def images(frames: dict[str, list[str]] = FRAMES) -> Tree:
    tree = {"README": b"pictures", "license.txt": b"non-commercial"}
    for split, names in frames.items():
        for name in names:
            tree[f"leftImg8bit/{split}/{name.split('_')[0]}/{name}_leftImg8bit.png"] = png(draw_frame(name)[0])
    return tree


def labels(frames: dict[str, list[str]] = FRAMES, kind: str = "gtFine") -> Tree:
    tree = {"README": b"labels", "license.txt": b"non-commercial"}
    for split, names in frames.items():
        for name in names:
            start = f"{kind}/{split}/{name.split('_')[0]}/{name}_{kind}"
            _, ids, instance = draw_frame(name)
            tree[f"{start}_labelIds.png"] = png(np.where(ids < 4, ids, 1).astype(np.uint8) if split == "test" else ids)
            tree[f"{start}_instanceIds.png"] = png(instance)
            tree[f"{start}_color.png"] = png(np.zeros((HEIGHT, WIDTH, 4), np.uint8))
            tree[f"{start}_polygons.json"] = b"{}"
    return tree
