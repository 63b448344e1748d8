"""Records and figures -> the sections of a report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segctl.metrics.scores import RULES
from segctl.report.collect import Collection, Evaluation, Run
from segctl.report.content import Block, Code, Definitions, Figure, Notes, Page, Paragraph, Section
from segctl.report.figures import Line, draw_curves, draw_worst
from segctl.report.groups import Comparison, Group, spread
from segctl.report.published import answers, changes
from segctl.report.tables import (
    class_tables,
    evaluations_table,
    provenance_tables,
    published_table,
    runs_table,
    score_text,
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
        lead=(Paragraph(_summary(frame)), Paragraph(made)),
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
    places = ", ".join(f"{_place(found)} ({_images(found)})" for found in frame.comparisons) or "nothing yet"
    return (
        f"{_number(len(runs), 'run')}, {finished} finished; scored on {places}. Scores are in percent. "
        "`a ± s` is the mean and sample standard deviation over seeds; a score without ± comes from a single seed, so nothing is "
        "known of its spread. The best of a column (of a row, in the table of classes) is bold where there is anything to "
        "compare; bold says nothing of significance."
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
        where = "" if frame.split is None else f" on split '{frame.split}'"
        return [Section(heading.heading, (Paragraph(f"No run has been evaluated{where}; `segctl eval RUN` scores one."),))]
    return [heading, *(section for comparison in frame.comparisons for section in _students(comparison))]


def _students(comparison: Comparison) -> list[Section]:
    names = dict.fromkeys(group.spec.name for group in comparison.groups)
    return [_student(name, [group for group in comparison.groups if group.spec.name == name], comparison) for name in names]


def _student(name: str, groups: Sequence[Group], comparison: Comparison) -> Section:
    model, first = groups[0].spec.model, groups[0]
    notes = [note for group in groups for note in _group_notes(group)]
    notes += [
        f"`{run.label}` has the settings and the seed of a newer run and is left out of the mean"
        for run in comparison.repeats
        if run.spec.name == name
    ]
    if first.spec.published and not answers(first):
        notes.append(f"the published numbers are for split {first.spec.data.val_split}, so none stand here")
    blocks: list[Block] = [published_table(groups)]
    if notes:
        blocks.append(Notes(tuple(notes)))
    heading = f"{name} ({model.head} {model.backbone}) on {_place(comparison)}"
    return Section(heading, tuple(blocks), level=3)


def _group_notes(group: Group) -> list[str]:
    notes = []
    changed = changes(group.spec)
    if changed:
        notes.append(
            f"† **{group.label}** was not run as its preset says, so it does not answer the published numbers: "
            + ", ".join(changed)
        )
    if len(group.runs) > 1:
        each = ", ".join(
            f"{run.seed}: {score_text(spread([run.evaluations[group.split].scores['mIoU_D']]))}" for run in group.runs
        )
        notes.append(f"{group.label}, mIoU_D of each seed: {each}")
    return notes


def _fine_grained(frame: Frame) -> list[Section]:
    if not frame.comparisons:
        return []
    tables = [Section(_place(found), (scores_table(found), *_protocol_warning(found)), level=3) for found in frame.comparisons]
    rules = Definitions(tuple((rule.term, rule.text) for rule in RULES))
    return [Section("Fine-grained scores", ()), *tables, Section("What the scores mean", (rules,), level=3)]


def _protocol_warning(comparison: Comparison) -> list[Block]:
    protocols = {str(found.about.get("protocol")) for group in comparison.groups for found in group.evaluations}
    if len(protocols) < 2:
        return []
    return [Notes((f"not scored alike, compare with care: {'; '.join(sorted(protocols))}",))]


def _classes(frame: Frame) -> list[Section]:
    if not frame.comparisons:
        return []
    places = [Section(f"IoU_D per class, {_place(found)}", tuple(class_tables(found)), level=3) for found in frame.comparisons]
    explained = Paragraph("`images` is how many images have the class in their ground truth, where the first run was scored.")
    return [Section("Classes", (explained,)), *places]


def _curves(frame: Frame) -> list[Section]:
    figures: list[Block] = []
    for dataset in dict.fromkeys(run.spec.data.dataset for run in frame.collection.runs):
        runs = [run for run in frame.collection.runs if run.spec.data.dataset == dataset]
        lines = [Line(_curve_name(run), run.curves) for run in runs if run.curves.loss or run.curves.miou_d]
        if lines:
            path = frame.figures / f"curves-{_slug(dataset)}.png"
            draw_curves(lines, frame.folder / path)
            caption = (
                f"{dataset}: total training loss (faint: as logged; strong: running mean) and mIoU_D on the validation split. "
                "Losses of different methods are sums of different terms and do not compare; seeds share a colour."
            )
            figures.append(Figure(path, f"Training curves on {dataset}", caption))
    return [Section("Training curves", tuple(figures))] if figures else []


def _worst(frame: Frame) -> list[Section]:
    shown = [
        _worst_section(run, found, frame)
        for run in frame.collection.runs
        for split, found in run.evaluations.items()
        if frame.split in (None, split) and found.worst
    ]
    return [
        Section("Worst images", (Paragraph("By mIoU_I, the mean IoU over the classes in the image's ground truth."),)),
        *shown,
    ]


def _worst_section(run: Run, found: Evaluation, frame: Frame) -> Section:
    place = f"{run.spec.data.dataset} / {found.split}"
    path = frame.figures / f"worst-{_slug(run.label)}-{_slug(found.split)}.png"
    draw_worst(found.worst[:WORST_SHOWN], found.colors, frame.folder / path)
    caption = f"The {_number(len(found.worst[:WORST_SHOWN]), 'image')} of {place} that {run.label} does worst on."
    return Section(f"{run.label} on {place}", (Figure(path, f"Worst images of {run.label} on {place}", caption),), level=3)


def _provenance(frame: Frame) -> Section:
    runs = frame.collection.runs
    commands = "\n".join(str(run.environment.get("command", f"{run.label}: command not recorded")) for run in runs)
    explained = Paragraph("Hashes are cut to twelve digits; `run.yaml` and `environment.json` of each run have the rest.")
    scored: list[Block] = [evaluations_table(runs, frame.split)] if frame.comparisons else []
    return Section("Provenance", (*provenance_tables(runs), *scored, explained, Code(commands)))


def _curve_name(run: Run) -> str:
    return f"{run.spec.name} · {run.method}" + ("" if run.folder.finished else " (unfinished)")


def _place(comparison: Comparison) -> str:
    return f"{comparison.dataset} / {comparison.split}"


def _images(comparison: Comparison) -> str:
    return _number(int(comparison.groups[0].evaluations[0].about.get("images", 0)), "image")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
