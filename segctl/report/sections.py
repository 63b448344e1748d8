"""Runs, comparisons and figures -> the sections of a report, in the order in which a reader asks."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segctl.commands import command_line
from segctl.files import write_text
from segctl.metrics.scores import RULES
from segctl.report.analysis import (
    Measured,
    class_bars,
    compared,
    confusion_table,
    difference_bars,
    difference_table,
    histogram_lines,
    interval_text,
    not_compared,
    not_measured,
    without_confusion,
)
from segctl.report.collect import Collection, Evaluation, Run
from segctl.report.content import (
    UNDEFINED,
    Code,
    Definitions,
    Figure,
    Gallery,
    ImageTable,
    Notes,
    Page,
    PageBlock,
    Paragraph,
    PictureRow,
    Section,
    Worst,
)
from segctl.report.explorer.album import Collected
from segctl.report.figures import Line, draw_bars, draw_curves, draw_differences, draw_histogram
from segctl.report.gains import gain_notes, seeds_note
from segctl.report.groups import Comparison, Group, grouped, methods_side_by_side
from segctl.report.headline import Trio, legend_in_view, most_improved, row_maps, sentence, tiles
from segctl.report.notes import interval_notes, protocol_notes, student_notes
from segctl.report.strips import draw_row, draw_worst, row_uris
from segctl.report.tables import (
    ABOUT_SIDE_BY_SIDE,
    FINE_GRAINED,
    GROUPS_A_TABLE,
    WHAT_COST_COUNTS,
    class_tables,
    evaluations_table,
    foreground_tables,
    provenance_tables,
    published_table,
    runs_table,
    scores_table,
    side_by_side_table,
)
from segctl.schema.run import PRETRAIN
from segctl.schema.terms.formula import total_loss

WORST_SHOWN = 4
_LONGEST_SLUG = 120

HOW_TO_READ = Notes(
    (
        "Scores are in percent. “What the scores mean” says what each of them averages over.",
        "`a ± s` is the mean and the sample standard deviation over seeds. A score without ± comes from a single seed, so its "
        "spread is unknown.",
        "`[a, b]` is an interval over images: where the score of the same network would lie on other images of the same kind. It "
        "says nothing about other seeds.",
        "Bold in a table of scores: above the undistilled student, and the 95 % interval of that difference, paired over seeds, "
        "excludes 0. Bold in a table of differences: that interval excludes 0. A single seed is never bold.",
        "One colour stands for one group of runs, in every figure and in the explorer.",
    )
)
ABOUT_DIFFERENCES = (
    "Points of IoU_D by which a run is above another on the same images, with the interval of that difference. Both runs are "
    "scored on the same resamples, so what makes an image hard for both cancels out. The interval says what other images of "
    "the same "
    "kind would change. Bold: the difference is beyond the noise of seeds, by its interval paired over seeds; what another seed "
    "would change is unknown for a single seed. Each panel of the figure has a scale of its own."
)
ABOUT_IMAGES = (
    "The distribution of the images' own mIoU_I, the mean IoU over the classes in the ground truth of the image. The triangle is "
    "the mean over images, mIoU_I."
)
ABOUT_MIX_UPS = (
    "Points of mIoU_D that each mix-up costs: the gain if exactly these pixels had been right. The table shows the most "
    "expensive mix-ups of any run."
)
ABOUT_CURVES = (
    "Left: the total training loss (pale: as logged; strong: running mean). Right: mIoU_D on the validation split. Seeds share "
    "a colour. A validation measured once is written as a number. Losses of different methods are sums of different terms and "
    "cannot be compared."
)
ABOUT_WORST = (
    "The images with the lowest mIoU_I, the mean IoU over the classes in the image's ground truth. On the web page a click "
    "opens one "
    "in the explorer; in a strip of pictures, wrong pixels are red in the last one."
)


class Drawer:
    """Writes figures into the folder beside the report, and returns the blocks that show them."""

    def __init__(self, folder: Path, figures: Path) -> None:
        self._folder, self._figures = folder, figures
        self._taken: set[str] = set()

    def __call__(self, name: str, title: str, svg: str) -> Figure:
        """The figure `name`.svg. title: its caption, and its text for those who cannot see it."""
        path = self._path(name, "svg")
        write_text(self._folder / path, svg)
        return Figure(path, title, title)

    def picture(self, name: str, title: str, draw: Callable[[Path], None]) -> Figure:
        """The figure `name`.png, which `draw` writes."""
        path = self._path(name, "png")
        draw(self._folder / path)
        return Figure(path, title, title)

    def _path(self, name: str, suffix: str) -> Path:
        """Names that differ only in characters that `slug` replaces, or in their case, get numbered files."""
        stem = number = slug(name)
        count = 1
        while number.casefold() in self._taken:
            count += 1
            number = f"{stem}-{count}"
        self._taken.add(number.casefold())
        return self._figures / f"{number}.{suffix}"


def slug(name: str) -> str:
    """A name without characters that file systems or URLs treat specially, and short enough for a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:_LONGEST_SLUG]


