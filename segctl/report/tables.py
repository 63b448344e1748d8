"""Runs and groups -> tables of text. No cell is empty: each has a number, a word, a dash or n/a."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segctl.report.collect import Run
from segctl.report.content import UNDEFINED, Cell, Table, table
from segctl.report.gains import COLUMN, better, class_gain, gain, gain_cell, interval_cell
from segctl.report.groups import Comparison, Group, Spread, undistilled
from segctl.report.published import Pairing, pairings, preset_changes
from segctl.schema.run import PRETRAIN, PublishedScore

FINE_GRAINED = (
    ("mIoU_D", "mIoU_I", "mIoU_C", "mIoU_I_q5", "mIoU_C_q5", "mIoU_I_qbar", "mIoU_C_qbar"),
    ("Acc", "mAcc_D", "mAcc_I", "mAcc_C", "mDice_D", "mDice_I", "mDice_C"),
)
"""The columns of the two tables of fine-grained scores; `scores.json` has the other scores."""

FOREGROUND = ("IoU_D", "Dice_D", "Precision_D", "Acc_D", "IoU_C", "Dice_C")
"""The columns of a binary dataset's first table; Acc_D is the recall."""

HEADLINE = ("mIoU_D", "mIoU_I", "mIoU_C")

GROUPS_A_TABLE = 6
"""More columns than this do not fit beside the names of classes."""


SIDE_BY_SIDE_COLUMNS = (
    "method",
    "seeds",
    "mIoU_D",
    COLUMN,
    "95 % of it",
    "s/step",
    "of none",
    "peak memory, MB",
    "parameters",
    "GFLOP",
)

WHAT_COST_COUNTS = (
    "one forward pass over an image as large as most of the validation split, multiply-adds × 2, without the auxiliary classifier"
)
"""What `parameters` and `GFLOP` mean in the tables."""

ABOUT_SIDE_BY_SIDE = (
    "Student, data, steps and teacher are the same; each method has its own weights of terms. `gain over none` is the mean over "
    "seeds of a method's mIoU_D minus that of `none` with the same seed; a seed that only one of the two has does not count. "
    "`95 % of it` is Student's interval of that mean over seeds: n/a for one seed; an interval that holds 0 shows no difference. "
    "Seconds per step are medians of each run's log and depend on what else the machine did. Peak memory is that of the process, "
    "on a GPU that of its tensors. Both are means over the seeds. "
    "Parameters and GFLOP are those of the student, whatever the method: "
    f"{WHAT_COST_COUNTS}."
)
"""The note to a table of methods side by side."""


def runs_table(runs: Sequence[Run]) -> Table:
    """What was run, one row per run."""
    columns = (
        ("run", lambda run: f"`{run.label}`"),
        ("preset", lambda run: run.spec.name),
        ("recipe", lambda run: run.spec.recipe or "–"),
        ("method", lambda run: run.method),
        ("teacher", _teacher_name),
        ("status", status),
        ("seed", lambda run: f"{run.seed}"),
        ("steps", lambda run: f"{run.spec.train.steps:,}"),
        ("batch", lambda run: f"{run.spec.train.batch_size}"),
        ("parameters", lambda run: _count(run.parameters)),
        ("GFLOP", lambda run: _gflop(run.cost.get("gflop"))),
        ("s/step", lambda run: _seconds(run.environment.get("seconds_per_step"))),
        ("precision", lambda run: _word(run.environment.get("precision"))),
        ("device", lambda run: _word(run.environment.get("device"))),
    )
    return _by_run(runs, columns)


def provenance_tables(runs: Sequence[Run]) -> list[Table]:
    """Where the numbers come from: a table of versions and times, and one of data and teacher."""
    made = (
        ("run", lambda run: f"`{run.label}`"),
        ("segctl", lambda run: _word(run.environment.get("segctl"))),
        ("python", lambda run: _word(run.environment.get("python"))),
        ("torch", lambda run: _word(run.environment.get("torch"))),
        ("timm", lambda run: _word(run.environment.get("timm"))),
        ("caller's commit", lambda run: _hash(run.environment.get("caller_commit"))),
        ("started", lambda run: _word(run.environment.get("started"))),
        ("finished", lambda run: _word(run.environment.get("finished"))),
    )
    sources = (
        ("run", lambda run: f"`{run.label}`"),
        ("data", lambda run: run.spec.data.dataset),
        ("data fingerprint", lambda run: _hash(run.environment.get("dataset", {}).get("fingerprint"))),
        ("initial weights", lambda run: _word(run.environment.get("initial_weights"))),
        ("weights kept", lambda run: run.curves.weights_of or UNDEFINED),
        ("teacher", lambda run: " + ".join(_weighed(each) for each in run.teachers) or "none"),
        ("teacher's sha256", lambda run: " + ".join(_hash(each.get("sha256")) for each in run.teachers) or "–"),
        ("teacher's mIoU_D", lambda run: teacher_score(run) if run.teacher else "–"),
    )
    return [_by_run(runs, made), _by_run(runs, sources)]


