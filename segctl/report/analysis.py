"""What counts say beyond scores: intervals, differences to the baseline, images, mix-ups.

Scores are averaged over the seeds of a group; its mix-ups are summed over them. Groups without counts cannot be measured;
`not_measured`, `not_compared` and `without_confusion` list what is missing, so that the report can say so.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from segctl.metrics.costly_mixups import costliest
from segctl.metrics.intervals import Difference, Differences, Intervals, mean_intervals, paired_differences
from segctl.metrics.scores import per_image
from segctl.metrics.table import CountTable
from segctl.report.content import UNDEFINED, Cell, ImageColumn, ImageTable, Table, table
from segctl.report.figures import Bars, HistogramLine
from segctl.report.gains import beyond_seeds, class_gain, gain, paired
from segctl.report.groups import Comparison, Group, baseline, undistilled
from segctl.report.tables import HEADLINE

PAIRS_SHOWN = 12


@dataclass(frozen=True)
class Measured:
    """A group with its counts, the intervals of its scores, and its differences to the group `against`.

    position: the place of the group among all groups, which gives it its colour.  tables: one per seed.
    """

    group: Group
    position: int
    tables: tuple[CountTable, ...]
    intervals: Intervals
    against: Group | None
    differences: Differences | None


def measure(comparison: Comparison, positions: Mapping[str, int] | None = None) -> list[Measured]:
    """Every group with counts: the intervals of its scores and of its differences to its baseline.

    positions: the place of each run, by label, among the groups of a whole report, which gives it its colour in every figure; the
    group's place in the comparison if None.
    """
    measured = []
    for index, group in enumerate(comparison.groups):
        position = index if positions is None else positions[group.runs[0].label]
        mine, base = group.counts, baseline(group, comparison.groups)
        if mine is None:
            continue
        sides = None if base is None else _sides(group, base, comparison.groups)
        differences = None if sides is None else paired_differences(*sides, binary=group.binary)
        found = mean_intervals(mine, binary=group.binary)
        measured.append(Measured(group, position, mine, found, base if differences else None, differences))
    return measured


def _sides(group: Group, base: Group, groups: Sequence[Group]) -> tuple[Sequence[CountTable], Sequence[CountTable]] | None:
    """The counts of the baseline and of the group, to subtract; None where one of them has none.

    Against the undistilled student only common seeds count, so that the difference equals the gain in the other tables.
    """
    if base is undistilled(group, groups):
        pairs = paired(group, base)
        base = replace(base, runs=tuple(theirs for _, theirs in pairs))
        group = replace(group, runs=tuple(ours for ours, _ in pairs))
    theirs, mine = base.counts, group.counts
    return (theirs, mine) if theirs and mine else None


def not_measured(comparison: Comparison) -> list[tuple[Group, list[str]]]:
    """The groups that `measure` leaves out, each with the labels of its runs that have no counts."""
    missing = [
        (group, [run.label for run in group.runs if run.evaluations[group.split].counts is None]) for group in comparison.groups
    ]
    return [(group, labels) for group, labels in missing if labels]


def not_compared(comparison: Comparison, measured: Sequence[Measured]) -> list[tuple[str, str, str]]:
    """The measured groups without differences although they have a baseline: label, label of the baseline, and why."""
    found = []
    for each in measured:
        base = baseline(each.group, comparison.groups)
        if base is not None and each.differences is None:
            why = "they have no seed in common" if base.counts else "the baseline has no counts"
            found.append((each.group.label, base.label, why))
    return found


def without_confusion(measured: Sequence[Measured]) -> list[str]:
    """The labels of the groups that `confusion_table` leaves out."""
    return [each.group.label for each in measured if any(found.confusion is None for found in each.group.evaluations)]


def interval_text(measured: Sequence[Measured], group: Group, name: str = "mIoU_D") -> str:
    """The interval of a group's score such as `[46.21, 48.93]`, or n/a."""
    found = next((each.intervals.scores[name] for each in measured if each.group.label == group.label), None)
    return UNDEFINED if found is None else f"[{found.low:.2f}, {found.high:.2f}]"


def class_bars(measured: Sequence[Measured]) -> tuple[list[str], list[Bars]]:
    """The class names, and the IoU_D of each class with its interval, one Bars per group."""
    names = list(measured[0].intervals.per_class)
    return names, [
        Bars(
            each.group.label,
            each.position,
            tuple(each.group.class_score(name, "IoU_D").mean for name in names),
            tuple(each.intervals.per_class[name] for name in names),
        )
        for each in measured
    ]


def compared(measured: Sequence[Measured]) -> list[tuple[str, list[Measured]]]:
    """The groups with differences, by the label of their baseline."""
    pairs = [(each.against.label, each) for each in measured if each.against is not None]
    return [(label, [each for _, each in found]) for label, found in groupby(sorted(pairs, key=_label), key=_label)]


