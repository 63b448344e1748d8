"""The house as a whole: rooms import downwards only, and help never waits for torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import segctl

PACKAGE = Path(segctl.__file__).parent
STEPS = {
    "errors": 0, "commands": 0, "ignored": 0, "files": 1, "schema": 1, "runs": 2, "runtime": 2, "metrics": 2, "data": 3,
    "models": 3, "losses": 3, "programs": 3, "distillers": 4, "evaluate": 5, "teacher": 6, "inference": 6, "train": 7,
    "report": 7, "export": 7, "cli": 8, "__main__": 9,
}  # fmt: skip


def room_of(module: str) -> str | None:
    """`segctl.models.heads` -> `models`; None for the package itself and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "segctl" and len(parts) > 1 else None


def imports_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_rooms_import_from_lower_steps_only() -> None:
    upwards = [
        f"{path.relative_to(PACKAGE)} (step {STEPS[own]}) imports {module} (step {STEPS[room]})"
        for path in sorted(PACKAGE.rglob("*.py"))
        if (own := path.relative_to(PACKAGE).parts[0].removesuffix(".py")) != "__init__"  # the public door imports lazily
        for module in imports_of(path)
        if (room := room_of(module)) in STEPS and room != own and STEPS[room] >= STEPS[own]
    ]
    assert upwards == []


def test_every_room_has_a_step() -> None:
    rooms = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.name not in ("__init__.py", "__pycache__", "presets", "py.typed")
    }
    assert rooms == set(STEPS)


def test_the_command_line_schema_and_report_import_no_torch() -> None:
    code = (
        "import sys, segctl.cli, segctl.schema.load, segctl.report.markdown; print('torch' in sys.modules, 'h5py' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_only_world_checks_which_process_it_is_in() -> None:
    """Other files call `world.on_main` for what only the main process does, or pass `is_main` on."""
    checks = [
        f"{path.name}: {line.strip()}"
        for room in ("runtime", "evaluate", "teacher", "train")
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if path.name != "world.py" and re.search(r"\b(if|while|not|and|or) [\w.]*(is_main|rank == 0)\b", line)
    ]
    assert checks == []
