"""CVAT for images 1.1: one XML file.

    <annotations><version>1.1</version><meta>…<labels><label><name>…</name><color>#rrggbb</color></label></labels>…</meta>
      <image name="a.jpg" width="640" height="480">
        <polygon label="car" points="1.0,2.0;3.0,4.0;…" z_order="0"/>
        <mask label="car" rle="3, 2, 5" left="10" top="20" width="5" height="2" z_order="0"/>
        <box label="car" xtl="1" ytl="2" xbr="3" ybr="4" rotation="30" z_order="0"/>
        <ellipse label="car" cx="1" cy="2" rx="3" ry="4" rotation="30" z_order="0"/>

The runs of a mask go along its rows, outside first. Source: docs.cvat.ai, "XML annotation format". CVAT's own export of masks
draws boxes too, so segctl does.
"""

import re
import xml.etree.ElementTree as ET
from functools import partial

import numpy as np

from segctl.data.datasets.pairs import Color
from segctl.data.labels.annotations import (
    MAX_POINTS,
    AnnotatedShape,
    AnnotationSet,
    Runs,
    ShapeError,
    box_ring,
    ellipse_ring,
    number,
    ring,
    shortly,
    size_of,
)
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.errors import InputError

_ADVICE = "export the task from CVAT as 'CVAT for images 1.1'"
DRAWN = ("polygon", "mask", "box", "ellipse")
_SKIPPED = {"polyline": "lines", "points": "points", "cuboid": "cuboids", "skeleton": "keypoints", "tag": "tags"}


def _accepts(document: Document) -> bool:
    return document.kind == "xml" and document.tree.tag == "annotations"


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit."""
    where, root = document.path, document.tree
    version = (root.findtext("version") or "").strip()
    if version != "1.1":
        raise InputError(f"'{where}' has the CVAT version '{version}', wanted 1.1", _ADVICE)
    if root.find("track") is not None:
        raise InputError(f"'{where}' is a CVAT file of a video, with tracks", _ADVICE)
    for label in root.iter("label"):
        name = label.findtext("name")
        if name is not None:
            into.has_table = True
            try:
                into.see_class(name, _color(label.findtext("color")))
            except ShapeError as error:
                raise InputError(f"a label in '{where}' {error}", _ADVICE) from error
    folder = where.rpartition("/")[0]
    for image in root.findall("image"):
        name = image.get("name")
        if not name:
            raise InputError(f"'{where}' has an image without a name", _ADVICE)
        try:
            size = size_of(image.get("height"), image.get("width"))
        except ShapeError as error:
            raise InputError(f"the image '{name}' in '{where}' {error}", _ADVICE) from error
        picture = into.picture([f"{folder}/{name}", name] if folder else [name], where, size)
        for index, element in enumerate(image, start=1):
            if element.tag in DRAWN:
                into.add(picture, f"annotation {index} ({element.tag})", partial(_shape, element, into))
            else:
                into.skipped[_SKIPPED.get(element.tag, f"'{element.tag}'")] += 1


def _color(text: str | None) -> Color | None:
    if not text or not re.fullmatch(r"#[0-9a-fA-F]{6}", text.strip()):
        return None
    red, green, blue = bytes.fromhex(text.strip()[1:])
    return red, green, blue


def _shape(element: ET.Element, into: AnnotationSet) -> AnnotatedShape:
    name = into.see_class(element.get("label"))
    order = number(element.get("z_order", "0"), "z_order")

    def value(key: str) -> float:
        return number(element.get(key), key)

    degrees = number(element.get("rotation", "0"), "rotation")
    match element.tag:
        case "polygon":
            return AnnotatedShape(name, rings=(ring(_pairs(element.get("points"))),), order=order)
        case "box":
            corners = box_ring(value("xtl"), value("ytl"), value("xbr"), value("ybr"), degrees)
            return AnnotatedShape(name, rings=(corners,), order=order)
        case "ellipse":
            corners = ellipse_ring(value("cx"), value("cy"), value("rx"), value("ry"), degrees)
            return AnnotatedShape(name, rings=(corners,), order=order)
        case _:
            height, width, left, top = (int(value(key)) for key in ("height", "width", "left", "top"))
            return AnnotatedShape(name, runs=Runs(_lengths(element.get("rle")), height, width, left=left, top=top), order=order)


def _pairs(text: str | None) -> np.ndarray:
    words = re.split("[,;]", text or "")
    if len(words) > 2 * MAX_POINTS:
        raise ShapeError(f"has {len(words) // 2} points, wanted at most {MAX_POINTS}")
    try:
        if 2 * len((text or "").split(";")) != len(words):
            raise ValueError("an odd point")
        return np.array(words, np.float64).reshape(-1, 2)
    except ValueError as error:
        raise ShapeError(f"has the points {shortly(text)}, wanted 'x,y;x,y;…'") from error


def _lengths(text: str | None) -> np.ndarray:
    words = (text or "").replace(",", " ").split()
    if not words or len(words) > MAX_POINTS or not all(re.fullmatch(r"\d{1,10}", word) for word in words):
        raise ShapeError("has run lengths that are not whole numbers, or too many of them")
    return np.array(words, np.int64)


CVAT = Format("CVAT for images 1.1", _accepts, _read)
