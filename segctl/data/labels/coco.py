"""COCO's JSON (instances and stuff): images, categories, and annotations with polygons or run lengths.

    {"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}],
     "annotations": [{"image_id", "category_id", "segmentation", "iscrowd"}]}

`segmentation` is a list of polygons [x, y, x, y, …], or {"size": [H, W], "counts"} with run lengths down the columns, as numbers
or packed into text. Source: cocodataset.org, "Data format"; the packing is documented in cocodataset/cocoapi, common/maskApi.h.
"""

from functools import partial
from typing import Any

import numpy as np

from segctl.data.labels.annotations import (
    MAX_POINTS,
    AnnotatedPicture,
    AnnotatedShape,
    AnnotationSet,
    Runs,
    ShapeError,
    TooFewPointsError,
    flat_ring,
    shortly,
    size_of,
)
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.errors import InputError

_ONLY = "give --labels only such files, by name or by a pattern such as 'annotations/instances_*.json'"
_ADVICE = "export it again as COCO instances or COCO segmentation"


def _accepts(document: Document) -> bool:
    return document.has("images", "annotations") or document.has("images", "categories")


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit."""
    where, tree = document.path, document.tree
    for key in ("images", "categories", "annotations"):
        if not isinstance(tree.get(key), list) or not all(isinstance(entry, dict) for entry in tree[key]):
            raise InputError(f"'{where}' has no list of {key}, so it is not a COCO file of instances or stuff", _ONLY)
    annotations = tree["annotations"]
    if any("segments_info" in annotation for annotation in annotations[:1]):
        raise InputError(f"'{where}' is a COCO panoptic file, whose regions are in PNG files beside it", _ADVICE)
    used = {annotation.get("category_id") for annotation in annotations if _is_key(annotation.get("category_id"))}
    names = _categories(where, tree["categories"], used, into)
    pictures = _pictures(where, tree["images"], into)
    into.rules = ["crowds (iscrowd) are drawn as their class, under everything else"] if _has_crowds(annotations) else into.rules
    for index, annotation in enumerate(annotations):
        what = f"annotation {shortly(annotation.get('id', index))}"
        picture = pictures.get(annotation["image_id"]) if _is_key(annotation.get("image_id")) else None
        if picture is None:
            into.problem(
                "",
                f"{what} in '{where}' is of the image {shortly(annotation.get('image_id'))}, which the file does not list",
                _ADVICE,
            )
        elif not annotation.get("segmentation"):
            into.skipped["keypoints" if annotation.get("keypoints") and not annotation.get("bbox") else "boxes"] += 1
        else:
            into.add(picture, what, partial(_shape, annotation, names))


def _is_key(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _has_crowds(annotations: list[dict[str, Any]]) -> bool:
    return any(annotation.get("iscrowd") for annotation in annotations)


def _categories(where: str, entries: list[dict[str, Any]], used: set[Any], into: AnnotationSet) -> dict[Any, str]:
    """The name of each category by its id. Groups, which Roboflow lists as categories, are left out."""
    into.has_table = True
    names: dict[Any, str] = {}
    parents = {entry.get("supercategory") for entry in entries if entry.get("supercategory") != entry.get("name")}
    if not all(_is_key(entry.get("id")) for entry in entries):
        raise InputError(f"'{where}' has a category without an id", _ADVICE)
    for entry in sorted(entries, key=lambda entry: (isinstance(entry["id"], str), entry["id"])):
        identity, name = entry["id"], entry.get("name")
        if identity in names:
            raise InputError(f"'{where}' has the category id {shortly(identity)} twice", _ADVICE)
        if identity not in used and name in parents:
            into.notes.append(f"'{name}' is a group of classes in '{where}' that no annotation uses, and is not a class")
            continue
        if isinstance(name, str) and name.strip() in names.values():
            raise InputError(f"'{where}' has two categories called '{name.strip()}'", "rename one of them")
        try:
            names[identity] = into.see_class(name)
        except ShapeError as error:
            raise InputError(f"the category {shortly(identity)} in '{where}' {error}", _ADVICE) from error
    return names


def _pictures(where: str, entries: list[dict[str, Any]], into: AnnotationSet) -> dict[Any, AnnotatedPicture]:
    pictures: dict[Any, AnnotatedPicture] = {}
    folder = where.rpartition("/")[0]
    for entry in entries:
        identity, name = entry.get("id"), entry.get("file_name")
        if not _is_key(identity) or not isinstance(name, str) or not name:
            raise InputError(f"'{where}' has an image without id or file_name", _ADVICE)
        if identity in pictures:
            raise InputError(f"'{where}' has the image id {shortly(identity)} twice", _ADVICE)
        try:
            size = size_of(entry.get("height"), entry.get("width"))
        except ShapeError as error:
            raise InputError(f"the image '{name}' in '{where}' {error}", _ADVICE) from error
        # Roboflow lays the file beside its pictures, COCO in a folder of its own.
        pictures[identity] = into.picture([f"{folder}/{name}", name] if folder else [name], where, size)
    return pictures


def _shape(annotation: dict[str, Any], names: dict[Any, str]) -> AnnotatedShape:
    category = annotation.get("category_id")
    if not _is_key(category) or category not in names:
        raise ShapeError(f"has the category {shortly(category)}, which the file does not list")
    is_crowd = bool(annotation.get("iscrowd"))
    order = -1.0 if is_crowd else 0.0
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        return AnnotatedShape(names[category], runs=_runs(segmentation), order=order, is_instance=not is_crowd)
    if not isinstance(segmentation, list):
        raise ShapeError(f"has {shortly(segmentation)} for its segmentation, wanted polygons or run lengths")
    if not all(isinstance(part, list) for part in segmentation):
        raise ShapeError("has a segmentation that is not a list of polygons")
    # Parts of one or two points cover nothing.
    rings = tuple(flat_ring(part) for part in segmentation if len(part) not in (2, 4))
    if not rings:
        raise TooFewPointsError("has no polygon of 3 points")
    return AnnotatedShape(names[category], rings=rings, order=order, is_instance=not is_crowd)


def _runs(segmentation: dict[str, Any]) -> Runs:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ShapeError(f"has {shortly(size)} for the size of its mask, wanted [height, width]")
    if isinstance(counts, str):
        lengths = unpack_counts(counts)
    elif isinstance(counts, list) and len(counts) <= MAX_POINTS and all(type(count) is int for count in counts):
        lengths = np.array([min(max(count, -1), 2**40) for count in counts], np.int64)
    else:
        raise ShapeError("has run lengths that are neither a list of whole numbers nor text, or too many of them")
    return Runs(lengths, size[0], size[1], by_column=True)


def unpack_counts(text: str) -> np.ndarray:
    """COCO's packed run lengths, int64 (n,).

    Each character holds six bits: five of a number, lowest first, and one that says whether more follow; the last one's highest
    bit is the sign. From the fourth number on, a number is the difference from the one two places before. Raises
    ShapeError for text that is nothing of the kind.
    """
    if len(text) > 4 * MAX_POINTS:
        raise ShapeError(f"has packed run lengths of {len(text)} characters, wanted at most {4 * MAX_POINTS}")
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ShapeError("has packed run lengths that are cut short or damaged")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 7:
        raise ShapeError("has packed run lengths that are cut short or damaged")
    places = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((codes & 31) << 5 * places, first)
    numbers -= np.where(codes[last] & 16, 1 << 5 * (last - first + 1), 0)
    lengths = numbers.copy()
    lengths[1::2] = np.cumsum(numbers[1::2])
    lengths[2::2] = np.cumsum(numbers[2::2])
    return lengths


COCO = Format("COCO", _accepts, _read)
