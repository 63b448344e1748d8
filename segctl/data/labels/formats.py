"""The formats of annotation files, one line each, and the choice among them by what the files hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from segctl.data.files.archives import File
from segctl.data.findings import Finding
from segctl.data.labels.annotations import AnnotationSet
from segctl.data.labels.coco import COCO
from segctl.data.labels.cvat import CVAT
from segctl.data.labels.documents import ENDINGS, Document, parse
from segctl.data.labels.format import Format
from segctl.data.labels.label_studio import LABEL_STUDIO
from segctl.data.labels.labelme import LABELME
from segctl.data.labels.supervisely import SUPERVISELY
from segctl.data.labels.via import VIA
from segctl.data.labels.yolo import YOLO
from segctl.errors import InputError, did_you_mean

ANNOTATION_FORMATS: dict[str, Format] = {
    "coco": COCO,
    "yolo": YOLO,
    "labelme": LABELME,
    "cvat": CVAT,
    "label-studio": LABEL_STUDIO,
    "supervisely": SUPERVISELY,
    "via": VIA,
}
MASKS, HUGGING_FACE = "masks", "hf"
NAMES = (MASKS, *ANNOTATION_FORMATS, HUGGING_FACE)
"""What --format may be."""


def check_format(name: str | None) -> None:
    """Raise InputError for a name of no format."""
    if name is not None and name not in NAMES:
        raise InputError(f"--format is '{name}'{did_you_mean(name, list(NAMES))}", f"use one of {', '.join(NAMES)}")


TABLES = (".yaml", ".yml", "meta.json", "classes.txt")
"""How files end that hold names of classes."""


@dataclass
class Annotations:
    """What was found among files: a set for each format, and the files that could not be read."""

    sets: dict[str, AnnotationSet] = field(default_factory=dict)
    unreadable: list[Finding] = field(default_factory=list)


def read_annotations(files: Mapping[str, File], only: str | None = None, *, patience: int | None = None) -> Annotations:
    """Read every annotation file and sort them by format; files of no format (lists, notes) are left out.

    only: the one format to read.  patience: give up after this many files if none of them is of a known format.
    """
    found = Annotations()
    wanted = ANNOTATION_FORMATS if only is None else {only: ANNOTATION_FORMATS[only]}
    empty: list[tuple[str, Document]] = []
    looked = 0
    seen: set[str] = set()
    tables: set[str] = set()
    # Tables of classes come first: the names in a data.yaml are needed to read the lines of a text file.
    for path in sorted(files, key=lambda path: (not path.lower().endswith(TABLES), path)):
        if not path.lower().endswith(ENDINGS):
            continue
        if looked == patience and not found.sets and not empty:
            break
        looked += 1
        try:
            document = parse(path, files[path])
        except InputError as error:
            found.unreadable.append(Finding("", error.message, error.hint))
            continue
        for name, kind in wanted.items():
            if not kind.accepts(document):
                continue
            if not kind.is_weak(document):
                seen.add(name)
            elif document.tree:
                tables.add(name)
            else:
                empty.append((name, document))
                break
            _read(found.sets, name, document)
            break
    for name, document in empty:
        if name in seen | tables or name == only:
            seen.add(name)
            _read(found.sets, name, document)
    found.sets = {name: annotations for name, annotations in found.sets.items() if name in seen}
    return found


def _read(sets: dict[str, AnnotationSet], name: str, document: Document) -> None:
    into = sets.setdefault(name, AnnotationSet(ANNOTATION_FORMATS[name].title))
    into.files.append(document.path)
    try:
        ANNOTATION_FORMATS[name].read(document, into)
    except InputError as error:
        into.problem("", error.message, error.hint)


def choose(found: Annotations, given: str, masks: int, wanted: str | None = None) -> AnnotationSet | None:
    """The annotations in the one format that the files are in; None for masks.

    given: the folder or file in messages.  masks: how many label pictures lie beside.  wanted: the format that a person named.
    Where no file can be read, the set holds nothing but these problems. Raises InputError if there are two formats, or none.
    """
    if wanted == MASKS or (masks and not found.sets and wanted is None):
        return None
    options = list(found.sets) if wanted is None else [name for name in found.sets if name == wanted]
    if not options:
        if found.unreadable:
            return AnnotationSet("unreadable", problems=found.unreadable)
        if wanted is not None:
            problem = f"{given} holds no annotations in the format {ANNOTATION_FORMATS[wanted].title}"
            raise InputError(problem, "leave out --format to look for others")
        known = ", ".join(kind.title for kind in ANNOTATION_FORMATS.values())
        raise InputError(f"{given} holds neither label pictures nor annotations of a known format", f"known formats: {known}")
    if wanted is None and len(options) + bool(masks) > 1:
        words = [f"{ANNOTATION_FORMATS[name].title} ('{found.sets[name].files[-1]}')" for name in options]
        words += [f"{masks} label pictures"] if masks else []
        options += [MASKS] if masks else []
        raise InputError(
            f"{given} can be read in {len(words)} ways: {', '.join(words)}",
            f"add {' or '.join(f'--format {option}' for option in options)}",
        )
    chosen = found.sets[options[0]]
    chosen.problems += found.unreadable
    return chosen
