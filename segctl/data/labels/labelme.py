"""labelme's JSON: one file for each picture.

    {"version", "imagePath", "imageHeight", "imageWidth", "imageData", "flags",
     "shapes": [{"label", "points", "shape_type", "flags", "group_id", "mask"}]}

Lines are drawn 10 pixels wide, as labelme's own conversion does (wkentaro/labelme, labelme/utils/shape.py). The label
`__ignore__` becomes 255.
"""

import base64
import binascii
import math
from functools import partial
from typing import Any

import numpy as np

from segctl.data.files.pictures import UnfitError, decode_png
from segctl.data.labels.annotations import (
    MAX_SIDE,
    AnnotatedShape,
    AnnotationSet,
    Runs,
    ShapeError,
    box_ring,
    ellipse_ring,
    line_rings,
    number,
    ring,
    shortly,
    size_of,
)
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.errors import InputError

LINE_WIDTH = 10.0
_ADVICE = "save it again with labelme"


def _accepts(document: Document) -> bool:
    return document.has("shapes") and any(document.has(key) for key in ("imagePath", "imageData", "imageHeight"))


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit."""
    where, tree = document.path, document.tree
    shapes, path = tree["shapes"], tree.get("imagePath")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise InputError(f"'{where}' has no list of shapes", _ADVICE)
    try:
        size = size_of(tree.get("imageHeight"), tree.get("imageWidth"))
    except ShapeError as error:
        raise InputError(f"the picture of '{where}' {error}", _ADVICE) from error
    folder, _, name = where.rpartition("/")
    start = f"{folder}/" if folder else ""
    # The name counts and the folder does not: labelme writes the way from its file to the picture, such as `..\\images\\a.jpg`.
    called = [start + path.replace("\\", "/").rpartition("/")[2]] if isinstance(path, str) and path.strip() else []
    picture = into.picture([*called, start + name.rpartition(".")[0]], where, size)
    if any(_is_flagged(flags) for flags in [tree.get("flags"), *(shape.get("flags") for shape in shapes)]):
        into.skipped["files with flags set (the flags are not used)"] += 1
    into.rules = [f"lines are drawn {LINE_WIDTH:g} pixels wide"] if any(map(_is_line, shapes)) else into.rules
    for index, shape in enumerate(shapes, start=1):
        kind = shape.get("shape_type") or "polygon"
        if kind in ("point", "points"):
            into.skipped["points"] += 1
        else:
            into.add(picture, f"shape {index}", partial(_shape, shape, kind, into))


def _is_flagged(flags: Any) -> bool:
    return isinstance(flags, dict) and any(flags.values())


def _is_line(shape: dict[str, Any]) -> bool:
    return shape.get("shape_type") in ("line", "linestrip")


def _shape(shape: dict[str, Any], kind: str, into: AnnotationSet) -> AnnotatedShape:
    name, points = into.see_class(shape.get("label")), shape.get("points")
    match kind:
        case "polygon" | "oriented_rectangle":
            return AnnotatedShape(name, rings=(ring(points),))
        case "rectangle":
            return AnnotatedShape(name, rings=(box_ring(*_two(kind, points)),))
        case "circle":
            x0, y0, x1, y1 = _two(kind, points)
            radius = math.hypot(x1 - x0, y1 - y0)
            return AnnotatedShape(name, rings=(ellipse_ring(x0, y0, radius, radius),))
        case "line" | "linestrip":
            return AnnotatedShape(name, rings=line_rings(points, LINE_WIDTH))
        case "mask":
            left, top, *_ = _two(kind, points)
            return AnnotatedShape(name, runs=Runs.of_mask(_mask(shape.get("mask")), int(left), int(top)))
        case _:
            raise ShapeError(f"is of the type {shortly(kind)}, which segctl cannot draw")


def _two(kind: str, points: Any) -> tuple[float, float, float, float]:
    """x and y of both points. Raises ShapeError if there are more, or fewer."""
    pairs = points if isinstance(points, list) else []
    if len(pairs) != 2 or not all(isinstance(point, list) and len(point) == 2 for point in pairs):
        raise ShapeError(f"is a {kind} of {shortly(points)}, wanted two points")
    (x0, y0), (x1, y1) = pairs
    return number(x0, "x"), number(y0, "y"), number(x1, "x"), number(y1, "y")


def _mask(text: Any) -> np.ndarray:
    """The mask bool (H, W) that labelme stores as a PNG in base64."""
    try:
        return png_mask(base64.b64decode(text, validate=True))
    except (TypeError, ValueError, binascii.Error) as error:
        raise ShapeError("has a mask that is not a PNG in base64") from error


def png_mask(content: bytes) -> np.ndarray:
    """The pixels of a PNG that are not 0, or not transparent where it has opacity: bool (H, W). Raises ShapeError."""
    try:
        values = decode_png(content, MAX_SIDE, 2**28)
    except UnfitError as error:
        raise ShapeError("has a mask larger than any picture") from error
    except Exception as error:  # PIL raises nearly anything for damaged files
        raise ShapeError("has a mask that is not a PNG") from error
    flat = values if values.ndim == 2 else values[..., -1] if values.shape[-1] in (2, 4) else values.any(axis=-1)
    return np.asarray(flat != 0)


LABELME = Format("labelme", _accepts, _read)
