"""Supervisely's JSON: meta.json with the classes, and ann/PICTURE.json for each img/PICTURE.

    {"size": {"height", "width"}, "objects": [{"classTitle", "geometryType", "points": {"exterior": [[x, y], …], "interior": […]},
                                               "bitmap": {"data": PNG packed by zlib, in base64, "origin": [x, y]}}]}

Points are numbers of pixels, so half a pixel is added to reach their centres. Source: docs.supervisely.com, "Supervisely JSON
format".
"""

import base64
import binascii
import re
import zlib
from functools import partial
from typing import Any

from segctl.data.labels.annotations import AnnotatedShape, AnnotationSet, Runs, ShapeError, number, ring, shortly, size_of
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.data.labels.labelme import png_mask
from segctl.errors import InputError

_ADVICE = "export the project from Supervisely again, in its own JSON format"
_SKIPPED = {
    "rectangle": "boxes",
    "point": "points",
    "line": "lines",
    "polyline": "lines",
    "graph": "keypoints",
    "cuboid": "cuboids",
}
MAX_PNG = 2**27


def _accepts(document: Document) -> bool:
    return document.has("objects", "size") or _is_weak(document)


def _is_weak(document: Document) -> bool:
    """Whether it is meta.json, which goes with Supervisely's files but shows nothing by itself."""
    return document.has("classes") and isinstance(document.tree["classes"], list) and "tags" in document.tree


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit."""
    where, tree = document.path, document.tree
    if _is_weak(document):
        into.has_table = True
        for entry in tree["classes"]:
            try:
                into.see_class(entry.get("title") if isinstance(entry, dict) else entry, _color(entry))
            except ShapeError as error:
                raise InputError(f"a class in '{where}' {error}", _ADVICE) from error
        return
    size, objects = tree["size"], tree["objects"]
    if not isinstance(size, dict) or not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise InputError(f"'{where}' has no size or no list of objects", _ADVICE)
    try:
        found = size_of(size.get("height"), size.get("width"))
    except ShapeError as error:
        raise InputError(f"the picture of '{where}' {error}", _ADVICE) from error
    # data/ann/a.jpg.json is of data/img/a.jpg; older exports leave the picture's ending out.
    parts = [part for part in where.removesuffix(".json").split("/") if part != "ann"]
    picture = into.picture(["/".join(parts)], where, found)
    for index, entry in enumerate(objects, start=1):
        kind = entry.get("geometryType")
        if kind in _SKIPPED:
            into.skipped[_SKIPPED[kind]] += 1
        else:
            into.add(picture, f"object {index}", partial(_shape, entry, kind, into))


def _color(entry: Any) -> tuple[int, int, int] | None:
    color = entry.get("color") if isinstance(entry, dict) else None
    if not isinstance(color, str) or not re.fullmatch("#[0-9a-fA-F]{6}", color):
        return None
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _shape(entry: dict[str, Any], kind: Any, into: AnnotationSet) -> AnnotatedShape:
    name = into.see_class(entry.get("classTitle"))
    if kind == "polygon":
        points = entry.get("points")
        if not isinstance(points, dict) or not isinstance(holes := points.get("interior") or [], list):
            raise ShapeError("has no points")
        return AnnotatedShape(name, rings=(ring(points.get("exterior")) + 0.5,), holes=tuple(ring(hole) + 0.5 for hole in holes))
    if kind != "bitmap":
        raise ShapeError(f"is of the type {shortly(kind)}, which segctl cannot draw")
    bitmap = entry.get("bitmap")
    origin = bitmap.get("origin") if isinstance(bitmap, dict) else None
    if not isinstance(bitmap, dict) or not isinstance(origin, list) or len(origin) != 2:
        raise ShapeError("has no bitmap with an origin")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(bitmap.get("data") or "", validate=True), MAX_PNG)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ShapeError("has a bitmap that is not a packed PNG in base64") from error
    return AnnotatedShape(name, runs=Runs.of_mask(png_mask(content), int(number(origin[0], "x")), int(number(origin[1], "y"))))


SUPERVISELY = Format("Supervisely", _accepts, _read, _is_weak)
