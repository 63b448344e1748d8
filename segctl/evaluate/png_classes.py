"""The classes of PNGs from any framework: from a file, those of Cityscapes, or just their number. Needs no torch.

A `.txt` file has one name per line, in the order of ids. `.csv` and `.yaml` files are class tables as for `data prepare
--classes`; their ids need not be 0, 1, 2, ...: in masks of 0 and 255 the foreground has the id 255.
"""

from dataclasses import dataclass
from pathlib import Path

from segctl.data.classes import ClassTable
from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.data.datasets.class_file import read_classes
from segctl.data.datasets.own.label_rule import OwnRule
from segctl.data.files.archives import PlainFile, UnreadableError, decode_text
from segctl.errors import InputError


@dataclass(frozen=True)
class GivenClasses:
    """Names in the order of train ids. table: given if the PNGs hold its raw ids instead of train ids.

    rule: what palettes mean by the class table of a file; None for classes without a table.
    """

    names: tuple[str, ...]
    table: ClassTable | None = None
    binary: bool = False
    rule: OwnRule | None = None


def given_classes(num_classes: int | None, file: Path | None, label_ids: bool) -> GivenClasses:
    """The classes that the options name. Raises InputError where they name none, or two different ones."""
    if file is not None and label_ids:
        raise InputError("--label-ids and --classes both define the ids", "leave one of them out")
    if file is not None:
        found = read_class_file(file)
    elif label_ids:
        found = GivenClasses(tuple(CLASSES.names), CLASSES)
    elif num_classes is not None:
        return GivenClasses(tuple(map(str, range(num_classes))))
    else:
        raise InputError(
            "the number of classes is unknown: --num-classes, --classes and --label-ids are all missing", "add --num-classes N"
        )
    if num_classes not in (None, len(found.names)):
        where = f"'{file}'" if file is not None else "Cityscapes"
        raise InputError(f"--num-classes is {num_classes}, but {where} has {len(found.names)} classes", "leave --num-classes out")
    return found


def read_class_file(path: Path) -> GivenClasses:
    """The classes of a file. Raises InputError naming the file."""
    if path.suffix.lower() in (".csv", ".yaml", ".yml"):
        own = read_classes(path)
        rule = OwnRule(own.ids, own.colors, own.table)
        return GivenClasses(tuple(own.table.names), None if own.ids is None else own.table, own.table.binary, rule)
    try:
        lines = decode_text(PlainFile(str(path), path).read()).splitlines()
    except (OSError, UnreadableError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"cannot read class names from '{path}': {reason}", "write one name per line, in the order of ids"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) < max(2, len(names)):
        raise InputError(
            f"'{path}' has {len(names)} names, {len(set(names))} of them different, wanted at least 2, each once",
            "write one name per line, in the order of ids",
        )
    return GivenClasses(names)
