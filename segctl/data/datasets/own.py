"""A person's own images and labels: a folder, archive or pattern of each. Annotation files are opened by `annotated.py`.

Label maps need a class table. An image and its label have the same path below their folders, apart from endings; if the folders
differ, the same name is enough, and then a name with a suffix (`a_mask.png`). Both may lie in one folder, if names or endings
tell them apart. Index maps (grey, palette, black and white) are read by the table's ids, RGB masks by its colours; a table of
colours alone reads every label by its colours.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segctl.data.classes import ClassTable
from segctl.data.datasets import OWN_LINE
from segctl.data.datasets.annotated import UNLABELLED, open_annotated
from segctl.data.datasets.class_file import OwnClasses, read_classes
from segctl.data.datasets.own_names import (
    IMAGE_ENDINGS,
    IMAGE_FOLDERS,
    INSTANCE_SUFFIXES,
    LABEL_ENDINGS,
    LABEL_FOLDERS,
    LABEL_SUFFIXES,
    LOSSY_ENDINGS,
    NAME_KEYS,
    Key,
    bare_path,
    in_folder_called,
    name_of,
    neutral,
    only,
    path_of,
    place_of,
    sample_names,
    suffix_keys,
    without,
)
from segctl.data.datasets.own_splits import split_samples
from segctl.data.datasets.pairs import (
    ColorMap,
    IdMap,
    Label,
    NumberedInstances,
    PairReader,
    PictureFile,
    Unknown,
    by_sample,
    pair,
    sample_images,
)
from segctl.data.files.archives import File, Files, PlainFile
from segctl.data.files.bands import DEEP_ENDINGS, BandChoice
from segctl.data.files.patterns import as_pattern, list_files
from segctl.data.files.pictures import DECODER, Decoded, Picture
from segctl.data.findings import Finding
from segctl.data.labels import huggingface
from segctl.data.labels.documents import ENDINGS
from segctl.data.labels.formats import HUGGING_FACE, MASKS, check_format, choose, read_annotations
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.files import real_path
from segctl.ignored import IGNORED

MAX_STRANGERS = 50
"""How many files of no known format to read beside label maps before they are taken for what they are."""
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))})
"""Names that no file or folder can have on Windows."""


@dataclass(frozen=True)
class OwnFiles:
    """What a person gave: folders, archives, patterns or annotation files, and how to read them.

    classes: a class table; annotation files can do without.  splits: texts such as "val=0.2" or "val=val.txt".  seed: for ratios.
    format: one of `labels.formats.NAMES`, None to look at the files.  unlabelled: what pixels under no shape become, one of
    `annotated.UNLABELLED` or None.  label_suffix: what follows the name of a picture in that of its label.
    instances: a folder of instance maps (see `instance_ids.py`), for the segments that mIoU_K scores.
    bands: which bands of the pictures to take and how to scale them; None for 8-bit colour or grey.
    """

    images: Path
    labels: Path
    classes: Path | None = None
    splits: tuple[str, ...] = ()
    seed: int = 0
    instances: Path | None = None
    format: str | None = None
    unlabelled: str | None = None
    label_suffix: str | None = None
    bands: BandChoice | None = None


def own_files(
    images: Path | None,
    labels: Path | None,
    classes: Path | None,
    splits: tuple[str, ...],
    seed: int,
    instances: Path | None = None,
    bands: BandChoice | None = None,
    **how: str | None,
) -> OwnFiles | None:
    """A person's own data from the options; None if none of them was given. Raises InputError if some are missing.

    how: `format`, `unlabelled` and `label_suffix` of OwnFiles.
    """
    if images is None and labels is None and classes is None:
        given = {"--split": splits[0] if splits else None, **{f"--{key.replace('_', '-')}": value for key, value in how.items()}}
        if option := next((option for option, value in given.items() if value is not None), None):
            what = "has its own splits" if option == "--split" else "is not read in this way"
            raise InputError(f"{option} is '{given[option]}', but a published dataset {what}", f"it goes with {OWN_LINE}")
        if instances is not None:
            raise InputError(f"--instances is '{instances}', but a published dataset has its own", f"it goes with {OWN_LINE}")
        if bands is not None:
            raise InputError(
                "--bands and --range are for your own images, not for a published dataset", f"they go with {OWN_LINE}"
            )
        return None
    if images is not None and labels is None and huggingface.is_saved(images):
        labels = images  # one folder holds both
    if images is None or labels is None:
        missing = [option for option, value in (("--images", images), ("--labels", labels)) if value is None]
        raise InputError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            "give --images DIR --labels DIR; label maps need --classes FILE too, annotation files do not",
        )
    return OwnFiles(images, labels, classes, splits, seed, instances, bands=bands, **how)


@dataclass(frozen=True)
class OwnRule:
    """Index maps by `ids` and masks by `colors`; None if the class table has no ids or no colours.

    listed: the ids and the colours of its rows, so that a palette can be compared with both.
    """

    ids: IdMap | None
    colors: ColorMap | None
    listed: ClassTable

    def train_ids(self, what: object, found: Decoded) -> tuple[np.ndarray, Unknown]:
        """A decoded label -> train ids uint8 (H, W), 255 ignored; and what the class table does not name.

        Raises InputError that names the file `what` if it does not fit the table, or if ids and colours say different things.
        """
        if self.colors is not None and (self.ids is None or found.array.ndim == 3):
            colors = self.colors
            if found.array.ndim == 2:
                advice = f"{colors.advice}; if the values are class ids, give the table a column `id`"
                colors = ColorMap(colors.colors, advice)
            return colors.train_ids(what, found.colors())
        if self.ids is None:
            raise RuntimeError("a class table reads ids or colours; the picture's modes let nothing else through")
        if found.mode in ("P", "1"):
            return self._palette_train_ids(what, found, self.ids)
        return self.ids.train_ids(what, found.array)

    def _palette_train_ids(self, what: object, found: Decoded, ids: IdMap) -> tuple[np.ndarray, Unknown]:
        """The same for values that have colours: a palette's, or black and white.

        Such values are ids, unless they are no ids of the table and their colours are: programs that reduce a mask to a palette
        number its colours as they like. Black and white, and palettes of grey, may stand for the ids 0 and 255 in that way.
        """
        palette = np.array([[0, 0, 0], [255, 255, 255]], np.uint8) if found.palette is None else found.palette
        used = np.unique(found.array)
        by_id = np.frombuffer(ids.train, np.uint8)[used]
        are_ids = bool(np.frombuffer(ids.known, bool)[used].all())
        by_color = None if self._is_ramp(palette) else self._by_color(palette[used])
        if by_color is None or (are_ids and np.array_equal(by_id, by_color)):
            return ids.train_ids(what, found.array)
        if are_ids:
            value = int(used[np.flatnonzero(by_id != by_color)[0]])
            color = ",".join(map(str, palette[value].tolist()))
            raise InputError(
                f"{what} can be read in two ways: its value {value} is the id of one class, and its colour {color} is another's",
                "leave out the column of the class table that the labels do not follow: `color` or `id`",
            )
        table = np.full(256, IGNORED, np.uint8)
        table[used] = by_color
        return table[found.array], Unknown()

    @staticmethod
    def _is_ramp(palette: np.ndarray) -> bool:
        """Whether each value has the grey of its own number, so that the palette says nothing: uint8 (n, 3)."""
        return bool((palette == np.arange(len(palette))[:, None]).all())

    def _by_color(self, colors: np.ndarray) -> np.ndarray | None:
        """uint8 (n, 3) -> train ids uint8 (n,) by the table's colours, or greys by its ids; None if one is not in the table."""
        if self.colors is not None:
            known = dict(self.colors.colors)
            found = [known.get((red, green, blue)) for red, green, blue in colors.tolist()]
        else:
            by_id = {row.raw_id: row.train_id for row in self.listed.rows}
            found = [by_id.get(red) if red == green == blue else None for red, green, blue in colors.tolist()]
        return None if None in found else np.array(found, np.uint8)


