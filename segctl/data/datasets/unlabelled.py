"""Pictures without labels, beside a dataset of any kind: they are packed into a split of their own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segctl.data.datasets.own.annotated import UNANNOTATED
from segctl.data.datasets.own.names import IMAGE_ENDINGS, path_of, sample_names
from segctl.data.datasets.own.tiling import BareReader, TileChoice, tile_source
from segctl.data.files.archives import File
from segctl.data.files.bands import DEEP_ENDINGS, BandPicture
from segctl.data.files.patterns import list_pictures
from segctl.data.files.pictures import Picture
from segctl.data.source import RawSample, SampleReader, Source
from segctl.errors import InputError

SPLIT = "unlabelled"
PREFIX = "unlabelled-"
"""Of the names of these samples; with more hyphens if a labelled one begins so too."""


@dataclass(frozen=True)
class ReaderWithUnlabelled:
    """Reads the samples of a source, and pictures without labels beside them."""

    labelled: SampleReader
    unlabelled: SampleReader
    names: frozenset[str]
    """Of the pictures without labels."""

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of the upright picture, or as the source's own reader says."""
        return self._reader(name).size(name)

    def digest(self, name: str) -> str:
        return self._reader(name).digest(name)

    def read(self, name: str) -> RawSample:
        return self._reader(name).read(name)

    def _reader(self, name: str) -> SampleReader:
        return self.unlabelled if name in self.names else self.labelled


def with_unlabelled(source: Source, paths: Sequence[Path], tiles: TileChoice | None = None) -> Source:
    """The source with the pictures of folders, archives or patterns as a split `unlabelled`.

    Pictures are read as the source's own are: with the same bands and ranges, and cut into the same tiles, so that a picture
    which is in both is found by its tiles. `prepare` leaves out those that a training split shows, and refuses those that a split
    for scoring shows. Raises InputError for a path without pictures, and for a source that has such a split already.
    """
    if not paths:
        return source
    if source.splits.get(SPLIT):
        raise InputError(
            f"--unlabelled is '{paths[0]}', but '{source.name}' has a split '{SPLIT}' of its own", "give that split another name"
        )
    endings = IMAGE_ENDINGS if source.pixels is None else (*IMAGE_ENDINGS, *DEEP_ENDINGS)
    found: dict[str, File] = {}
    origins = []
    for number, path in enumerate(paths, start=1):
        files = list_pictures(path, endings, "--unlabelled")
        origins.append(files.names)
        where = f"{number}/" if len(paths) > 1 else ""
        stems = Counter(map(path_of, files.members))
        for key, file in files.members.items():  # a.jpg beside a.png keep their endings
            found[where + (path_of(key) if stems[path_of(key)] == 1 else key)] = file
    taken = {name for listed in source.splits.values() for name in listed}
    prefix = PREFIX
    while any(name.startswith(prefix) for name in taken):
        prefix += "-"
    names = {key: prefix + name for key, name in sample_names(list(found)).items()}
    pictures: dict[str, Picture | BandPicture] = {
        names[key]: Picture(names[key], "image", file, ("RGB", "L"), upright=False)
        if source.pixels is None
        else BandPicture(names[key], file, source.pixels)
        for key, file in found.items()
    }
    bare = replace(source, splits={SPLIT: sorted(pictures)}, samples=BareReader(pictures), groups=None, notes=(), problems=())
    if tiles is not None:
        bare = tile_source(bare, tiles, "pictures without labels")
    samples = frozenset(bare.splits[SPLIT])
    return replace(
        source,
        origin=f"{source.origin}; {len(pictures)} pictures without labels from {', '.join(origins)}",
        splits={**source.splits, **bare.splits},
        samples=ReaderWithUnlabelled(source.samples, bare.samples, samples),
        notes=(*source.notes, *bare.notes),
        unlabelled=samples,
        problems=(*source.problems, *bare.problems),
    )


def as_asked(unlabelled: Sequence[Path], unannotated: str | None) -> tuple[list[Path], str | None]:
    """(pictures without labels, what pixels under no annotation become) from the options --unlabelled and --unannotated.

    `--unlabelled background` and `--unlabelled ignore` are older spellings of --unannotated; they mean a folder where there is
    one of that name. Raises InputError where both say what pixels become, and differ.
    """
    words = [str(path) for path in unlabelled if str(path) in UNANNOTATED and not path.exists()]
    said = sorted({*words, *([] if unannotated is None else [unannotated])})
    if len(said) > 1:
        raise InputError(f"pixels under no annotation cannot become both {' and '.join(said)}", "give --unannotated once")
    return [path for path in unlabelled if str(path) not in words], said[0] if said else None
