"""The command lines that segctl prints for a person to type next."""

import os
import shlex
from pathlib import Path

DATA_ROOT, RUNS_ROOT = Path("data"), Path("runs")
DATA_VARIABLE, RUNS_VARIABLE = "SEGCTL_DATA", "SEGCTL_RUNS"


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
        # The variable is no reason to leave the option out: the next shell may not have it.
        if root is not None and (root != default or os.environ.get(variable)):
            words += [option, str(root)]
    return shlex.join(words)