@dataclass(frozen=True)
class Frame:
    """What every section needs: the runs, their comparisons, the split that was asked for, and what draws figures.

    measured: by the place of a comparison; empty where its runs have no counts.  scores: of all images, by place, where there are
    counts.  pictures: by place.  positions: the colour of each run, by label.  trio: what the first screen shows.
    """

    collection: Collection
    comparisons: tuple[Comparison, ...]
    measured: Mapping[str, Sequence[Measured]]
    split: str | None
    drawer: Drawer
    scores: Mapping[str, ImageTable]
    pictures: Mapping[str, Collected]
    positions: Mapping[str, int]
    trio: Trio | None


def build(frame: Frame, made: str) -> Page:
    """The whole report; draws its figures. made: a sentence that says when and by which version."""
    return Page(
        title="Segmentation runs",
        lead=(*_first_screen(frame), Paragraph(f"{_summary(frame)} {made}")),
        sections=(
            *_pictures(frame),
            _what_was_run(frame),
            *_results(frame),
            *_fine_grained(frame),
            *_from_counts(frame),
            *_curves(frame),
            *_worst(frame),
            _provenance(frame),
            Section("How to read this report", (HOW_TO_READ,)),
            Section("What the scores mean", (Definitions(tuple((rule.term, rule.text) for rule in RULES)),), level=3),
        ),
    )


def _first_screen(frame: Frame) -> list[PageBlock]:
    """One sentence, the tiles, and a row of pictures of all three networks."""
    trio = frame.trio
    blocks: list[PageBlock] = [Paragraph(sentence(trio, frame.collection))]
    if trio is None:
        return blocks
    place = trio.comparison.place
    collected = frame.pictures.get(place, Collected(None))
    blocks.append(tiles(trio, frame.measured[place], frame.positions, collected.clocks))
    album = collected.album
    found = None if album is None else most_improved(trio, album)
    if album is None or found is None:
        return blocks
    picture, points = found
    maps = row_maps(trio, album, picture)
    legend = legend_in_view(album.classes, [each for _, each in maps])
    why = ""
    if points is not None:
        comparison = "gains most over" if points > 0 else "loses least to"
        why = f", where the distilled student {comparison} the undistilled one ({points:+.2f} mIoU_I)"
    title = f"{picture.name} of {place}: {', '.join(['image', *(role for role, _ in maps)])}{why}"
    strip = frame.drawer.picture("first-row", title, lambda path: draw_row(picture, maps, album.classes, legend, path))
    return [*blocks, PictureRow(strip, row_uris(picture, maps, album.classes), legend, picture.width)]


def _pictures(frame: Frame) -> list[Section]:
    """The explorer of each place, and what is missing from it."""
    sections = []
    for place, found in frame.pictures.items():
        blocks: list[PageBlock] = [] if found.album is None else [found.album]
        if blocks or found.notes:
            sections.append(Section(f"Explorer, {place}", (*blocks, *_notes(found.notes)), level=3))
    return [Section("Pictures", ()), *sections] if sections else []


def _summary(frame: Frame) -> str:
    runs = frame.collection.runs
    finished = sum(run.folder.finished for run in runs)
    places = ", ".join(f"{found.place} ({_images_of(found)})" for found in frame.comparisons) or "nothing yet"
    return f"{_number(len(runs), 'run')}, {finished} finished; scored on {places}."


