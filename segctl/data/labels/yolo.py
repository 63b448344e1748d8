"""YOLO's polygons: a text file for each picture, and a data.yaml with the names.

    0 0.1 0.2 0.3 0.2 0.3 0.4        class, then x and y of each corner in widths and heights of the picture

A line of five numbers is a box. A picture without a text file shows background. Source: docs.ultralytics.com, "Instance
segmentation datasets overview".
"""

import re
from functools import partial
from typing import Any

import numpy as np

from segctl.data.labels.annotations import MAX_POINTS, AnnotatedShape, AnnotationSet, ShapeError, TooFewPointsError, ring, shortly
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.errors import InputError

_ROW = re.compile(r"\d+(\s+[-+]?[\d.]+([eE][-+]?\d+)?){4,}")
_ADVICE = "wanted 'class x y x y x y …' with x and y from 0 to 1"


def _accepts(document: Document) -> bool:
    if document.kind == "yaml":
        return document.has("names") and any(document.has(key) for key in ("train", "val", "nc", "path"))
    return document.kind == "text" and (_is_weak(document) or bool(_ROW.fullmatch(document.tree[0])))


def _is_weak(document: Document) -> bool:
    """Whether it goes with YOLO's files but shows nothing by itself: a data.yaml, a list of names, or an empty text file."""
    return document.kind == "yaml" or not document.tree or _is_list(document)


def _is_list(document: Document) -> bool:
    return document.path.rpartition("/")[2].lower() == "classes.txt"


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit. The names must come before the lines that number them."""
    into.lists_all = False
    if document.kind == "yaml" or _is_list(document):
        _read_names(document, into)
        return
    if document.tree and not into.classes:
        raise InputError(
            f"'{document.path}' numbers its classes, and no data.yaml or classes.txt beside the text files gives their names",
            "give the data.yaml with --labels, or put a classes.txt with one name per line beside the text files",
        )
    stem = document.path.rpartition(".")[0]
    picture = into.picture([stem], document.path)
    names, keypoints = list(into.classes), into.keypoints
    for number, line in enumerate(document.tree, start=1):
        if keypoints:
            into.skipped["keypoints"] += 1
        elif len(line.split()) in (5, 6):  # a sixth number is a detector's confidence
            into.skipped["boxes"] += 1
        else:
            into.add(picture, f"line {number}", partial(_shape, line, names))


def _read_names(document: Document, into: AnnotationSet) -> None:
    names = document.tree if document.kind == "text" else document.tree["names"]
    if isinstance(names, dict):
        keys = sorted(int(key) if re.fullmatch(r"\d{1,4}", str(key)) else -1 for key in names)
        if keys != list(range(len(names))):
            raise InputError(f"'{document.path}' has names for other numbers than 0 to {len(names) - 1}", "number them from 0")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise InputError(f"'{document.path}' has no list of names", "write the names of the classes under `names:`")
    found = [str(name).strip() for name in names]
    if into.classes and list(into.classes) != found:
        raise InputError(f"'{document.path}' has other names than another file of its kind", "remove one of them")
    if len(set(found)) < len(found):
        raise InputError(f"'{document.path}' has a name twice", "rename one of the classes")
    into.has_table = True
    into.keypoints = document.kind == "yaml" and bool(document.tree.get("kpt_shape"))
    for name in found:
        try:
            into.see_class(name)
        except ShapeError as error:
            raise InputError(f"'{document.path}' {error}", "write the names of the classes under `names:`") from error


def _shape(line: str, names: list[str]) -> AnnotatedShape:
    words = line.split()
    if len(words) > 2 * MAX_POINTS:
        raise ShapeError(f"has {len(words) // 2} points, wanted at most {MAX_POINTS}")
    try:
        numbers: Any = np.array(words, np.float64)
    except ValueError as error:
        raise ShapeError(f"is '{line[:40]}', {_ADVICE}") from error
    if len(numbers) % 2 == 0:
        raise ShapeError(f"has {len(numbers)} numbers, {_ADVICE}")
    if numbers[0] % 1 or not 0 <= numbers[0] < len(names):
        raise ShapeError(f"has the class {shortly(words[0])}, wanted 0 to {len(names) - 1} ({len(names)} names)")
    if len(numbers) < 7:
        raise TooFewPointsError
    if np.abs(numbers[1:]).max() > 2:
        raise ShapeError(f"has the coordinate {numbers[1:][np.abs(numbers[1:]).argmax()]:g}, wanted 0 to 1")
    return AnnotatedShape(names[int(numbers[0])], rings=(ring(numbers[1:].reshape(-1, 2)),), relative=True)


YOLO = Format("YOLO", _accepts, _read, _is_weak)
