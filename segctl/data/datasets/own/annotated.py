"""A person's own images with annotation files (COCO, YOLO, labelme, …): every picture's label map is drawn when it is read."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segctl.data.classes import ClassRow, ClassTable, bit_color
from segctl.data.datasets.class_file import OwnClasses
from segctl.data.datasets.own.names import neutral, path_of, sample_names
from segctl.data.datasets.own.splits import split_samples
from segctl.data.datasets.pairs import sample_images
from segctl.data.datasets.turned import OwnImage, may_be_turned
from segctl.data.files.archives import Files
from segctl.data.files.bands import BandPicture
from segctl.data.files.path_index import PathIndex, leads_outside
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.labels.annotations import AnnotatedPicture, AnnotationSet
from segctl.data.labels.draw import draw_label_map
from segctl.data.source import RawSample, Source
from segctl.errors import InputError
from segctl.files import content_key
from segctl.ignored import IGNORED

if TYPE_CHECKING:
    from segctl.data.datasets.own.given import OwnFiles

BACKGROUND = "background"
BACKGROUND_NAMES = frozenset({BACKGROUND, "_background_"})
IGNORED_NAMES = frozenset({"__ignore__"})
"""labelme's name for regions to leave out."""
UNANNOTATED = (BACKGROUND, "ignore")
"""What pixels under no shape may become."""
RULE = "annotated/1"


@dataclass(frozen=True)
class DrawnLabel:
    """The annotations of one sample. size: (H, W) if the file says it.  unannotated: the train id of pixels under no shape."""

    annotations: AnnotatedPicture
    train_ids: Mapping[str, int]
    unannotated: int

    def size(self) -> tuple[int, int] | None:
        """(H, W) of the picture that the annotations were drawn on, if their file says it."""
        return self.annotations.size

    def check(self, sample: str, size: tuple[int, int]) -> None:
        """Raise InputError if the annotations are of a picture of another size, or a shape lies outside the picture."""
        height, width = size
        found, where = self.annotations, f"'{self.annotations.where}'"
        if found.size is not None and found.size != size:
            turned = " (it was turned)" if found.size == (width, height) else ""
            raise InputError(
                f"the image of sample '{sample}' is {width}×{height} pixels, but {where} was drawn on "
                f"{found.size[1]}×{found.size[0]}{turned}",
                "use the picture that was annotated, in its own size",
            )
        for shape in found.shapes:
            left, top, right, bottom = shape.bounds(height, width)
            if left >= width or top >= height or right <= 0 or bottom <= 0:
                raise InputError(
                    f"a shape of '{shape.class_name}' in {where} lies outside the image of sample '{sample}' ({width}×{height}): "
                    f"x from {left:g} to {right:g}, y from {top:g} to {bottom:g}",
                    "correct it in the tool that drew it, or see that the annotations belong to these pictures",
                )


@dataclass(frozen=True)
class AnnotatedReader:
    """Reads samples that are an image and annotations."""

    images: Mapping[str, Picture | BandPicture | OwnImage]
    labels: dict[str, DrawnLabel]

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) from the image's header. Raises InputError if the annotations do not fit."""
        size = self.images[name].size()
        self.labels[name].check(name, size)
        return size

    def digest(self, name: str) -> str:
        return self._joint(self.images[name].digest(), name)

    def _joint(self, image: str, name: str) -> str:
        return hashlib.sha256(f"{image} {self.labels[name].annotations.digest()}".encode()).hexdigest()

    def read(self, name: str) -> RawSample:
        image, label = self.images[name].decode(), self.labels[name]
        size = (image.array.shape[0], image.array.shape[1])
        label.check(name, size)
        try:
            array, remarks = draw_label_map(label.annotations.shapes, label.train_ids, size, label.unannotated)
        except InputError as error:
            raise InputError(f"sample '{name}' cannot be drawn: {error.message}", error.hint) from error
        return RawSample(
            name=name,
            image=image.array if image.array.ndim == 3 else image.array[..., None].repeat(3, axis=2),
            label=array,
            instance=None,
            source_sha256=self._joint(image.sha256, name),
            source_bytes=len(image.content),
            image_file=image.content if image.mode == "RGB" else None,
            remarks={**remarks, image.remark: 1} if image.remark else remarks,
        )


