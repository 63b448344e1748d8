"""Which label, and which instance map, belongs to which picture of a person's own data."""

from collections.abc import Callable
from dataclasses import dataclass

from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.names import (
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
from segctl.data.datasets.pairs import (
    NumberedInstances,
    by_sample,
    pair,
)
from segctl.data.files.archives import File, Files
from segctl.data.files.patterns import as_pattern, list_files
from segctl.data.files.pictures import Picture
from segctl.data.findings import Finding
from segctl.errors import InputError
from segctl.files import real_path


def keys_of(own: OwnFiles) -> list[tuple[Key, Key]]:
    """How a picture and its label may name their sample; the label's key is empty for a file that is not a label."""
    images, labels = as_pattern(own.images), as_pattern(own.labels)
    if own.label_suffix is not None:
        return suffix_keys(own.label_suffix)
    if images is not None and labels is not None and images.stars == labels.stars:
        return [(images.key, labels.key)]
    return NAME_KEYS


def told_apart(own: OwnFiles, pictures: Files, labels: Files) -> tuple[Files, Files]:
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
        f"'{own.images}' is given for both pictures and labels, so '{paths[0]}' was taken for its own label",
        "give the folder of the pictures with --images and that of the labels with --labels, or name labels like 'NAME_mask.png'",
    )


@dataclass(frozen=True)
class PairedFiles:
    """Both files of every sample, the path of its image, and the folder of that path ("" for the top of the images)."""

    pictures: dict[str, File]
    labels: dict[str, File]
    paths: dict[str, str]
    folders: dict[str, str]
    problems: list[Finding]
    notes: tuple[str, ...] = ()


def pair_files(pictures: Files, labels: Files, keys: list[tuple[Key, Key]]) -> PairedFiles:
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
            f"no picture of {pictures.given} has a label of the same name in {labels.given}: pictures have names like '{first}', "
            f"labels like '{second}'",
            f"give a label the name of its picture, or that name and one of {', '.join(LABEL_SUFFIXES[5:])}",
        )
    names = sample_names(both)
    paths = {image_key(path): path for path in pictures.members}
    return PairedFiles(
        pictures={names[key]: images[key] for key in both},
        labels={names[key]: targets[key] for key in both},
        paths={names[key]: paths[key] for key in both},
        folders={names[key]: neutral(paths[key]).rpartition("/")[0] for key in both},
        problems=[*problems, *more, *unpaired],
        notes=notes,
    )


def pair_instances(
    own: OwnFiles, paired: PairedFiles, splits: dict[str, list[str]]
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
