"""The command lines that segctl prints for a person to type next."""

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path

DATA_ROOT, RUNS_ROOT = Path("data"), Path("runs")
DATA_VARIABLE, RUNS_VARIABLE = "SEGCTL_DATA", "SEGCTL_RUNS"


ROOT_FILE = "root.json"
"""The file that makes a folder stand for a URL: see `segctl.data.files.remote`."""


def url_of(root: Path) -> str | None:
    """The URL that a data root stands for; None for a folder of datasets."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads((root / ROOT_FILE).read_text(encoding="utf-8"))["url"])
    return None


def command_line(*arguments: str | Path, data_root: Path | None = None, runs_root: Path | None = None) -> str:
    """`segctl` with these arguments, quoted for a shell.

    A root is added where the command would not find it by itself; None is for a command that has no such option, or where
    the root is not known.
    """
    words = ["segctl", *map(str, arguments)]
    for option, root, default, variable in (
        ("--data-root", data_root, DATA_ROOT, DATA_VARIABLE),
        ("--runs-root", runs_root, RUNS_ROOT, RUNS_VARIABLE),
    ):
        # Even if the variable is set, the option is printed: the next shell may not have it.
        if root is not None and (root != default or os.environ.get(variable)):
            words += [option, url_of(root) or str(root)]
    return shlex.join(words)
