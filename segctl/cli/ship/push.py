"""`segctl push`: a finished run in, a repository on Hugging Face out."""

from pathlib import Path
from typing import Annotated

import typer

from segctl.cli import completion
from segctl.cli.options import JsonOpt
from segctl.cli.output import out


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", autocompletion=completion.runs, help="Folder of a finished run.")],
    target: Annotated[str, typer.Argument(metavar="hf:ORG/NAME", help="The repository; it is created if it does not exist.")],
    dry_run: Annotated[
        Path | None,
        typer.Option("--dry-run", metavar="DIR", help="Write the repository into this new folder and upload nothing."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="Licence of the weights, by its identifier on the hub, such as mit."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
    json: JsonOpt = False,
) -> None:
    """Publish a run on Hugging Face: weights, settings, exported files, and a model card with its scores."""
    from segctl.export.push import PushRequest, next_line, push_run, write_repository
    from segctl.runs import RunFolder

    request = PushRequest(RunFolder(run), target, license, private)
    pushed = push_run(request) if dry_run is None else write_repository(request, dry_run)
    for sentence in pushed.warnings:
        out.warn(sentence)
    if json:
        out.json({"place": pushed.place, "files": {file.name: file.bytes for file in pushed.files}})
        return
    out.result(f"{pushed.place}: README.md, {', '.join(file.name for file in pushed.files)}")
    out.result(f"next: {next_line(target if dry_run is None else str(dry_run))}")
