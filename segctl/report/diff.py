"""Two runs on the same images -> a page: where the second is better or worse, and whether that is beyond the noise of images.

Regions are connected areas of one class in the ground truth, in bins of their share of the image. Their score is the share of
their pixels that are right. It is counted as tp and fn of a table whose classes are the bins, so that the same paired bootstrap
that compares classes compares them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segctl import __version__
from segctl.commands import command_line
from segctl.errors import InputError, did_you_mean
from segctl.ignored import IGNORED
from segctl.metrics.boundary import boundary_counts, boundary_distance, on_boundary
from segctl.metrics.intervals import Difference, Differences, mean_intervals, paired_differences
from segctl.metrics.scores import per_class, score
from segctl.metrics.table import CountTable
from segctl.report.analysis import Measured, difference_bars, image_table
from segctl.report.collect import Run, collect
from segctl.report.content import (
    UNDEFINED,
    Album,
    ImageTable,
    Notes,
    Page,
    PageBlock,
    Paragraph,
    PictureRow,
    Section,
    Table,
    table,
)
from segctl.report.explorer.album import Budget, Collected, collect_album, gains_of, miou_by_run, unpack_map
from segctl.report.explorer.maps import ClassIds, UnfitMapsError, faults_as_unfit, find_prepared, label_maps, split_scored
from segctl.report.figures import draw_differences
from segctl.report.groups import Comparison, Group, setting_text
from segctl.report.headline import legend_in_view
from segctl.report.sections import Drawer
from segctl.report.strips import draw_row, row_uris
from segctl.report.tables import HEADLINE
from segctl.schema.same_run import changes

REGION_SIZES = ((0.0, "below 0.1 % of the image"), (0.001, "0.1 % to 1 %"), (0.01, "1 % to 10 %"), (0.1, "10 % and more"))
"""The bins of regions: the least share of the image's pixels, and the words for the bin."""

BANDS = ("at the contour", "near it", "inside")
"""Pixels up to a quarter of the boundary's width from a contour of the truth, the rest of the boundary, and all others."""

SHOWN = 10
BETTER, WORSE, SAME = "better, beyond noise", "worse, beyond noise", "no difference beyond noise"

ABOUT = (
    "Differences are the second run minus the first, in points, with their 95 % interval over images; both runs are scored on "
    "the same resamples. “Beyond noise” means that this interval excludes 0: other images of the same kind would show it. Nobody "
    "can say from two runs what other seeds would show; `segctl report` over several seeds does."
)
ABOUT_SIZES = (
    "The share of right pixels, in percent, in connected regions of one class in the ground truth, by the share of the image "
    "that the region covers."
)
ABOUT_BOUNDARY = (
    "The share of right pixels, in percent, by their distance from a contour of the ground truth: at the contour is up to a "
    "quarter of the width of Boundary IoU's band (2 % of the image's diagonal), near it the rest of that band. Boundary IoU "
    "(arXiv:2103.16562) is below."
)


class DiffRow(NamedTuple):
    """A score of both runs in percent, and the difference with its interval; None where undefined."""

    name: str
    first: float | None
    second: float | None
    difference: Difference | None

    @property
    def verdict(self) -> str:
        return verdict(self.difference)


@dataclass(frozen=True)
class Diff:
    """What was found on one split. sizes, boundary: empty where label maps were not available, with the reason in `notes`.

    images: of each image the points of mIoU_I by which the second run is above the first, the largest gain first.
    """

    comparison: Comparison
    scores: tuple[DiffRow, ...]
    classes: tuple[DiffRow, ...]
    sizes: tuple[DiffRow, ...]
    boundary: tuple[DiffRow, ...]
    images: Mapping[str, float]
    notes: tuple[str, ...]
    measured: Measured
    table: ImageTable

    def as_json(self) -> dict[str, Any]:
        """The numbers for a program."""
        parts = {"scores": self.scores, "classes": self.classes, "region_sizes": self.sizes, "boundary": self.boundary}
        return {
            "dataset": self.comparison.dataset,
            "split": self.comparison.split,
            **{name: [_row_json(row) for row in rows] for name, rows in parts.items()},
            "images": dict(self.images),
            "notes": list(self.notes),
        }


