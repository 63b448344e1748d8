"""Options that more than one command takes, each written once."""

from pathlib import Path
from typing import Annotated

import typer

DataRootOpt = Annotated[
    Path, typer.Option("--data-root", envvar="SEGCTL_DATA", help="Folder of prepared datasets.", show_default=True)
]
RunsRootOpt = Annotated[Path, typer.Option("--runs-root", envvar="SEGCTL_RUNS", help="Folder of runs.", show_default=True)]
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

DATA_ROOT = Path("data")
RUNS_ROOT = Path("runs")
