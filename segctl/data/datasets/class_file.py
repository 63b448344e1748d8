"""A person's own class table, from YAML, CSV, or a list of names.

    name,id,color,ignored          classes:                                  binary: true    (YAML only: two classes, of which
    background,0,"0,0,0",          - {name: background, id: 0}                                the second one is scored)
    crack,255,#ff0000,             - {name: crack, id: 255, color: "#ff0000"}
    glare,7,,yes                   - {name: glare, id: 7, ignored: true}

`id` is the value in index maps, `color` the colour in RGB masks; columns `r,g,b` may stand for one `color`. A table without ids
and colours numbers its rows from 0. A CSV may be separated by commas, semicolons or tabs, in the encodings of other systems
(Excel's), and may call its columns as other tools do ("Pixel Value, Class"). A `.txt` file without a line of columns has a name
a line, or is CVAT's labelmap.txt (`name:r,g,b:parts:actions`). Train ids follow the order of the ids, or of the rows if there
are not ids. The value 255 means ignored unless a row has it as its id.
"""

import csv
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segctl.data.classes import ClassRow, ClassTable, bit_color
from segctl.data.datasets.pairs import Color, ColorMap, IdMap
from segctl.data.files.archives import PlainFile, UnreadableError, decode_text
from segctl.errors import InputError, did_you_mean
from segctl.files import content_key
from segctl.ignored import IGNORED
from segctl.schema.yaml import load_yaml

KEYS = ["name", "id", "color", "ignored"]
ALIASES = {
    **dict.fromkeys(["class", "class name", "label", "label name"], "name"),
    **dict.fromkeys(["pixel value", "value", "index", "class id", "label id"], "id"),
    **dict.fromkeys(["colour", "rgb", "color rgb"], "color"),
    **{"red": "r", "green": "g", "blue": "b", "ignore": "ignored"},
}
"""What other tools call the columns."""
SEPARATORS = ",;\t"
WORDS = {"": False, "no": False, "false": False, "0": False, "none": False, "yes": True, "true": True, "1": True}
_WANTED = "write a row for each class, with the columns name, id and color as needed, and ignored for what is not trained"


@dataclass(frozen=True)
class OwnClasses:
    """A class table, and how to read labels by it: index maps by `ids`, RGB masks by `colors`; None if the table has none."""

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
        text = decode_text(PlainFile(str(path), path).read())
    except (OSError, UnreadableError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the class table '{path}' cannot be read: {reason}", _WANTED) from error
    if path.suffix.lower() not in (".yaml", ".yml"):
        return _table_rows(path, text), False
    try:
        tree = load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"the class table '{path}' is not valid YAML: {' '.join(str(error).split())}", _WANTED) from error
    top = tree if isinstance(tree, dict) else {"classes": tree}
    rows, binary = top.get("classes"), top.get("binary", False)
    for key in top.keys() - {"classes", "binary"}:
        raise InputError(f"the class table '{path}' has the key '{key}'{did_you_mean(str(key), ['classes', 'binary'])}", _WANTED)
    if not isinstance(binary, bool):
        raise InputError(f"the class table '{path}' has {binary!r} for binary, wanted true or false", _WANTED)
    if not isinstance(rows, list):
        raise InputError(f"the class table '{path}' is not a list of classes", _WANTED)
    return [row if isinstance(row, dict) else {"name": row} for row in rows], binary