@dataclass(frozen=True)
class OwnLabel(PictureFile):
    """A label file of a person's own data, read as its content and the class table say."""

    rule: OwnRule

    def decode(self) -> Label:
        decoded = self.picture.decode()
        array, unknown = self.rule.train_ids(self.picture, decoded)
        return Label(array, decoded.sha256, len(decoded.content), unknown)


def check_own_name(name: str, known: list[str]) -> None:
    """Raise InputError for a name that a person's own dataset cannot have."""
    if name in known:
        raise InputError(f"'{name}' is the name of a dataset that segctl knows", "give your own dataset another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "downloads":
        raise InputError(f"a dataset cannot be called '{name}'", "use letters, digits, - and _")
    if name.lower() in RESERVED:
        raise InputError(f"a dataset cannot be called '{name}': Windows reserves the name", "give it another name")


def open_own(name: str, own: OwnFiles) -> Source:
    """Pair images with labels and split them.

    Raises InputError if the files as a whole do not fit; what is wrong with single files is in the source's `problems`.
    """
    check_format(own.format)
    if own.unlabelled not in (None, *UNLABELLED):
        raise InputError(f"--unlabelled is '{own.unlabelled}', wanted {' or '.join(UNLABELLED)}")
    classes = None if own.classes is None else read_classes(own.classes)
    if own.format == HUGGING_FACE or (own.format is None and huggingface.is_saved(own.images)):
        saved = huggingface.open_saved(own.images)
        _refuse(own, ("unlabelled", "label_suffix", "instances"), "a dataset of Hugging Face has label maps")
        return _open_masks(name, own, classes, saved.images, saved.labels, saved.notes)
    endings = IMAGE_ENDINGS if own.bands is None else (*IMAGE_ENDINGS, *DEEP_ENDINGS)
    pictures = list_files(own.images, lambda path: path.lower().endswith(endings))
    if not pictures.members:
        raise InputError(f"{pictures.given} holds no pictures ({', '.join(endings)})")
    labels = _list_labels(own.labels)
    masks = only(labels, [path for path in labels.members if path.lower().endswith((*LABEL_ENDINGS, *LOSSY_ENDINGS))])
    if own.format != MASKS and any(path.lower().endswith(ENDINGS) for path in labels.members):
        # Cityscapes lays a file of polygons, which is of no format that is read here, beside each of thousands of label maps.
        patience = MAX_STRANGERS if masks.members and own.format is None else None
        found = read_annotations(_with_names(own.labels, labels), own.format, patience=patience)
        # A mask counts only if it has the name of a picture: a folder of annotations may hold a legend or a preview.
        apart, beside = _masks_beside(own, pictures, masks) if found.sets or own.format else (pictures, 0)
        if found.sets or own.format or not masks.members:
            chosen = choose(found, labels.given, beside, own.format)
            if chosen is not None:
                _refuse(own, ("label_suffix", "instances"), f"{labels.given} holds {chosen.title} annotations")
                return open_annotated(name, apart, labels.names, chosen, classes=classes, own=own)
    elif own.format not in (None, MASKS):
        raise InputError(f"{labels.given} holds no annotation files ({', '.join(ENDINGS)})", f"--format is '{own.format}'")
    if not masks.members:
        raise InputError(
            f"{labels.given} holds no labels ({', '.join(LABEL_ENDINGS)})", f"annotation files end with {', '.join(ENDINGS)}"
        )
    _refuse(own, ("unlabelled",), f"{labels.given} holds label pictures, which say it for every pixel")
    return _open_masks(name, own, classes, *_told_apart(own, pictures, masks))


def _refuse(own: OwnFiles, options: tuple[str, ...], why: str) -> None:
    """Raise InputError if one of the options was given."""
    for option in options:
        if getattr(own, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} is '{getattr(own, option)}', but {why}", "leave the option out")


def _list_labels(path: Path) -> Files:
    """The label pictures and annotation files of a folder, an archive, a pattern, or one annotation file."""
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():  # YOLO's data.yaml lies above the text files
        path = path.parent
    if path.suffix.lower() in ENDINGS and path.is_file():
        return Files(f"'{path}'", f"file '{path.name}'", {path.name: PlainFile(str(path), path)})
    return list_files(path, lambda name: name.lower().endswith((*LABEL_ENDINGS, *LOSSY_ENDINGS, *ENDINGS)))


def _with_names(given: Path, labels: Files) -> dict[str, File]:
    """The files, and the data.yaml beside their folder or above it if they are YOLO's text files without one."""
    members = dict(labels.members)
    if any(path.endswith((".yaml", ".yml")) for path in members) or not any(path.endswith(".txt") for path in members):
        return members
    folder = real_path(given)
    for above in (folder.parent, folder.parent.parent):
        for path in sorted([*above.glob("*.yaml"), *above.glob("*.yml")]):
            return {**members, path.name: PlainFile(str(path), path)}
    return members


def _masks_beside(own: OwnFiles, pictures: Files, masks: Files) -> tuple[Files, int]:
    """The pictures without the masks among them, and how many masks have the name of a picture."""
    if own.labels.is_file() or not masks.members:
        return pictures, 0
    try:
        apart, rest = _told_apart(own, pictures, masks)
    except InputError:  # nothing tells them apart, so all are pictures
        return pictures, 0
    named = {name_of(path_of(path)) for path in apart.members}
    count = sum(not {name_of(path_of(path)), name_of(bare_path(path, LABEL_SUFFIXES))}.isdisjoint(named) for path in rest.members)
    return (apart, count) if count else (pictures, 0)


def _open_masks(
    name: str, own: OwnFiles, classes: OwnClasses | None, pictures: Files, labels: Files, notes: tuple[str, ...] = ()
) -> Source:
    """The source of pictures and label pictures."""
    if classes is None or own.classes is None:
        raise InputError(
            f"--classes is missing: {labels.given} holds label pictures, whose values need names",
            f"give {OWN_LINE} together; a text file with a name a line will do",
        )
    paired = _pair(pictures, labels, _keys_of(own))
    drawn = split_samples(paired.folders, own.splits, own.seed, paired.paths)
    names = sorted({sample for listed in drawn.splits.values() for sample in listed})
    images, scaling, scaled = sample_images({sample: paired.pictures[sample] for sample in names}, drawn.splits, own.bands)
    instances, lacking = _instances(own, paired, drawn.splits)
    rows = len(classes.table.rows)
    modes = ("L", "P", "1") if classes.ids else ("RGB", "L", "P", "1")
    modes = (*modes, "RGB") if classes.ids and classes.colors else modes
    role, rule = "label" if classes.ids else "mask", OwnRule(classes.ids, classes.colors, classes.table)
    return Source(
        name=name,
        rule=" ".join([f"own/1 {classes.digest}", *([] if scaling is None else [scaling.rule])]),
        origin=f"images from {pictures.names}, labels from {labels.names}, {rows} rows of '{own.classes.name}'",
        decoder=DECODER,
        classes=classes.table,
        splits=drawn.splits,
        samples=PairReader(
            images=images,
            labels={sample: OwnLabel(Picture(sample, role, paired.labels[sample], modes), rule) for sample in names},
            instances=instances,
        ),
        notes=(*notes, *scaled, *pictures.notes, *labels.notes, *paired.notes, *drawn.notes),
        label_advice=f"correct the labels, or the table '{own.classes.name}'",
        problems=(*paired.problems, *drawn.problems, *lacking),
        pixels=scaling,
    )


def _keys_of(own: OwnFiles) -> list[tuple[Key, Key]]:
    """How a picture and its label may name their sample; the label's key is empty for a file that is no label."""
    images, labels = as_pattern(own.images), as_pattern(own.labels)
    if own.label_suffix is not None:
        return suffix_keys(own.label_suffix)
    if images is not None and labels is not None and images.stars == labels.stars:
        return [(images.key, labels.key)]
    return NAME_KEYS


def _told_apart(own: OwnFiles, pictures: Files, labels: Files) -> tuple[Files, Files]:
    """The pictures and the labels, each without the files of the other, where one folder or archive holds both.

    Raises InputError if neither folders nor names nor endings tell them apart.
    """
    if as_pattern(own.images) or as_pattern(own.labels):
        return pictures, labels
    if own.label_suffix is not None:
        chosen = [path for path in labels.members if path_of(path).endswith(own.label_suffix)]
        if not chosen:
            example = next(iter(labels.members))
            raise InputError(
                f"--label-suffix is '{own.label_suffix}', but no label in {labels.given} ends so; one is called '{example}'",
                "give the part between the picture's name and the ending, such as _mask",
            )
        labels = only(labels, chosen)
        return without(pictures, {place_of(file) for file in labels.members.values()}), labels
    images, masks = real_path(own.images), real_path(own.labels)
    if images != masks:
        # One folder inside the other: the inner one holds what it is called for.
        inner = {place_of(file) for file in labels.members.values()} if images in masks.parents else set()
        outer = {place_of(file) for file in pictures.members.values()} if masks in images.parents else set()
        return without(pictures, inner), without(labels, outer)
    paths = sorted(pictures.members.keys() | labels.members.keys())
    ways: tuple[tuple[Callable[[str], bool], Callable[[str], bool]], ...] = (
        (lambda path: in_folder_called(path, LABEL_FOLDERS), lambda path: in_folder_called(path, IMAGE_FOLDERS)),
        (lambda path: bare_path(path, LABEL_SUFFIXES) != path_of(path), lambda path: True),
        (lambda path: not path.lower().endswith(LOSSY_ENDINGS), lambda path: path.lower().endswith(LOSSY_ENDINGS)),
    )
    for is_label, is_image in ways:
        chosen = [path for path in paths if is_label(path)]
        others = [path for path in paths if not is_label(path) and is_image(path)]
        if chosen and others:
            return only(pictures, others), only(labels, chosen)
    raise InputError(
        f"'{own.images}' is given for pictures and labels alike, so '{paths[0]}' was taken for its own label",
        "give the folder of the pictures with --images and that of the labels with --labels, or name labels like 'NAME_mask.png'",
    )


@dataclass(frozen=True)
class _Paired:
    """Both files of every sample, the path of its image, and the folder of that path ("" for the top of the images)."""

    pictures: dict[str, File]
    labels: dict[str, File]
    paths: dict[str, str]
    folders: dict[str, str]
    problems: list[Finding]
    notes: tuple[str, ...] = ()


def _pair(pictures: Files, labels: Files, keys: list[tuple[Key, Key]]) -> _Paired:
    for kind in ("_labelIds", "_labelTrainIds"):  # Cityscapes lays instance maps and drawings beside them
        if any(path_of(path).endswith(kind) for path in labels.members):
            labels = only(labels, [path for path in labels.members if path_of(path).endswith(kind)])
            break
    labels, notes = _one_suffix(pictures, labels) if keys is NAME_KEYS else (labels, ())
    for image_key, label_key in keys:
        images, problems = by_sample(pictures.members, image_key)
        targets, more = by_sample(labels.members, label_key)
        if images.keys() & targets.keys():
            break

    def missing(role: str, key: str) -> str:
        files, endings = (pictures, IMAGE_ENDINGS) if role == "image" else (labels, LABEL_ENDINGS)
        return f"{files.given} holds no '{key}{endings[0]}' (or another ending)"

    both, unpaired = pair(images, targets, missing)
    if not both:
        first, second = (path_of(next(iter(files.members))) for files in (pictures, labels))
        raise InputError(
            f"no picture of {pictures.given} has a label of its name in {labels.given}: pictures have names like '{first}', "
            f"labels like '{second}'",
            f"give a label the name of its picture, or that name and one of {', '.join(LABEL_SUFFIXES[5:])}",
        )
    names = sample_names(both)
    paths = {image_key(path): path for path in pictures.members}
    return _Paired(
        pictures={names[key]: images[key] for key in both},
        labels={names[key]: targets[key] for key in both},
        paths={names[key]: paths[key] for key in both},
        folders={names[key]: neutral(paths[key]).rpartition("/")[0] for key in both},
        problems=[*problems, *more, *unpaired],
        notes=notes,
    )


def _instances(
    own: OwnFiles, paired: _Paired, splits: dict[str, list[str]]
) -> tuple[dict[str, NumberedInstances], list[Finding]]:
    """The instance map of each sample, and a finding for each sample without one in a split where others have one."""
    if own.instances is None:
        return {}, []
    files = list_files(own.instances, lambda path: path.lower().endswith(LABEL_ENDINGS))
    found: dict[str, File] = {}
    for shorten in (path_of, neutral, name_of):
        keyed, twice = by_sample(files.members, lambda path, shorten=shorten: bare_path(shorten(path), INSTANCE_SUFFIXES))  # type: ignore[misc]
        found = {name: keyed[key] for name, path in paired.paths.items() if (key := path_of(shorten(path))) in keyed}
        if found:
            break
    if not found:
        raise InputError(f"no instance map of {files.given} has the name of a picture", "give each the name of its picture")
    modes = ("RGB", "L", "P", "I;16")
    maps = {name: NumberedInstances(Picture(name, "instance map", file, modes)) for name, file in found.items()}
    lacking = [
        Finding(name, f"sample '{name}' has no instance map, but others of '{split}' have one", "add it, or give a folder of all")
        for split, names in splits.items()
        if any(name in maps for name in names)
        for name in names
        if name not in maps
    ]
    return maps, [*twice, *lacking]


def _one_suffix(pictures: Files, labels: Files) -> tuple[Files, tuple[str, ...]]:
    """The labels with the one suffix that gives each picture a label, and a note on the others; all if no suffix does.

    Raises InputError if several suffixes do.
    """
    wanted = {name_of(path_of(path)) for path in pictures.members}
    stems = {path: name_of(path_of(path)) for path in labels.members}
    found = {
        suffix: chosen
        for suffix in LABEL_SUFFIXES
        if (chosen := [path for path, stem in stems.items() if stem.endswith(suffix)])
        and wanted <= {stems[path].removesuffix(suffix) for path in chosen}
    }
    if not found or wanted <= set(stems.values()):
        return labels, ()
    if len(found) > 1:
        shown = " and as ".join(f"'{chosen[0]}'" for chosen in found.values())
        hint = " or ".join(f"`--label-suffix {suffix}`" for suffix in found)
        raise InputError(f"{labels.given} holds a label for every picture as {shown}", f"add {hint}")
    ((suffix, chosen),) = found.items()
    if len(chosen) == len(stems):
        return labels, ()
    return only(labels, chosen), (f"labels are the files called NAME{suffix}; {len(stems) - len(chosen)} others are left out",)