def verdict(found: Difference | None) -> str:
    """Better, worse or neither, in words."""
    if found is None:
        return UNDEFINED
    return BETTER if found.low > 0 else WORSE if found.high < 0 else SAME


def diff_runs(first: Path, second: Path, runs_root: Path, split: str | None, budget: Budget) -> tuple[Run, Run, list[Diff]]:
    """Compare two runs on every split that both are scored on, or on `split`.

    Raises InputError where a run cannot be read, both are one run, or they are not scored on the same images.
    """
    collection = collect([first, second], runs_root)
    if collection.unreadable:
        raise InputError(collection.unreadable[0])
    if len(collection.runs) != 2:
        raise InputError(
            f"'{first}' and '{second}' are the same run", "give two runs, such as `segctl report --diff RUN_A RUN_B`"
        )
    a, b = collection.runs
    shared = [name for name in a.evaluations if name in b.evaluations and _same_images(a, b, name)]
    wanted = shared if split is None else [name for name in shared if name == split]
    if not wanted:
        which = "a split" if split is None else f"split '{split}'{did_you_mean(split, shared)}"
        lines = " and ".join(f"`{command_line('eval', run.folder.path, data_root=run.data_root)}`" for run in (a, b))
        raise InputError(
            f"'{first}' and '{second}' are not both scored on the same images of {which}, with counts", f"run {lines}"
        )
    return a, b, [_diff(a, b, name, budget) for name in wanted]


def build_diff(a: Run, b: Run, diffs: Sequence[Diff], drawer: Drawer, budget: Budget) -> Page:
    """The page about the differences; collects the pictures and draws the figures."""
    made = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by segctl {__version__}."
    lead: list[PageBlock] = []
    sections = []
    for found in diffs:
        pair = (b, a)
        collected = collect_album(found.comparison, None, pair, {a.label: 0, b.label: 1}, found.table, budget)
        lead += [Paragraph(_sentence(a, b, found)), _summary(found)]
        if collected.album is not None:
            lead += _rows(a, b, found, collected.album, drawer)
        sections += _sections(a, b, found, collected, drawer)
    return Page(f"{b.label} against {a.label}", (*lead, Paragraph(ABOUT), Paragraph(made)), (*sections, _settings(a, b)))


def _same_images(a: Run, b: Run, split: str) -> bool:
    mine, other = a.evaluations[split], b.evaluations[split]
    same = (a.spec.data.dataset, mine.fingerprint) == (b.spec.data.dataset, other.fingerprint)
    return same and mine.counts is not None and other.counts is not None


def _diff(a: Run, b: Run, split: str, budget: Budget) -> Diff:
    groups = tuple(Group(run.label, (run,), split) for run in (a, b))
    dataset, fingerprint = a.spec.data.dataset, a.evaluations[split].fingerprint
    comparison = Comparison(f"{dataset} / {split}", dataset, fingerprint, split, groups, ())
    tables = [group.counts for group in groups]
    before, after = (found[0] for found in tables if found is not None)
    binary = groups[0].binary
    found = paired_differences([before], [after], binary=binary)
    one, two = score(before, binary=binary), score(after, binary=binary)
    scores = tuple(DiffRow(name, one[name], two[name], found.scores[name]) for name in (*HEADLINE, "mIoU_I_q5", "Acc"))
    sizes, boundary, notes = _from_maps(a, b, comparison, before, budget)
    measured = _measured(groups, found, after, binary)
    content = image_table([_measured((groups[0], groups[0]), found, before, binary, position=0), measured])
    gains = gains_of(miou_by_run(content), (b, a))
    ordered = {name: gains[name] for name in sorted(gains, key=lambda name: (-gains[name], name))}
    warnings = (found.method, *([found.warning] if found.warning else []))
    rows = _class_rows(before, after, found.per_class, binary)
    return Diff(comparison, scores, rows, sizes, boundary, ordered, (*notes, *warnings), measured, content)


def _measured(groups: Sequence[Group], found: Differences, table_: CountTable, binary: bool, position: int = 1) -> Measured:
    return Measured(groups[1], position, (table_,), mean_intervals([table_], binary=binary), groups[0], found)


