"""One small set of regions, written in every annotation format, and a slow rasteriser to compare with."""

import base64
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 30, 40
Region = tuple[str, list[tuple[float, float]]]
"""The name of a class, and the corners of a polygon in pixels."""
REGIONS: dict[str, list[Region]] = {
    "a": [
        ("road", [(1.2, 15.1), (38.7, 14.3), (39.1, 29.2), (0.6, 28.8)]),
        ("car", [(5.3, 12.2), (17.6, 11.4), (18.1, 20.9), (4.7, 21.3)]),
        ("person", [(12.1, 9.2), (15.9, 9.7), (15.2, 24.6), (12.8, 24.1), (13.4, 16.2)]),
    ],
    "b": [("car", [(3.1, 3.2), (22.4, 5.1), (12.2, 22.7)]), ("road", [(20.2, 18.1), (35.3, 19.4), (33.8, 27.3)])],
    "c": [],
}
CLASSES = ["road", "car", "person"]
TRAIN_IDS = {"background": 0, "road": 1, "car": 2, "person": 3}


def slow_fill(corners: Sequence[tuple[float, float]], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """bool (H, W) by the even-odd rule, pixel by pixel: a ray from the pixel's centre to the left meets how many edges?"""
    inside = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y, crossings = column + 0.5, row + 0.5, 0
            for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
                if (y0 <= y < y1 or y1 <= y < y0) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    crossings += 1
            inside[row, column] = crossings % 2 == 1
    return inside


def area(corners: Sequence[tuple[float, float]]) -> float:
    pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def slow_label(regions: list[Region]) -> np.ndarray:
    """uint8 (H, W) of TRAIN_IDS, larger regions first."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, corners in sorted(regions, key=lambda region: -area(region[1])):
        label[slow_fill(corners)] = TRAIN_IDS[name]
    return label


def write_pictures(folder: Path, ending: str = "jpg") -> Path:
    for number, name in enumerate(REGIONS):
        path = folder / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def coco_tree() -> dict:
    """Category ids have holes."""
    ids = {"road": 3, "car": 17, "person": 90}
    images, annotations = [], []
    for number, (name, regions) in enumerate(REGIONS.items()):
        images.append({"id": 100 + number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        for category, corners in regions:
            flat = [value for corner in corners for value in corner]
            found = {"id": len(annotations), "image_id": 100 + number, "category_id": ids[category], "segmentation": [flat]}
            annotations.append({**found, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": area(corners)})
    categories = [{"id": identity, "name": name, "supercategory": "thing"} for name, identity in ids.items()]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(coco_tree()))
    return path


def write_yolo(folder: Path) -> Path:
    labels = folder / "labels"
    labels.mkdir()
    (folder / "data.yaml").write_text("train: images\nval: images\nnames:\n  0: road\n  1: car\n  2: person\n")
    for name, regions in REGIONS.items():
        if regions:
            rows = [
                [CLASSES.index(cls), *(value for x, y in corners for value in (x / WIDTH, y / HEIGHT))]
                for cls, corners in regions
            ]
            (labels / f"{name}.txt").write_text("\n".join(" ".join(map(repr, row)) for row in rows))
    return labels


def labelme_tree(name: str, regions: list[Region]) -> dict:
    shapes = [
        {"label": cls, "points": corners, "shape_type": "polygon", "flags": {}, "group_id": None} for cls, corners in regions
    ]
    sizes = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {
        "version": "5.2.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"..\\photos\\{name}.jpg",
        "imageData": "AAAA",
        **sizes,
    }


def write_labelme(folder: Path) -> Path:
    (folder / "labels").mkdir()
    for name, regions in REGIONS.items():
        (folder / "labels" / f"{name}.json").write_text(json.dumps(labelme_tree(name, regions)))
    return folder / "labels"


def cvat_text(regions: dict[str, list[Region]] | None = None) -> str:
    """Regions of a picture have z_order 0 if they are the same picture's; the larger ones are drawn first."""
    images = ""
    for number, (name, listed) in enumerate((REGIONS if regions is None else regions).items()):
        shapes = "".join(
            f'<polygon label="{cls}" occluded="0" points="{";".join(f"{x},{y}" for x, y in corners)}" z_order="0"/>'
            for cls, corners in listed
        )
        images += f'<image id="{number}" name="{name}.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
    labels = "".join(f"<label><name>{name}</name><color>#0{number}0000</color></label>" for number, name in enumerate(CLASSES, 1))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{images}</annotations>'


def write_cvat(folder: Path) -> Path:
    (folder / "annotations.xml").write_text(cvat_text())
    return folder / "annotations.xml"


def label_studio_tree() -> list:
    tasks = []
    for number, (name, regions) in enumerate(REGIONS.items()):
        results = [
            {
                "type": "polygonlabels",
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {"points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners], "polygonlabels": [cls]},
            }
            for cls, corners in regions
        ]
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}.jpg"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results, "was_cancelled": False}]})
    return tasks


def write_label_studio(folder: Path) -> Path:
    (folder / "export.json").write_text(json.dumps(label_studio_tree()))
    return folder / "export.json"


def write_supervisely(folder: Path) -> Path:
    """Regions are bitmaps, which are exact."""
    top = folder / "project"
    (top / "ann").mkdir(parents=True)
    classes = [{"title": name, "shape": "bitmap", "color": "#010203"} for name in CLASSES]
    (top / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    for name, regions in REGIONS.items():
        objects = []
        for cls, corners in regions:
            mask = slow_fill(corners)
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            stream = io.BytesIO()
            Image.fromarray(part).save(stream, "PNG")
            data = base64.b64encode(zlib.compress(stream.getvalue())).decode()
            bitmap = {"data": data, "origin": [int(columns[0]), int(rows[0])]}
            objects.append({"classTitle": cls, "geometryType": "bitmap", "bitmap": bitmap})
        tree = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
        (top / "ann" / f"{name}.jpg.json").write_text(json.dumps(tree))
    return top


def via_tree() -> dict:
    return {
        f"{name}.jpg123": {
            "filename": f"{name}.jpg",
            "size": 123,
            "regions": [
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [x for x, _ in corners],
                        "all_points_y": [y for _, y in corners],
                    },
                    "region_attributes": {"class": cls},
                }
                for cls, corners in regions
            ],
            "file_attributes": {},
        }
        for name, regions in REGIONS.items()
    }


def write_via(folder: Path) -> Path:
    (folder / "via.json").write_text(json.dumps(via_tree()))
    return folder / "via.json"


WRITERS: dict[str, Callable[[Path], Path]] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "label-studio": write_label_studio,
    "supervisely": write_supervisely,
    "via": write_via,
}


def pack_brush(values: np.ndarray) -> list[int]:
    """Values uint8 (n,) as Label Studio packs them: runs of equal values, each with the shortest of four lengths of length."""
    sizes = [3, 4, 8, 16]
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    while at < len(values):
        length = 1
        while at + length < len(values) and values[at + length] == values[at] and length < 2 ** sizes[-1]:
            length += 1
        single = length == 1
        if single:  # values that differ from their neighbours go out together
            while at + length < len(values) and values[at + length] != values[at + length - 1] and length < 8:
                length += 1
        choice = next(index for index, size in enumerate(sizes) if length <= 2**size)
        bits += f"{int(not single)}{choice:02b}" + f"{length - 1:0{sizes[choice]}b}"
        bits += "".join(f"{value:08b}" for value in (values[at : at + length] if single else values[at : at + 1]))
        at += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]
