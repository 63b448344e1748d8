"""Names of classes for predictions of any framework: from a file, from Cityscapes, or just their ids. Needs no torch.

A file is one of
    names.txt     a name a line, in the order of ids
    classes.csv   with a column `name`, and if ids are not in the order of rows, `id`; rows whose `ignored` is true are left out
    classes.yaml  a list of names, or of rows with the same keys, alone or under `classes` beside `binary: true`
"""

import csv
from pathlib import Path
from typing import Any

import yaml

from segctl.data.sources.cityscapes_classes import CLASSES
from segctl.errors import InputError
from segctl.schema.strict_yaml import load_yaml

FORMS = "a name a line (.txt), a column `name` (.csv), or a list (.yaml)"


def name_classes(num_classes: int | None, file: Path | None, label_ids: bool) -> tuple[tuple[str, ...], bool]:
    """Names of the classes in the order of their ids, and whether they are marked binary. Raises InputError."""
    if file is not None:
        names, binary = read_class_names(file)
    elif label_ids:
        names, binary = tuple(CLASSES.names), False
    elif num_classes is not None:
        return tuple(map(str, range(num_classes))), False
    else:
        raise InputError("how many classes are there? none of --num-classes, --classes and --label-ids is given", "give one")
    if num_classes not in (None, len(names)):
        where = f"'{file}'" if file is not None else "Cityscapes"
        raise InputError(f"--num-classes is {num_classes}, but {where} has {len(names)} classes", "leave --num-classes out")
    return names, binary


def read_class_names(path: Path) -> tuple[tuple[str, ...], bool]:
    """The names in a file, and its binary mark."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read --classes '{path}': {error}", f"give {FORMS}") from error
    binary = False
    match path.suffix.lower():
        case ".yaml" | ".yml":
            rows, binary = _yaml_rows(text, path)
        case ".csv":
            rows = list(csv.DictReader(text.splitlines()))
        case _:
            rows = [line.strip() for line in text.splitlines() if line.strip()]
    names = _in_order([_row(row, path) for row in rows], path)
    if len(names) < 2 or len(set(names)) < len(names):
        fault = f"holds {len(names)} classes, wanted at least 2" if len(names) < 2 else "names a class twice"
        raise InputError(f"--classes '{path}' {fault}", f"give {FORMS}")
    return names, binary


def _yaml_rows(text: str, path: Path) -> tuple[list[Any], bool]:
    try:
        tree = load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"--classes '{path}' is not valid YAML: {getattr(error, 'problem', error)}") from error
    rows = tree.get("classes") if isinstance(tree, dict) else tree
    if not isinstance(rows, list):
        raise InputError(f"--classes '{path}' holds no list of classes", f"give {FORMS}")
    return rows, bool(isinstance(tree, dict) and tree.get("binary"))


def _row(row: Any, path: Path) -> tuple[str, int | None] | None:
    """(name, id) of a class; None for one that is ignored."""
    if isinstance(row, dict) and row.get("name"):
        if str(row.get("ignored") or "").lower() in ("true", "yes", "1"):
            return None
        index = row.get("id")
        return str(row["name"]), None if index in (None, "") else int(index)
    if isinstance(row, str | int) and not isinstance(row, bool):
        return str(row), None
    raise InputError(f"--classes '{path}' holds {row!r}, wanted a class with a name", f"give {FORMS}")


def _in_order(rows: list[tuple[str, int | None] | None], path: Path) -> tuple[str, ...]:
    kept = [row for row in rows if row is not None]
    ids = [index for _, index in kept if index is not None]
    if not ids:
        return tuple(name for name, _ in kept)
    if sorted(ids) != list(range(len(kept))):
        raise InputError(
            f"--classes '{path}' has the ids {', '.join(map(str, sorted(ids)))}, wanted 0 to {len(kept) - 1}, each once",
            "the PNGs must hold ids from 0 without gaps, and 255 for ignored pixels",
        )
    return tuple(name for name, _ in sorted(kept, key=lambda row: row[1] or 0))
