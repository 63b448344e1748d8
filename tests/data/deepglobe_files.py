"""DeepGlobe in its published layout, with a few small pictures."""

import io

import numpy as np
from cityscapes_files import png
from PIL import Image

IDS = ["100694", "10233", "10452", "114577", "119", "2334", "271609", "3484", "6399", "855", "995492"]
SIZE = 24


def jpeg(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (value % 256, 90, 40)).save(stream, "JPEG")
    return stream.getvalue()


def draw_mask(seed: int) -> np.ndarray:
    """uint8 (H, W, 3): channels that are on or off, and off by up to 127."""
    random = np.random.default_rng(seed)
    on = random.integers(0, 2, (SIZE, SIZE, 3))
    return (on * 255 + (1 - 2 * on) * random.integers(0, 128, on.shape)).astype(np.uint8)


def tree(ids: list[str] = IDS, pictures: str = "train", masks: str = "train") -> dict[str, bytes]:
    files = {f"{pictures}/{name}_sat.jpg": jpeg(int(name)) for name in ids}
    return files | {f"{masks}/{name}_mask.png": png(draw_mask(int(name))) for name in ids}
