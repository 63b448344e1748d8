"""A person's pictures cut into tiles, each a sample of its own. The splits are those of the pictures, so no picture is in two.

The tiles of a picture are named by the row and the column of their first pixel: `field_r001024_c000000`. Tiles have the side that
was asked for, and the last of a row or column is what is left; where less than a quarter of a side is left, it is added to
the tile before.

A large picture (WHOLE_PX) is read a row of tiles at a time and never as a whole, if its file is a TIFF, PNG or JPEG on the disk
and the extra `geo` is installed. Annotations are drawn for the whole picture, a byte a pixel.
"""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from segctl.data.datasets.own.annotated import AnnotatedReader
from segctl.data.datasets.own.label_rule import OwnLabel
from segctl.data.datasets.pairs import PairReader
from segctl.data.datasets.turned import OwnImage
from segctl.data.files.archives import File, PlainFile
from segctl.data.files.bands import BandPicture
from segctl.data.files.pictures import Picture, turn_upright
from segctl.data.files.windows import LabelRows, Windows, open_label_rows, open_windows, size_of_picture
from segctl.data.findings import Finding
from segctl.data.source import RawSample, Source
from segctl.errors import InputError

WHOLE_PX = 2**25
"""Pictures of more pixels are read a row of tiles at a time, where their files allow it."""
LEAST_REST = 0.25
"""The smallest last tile, as a fraction of a whole one: a sliver would be padded many times over when it is trained on."""


@dataclass(frozen=True)
class TileChoice:
    """How pictures are cut: tiles of `side` pixels, of which neighbours share `overlap`."""

    side: int
    overlap: int = 0

    @staticmethod
    def of(side: int | None, overlap: int | None) -> "TileChoice | None":
        """From the options; None if pictures stay whole. Raises InputError."""
        if side is None:
            if overlap is not None:
                raise InputError(f"--overlap is {overlap}, but pictures are not cut", "give --tile too, such as --tile 1024")
            return None
        if 2 * (overlap or 0) > side:
            raise InputError(f"--overlap is {overlap}, wanted at most half of --tile, {side // 2}")
        return TileChoice(side, overlap or 0)

    def cuts(self, length: int) -> list[tuple[int, int]]:
        """(start, end) of the tiles along a side of `length` pixels."""
        found = [(0, min(self.side, length))]
        while found[-1][1] < length:
            start = found[-1][0] + self.side - self.overlap
            end = min(start + self.side, length)
            if end == length and end - found[-1][1] < LEAST_REST * self.side:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found


