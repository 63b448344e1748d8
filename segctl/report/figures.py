"""Charts as SVG: text that can be searched, sharp at any size, and in the colours of the page, light or dark.

The same text is a file beside the Markdown and a part of the web page. So colours are attributes, which stand alone, and classes
(`ink`, `rule`, `paper`), by which the page's style replaces them in dark mode. Nothing uses a `style` attribute, because the
page's content security policy forbids them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from segctl.errors import printable
from segctl.report.collect import Curves

LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F", "#9467BD", "#4D9221")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, and four more; readable on white and on dark paper."""

WIDTH = 960
"""The width of every figure, in the units in which its text is 12 high."""

CHARACTER = 6.8
"""The mean width of a character of 12 units of a sans-serif font, to leave room for names."""

LONGEST_NAME = 34
MOST_POINTS = 400
"""A line of more points is drawn as the means of this many parts."""


@dataclass(frozen=True)
class Line:
    """The curves of one run. position: the place of its group among all groups, which gives it its colour."""

    name: str
    position: int
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


def color_of(position: int) -> str:
    """The colour of a group, such as `#0072B2`."""
    return LINE_COLORS[position % len(LINE_COLORS)]


def draw_curves(lines: Sequence[Line]) -> str:
    """Training loss and validation mIoU_D over the steps, side by side; a validation measured once is written as a number."""
    steps = max((step for line in lines for step, _ in (*line.curves.loss, *line.curves.miou_d)), default=1)
    losses = [value for line in lines for _, value in line.curves.loss]
    curves = [line for line in lines if len(line.curves.miou_d) > 1]
    scores = [value for line in curves for _, value in line.curves.miou_d]
    parts = []
    if losses:
        axes = _Axes(60, 34, 390, 210, (0, steps), _around(losses))
        parts += [axes.frame("training loss", "step"), *(axes.loss(line) for line in lines)]
    if scores:
        axes = _Axes(540, 34, 390, 210, (0, steps), _around(scores))
        parts += [axes.frame("validation mIoU_D, %", "step")]
        for line in curves:
            parts.append(axes.line(line.curves.miou_d, color_of(line.position), 1.8))
            parts += [axes.dot(step, value, color_of(line.position)) for step, value in line.curves.miou_d]
    once = [line for line in lines if len(line.curves.miou_d) == 1]
    if once:
        left, top = (540, 34) if not scores else (600, 50)
        head = "validation mIoU_D, %, measured once" if not scores else "measured once"
        parts.append(_text(left, top - 14, head, weight="bold"))
        for row, line in enumerate(once):
            (step, value) = line.curves.miou_d[0]
            parts.append(_swatch(left, top + 20 * row - 2, color_of(line.position)))
            parts.append(_text(left + 16, top + 8 + 20 * row, f"{value:.2f} at step {step:,}: {_short(line.name, 46)}"))
    bottom = max(290, 70 + 20 * len(once))
    names = {line.name: line.position for line in lines}
    return _sheet(parts, list(names.items()), bottom)


def draw_bars(classes: Sequence[str], groups: Sequence[Bars]) -> str:
    """IoU_D by class, one bar per group with its interval as a line; classes from top to bottom."""
    left, row = _name_width(classes), max(20, 9 * len(groups) + 6)
    thickness = (row - 6) / len(groups)
    axes = _Axes(left, 10, WIDTH - left - 60, row * len(classes), (0, 100), (0, 1))
    parts = [axes.frame("", "IoU_D, %", horizontal=False)]
    for index, name in enumerate(classes):
        parts.append(_name(left - 8, 10 + row * (index + 0.5) + 4, name))
        for number, group in enumerate(groups):
            top, color = 10 + row * index + 3 + thickness * number, color_of(group.position)
            value, interval = group.values[index], group.intervals[index]
            if value is None:
                parts.append(_text(left + 4, top + thickness - 1, "n/a", fill=color, size=min(12, thickness + 2)))
                continue
            title = f"{group.name}, {name}: {value:.2f}"
            title += "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
            parts.append(
                f'<rect x="{left}" y="{top:.1f}" width="{max(0.5, axes.x(value) - left):.1f}" height="{thickness * 0.9:.1f}" '
                f'fill="{color}"><title>{_escaped(title)}</title></rect>'
            )
            if interval is not None:
                middle = top + thickness * 0.45
                parts.append(
                    f'<line x1="{axes.x(interval[0]):.1f}" x2="{axes.x(interval[1]):.1f}" y1="{middle:.1f}" y2="{middle:.1f}" '
                    f'class="ink-line" stroke="#1d1f21" stroke-width="1.4"/>'
                )
    return _sheet(parts, [(group.name, group.position) for group in groups], 10 + row * len(classes) + 46)


