"""VGG Image Annotator, version 1 and 2: the annotations as JSON, or the whole project.

    {"a.jpg12345": {"filename": "a.jpg", "size": 12345, "regions": [
        {"shape_attributes": {"name": "polygon", "all_points_x": […], "all_points_y": […]},
         "region_attributes": {"class": "car"}}]}}

Version 1 has an object with numbers for keys in place of the list. An ellipse may be turned
clockwise by `theta` radians. Source: gitlab.com/vgg/via, "via-2.x.y/CodeDoc.md".
"""

import math
from functools import partial
from typing import Any

from segctl.data.labels.annotations import AnnotatedShape, AnnotationSet, ShapeError, ellipse_ring, number, ring, shortly
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.errors import InputError

_ADVICE = "export the annotations from VIA 2 as JSON"
CLASS_KEYS = ("class", "label", "name", "category", "type")
ONLY = "object"
"""The class of regions without attributes."""
_SKIPPED = {"rect": "boxes", "point": "points", "polyline": "lines"}


def _accepts(document: Document) -> bool:
    if document.has("_via_img_metadata") or _is_version_3(document):
        return True
    entries = document.tree.values() if document.kind == "json" and isinstance(document.tree, dict) else []
    return bool(entries) and all(isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in entries)


def _is_version_3(document: Document) -> bool:
    return document.has("project", "metadata", "view")


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit."""
    where = document.path
    if _is_version_3(document):
        raise InputError(f"'{where}' is a project of VIA 3, wanted version 2", _ADVICE)
    entries = document.tree.get("_via_img_metadata", document.tree)
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"'{where}' has no list of pictures", _ADVICE)
    files = [(entry.get("filename"), _regions(where, entry)) for entry in entries.values()]
    key = _class_key(where, [region for _, regions in files for region in regions])
    for name, regions in files:
        if not isinstance(name, str) or not name:
            raise InputError(f"'{where}' has a picture without a filename", _ADVICE)
        picture = into.picture([name], where)
        for index, region in enumerate(regions, start=1):
            attributes = region.get("shape_attributes")
            kind = attributes.get("name") if isinstance(attributes, dict) else None
            if kind in _SKIPPED:
                into.skip(picture, _SKIPPED[kind])
            else:
                into.add(picture, f"region {index}", partial(_shape, region, attributes, kind, key, into))


def _regions(where: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    regions = entry.get("regions")
    found = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(found, list) or not all(isinstance(region, dict) for region in found):
        raise InputError(f"'{where}' has a picture without a list of regions", _ADVICE)
    return found


def _class_key(where: str, regions: list[dict[str, Any]]) -> str | None:
    """The attribute that holds the class; None if the regions have no attributes."""
    keys = sorted({key for region in regions for key in region.get("region_attributes") or {}})
    chosen = keys if len(keys) == 1 else [key for key in keys if key.lower() in CLASS_KEYS]
    if len(chosen) > 1 or (keys and not chosen):
        shown = ", ".join(f"'{key}'" for key in keys)
        raise InputError(
            f"the regions in '{where}' have the attributes {shown}, and none of them is sure to be the class",
            f"call the one that is meant '{CLASS_KEYS[0]}', and no other one {', '.join(CLASS_KEYS[1:])}",
        )
    return chosen[0] if chosen else None


def _shape(region: dict[str, Any], attributes: Any, kind: Any, key: str | None, into: AnnotationSet) -> AnnotatedShape:
    label: Any = (region.get("region_attributes") or {}).get(key) if key else ONLY
    if isinstance(label, dict):  # check boxes
        ticked = [name for name, is_ticked in label.items() if is_ticked]
        label = ticked[0] if len(ticked) == 1 else label
    name = into.see_class(label)
    match kind:
        case "polygon":
            xs, ys = attributes.get("all_points_x"), attributes.get("all_points_y")
            if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
                raise ShapeError("has other numbers of x than of y")
            return AnnotatedShape(name, rings=(ring(list(zip(xs, ys, strict=True))),))
        case "circle" | "ellipse":
            x, y = number(attributes.get("cx"), "cx"), number(attributes.get("cy"), "cy")
            across = number(attributes.get("r" if kind == "circle" else "rx"), "radius")
            down = across if kind == "circle" else number(attributes.get("ry"), "radius")
            degrees = math.degrees(number(attributes.get("theta", 0), "theta"))
            return AnnotatedShape(name, rings=(ellipse_ring(x, y, across, down, degrees),))
        case _:
            raise ShapeError(f"is of the type {shortly(kind)}, which segctl cannot draw")


VIA = Format("VGG Image Annotator", _accepts, _read)
