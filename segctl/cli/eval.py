"""`segctl eval`: a run, predictions of any framework, or saved counts in; scores out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segctl.cli import completion
from segctl.cli.options import (
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
from segctl.cli.scores import Gate, check_gates, parse_gates, show_scores
from segctl.commands import DATA_ROOT
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.evaluate.run import EvaluationRequest
    from segctl.evaluate.tables import ScoresJson
    from segctl.metrics.tally import Choice, EvaluationCounts

RUN_PANEL, FILES_PANEL, COUNTS_PANEL = "scoring a run", "scoring --pred against --gt", "scoring --counts"
"""The three forms of the command, as help panels and errors call them."""

RunArg = Annotated[Path | None, typer.Argument(metavar="RUN", autocompletion=completion.runs, help="Folder of a finished run.")]
SplitOpt = Annotated[
    str | None, typer.Option("--split", rich_help_panel=RUN_PANEL, help="The split to score; default: val_split of the preset.")
]
DatasetOpt = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        autocompletion=completion.datasets,
        rich_help_panel=RUN_PANEL,
        help="Score on another prepared dataset, whose classes the network knows by name.",
    ),
]
ClassMapOpt = Annotated[
    Path | None,
    typer.Option(
        "--class-map",
        metavar="FILE",
        rich_help_panel=RUN_PANEL,
        help="With --dataset: YAML mapping of the network's classes to the dataset's, such as truck: car.",
    ),
]
BatchOpt = Annotated[
    int,
    typer.Option("--batch", metavar="N", min=1, max=4096, rich_help_panel=RUN_PANEL, help="Images of one size per forward pass."),
]
SaveOpt = Annotated[
    bool, typer.Option("--save-predictions", rich_help_panel=RUN_PANEL, help="Write every class map as an index PNG.")
]
CalibrationOpt = Annotated[
    bool,
    typer.Option("--calibration", rich_help_panel=RUN_PANEL, help="Also compute ECE and class-wise SCE from the probabilities."),
]
ModelOpt = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="FILE",
        rich_help_panel=RUN_PANEL,
        help="Score this exported file of the run (.onnx, .pt2, TorchScript, OpenVINO .xml) in place of its network.",
    ),
]
TrustModelOpt = Annotated[
    bool,
    typer.Option(
        "--trust-program",
        rich_help_panel=RUN_PANEL,
        help="Load a .pt2 or TorchScript --model, which may run code stored in the file.",
    ),
]
ScoringProcessesOpt = Annotated[
    int,
    typer.Option(
        "--processes", metavar="N", min=1, max=1024, rich_help_panel=RUN_PANEL, help="Local processes that share the images."
    ),
]
PredOpt = Annotated[
    Path | None, typer.Option("--pred", metavar="DIR", rich_help_panel=FILES_PANEL, help="Predictions: PNGs of class ids.")
]
TruthOpt = Annotated[
    Path | None, typer.Option("--gt", metavar="DIR", rich_help_panel=FILES_PANEL, help="Ground truth: PNGs of class ids.")
]
NumClassesOpt = Annotated[
    int | None,
    typer.Option("--num-classes", metavar="C", min=2, max=4096, rich_help_panel=FILES_PANEL, help="Class ids are 0 to C - 1."),
]
IgnoreOpt = Annotated[
    int | None,
    typer.Option(
        "--ignore",
        metavar="ID",
        min=0,
        max=65535,
        rich_help_panel=FILES_PANEL,
        help="Ground truth of this id is not scored; default: 255, or 65535 for more than 255 classes.",
    ),
]
ClassesOpt = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        rich_help_panel=FILES_PANEL,
        help="Class names in the order of ids (.txt), or a class table (.csv, .yaml).",
    ),
]
LabelIdsOpt = Annotated[
    bool, typer.Option("--label-ids", rich_help_panel=FILES_PANEL, help="The PNGs hold Cityscapes label ids, not train ids.")
]
ResizeOpt = Annotated[
    str | None,
    typer.Option(
        "--resize", metavar="nearest", rich_help_panel=FILES_PANEL, help="Resize predictions to the size of their ground truth."
    ),
]
InstancesOpt = Annotated[
    Path | None,
    typer.Option(
        "--instances",
        metavar="DIR",
        rich_help_panel=FILES_PANEL,
        help="Instance maps named like the files of --gt, for mIoU_K: one number per instance, or COCO's RGB.",
    ),
]
WorkersOpt = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, max=1024, rich_help_panel=FILES_PANEL, help="Threads; default: one per core."),
]
CountsOpt = Annotated[
    Path | None,
    typer.Option("--counts", metavar="FILE", rich_help_panel=COUNTS_PANEL, help="A counts.npz to score again, without images."),
]
BoundaryOpt = Annotated[bool, typer.Option("--boundary", help="Also compute Boundary IoU (not with --counts).")]
BinaryOpt = Annotated[
    bool,
    typer.Option("--binary", help="Score only the foreground (class 1 of two classes). Not with a run, whose dataset decides."),
]
WorstOpt = Annotated[
    str | None,
    typer.Option(
        "--worst",
        metavar="Q,Q,...",
        help="Also average over the worst Q percent, such as 1,10; the worst 5 percent (_q5) are always there.",
    ),
]
SegmentOpt = Annotated[
    int,
    typer.Option(
        "--segment-px", metavar="N", min=0, max=10**9, help="Leave segments of fewer than N pixels out of mIoU_K and mDice_K."
    ),
]
MinOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--min", metavar="NAME=VALUE", help="Exit with code 3 if a score is lower, such as --min mIoU_D=70 (repeatable)."
    ),
]
OutputOpt = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="DIR", help="Folder to write the tables to. Not with a run, which gets them in its own folder."
    ),
]


@dataclass(frozen=True)
class FileOptions:
    """The options of scoring PNGs, as given."""

    pred: Path | None
    gt: Path | None
    num_classes: int | None
    classes: Path | None
    label_ids: bool
    resize: str | None
    workers: int | None
    boundary: bool
    binary: bool
    ignored: int | None
    instances: Path | None


def evaluate(
    run: RunArg = None,
    model: ModelOpt = None,
    trust_program: TrustModelOpt = False,
    split: SplitOpt = None,
    dataset: DatasetOpt = None,
    class_map: ClassMapOpt = None,
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
    processes: ScoringProcessesOpt = 1,
    pred: PredOpt = None,
    gt: TruthOpt = None,
    num_classes: NumClassesOpt = None,
    classes: ClassesOpt = None,
    ignore: IgnoreOpt = None,
    label_ids: LabelIdsOpt = False,
    resize: ResizeOpt = None,
    instances: InstancesOpt = None,
    workers: WorkersOpt = None,
    counts: CountsOpt = None,
    boundary: BoundaryOpt = False,
    binary: BinaryOpt = False,
    worst: WorstOpt = None,
    segment_px: SegmentOpt = 0,
    min_: MinOpt = None,
    output: OutputOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Score a run or the predictions of any framework: mIoU_D, mIoU_I, mIoU_C with intervals, per class and per image."""
    of_run = {
        "--split": split, "--dataset": dataset, "--class-map": class_map,
        "--protocol": protocol, "--tile": tile, "--stride": stride, "--scales": scales,
        "--flip": flip is not None, "--batch": batch != 1, "--precision": precision,
        "--save-predictions": save_predictions, "--calibration": calibration,
        "--device": device, "--processes": processes != 1, "--model": model, "--trust-program": trust_program,
    }  # fmt: skip
    of_files = {
        "--pred": pred, "--gt": gt, "--num-classes": num_classes, "--classes": classes, "--ignore": ignore,
        "--label-ids": label_ids, "--resize": resize, "--workers": workers, "--instances": instances,
    }  # fmt: skip
    choice = _choice(worst, segment_px)
    gates = parse_gates(min_ or [], choice)
    if counts is not None:
        _refuse(COUNTS_PANEL, {"RUN": run, **of_run, **of_files, "--boundary": boundary})
        scores = _score_counts(counts, binary, choice, output)
    elif pred is not None or gt is not None:
        _refuse(FILES_PANEL, {"RUN": run, **of_run})
        files = FileOptions(pred, gt, num_classes, classes, label_ids, resize, workers, boundary, binary, ignore, instances)
        scores = _score_pngs(files, choice, output)
    elif run is not None:
        _refuse(RUN_PANEL, {**of_files, "--binary": binary, "--output": output})
        from segctl.evaluate.run import EvaluationRequest
        from segctl.runs import RunFolder
        from segctl.schema.evaluate import ProtocolChange

        request = EvaluationRequest(
            run=RunFolder(run),
            data_root=data_root,
            split=split,
            dataset=dataset,
            class_map=class_map,
            device=device,
            precision=precision,
            change=ProtocolChange(protocol, tile, stride, scales, flip),
            batch=batch,
            boundary=boundary,
            calibration=calibration,
            save_predictions=save_predictions,
            program=model,
            trust_program=trust_program,
            choice=choice,
        )
        _evaluate_run(request, processes, gates, json)
        return
    else:
        raise InputError("there is nothing to score", "give a run, or --pred DIR --gt DIR, or --counts FILE")
    _warn_of_segments(scores, segment_px)
    show_scores(scores, json)
    check_gates(scores, gates)