def _table_rows(path: Path, text: str) -> list[Mapping[str, Any]]:
    """The rows of a CSV or of a list of names; rows without any text are left out."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    cvat = [re.fullmatch(r"([^:]+):(\d+,\d+,\d+):[^:]*:[^:]*", line) for line in lines if not line.startswith("#")]
    if cvat and all(cvat):
        return [{"name": match[1], "color": match[2]} for match in cvat if match]
    separator = max(SEPARATORS, key=lines[0].count)
    columns = {_column(cell, ()) for cell in lines[0].split(separator)}
    if path.suffix.lower() == ".txt" and "name" not in columns:
        # labelme begins its list with `__ignore__`, which stands for the value 255.
        return [{"name": line} for line in lines if line != "__ignore__"]
    try:
        rows = list(csv.DictReader(io.StringIO(text.strip("\r\n")), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(
            f"the class table '{path}' is not valid CSV: {error}", "look for a quotation mark that is not closed"
        ) from error
    return [row for row in rows if any(_is_text(value) for value in row.values())]


def _is_text(value: Any) -> bool:
    """Whether a cell, or one of the cells beyond the last column, holds more than spaces."""
    return any(map(_is_text, value)) if isinstance(value, list) else bool(str(value or "").strip())


def _column(key: str | None, others: Collection[str]) -> str:
    """The name of a column as this file calls it, unless another column is already called so."""
    plain = " ".join(str(key or "").strip().strip('"').lower().replace("_", " ").split())
    known = ALIASES.get(plain, plain)
    return plain if known != plain and known in others else known


def _row(path: Path, number: int, entry: Mapping[str, Any]) -> _Row:
    given = {str(key or "").strip().lower() for key in entry}
    # Excel leaves empty cells behind the last column.
    fields = {_column(key, given): value for key, value in entry.items() if _column(key, given) or _is_text(value)}
    for key in fields.keys() - {*KEYS, "r", "g", "b"}:
        raise InputError(
            f"row {number} of '{path}' has a column '{key}'{did_you_mean(key, KEYS)}", f"known columns: {', '.join(KEYS)}"
        )
    if isinstance(fields.get("name"), list | dict):
        raise InputError(f"row {number} of '{path}' has {fields['name']!r} for its name, wanted text", _WANTED)
    name = str(fields.get("name") or "").strip()
    if not name:
        raise InputError(f"row {number} of '{path}' has no name", _WANTED)
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise InputError(f"row {number} of '{path}' has a name with a line break or control character: {name!r}", _WANTED)
    ignored = WORDS.get(str(fields.get("ignored") or "").strip().lower())
    if ignored is None:
        raise InputError(f"row {number} of '{path}' has '{fields['ignored']}' for ignored, wanted yes or no", _WANTED)
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
        raise InputError(f"{where} has the color '{value}', wanted three values or #rrggbb", _WANTED)
    red, green, blue = (_byte(where, "color", part) for part in parts)
    return red, green, blue


def _byte(where: str, what: str, value: Any) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"0*[0-9]{1,3}", text) or int(text[-3:]) > 255:
        shown = text if len(text) < 20 else f"{text[:20]}..."
        raise InputError(f"{where} has '{shown}' for its {what}, wanted 0 to 255", _WANTED)
    return int(text)


def _check(path: Path, rows: list[_Row], binary: bool) -> None:
    trained = [row.name for row in rows if not row.ignored]
    if not trained or len(trained) > IGNORED:
        raise InputError(f"the class table '{path}' has {len(trained)} classes to train, wanted 1 to {IGNORED}", _WANTED)
    for what, values in (("name", [row.name for row in rows]), ("id", [row.raw_id for row in rows]), ("color", _colors(rows))):
        present = [value for value in values if value is not None]
        if len(set(present)) != len(present):
            twice = next(value for value in present if present.count(value) > 1)
            raise InputError(f"the class table '{path}' has the {what} {twice!r} twice", _WANTED)
        if what != "name" and present and len(present) != len(rows) and not (what == "color" and rows[0].raw_id is not None):
            raise InputError(f"the class table '{path}' has {what}s for {len(present)} of {len(rows)} rows", "give all or none")
    if binary and len(trained) != 2:
        raise InputError(
            f"the class table '{path}' is binary with {len(trained)} classes, wanted background and foreground", _WANTED
        )


def _colors(rows: list[_Row]) -> list[Color | None]:
    return [row.color for row in rows]
