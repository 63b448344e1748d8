"""Records and figures -> the sections of a report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segctl.metrics.scores import RULES
from segctl.report.collect import Collection, Evaluation, Run
from segctl.report.content import Block, Code, Definitions, Figure, Notes, Page, Paragraph, Section
from segctl.report.figures import Line, draw_curves, draw_worst
from segctl.report.groups import Comparison, Group, grouped
from segctl.report.notes import protocol_notes, student_notes
from segctl.report.tables import (
    FINE_GRAINED,
    class_tables,
    evaluations_table,
    provenance_tables,
    published_table,
    runs_table,
    scores_table,
)
from segctl.schema.formula import total_loss

WORST_SHOWN = 4


@dataclass(frozen=True)
class Frame:
    """What every section needs: the runs, their comparisons, the split asked for, where figures go and how far it is."""

    collection: Collection
    comparisons: tuple[Comparison, ...]
    split: str | None
    folder: Path
    figures: Path
    """Folder of figures, relative to `folder`."""


def build(frame: Frame, made: str) -> Page:
    """The whole report; draws its figures. `made` says when and by which version."""
    return Page(
        title="Segmentation runs",
        lead=(Paragraph(_summary(frame)), Paragraph(made), HOW_TO_READ),
        sections=(
            _what_was_run(frame),
            *_results(frame),
            *_fine_grained(frame),
            *_classes(frame),
            *_curves(frame),
            *_worst(frame),
            _provenance(frame),
        ),
    )


def _summary(frame: Frame) -> str:
    runs = frame.collection.runs
    finished = sum(run.folder.finished for run in runs)
    places = ", ".join(f"{found.place} ({_images(found)})" for found in frame.comparisons) or "nothing yet"
    return f"{_number(len(runs), 'run')}, {finished} finished; scored on {places}."


HOW_TO_READ = Notes(
    (
        "Scores are in percent; what each averages over is said under “What the scores mean”.",
        "`a ± s` is the mean and sample standard deviation over seeds. A score without ± comes from a single seed: nothing is "
        "known of its spread.",
        "Bold is the best of our scores in a column (in a row, in the table of classes), where there is something to compare. "
        "It says nothing of significance.",
    )
)


def _what_was_run(frame: Frame) -> Section:
    runs = frame.collection.runs
    blocks: list[Block] = [runs_table(runs)]
    notes = [f"not readable, left out: {sentence}" for sentence in frame.collection.unreadable]
    notes += [
        f"`{run.label}` is not evaluated{'' if frame.split is None else f' on {frame.split}'}: "
        f"{f'`segctl eval {run.folder.path}`' if run.folder.finished else 'it has not finished'}"
        for run in runs
        if not (run.evaluations if frame.split is None else frame.split in run.evaluations)
    ]
    if notes:
        blocks.append(Notes(tuple(notes)))
    blocks.append(Paragraph("Total loss of each, `y` the label, `main` and `aux` the student's outputs:"))
    formulas: dict[str, list[str]] = {}
    for run in runs:
        formulas.setdefault(total_loss(run.spec), []).append(run.label)
    blocks.append(Code("\n\n".join(f"# {', '.join(labels)}\n{formula}" for formula, labels in formulas.items())))
    return Section("What was run", tuple(blocks))


def _results(frame: Frame) -> list[Section]:
    heading = Section("Results and published numbers", ())
    if not frame.comparisons:
        return [Section(heading.heading, (Paragraph("No run has been evaluated; `segctl eval RUN` scores one."),))]
    return [heading, *(section for comparison in frame.comparisons for section in _students(comparison))]


def _students(comparison: Comparison) -> list[Section]:
    names = dict.fromkeys(group.spec.name for group in comparison.groups)
    return [_student(name, [group for group in comparison.groups if group.spec.name == name], comparison) for name in names]


def _student(name: str, groups: Sequence[Group], comparison: Comparison) -> Section:
    model = groups[0].spec.model
    blocks: list[Block] = [published_table(groups)]
    notes = student_notes(groups, comparison)
    if notes:
        blocks.append(Notes(tuple(notes)))
    return Section(f"{name} ({model.head} {model.backbone}) on {comparison.place}", tuple(blocks), level=3)


def _fine_grained(frame: Frame) -> list[Section]:
    if not frame.comparisons:
        return []
    tables = [Section(found.place, tuple(_scores(found)), level=3) for found in frame.comparisons]
    rules = Definitions(tuple((rule.term, rule.text) for rule in RULES))
    return [Section("Fine-grained scores", ()), *tables, Section("What the scores mean", (rules,), level=3)]


def _scores(comparison: Comparison) -> list[Block]:
    blocks: list[Block] = [scores_table(comparison, names) for names in FINE_GRAINED]
    notes = protocol_notes(comparison)
    return [*blocks, Notes(tuple(notes))] if notes else blocks


def _classes(frame: Frame) -> list[Section]:
    if not frame.comparisons:
        return []
    places = [Section(f"IoU_D per class, {found.place}", tuple(class_tables(found)), level=3) for found in frame.comparisons]
    explained = Paragraph("`images` is how many images count towards the class's IoU_C.")
    return [Section("Classes", (explained,)), *places]


def _curves(frame: Frame) -> list[Section]:
    """A figure for every dataset and length: curves of 800 and of 40,000 steps do not share an axis."""
    lengths = dict.fromkeys((run.spec.data.dataset, run.spec.train.steps) for run in frame.collection.runs)
    figures = [figure for dataset, steps in lengths for figure in _curves_figure(frame, dataset, steps)]
    return [Section("Training curves", (Paragraph(ABOUT_CURVES), *figures))] if figures else []


ABOUT_CURVES = (
    "Left the total training loss (faint as logged, strong its running mean), right mIoU_D on the validation split; "
    "seeds share a colour. Losses of different methods are sums of different terms and do not compare."
)


def _curves_figure(frame: Frame, dataset: str, steps: int) -> list[Figure]:
    runs = [run for run in frame.collection.runs if (run.spec.data.dataset, run.spec.train.steps) == (dataset, steps)]
    lines = [
        Line(label, run.curves) for label, members in grouped(runs) for run in members if run.curves.loss or run.curves.miou_d
    ]
    if not lines:
        return []
    path = frame.figures / f"curves-{_slug(dataset)}-{steps}.png"
    draw_curves(lines, frame.folder / path)
    title = f"Training on {dataset}, {steps:,} steps"
    return [Figure(path, title, title)]


def _worst(frame: Frame) -> list[Section]:
    shown = [
        _worst_section(run, found, frame)
        for run in frame.collection.runs
        for split, found in run.evaluations.items()
        if frame.split in (None, split) and found.worst
    ]
    explained = Paragraph(
        "The images of lowest mIoU_I, the mean IoU over the classes in the image's ground truth. In the last column wrong pixels "
        "are red."
    )
    return [Section("Worst images", (explained,)), *shown] if shown else []


def _worst_section(run: Run, found: Evaluation, frame: Frame) -> Section:
    place = f"{run.spec.data.dataset} / {found.split}"
    path = frame.figures / f"worst-{_slug(run.label)}-{_slug(found.split)}.png"
    draw_worst(found.worst[:WORST_SHOWN], found.colors, frame.folder / path)
    caption = f"The {_number(len(found.worst[:WORST_SHOWN]), 'image')} of {place} that {run.label} does worst on."
    return Section(f"{run.label} on {place}", (Figure(path, f"Worst images of {run.label} on {place}", caption),), level=3)


def _provenance(frame: Frame) -> Section:
    runs = frame.collection.runs
    scored: list[Block] = [evaluations_table(runs, frame.split)] if frame.comparisons else []
    commands = "\n".join(f"# {run.label}\n{run.environment.get('command', 'not recorded')}" for run in runs)
    explained = Paragraph(
        "Times are UTC, hashes cut to twelve digits; `run.yaml` and `environment.json` of each run have the rest. The commands:"
    )
    return Section("Provenance", (*provenance_tables(runs), *scored, explained, Code(commands)))


def _images(comparison: Comparison) -> str:
    return _number(int(comparison.groups[0].evaluations[0].about.get("images", 0)), "image")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
