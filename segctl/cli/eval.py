"""`segctl eval`: a run, or predictions of any framework, or saved counts in; scores out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segctl.cli.options import (
    DATA_ROOT,
    DataRootOpt,
    DeviceOpt,
    FlipOpt,
    JsonOpt,
    PrecisionOpt,
    ProtocolOpt,
    ScalesOpt,
    StrideOpt,
    TileOpt,
)
from segctl.cli.output import out
from segctl.cli.scores import Gate, check_gates, parse_gates, show
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.evaluate.run import EvaluationRequest
    from segctl.evaluate.tables import Content
    from segctl.metrics.tally import Counted

RUN, FILES, COUNTS = "of a run", "of --pred and --gt", "of --counts"
"""Help panels, and the words for which form an option belongs to."""

RunArg = Annotated[Path | None, typer.Argument(metavar="RUN", help="A finished run's folder.")]
SplitOpt = Annotated[
    str | None, typer.Option("--split", rich_help_panel=RUN, help="The split to score; the preset's val_split if left out.")
]
BatchOpt = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, rich_help_panel=RUN, help="Images of one size that go through at once.")
]
SaveOpt = Annotated[bool, typer.Option("--save-predictions", rich_help_panel=RUN, help="Keep every class map as an index PNG.")]
CalibrationOpt = Annotated[
    bool, typer.Option("--calibration", rich_help_panel=RUN, help="ECE and class-wise SCE, from the probabilities.")
]
ProcessesOpt = Annotated[
    int, typer.Option("--processes", metavar="N", min=1, rich_help_panel=RUN, help="Local processes that share the images.")
]
PredOpt = Annotated[
    Path | None, typer.Option("--pred", metavar="DIR", rich_help_panel=FILES, help="Predictions: PNGs of class ids.")
]
TruthOpt = Annotated[
    Path | None, typer.Option("--gt", metavar="DIR", rich_help_panel=FILES, help="Ground truth: PNGs of class ids, 255 ignored.")
]
NumClassesOpt = Annotated[
    int | None, typer.Option("--num-classes", metavar="C", min=2, max=65535, rich_help_panel=FILES, help="Ids are 0 to C - 1.")
]
ClassesOpt = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        rich_help_panel=FILES,
        help="Names in the order of ids (.txt), or a class table (.csv, .yaml).",
    ),
]
LabelIdsOpt = Annotated[
    bool, typer.Option("--label-ids", rich_help_panel=FILES, help="The PNGs hold Cityscapes label ids, not train ids.")
]
ResizeOpt = Annotated[
    str | None,
    typer.Option("--resize", metavar="nearest", rich_help_panel=FILES, help="Bring predictions to the ground truth's size."),
]
WorkersOpt = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, rich_help_panel=FILES, help="Threads; one per core if left out.")
]
CountsOpt = Annotated[
    Path | None,
    typer.Option("--counts", metavar="FILE", rich_help_panel=COUNTS, help="A counts.npz to score again, without images."),
]
BoundaryOpt = Annotated[bool, typer.Option("--boundary", help="Boundary IoU as well (not of --counts, which has it or not).")]
BinaryOpt = Annotated[
    bool, typer.Option("--binary", help="Score the foreground (class 1 of 2) alone; a prepared dataset says so itself.")
]
MinOpt = Annotated[
    list[str] | None,
    typer.Option("--min", metavar="NAME=VALUE", help="Exit with code 3 where a score is lower, such as mIoU_D=70 (repeatable)."),
]
OutputOpt = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where tables go; a run keeps them in its own folder.")
]


def evaluate(
    run: RunArg = None,
    split: SplitOpt = None,
    protocol: ProtocolOpt = None,
    tile: TileOpt = None,
    stride: StrideOpt = None,
    scales: ScalesOpt = None,
    flip: FlipOpt = None,
    batch: BatchOpt = 1,
    precision: PrecisionOpt = None,
    save_predictions: SaveOpt = False,
    calibration: CalibrationOpt = False,
    device: DeviceOpt = None,
    processes: ProcessesOpt = 1,
    pred: PredOpt = None,
    gt: TruthOpt = None,
    num_classes: NumClassesOpt = None,
    classes: ClassesOpt = None,
    label_ids: LabelIdsOpt = False,
    resize: ResizeOpt = None,
    workers: WorkersOpt = None,
    counts: CountsOpt = None,
    boundary: BoundaryOpt = False,
    binary: BinaryOpt = False,
    min_: MinOpt = None,
    output: OutputOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Score a run, or anybody's predictions: mIoU_D, mIoU_I, mIoU_C with intervals, per class and per image."""
    of_run = {
        "--split": split, "--protocol": protocol, "--tile": tile, "--stride": stride, "--scales": scales,
        "--flip": flip is not None, "--batch": batch != 1, "--precision": precision,
        "--save-predictions": save_predictions, "--calibration": calibration,
        "--device": device, "--processes": processes != 1,
    }  # fmt: skip
    of_files = {
        "--pred": pred, "--gt": gt, "--num-classes": num_classes, "--classes": classes, "--label-ids": label_ids,
        "--resize": resize, "--workers": workers,
    }  # fmt: skip
    gates = parse_gates(min_ or [])
    if counts is not None:
        _refuse(COUNTS, {"RUN": run, **of_run, **of_files, "--boundary": boundary})
        content = _score_counts(counts, binary, output)
    elif pred is not None or gt is not None:
        _refuse(FILES, {"RUN": run, **of_run})
        content = _score_pngs(pred, gt, num_classes, classes, label_ids, resize, workers, boundary, binary, output)
    elif run is not None:
        _refuse(RUN, {**of_files, "--binary": binary, "--output": output})
        from segctl.evaluate.run import EvaluationRequest
        from segctl.runs import RunFolder
        from segctl.schema.evaluate import ProtocolChange

        change = ProtocolChange(protocol, tile, stride, scales, flip)
        request = EvaluationRequest(
            RunFolder(run), data_root, split, device, precision, change, batch, boundary, calibration, save_predictions
        )
        _evaluate_run(request, processes, gates, json)
        return
    else:
        raise InputError(
            "what is to be scored? neither RUN nor --pred with --gt nor --counts is given", "see `segctl eval --help`"
        )
    show(content, json)
    check_gates(content, gates)


