"""`segctl`, and `python -m segctl`, the form that launchers start."""


def main() -> int:
    """Run the command line. Ctrl-C while it is still being imported ends like any later one: exit code 130, no traceback."""
    try:
        from segctl.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