def _what_was_run(frame: Frame) -> Section:
    runs = frame.collection.runs
    notes = [f"left out because it cannot be read: {sentence}" for sentence in frame.collection.unreadable]
    notes += [f"`{run.label}`: {run.lost_log}" for run in runs if run.lost_log]
    notes += [
        f"`{run.label}` is not evaluated{'' if frame.split is None else f' on {frame.split}'}: "
        f"{f'`{_eval_line(run, frame.split)}`' if run.folder.finished else 'it has not finished'}"
        for run in runs
        if not (run.evaluations if frame.split is None else frame.split in run.evaluations) and run.method != PRETRAIN
    ]
    notes += [
        f"`{run.label}` pretrained a backbone: its curves are those of the linear probe, and it is not evaluated"
        for run in runs
        if run.method == PRETRAIN
    ]
    notes += [
        f"`{run.label}`: the evaluation of {split} was stopped and is left out; the same `segctl eval` command resumes it"
        for run in runs
        for split in run.stopped_evaluations
        if frame.split in (None, split)
    ]
    labels: dict[str, list[str]] = {}
    for run in runs:
        if run.labels_in_words:
            labels.setdefault(run.labels_in_words, []).append(f"`{run.label}`")
    notes += [f"{', '.join(named)}: {words}" for words, named in labels.items()]
    formulas: dict[str, list[str]] = {}
    for run in runs:
        formulas.setdefault(total_loss(run.spec), []).append(run.label)
    explained = Paragraph("The total loss of each run; `y` is the label, `main` and `aux` are the outputs of the student:")
    code = Code("\n\n".join(f"# {', '.join(labels)}\n{formula}" for formula, labels in formulas.items()))
    sizes = sorted({f"{run.spec.data.dataset} {'×'.join(map(str, run.cost['size']))}" for run in runs if run.cost})
    cost = [Paragraph(f"`parameters` and `GFLOP`: {WHAT_COST_COUNTS} ({', '.join(sizes)}).")] if sizes else []
    return Section("What was run", (runs_table(runs), *cost, *_notes(notes), explained, code))


def _eval_line(run: Run, split: str | None) -> str:
    """The command that scores a run: on a split, or on its own one. What follows an @ is a protocol and no split."""
    asked = [] if split is None or "@" in split else ["--split", split]
    return command_line("eval", run.folder.path, *asked, data_root=run.data_root)


def _results(frame: Frame) -> list[Section]:
    heading = "Results and published numbers"
    if not frame.comparisons:
        return [Section(heading, (Paragraph("No run has been evaluated; `segctl eval RUN` scores one."),))]
    sections = []
    for comparison in frame.comparisons:
        for name in dict.fromkeys(group.spec.name for group in comparison.groups):
            groups = [group for group in comparison.groups if group.spec.name == name]
            sections.append(_student(name, groups, comparison, frame))
    return [Section(heading, ()), *sections]


def _student(name: str, groups: Sequence[Group], comparison: Comparison, frame: Frame) -> Section:
    model, measured = groups[0].spec.model, frame.measured[comparison.place]
    notes = [*gain_notes(groups), *student_notes(groups, comparison, frame.collection.runs), *interval_notes(measured)]
    blocks: list[PageBlock] = [published_table(groups, lambda group: interval_text(measured, group)), *_notes(notes)]
    for members in methods_side_by_side(groups):
        explained = Paragraph(f"Methods side by side. {ABOUT_SIDE_BY_SIDE}")
        blocks += [explained, side_by_side_table(members), *_notes(gain_notes(members))]
    return Section(f"{name} ({model.head} {model.backbone}) on {comparison.place}", tuple(blocks), level=3)


def _fine_grained(frame: Frame) -> list[Section]:
    if not frame.comparisons:
        return []
    tables = []
    for found in frame.comparisons:
        scores = [scores_table(found, names) for names in FINE_GRAINED]
        scores = [*foreground_tables(found), *scores]
        tables.append(Section(found.place, (*scores, *_notes(protocol_notes(found))), level=3))
    return [Section("Fine-grained scores", ()), *tables]


def _from_counts(frame: Frame) -> list[Section]:
    """Classes, differences, images and mix-ups: each kind under one heading, one place after another."""
    found = [(place, frame.measured[place.place]) for place in frame.comparisons if frame.measured[place.place]]
    bare = [place for place in frame.comparisons if not frame.measured[place.place]]
    by_class = [_classes(place, measured, frame.drawer) for place, measured in found]
    by_class += [_classes_without_counts(place) for place in bare]
    differences = [section for place, measured in found for section in _differences(place, measured, frame.drawer)]
    images = [_images(place, frame.scores[place.place], measured, frame.drawer) for place, measured in found]
    mix_ups = [section for place, measured in found for section in _mix_ups(place, measured)]
    return [
        *_under("Classes", "`images` is the number of images that the IoU_C of the class averages over.", by_class),
        *_under("Differences between runs", ABOUT_DIFFERENCES, differences),
        *_under("Images", ABOUT_IMAGES, images),
        *_under("Mix-ups", ABOUT_MIX_UPS, mix_ups),
    ]


