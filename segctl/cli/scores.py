"""How scores look on a terminal, and the gates that pipelines set on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segctl.cli.output import out
from segctl.commands import command_line
from segctl.errors import CheckError, InputError, did_you_mean

if TYPE_CHECKING:
    from segctl.metrics.scores import ImageScore

Content = dict[str, Any]

AVERAGES = (
    ("D", "_D"), ("I", "_I"), ("C", "_C"), ("I q5", "_I_q5"), ("C q5", "_C_q5"), ("I q̄", "_I_qbar"), ("C q̄", "_C_qbar"),
)  # fmt: skip
NOTES = (
    "D over the dataset's pixels · I per image, then over images · C per class over its images, then over classes",
    "q5 the worst 5 percent · q̄ the mean over the worst 10, 20 … 100 percent · n/a where nothing defines it",
)
ROUNDING = 1e-9
MORE = (
    ("Boundary IoU", ("mBIoU_D", "mBIoU_I", "mBIoU_C")),
    ("Instances", ("mIoU_K",)),
    ("Cityscapes", ("mIoU_category", "miIoU", "miIoU_category")),
    ("Calibration errors", ("ECE_D", "ECE_I", "SCE_D", "SCE_I")),
)
"""Scores that only some evaluations have."""


class Gate(NamedTuple):
    """`--min NAME=VALUE`."""

    name: str
    value: float


def parse_gates(gates: Sequence[str]) -> list[Gate]:
    """Raises InputError for one that is no NAME=VALUE, or names no score, before anything is scored."""
    from segctl.metrics.scores import SCORE_NAMES

    known = [*SCORE_NAMES, *(name for _, names in MORE for name in names)]
    found = [_parse(gate) for gate in gates]
    for gate in found:
        if gate.name not in known and "." not in gate.name:  # with a point it is a class's, which the evaluation knows
            raise _unknown(gate.name, known)
    return found


def _parse(gate: str) -> Gate:
    name, _, text = gate.partition("=")
    try:
        return Gate(name.strip(), float(text))
    except ValueError:
        raise InputError(f"cannot read --min '{gate}'", "write it as NAME=VALUE, such as --min mIoU_D=70") from None


def _unknown(name: str, known: list[str]) -> InputError:
    dataset_wide = f"{name}_D"  # what people mean by plain mIoU
    near = f", did you mean '{dataset_wide}'?" if dataset_wide in known else did_you_mean(name, known)
    return InputError(f"--min {name}: there is no such score{near}", f"there are {', '.join(known)}")


def check_gates(content: Content, gates: Sequence[Gate]) -> None:
    """Raise CheckError where a score is below its gate, InputError where there is no such score."""
    known = [name for name, value in content.items() if isinstance(value, float) or (value is None and name[0] in "mAES")]
    failed = []
    for gate in gates:
        if gate.name not in known:
            raise _unknown(gate.name, known)
        found = content[gate.name]
        if found is None or found < gate.value:
            failed.append(f"{gate.name} is {_percent(found)}, wanted at least {gate.value:g}")
    if failed:
        raise CheckError("; ".join(failed))


def show(content: Content, json: bool, *, folder: Path | None = None, worst: "Sequence[ImageScore]" = ()) -> None:
    """Print an evaluation. folder: that of a run's evaluation, with the next step."""
    if json:
        out.json(content)
        return
    _show_headline(content)
    _show_more(content)
    rows = content["per_class"]
    columns = list(rows[0]) if rows else []
    out.table("Per class", columns, [[_cell(row[column]) for column in columns] for row in rows])
    if "per_category" in content:
        out.result("")
        categories = [[row["category"], _percent(row["IoU"]), _percent(row["iIoU"])] for row in content["per_category"]]
        out.table("Per category", ["category", "IoU", "iIoU"], categories)
    if worst:
        out.result("")
        out.table("Worst images", ["image", "mIoU_I"], [[image.image, _percent(image.miou_i)] for image in worst])
    if folder is not None:
        out.result(f"\ntables in {folder}      next: {command_line('report', folder.parent.parent)}")


def _show_headline(content: Content) -> None:
    about = content["about"]
    what = f"{about['dataset']} {about['split']}" if "dataset" in about else about.get("predictions", "counts")
    protocol = f", {about['protocol']}" if "protocol" in about else ""
    if about.get("trial"):
        out.warn(f"scored on {about['trial']}; these are not scores of '{about['dataset']}'")
    title = f"{what}, {about['images']} images{protocol}, in percent"
    rows = [_row(content, kind) for kind in ("mIoU", "mAcc", "mDice")]
    rows.insert(1, ["  from-to", *(_ends(content["intervals"][f"mIoU{suffix}"]) for _, suffix in AVERAGES)])
    notes = [*NOTES, f"from-to: {content['intervals_method']}"]
    if any(_lies_beside(content, f"mIoU{suffix}") for _, suffix in AVERAGES):
        notes.append("a score beside its from-to: no resample is worse than the worst image seen, and few are as bad")
    out.table(title, ["", *(over for over, _ in AVERAGES)], rows, notes)
    out.result(f"Acc {_percent(content['Acc'])}")
    if content["intervals_warning"]:
        out.warn(content["intervals_warning"])
    out.result("")


def _show_more(content: Content) -> None:
    for title, names in MORE:
        if found := [name for name in names if name in content]:
            out.result(f"{title}: " + "   ".join(f"{name} {_percent(content[name])}" for name in found))
    if any(name in content for _, names in MORE for name in names):
        out.result("")


def _lies_beside(content: Content, name: str) -> bool:
    """Whether a score is outside its own interval, as worst cases of few images can be."""
    value, ends = content[name], content["intervals"][name]
    return value is not None and ends is not None and not ends[0] - ROUNDING <= value <= ends[1] + ROUNDING


def _ends(ends: Sequence[float] | None) -> str:
    return "n/a" if ends is None else f"{ends[0]:.1f}-{ends[1]:.1f}"


def _row(content: Content, kind: str) -> list[str]:
    return [kind, *(_percent(content[f"{kind}{suffix}"]) for _, suffix in AVERAGES)]


def _cell(value: str | float | None) -> str:
    return _percent(value) if isinstance(value, float) or value is None else str(value)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
