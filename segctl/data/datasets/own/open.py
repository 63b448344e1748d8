"""A person's own images and labels: a folder, archive or pattern of each. Annotation files are opened by `annotated.py`.

Label maps need a class table. An image and its label have the same path below their folders, apart from endings; if the folders
differ, the same name is enough, and then a name with a suffix (`a_mask.png`). Both may lie in one folder, if names or endings
tell them apart. Index maps (grey, palette, black and white) are read by the table's ids, RGB masks by its colours; a table of
colours alone reads every label by its colours.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from segctl.data.datasets import OWN_LINE
from segctl.data.datasets.class_file import OwnClasses, read_classes
from segctl.data.datasets.own.annotated import UNANNOTATED, open_annotated
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.label_rule import OwnLabel, OwnRule
from segctl.data.datasets.own.names import (
    IMAGE_ENDINGS,
    LABEL_ENDINGS,
    LABEL_SUFFIXES,
    LOSSY_ENDINGS,
    bare_path,
    name_of,
    only,
    path_of,
    place_of,
    without,
)
from segctl.data.datasets.own.pairing import keys_of, pair_files, pair_instances, told_apart
from segctl.data.datasets.own.predicted import Predictions, find_predictions, predicted_labels
from segctl.data.datasets.own.raters import pair_raters, with_raters
from segctl.data.datasets.own.splits import split_samples
from segctl.data.datasets.own.tiling import tile_source
from segctl.data.datasets.pairs import (
    LabelFile,
    PairReader,
    PictureLabel,
    sample_images,
)
from segctl.data.datasets.turned import may_be_turned
from segctl.data.files.archives import File, Files, PlainFile
from segctl.data.files.bands import DEEP_ENDINGS
from segctl.data.files.patterns import list_files, list_pictures
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.labels import huggingface
from segctl.data.labels.certainty import RECORD
from segctl.data.labels.documents import ENDINGS
from segctl.data.labels.formats import HUGGING_FACE, MASKS, TABLES, check_format, choose, read_annotations
from segctl.data.source import PredictedLabels, Source
from segctl.data.splits import must_not_meet
from segctl.errors import InputError
from segctl.files import content_key, real_path

MAX_STRANGERS = 50
"""How many files of no known format to read beside label maps before they are taken for what they are."""
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))})
"""Names that no file or folder can have on Windows."""


def check_own_name(name: str, known: list[str]) -> None:
    """Raise InputError for a name that a person's own dataset cannot have."""
    if name in known:
        raise InputError(f"'{name}' is the name of a dataset that segctl knows", "give your own dataset another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "downloads":
        raise InputError(f"a dataset cannot be called '{name}'", "use letters, digits, - and _")
    if name.lower() in RESERVED:
        raise InputError(f"a dataset cannot be called '{name}': Windows reserves the name", "give it another name")


def open_own(name: str, own: OwnFiles) -> Source:
    """Pair images with labels, split them, and cut them into tiles if a person says so.

    Raises InputError if the files as a whole do not fit; what is wrong with single files is in the source's `problems`.
    """
    source = _open_whole(name, own)
    if own.tiles is not None and source.predicted is not None:
        raise InputError(
            "--tile does not cut predicted labels", "cut the pictures into tiles first, then predict and prepare these"
        )
    return source if own.tiles is None else tile_source(source, own.tiles)


def _open_whole(name: str, own: OwnFiles) -> Source:
    check_format(own.format)
    if own.unannotated not in (None, *UNANNOTATED):
        raise InputError(f"--unannotated is '{own.unannotated}', wanted {' or '.join(UNANNOTATED)}")
    classes = None if own.classes is None else read_classes(own.classes)
    if own.format == HUGGING_FACE or (own.format is None and huggingface.is_saved(own.images)):
        saved = huggingface.open_saved(own.images)
        _refuse(own, ("unannotated", "label_suffix", "instances", "min_confidence"), "a dataset of Hugging Face has label maps")
        return _open_masks(name, own, classes, saved.images, saved.labels, saved.notes)
    endings = IMAGE_ENDINGS if own.bands is None else (*IMAGE_ENDINGS, *DEEP_ENDINGS)
    pictures = list_pictures(own.images, endings, "--images")
    labels = _list_labels(own.labels)
    if own.raters:
        _refuse(own, ("unannotated", "min_confidence"), "several --labels are the label maps of several raters")
        if own.format not in (None, MASKS):
            raise InputError(f"--format is '{own.format}', but several --labels are label maps", "leave the option out")
        return _open_masks(name, own, classes, *told_apart(own, pictures, _only_maps(labels)))
    if own.format in (None, MASKS) and (predictions := find_predictions(labels)) is not None:
        _refuse(own, ("unannotated",), f"{labels.given} holds label maps, which say it for every pixel")
        pictures = without(pictures, {place_of(file) for file in labels.members.values()})
        return _open_masks(name, own, classes or predictions.classes(), pictures, predictions.labels, predictions=predictions)
    _refuse(own, ("min_confidence",), f"{labels.given} was not written by `segctl predict` (it holds no {RECORD})")
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
                in_place = [path for path in apart.members if chosen.picture_folder in path.split("/")[:-1]]
                return open_annotated(
                    name, only(apart, in_place) if in_place else apart, labels.names, chosen, classes=classes, own=own
                )
    elif own.format not in (None, MASKS):
        raise InputError(f"{labels.given} holds no annotation files ({', '.join(ENDINGS)})", f"--format is '{own.format}'")
    if not masks.members:
        raise InputError(
            f"{labels.given} holds no labels ({', '.join(LABEL_ENDINGS)})", f"annotation files end with {', '.join(ENDINGS)}"
        )
    _refuse(own, ("unannotated",), f"{labels.given} holds label maps, which say it for every pixel")
    return _open_masks(name, own, classes, *told_apart(own, pictures, masks))


def _refuse(own: OwnFiles, options: tuple[str, ...], why: str) -> None:
    """Raise InputError if one of the options was given."""
    for option in options:
        if getattr(own, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} is '{getattr(own, option)}', but {why}", "leave the option out")


def _only_maps(labels: Files) -> Files:
    """The label pictures alone. Raises InputError if there are none."""
    masks = only(labels, [path for path in labels.members if path.lower().endswith((*LABEL_ENDINGS, *LOSSY_ENDINGS))])
    if not masks.members:
        raise InputError(f"{labels.given} holds no label maps ({', '.join(LABEL_ENDINGS)})", "give a folder for each rater")
    return masks


def _list_labels(path: Path) -> Files:
    """The label pictures and annotation files of a folder, an archive, a pattern, or one annotation file."""
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():  # YOLO's data.yaml lies above the text files
        path = path.parent
    if path.suffix.lower() in ENDINGS and path.is_file():
        return Files(f"'{path}'", f"file '{path.name}'", {path.name: PlainFile(str(path), path)})
    return list_files(path, lambda name: name.lower().endswith((*LABEL_ENDINGS, *LOSSY_ENDINGS, *ENDINGS)))


def _with_names(given: Path, labels: Files) -> dict[str, File]:
    """The files, and the data.yaml or classes.txt beside their folder or above it if they are YOLO's text files without one."""
    members = dict(labels.members)
    if any(path.endswith(TABLES) for path in members) or not any(path.endswith(".txt") for path in members):
        return members
    folder = real_path(given)
    for above in (folder.parent, folder.parent.parent):
        for path in sorted(path for path in above.glob("*") if path.name.endswith((".yaml", ".yml", "classes.txt"))):
            return {**members, path.name: PlainFile(str(path), path)}
    return members


def _masks_beside(own: OwnFiles, pictures: Files, masks: Files) -> tuple[Files, int]:
    """The pictures without the masks among them, and how many masks have the name of a picture.

    A JPEG is none: labelme leaves its files beside the photos.
    """
    masks = only(masks, [path for path in masks.members if not path.lower().endswith(LOSSY_ENDINGS)])
    if own.labels.is_file() or not masks.members:
        return pictures, 0
    try:
        apart, rest = told_apart(own, pictures, masks)
    except InputError:  # nothing tells them apart, so all are pictures
        return pictures, 0
    named = {name_of(path_of(path)) for path in apart.members}
    count = sum(not {name_of(path_of(path)), name_of(bare_path(path, LABEL_SUFFIXES))}.isdisjoint(named) for path in rest.members)
    return (apart, count) if count else (pictures, 0)


def _open_masks(
    name: str,
    own: OwnFiles,
    classes: OwnClasses | None,
    pictures: Files,
    labels: Files,
    notes: tuple[str, ...] = (),
    predictions: Predictions | None = None,
) -> Source:
    """The source of pictures and label pictures; predictions: where a network made them."""
    if classes is None:
        raise InputError(
            f"--classes is missing: {labels.given} holds label pictures, whose values need names",
            f"give {OWN_LINE} together; a text file with one name per line will do",
        )
    paired = pair_files(pictures, labels, keys_of(own))
    drawn = split_samples(paired.folders, own.splits, own.seed, paired.paths)
    names = sorted({sample for listed in drawn.splits.values() for sample in listed})
    images, scaling, scaled = sample_images({sample: paired.pictures[sample] for sample in names}, drawn.splits, own.bands)
    instances, lacking = pair_instances(own, paired, drawn.splits)
    rows = len(classes.table.rows)
    modes = ("L", "P", "1") if classes.ids else ("RGB", "L", "P", "1")
    modes = (*modes, "RGB") if classes.ids and classes.colors else modes
    role, rule = "label" if classes.ids else "mask", OwnRule(classes.ids, classes.colors, classes.table)
    table = "their network's classes" if own.classes is None else f"the table '{own.classes.name}'"
    rules = [f"own/1 {classes.digest}", *([] if scaling is None else [scaling.rule])]
    own_labels: Mapping[str, LabelFile] = {
        sample: OwnLabel(Picture(sample, role, paired.labels[sample], modes), rule) for sample in names
    }
    lacking_raters: list[Finding] = []
    if own.raters:
        others, lacking_raters = pair_raters(own, pictures, paired, [_only_maps(_list_labels(path)) for path in own.raters])
        own_labels, scant = with_raters(
            own_labels, others, lambda sample, file: OwnLabel(Picture(sample, role, file, modes), rule)
        )
        notes, rules = (*notes, *scant), [*rules, f"raters/1 {1 + len(own.raters)}"]
    predicted = None
    if predictions is not None:
        if classes.ids is None:
            raise InputError(
                f"{labels.given} holds predicted class ids, but {table} has no ids", "give it a column `id`, or leave it out"
            )
        maps = {
            sample: PictureLabel(Picture(sample, "label", paired.labels[sample], ("L", "P")), classes.ids) for sample in names
        }
        own_labels, predicted, least = predicted_labels(predictions, maps, classes, own.min_confidence)
        rules += [f"min-confidence {content_key(list(least))}"] if least else []
        notes = (*notes, predicted.in_words(len(names)), *_scored_by_predictions(drawn.splits, predicted))
    return Source(
        name=name,
        rule=" ".join(rules),
        origin=f"images from {pictures.names}, labels from {labels.names}{_more(own)}, {rows} rows of {table}",
        decoder=DECODER,
        classes=classes.table,
        splits=drawn.splits,
        samples=PairReader(
            images=images if instances else may_be_turned(images, own_labels, is_map=True),
            labels=own_labels,
            instances=instances,
            classes=classes.table if own.raters else None,
        ),
        notes=(*notes, *scaled, *pictures.notes, *labels.notes, *paired.notes, *drawn.notes),
        label_advice=f"correct the labels, or {table}",
        problems=(*paired.problems, *drawn.problems, *lacking, *lacking_raters),
        pixels=scaling,
        predicted=predicted,
    )


def _more(own: OwnFiles) -> str:
    """The folders of further raters, without paths of this machine."""
    return "".join(f" and '{path.name}'" for path in own.raters)


def _scored_by_predictions(splits: Mapping[str, list[str]], predicted: PredictedLabels) -> list[str]:
    """A sentence for each split for scoring whose labels a network made."""
    made = set(predicted.samples)
    return [
        f"{count} label{'s' if count > 1 else ''} of split '{split}' {'are' if count > 1 else 'is'} predicted: scores on it show "
        "how similar two networks are, not how right one is"
        for split, names in splits.items()
        if must_not_meet("train", split) and (count := sum(name in made for name in names))
    ]