def evaluations_table(runs: Sequence[Run], split: str | None) -> Table:
    """How each run was scored, one row per evaluation."""
    rows = [
        [
            f"`{run.label}`",
            f"{run.spec.data.dataset} / {name}",
            _hash(found.fingerprint),
            _word(found.about.get("protocol")),
            _word(found.about.get("weights")),
            _count(found.about.get("images")),
            _count(found.about.get("ignored_images")),
            _count(found.about.get("outside_predictions")),
        ]
        for run in runs
        for name, found in run.evaluations.items()
        if split in (None, name)
    ]
    columns = (
        "run",
        "data / split",
        "fingerprint",
        "protocol",
        "weights",
        "images",
        "left out",
        "predictions outside the classes",
    )
    return table(columns, rows)


def published_table(groups: Sequence[Group], interval: Callable[[Group], str]) -> Table:
    """The methods of one student: our score with its interval over images, beside the published one if there is any."""
    pairs = pairings(groups)
    rows = [
        [
            pair.ours.short_label if pair.ours else pair.method,
            *_ours(pair, groups, interval),
            *_theirs(pair, groups[0].spec.recipe),
        ]
        for pair in pairs
    ]
    ours = ("method", "mIoU_D, ours", "over images", "seeds", COLUMN, "our recipe", "steps × batch")
    theirs = ("published", "its recipe", "source", "caveats")
    if all(pair.theirs is None for pair in pairs):
        return table(ours, [row[: len(ours)] for row in rows])
    return table((*ours, *theirs), rows)


def side_by_side_table(members: Sequence[Group]) -> Table:
    """Methods of one student under the same settings: score, gain and cost, one row a method; gains are n/a without `none`."""
    return table(SIDE_BY_SIDE_COLUMNS, [_side_by_side_row(group, members) for group in members])


def scores_table(comparison: Comparison, names: Sequence[str]) -> Table:
    """The named scores, one row per group; a score is bold where it is above that of `none` beyond the noise of seeds."""
    groups = comparison.groups
    rows: list[list[str | Cell]] = [
        [
            f"{group.label}{_seeds(group)}",
            *(Cell(score_text(group.score(name)), better(gain(group, groups, name))) for name in names),
        ]
        for group in groups
    ]
    return table(("run", *names), rows)


def foreground_tables(comparison: Comparison) -> list[Table]:
    """The foreground's own scores of a binary dataset, one row per group; none for another dataset."""
    first = comparison.groups[0].evaluations[0]
    if not (first.binary and first.per_class):
        return []
    name = str(first.per_class[0]["class"])
    rows = [
        [f"{group.label}{_seeds(group)}", *(score_text(group.class_score(name, column)) for column in FOREGROUND)]
        for group in comparison.groups
    ]
    return [table((f"run, on {name}", *FOREGROUND), rows)]


def class_tables(comparison: Comparison) -> list[Table]:
    """IoU_D of every class, groups side by side; bold where it is above that of `none` beyond the noise of seeds."""
    groups = comparison.groups
    classes = {str(row["class"]): row.get("images") for group in groups for row in group.evaluations[0].per_class}
    rows = {
        name: [Cell(score_text(group.class_score(name, "IoU_D")), better(class_gain(group, groups, name))) for group in groups]
        for name in classes
    }
    return [
        table(
            ("class", "images", *(group.label for group in groups[start : start + GROUPS_A_TABLE])),
            [[name, _count(classes[name]), *rows[name][start : start + GROUPS_A_TABLE]] for name in classes],
        )
        for start in range(0, len(groups), GROUPS_A_TABLE)
    ]


def status(run: Run) -> str:
    """`finished`, `stopped early, step 800`, either with `, not evaluated`, or `unfinished, step 1,200`."""
    if not run.folder.finished:
        return "unfinished" if run.lost_log else f"unfinished, step {run.curves.last_step:,}"
    early = run.spec.train.early_stop is not None and not run.lost_log and run.curves.last_step < run.spec.train.steps
    ended = f"stopped early, step {run.curves.last_step:,}" if early else "finished"
    return ended if run.evaluations or run.method == PRETRAIN else f"{ended}, not evaluated"


