"""`segctl push`: a finished run -> a repository on Hugging Face, or a folder as it would be there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from segctl import __version__
from segctl.commands import command_line
from segctl.errors import InputError, SegctlError
from segctl.export.card import CardFile, card_scores, model_card, require_repository
from segctl.files import file_sha256, write_text
from segctl.models import SavedModel, read
from segctl.models.external.hub import hub_address, require_hub, said_by_hub, why_unreachable
from segctl.models.saving import write_saved
from segctl.programs import exports_of, program_facts
from segctl.runs import HUB, MODEL_FILE, RunFolder
from segctl.runtime.signals import ending_in_order

CARD = "README.md"
NOT_OURS = ("config.json", "pytorch_model.bin", "model_index.json")
"""Files that show that a repository belongs to another library."""


@dataclass(frozen=True)
class PushRequest:
    """Which run to push, and where: `hf:ORG/NAME`. licence: of the weights, as the hub names it, such as `mit`; None: unstated.

    private: make a new repository private.
    """

    run: RunFolder
    target: str
    licence: str | None = None
    private: bool = False


@dataclass(frozen=True)
class Pushed:
    """place: the folder or the address.  files: name and bytes of each.  warnings: what the card lacks, a sentence each."""

    place: str
    files: tuple[CardFile, ...]
    warnings: tuple[str, ...]


def write_repository(request: PushRequest, folder: Path) -> Pushed:
    """Write the repository's files into a new folder, whole or not at all; nothing is sent.

    Raises InputError for a run that has not finished, an exported file of other weights, and a folder that holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' exists already and is not an empty folder", "give a new folder")
    with _staged(request) as (staged, files, warnings):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.part", dir=folder.parent) as beside:
            whole = Path(shutil.copytree(staged, Path(beside) / "whole"))
            if folder.is_dir():
                folder.rmdir()
            whole.rename(folder)
    return Pushed(str(folder), files, warnings)


def push_run(request: PushRequest) -> Pushed:
    """Send the run to its repository, which is made if it is new. Exported files of an earlier push are replaced.

    Raises InputError before anything is sent where the hub, the token, the run or the repository do not fit, and SegctlError
    where the hub fails. No message holds the token.
    """
    name = require_repository(request.target)
    hub = require_hub()
    if reason := why_unreachable(hub_address()):
        raise InputError(f"cannot push to '{request.target}': {reason}", "or write the files with --dry-run DIR")
    if not hub.get_token():
        raise InputError(
            f"cannot push to '{request.target}': there is no token for {hub_address()}",
            "log in with `hf auth login`, or set HF_TOKEN to a token that may write",
        )
    with _staged(request) as (folder, files, warnings):
        try:
            api = hub.HfApi(library_name="segctl", library_version=__version__)
            api.create_repo(name, private=request.private or None, exist_ok=True)
            there = set(api.list_repo_files(name))
        except Exception as error:  # the client's errors change with the HTTP library beneath it
            raise _refused(request.target, error) from None  # the chain may hold the token
        strangers = sorted(there.intersection(NOT_OURS))
        if strangers and "run.yaml" not in there:
            raise InputError(
                f"'{request.target}' holds a network of another library: it has a {strangers[0]}", "give another repository"
            )
        try:
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=f"Upload {request.run.name} with segctl {__version__}",
                delete_patterns=["export/*"],  # files of an earlier push would be of other weights
            )
        except Exception as error:
            raise _refused(request.target, error) from None
    return Pushed(f"{hub_address()}/{name}", files, warnings)


def _refused(target: str, error: Exception) -> SegctlError:
    return SegctlError(
        f"the hub did not accept '{target}': {said_by_hub(error)}", "check the name and that your token may write there"
    )


@contextmanager
def _staged(request: PushRequest) -> Iterator[tuple[Path, tuple[CardFile, ...], tuple[str, ...]]]:
    """The repository in a temporary folder, its files, and warnings."""
    name, run = require_repository(request.target), request.run
    run.require_finished()
    saved, exports = read(run.model), exports_of(run)
    saved.require_head()
    sha256 = file_sha256(run.model)
    facts = {path: program_facts(path) for path in exports}
    for path, told in facts.items():
        if told.weights_sha256 != sha256:
            raise InputError(
                f"'{path}' was exported from other weights than the run has now", f"delete it, and run `segctl export {run.path}`"
            )
    scores = card_scores(run, exports)
    with ending_in_order("the push was stopped"), TemporaryDirectory(prefix="segctl-push") as temporary:
        folder = Path(temporary) / "repository"
        folder.mkdir()
        if run.model.name == MODEL_FILE:
            shutil.copyfile(run.model, folder / MODEL_FILE)
        else:  # of version 0.1
            write_saved(folder / MODEL_FILE, saved.run, saved.class_names, saved.weights, saved.pixels)
        shutil.copyfile(run.run_yaml, folder / "run.yaml")
        files = [CardFile(part, (folder / part).stat().st_size) for part in (MODEL_FILE, "run.yaml")]
        for path in exports:
            (folder / "export").mkdir(exist_ok=True)
            for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
                shutil.copyfile(part, folder / "export" / part.name)
                files.append(CardFile(f"export/{part.name}", part.stat().st_size, facts.get(part)))
        write_text(folder / CARD, model_card(name, run, saved, files, scores, request.licence))
        yield folder, tuple(files), tuple(_warnings(request, saved, bool(scores), bool(exports)))


def _warnings(request: PushRequest, saved: SavedModel, scored: bool, exported: bool) -> Iterator[str]:
    if not scored:
        yield f"the card has no scores: run `{command_line('eval', request.run.path)}` first"
    if not exported:
        yield f"there is no exported file: `{command_line('export', request.run.path)}` writes one"
    if request.licence is None:
        yield "the card states no licence, so others may not use the weights: add --license"
    weights = str(saved.model.weights)
    if Path(weights).is_absolute():
        yield f"run.yaml and {MODEL_FILE} name a file of this machine: model.weights is '{weights}'"


def next_line(target: str) -> str:
    """A command that uses the repository."""
    return command_line("predict", target if target.startswith(HUB) else Path(target), "IMAGES...", "-o", "masks")
