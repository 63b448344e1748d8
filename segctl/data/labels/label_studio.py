"""Label Studio's JSON export: a list of tasks, each with the results of its annotators.

    [{"data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": [{"result": [
        {"type": "polygonlabels", "original_width": 640, "original_height": 480,
         "value": {"points": [[10.0, 20.0], …], "polygonlabels": ["car"]}},
        {"type": "brushlabels", …, "value": {"format": "rle", "rle": [0, 0, …], "brushlabels": ["road"]}}]}]}]

Points are in percent of the picture. A brush is a picture of four channels, packed bit by bit, whose opacity is the mask.
Source: labelstud.io, "Export data"; the packing is that of the package @thi.ng/rle-pack.
"""

import re
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from segctl.data.labels.annotations import (
    AnnotatedShape,
    AnnotationSet,
    Runs,
    ShapeError,
    ellipse_ring,
    number,
    ring,
    shortly,
    size_of,
)
from segctl.data.labels.documents import Document
from segctl.data.labels.format import Format
from segctl.errors import InputError

_ADVICE = "export the project from Label Studio as JSON"
PICTURE = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp|gif)$", re.IGNORECASE)
_KINDS = ("polygon", "brush", "ellipse", "rectangle", "keypoint")
_SKIPPED = {"rectangle": "boxes", "keypoint": "keypoints"}
MAX_BRUSH_BYTES = 2**26


def _accepts(document: Document) -> bool:
    tasks = document.tree
    return document.kind == "json" and isinstance(tasks, list) and bool(tasks) and all(map(_is_task, tasks))


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict):
        return False
    return ("data" in task and ("annotations" in task or "completions" in task)) or "annotator" in task


def _read(document: Document, into: AnnotationSet) -> None:
    """Raises InputError if the file as a whole does not fit."""
    where, several = document.path, 0
    for task in document.tree:
        if "data" not in task:
            raise InputError(f"'{where}' is Label Studio's short form (JSON-MIN)", _ADVICE)
        identity = shortly(task.get("id", "?"))
        names = _names(where, identity, task["data"])
        annotations = task.get("annotations", task.get("completions"))
        if not isinstance(annotations, list) or not all(isinstance(annotation, dict) for annotation in annotations):
            raise InputError(f"task {identity} in '{where}' has no list of annotations", _ADVICE)
        done = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
        several += len(done) > 1
        # Exports list the annotations of a task in the order of their making, the last one is the latest.
        best = next((one for one in done if one.get("ground_truth")), done[-1] if done else {"result": []})
        results = best.get("result")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise InputError(f"task {identity} in '{where}' has no list of results", _ADVICE)
        _read_task(where, identity, names, results, into)
    if several:
        into.notes.append(f"{several} tasks have several annotations; the one marked as ground truth, or the last one, is taken")


def _names(where: str, identity: str, data: Any) -> list[str]:
    """What the picture of a task may be called."""
    texts = data.values() if isinstance(data, dict) else []
    found = [path for text in texts if isinstance(text, str) and PICTURE.search(path := _path(text))]
    if len(found) != 1:
        raise InputError(f"task {identity} in '{where}' names {len(found)} pictures, wanted one", _ADVICE)
    parent, _, name = found[0].rpartition("/")
    # An upload gets eight digits and a hyphen in front of its name.
    bare = re.sub(r"^[0-9a-f]{8}-", "", name)
    inside = [path for path in [found[0].lstrip("/")] if "/" in path and not re.match(r"data/upload/", path)]
    return [*inside, name, bare] if parent else [name, bare]


def _path(text: str) -> str:
    """The path in an address: `/data/local-files/?d=photos/a.jpg` and `s3://bucket/photos/a.jpg` are `photos/a.jpg`."""
    try:
        address = urlsplit(text)
    except ValueError:
        return text
    given = parse_qs(address.query).get("d")
    path = given[0] if given else address.path
    return unquote(path).replace("\\", "/")