def score_text(found: Spread) -> str:
    """`47.12 ± 0.31` over seeds, `47.12` for one, n/a for none."""
    if found.mean is None:
        return UNDEFINED
    return f"{found.mean:.2f}" if found.std is None else f"{found.mean:.2f} ± {found.std:.2f}"


def _ours(pair: Pairing, groups: Sequence[Group], interval: Callable[[Group], str]) -> list[str | Cell]:
    if pair.ours is None:
        return ["not run", "–", "–", "–", "–", "–"]
    found, spec = pair.ours.score("mIoU_D"), pair.ours.spec
    return [
        Cell(score_text(found) + (" †" if preset_changes(spec) else ""), better(gain(pair.ours, groups))),
        interval(pair.ours),
        f"{found.n}",
        gain_cell(pair.ours, groups),
        spec.recipe or "–",
        f"{spec.train.steps:,} × {spec.train.batch_size}",
    ]


def _theirs(pair: Pairing, our_recipe: str | None) -> list[str | Cell]:
    if pair.theirs is None:
        return ["none published", "–", "–", "–"]
    return [f"{pair.theirs.value:.2f}", pair.theirs.recipe, pair.theirs.source, _caveats(pair.theirs, our_recipe)]


def _caveats(theirs: PublishedScore, our_recipe: str | None) -> str:
    other = "" if theirs.recipe == our_recipe else "other recipe than ours"
    return "; ".join(filter(None, [theirs.note, other])) or "none noted"


def _side_by_side_row(group: Group, members: Sequence[Group]) -> list[str]:
    base = group if group.method == "none" else undistilled(group, members)
    seconds = _mean_of(group, "seconds_per_step")
    of_none = None if base is None else _mean_of(base, "seconds_per_step")
    ratio = seconds / of_none if seconds is not None and of_none else None
    memory = _mean_of(group, "peak_memory_mb")
    return [
        group.short_label,
        f"{len(group.runs)}",
        score_text(group.score("mIoU_D")),
        gain_cell(group, members),
        interval_cell(group, members),
        UNDEFINED if seconds is None else f"{seconds:.3g}",
        UNDEFINED if ratio is None else f"{ratio:.2f}",
        UNDEFINED if memory is None else f"{memory:,.0f}",
        _count(group.runs[0].parameters),
        _gflop(group.runs[0].cost.get("gflop")),
    ]


def _mean_of(group: Group, name: str) -> float | None:
    """The mean over the seeds of a number in environment.json; None where no run has it."""
    found = [float(value) for run in group.runs if (value := run.environment.get(name)) is not None]
    return statistics.fmean(found) if found else None


def _by_run(runs: Sequence[Run], columns: Sequence[tuple[str, Callable[[Run], str]]]) -> Table:
    return table([name for name, _ in columns], [[cell(run) for _, cell in columns] for run in runs])


def _seeds(group: Group) -> str:
    return f" (n = {len(group.runs)})" if len(group.runs) > 1 else ""


def _teacher_name(run: Run) -> str:
    return _word(run.teacher.get("preset")) if run.teacher else "none"


def teacher_score(run: Run) -> str:
    """The mIoU_D of the teacher before the run, such as `52.31 on 32 images`, and of an ensemble's members alone."""
    value = _miou(run.teacher)
    if value is None:
        return UNDEFINED
    alone = " and ".join(UNDEFINED if (found := _miou(each)) is None else f"{found:.2f}" for each in run.teachers)
    members = f" ({alone} alone)" if len(run.teachers) > 1 else ""
    return f"{value:.2f} on {run.teacher.get('images', UNDEFINED)} images{members}"


def _miou(teacher: Mapping[str, Any]) -> float | None:
    found: float | None = (teacher.get("scores") or {}).get("mIoU_D")
    return found


def _weighed(teacher: Mapping[str, Any]) -> str:
    """Where a teacher is, and how much it counts in an ensemble if that is not once."""
    weight = teacher.get("weight", 1)
    return f"{'' if weight == 1 else f'{weight:g}·'}{_word(teacher.get('run'))}"


def _word(value: Any) -> str:
    return UNDEFINED if value in (None, "") else str(value)


def _hash(value: Any) -> str:
    """The first twelve digits of a hash."""
    return UNDEFINED if not value else f"`{str(value)[:12]}`"


def _count(value: Any) -> str:
    return UNDEFINED if value is None else f"{value:,.0f}"


def _gflop(value: float | None) -> str:
    """`867.6`, `24.37`, `0.56`: four digits at most, so that a small network does not become 0."""
    return UNDEFINED if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _seconds(value: Any) -> str:
    return UNDEFINED if value is None else f"{value:.3g}"
