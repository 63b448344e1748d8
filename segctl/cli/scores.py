"""Prints scores, and checks them against the minimum values of `--min`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from segctl.cli.output import out
from segctl.commands import command_line
from segctl.errors import CheckError, InputError, did_you_mean

if TYPE_CHECKING:
    from segctl.evaluate.tables import ScoresJson
    from segctl.metrics.scores import ImageScore
    from segctl.metrics.tally import Choice

AVERAGES = (
    ("D", "_D"), ("I", "_I"), ("C", "_C"), ("I q5", "_I_q5"), ("C q5", "_C_q5"), ("I q̄", "_I_qbar"), ("C q̄", "_C_qbar"),
)  # fmt: skip
NOTES = (
    "D: over the dataset's pixels · I: mean over images · C: per class over its images, then mean over classes",
    "q5: the worst 5 percent · q̄: mean over the worst 10, 20 … 100 percent · n/a: undefined",
)
ROUNDING = 1e-9
"""A score may exceed the end of its interval by this much without lying outside it."""
OPTIONAL_SCORES = (
    ("Boundary IoU", ("mBIoU_D", "mBIoU_I", "mBIoU_C")),
    ("Segments", ("mIoU_K", "mIoU_K_q5", "mIoU_K_qbar", "mDice_K", "mDice_K_q5", "mDice_K_qbar")),
    ("Cityscapes", ("mIoU_category", "miIoU", "miIoU_category")),
    ("Calibration errors", ("ECE_D", "ECE_I", "SCE_D", "SCE_I")),
    ("Several raters", ("BDice_D", "BDice_I")),
    ("Mean over groups", ("mIoU_G", "mAcc_G", "mDice_G", "ECE_G", "SCE_G", "BDice_G")),
)
"""Scores that only some evaluations have, by heading."""

LEAST_OF_CLASS = ("Precision_C", "Precision_D", "Dice_C", "Dice_D", "Acc_C", "Acc_D", "images")
"""Columns of the table per class that a narrow terminal may leave out. Dice follows from IoU."""


class Gate(NamedTuple):
    """`--min NAME=VALUE`."""

    name: str
    value: float


def parse_gates(gates: Sequence[str], choice: "Choice") -> list[Gate]:
    """The gates of `--min`. Raises InputError for one that is not NAME=VALUE or names no score, before anything is scored."""
    from segctl.metrics.scores import SCORE_NAMES, worst_names

    segments = (f"m{kind}_K_q{q}" for q in choice.percents for kind in ("IoU", "Dice"))
    known = [*SCORE_NAMES, *worst_names(choice.percents), *segments, *(name for _, names in OPTIONAL_SCORES for name in names)]
    found = [_parse(gate) for gate in gates]
    for gate in found:
        if gate.name not in known and "." not in gate.name:  # `IoU.car` is the score of a class, which only the evaluation knows
            raise _unknown(gate.name, known)
    return found


def _parse(gate: str) -> Gate:
    name, _, text = gate.partition("=")
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"cannot read --min '{gate}'", "write it as NAME=VALUE, such as --min mIoU_D=70") from None
    if not 0 <= value <= 100:  # no score is below NaN, so a gate of an unset variable would always be open
        raise InputError(f"--min '{gate}': wanted a score from 0 to 100, in percent", "for example --min mIoU_D=70")
    if 0 < value < 1:
        out.warn(f"--min {name.strip()}={text}: scores are in percent, so this is less than 1 percent")
    return Gate(name.strip(), value)


def _unknown(name: str, known: list[str]) -> InputError:
    dataset_wide = f"{name}_D"  # plain mIoU usually means mIoU_D
    near = f", did you mean '{dataset_wide}'?" if dataset_wide in known else did_you_mean(name, known)
    return InputError(f"--min {name}: there is no such score{near}", f"use one of {', '.join(known)}")


def check_gates(scores: "ScoresJson", gates: Sequence[Gate]) -> None:
    """Raise CheckError where a score is below its gate, InputError where the evaluation has no such score."""
    known = [name for name, value in scores.items() if isinstance(value, float) or (value is None and name[0] in "mAES")]
    failed = []
    for gate in gates:
        if gate.name not in known:
            raise _unknown(gate.name, known)
        found = scores[gate.name]
        if found is None or found < gate.value:
            failed.append(f"{gate.name} is {_percent(found)}, wanted at least {gate.value:g}")
    if failed:
        raise CheckError("; ".join(failed))


def show_scores(scores: "ScoresJson", json: bool, *, folder: Path | None = None, worst: "Sequence[ImageScore]" = ()) -> None:
    """Print an evaluation. folder: the one with the tables of a run's evaluation, printed with the next command."""
    if json:
        out.json(scores)
        return
    rows = scores["per_class"]
    columns = list(rows[0]) if rows else []
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    binary = scores["about"].get("binary", False)
    if binary:
        out.table("Foreground, the only class that is scored, in percent", columns, cells, drop=LEAST_OF_CLASS)
        out.result("")
    _show_headline(scores)
    _show_optional(scores)
    if not binary:
        out.table("Per class", columns, cells, drop=LEAST_OF_CLASS)
    if "per_category" in scores:
        out.result("")
        categories = [[row["category"], _percent(row["IoU"]), _percent(row["iIoU"])] for row in scores["per_category"]]
        out.table("Per category", ["category", "IoU", "iIoU"], categories)
    if worst:
        out.result("")
        out.table("Worst images", ["image", "mIoU_I"], [[image.image, _percent(image.miou_i)] for image in worst])
    if folder is not None:
        out.result(f"\ntables in {folder}\nnext: {command_line('report', folder.parent.parent)}")


