"""`segctl export`: a finished run in, one file that runs anywhere out, compared with the run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segctl.cli import completion
from segctl.cli.options import DataRootOpt, JsonOpt
from segctl.cli.output import out
from segctl.commands import DATA_ROOT, command_line
from segctl.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from segctl.export.run import Exported


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", autocompletion=completion.runs, help="Folder of a finished run.")],
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="onnx, torch (.pt2), torchscript or openvino.")
    ] = "onnx",
    output: Annotated[
        str,
        typer.Option(
            "--output", metavar="NAME", help="labels (class ids, smallest and fastest), logits or probabilities of each class."
        ),
    ] = "labels",
    size: Annotated[
        str | None, typer.Option("--size", metavar="HxW", help="Accept only images of this size; default: any height and width.")
    ] = None,
    parity: Annotated[
        int | None,
        typer.Option(
            "--parity",
            metavar="N",
            min=0,
            max=10**9,
            help="Compare the file with the run on N validation images; default: all; 0: do not compare.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            metavar="X",
            min=0,
            max=100,
            help="Percent of pixels, and points of mIoU_D, the file may differ by; default: 0.1, or 0.5 points with --int8.",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the ONNX file to 8 bits, with ranges measured on training crops.")
    ] = False,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Convert the ONNX file to float16, for GPUs; a CPU computes it in float32, more slowly."),
    ] = False,
    calibration_images: Annotated[
        int,
        typer.Option(
            "--calibration-images", metavar="N", min=1, max=10**6, help="Number of training crops that --int8 measures."
        ),
    ] = 64,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Seed that draws the training crops of --int8.")
    ] = 0,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Export a run as one file that needs no segctl: pictures in, classes out. It is kept only if it scores like the run."""
    from segctl.export.parity import Tolerance
    from segctl.export.run import ExportRequest, export_run
    from segctl.programs.facts import OUTPUTS
    from segctl.runs import RunFolder
    from segctl.schema.evaluate import read_size

    chosen = next((name for name in OUTPUTS if name == output), None)
    if chosen is None:
        raise InputError(f"--output '{output}' is not known{did_you_mean(output, list(OUTPUTS))}", f"use {', '.join(OUTPUTS)}")
    sides = None if size is None else read_size("--size", size)
    points = tolerance if tolerance is not None else 0.5 if int8 else 0.1
    # Rounding moves many borders by a pixel, and no score; in float16 it moves few.
    allowed = Tolerance(100.0 if int8 else max(1.0, points) if fp16 else points, points)
    request = ExportRequest(
        RunFolder(run), data_root, format, chosen, sides, parity, allowed, int8, calibration_images, seed, fp16
    )
    out.note(f"exporting '{run}' as {format}")
    with out.progress("comparing the file with the run") as progress:
        exported = export_run(request, progress)
    _show(exported, run, format, data_root, json)


def _show(exported: "Exported", run: Path, format: str, data_root: Path, json: bool) -> None:
    facts, parity = exported.facts, exported.parity
    if json:
        compared = None if parity is None else {
            "images": parity.images, "percent_of_pixels": parity.percent, "mIoU_D": parity.file, "mIoU_D_of_run": parity.run,
        }  # fmt: skip
        out.json(
            {"file": str(exported.path), "bytes": exported.bytes, "format": format, "opset": facts.opset, "output": facts.output,
             "size": facts.size, "parity": compared}
        )  # fmt: skip
        return
    if parity is None:
        out.warn("the file was not compared with the run, so its scores are unknown")
    opset = "" if facts.opset is None else f", opset {facts.opset}"
    out.result(f"{exported.path}: {exported.bytes / 1e6:.1f} MB{opset}, {facts.takes} -> {facts.output}")
    if parity is not None:
        out.result(parity.in_words())
    trust = ["--trust-program"] if format.startswith("torch") else []
    out.result(f"next: {command_line('eval', run, '--model', exported.path, *trust, data_root=data_root)}")