def _refuse(form: str, options: dict[str, object]) -> None:
    """Options that the form does not have must not be given: none is ignored in silence."""
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise InputError(f"the form {form} has no use for {given[0]}", "leave it out; see `segctl eval --help`")


def _score_counts(path: Path, binary: bool, output: Path | None) -> "Content":
    from segctl.evaluate.saved_counts import score_counts

    counted, content = score_counts(path, binary)
    _write(output, counted, content)
    return content


def _score_pngs(
    pred: Path | None,
    gt: Path | None,
    num_classes: int | None,
    classes: Path | None,
    label_ids: bool,
    resize: str | None,
    workers: int | None,
    boundary: bool,
    binary: bool,
    output: Path | None,
) -> "Content":
    from segctl.evaluate.png_classes import given_classes
    from segctl.evaluate.png_folders import FilesRequest, score_files
    from segctl.runtime.cores import core_count

    if pred is None or gt is None:
        raise InputError(f"--{'pred' if gt is None else 'gt'} is given without --{'gt' if gt is None else 'pred'}", "give both")
    if resize not in (None, "nearest"):
        raise InputError(f"--resize '{resize}' is not known", "class ids can only be resized by nearest")
    known = given_classes(num_classes, classes, label_ids)
    request = FilesRequest(pred, gt, known, binary or known.binary, resize is not None, boundary, workers or core_count())
    with out.progress("scoring") as progress:
        scored = score_files(request, progress)
    for warning in scored.warnings:
        out.warn(warning)
    _write(output, scored.counted, scored.content)
    return scored.content


def _write(folder: Path | None, counted: "Counted", content: "Content") -> None:
    from segctl.evaluate.tables import write_tables

    if folder is not None:
        write_tables(folder, counted, content)
        out.note(f"tables in {folder}")


def _evaluate_run(request: "EvaluationRequest", processes: int, gates: list[Gate], json: bool) -> None:
    from segctl.evaluate.run import evaluate_run, open_request
    from segctl.runtime.world import joined_world, under_launcher

    open_request(request)
    if processes > 1 and not under_launcher():
        from segctl.runtime.launcher import launch

        launch(processes, out.arguments)
        return
    with joined_world() as world, out.progress("scoring") as progress:
        evaluation = evaluate_run(request, world, progress)
    if evaluation is not None:
        show(evaluation.content, json, folder=evaluation.folder, worst=evaluation.worst)
        check_gates(evaluation.content, gates)