def _show_headline(scores: "ScoresJson") -> None:
    about = scores["about"]
    what = f"{about['dataset']} {about.get('split', '')}" if "dataset" in about else about.get("predictions", "counts")
    protocol = f", {about['protocol']}" if "protocol" in about else ""
    if about.get("trial"):
        out.warn(f"scored on {about['trial']}; these are not scores of '{about['dataset']}'")
    trained = f", a network of {about['trained_on']}" if about.get("trained_on") else ""
    title = f"{what}{trained}, {about['images']} images{protocol}, in percent"
    rows = [_row(scores, kind) for kind in ("mIoU", "mAcc", "mDice")]
    rows.insert(1, ["  from-to", *(_ends(scores["intervals"][f"mIoU{suffix}"]) for _, suffix in AVERAGES)])
    notes = [*NOTES, f"from-to: {scores['intervals_method']}"]
    if about.get("ignored_ids") is not None and about.get("ignored_percent") is not None:
        ids = ", ".join(map(str, about["ignored_ids"]))
        word = "ids" if len(about["ignored_ids"]) > 1 else "id"
        notes.append(
            f"ignored: {f'{word} {ids}' if ids else 'no id'} of the ground truth, {about['ignored_percent']:.1f} % of its pixels"
        )
    if any(_lies_outside(scores, f"mIoU{suffix}") for _, suffix in AVERAGES):
        notes.append("a score is outside its from-to, because few resamples are as bad as the worst image and none is worse")
    out.table(title, ["", *(over for over, _ in AVERAGES)], rows, notes)
    out.result(f"Acc {_percent(scores['Acc'])}")
    if scores["intervals_warning"]:
        out.warn(scores["intervals_warning"])
    out.result("")


def _show_optional(scores: "ScoresJson") -> None:
    for title, names in OPTIONAL_SCORES:
        if found := [name for name in names if name in scores]:
            out.values(title, [(name, _percent(scores[name])) for name in found])
    usual = {name for _, names in OPTIONAL_SCORES for name in names} | {
        f"m{kind}{suffix}" for kind in ("IoU", "Acc", "Dice") for _, suffix in AVERAGES
    }
    more = [name for name in scores if re.fullmatch(r"m\w+_[ICK]_q\d+", name) and name not in usual]
    if more:
        out.values("Worst cases", [(name, _percent(scores[name])) for name in more])
    if more or any(name in scores for _, names in OPTIONAL_SCORES for name in names):
        out.result("")


def _lies_outside(scores: "ScoresJson", name: str) -> bool:
    """Whether a score lies outside its own interval, as the worst case of few images can."""
    value, ends = scores[name], scores["intervals"][name]
    return value is not None and ends is not None and not ends[0] - ROUNDING <= value <= ends[1] + ROUNDING


def _ends(ends: Sequence[float] | None) -> str:
    return "n/a" if ends is None else f"{ends[0]:.1f}-{ends[1]:.1f}"


def _row(scores: "ScoresJson", kind: str) -> list[str]:
    return [kind, *(_percent(scores[f"{kind}{suffix}"]) for _, suffix in AVERAGES)]


def _cell(value: str | float | None) -> str:
    return _percent(value) if isinstance(value, float) or value is None else str(value)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
