"""`segctl predict`: a trained network and your own pictures in, masks out."""

from pathlib import Path
from typing import Annotated

import typer

from segctl.cli import completion
from segctl.cli.options import (
    DataRootOpt,
    DeviceOpt,
    FlipOpt,
    PrecisionOpt,
    ProtocolOpt,
    ScalesOpt,
    StrideOpt,
    TileOpt,
)
from segctl.cli.output import out
from segctl.commands import DATA_ROOT
from segctl.errors import InputError
from segctl.runtime.signals import ending_in_order

TOP_K = 3
"""Classes that --soft writes. The three most probable ones hold nearly all of the probability."""


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            autocompletion=completion.runs,
            help="Folder of a finished run, a model.safetensors, an exported file (.onnx needs no torch), or hf:ORG/NAME.",
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Pictures and videos, folders of them, or patterns such as 'a/*.jpg'."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write the masks to.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write each picture with the class colours over it.")] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also write the largest probability of each pixel: 16-bit PNGs in confidence/.")
    ] = False,
    soft: Annotated[
        bool,
        typer.Option(
            "--soft", help="Also write the most probable classes of each pixel with their probabilities: .npz files in soft/."
        ),
    ] = False,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", min=1, max=255, help="How many classes --soft writes; default: 3.")
    ] = None,
    label_ids: Annotated[bool, typer.Option("--label-ids", help="Write Cityscapes label ids, as its server expects.")] = False,
    every: Annotated[int, typer.Option("--every", metavar="N", min=1, max=10**6, help="Videos: take every Nth frame only.")] = 1,
    no_frames: Annotated[
        bool, typer.Option("--no-frames", help="Videos: write only the video with the class colours, no label maps.")
    ] = False,
    protocol: ProtocolOpt = None,
    tile: TileOpt = None,
    stride: StrideOpt = None,
    scales: ScalesOpt = None,
    flip: FlipOpt = None,
    precision: PrecisionOpt = None,
    trust_program: Annotated[
        bool, typer.Option("--trust-program", help="Load a .pt2 or TorchScript file, which may run code stored in it.")
    ] = False,
    device: DeviceOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Segment your own pictures and videos into index PNGs of the same size. Run the same command again to resume."""
    from segctl.inference.predict_pictures import PredictRequest, predict_files
    from segctl.schema.evaluate import ProtocolChange

    if top_k is not None and not soft:
        raise InputError(f"--top-k is {top_k}, but nothing writes soft labels", "add --soft")
    change = ProtocolChange(protocol, tile, stride, scales, flip)
    request = PredictRequest(
        run=run,
        pictures=images,
        output=output,
        data_root=data_root,
        overlay=overlay,
        label_ids=label_ids,
        confidence=confidence,
        soft=(top_k or TOP_K) if soft else 0,
        device=device,
        precision=precision,
        change=change,
        trust_program=trust_program,
        every=every,
        frames=not no_frames,
    )
    with ending_in_order("predicting was stopped"), out.progress("predicting") as progress:
        predicted = predict_files(request, progress)
    for text in predicted.warnings:
        out.warn(text)
    before = f" ({predicted.done_before} of them from an earlier start)" if predicted.done_before else ""
    videos = f"{predicted.videos} video{'s' * (predicted.videos != 1)}"
    made = [f"{predicted.pictures} masks"] * bool(predicted.pictures) + [videos] * bool(predicted.videos)
    out.result(f"{' and '.join(made)} in {output}{before}")
