"""Charts as PNG files (matplotlib, imported where it is used, so that help stays instant)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segctl.errors import printable
from segctl.files import write_whole
from segctl.report.collect import Curves

LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#7F7F7F", "#9467BD")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, and three more."""


@dataclass(frozen=True)
class Line:
    """The curves of one run. Lines of the same name share a colour."""

    name: str
    curves: Curves


@dataclass(frozen=True)
class Bars:
    """The values of one group by class, in percent, each with its interval; None where undefined.

    position: the group's place among all groups, which gives it the same colour in every figure.
    """

    name: str
    position: int
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class HistogramLine:
    """The values of one group for all images, in percent. position: as in Bars."""

    name: str
    position: int
    values: tuple[float, ...]


def draw_curves(lines: Sequence[Line], path: Path) -> None:
    """Training loss and validation mIoU_D over the steps, side by side."""
    names = list(dict.fromkeys(line.name for line in lines))
    figure = _figure(10, 3.6)
    loss, score = figure.subplots(1, 2, sharex=True)
    for line in lines:
        color = _color(names.index(line.name))
        label = _label(line.name) if line is next(other for other in lines if other.name == line.name) else "_nolegend_"
        _plot_loss(loss, line.curves.loss, color)
        steps, values = zip(*line.curves.miou_d, strict=True) if line.curves.miou_d else ((), ())
        score.plot(steps, values, color=color, label=label, marker="o", markersize=3, linewidth=1.4)
    for axes, title in ((loss, "training loss"), (score, "validation mIoU_D, %")):
        _dress(axes, title, "step")
    _finish(figure, len(names), path)


def draw_bars(classes: Sequence[str], groups: Sequence[Bars], path: Path) -> None:
    """IoU_D by class, one bar per group with its interval as a line; classes from top to bottom."""
    thickness = 0.8 / len(groups)
    figure = _figure(10, 1.0 + len(classes) * max(0.26, 0.14 * len(groups)))
    axes = figure.subplots()
    for index, group in enumerate(groups):
        places = [row - 0.4 + (index + 0.5) * thickness for row in range(len(classes))]
        values = [0.0 if value is None else value for value in group.values]
        axes.barh(places, values, thickness * 0.92, color=_color(group.position), label=_label(group.name))
        for place, value, interval in zip(places, group.values, group.intervals, strict=True):
            if value is None:
                axes.text(0.5, place, "n/a", va="center", fontsize=6, color=_color(group.position))
            elif interval is not None:
                axes.plot(interval, (place, place), color="#222222", linewidth=0.9, solid_capstyle="butt")
    axes.set_yticks(range(len(classes)), [*map(_label, classes)])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    _dress(axes, "", "IoU_D, %")
    axes.grid(axis="y", visible=False)
    _finish(figure, len(groups), path)


def draw_histogram(groups: Sequence[HistogramLine], path: Path) -> None:
    """A histogram of the images' mIoU_I in bins of 5 points, one line per group; a triangle marks the mean, mIoU_I."""
    figure = _figure(10, 3.2)
    axes = figure.subplots()
    edges = list(range(0, 101, 5))
    for group in groups:
        counts = [0] * (len(edges) - 1)
        for value in group.values:
            counts[min(int(value // 5), len(counts) - 1)] += 1
        axes.stairs(counts, edges, color=_color(group.position), label=_label(group.name), linewidth=1.6, fill=False)
        if group.values:
            mean = sum(group.values) / len(group.values)
            axes.plot([mean], [0], marker="^", color=_color(group.position), markersize=7, clip_on=False, zorder=3)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.yaxis.get_major_locator().set_params(integer=True)
    _dress(axes, "", "mIoU_I of an image, %")
    axes.set_ylabel("images", fontsize=9)
    _finish(figure, len(groups), path)


def draw_differences(names: Sequence[str], groups: Sequence[Bars], path: Path) -> None:
    """Differences in points with their intervals: a row per score or class, a colour per group, a line at zero."""
    figure = _figure(10, 1.0 + len(names) * max(0.26, 0.16 * len(groups)))
    axes = figure.subplots()
    axes.axvline(0, color="#222222", linewidth=0.9)
    for index, group in enumerate(groups):
        axes.plot([], [], marker="o", markersize=4, color=_color(group.position), label=_label(group.name))
        for row, (value, interval) in enumerate(zip(group.values, group.intervals, strict=True)):
            place = row - 0.4 + (index + 0.5) * 0.8 / len(groups)
            if interval is not None:
                axes.plot(interval, (place, place), color=_color(group.position), linewidth=1.4)
            if value is not None:
                axes.plot([value], [place], marker="o", markersize=4, color=_color(group.position))
    axes.set_yticks(range(len(names)), [*map(_label, names)])
    axes.set_ylim(len(names) - 0.5, -0.5)
    _dress(axes, "", "difference, points")
    _finish(figure, len(groups), path)


def _plot_loss(axes: Any, points: Sequence[tuple[int, float]], color: str) -> None:
    """The raw values in a pale colour, and their running mean over a twentieth of the points."""
    if not points:
        return
    import numpy as np

    steps, values = map(np.array, zip(*points, strict=True))
    window = max(1, len(values) // 20)
    if window == 1:
        axes.plot(steps, values, color=color, linewidth=1.2)
        return
    axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
    sums = np.cumsum(np.insert(values, 0, 0.0))
    axes.plot(steps[window - 1 :], (sums[window:] - sums[:-window]) / window, color=color, linewidth=1.4)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _color(index: int) -> str:
    return LINE_COLORS[index % len(LINE_COLORS)]


def _label(name: str) -> str:
    """A name as matplotlib draws it: on one line, and no formula between dollar signs."""
    return printable(name).replace("$", r"\$")


def _dress(axes: Any, title: str, label: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Any, entries: int, path: Path) -> None:
    """Add the legend below and write the file."""
    figure.legend(loc="outside lower center", ncols=min(3, entries), fontsize=8, frameon=False)
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=150))