def _class_rows(
    before: CountTable, after: CountTable, differences: Mapping[str, Difference | None], binary: bool, column: str = "IoU_D"
) -> tuple[DiffRow, ...]:
    first, second = ({str(row["class"]): row[column] for row in per_class(found, binary=binary)} for found in (before, after))

    def number(value: Any) -> float | None:
        return None if value is None else float(value)

    return tuple(DiffRow(name, number(first[name]), number(second[name]), found) for name, found in differences.items())


def _from_maps(
    a: Run, b: Run, comparison: Comparison, counts: CountTable, budget: Budget
) -> tuple[tuple[DiffRow, ...], tuple[DiffRow, ...], tuple[str, ...]]:
    """The rows of region sizes and of the boundary, from the label maps of every image; or why there are none."""
    mine = a.evaluations[comparison.split]
    roots = [*([] if budget.data_root is None else [budget.data_root]), *(root for run in (a, b) if (root := run.data_root))]
    prepared = find_prepared(roots, mine, comparison.dataset)
    missing = "no scores by size of region or at the boundary"
    if isinstance(prepared, str):
        return (), (), (f"{missing}: {prepared}",)
    names, classes = prepared.names(split_scored(mine)), len(prepared.classes.names)
    tell = budget.progress
    sizes, bands, contours = _Counted(), _Counted(), _Counted()
    maps: list[Iterator[ClassIds]] = [label_maps(run, run.evaluations[comparison.split], prepared, names) for run in (a, b)]
    try:
        with faults_as_unfit():
            for number, (name, *found) in enumerate(zip(names, *maps, strict=True), 1):
                truth = prepared.label(name)
                bins, near = region_bins(truth, classes), distance_bands(truth, classes)
                for side, prediction in enumerate(found):
                    right = prediction == truth
                    sizes.add(side, _shares(bins, right, len(REGION_SIZES)))
                    bands.add(side, _shares(near, right, len(BANDS)))
                    contours.add(side, boundary_counts(prediction, truth, classes))
                if tell is not None:
                    tell(number, len(names))
    except UnfitMapsError as error:
        return (), (), (f"{missing}: {error.message}",)
    groups = None if counts.groups is None else tuple(dict(zip(counts.names, counts.groups, strict=True))[name] for name in names)
    by_size = sizes.rows(names, [words for _, words in REGION_SIZES], groups)
    by_band = bands.rows(names, BANDS, groups)
    binary = comparison.groups[0].binary
    one, two = contours.tables(names, prepared.classes.names, groups)
    found_there = paired_differences([one], [two], binary=binary)
    means = score(one, binary=binary), score(two, binary=binary)
    total = DiffRow("mBIoU_D", means[0]["mIoU_D"], means[1]["mIoU_D"], found_there.scores["mIoU_D"])
    by_class = _class_rows(one, two, found_there.per_class, binary)
    named = tuple(row._replace(name=f"Boundary IoU of {row.name}") for row in by_class)
    return by_size, (*by_band, total, *named), ()


class _Counted:
    """Counts int64 (K, 3) of every image for both runs."""

    def __init__(self) -> None:
        self._sides: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])

    def add(self, side: int, counts: NDArray[np.int64]) -> None:
        """Keep the counts int64 (K, 3) of an image. side: 0 for the first run, 1 for the second."""
        self._sides[side].append(counts)

    def tables(self, names: Sequence[str], kinds: Sequence[str], groups: tuple[str, ...] | None) -> tuple[CountTable, CountTable]:
        one, two = (CountTable(tuple(names), tuple(kinds), np.stack(side), groups) for side in self._sides)
        return one, two

    def rows(self, names: Sequence[str], kinds: Sequence[str], groups: tuple[str, ...] | None) -> tuple[DiffRow, ...]:
        one, two = self.tables(names, kinds, groups)
        return _class_rows(one, two, paired_differences([one], [two]).per_class, binary=False)


