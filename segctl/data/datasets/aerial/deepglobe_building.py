"""DeepGlobe Building Extraction 2018, which is SpaceNet 2: footprints of buildings on satellite pictures of 650×650 pixels.

    AOI_N_CITY_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_N_CITY_imgK.tif       16 bits, three bands, with its place on the earth
    AOI_N_CITY_Train/geojson/buildings/buildings_AOI_N_CITY_imgK.geojson     polygons in degrees

Four cities: Vegas 3,851, Paris 1,148, Shanghai 4,582 and Khartoum 1,012 pictures, whose archives may be given alone. Each band of
each picture is scaled from its smallest and largest number to 0 and 255. A pixel is a building if its centre lies in a polygon
(GDAL's rule); a file without polygons is a picture without buildings. The folders of other sensors (MUL, PAN) are not read, and
the test archives have no footprints. Splits: `all`, and five folds of 2,117 validation pictures, a fifth of each city's sorted
names. The set is scored on buildings alone. Needs rasterio (the extra `geo`). SpaceNet publishes it, with its own terms.
Source: zifuwanggg/JDTLosses at 68ce8ac, datas/prepare/prepare_deepglobe_building.py (layout, scaling, masks) and
datas/datasets/deepglobe_building.py (counts, folds). There, pictures are also compressed as JPEG; here they are kept exactly.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.aerial.deepglobe import folds_of
from segctl.data.datasets.pairs import Label, PairReader, pair
from segctl.data.files.archives import File, Files, open_files
from segctl.data.files.numbers import numbers_of, open_tiff
from segctl.data.files.pictures import Decoded, UnfitError, in_words
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.files import parse_json

CLASSES = ClassTable((ClassRow("background", None, 0, (0, 0, 0)), ClassRow("building", None, 1, (255, 255, 255))), binary=True)
LAYOUT = "give the training archives or folders of the cities, which hold RGB-PanSharpen/ and geojson/buildings/, with --source"
CITIES = {"Vegas": 3851, "Paris": 1148, "Shanghai": 4582, "Khartoum": 1012}
_IMAGE = re.compile(r"(?:^|/)RGB-PanSharpen/[^/]*AOI_\d+_(?P<city>[A-Za-z]+)_img(?P<number>\d+)\.tif$")
_LABEL = re.compile(r"(?:^|/)geojson/buildings/[^/]*AOI_\d+_(?P<city>[A-Za-z]+)_img(?P<number>\d+)\.geojson$")
_DEGREES = "EPSG:4326"
_AGAIN = "get the city's archive again"


@dataclass(frozen=True)
class SatelliteImage:
    """The image of one sample. It takes the place of a `Picture` of the role "image"."""

    sample: str
    file: File
    role: str = field(default="image", init=False)

    def __str__(self) -> str:
        return f"the image of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """(H, W). Raises InputError for a file that is not a TIFF."""
        with in_words(str(self), f"{self} cannot be read"), open_tiff(self.file.read()) as opened:
            return opened.height, opened.width

    def decode(self) -> Decoded:
        """uint8 (H, W, 3), each band from its smallest number to its largest; 0 where they are the same."""
        with in_words(str(self), f"{self} cannot be read"):
            content = self.file.read()
            values = numbers_of(content).astype(np.float64)
            if values.shape[2] != 3:
                raise UnfitError(f"has {values.shape[2]} bands, wanted 3", LAYOUT)
            low, high = values.min((0, 1)), values.max((0, 1))
            pixels = np.rint((values - low) * (255 / np.where(high > low, high - low, 1))).astype(np.uint8)
            return Decoded(pixels, hashlib.sha256(content).hexdigest(), content, mode="bands")

    def digest(self) -> str:
        with in_words(str(self), f"{self} cannot be read"):
            return hashlib.sha256(self.file.read()).hexdigest()


@dataclass(frozen=True)
class Footprints:
    """The label of one sample, a LabelFile: polygons that are drawn where the image lies. image: that image's file."""

    sample: str
    file: File
    image: File

    def __str__(self) -> str:
        return f"the footprints of sample '{self.sample}' ({self.file.where})"

    def size(self) -> None:
        return None

    def decode(self) -> Label:
        """uint8 (H, W) of the image's size: 1 on buildings. Raises InputError if no GeoJSON of shapes in the image is there."""
        with in_words(str(self), f"{self} cannot be read"):
            content = self.file.read()
            shapes = self._shapes(parse_json(content.decode("utf-8"), str(self)))
            with open_tiff(self.image.read()) as opened:
                array = _drawn(shapes, opened, self)
            return Label(array, hashlib.sha256(content).hexdigest(), len(content))

    def digest(self) -> str:
        with in_words(str(self), f"{self} cannot be read"):
            return hashlib.sha256(self.file.read()).hexdigest()

    def _shapes(self, tree: Any) -> list[dict[str, Any]]:
        """The shapes of a GeoJSON that have corners."""
        features = tree.get("features") if isinstance(tree, dict) else None
        if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
            raise UnfitError("has no list of features, wanted a GeoJSON of buildings", _AGAIN)
        found = [one.get("geometry") for one in features]
        return [shape for shape in found if isinstance(shape, dict) and shape.get("coordinates")]


