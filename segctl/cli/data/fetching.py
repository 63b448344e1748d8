"""Downloads a dataset's archives before it is prepared, with the person's own account if one is needed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segctl.cli.output import out
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.data.download.catalog import RemoteFile
    from segctl.data.download.cityscapes_site import Account


def fetch_archives(
    name: str, data_root: Path, release: str | None, *, files: "Sequence[RemoteFile] | None" = None, site: str | None = None
) -> list[Path]:
    """Download a dataset's archives into `<data_root>/downloads`; the paths, none for a dataset that is not downloaded.

    files, site: use these instead of the official ones.
    """
    from segctl.data.download.catalog import remote_files
    from segctl.data.download.cityscapes_site import SITE, open_site
    from segctl.data.download.http import download, downloads_folder, plain_transfer

    files = remote_files(name, release) if files is None else files
    with out.transfer() as progress:
        transfer = plain_transfer(progress)
        if name == "cityscapes":
            folder = downloads_folder(data_root)
            if here := _packages_here(folder):
                return here
            files, transfer = open_site(ask_account(), progress, site=site or SITE)
        if not files:
            return []
        out.note(f"downloading {', '.join(file.name for file in files)} to '{downloads_folder(data_root)}', where they stay")
        return download(files, downloads_folder(data_root), transfer)


def _packages_here(folder: Path) -> list[Path]:
    """The Cityscapes packages if all were downloaded before, so that nobody has to log in again; else none."""
    from segctl.data.download.cityscapes_site import PACKAGES

    paths = [folder / package for package in PACKAGES]
    return paths if all(path.is_file() for path in paths) else []


def ask_account() -> "Account":
    """The person's own Cityscapes account, from the environment or typed in. It is stored nowhere."""
    from segctl.data.download.cityscapes_site import Account

    username, password = (os.environ.get(f"CITYSCAPES_{what}") for what in ("USERNAME", "PASSWORD"))
    if username and password:
        return Account(username, password)
    if not sys.stdin.isatty():
        raise InputError(
            "Cityscapes is downloaded with your own account, and there is no terminal to ask for it",
            "set CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD, or give the zips with --source",
        )
    out.note("Cityscapes is downloaded with your own account of www.cityscapes-dataset.com, which is stored nowhere")
    username = username or typer.prompt("user name", err=True)
    return Account(str(username), str(typer.prompt("password", hide_input=True, err=True)))