def _shares(kinds: NDArray[np.uint8], right: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Right pixels as tp and wrong ones as fn, int64 (K, 3), so that the IoU of a kind is the share that is right."""
    hits = np.bincount(kinds[right & (kinds < count)], minlength=count)
    misses = np.bincount(kinds[~right & (kinds < count)], minlength=count)
    return np.stack([hits, np.zeros_like(hits), misses], axis=-1).astype(np.int64)


def region_bins(truth: ClassIds, classes: int) -> NDArray[np.uint8]:
    """Of each pixel uint8 (H, W) the bin of its connected region in REGION_SIZES; 255 if ignored. truth: uint8 (H, W)."""
    import cv2

    bins = np.full(truth.shape, IGNORED, np.uint8)
    starts = np.array([start for start, _ in REGION_SIZES[1:]]) * truth.size
    for kind in np.unique(truth[truth < classes]):
        _, parts, stats, _ = cv2.connectedComponentsWithStats((truth == kind).astype(np.uint8), connectivity=8)
        area = stats[:, cv2.CC_STAT_AREA]
        inside = parts > 0
        bins[inside] = np.searchsorted(starts, area, side="right").astype(np.uint8)[parts[inside]]
    return bins


def distance_bands(truth: ClassIds, classes: int) -> NDArray[np.uint8]:
    """Of each pixel uint8 (H, W) its band of BANDS; 255 where it is ignored. truth: uint8 (H, W)."""
    wide = boundary_distance(*truth.shape)
    # `on_boundary` takes the image's own edge for a contour, as Boundary IoU does. Ignored pixels around the image make it none.
    padded = np.pad(truth, wide, constant_values=IGNORED)
    valid, ids = padded < classes, padded.astype(np.int32)
    bands = np.full(padded.shape, IGNORED, np.uint8)
    bands[valid] = 2
    bands[on_boundary(ids, valid, classes, wide)] = 1
    bands[on_boundary(ids, valid, classes, max(1, wide // 4))] = 0
    return bands[wide:-wide, wide:-wide]


def _sentence(a: Run, b: Run, found: Diff) -> str:
    row = found.scores[0]
    images = len(found.table.images)
    if row.difference is None:
        return f"`{b.label}` against `{a.label}` on {images:,} images of {found.comparison.place}."
    low, high = row.difference.low, row.difference.high
    return (
        f"`{b.label}` against `{a.label}` on {images:,} images of {found.comparison.place}: {row.difference.value:+.2f} points "
        f"of mIoU_D [{low:+.2f}, {high:+.2f}], {row.verdict}."
    )


def _summary(found: Diff) -> Table:
    """How many classes, sizes and images are better and worse."""
    rows = [
        [name, *(f"{sum(row.verdict == kind for row in part)}" for kind in (BETTER, WORSE, SAME))]
        for name, part in (("classes", found.classes), ("sizes of regions", found.sizes), ("boundary", found.boundary))
        if part
    ]
    gains = list(found.images.values())
    signs = [sum(value > 0 for value in gains), sum(value < 0 for value in gains), sum(value == 0 for value in gains)]
    rows.append(["images (each by its score alone)", *map(str, signs)])
    return table(("beyond noise", "better", "worse", "neither"), rows)


def _rows(a: Run, b: Run, found: Diff, album: Album, drawer: Drawer) -> list[PageBlock]:
    """Image, truth and both predictions where the second run gains most and where it loses most."""
    labels = [label for label, _ in album.runs]
    places = [labels.index(run.label) for run in (a, b)]
    shown = [
        picture
        for picture in album.pictures
        if picture.name in found.images and all(picture.predictions[place] is not None for place in places)
    ]
    shown.sort(key=lambda picture: -found.images[picture.name])
    ends = [picture for index, picture in enumerate([*shown[:1], *shown[1:][-1:]]) if (found.images[picture.name] > 0) != index]
    blocks: list[PageBlock] = []
    for picture in ends:
        maps = [("truth", unpack_map(picture.truth, picture.height, picture.width))]
        for run, place in zip((a, b), places, strict=True):
            packed = picture.predictions[place]
            if packed is not None:
                maps.append((run.label, unpack_map(packed, picture.height, picture.width)))
        points = found.images[picture.name]
        title = (
            f"{picture.name}: where `{b.label}` is most {'above' if points > 0 else 'below'} `{a.label}` ({points:+.2f} mIoU_I)"
        )
        legend = legend_in_view(album.classes, [each for _, each in maps])
        draw = partial(draw_row, picture, maps, album.classes, legend)
        strip = drawer.picture(f"row-{picture.name}", title, draw)
        blocks.append(PictureRow(strip, row_uris(picture, maps, album.classes), legend, picture.width))
    return blocks


def _sections(a: Run, b: Run, found: Diff, collected: Collected, drawer: Drawer) -> list[Section]:
    place = found.comparison.place
    columns = (a.label, b.label, "difference", "verdict")
    names, bars = difference_bars([found.measured])
    title = f"{b.label} minus {a.label} on {place}, with 95 % intervals over images"
    explorer: list[PageBlock] = [] if collected.album is None else [collected.album]
    explorer += [Notes(collected.notes)] if collected.notes else []
    sections = [Section(f"Scores, {place}", (_table("score", columns, found.scores), Notes(found.notes)))]
    figure = drawer(f"diff-{place}", title, draw_differences(names, bars))
    sections.append(Section(f"Classes, {place}", (figure, _table("class", columns, found.classes))))
    if found.sizes:
        sections.append(Section(f"Sizes of regions, {place}", (Paragraph(ABOUT_SIZES), _table("region", columns, found.sizes))))
    if found.boundary:
        sections.append(Section(f"Boundary, {place}", (Paragraph(ABOUT_BOUNDARY), _table("pixels", columns, found.boundary))))
    images = (Paragraph(_about_images(found)), _image_table(found), found.table)
    if explorer:
        sections.append(Section(f"Explorer, {place}", tuple(explorer)))
    sections.append(Section(f"Images, {place}", images))
    return sections


def _about_images(found: Diff) -> str:
    row = next(row for row in found.scores if row.name == "mIoU_I")
    if row.difference is None:
        return "No image has a score in both runs."
    return (
        f"A single image has no interval. Over all images mIoU_I differs by {row.difference.value:+.2f} "
        f"[{row.difference.low:+.2f}, {row.difference.high:+.2f}]: {row.verdict}. The largest gains and losses in points of "
        "mIoU_I:"
    )


def _image_table(found: Diff) -> Table:
    gains = [(name, value) for name, value in found.images.items() if value > 0][:SHOWN]
    losses = [(name, value) for name, value in [*found.images.items()][::-1] if value < 0][:SHOWN]
    rows = [
        [better[0], f"{better[1]:+.2f}", worse[0], f"{worse[1]:+.2f}"]
        for better, worse in (tuple(("–", 0.0) if each is None else each for each in pair) for pair in zip_longest(gains, losses))
    ]
    rows = [[cell if cell != "+0.00" else "–" for cell in row] for row in rows]
    return table(("better on", "by", "worse on", "by "), rows)


def _table(name: str, columns: Sequence[str], rows: Sequence[DiffRow]) -> Table:
    return table((name, *columns), [[row.name, *row_cells(row)] for row in rows])


def row_cells(row: DiffRow) -> list[str]:
    """Both scores, the difference with its interval, and the verdict, as text."""
    return [_percent(row.first), _percent(row.second), _points(row.difference), row.verdict]


def _percent(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"


def _points(found: Difference | None) -> str:
    if found is None:
        return UNDEFINED
    value, low, high = (f"{round(each, 2) + 0.0:+.2f}" for each in found)
    return f"{value} [{low}, {high}]"


def _settings(a: Run, b: Run) -> Section:
    changed = [f"`{path}`: {_setting(first)} and {_setting(second)}" for path, first, second in changes(a.spec, b.spec)]
    same = "Both runs have the same settings."
    return Section("Settings that differ", (Notes(tuple(changed)) if changed else Paragraph(same),))


def _setting(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(str(each.get("kind", "a term")) for each in value)
    return setting_text(value)


def _row_json(row: DiffRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "first": row.first,
        "second": row.second,
        "difference": None if row.difference is None else row.difference._asdict(),
        "verdict": row.verdict,
    }
