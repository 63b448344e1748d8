"""The house as a whole: rooms import downwards only, and help never waits for torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import segctl

PACKAGE = Path(segctl.__file__).parent
STEPS = {
    "errors": 0, "commands": 0, "ignored": 0, "files": 1, "pixel_types": 1, "schema": 1, "runs": 2, "runtime": 2, "metrics": 2,
    "data": 3, "models": 3, "losses": 3, "programs": 3, "distillers": 4, "evaluate": 5, "teacher": 6, "inference": 6, "train": 7,
    "report": 7, "export": 7, "bench": 7, "cli": 8, "__main__": 9,
}  # fmt: skip


DATASET_NAMES = {"CLASSES", "LAYOUT"}
"""Every file in data/datasets/ that opens a dataset may have its own; docs/add-a-dataset.md says what they are."""
ENTRY_POINTS = {
    "main": {"__main__.py", "cli/__init__.py"},
    "load": {"inference/network.py", "models/build.py"},  # segctl.load takes pictures, segctl.models.load gives the module
}


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


def test_the_command_line_schema_report_and_measuring_import_no_torch() -> None:
    rooms = "segctl.cli, segctl.schema.load, segctl.report.markdown, segctl.bench.measure"
    code = f"import sys, {rooms}; print('torch' in sys.modules, 'h5py' in sys.modules)"
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


def test_pictures_and_arrays_are_read_in_one_place_each() -> None:
    """Files from strangers: pictures.py judges every picture, and files.py reads npz files without unpickling."""
    homes = {r"\bImage\.open\(": {"data/files/pictures.py"}, r"\bnp\.load\(": {"files.py", "data/files/numbers.py"}}
    for call, allowed in homes.items():
        found = {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and re.match(call, ast.unparse(node))
        }
        assert found == allowed


def public_names_of(path: Path) -> set[str]:
    """Functions, classes and constants of a module without a leading underscore; type variables are not names to look for."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(value=ast.Call(func=ast.Name("TypeVar"))):
                pass
            case ast.Assign(targets=targets):
                found |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return {name for name in found if not name.startswith("_")}


def test_a_public_name_means_one_thing() -> None:
    files: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for name in public_names_of(path):
            if not (name in DATASET_NAMES and file.startswith("data/datasets/")):
                files.setdefault(name, set()).add(file)
    shared = {name: places for name, places in files.items() if len(places) > 1 and ENTRY_POINTS.get(name) != places}
    assert shared == {}, "give one of them another name, a leading underscore, or import it from one home"


def test_public_names_are_found_in_every_form_of_assignment(tmp_path: Path) -> None:
    text = (
        "from os import path\nA, (B, _C) = 1, (2, 3)\nD: int = 4\nE = F = 5\nT = TypeVar('T')\ndef g(): H = 1\nclass I: j = 1\n"
    )
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert public_names_of(tmp_path / "a.py") == {"A", "B", "D", "E", "F", "g", "I"}


ARRAY = re.compile(r"\b(Tensor|NDArray|ndarray)\b")
SHAPE = re.compile(r"\((\*?\d+|\*?[A-Z][A-Za-z]*'?|[a-z]|\.\.\.)( [+-] \w+)?(,|·|\))|\bshape|\bscalar")
"""`(B, C, h, w)`, `(n,)`, `(...)`, `any shape`, `scalar`."""


def functions_without_shapes(text: str) -> list[str]:
    """Public functions and methods that take an array and name no shape in their docstring, or `forward` in its class's."""
    found = []

    def visit(node: ast.AST, outer: str) -> None:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.ClassDef):
                visit(inner, ast.get_docstring(inner) or "")
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                taken = [ast.unparse(arg.annotation) for arg in (*inner.args.args, *inner.args.kwonlyargs) if arg.annotation]
                takes = any(ARRAY.search(kind) and "Callable" not in kind for kind in taken)
                said = (ast.get_docstring(inner) or "") + (outer if inner.name == "forward" else "")
                if takes and not SHAPE.search(said) and "overload" not in map(ast.unparse, inner.decorator_list):
                    found.append(inner.name)

    visit(ast.parse(text), "")
    return found


def test_a_function_that_takes_arrays_names_their_shapes() -> None:
    missing = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if (names := functions_without_shapes(path.read_text(encoding="utf-8")))
    }
    assert missing == {}


def test_a_docstring_without_a_shape_is_found() -> None:
    text = (
        "class A:\n  'maps (B, D, h, w)'\n  def forward(self, x: Tensor): ...\n  def other(self, x: 'Tensor'): 'Half of x.'\n"
        "def f(*, x: NDArray[Any]): 'ids (n,)'\n"
        "def g(x: np.ndarray): 'of any shape'\n"
        "def h(x: np.ndarray): 'counts (pixels)'\n"
    )
    assert functions_without_shapes(text) == ["other", "h"]
