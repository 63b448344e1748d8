"""Run a program as `python` would, on the pretend device: python tests/device/launch.py GUARD (-m MODULE | -c CODE | FILE) …

GUARD is the library that `there.build_guard` made. The program finds a CUDA GPU, its own name as `__main__`, and its arguments.
Processes that it starts have no device, but for those that it forks.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    _, guard, how, *rest = sys.argv
    root = str(Path(__file__).parents[2])
    sys.path[0] = root  # was this file's folder, whose modules have common names
    from tests.device import pretend

    pretend.install(Path(guard))
    if how == "-m":
        sys.argv = rest
        sys.path.insert(0, "")  # where `python -m` looks first
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [how, *rest]
        sys.path.insert(0, str(Path(how).parent))
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    main()