def difference_table(measured: Sequence[Measured]) -> Table:
    """Points above the baseline with the interval over images, for headline scores and classes.

    Bold where the paired interval over seeds does not hold zero, so never for a single seed.
    """
    columns = [_rows(each) for each in measured]
    rows = [
        [Cell(name), *(_difference(column[name], _sure(each, name)) for each, column in zip(measured, columns, strict=True))]
        for name in columns[0]
    ]
    return table(("score or class", *(each.group.label for each in measured)), rows)


def difference_bars(measured: Sequence[Measured]) -> tuple[list[str], list[Bars]]:
    """The content of `difference_table` for a figure."""
    columns = [_rows(each) for each in measured]
    names = list(columns[0])
    return names, [
        Bars(
            each.group.label,
            each.position,
            tuple(None if found is None else found.value for found in column.values()),
            tuple(None if found is None else (found.low, found.high) for found in column.values()),
        )
        for each, column in zip(measured, columns, strict=True)
    ]


def image_table(measured: Sequence[Measured]) -> ImageTable:
    """The scores of every image in every group, in the order of the counts."""
    names, classes = measured[0].tables[0].names, tuple(measured[0].intervals.per_class)
    columns = tuple(
        _image_column(each.tables, names, classes, each.group.binary, ImageColumn(each.group.label, (), (), each.position))
        for each in measured
    )
    runs = tuple(
        _image_column([found], names, classes, each.group.binary, ImageColumn(run.label, (), (), each.position, index))
        if len(each.tables) > 1
        else replace(columns[index], label=run.label, group=index)
        for index, each in enumerate(measured)
        for run, found in zip(each.group.runs, each.tables, strict=True)
    )
    return ImageTable(names, classes, columns, runs)


def histogram_lines(content: ImageTable, measured: Sequence[Measured]) -> list[HistogramLine]:
    """The mIoU_I of all images, one line per group."""
    return [
        HistogramLine(column.label, each.position, tuple(value for value in column.miou_i if value is not None))
        for column, each in zip(content.columns, measured, strict=True)
    ]


def confusion_table(measured: Sequence[Measured]) -> Table | None:
    """The mix-ups that cost any group most, with their cost in every group; None where no group has a confusion matrix."""
    costs = {each.group.label: cost for each in measured if (cost := _costs(each)) is not None}
    highest: dict[tuple[str, str], float] = {}
    for cost in costs.values():
        for pair, value in cost.items():
            highest[pair] = max(value, highest.get(pair, 0.0))
    pairs = sorted(highest, key=lambda pair: (-highest[pair], pair))[:PAIRS_SHOWN]
    if not pairs:
        return None
    rows = [[f"{pair[0]} → {pair[1]}", *(f"{cost.get(pair, 0.0):.2f}" for cost in costs.values())] for pair in pairs]
    return table(("truth → predicted as", *costs), rows)


def _label(pair: tuple[str, Measured]) -> str:
    return pair[0]


def _rows(each: Measured) -> dict[str, Difference | None]:
    assert each.differences is not None
    return {name: each.differences.scores[name] for name in HEADLINE} | each.differences.per_class


def _sure(each: Measured, name: str) -> bool:
    """Whether the difference of a score or class is beyond the noise of seeds."""
    if each.against is None:
        return False
    groups = (each.against, each.group)
    return beyond_seeds(gain(each.group, groups, name) if name in HEADLINE else class_gain(each.group, groups, name))


def _difference(found: Difference | None, sure: bool) -> Cell:
    if found is None:
        return Cell(UNDEFINED)
    value, low, high = (f"{round(each, 2) + 0.0:+.2f}" for each in found)  # adding 0.0 turns -0.0 into 0.0
    return Cell(f"{value} [{low}, {high}]", best=sure)


MORE_SCORES = ("Acc_I", "mAcc_I", "mDice_I")


def _image_column(
    tables: Sequence[CountTable], names: Sequence[str], classes: Sequence[str], binary: bool, column: ImageColumn
) -> ImageColumn:
    """The column with the scores of every image, the mean over the tables."""
    seeds = [{str(row["image"]): row for row in per_image(found, binary=binary)} for found in tables]

    def averaged(name: str, kind: str) -> float | None:
        values = [float(value) for rows in seeds if (value := rows[name][kind]) is not None]
        return statistics.fmean(values) if values else None

    return replace(
        column,
        miou_i=tuple(averaged(name, "mIoU_I") for name in names),
        iou=tuple(tuple(averaged(name, f"IoU.{kind}") for kind in classes) for name in names),
        more={kind: tuple(averaged(name, kind) for name in names) for kind in MORE_SCORES},
    )


def _costs(each: Measured) -> dict[tuple[str, str], float] | None:
    """The cost of each mix-up in points of mIoU_D, from the summed counts of all seeds; None where a seed has no matrix."""
    matrices = [found.confusion for found in each.group.evaluations if found.confusion is not None]
    if len(matrices) < len(each.tables):
        return None
    first = each.tables[0]
    counts = np.sum([found.rows(first.names).counts for found in each.tables], axis=0)
    summed = CountTable(first.names, first.class_names, counts)
    pairs = costliest(summed, np.sum(matrices, axis=0), matrices[0].size, binary=each.group.binary)
    return {(pair.truth, pair.prediction): pair.cost for pair in pairs}