def _read_task(where: str, identity: str, names: list[str], results: list[dict[str, Any]], into: AnnotationSet) -> None:
    sizes = {(result.get("original_height"), result.get("original_width")) for result in results if "original_width" in result}
    if len(sizes) > 1:
        raise InputError(f"task {identity} in '{where}' has results for pictures of several sizes", _ADVICE)
    try:
        size = size_of(*sizes.pop()) if sizes else None
    except (ShapeError, TypeError) as error:
        raise InputError(f"the picture of task {identity} in '{where}' {error}", _ADVICE) from error
    picture = into.picture(names, where, size)
    labels = {result.get("id"): _labels(result) for result in results if result.get("type") == "labels"}
    for index, result in enumerate(results, start=1):
        kind = str(result.get("type")).removesuffix("labels")
        if kind in _SKIPPED:
            into.skipped[_SKIPPED[kind]] += 1
        elif kind in _KINDS:
            found = _labels(result) or labels.get(result.get("id"), [])
            into.add(picture, f"result {index} ({kind})", partial(_shape, result, kind, found, size, into))
        elif kind:  # "labels" alone names another result's class
            into.skipped[f"'{kind}'"] += 1


def _labels(result: dict[str, Any]) -> list[Any]:
    value = result.get("value")
    found = value.get(result.get("type")) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _shape(
    result: dict[str, Any], kind: str, labels: list[Any], size: tuple[int, int] | None, into: AnnotationSet
) -> AnnotatedShape:
    value = result["value"] if isinstance(result.get("value"), dict) else {}
    if len(labels) != 1:
        raise ShapeError(f"has {len(labels)} labels, wanted one")
    if result.get("image_rotation"):
        raise ShapeError(f"was drawn on the picture turned by {shortly(result['image_rotation'])} degrees")
    name = into.see_class(labels[0])
    if kind == "polygon":
        return AnnotatedShape(name, rings=(ring(value.get("points")) / 100,), relative=True)
    if size is None:
        raise ShapeError("has no size of its picture")
    if kind == "ellipse":
        place = [number(value.get(key), key) for key in ("x", "y", "radiusX", "radiusY")]
        x, y, across, down = (part / 100 * side for part, side in zip(place, (*size[::-1], *size[::-1]), strict=True))
        return AnnotatedShape(name, rings=(ellipse_ring(x, y, across, down, number(value.get("rotation") or 0, "rotation")),))
    if value.get("format") != "rle":
        raise ShapeError(f"has the brush format {shortly(value.get('format'))}, wanted 'rle'")
    pixels = unpack_brush(value.get("rle"), size[0] * size[1] * 4)
    return AnnotatedShape(name, runs=Runs.of_mask(pixels.reshape(*size, 4)[..., 3] > 0))


def unpack_brush(packed: Any, count: int) -> np.ndarray:
    """The values that @thi.ng/rle-pack packed, uint8 (count,).

    packed: bytes as numbers. Bits follow each other without gaps: 32 for the number of values, 5 for the bits of a value less
    one, four times 4 for the bits of a length less one. Then blocks, until there are enough values: a bit that says whether
    one value is repeated, 2 bits that choose one of the four, a length less one in so many bits, and one value or as many values.
    Raises ShapeError for anything else, or for another number of values than `count`.
    """
    if not isinstance(packed, list) or len(packed) > MAX_BRUSH_BYTES:
        raise ShapeError("has no list of bytes for its brush, or too long a one")
    try:
        content = bytes(packed)
    except (TypeError, ValueError) as error:
        raise ShapeError("has a brush that is not a list of bytes") from error
    bits = _Bits(content)
    if (total := bits.take(32)) != count:
        raise ShapeError(f"has a brush of {total} values, wanted {count} (four for each pixel)")
    word = bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = bits.take(1)
        length = bits.take(sizes[bits.take(2)]) + 1
        if at + length > count:
            raise ShapeError("has a brush of more values than its picture has")
        if repeated:
            values[at : at + length] = bits.take(word) & 255
        else:
            values[at : at + length] = bits.take_many(word, length)
        at += length
    return values


class _Bits:
    """Takes numbers out of bytes, highest bit first. Raises ShapeError at the end."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, count: int) -> int:
        start, self._at = self._at, self._at + count
        if self._at > 8 * len(self._content):
            raise ShapeError("has a brush that is cut short")
        first, end = start // 8, -(-self._at // 8)
        return int.from_bytes(self._content[first:end]) >> (8 * end - self._at) & ((1 << count) - 1)

    def take_many(self, word: int, count: int) -> np.ndarray:
        """`count` numbers of `word` bits, their lowest 8 bits: uint8 (count,)."""
        return np.array([self.take(word) & 255 for _ in range(count)], np.uint8)


LABEL_STUDIO = Format("Label Studio", _accepts, _read)