def _classes(comparison: Comparison, measured: Sequence[Measured], drawer: Drawer) -> Section:
    blocks: list[PageBlock] = []
    for number, part in enumerate(_parts(measured)):
        names, bars = class_bars(part)
        title = f"IoU_D per class on {comparison.place}; the lines are {_confidence(part)} intervals over images"
        blocks.append(drawer(_figure_name("classes", comparison, number), title, draw_bars(names, bars)))
    missing = [
        f"{group.label}: not in the figure, the differences, the images and the mix-ups, because counts.npz is missing for "
        f"{', '.join(f'`{label}`' for label in labels)}; `segctl eval` writes it"
        for group, labels in not_measured(comparison)
    ]
    return Section(f"IoU_D per class, {comparison.place}", (*blocks, *class_tables(comparison), *_notes(missing)), level=3)


def _classes_without_counts(comparison: Comparison) -> Section:
    why = "no run here has counts.npz, so there are no figures, differences, images and mix-ups; `segctl eval RUN` writes it"
    return Section(f"IoU_D per class, {comparison.place}", (*class_tables(comparison), Notes((why,))), level=3)


def _differences(comparison: Comparison, measured: Sequence[Measured], drawer: Drawer) -> list[Section]:
    """One section for each group that others are compared with."""
    sections = []
    for label, groups in compared(measured):
        blocks: list[PageBlock] = []
        for number, part in enumerate(_parts(groups)):
            names, bars = difference_bars(part)
            title = f"Points above {label} on {comparison.place}, with {_confidence(part)} intervals over images"
            name = _figure_name(f"above-{label}", comparison, number)
            blocks += [drawer(name, title, draw_differences(names, bars)), difference_table(part)]
        notes = _difference_notes(groups, comparison)
        sections.append(Section(f"Against {label}, {comparison.place}", (*blocks, Notes(notes)), level=3))
    if missing := not_compared(comparison, measured):
        notes = tuple(f"{label}: not compared with {base}: {why}" for label, base, why in missing)
        sections.append(Section(f"Not compared, {comparison.place}", (Notes(notes),), level=3))
    return sections


def _difference_notes(measured: Sequence[Measured], comparison: Comparison) -> tuple[str, ...]:
    """Which seeds are compared, how the intervals were computed, and why they are rough or too narrow."""
    found = [each.differences for each in measured if each.differences is not None]
    warnings = [each.warning for each in found if each.warning]
    seeds = [note for each in measured if (note := seeds_note(each.group, comparison.groups))]
    return tuple(dict.fromkeys([*seeds, *(each.method for each in found), *warnings]))


def _images(comparison: Comparison, content: ImageTable, measured: Sequence[Measured], drawer: Drawer) -> Section:
    lines = histogram_lines(content, measured)
    title = f"mIoU_I of the {len(content.images):,} images of {comparison.place}"
    figures = [
        drawer(_figure_name("images", comparison, number), title, draw_histogram(lines[start : start + GROUPS_A_TABLE]))
        for number, start in enumerate(range(0, len(lines), GROUPS_A_TABLE))
    ]
    return Section(f"Images, {comparison.place}", (*figures, content), level=3)


def _mix_ups(comparison: Comparison, measured: Sequence[Measured]) -> list[Section]:
    tables = [found for part in _parts(measured) if (found := confusion_table(part)) is not None]
    missing = [
        f"{label}: left out, because confusion.npz is missing; `segctl eval` writes it" for label in without_confusion(measured)
    ]
    blocks = (*tables, *_notes(missing))
    return [Section(f"Mix-ups, {comparison.place}", blocks, level=3)] if blocks else []


