"""Tiny files in the layouts of VOC 2012 and SBD."""

import io

import numpy as np
from PIL import Image
from scipy.io import savemat

Tree = dict[str, bytes]
TRAIN = ["2007_000032", "2007_000039"]
VAL = ["2007_000033", "2007_000042"]
SBD = {"train": ["2008_000002", "2007_000039"], "val": ["2008_000007", "2007_000042"]}
"""SBD knows one picture of VOC's train and one of VOC's val too, with another label."""
TOP = "VOCdevkit/VOC2012"
SBD_TOP = "benchmark_RELEASE/dataset"


def size(name: str) -> tuple[int, int]:
    return 20 + int(name[-2:]), 30


def picture(name: str) -> bytes:
    stream = io.BytesIO()
    height, width = size(name)
    Image.new("RGB", (width, height), (int(name[-2:]), 90, 9)).save(stream, "JPEG")
    return stream.getvalue()


def voc_label(name: str) -> np.ndarray:
    """uint8 (H, W): a square of class 15 with a border of 255."""
    label = np.zeros(size(name), np.uint8)
    label[2:12, 2:12] = 255
    label[3:11, 3:11] = 15
    return label


def sbd_label(name: str) -> np.ndarray:
    label = np.zeros(size(name), np.uint8)
    label[5:9, 5:9] = 20
    return label


def palette_png(label: np.ndarray) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(label).convert("P")
    image.putdata(label.ravel().tolist())
    image.putpalette([(7 * index + channel) % 256 for index in range(256) for channel in range(3)])
    image.save(stream, "PNG")
    return stream.getvalue()


def mat(label: np.ndarray) -> bytes:
    stream = io.BytesIO()
    boundaries = np.empty((20, 1), object)
    boundaries[:, 0] = [np.zeros((1, 1))] * 20
    savemat(stream, {"GTcls": {"Boundaries": boundaries, "Segmentation": label, "CategoriesPresent": np.array([20])}})
    return b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:]  # scipy writes the time of day there


def lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def voc() -> Tree:
    tree = {f"{TOP}/JPEGImages/{name}.jpg": picture(name) for name in [*TRAIN, *VAL, *SBD["train"], *SBD["val"], "2009_000001"]}
    tree |= {f"{TOP}/SegmentationClass/{name}.png": palette_png(voc_label(name)) for name in TRAIN + VAL}
    tree |= {f"{TOP}/ImageSets/Segmentation/{split}.txt": lines(names) for split, names in (("train", TRAIN), ("val", VAL))}
    return tree | {f"{TOP}/ImageSets/Main/train.txt": b"2009_000001\n", f"{TOP}/Annotations/2009_000001.xml": b"<a/>"}


def sbd() -> Tree:
    tree = {f"{SBD_TOP}/cls/{name}.mat": mat(sbd_label(name)) for names in SBD.values() for name in names}
    tree |= {f"{SBD_TOP}/img/{name}.jpg": picture(name) for names in SBD.values() for name in names}
    return tree | {f"{SBD_TOP}/{split}.txt": lines(names) for split, names in SBD.items()}


def aug() -> Tree:
    """A ready folder: VOC's labels where there are any, SBD's elsewhere."""
    tree = {f"SegmentationClassAug/{name}.png": palette_png(voc_label(name)) for name in TRAIN + VAL}
    return tree | {f"SegmentationClassAug/{name}.png": palette_png(sbd_label(name)) for name in ("2008_000002", "2008_000007")}
