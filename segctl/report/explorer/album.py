"""Which pictures the page keeps, and how they are packed.

A label map of a street is mostly equal to the row above it. So each row is stored as its XOR with that row, deflated: about 1 %
of the pixels' bytes, exact, and undone by one line of the page's script.
"""

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segctl.files import Progress
from segctl.report.collect import Run
from segctl.report.content import Album, AlbumPicture, ImageColumn, ImageTable
from segctl.report.explorer.maps import (
    ClassIds,
    NetworkTimes,
    UnfitMapsError,
    drawn_images,
    faults_as_unfit,
    find_prepared,
    label_maps,
    split_scored,
)
from segctl.report.groups import Comparison

DEFAULT_PICTURES = 40
FEW_PICTURES, LARGE_PX, SMALL_PX = 60, 1024, 512
"""Up to FEW_PICTURES are kept at LARGE_PX on the longer side, more at SMALL_PX, so that a page of 500 street scenes and ten runs
stays below 100 MB."""


@dataclass(frozen=True)
class Budget:
    """How many pictures of each split the page keeps, None for all; data_root: where prepared datasets are.

    The runs' own roots are tried as well.
    """

    pictures: int | None = DEFAULT_PICTURES
    data_root: Path | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Collected:
    """An album, why runs or pictures are missing from it, and the time of each run's network by label."""

    album: Album | None
    notes: tuple[str, ...] = ()
    clocks: Mapping[str, NetworkTimes] = field(default_factory=dict)


def collect_album(
    comparison: Comparison,
    teacher: Run | None,
    pair: tuple[Run, Run] | None,
    positions: Mapping[str, int],
    scores: ImageTable | None,
    budget: Budget,
) -> Collected:
    """The pictures of a comparison.

    teacher: shown first, even if it was not scored here.  pair: the runs (distilled, undistilled) whose largest gains must be
    among the pictures.  positions: the colour of each run by label.
    """
    if budget.pictures == 0:
        return Collected(None)
    here = [run for group in comparison.groups for run in group.runs]
    ahead = [*([] if teacher is None else [teacher]), *([] if pair is None else pair[::-1])]
    runs = list({run.label: run for run in [*ahead, *here]}.values())
    first = comparison.groups[0].evaluations[0]
    roots = [
        *([] if budget.data_root is None else [budget.data_root]),
        *(root for run in runs if (root := run.data_root) is not None),
    ]
    labels = tuple((run.label, positions.get(run.label, -1)) for run in runs)
    at = {label: index for index, (label, _) in enumerate(labels)}
    both = None if pair is None else (at[pair[0].label], at[pair[1].label])
    prepared = find_prepared(roots, first, comparison.dataset)
    if isinstance(prepared, str):
        return _from_drawn(comparison, runs, labels, scores, budget, both, prepared)
    names = prepared.names(split_scored(first))
    worst = [run.evaluations[comparison.split].worst for run in here]
    chosen = choose_pictures(names, _by_run(scores), pair, worst, budget)
    longest = longest_px(len(chosen))
    pictures: dict[str, tuple[int, int, bytes, bytes]] = {}
    try:
        with faults_as_unfit():
            for name in chosen:
                image, truth = reduced_image(prepared.image(name), longest), reduced_map(prepared.label(name), longest)
                pictures[name] = (image.shape[1], image.shape[0], jpeg(image), pack_map(truth))
    except UnfitMapsError as error:
        return _from_drawn(comparison, runs, labels, scores, budget, both, error.message)
    notes, clocks, predictions = [], {}, []
    for number, run in enumerate(runs):
        clock = NetworkTimes("")
        maps: list[bytes | None] = []
        try:
            with faults_as_unfit():
                for found in label_maps(run, run.evaluations.get(comparison.split), prepared, chosen, clock):
                    maps.append(pack_map(reduced_map(found, longest)))
                    if budget.progress is not None:
                        budget.progress(number * len(chosen) + len(maps), len(runs) * len(chosen))
        except UnfitMapsError as error:
            notes.append(f"`{run.label}` has no predictions here: {error.message}")
            maps = [None] * len(chosen)
        clocks[run.label] = clock
        predictions.append(maps)
    colors = prepared.classes.palette()
    classes = tuple((name, f"#{colors[index].tobytes().hex()}") for index, name in enumerate(prepared.classes.names))
    kept = tuple(
        AlbumPicture(name, *pictures[name], tuple(maps[index] for maps in predictions)) for index, name in enumerate(chosen)
    )
    return Collected(Album(comparison.place, labels, classes, kept, longest, len(names), scores, both), tuple(notes), clocks)