def draw_histogram(groups: Sequence[HistogramLine]) -> str:
    """A histogram of the images' mIoU_I in bins of 5 points, one line per group; a triangle marks the mean, mIoU_I."""
    bins = 20
    counted = []
    for group in groups:
        counts = [0] * bins
        for value in group.values:
            counts[min(int(value // 5), bins - 1)] += 1
        counted.append(counts)
    highest = max((max(counts) for counts in counted), default=1) or 1
    axes = _Axes(60, 14, WIDTH - 90, 200, (0, 100), (0, highest))
    parts = [axes.frame("", "mIoU_I of an image, %"), _text(14, 12, "images")]
    for group, counts in zip(groups, counted, strict=True):
        color, points = color_of(group.position), []
        for index, number in enumerate(counts):
            points += [(5.0 * index, float(number)), (5.0 * index + 5, float(number))]
        parts.append(axes.line(points, color, 2))
        if group.values:
            mean = sum(group.values) / len(group.values)
            x, y = axes.x(mean), axes.y(0)
            parts.append(
                f'<path d="M{x:.1f} {y - 10:.1f}l6 10h-12z" fill="{color}">'
                f"<title>{_escaped(group.name)}: mIoU_I {mean:.2f}</title></path>"
            )
    return _sheet(parts, [(group.name, group.position) for group in groups], 260)


def draw_differences(names: Sequence[str], groups: Sequence[Bars]) -> str:
    """Differences in points with their intervals: a row per score or class, a panel with a scale of its own per group."""
    left, row, across = _name_width(names), 18, min(len(groups), 3)
    width = (WIDTH - left - 20) / across
    tall = 24 + row * len(names) + 44
    parts: list[str] = []
    for number, group in enumerate(groups):
        top, begin = tall * (number // across) + 24, left + width * (number % across)
        ends = [end for interval in group.intervals if interval is not None for end in interval]
        reach = _around([0.0, *ends, *(value for value in group.values if value is not None)])
        axes = _Axes(begin + 8, top, width - 24, row * len(names), reach, (0, 1))
        color = color_of(group.position)
        parts += [axes.frame("", "points", horizontal=False), _swatch(begin + 8, top - 16, color)]
        parts.append(_text(begin + 24, top - 7, _short(group.name, round(width / CHARACTER) - 6), title=group.name))
        zero = axes.x(0)
        parts.append(
            f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="{top}" y2="{top + row * len(names)}" '
            f'class="ink-line" stroke="#1d1f21" stroke-width="1"/>'
        )
        for index, (value, interval) in enumerate(zip(group.values, group.intervals, strict=True)):
            middle = top + row * (index + 0.5)
            if number % across == 0:
                parts.append(_name(left - 4, middle + 4, names[index]))
            if interval is not None:
                parts.append(
                    f'<line x1="{axes.x(interval[0]):.1f}" x2="{axes.x(interval[1]):.1f}" y1="{middle}" y2="{middle}" '
                    f'stroke="{color}" stroke-width="2"/>'
                )
            if value is not None:
                title = _escaped(f"{group.name}, {names[index]}: {value:+.2f}")
                parts.append(
                    f'<circle cx="{axes.x(value):.1f}" cy="{middle}" r="3.6" fill="{color}"><title>{title}</title></circle>'
                )
    return _sheet(parts, [], tall * math.ceil(len(groups) / across))


@dataclass(frozen=True)
class _Axes:
    """A rectangle of the sheet, and the values that its sides stand for."""

    left: float
    top: float
    width: float
    height: float
    across: tuple[float, float]
    up: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.across
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.up
        return self.top + self.height * (1 - (value - low) / (high - low))

    def frame(self, title: str, label: str, *, horizontal: bool = True) -> str:
        """Grid, ticks and words. horizontal: with lines and numbers for the values that go up."""
        bottom, right = self.top + self.height, self.left + self.width
        parts = []
        for value in _ticks(*self.across, round(self.width / 75)):
            x = self.x(value)
            parts.append(_rule(x, self.top, x, bottom))
            parts.append(_text(x, bottom + 15, _number(value), anchor="middle"))
        if horizontal:
            for value in _ticks(*self.up, 5):
                y = self.y(value)
                parts += [_rule(self.left, y, right, y), _text(self.left - 6, y + 4, _number(value), anchor="end")]
        if title:
            parts.append(_text(self.left + self.width / 2, self.top - 12, title, anchor="middle", weight="bold"))
        parts.append(_text(self.left + self.width / 2, bottom + 32, label, anchor="middle"))
        return "".join(parts)

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float, opacity: float = 1) -> str:
        if not points:
            return ""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        pale = "" if opacity == 1 else f' stroke-opacity="{opacity}"'
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"{pale}/>'

    def dot(self, x: float, y: float, color: str) -> str:
        title = f"step {x:,.0f}: {y:.2f}"
        return f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{color}"><title>{title}</title></circle>'

    def loss(self, line: Line) -> str:
        """The raw values in a pale colour, and their running mean over a twentieth of the points."""
        points, color = line.curves.loss, color_of(line.position)
        window = max(1, len(points) // 20)
        if window == 1:
            return self.line(points, color, 1.6) if len(points) > 1 else "".join(self.dot(*point, color) for point in points)
        total, means = sum(value for _, value in points[:window]), []
        for index in range(window, len(points) + 1):
            means.append((points[index - 1][0], total / window))
            if index < len(points):
                total += points[index][1] - points[index - window][1]
        return self.line(_thinned(points), color, 0.8, 0.3) + self.line(_thinned(means), color, 1.8)


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: the means of equal parts."""
    size = math.ceil(len(points) / MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _around(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds the values with a little room on both sides."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or max(1e-3, 0.05 * abs(high))
    return low - room, high + room


def _ticks(low: float, high: float, most: int) -> Iterator[float]:
    """At most about `most` round values between both ends."""
    step = 10 ** math.floor(math.log10((high - low) / max(1, most)))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= max(2, most))
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield index * step


def _number(value: float) -> str:
    return f"{round(value, 6) + 0.0:,g}" if abs(value) < 1e6 else f"{value:.3g}"


def _sheet(parts: Sequence[str], legend: Sequence[tuple[str, int]], height: float) -> str:
    """The whole figure: the parts, and below them a legend of names and positions."""
    entries, left, top = [], 20.0, height + 4
    for name, position in legend:
        shown = _short(name, 60)
        width = 36 + CHARACTER * len(shown)
        if left + width > WIDTH and left > 20:
            left, top = 20.0, top + 20
        entries += [_swatch(left, top, color_of(position)), _text(left + 16, top + 9, shown, title=name)]
        left += width
    height = top + 22 if legend else height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
        f'font-family="system-ui, Segoe UI, Roboto, DejaVu Sans, sans-serif" font-size="12">'
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>{"".join([*parts, *entries])}</svg>'
    )


def _name_width(names: Sequence[str]) -> float:
    return 20 + CHARACTER * max(len(_short(name)) for name in names)


def _name(x: float, y: float, name: str) -> str:
    return _text(x, y, _short(name), anchor="end", title=name)


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    name = printable(name)
    return name if len(name) <= longest else f"{name[: max(1, longest - 1)]}…"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = "", size: float = 12, weight: str = "", title: str = ""
) -> str:
    ink = f'fill="{fill}"' if fill else 'class="ink" fill="#1d1f21"'
    more = (f' font-size="{size:g}"' if size != 12 else "") + (f' font-weight="{weight}"' if weight else "")
    whole = f"<title>{_escaped(title)}</title>" if title and printable(title) != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {ink}{more}>{_escaped(text)}{whole}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="rule" stroke="#dddddd" stroke-width="0.8"/>'


def _swatch(x: float, y: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="10" height="10" rx="2" fill="{color}"/>'


def _escaped(text: str) -> str:
    return escape(printable(text))
