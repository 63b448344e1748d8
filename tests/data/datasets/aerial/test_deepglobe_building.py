"""DeepGlobe Building, with a few small GeoTIFFs in SpaceNet 2's layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_folder, write_zip

from segctl.data.datasets import open_source
from segctl.data.inspect.check import check
from segctl.data.prepare import prepare_source
from segctl.errors import InputError

rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
WEST, NORTH, STEP = -115.3, 36.2, 2**-18
Tree = dict[str, bytes]


def tif(values: np.ndarray, crs: str | None = "EPSG:4326") -> bytes:
    """uint16 (H, W, N) as a GeoTIFF whose first pixel's corner is WEST, NORTH."""
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin

    height, width, bands = values.shape
    place = {} if crs is None else {"crs": crs, "transform": from_origin(WEST, NORTH, STEP, STEP)}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", height=height, width=width, count=bands, dtype="uint16", **place) as file:
            file.write(values.transpose(2, 0, 1))
        return bytes(memory.read())


def geojson(*boxes: tuple[float, float, float, float]) -> bytes:
    """Rectangles of pixels: left, top, right, bottom. One more feature has no corners."""
    features = [{"type": "Feature", "geometry": None}, {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}}]
    for left, top, right, bottom in boxes:
        ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        corners = [[WEST + x * STEP, NORTH - y * STEP, 0.0] for x, y in ring]
        features.append({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}})
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(200, 1200, (9, 12, 3)).astype(np.uint16)


def city(name: str, area: int, numbers: range) -> Tree:
    root, tree = f"AOI_{area}_{name}_Train", {f"AOI_{area}_{name}_Train/summaryData/x.csv": b"not read"}
    for number in numbers:
        end = f"AOI_{area}_{name}_img{number}"
        tree[f"{root}/RGB-PanSharpen/RGB-PanSharpen_{end}.tif"] = tif(picture(number + 100 * (name != "Vegas")))
        tree[f"{root}/MUL/MUL_{end}.tif"] = b"not read"
        tree[f"{root}/geojson/buildings/buildings_{end}.geojson"] = geojson((2, 1, 5.6, 4.4)) if number % 2 else geojson()
    return tree


VEGAS = "AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img1.tif"
HOUSES = "AOI_2_Vegas_Train/geojson/buildings/buildings_AOI_2_Vegas_img1.geojson"


def test_a_picture_and_its_footprints_pixel_by_pixel(tmp_path: Path) -> None:
    sample = open_source("deepglobe-building", [write_folder(tmp_path / "v", city("Vegas", 2, range(1, 3)))]).samples.read(
        "Vegas_1"
    )
    wanted = np.zeros((9, 12), np.uint8)
    wanted[1:4, 2:6] = 1  # centres at 5.5 lie left of 5.6, those at 4.5 below 4.4
    assert sample.label.tolist() == wanted.tolist()
    values = picture(1).astype(float)
    for band in range(3):
        low, high = values[..., band].min(), values[..., band].max()
        assert sample.image[..., band].tolist() == np.rint((values[..., band] - low) / (high - low) * 255).tolist()


def test_a_picture_in_metres_gets_the_same_mask(tmp_path: Path) -> None:
    from rasterio.transform import from_origin
    from rasterio.warp import transform

    tree = city("Vegas", 2, range(1, 2))
    (x,), (y,) = transform("EPSG:4326", "EPSG:32611", [WEST], [NORTH])
    from rasterio.io import MemoryFile

    with MemoryFile() as memory:
        place = {"crs": "EPSG:32611", "transform": from_origin(x, y, STEP * 90_000, STEP * 111_000)}
        with memory.open(driver="GTiff", height=9, width=12, count=3, dtype="uint16", **place) as file:
            file.write(picture(1).transpose(2, 0, 1))
        tree[VEGAS] = bytes(memory.read())
    label = open_source("deepglobe-building", [write_folder(tmp_path / "v", tree)]).samples.read("Vegas_1").label
    assert abs(int(label.sum()) - 12) <= 6
    assert label[2, 3] == 1


def test_folds_are_fifths_of_each_citys_sorted_names(tmp_path: Path) -> None:
    given = [
        write_zip(tmp_path / "vegas", city("Vegas", 2, range(1, 12))),
        write_zip(tmp_path / "paris", city("Paris", 3, range(1, 6))),
    ]
    source = open_source("deepglobe-building", given)
    assert source.splits["val_fold0"] == ["Paris_1", "Vegas_10", "Vegas_11"]
    assert source.splits["val_fold1"] == ["Paris_2", "Vegas_1", "Vegas_2"]
    assert len(source.splits["train_fold4"]) == 16 - 3
    assert "Khartoum has 0 of the official 1012 pictures" in source.notes
    dataset = prepare_source(source, tmp_path / "data", workers=0)
    assert dataset.classes.binary
    assert check(tmp_path / "data", "deepglobe-building") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({HOUSES: geojson((900, 900, 910, 910))}, "lie outside of the image"),
        ({HOUSES: b'{"type": "FeatureCollection"}'}, "has no list of features"),
        ({VEGAS: tif(picture(1), crs=None)}, "does not say where it lies"),
        ({VEGAS: tif(picture(1)[..., :2])}, "has 2 bands, wanted 3"),
        ({VEGAS: b"none"}, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(change: Tree, words: str, tmp_path: Path) -> None:
    source = open_source("deepglobe-building", [write_folder(tmp_path / "v", city("Vegas", 2, range(1, 3)) | change)])
    with pytest.raises(InputError, match=words):
        source.samples.read("Vegas_1")


def test_a_missing_half_is_a_problem_and_another_dataset_is_refused(tmp_path: Path) -> None:
    tree = city("Vegas", 2, range(1, 4))
    del tree[HOUSES]
    (problem,) = open_source("deepglobe-building", [write_folder(tmp_path / "v", tree)]).problems
    assert "holds no geojson/buildings/…_Vegas_img1.geojson" in problem.problem
    with pytest.raises(InputError, match="has no pictures with footprints: it has 0 pictures in RGB-PanSharpen and 0 files"):
        open_source("deepglobe-building", [write_folder(tmp_path / "r", {"train/1_sat.jpg": b"x"})])