def _drawn(shapes: list[dict[str, Any]], opened: Any, what: Footprints) -> np.ndarray:
    """uint8 (H, W) of an open TIFF's size: 1 in the shapes. Raises UnfitError where they lie elsewhere on the earth."""
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    size = (opened.height, opened.width)
    if not shapes:
        return np.zeros(size, np.uint8)
    if opened.crs is None:
        raise UnfitError(f"cannot be drawn, because its image '{what.image.where}' does not say where it lies", _AGAIN)
    if opened.crs != _DEGREES:
        shapes = [transform_geom(_DEGREES, opened.crs, shape) for shape in shapes]
    array = np.asarray(rasterize(shapes, size, transform=opened.transform, dtype=np.uint8))
    if not array.any():
        left, bottom, right, top = opened.bounds
        corners = [np.asarray(point[:2], np.float64) for shape in shapes for point in _points(shape["coordinates"])]
        if all(not (left <= x <= right and bottom <= y <= top) for x, y in corners):
            raise UnfitError(f"lie outside of the image '{what.image.where}'", _AGAIN)
    return array


def _points(coordinates: Any) -> list[Any]:
    """All corners in nested lists of corners."""
    if coordinates and isinstance(coordinates[0], int | float):
        return [coordinates]
    return [point for part in coordinates for point in _points(part)]


def open_deepglobe_building(paths: Sequence[Path]) -> Source:
    """Pair images with footprints. Raises InputError if there is no pair."""
    files = open_files(paths, lambda path: bool(_IMAGE.search(path) or _LABEL.search(path)))
    (images, twice), (labels, more) = _by_sample(files, _IMAGE), _by_sample(files, _LABEL)
    names, unpaired = pair(images, labels, lambda role, name: f"{files.given} holds no {_wanted(role, name)}")
    if not names:
        met = f"it has {len(images)} pictures in RGB-PanSharpen and {len(labels)} files in geojson/buildings"
        raise InputError(f"the source {files.given} has no pictures with footprints: {met}", LAYOUT)
    notes = list(files.notes)
    splits: dict[str, list[str]] = {"all": names}
    for city, official in CITIES.items():
        # As the published lists: names of files, of which `Vegas_10_` stands before `Vegas_1_`.
        own = sorted((name for name in names if name.startswith(f"{city}_")), key=lambda name: f"{name}_sat.jpg")
        if len(own) != official:
            notes.append(f"{city} has {len(own)} of the official {official} pictures")
        for split, chosen in folds_of(own).items():
            splits[split] = sorted([*splits.get(split, []), *chosen])
    return Source(
        name="deepglobe-building",
        rule="deepglobe-building-minmax/1",
        origin=f"{files.names} in SpaceNet 2's layout",
        decoder="rasterio",
        classes=CLASSES,
        splits=splits,
        samples=PairReader(
            images={name: SatelliteImage(name, images[name]) for name in names},
            labels={name: Footprints(name, labels[name], images[name]) for name in names},
        ),
        notes=tuple(notes),
        problems=(*twice, *more, *unpaired),
    )


def _by_sample(files: Files, pattern: re.Pattern[str]) -> tuple[Mapping[str, File], list[Finding]]:
    """The files of a pattern by sample, and a finding for each sample that has two."""
    found: dict[str, File] = {}
    twice = []
    for path, file in files.members.items():
        if (match := pattern.search(path)) is not None and match["city"] in CITIES:
            name = f"{match['city']}_{match['number']}"
            if name in found:
                twice.append(Finding(name, f"'{path}' and '{found[name].where}' are both of '{name}'", "keep one of them"))
            found[name] = file
    return found, twice


def _wanted(role: str, name: str) -> str:
    city, _, number = name.partition("_")
    end = f"{city}_img{number}"
    return f"RGB-PanSharpen/…_{end}.tif" if role == "image" else f"geojson/buildings/…_{end}.geojson"
