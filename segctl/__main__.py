"""`segctl`, and `python -m segctl`, the form that launchers start."""

import sys


def main() -> int:
    """Run the command line. Ctrl-C while it is still being imported ends like any later one: exit code 130, no traceback."""
    try:
        from segctl.cli import main as run

        code = run()
    except KeyboardInterrupt:
        return 130
    # A command that needs no torch has not loaded this file, and loading it would take seconds.
    world = sys.modules.get("segctl.runtime.world")
    if world is not None and world.under_launcher():
        world.end_process(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