def _curves(frame: Frame) -> list[Section]:
    """A figure for each dataset and number of steps: curves of 800 and of 40,000 steps do not fit one axis."""
    runs = frame.collection.runs
    lengths = dict.fromkeys((run.spec.data.dataset, run.spec.train.steps) for run in runs)
    figures = [figure for dataset, steps in lengths for figure in _curves_figure(frame, dataset, steps)]
    notes = [
        f"`{run.label}` has no curve: {run.lost_log or 'its log has no finite loss and no validation'}"
        for run in runs
        if not _has_curve(run)
    ]
    notes += [
        f"`{run.label}`: values in the log that are not finite, and so not drawn: {run.curves.not_finite}"
        for run in runs
        if run.curves.not_finite
    ]
    return [Section("Training curves", (Paragraph(ABOUT_CURVES), *figures, *_notes(notes)))] if figures else []


def _has_curve(run: Run) -> bool:
    return bool(run.curves.loss or run.curves.miou_d)


def _curves_figure(frame: Frame, dataset: str, steps: int) -> list[Figure]:
    runs = [run for run in frame.collection.runs if (run.spec.data.dataset, run.spec.train.steps) == (dataset, steps)]
    lines = [
        Line(label, frame.positions[run.label], run.curves)
        for label, members in grouped(runs)
        for run in members
        if _has_curve(run)
    ]
    if not lines:
        return []
    title = f"Training on {dataset}, {steps:,} steps"
    return [frame.drawer(f"curves-{dataset}-{steps}", title, draw_curves(lines))]


def _worst(frame: Frame) -> list[Section]:
    scored = [
        (run, found) for run in frame.collection.runs for split, found in run.evaluations.items() if frame.split in (None, split)
    ]
    places = {
        (run.label, comparison.split): comparison.place
        for comparison in frame.comparisons
        for group in comparison.groups
        for run in group.runs
    }
    shown = [_worst_section(run, found, places.get((run.label, found.split), ""), frame) for run, found in scored if found.worst]
    missing = [
        f"`{run.label}` on {found.split}: no pictures, because worst/worst.json is missing or empty"
        for run, found in scored
        if not found.worst
    ]
    return [Section("Worst images", (Paragraph(ABOUT_WORST), *_notes(missing))), *shown] if shown else []


def _worst_section(run: Run, found: Evaluation, where: str, frame: Frame) -> Section:
    place = f"{run.spec.data.dataset} / {found.split}"
    shown = found.worst[:WORST_SHOWN]
    caption = f"The {_number(len(shown), 'image')} of {place} on which {run.label} scores lowest."
    strip = frame.drawer.picture(f"worst-{run.label}-{found.split}", caption, lambda path: draw_worst(shown, found.colors, path))
    images = tuple(Worst(image.image, _score(image.miou_i)) for image in found.worst)
    return Section(f"{run.label} on {place}", (Gallery(strip, images, where, run.label),), level=3)


def _provenance(frame: Frame) -> Section:
    runs = frame.collection.runs
    scored: list[PageBlock] = [evaluations_table(runs, frame.split)] if frame.comparisons else []
    commands = "\n".join(f"# {run.label}\n{run.environment.get('command', 'not recorded')}" for run in runs)
    explained = Paragraph(
        "Times are UTC. Hashes are cut to twelve digits; `run.yaml` and `environment.json` of each run have them in full. The "
        "commands:"
    )
    return Section("Provenance", (*provenance_tables(runs), *scored, explained, Code(commands)))


def _under(heading: str, text: str, sections: Sequence[Section]) -> list[Section]:
    """A heading and its explanation above sections of level 3; nothing without sections."""
    return [Section(heading, (Paragraph(text),)), *sections] if sections else []


def _notes(items: Sequence[str]) -> list[PageBlock]:
    return [Notes(tuple(items))] if items else []


def _parts(measured: Sequence[Measured]) -> list[Sequence[Measured]]:
    """Parts of as many groups as fit a figure or a table."""
    return [measured[start : start + GROUPS_A_TABLE] for start in range(0, len(measured), GROUPS_A_TABLE)]


def _confidence(measured: Sequence[Measured]) -> str:
    return measured[0].intervals.method.split(" percentile", maxsplit=1)[0]


def _figure_name(kind: str, comparison: Comparison, number: int) -> str:
    return f"{kind}-{comparison.place}" + (f"-{number + 1}" if number else "")


def _images_of(comparison: Comparison) -> str:
    return _number(int(comparison.groups[0].evaluations[0].about.get("images", 0)), "image")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _score(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"
