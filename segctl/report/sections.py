"""Records and figures -> the sections of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segctl.commands import command_line
from segctl.metrics.scores import RULES
from segctl.report import findings
from segctl.report.analysis import Measured, interval_text
from segctl.report.collect import Collection, Evaluation, Run
from segctl.report.content import UNDEFINED, Block, Code, Definitions, Figure, Gallery, Notes, Page, Paragraph, Section, Worst
from segctl.report.fair import ABOUT as FAIR
from segctl.report.fair import fair_groups, fair_table
from segctl.report.figures import Line, draw_curves
from segctl.report.findings import Drawer
from segctl.report.gains import gain_notes
from segctl.report.groups import Comparison, Group, grouped
from segctl.report.notes import interval_notes, protocol_notes, student_notes
from segctl.report.strips import draw_worst
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
    """What every section needs: the runs, their comparisons with what their counts gave, the split asked for, a drawer."""

    collection: Collection
    comparisons: tuple[Comparison, ...]
    measured: Mapping[str, Sequence[Measured]]
    """By a comparison's place; empty where its runs left no counts."""
    split: str | None
    drawer: Drawer


def build(frame: Frame, made: str) -> Page:
    """The whole report; draws its figures. `made` says when and by which version."""
    return Page(
        title="Segmentation runs",
        lead=(Paragraph(_summary(frame)), Paragraph(made), HOW_TO_READ),
        sections=(
            _what_was_run(frame),
            *_results(frame),
            *_fine_grained(frame),
            *_findings(frame),
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
        "`[a, b]` is an interval over images: what the same network would score on other images of the same kind. It says "
        "nothing of another seed.",
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
        f"{f'`{_eval_line(run, frame.split)}`' if run.folder.finished else 'it has not finished'}"
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


def _eval_line(run: Run, split: str | None) -> str:
    """The command that scores a run: on a split, or on its own one. What follows an @ is a protocol and no split."""
    asked = [] if split is None or "@" in split else ["--split", split]
    return command_line("eval", run.folder.path, *asked, data_root=run.data_root)


def _results(frame: Frame) -> list[Section]:
    heading = Section("Results and published numbers", ())
    if not frame.comparisons:
        return [Section(heading.heading, (Paragraph("No run has been evaluated; `segctl eval RUN` scores one."),))]
    return [heading, *(section for comparison in frame.comparisons for section in _students(comparison, frame))]


def _students(comparison: Comparison, frame: Frame) -> list[Section]:
    names = dict.fromkeys(group.spec.name for group in comparison.groups)
    return [
        _student(name, [group for group in comparison.groups if group.spec.name == name], comparison, frame) for name in names
    ]


def _student(name: str, groups: Sequence[Group], comparison: Comparison, frame: Frame) -> Section:
    model, measured = groups[0].spec.model, frame.measured[comparison.place]
    blocks: list[Block] = [published_table(groups, lambda group: interval_text(measured, group))]
    notes = [*gain_notes(groups), *student_notes(groups, comparison), *interval_notes(measured)]
    if notes:
        blocks.append(Notes(tuple(notes)))
    for members in fair_groups(groups):
        blocks += [Paragraph(f"Methods side by side. {FAIR}"), fair_table(members)]
        if notes := gain_notes(members):
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


def _findings(frame: Frame) -> list[Section]:
    """What the counts say; each kind under one heading, places one after another."""
    found = [(place, frame.measured[place.place]) for place in frame.comparisons if frame.measured[place.place]]
    bare = [place for place in frame.comparisons if not frame.measured[place.place]]
    drawer = frame.drawer
    by_class = [findings.classes(place, measured, drawer) for place, measured in found]
    by_class += [Section(f"IoU_D per class, {place.place}", tuple(class_tables(place)), level=3) for place in bare]
    return [
        *findings.together("Classes", "`images` is how many images count towards the class's IoU_C.", by_class),
        *findings.together(
            "Differences between runs",
            findings.ABOUT_DIFFERENCES,
            [section for place, measured in found for section in findings.differences(place, measured, drawer)],
        ),
        *findings.together(
            "Images", findings.ABOUT_IMAGES, [findings.images(place, measured, drawer) for place, measured in found]
        ),
        *findings.together(
            "Mix-ups",
            findings.ABOUT_CONFUSIONS,
            [section for place, measured in found for section in findings.confusions(place, measured)],
        ),
    ]


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
    title = f"Training on {dataset}, {steps:,} steps"
    return [frame.drawer(f"curves-{dataset}-{steps}", title, lambda path: draw_curves(lines, path))]


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
    shown = found.worst[:WORST_SHOWN]
    caption = f"The {_number(len(shown), 'image')} of {place} that {run.label} does worst on."
    strip = frame.drawer(f"worst-{run.label}-{found.split}", caption, lambda path: draw_worst(shown, found.colors, path))
    images = tuple(Worst(image.image, _score(image.miou_i), image.tiles) for image in found.worst)
    legend = tuple((name, f"#{bytes(color).hex()}") for name, color in found.colors.items())
    return Section(f"{run.label} on {place}", (Gallery(strip, images, legend),), level=3)


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


def _score(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"