def _warn_of_segments(scores: "ScoresJson", segment_px: int) -> None:
    if segment_px and "mIoU_K" not in scores:
        out.warn("--segment-px changes nothing: there are no instance maps, so there is no mIoU_K")


def _refuse(form: str, options: dict[str, object]) -> None:
    """Raise InputError for an option that this form of the command does not have, so that no option is silently ignored."""
    given = [name for name, value in options.items() if value is not None and value is not False]
    if given:
        raise InputError(f"{given[0]} cannot be combined with {form}", f"leave {given[0]} out; see `segctl eval --help`")


def _choice(worst: str | None, segment_px: int) -> "Choice":
    """The scores that were asked for beside the usual ones. Raises InputError for percentages that are not whole, 1 to 100."""
    from segctl.metrics.tally import Choice

    try:
        percents = () if worst is None else tuple(dict.fromkeys(map(int, worst.split(","))))
    except ValueError:
        percents = (0,)
    if not all(1 <= percent <= 100 for percent in percents):
        raise InputError(f"cannot read --worst '{worst}'", "give whole percentages from 1 to 100, such as --worst 1,10")
    return Choice(percents, segment_px)


def _score_counts(path: Path, binary: bool, choice: "Choice", output: Path | None) -> "ScoresJson":
    from segctl.evaluate.saved_counts import score_counts

    counts, scores = score_counts(path, binary, choice)
    _write(output, counts, scores)
    return scores