def open_annotated(
    name: str,
    pictures: Files,
    labels: str,
    found: AnnotationSet,
    *,
    classes: OwnClasses | None,
    own: "OwnFiles",
) -> Source:
    """Pair pictures with what annotation files say about them.

    labels: what the annotations come from, without paths of this machine.  own: what the person gave; where it does not say what
    pixels under no shape become, they are background, but pictures that no annotation file names are refused.
    Raises InputError if the files as a whole do not fit; what is wrong with single samples is in the source's `problems`.
    """
    ignore = own.unannotated == UNANNOTATED[1]
    names = list(found.classes) if found.has_table else sorted(found.classes)
    if flaw := _flaw(found, names, ignore=ignore, has_table=classes is not None):
        # Without classes there is nothing to draw, but a check should list every problem of the files.
        listed = (*found.problems,) if found.problems and not names else (flaw, *found.problems)
        origin = f"annotations from {labels}"
        return Source(name, RULE, origin, DECODER, ClassTable(()), {}, AnnotatedReader({}, {}), problems=listed)
    table, train_ids, problems = (
        _given_classes(found, classes, names, ignore=ignore) if classes else (*_own_classes(found, names, ignore=ignore), [])
    )
    paths, twice = _sample_paths(pictures)
    annotated, unmatched = _match(found, paths)
    problems += [*twice, *unmatched]
    problems += _without_shapes(found, paths, annotated, own.unannotated)
    folders = {sample: neutral(path).rpartition("/")[0] for sample, path in paths.items()}
    drawn = split_samples(folders, own.splits, own.seed, paths)
    empty = IGNORED if ignore else train_ids[BACKGROUND]
    blank = {sample: AnnotatedPicture((path,), path) for sample, path in paths.items() if sample not in annotated}
    every = {**annotated, **blank}
    samples = sorted({sample for listed in drawn.splits.values() for sample in listed})
    images, scaling, scaled = sample_images(
        {sample: pictures.members[paths[sample]] for sample in samples}, drawn.splits, own.bands
    )
    labels_of = {sample: DrawnLabel(every[sample], train_ids, empty) for sample in samples}
    background = "ignore" if ignore else BACKGROUND
    return Source(
        name=name,
        rule=" ".join([RULE, background, content_key(table.to_json()), *([] if scaling is None else [scaling.rule])]),
        origin=f"images from {pictures.names}, {found.title} annotations from {labels}, {table.num_classes} classes",
        decoder=DECODER,
        classes=table,
        splits=drawn.splits,
        samples=AnnotatedReader(
            images=may_be_turned(images, labels_of, is_map=False),
            labels=labels_of,
        ),
        notes=(*scaled, *pictures.notes, *_notes(found, every, ignore=ignore), *drawn.notes),
        label_advice="correct the annotations or the class table",
        problems=(*found.problems, *problems, *drawn.problems),
        pixels=scaling,
    )


def _notes(found: AnnotationSet, every: Mapping[str, AnnotatedPicture], *, ignore: bool) -> list[str]:
    """What was read, by which rules it is drawn, and what is left out, in sentences."""
    shapes = sum(len(picture.shapes) for picture in found.pictures)
    empty = sum(not picture.shapes for picture in every.values())
    files = f"'{found.files[0]}'" if len(found.files) == 1 else f"{len(found.files)} files"
    ordered = any(shape.order > 0 for picture in found.pictures for shape in picture.shapes)
    first = "shapes are drawn by z_order, larger ones first among equals" if ordered else "larger shapes are drawn first"
    rules = [
        f"labels are {found.title} annotations ({files}): {shapes} shapes on {len(found.pictures)} pictures",
        f"{first}; a pixel belongs to a shape that its centre lies in; pixels under no shape are "
        + ("ignored" if ignore else BACKGROUND),
        *found.rules,
        *found.notes,
    ]
    if found.skipped:
        rules.append("not drawn: " + ", ".join(f"{count} {kind}" for kind, count in sorted(found.skipped.items())))
    if empty:
        rules.append(f"{empty} picture{'s have' if empty > 1 else ' has'} no shape and show{'s' * (empty == 1)} background alone")
    return rules


def _flaw(found: AnnotationSet, names: list[str], *, ignore: bool, has_table: bool) -> Finding | None:
    """Why no class table can be made of the names of the annotations; None if one can, or if a person gave one."""
    folded = Counter(name.casefold() for name in names)
    if twice := [name for name in names if folded[name.casefold()] > 1]:
        shown = ", ".join(f"'{name}'" for name in twice[:4])
        return Finding("", f"the classes {shown} differ only in capital letters", "give them one name in the tool that drew them")
    if has_table:
        return None
    count = len(_trained(names, ignore=ignore))
    if count > IGNORED:
        return Finding("", f"the annotations have {count} classes, wanted at most {IGNORED}", "give a class table with --classes")
    if count < 2 - ignore:
        what = "the annotations name no class" + (" but the background" if names else "")
        return Finding("", what, "draw regions of at least one class")
    return None


def _background(names: list[str]) -> str:
    """What the class of pixels under no shape is called."""
    return next((name for name in names if name.casefold() in BACKGROUND_NAMES), BACKGROUND)


def _trained(names: list[str], *, ignore: bool) -> list[str]:
    """The names of the trained classes in their order."""
    trained = [name for name in names if name not in IGNORED_NAMES]
    background = _background(names)
    return trained if ignore else [background, *(name for name in trained if name != background)]


def _own_classes(found: AnnotationSet, names: list[str], *, ignore: bool) -> tuple[ClassTable, dict[str, int]]:
    """The class table, and the train id of each class that the annotations name; without `ignore` also of BACKGROUND."""
    ids = {name: number for number, name in enumerate(_trained(names, ignore=ignore))}
    shift = int(ignore)  # the palette begins with black, which is the background's
    rows = [ClassRow(name, None, ids[name], found.classes.get(name) or bit_color(ids[name] + shift)) for name in ids]
    rows += [ClassRow(name, None, IGNORED, (0, 0, 0)) for name in names if name in IGNORED_NAMES]
    train_ids = {name: ids.get(name, IGNORED) for name in names}
    return ClassTable(tuple(rows)), train_ids if ignore else {**train_ids, BACKGROUND: 0}