@dataclass(frozen=True)
class PictureTile:
    """A part of the picture of a sample, in pixels."""

    picture: str
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class BareReader:
    """Reads samples that are an image alone, without a label; see SampleReader."""

    images: Mapping[str, Picture | BandPicture]

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of the upright image."""
        image = self.images[name]
        if isinstance(image, BandPicture):
            return image.size()
        size, orientation = image.size_and_orientation()
        return size[::-1] if orientation >= 5 else size

    def digest(self, name: str) -> str:
        return self.images[name].digest()

    def read(self, name: str) -> RawSample:
        image = self.images[name].decode()
        array = image.array if image.orientation == 1 else turn_upright(image.array, image.orientation)
        return RawSample(
            name=name,
            image=array if array.ndim == 3 else array[..., None].repeat(3, axis=2),
            label=None,
            instance=None,
            source_sha256=image.sha256,
            source_bytes=len(image.content),
            image_file=image.content if image.mode == "RGB" and image.orientation == 1 else None,
        )


PictureReader = PairReader | AnnotatedReader | BareReader


def tile_source(source: Source, choice: TileChoice, what: str = "pictures") -> Source:
    """The source with its pictures cut into tiles. A picture that is no larger than a tile keeps its name.

    what: the pictures, for the notes.
    Raises InputError if two tiles would get one name; pictures whose size cannot be found out are in the source's `problems`.
    """
    reader = source.samples
    assert isinstance(reader, PictureReader)
    tiles: dict[str, PictureTile] = {}
    of_picture: dict[str, list[str]] = {}
    large, problems = set(), []
    for sample in sorted({sample for listed in source.splits.values() for sample in listed}):
        try:
            (height, width), is_large = _size(reader, sample)
        except InputError as error:
            problems.append(Finding(sample, *_advised(error)))
            continue
        if is_large:
            large.add(sample)
        rows, columns = choice.cuts(height), choice.cuts(width)
        names = of_picture[sample] = []
        for top, bottom in rows:
            for left, right in columns:
                name = sample if len(rows) == len(columns) == 1 else f"{sample}_r{top:06d}_c{left:06d}"
                if name in tiles:
                    raise InputError(
                        f"'{name}' would be a tile of '{sample}' and of '{tiles[name].picture}'", "rename one of them"
                    )
                tiles[name] = PictureTile(sample, top, left, bottom - top, right - left)
                names.append(name)
    splits = {
        split: [name for sample in listed for name in of_picture.get(sample, [])] for split, listed in source.splits.items()
    }
    cut = [names for names in of_picture.values() if len(names) > 1]
    if not cut and not problems:
        return replace(source, notes=(*source.notes, f"none of the {what} is larger than {choice.side} pixels, so none is cut"))
    shared = f", neighbours share {choice.overlap} pixels, which count twice in scores" if choice.overlap else ""
    note = (
        f"{len(cut)} of {len(of_picture)} {what} are cut into {sum(map(len, cut))} tiles of {choice.side}×{choice.side} pixels"
        f" (_rROW_cCOLUMN is the first pixel; the last ones are smaller or up to a quarter larger{shared}); splits are by picture"
    )
    groups = {name: (source.groups or {}).get(tile.picture, tile.picture) for name, tile in tiles.items()}
    return replace(
        source,
        rule=f"{source.rule} tiles {choice.side} {choice.overlap}",
        splits=splits,
        samples=TiledReader(reader, tiles, frozenset(large)),
        groups=groups,
        notes=(*source.notes, note),
        problems=(*source.problems, *problems),
    )


def _picture(reader: PictureReader, sample: str) -> Picture | BandPicture | OwnImage:
    """The image of a sample. A person's own data has only these kinds of pictures."""
    picture = reader.images[sample]
    assert isinstance(picture, Picture | BandPicture | OwnImage)
    return picture


def _size(reader: PictureReader, sample: str) -> tuple[tuple[int, int], bool]:
    """(H, W) of a sample's picture, and whether it is large. Raises InputError if its label does not fit."""
    size = _size_in_parts(_picture(reader, sample).file)
    if size is None or size[0] * size[1] <= WHOLE_PX:
        return reader.size(sample), False
    if isinstance(reader, AnnotatedReader):
        reader.labels[sample].check(sample, size)
        return size, True
    if isinstance(reader, BareReader):
        return size, True
    label = reader.labels[sample]
    assert isinstance(label, OwnLabel)
    there = _size_in_parts(label.picture.file)
    if there is None:  # it may be readable as a whole
        return reader.size(sample), False
    if there != size:
        raise InputError(
            f"{label} is {there[1]}×{there[0]} pixels, wanted {size[1]}×{size[0]} as its image", "replace the resized one"
        )
    return size, True


def _size_in_parts(file: File) -> tuple[int, int] | None:
    return size_of_picture(file.container) if isinstance(file, PlainFile) else None


def _advised(error: InputError) -> tuple[str, str]:
    """Problem and hint of a picture whose size is not known. The usual hint for a picture above Pillow's limit is to cut it."""
    if isinstance(error.__cause__, Image.DecompressionBombError):
        hint = 'so large a picture must be a TIFF, PNG or JPEG file outside of archives; install `pip install "segctl[geo]"`'
        return error.message, hint
    return error.message, error.hint


