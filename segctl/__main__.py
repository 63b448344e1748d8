"""`python -m segctl`, the form that launchers start."""

from segctl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