def _given_classes(
    found: AnnotationSet, given: OwnClasses, names: list[str], *, ignore: bool
) -> tuple[ClassTable, dict[str, int], list[Finding]]:
    """The same by a person's class table, whose rows are found by name, capital letters aside; and what does not fit."""
    rows = {row.name.casefold(): row.train_id for row in given.table.rows}
    used = Counter(shape.class_name for picture in found.pictures for shape in picture.shapes)
    train_ids, problems = {}, []
    for name in names:
        if (known := rows.get(name.casefold())) is not None:
            train_ids[name] = known
        elif name in IGNORED_NAMES or not used[name]:
            train_ids[name] = IGNORED
        else:
            problem = f"the annotations hold {used[name]} shapes of '{name}', which the class table does not name"
            problems.append(Finding("", problem, "add a row for it; with `ignored` set if it should not be trained"))
            train_ids[name] = IGNORED
    background = next((rows[name] for name in sorted(BACKGROUND_NAMES) if name in rows), None)
    if not ignore and background is None:
        raise InputError(
            "the class table has no row 'background', which pixels under no shape would become",
            "add the row, or leave such pixels out with `--unannotated ignore`",
        )
    table = replace(given.table, rows=tuple(replace(row, raw_id=None) for row in given.table.rows))
    return table, train_ids if background is None else {**train_ids, BACKGROUND: background}, problems


def _sample_paths(pictures: Files) -> tuple[dict[str, str], list[Finding]]:
    """The path of each sample's picture, and a finding for each that has the name of another, endings apart."""
    keys: dict[str, str] = {}
    twice = []
    for path in pictures.members:
        key = path_of(neutral(path))
        if key in keys:
            problem = f"sample '{key}' occurs twice, as '{keys[key]}' and '{path}'"
            twice.append(Finding(key, problem, "rename one of them, or remove it"))
        keys.setdefault(key, path)
    names = sample_names(list(keys))
    return {names[key]: path for key, path in keys.items()}, twice


def _match(found: AnnotationSet, paths: Mapping[str, str]) -> tuple[dict[str, AnnotatedPicture], list[Finding]]:
    """What the annotations say about each sample, and a finding for whatever belongs to none or to several."""
    as_given, bare = PathIndex(paths), PathIndex({sample: neutral(path) for sample, path in paths.items()})
    exact = {path: sample for sample, path in paths.items()}
    annotated: dict[str, AnnotatedPicture] = {}
    problems = []
    for picture in found.pictures:
        where = f"'{picture.where}'"
        if any(map(leads_outside, picture.names)):
            problem = f"{where} names the picture '{picture.called}', a path that leads outside the folder of the images"
            problems.append(Finding("", problem, "write paths below the folder that --images gives"))
            continue
        candidates = next((hits for hits in _hits(picture.names, exact, as_given, bare) if hits), [])
        if len(candidates) > 1:
            several = ", ".join(f"'{paths[name]}'" for name in candidates[:3])
            problem = f"{where} names the picture '{picture.names[-1]}', which may be {len(candidates)} pictures: {several}"
            problems.append(Finding("", problem, "write the paths of the pictures below the folder that --images gives"))
        elif not candidates:
            problem = f"{where} annotates the picture '{picture.names[-1]}', which is not there"
            problems.append(Finding("", problem, "add the picture, or take its annotations out"))
        elif candidates[0] in annotated:
            problem = f"sample '{candidates[0]}' is annotated twice, in '{annotated[candidates[0]].where}' and in {where}"
            problems.append(Finding(candidates[0], problem, "keep one of them"))
        else:
            annotated[candidates[0]] = picture
    return annotated, problems


def _hits(names: Iterable[str], exact: Mapping[str, str], as_given: PathIndex, bare: PathIndex) -> Iterable[list[str]]:
    """The samples that the names may mean, the surest way first."""
    for name in names:
        yield [exact[name]] if name in exact else []
    for name in names:
        yield bare.find(neutral(name))
        yield as_given.find(name)


def _without_shapes(
    found: AnnotationSet, paths: Mapping[str, str], annotated: Mapping[str, AnnotatedPicture], unannotated: str | None
) -> list[Finding]:
    """Findings for pictures that would become wholly ignored, or wholly background without having been looked at."""
    problems = []
    for sample, path in paths.items():
        if sample not in annotated and found.lists_all and unannotated is None:
            problem = f"no annotation file names the picture '{path}'"
            hint = "annotate it, move it away, or take such pictures as background with `--unannotated background`"
            problems.append(Finding(sample, problem, hint))
        elif unannotated == UNANNOTATED[1] and not (sample in annotated and annotated[sample].shapes):
            problem = f"the picture '{path}' has no annotation, so `--unannotated ignore` leaves nothing of it"
            problems.append(Finding(sample, problem, "annotate it, or move it away"))
    return problems
