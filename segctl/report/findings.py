"""The sections that come from counts: classes, differences between runs, images, mix-ups. Draws their figures."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from segctl.report.analysis import (
    Measured,
    class_bars,
    compared,
    confusion_table,
    difference_bars,
    difference_table,
    image_samples,
    image_table,
)
from segctl.report.content import Block, Figure, Notes, Paragraph, Section
from segctl.report.figures import draw_bars, draw_differences, draw_histogram
from segctl.report.gains import seeds_note
from segctl.report.groups import Comparison
from segctl.report.tables import GROUPS_A_TABLE, class_tables

ABOUT_DIFFERENCES = (
    "Points of IoU_D that a run is above another on the same images, with the interval of that difference: both are scored on "
    "the same resamples, so what the images share cancels. Bold where the interval does not hold zero. It says what other images "
    "of the same kind would do; what another seed would do is in the ± over seeds, and nothing is known of it where there is one."
)
ABOUT_IMAGES = (
    "How the images' own mIoU_I spread: the mean IoU over the classes in each image's ground truth. The triangle is their mean, "
    "mIoU_I."
)
ABOUT_CONFUSIONS = (
    "Points of mIoU_D that each mix-up costs: what would be gained if exactly these pixels had been right. "
    "Shown are the dearest of any run."
)


class Drawer:
    """Draws into the report's folder of figures, and hands back what refers to the file."""

    def __init__(self, folder: Path, figures: Path) -> None:
        self._folder, self._figures = folder, figures

    def __call__(self, name: str, title: str, draw: Callable[[Path], None]) -> Figure:
        """The figure `name`.png; `title` is its caption and what stands for it where it cannot be seen."""
        path = self._figures / f"{slug(name)}.png"
        draw(self._folder / path)
        return Figure(path, title, title)


def slug(name: str) -> str:
    """A name fit for a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def classes(comparison: Comparison, measured: Sequence[Measured], drawer: Drawer) -> Section:
    """Bars with intervals, and the table."""
    blocks: list[Block] = []
    for number, part in enumerate(_parts(measured)):
        names, bars = class_bars(part)
        title = f"IoU_D per class on {comparison.place}; the lines are {_confidence(part)} intervals over images"
        blocks.append(drawer(_name("classes", comparison, number), title, partial(draw_bars, names, bars)))
    return Section(f"IoU_D per class, {comparison.place}", (*blocks, *class_tables(comparison)), level=3)


def differences(comparison: Comparison, measured: Sequence[Measured], drawer: Drawer) -> list[Section]:
    """One section for each run that others are compared with."""
    sections = []
    for label, groups in compared(measured):
        blocks: list[Block] = []
        for number, part in enumerate(_parts(groups)):
            names, bars = difference_bars(part)
            title = f"Points above {label} on {comparison.place}, with {_confidence(part)} intervals over images"
            name = _name(f"above-{label}", comparison, number)
            blocks += [
                drawer(name, title, partial(draw_differences, names, bars)),
                difference_table(part),
            ]
        sections.append(Section(f"Against {label}, {comparison.place}", (*blocks, _how(groups, comparison)), level=3))
    return sections


def images(comparison: Comparison, measured: Sequence[Measured], drawer: Drawer) -> Section:
    """The histogram, and every image's scores."""
    content = image_table(measured)
    samples = image_samples(content, measured)
    figures = [
        drawer(
            _name("images", comparison, number),
            f"mIoU_I of the {len(content.images):,} images of {comparison.place}",
            partial(draw_histogram, samples[start : start + GROUPS_A_TABLE]),
        )
        for number, start in enumerate(range(0, len(samples), GROUPS_A_TABLE))
    ]
    return Section(f"Images, {comparison.place}", (*figures, content), level=3)


def confusions(comparison: Comparison, measured: Sequence[Measured]) -> list[Section]:
    """The dearest mix-ups; nothing where no run left a confusion matrix."""
    tables = [found for part in _parts(measured) if (found := confusion_table(part)) is not None]
    return [Section(f"Mix-ups, {comparison.place}", tuple(tables), level=3)] if tables else []


def together(heading: str, text: str, sections: Sequence[Section]) -> list[Section]:
    """A heading and its explanation over sections of level 3; nothing where there are none."""
    return [Section(heading, (Paragraph(text),)), *sections] if sections else []


def _parts(measured: Sequence[Measured]) -> list[Sequence[Measured]]:
    """As many groups at once as fit a figure or a table."""
    return [measured[start : start + GROUPS_A_TABLE] for start in range(0, len(measured), GROUPS_A_TABLE)]


def _how(measured: Sequence[Measured], comparison: Comparison) -> Notes:
    """Which seeds are compared, how the intervals were made, and what makes them less sure than they look."""
    found = [each.gains for each in measured if each.gains is not None]
    warnings = [each.warning for each in found if each.warning]
    seeds = [note for each in measured if (note := seeds_note(each.group, comparison.groups))]
    return Notes(tuple(dict.fromkeys([*seeds, *(each.method for each in found), *warnings])))


def _confidence(measured: Sequence[Measured]) -> str:
    return measured[0].intervals.method.split(" percentile", maxsplit=1)[0]


def _name(kind: str, comparison: Comparison, number: int) -> str:
    return f"{kind}-{comparison.place}" + (f"-{number + 1}" if number else "")
