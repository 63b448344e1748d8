"""`segctl predict`: a trained network and a person's own pictures in, masks out."""

from pathlib import Path
from typing import Annotated

import typer

from segctl.cli.options import (
    DATA_ROOT,
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


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder, or a model.pt.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Pictures, folders of them, or patterns such as 'a/*.jpg'.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the masks go.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Also lay the classes' colours over each picture.")] = False,
    label_ids: Annotated[bool, typer.Option("--label-ids", help="Write Cityscapes label ids, as its server takes them.")] = False,
    protocol: ProtocolOpt = None,
    tile: TileOpt = None,
    stride: StrideOpt = None,
    scales: ScalesOpt = None,
    flip: FlipOpt = None,
    precision: PrecisionOpt = None,
    device: DeviceOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Segment your own pictures: index PNGs at their own size. The same again goes on where it was stopped."""
    from segctl.evaluate.predict_pictures import PredictRequest, predict_files
    from segctl.schema.evaluate import ProtocolChange

    change = ProtocolChange(protocol, tile, stride, scales, flip)
    request = PredictRequest(run, images, output, data_root, overlay, label_ids, device, precision, change)
    with out.progress("predicting") as progress:
        predicted = predict_files(request, progress)
    kept = f" ({predicted.done_before} were there already)" if predicted.done_before else ""
    out.result(f"{predicted.pictures} masks in {output}{kept}")
