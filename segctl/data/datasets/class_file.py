"""A person's own class table, from YAML or CSV.

    name,id,color,ignored          classes:                                  binary: true    (YAML only: two classes, of which
    background,0,"0,0,0",          - {name: background, id: 0}                                the second one is scored)
    crack,255,#ff0000,             - {name: crack, id: 255, color: "#ff0000"}
    glare,7,,yes                   - {name: glare, id: 7, ignored: true}

`id` is the value in index maps, `color` the colour in RGB masks; columns `r,g,b` may stand for one `color`. A table without ids
and colours numbers its rows from 0. Train ids follow the order of the ids, or of the rows if there are no ids. The value 255
means ignored unless a row has it as its id.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segctl.data.classes import ClassRow, ClassTable, bit_color
from segctl.data.datasets.pairs import Color, ColorMap, IdMap
from segctl.errors import InputError, did_you_mean
from segctl.files import content_key
from segctl.ignored import IGNORED
from segctl.schema.yaml import load_yaml

KEYS = ["name", "id", "color", "ignored"]
WORDS = {"": False, "no": False, "false": False, "0": False, "none": False, "yes": True, "true": True, "1": True}
WANTED = "write a row for each class, with the columns name, id and color as needed, and ignored for what is not trained"


@dataclass(frozen=True)
class OwnClasses:
    """A class table, and how it reads labels: index maps by `ids`, RGB masks by `colors`; None if the table has none."""

    table: ClassTable
    ids: IdMap | None
    colors: ColorMap | None
    digest: str
    """Hash of everything in the table, for the fingerprint."""


@dataclass(frozen=True)
class _Row:
    name: str
    raw_id: int | None
    color: Color | None
    ignored: bool


def read_classes(path: Path) -> OwnClasses:
    """The classes of a YAML or CSV file. Raises InputError that names the file and the wrong row."""
    entries, binary = _load(path)
    rows = [_row(path, number, entry) for number, entry in enumerate(entries, start=1)]
    _check(path, rows, binary)
    if all(row.raw_id is None and row.color is None for row in rows):
        rows = [_Row(row.name, number, None, row.ignored) for number, row in enumerate(rows)]
    by_id = rows[0].raw_id is not None
    rows = sorted(rows, key=lambda row: row.raw_id or 0) if by_id else rows
    trained = [row for row in rows if not row.ignored]
    train_ids = {row.name: number for number, row in enumerate(trained)}
    table = ClassTable(
        tuple(
            ClassRow(
                row.name, row.raw_id, train_ids.get(row.name, IGNORED), row.color or bit_color(train_ids.get(row.name, -1) + 1)
            )
            for row in rows
        ),
        binary,
    )
    colors = {row.color: train_ids.get(row.name, IGNORED) for row in rows if row.color is not None}
    return OwnClasses(
        table=table,
        ids=IdMap.of(table, f"correct the labels, or the table '{path.name}'", ignored=(IGNORED,)) if by_id else None,
        colors=ColorMap.of(colors, f"correct the masks, or the table '{path.name}'") if colors else None,
        digest=content_key(table.to_json()),
    )


def _load(path: Path) -> tuple[list[Mapping[str, Any]], bool]:
    """The rows as they stand in the file, and whether it is marked as binary."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"the class table '{path}' cannot be read: {reason}", WANTED) from error
    if path.suffix.lower() not in (".yaml", ".yml"):
        return list(csv.DictReader(text.splitlines(), skipinitialspace=True)), False
    try:
        tree = load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"the class table '{path}' is no YAML: {' '.join(str(error).split())}", WANTED) from error
    top = tree if isinstance(tree, dict) else {"classes": tree}
    rows, binary = top.get("classes"), top.get("binary", False)
    for key in top.keys() - {"classes", "binary"}:
        raise InputError(f"the class table '{path}' has the key '{key}'{did_you_mean(str(key), ['classes', 'binary'])}", WANTED)
    if not isinstance(rows, list) or not isinstance(binary, bool):
        raise InputError(f"the class table '{path}' is no list of classes", WANTED)
    return [row if isinstance(row, dict) else {"name": row} for row in rows], binary


def _row(path: Path, number: int, entry: Mapping[str, Any]) -> _Row:
    fields = {str(key or "").strip().lower().replace("colour", "color"): value for key, value in entry.items()}
    for key in fields.keys() - {*KEYS, "r", "g", "b"}:
        raise InputError(
            f"row {number} of '{path}' has a column '{key}'{did_you_mean(key, KEYS)}", f"known are {', '.join(KEYS)}"
        )
    name = str(fields.get("name") or "").strip()
    if not name:
        raise InputError(f"row {number} of '{path}' has no name", WANTED)
    ignored = WORDS.get(str(fields.get("ignored") or "").strip().lower())
    if ignored is None:
        raise InputError(f"row {number} of '{path}' has '{fields['ignored']}' for ignored, wanted yes or no", WANTED)
    raw_id = fields.get("id")
    channels = [fields.get(channel) for channel in "rgb"]
    color = channels if any(channel not in (None, "") for channel in channels) else fields.get("color")
    where = f"row {number} of '{path}' ({name})"
    return _Row(name, None if raw_id in (None, "") else _byte(where, "id", raw_id), _color(where, color), ignored)


def _color(where: str, value: Any) -> Color | None:
    """From "#rrggbb", "r,g,b", "r g b" or a list of three."""
    if value in (None, ""):
        return None
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value.strip()):
        red, green, blue = bytes.fromhex(value.strip()[1:])
        return red, green, blue
    parts = list(value) if isinstance(value, list | tuple) else re.split(r"[,;\s]+", str(value).strip())
    if len(parts) != 3:
        raise InputError(f"{where} has the color '{value}', wanted three values or #rrggbb", WANTED)
    red, green, blue = (_byte(where, "color", part) for part in parts)
    return red, green, blue


def _byte(where: str, what: str, value: Any) -> int:
    text = str(value).strip()
    if not text.isdecimal() or int(text) > 255:
        raise InputError(f"{where} has '{text}' for its {what}, wanted 0 to 255", WANTED)
    return int(text)


def _check(path: Path, rows: list[_Row], binary: bool) -> None:
    trained = [row.name for row in rows if not row.ignored]
    if not trained or len(trained) > IGNORED:
        raise InputError(f"the class table '{path}' has {len(trained)} classes to train, wanted 1 to {IGNORED}", WANTED)
    for what, values in (("name", [row.name for row in rows]), ("id", [row.raw_id for row in rows]), ("color", _colors(rows))):
        present = [value for value in values if value is not None]
        if len(set(present)) != len(present):
            twice = next(value for value in present if present.count(value) > 1)
            raise InputError(f"the class table '{path}' has the {what} {twice!r} twice", WANTED)
        if what != "name" and present and len(present) != len(rows) and not (what == "color" and rows[0].raw_id is not None):
            raise InputError(f"the class table '{path}' has {what}s for {len(present)} of {len(rows)} rows", "give all or none")
    if binary and len(trained) != 2:
        raise InputError(
            f"the class table '{path}' is binary with {len(trained)} classes, wanted background and foreground", WANTED
        )


def _colors(rows: list[_Row]) -> list[Color | None]:
    return [row.color for row in rows]
