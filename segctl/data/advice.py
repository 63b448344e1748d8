"""What messages about datasets tell a person to type."""

from pathlib import Path

from segctl.commands import command_line
from segctl.data.datasets import KNOWN, OWN_LINE, near_known, unknown_dataset
from segctl.errors import InputError, did_you_mean


def prepare_line(name: str, data_root: Path | None = None) -> str:
    """The command that prepares a dataset in the data root."""
    what = OWN_LINE.split() if name not in KNOWN else ["--source", "FOLDER"] if KNOWN[name].needs_source else []
    return command_line("data", "prepare", name, *what, data_root=data_root)


def prepare_again(name: str, data_root: Path) -> str:
    """The hint for a prepared dataset that is damaged."""
    return f"run `{prepare_line(name, data_root)}` again"


def check_line(folder: Path) -> str:
    """The command that checks the prepared dataset in `folder`."""
    return command_line("data", "check", folder.name, data_root=folder.parent)


def not_prepared(name: str, data_root: Path, here: list[str]) -> InputError:
    """The error for a dataset that is not in the data root; `here` are the datasets that are."""
    if name in KNOWN:
        return InputError(f"dataset '{name}' is not prepared in '{data_root}'", f"run `{prepare_line(name, data_root)}`")
    if close := did_you_mean(name, here):
        return InputError(f"there is no dataset called '{name}' in '{data_root}'{close}", f"it holds {', '.join(here)}")
    if near_known(name):
        return unknown_dataset(name)
    held = f"it holds {', '.join(here)}; " if here else ""
    return InputError(
        f"there is no dataset called '{name}' in '{data_root}'",
        f"{held}`{prepare_line(name, data_root)}` packs your own pictures",
    )
