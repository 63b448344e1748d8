"""`segctl eval`: a run in, counts and scores out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from segctl.cli.options import DATA_ROOT, DataRootOpt, DeviceOpt, JsonOpt
from segctl.cli.output import out
from segctl.errors import SegctlError


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    split: Annotated[str | None, typer.Option("--split", help="The split to score; the preset's val_split if left out.")] = None,
    device: DeviceOpt = None,
    processes: Annotated[int, typer.Option("--processes", metavar="N", min=1, help="Local processes that share the images.")] = 1,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Score a run: mIoU_D, mIoU_I, mIoU_C, per class, per image, and its worst images."""
    from segctl.engine import distributed
    from segctl.engine.score_run import EvaluationRequest, evaluate_run, open_request
    from segctl.runs import RunFolder

    request = EvaluationRequest(RunFolder(run), data_root, split, device)
    open_request(request)
    if processes > 1 and not distributed.under_launcher():
        code = distributed.launch(processes, out.arguments)
        if code:
            raise SegctlError(f"one of the {processes} processes failed with exit code {code}", "see its message above")
        return
    world = distributed.join_world()
    try:
        with out.progress("scoring") as progress:
            evaluation = evaluate_run(request, world, progress)
    finally:
        distributed.leave_world()
    if evaluation is not None:
        _show(evaluation.content, evaluation.folder, [(worst.image, worst.miou_i) for worst in evaluation.worst], json)


def _show(content: dict[str, Any], folder: Path, worst: list[tuple[str, float]], json: bool) -> None:
    if json:
        out.json(content)
        return
    from segctl.metrics.scores import PER_CLASS_COLUMNS

    about = content["about"]
    title = f"{about['dataset']} {about['split']}, {about['images']} images, {about['protocol']}, in percent"
    out.table(title, ["", *(over for over, _ in AVERAGES)], [_row(content, kind) for kind in ("mIoU", "mAcc", "mDice")], NOTES)
    out.result(f"Acc {_percent(content['Acc'])}\n")
    rows = [[_cell(row[column]) for column in PER_CLASS_COLUMNS] for row in content["per_class"]]
    out.table("Per class", PER_CLASS_COLUMNS, rows)
    out.result("")
    out.table("Worst images", ["image", "mIoU_I"], [[image, _percent(value)] for image, value in worst])
    out.result(f"\ntables in {folder}      next: segctl report {folder.parent.parent}")


AVERAGES = (
    ("D", "_D"), ("I", "_I"), ("C", "_C"), ("I q5", "_I_q5"), ("C q5", "_C_q5"), ("I q̄", "_I_qbar"), ("C q̄", "_C_qbar"),
)  # fmt: skip
NOTES = (
    "D over the dataset's pixels · I per image, then over images · C per class over its images, then over classes",
    "q5 the worst 5 percent · q̄ the mean over the worst 10, 20 … 100 percent · n/a where nothing defines it",
)


def _row(content: dict[str, Any], kind: str) -> list[str]:
    return [kind, *(_percent(content[f"{kind}{suffix}"]) for _, suffix in AVERAGES)]


def _cell(value: str | float | None) -> str:
    return _percent(value) if isinstance(value, float) or value is None else str(value)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
