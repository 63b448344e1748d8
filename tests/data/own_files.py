"""A person's own pictures and labels, tiny, for the tests to spoil."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CSV = "name,id,color,ignored\nroad,1,128 64 128,\ncrack,3,#ff0000,\nglare,9,0 0 0,yes\n"
COLORS = {1: (128, 64, 128), 3: (255, 0, 0), 9: (0, 0, 0)}
TRAIN_IDS = {1: 0, 3: 1, 9: 255}


def draw_ids(seed: int, height: int = 12, width: int = 20) -> np.ndarray:
    """uint8 (H, W) of the ids 1, 3 and 9, each present."""
    ids = np.random.default_rng(seed).choice(np.array([1, 3, 9], np.uint8), (height, width))
    ids[0, :3] = (1, 3, 9)
    return ids


def color_mask(ids: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    for raw, color in COLORS.items():
        table[raw] = color
    return table[ids]


def train_ids(ids: np.ndarray) -> np.ndarray:
    return np.vectorize(TRAIN_IDS.get)(ids).astype(np.uint8)


def palette(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    return image


def write_own(root: Path, names: list[str], kind: str = "index") -> tuple[Path, Path, Path]:
    """images/NAME.jpg, labels/NAME.png of that kind, and classes.csv; a name may have a folder in it."""
    for number, name in enumerate(names):
        ids = draw_ids(number)
        save(Image.new("RGB", (20, 12), (number, 80, 90)), root / "images" / f"{name}.jpg")
        label = {"index": Image.fromarray(ids), "palette": palette(ids), "mask": Image.fromarray(color_mask(ids))}[kind]
        save(label, root / "labels" / f"{name}.png")
    (root / "classes.csv").write_text(CSV)
    return root / "images", root / "labels", root / "classes.csv"


def save(image: Image.Image, path: Path) -> None:
    stream = io.BytesIO()
    image.save(stream, "JPEG" if path.suffix == ".jpg" else "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