class TiledReader:
    """Reads tiles of the pictures of another reader; see SampleReader.

    The picture, or the row of tiles, that was read last is kept, because samples are read by name and so by picture and row.
    """

    def __init__(self, pictures: PictureReader, tiles: Mapping[str, PictureTile], large: frozenset[str]) -> None:
        self.pictures, self.tiles, self.large = pictures, tiles, large
        self._digests: dict[str, str] = {}
        self._whole: RawSample | None = None
        self._open: _LargePicture | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TiledReader, (self.pictures, self.tiles, self.large)

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of a tile. The sizes of pictures and labels were compared when the tiles were made."""
        return self.tiles[name].height, self.tiles[name].width

    def digest(self, name: str) -> str:
        tile = self.tiles[name]
        if tile.picture not in self._digests:
            self._digests[tile.picture] = (
                _digest_in_parts(self.pictures, tile.picture)
                if tile.picture in self.large
                else self.pictures.digest(tile.picture)
            )
        where = f"{tile.top} {tile.left} {tile.height} {tile.width}"
        return hashlib.sha256(f"{self._digests[tile.picture]} {where}".encode()).hexdigest()

    def read(self, name: str) -> RawSample:
        tile = self.tiles[name]
        if tile.picture in self.large:
            if self._open is None or self._open.sample != tile.picture:
                self._whole = None
                if self._open is not None:
                    self._open.close()
                self._open = _LargePicture(self.pictures, tile.picture)
            rows, top, first = self._open.rows(tile.top, tile.height), 0, tile.left == 0
        else:
            if self._whole is None or self._whole.name != tile.picture:
                self._whole = None  # two pictures need twice the memory
                self._whole = self.pictures.read(tile.picture)
            rows, top, first = self._whole, tile.top, tile.top == tile.left == 0
        here = slice(top, top + tile.height), slice(tile.left, tile.left + tile.width)
        return RawSample(
            name=name,
            image=np.ascontiguousarray(rows.image[here]),
            label=None if rows.label is None else np.ascontiguousarray(rows.label[here]),
            instance=None,
            source_sha256=self.digest(name),
            # What is known of the picture as a whole is counted once, with its first tile.
            source_bytes=rows.source_bytes if first else 0,
            unknown_pixels=rows.unknown_pixels if first else 0,
            unknown_values=rows.unknown_values if first else {},
            remarks=rows.remarks if first else {},
        )


def _digest_in_parts(reader: PictureReader, sample: str) -> str:
    digests = []
    files = [_picture(reader, sample).file]
    if isinstance(reader, PairReader):
        label = reader.labels[sample]
        assert isinstance(label, OwnLabel)
        files.append(label.picture.file)
    elif isinstance(reader, AnnotatedReader):
        digests.append(reader.labels[sample].annotations.digest())
    for file in files:
        assert isinstance(file, PlainFile)
        with file.container.open("rb") as handle:
            digests.append(hashlib.file_digest(handle, "sha256").hexdigest())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


class _LargePicture:
    """A large picture and its label if it has one, open to read rows of. `sample`: its name."""

    def __init__(self, reader: PictureReader, sample: str) -> None:
        self.sample, self._stack = sample, ExitStack()
        self._rows: RawSample | None = None
        self._at: tuple[int, int] | None = None
        picture = _picture(reader, sample)
        self._image: Windows = self._stack.enter_context(open_windows(_path(picture), _scaling(picture)))
        self._bytes = _path(picture).stat().st_size
        self._drawn: np.ndarray | None = None
        self._label: tuple[OwnLabel, LabelRows] | None = None
        self._remarks: Mapping[str, int] = {}
        if isinstance(reader, AnnotatedReader):
            drawn, size = reader.labels[sample], (self._image.height, self._image.width)
            self._drawn, self._remarks = drawn.draw(size)
        elif isinstance(reader, PairReader):
            label = reader.labels[sample]
            assert isinstance(label, OwnLabel)
            self._label = label, self._stack.enter_context(open_label_rows(_path(label.picture), label.picture.modes))
            self._bytes += _path(label.picture).stat().st_size

    def close(self) -> None:
        self._stack.close()

    def rows(self, top: int, height: int) -> RawSample:
        """The rows of image and label, as if they were a sample; counts are of these rows."""
        if self._rows is None or self._at != (top, height):
            self._rows = None
            image = self._image.read(top, 0, height, self._image.width, opaque=True)
            label, pixels, values, remarks = None, 0, {}, {}
            if self._label is not None:
                label, found = self._label[0].rule.train_ids(self._label[0], self._label[1].read(top, height))
                pixels, values = found.pixels, dict(found.values)
            elif self._drawn is not None:
                label, remarks = self._drawn[top : top + height], dict(self._remarks) if top == 0 else {}
            size = self._bytes if top == 0 else 0
            self._rows = RawSample(self.sample, image, label, None, "", size, pixels, values, remarks)
            self._at = top, height
        return self._rows


def _path(picture: Picture | BandPicture | OwnImage) -> Any:
    assert isinstance(picture.file, PlainFile)
    return picture.file.container


def _scaling(picture: Picture | BandPicture | OwnImage) -> Any:
    return picture.scaling if isinstance(picture, BandPicture) else None
