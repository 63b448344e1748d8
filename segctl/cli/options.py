"""Options that more than one command takes, each written once."""

from pathlib import Path
from typing import Annotated

import typer

from segctl import commands

DataRootOpt = Annotated[
    Path, typer.Option("--data-root", envvar=commands.DATA_VARIABLE, help="Folder of prepared datasets.", show_default=True)
]
RunsRootOpt = Annotated[
    Path, typer.Option("--runs-root", envvar=commands.RUNS_VARIABLE, help="Folder of runs.", show_default=True)
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change one value of the preset, such as train.steps=100 (repeatable)."),
]
PresetOpt = Annotated[
    str | None, typer.Option("--preset", metavar="NAME_OR_FILE", help="A shipped preset's name, or a YAML file.")
]
DeviceOpt = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda or cuda:0; the best there is if left out.")
]

NETWORK = "how the network is applied, if not as the run says"
ProtocolOpt = Annotated[
    str | None,
    typer.Option("--protocol", metavar="NAME", rich_help_panel=NETWORK, help="whole or sliding, instead of the run's own."),
]
TileOpt = Annotated[
    str | None,
    typer.Option(
        "--tile", metavar="HxW", rich_help_panel=NETWORK, help="The sliding tile in pixels; the training crop if left out."
    ),
]
StrideOpt = Annotated[
    float | None,
    typer.Option("--stride", metavar="SHARE", rich_help_panel=NETWORK, help="Distance between tiles, as a share of the tile."),
]
ScalesOpt = Annotated[
    str | None,
    typer.Option("--scales", metavar="A,B,...", rich_help_panel=NETWORK, help="Image scales whose probabilities are averaged."),
]
FlipOpt = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", rich_help_panel=NETWORK, help="Whether the mirrored image is averaged in as well."),
]
PrecisionOpt = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME", rich_help_panel=NETWORK, help="auto, fp32, bf16 or fp16, not as it was trained."),
]

DATA_ROOT, RUNS_ROOT = commands.DATA_ROOT, commands.RUNS_ROOT