def _from_drawn(
    comparison: Comparison,
    runs: Sequence[Run],
    labels: tuple[tuple[str, int], ...],
    scores: ImageTable | None,
    budget: Budget,
    pair: tuple[int, int] | None,
    why: str,
) -> Collected:
    """The worst images of all runs, for a report without the dataset."""
    with_reason = f"only worst images are shown, each with the runs for which `segctl eval` drew it: {why}"
    with faults_as_unfit():
        images, colors = drawn_images(runs, comparison.split)
    if not images:
        return Collected(None, (f"no pictures are shown: {why}",))
    # Images that more runs share come first, so that a small budget keeps those that can be compared.
    chosen = sorted(images, key=lambda name: (-len(images[name].predictions), name))[: budget.pictures]
    longest, kept = longest_px(len(chosen)), []
    for name in chosen:
        found = images[name]
        image = reduced_image(found.image, longest)
        maps = [found.predictions.get(run.label) for run in runs]
        packed = tuple(None if each is None else pack_map(reduced_map(each, longest)) for each in maps)
        kept.append(
            AlbumPicture(name, image.shape[1], image.shape[0], jpeg(image), pack_map(reduced_map(found.truth, longest)), packed)
        )
    classes = tuple((name, f"#{bytes(color).hex()}") for name, color in colors)
    images_in_all = int(comparison.groups[0].evaluations[0].about.get("images") or len(kept))
    return Collected(
        Album(comparison.place, labels, classes, tuple(kept), longest, images_in_all, scores, pair, False), (with_reason,)
    )


def choose_pictures(
    names: Sequence[str],
    scores: Mapping[str, Mapping[str, float | None]],
    pair: tuple[Run, Run] | None,
    worst: Sequence[Sequence[object]],
    budget: Budget,
) -> list[str]:
    """The images to keep, in the order of the split.

    Largest gains and losses of the pair, worst images of every run and evenly spaced ones, in turns, until the budget is full.
    scores: mIoU_I of every image by the label of the run.
    """
    most = len(names) if budget.pictures is None else min(budget.pictures, len(names))
    if most == len(names):
        return list(names)
    lists: list[Sequence[str]] = []
    if pair is not None:
        gains = gains_of(scores, pair)
        ranked = sorted(gains, key=lambda name: (-gains[name], name))
        lists += [ranked, ranked[::-1]]
    lists += [[str(getattr(image, "image", "")) for image in images] for images in worst]
    step = len(names) / most
    lists.append([names[int(index * step)] for index in range(most)])
    known, kept = set(names), dict[str, None]()
    for turn in zip_longest(*lists):
        for name in turn:
            if name is not None and name in known and len(kept) < most:
                kept[name] = None
    return [name for name in names if name in kept]


def gains_of(scores: Mapping[str, Mapping[str, float | None]], pair: tuple[Run, Run]) -> dict[str, float]:
    """Points of mIoU_I by which the first run of a pair is above the second on each image."""
    ours, theirs = (scores.get(run.label, {}) for run in pair)
    return {name: mine - other for name, mine in ours.items() if mine is not None and (other := theirs.get(name)) is not None}


def _by_run(scores: ImageTable | None) -> dict[str, dict[str, float | None]]:
    return {} if scores is None else miou_by_run(scores)


def miou_by_run(scores: ImageTable) -> dict[str, dict[str, float | None]]:
    """mIoU_I of every image by the label of the run."""

    def column(found: ImageColumn) -> dict[str, float | None]:
        return dict(zip(scores.images, found.miou_i, strict=True))

    return {found.label: column(found) for found in scores.runs}


def longest_px(pictures: int) -> int:
    """The largest longer side, in pixels, when this many pictures are kept."""
    return LARGE_PX if pictures <= FEW_PICTURES else SMALL_PX


def pack_map(ids: ClassIds) -> bytes:
    """A label map uint8 (H, W) as bytes: each row XOR the row above it, deflated."""
    rows = ids.copy()
    rows[1:] ^= ids[:-1]
    return zlib.compress(rows.tobytes(), 9)


def unpack_map(packed: bytes, height: int, width: int) -> ClassIds:
    """What `pack_map` packed: uint8 (H, W)."""
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, width)
    found: ClassIds = np.bitwise_xor.accumulate(rows, axis=0)
    return found


def reduced_image(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The image uint8 (H, W, 3), shrunk so that its longer side is at most `longest`."""
    from PIL import Image

    size = _size(image.shape[0], image.shape[1], longest)
    return image if size is None else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def reduced_map(ids: ClassIds, longest: int) -> ClassIds:
    """The label map uint8 (H, W), shrunk as its image; ids are never mixed."""
    from PIL import Image

    size = _size(ids.shape[0], ids.shape[1], longest)
    return ids if size is None else np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))


def _size(height: int, width: int, longest: int) -> tuple[int, int] | None:
    """(width, height) after shrinking; None where the picture is small enough."""
    scale = longest / max(height, width)
    return None if scale >= 1 else (max(1, round(width * scale)), max(1, round(height * scale)))


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """An image uint8 (H, W, 3) as JPEG, small ones at a higher quality: they are enlarged to crisp pixels."""
    from PIL import Image

    stream = io.BytesIO()
    quality, sampling = (92, 0) if max(image.shape) <= 256 else (82, 2)
    Image.fromarray(image).save(stream, "jpeg", quality=quality, subsampling=sampling, optimize=True)
    return stream.getvalue()