def _score_pngs(options: FileOptions, choice: "Choice", output: Path | None) -> "ScoresJson":
    from segctl.evaluate.png_classes import given_classes
    from segctl.evaluate.png_folders import FilesRequest, score_files
    from segctl.runtime.cores import core_count

    if options.gt is None:
        raise InputError("--pred is given without --gt", "add --gt DIR")
    if options.pred is None:
        raise InputError("--gt is given without --pred", "add --pred DIR")
    if options.resize not in (None, "nearest"):
        raise InputError(f"--resize '{options.resize}' is not known", "use --resize nearest, the only way to resize class ids")
    known = given_classes(options.num_classes, options.classes, options.label_ids)
    request = FilesRequest(
        predictions=options.pred,
        truths=options.gt,
        classes=known,
        binary=options.binary or known.binary,
        resize=options.resize is not None,
        boundary=options.boundary,
        workers=options.workers or core_count(),
        ignored=options.ignored,
        instances=options.instances,
        choice=choice,
    )
    with out.progress("scoring") as progress:
        scored = score_files(request, progress)
    for warning in scored.warnings:
        out.warn(warning)
    _write(output, scored.counts, scored.scores)
    return scored.scores


def _write(folder: Path | None, counts: "EvaluationCounts", scores: "ScoresJson") -> None:
    from segctl.evaluate.tables import write_tables

    if folder is not None:
        write_tables(folder, counts, scores)
        out.note(f"tables in {folder}")


def _evaluate_run(request: "EvaluationRequest", processes: int, gates: list[Gate], json: bool) -> None:
    from segctl.evaluate.run import evaluate_run, open_request
    from segctl.runtime.world import joined_world, under_launcher

    opened = open_request(request)  # its errors come before processes start
    if not under_launcher():
        for text in opened.warnings:
            out.warn(text)
    if processes > 1 and not under_launcher():
        from segctl.runtime.launcher import launch

        launch(processes, out.arguments)
        return
    with joined_world(out.note_of_any_rank) as world, out.progress("scoring") as progress:
        scored = evaluate_run(request, world, progress)
    if scored is not None:
        _warn_of_segments(scored.scores, request.choice.segment_px)
        show_scores(scored.scores, json, folder=scored.folder, worst=scored.worst)
        check_gates(scored.scores, gates)
