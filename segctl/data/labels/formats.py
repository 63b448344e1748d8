"""The formats of annotation files, one line each, and the choice among them by what the files hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from segctl.data.files.archives import File
from segctl.data.findings import Finding
from segctl.data.labels import coco, cvat, label_studio, labelme, supervisely, via, yolo
from segctl.data.labels.annotations import AnnotationSet
from segctl.data.labels.documents import ENDINGS, Document, parse
from segctl.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A format of annotation files.

    accepts: whether a document is of this format.  read: adds a document to the set; raises InputError.  is_weak: whether an
    accepted document says nothing without others of its kind.
    """

    title: str
    accepts: Callable[[Document], bool]
    read: Callable[[Document, AnnotationSet], None]
    is_weak: Callable[[Document], bool] = lambda document: False


FORMATS: dict[str, Format] = {
    "coco": Format("COCO", coco.accepts, coco.read),
    "yolo": Format("YOLO", yolo.accepts, yolo.read, yolo.is_weak),
    "labelme": Format("labelme", labelme.accepts, labelme.read),
    "cvat": Format("CVAT for images 1.1", cvat.accepts, cvat.read),
    "label-studio": Format("Label Studio", label_studio.accepts, label_studio.read),
    "supervisely": Format("Supervisely", supervisely.accepts, supervisely.read, supervisely.is_weak),
    "via": Format("VGG Image Annotator", via.accepts, via.read),
}
MASKS, HUGGING_FACE = "masks", "hf"
NAMES = (MASKS, *FORMATS, HUGGING_FACE)
"""What --format may be."""


def check_format(name: str | None) -> None:
    """Raise InputError for a name of no format."""
    if name is not None and name not in NAMES:
        raise InputError(f"--format is '{name}'{did_you_mean(name, list(NAMES))}", f"known are {', '.join(NAMES)}")


def unusable(findings: Sequence[Finding]) -> InputError:
    """The error for annotations of which nothing is left to check: the first problem, and how many more there are."""
    first, others = findings[0], len(findings) - 1
    more = f" (and {others} more problem{'s' * (others > 1)})" if others else ""
    return InputError(first.problem + more, first.hint)


TABLES = (".yaml", ".yml", "meta.json", "classes.txt")
"""How files end that hold names of classes."""


@dataclass
class Annotations:
    """What was found among files: a set for each format, and the files that could not be read."""

    sets: dict[str, AnnotationSet] = field(default_factory=dict)
    unreadable: list[Finding] = field(default_factory=list)


def read_annotations(files: Mapping[str, File], only: str | None = None) -> Annotations:
    """Read every annotation file and sort them by format; files of no format (lists, notes) are left out.

    only: the one format to read.
    """
    found = Annotations()
    wanted = FORMATS if only is None else {only: FORMATS[only]}
    empty: list[tuple[str, Document]] = []
    seen: set[str] = set()
    tables: set[str] = set()
    # Tables of classes come first: the names in a data.yaml are needed to read the lines of a text file.
    for path in sorted(files, key=lambda path: (not path.lower().endswith(TABLES), path)):
        if not path.lower().endswith(ENDINGS):
            continue
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
    into = sets.setdefault(name, AnnotationSet(FORMATS[name].title))
    into.files.append(document.path)
    try:
        FORMATS[name].read(document, into)
    except InputError as error:
        into.problem("", error.message, error.hint)


def choose(found: Annotations, given: str, masks: int, wanted: str | None = None) -> AnnotationSet | None:
    """The annotations in the one format that the files are in; None for masks.

    given: the folder or file in messages.  masks: how many label pictures lie beside.  wanted: the format that a person named.
    Raises InputError if there are two, or none.
    """
    if wanted == MASKS or (masks and not found.sets and wanted is None):
        return None
    options = list(found.sets) if wanted is None else [name for name in found.sets if name == wanted]
    if not options:
        if found.unreadable:
            raise unusable(found.unreadable)
        if wanted is not None:
            problem = f"{given} holds no annotations in the format {FORMATS[wanted].title}"
            raise InputError(problem, "leave out --format to look for others")
        known = ", ".join(kind.title for kind in FORMATS.values())
        raise InputError(f"{given} holds neither label pictures nor annotations of a known format", f"known are {known}")
    if wanted is None and len(options) + bool(masks) > 1:
        words = [f"{FORMATS[name].title} ('{found.sets[name].files[-1]}')" for name in options]
        words += [f"{masks} label pictures"] if masks else []
        options += [MASKS] if masks else []
        raise InputError(
            f"{given} can be read in {len(words)} ways: {', '.join(words)}",
            f"add {' or '.join(f'--format {option}' for option in options)}",
        )
    chosen = found.sets[options[0]]
    chosen.problems += found.unreadable
    return chosen
