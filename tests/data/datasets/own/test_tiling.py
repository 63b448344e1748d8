"""Pictures cut into tiles: every pixel once, labels with them, splits by picture, large files row by row."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own import tiling
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.datasets.own.tiling import TileChoice
from segctl.data.datasets.unlabelled import with_unlabelled
from segctl.data.files import bands
from segctl.data.files.archives import PlainFile
from segctl.data.files.bands import BandChoice
from segctl.data.inspect.check_source import check_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError
from tests.data.own_files import CSV, color_mask, draw_ids, palette, train_ids

SIZES = {"a": (70, 100), "b": (33, 64), "c": (32, 32), "d": (64, 39)}


def pixels(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number + 50).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of different sizes with index labels, and their class table."""
    for number, (name, size) in enumerate(SIZES.items()):
        for kind, array in (("images", pixels(number, size)), ("labels", draw_ids(number, *size))):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{name}.png")
    (tmp_path / "classes.csv").write_text(CSV)
    return tmp_path


def own(folder: Path, images: str = "images", labels: str = "labels", side: int = 32, overlap: int = 0, **more) -> OwnFiles:
    choice = TileChoice(side, overlap)
    return OwnFiles(folder / images, folder / labels, folder / "classes.csv", ("val=0.5",), tiles=choice, **more)


@pytest.mark.parametrize(
    ("length", "side", "overlap", "cuts"),
    [
        (32, 32, 0, [(0, 32)]),
        (10, 32, 0, [(0, 10)]),
        (39, 32, 0, [(0, 39)]),  # 7 pixels are less than a quarter of a tile
        (40, 32, 0, [(0, 32), (32, 40)]),
        (100, 32, 0, [(0, 32), (32, 64), (64, 100)]),
        (100, 40, 10, [(0, 40), (30, 70), (60, 100)]),
        (104, 40, 10, [(0, 40), (30, 70), (60, 104)]),
        (60, 32, 16, [(0, 32), (16, 48), (32, 60)]),
        (100, 32, 31, [(start, start + 32) for start in range(67)] + [(67, 100)]),
        (110, 40, 10, [(0, 40), (30, 70), (60, 100), (90, 110)]),
    ],
)
def test_a_side_is_cut_without_slivers(length: int, side: int, overlap: int, cuts: list[tuple[int, int]]) -> None:
    assert TileChoice(side, overlap).cuts(length) == cuts


def put_together(dataset: PreparedDataset, name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
    """The picture and the label that the tiles of a picture show, and how often their pixels were written in all."""
    image, label, count = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), 0
    for tile in dataset.samples:
        stem, row, column = tile.rsplit("_", 2) if "_r" in tile else (tile, "r0", "c0")
        if stem == name:
            part = dataset.label(tile)
            top, left = int(row[1:]), int(column[1:])
            where = slice(top, top + part.shape[0]), slice(left, left + part.shape[1])
            image[where], label[where] = dataset.image(tile), part
            count += part.size
    return image, label, count


@pytest.mark.parametrize("large", [False, True])
def test_tiles_are_the_pictures_again_and_splits_are_by_picture(large: bool, folder: Path, monkeypatch) -> None:
    if large:
        pytest.importorskip("rasterio")
        monkeypatch.setattr(tiling, "WHOLE_PX", 1100)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow refuses twice as many
    source = open_own("fields", own(folder))
    assert not source.problems
    dataset = prepare_source(source, folder / "data", workers=1)
    assert sorted(dataset.samples)[:4] == [f"a_r000000_c{left:06d}" for left in (0, 32, 64)] + ["a_r000032_c000000"]
    assert [name for name in sorted(dataset.samples) if name[0] != "a"] == [
        "b_r000000_c000000",
        "b_r000000_c000032",
        "c",
        "d_r000000_c000000",
        "d_r000032_c000000",
    ]
    for number, (name, size) in enumerate(SIZES.items()):
        image, label, count = put_together(dataset, name, size)
        np.testing.assert_array_equal(image, pixels(number, size))
        np.testing.assert_array_equal(label, train_ids(draw_ids(number, *size)))
        assert count == size[0] * size[1]
    pictures = [{name[0] for name in dataset.splits[split]} for split in ("train", "val")]
    assert pictures[0].isdisjoint(pictures[1])
    assert pictures[0] | pictures[1] == set(SIZES)
    assert dataset.groups is not None
    assert {dataset.groups[name] for name in dataset.samples} == set(SIZES)
    assert any("3 of 4 pictures are cut into 10 tiles of 32×32 pixels" in note for note in dataset.provenance.notes)
    assert "tiles 32 0" in dataset.provenance.rule
    again = prepare_source(open_own("fields", own(folder)), folder / "data", workers=1)
    assert again.provenance.created == dataset.provenance.created
    other = prepare_source(open_own("fields", own(folder, overlap=8)), folder / "data", workers=1)
    assert other.fingerprint != dataset.fingerprint


@pytest.mark.parametrize("kind", ["palette", "mask", "tiled.tif", "bits"])
def test_labels_of_every_kind_are_read_in_rows_as_whole(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rasterio = pytest.importorskip("rasterio")
    for number, (name, size) in enumerate(SIZES.items()):
        ids, path = draw_ids(number, *size), folder / "labels" / f"{name}.png"
        path.unlink()
        match kind:
            case "palette":
                palette(ids).save(path)
            case "mask":
                Image.fromarray(color_mask(ids)).save(path)
            case "bits":  # of four bits a pixel
                mapped = Image.fromarray(ids).convert("P")
                mapped.putdata(ids.ravel().tolist())
                mapped.putpalette([0, 0, 0, 128, 64, 128, 0, 0, 0, 255, 0, 0])
                Image.fromarray(np.where(ids == 9, 3, ids)).save(path, bits=4)
            case _:
                profile = {"height": size[0], "width": size[1], "count": 1, "dtype": "uint8", "tiled": True}
                with rasterio.open(
                    path.with_suffix(".tif"), "w", driver="GTiff", blockxsize=16, blockysize=16, **profile
                ) as file:
                    file.write(ids, 1)
    (folder / "classes.csv").write_text("name,id\nroad,1\ncrack,3\nglare,9\n" if kind != "mask" else CSV)
    whole = prepare_source(open_own("fields", own(folder)), folder / "whole", workers=1)
    monkeypatch.setattr(tiling, "WHOLE_PX", 500)
    rows = prepare_source(open_own("fields", own(folder)), folder / "rows", workers=1)
    assert {name: record.pixels_sha256 for name, record in rows.samples.items()} == {
        name: record.pixels_sha256 for name, record in whole.samples.items()
    }
    assert rows.label_counts == whole.label_counts


@pytest.mark.parametrize("large", [False, True])
def test_annotations_are_cut_as_label_maps_are(large: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        pytest.importorskip("rasterio")
        monkeypatch.setattr(tiling, "WHOLE_PX", 500)
    images = [{"id": n, "file_name": f"{name}.png", "height": h, "width": w} for n, (name, (h, w)) in enumerate(SIZES.items())]
    shape = {"id": 1, "image_id": 0, "category_id": 7, "iscrowd": 0, "segmentation": [[20, 20, 90, 20, 90, 60, 20, 60]]}
    coco = {"images": images, "annotations": [shape], "categories": [{"id": 7, "name": "field"}]}
    (folder / "labels.json").write_text(json.dumps(coco))
    given = OwnFiles(folder / "images", folder / "labels.json", splits=("val=0.5",), tiles=TileChoice(32))
    dataset = prepare_source(open_own("fields", given), folder / "data", workers=1)
    _, label, _ = put_together(dataset, "a", SIZES["a"])
    wanted = np.zeros(SIZES["a"], np.uint8)
    wanted[20:60, 20:90] = 1
    np.testing.assert_array_equal(label, wanted)


def test_scaled_bands_are_cut_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rasterio = pytest.importorskip("rasterio")
    for number, (name, size) in enumerate(SIZES.items()):
        (folder / "images" / f"{name}.png").unlink()
        profile = {"height": size[0], "width": size[1], "count": 5, "dtype": "uint16"}
        with rasterio.open(folder / "images" / f"{name}.tif", "w", driver="GTiff", **profile) as file:
            file.write(np.random.default_rng(number).integers(0, 4000, (5, *size), np.uint16))
    choice = BandChoice.of("5,1", ["percentile"])
    assert choice is not None
    whole = prepare_source(open_own("fields", own(folder, bands=choice)), folder / "whole", workers=1)
    monkeypatch.setattr(tiling, "WHOLE_PX", 500)
    monkeypatch.setattr(bands, "IN_ROWS_PX", 500)
    monkeypatch.setattr(bands, "MEASURED_PIXELS", 700)
    several = [PlainFile("x", path) for path in sorted((folder / "images").iterdir())]
    in_rows = choice.resolved(several)
    monkeypatch.setattr(bands, "IN_ROWS_PX", 10**9)
    assert choice.resolved(several) == in_rows
    monkeypatch.undo()
    monkeypatch.setattr(tiling, "WHOLE_PX", 500)
    monkeypatch.setattr(bands, "IN_ROWS_PX", 500)
    rows = prepare_source(open_own("fields", own(folder, bands=choice)), folder / "rows", workers=1)
    assert whole.bands == rows.bands == 2
    assert {name: record.pixels_sha256 for name, record in rows.samples.items()} == {
        name: record.pixels_sha256 for name, record in whole.samples.items()
    }


def test_one_colour_in_both_splits_gives_nothing_away_but_a_picture_does(folder: Path) -> None:
    for name in ("a", "b", "d"):
        image = np.array(Image.open(folder / "images" / f"{name}.png"))
        image[:32, :32] = 0  # outside of the satellite's view
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    assert not [found for found in check_source(open_own("fields", own(folder))) if "same picture" in found.problem]
    splits = open_own("fields", own(folder)).splits
    first, second = (next(name for name in splits[split] if name[0] in "ad")[0] for split in ("train", "val"))
    for kind in ("images", "labels"):
        (folder / kind / f"{second}.png").write_bytes((folder / kind / f"{first}.png").read_bytes())
    assert [found for found in check_source(open_own("fields", own(folder))) if "same picture" in found.problem]


def test_a_picture_above_pillows_limit_names_the_option(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    options = [
        "--images",
        "images",
        "--labels",
        "labels",
        "--classes",
        "classes.csv",
        "--split",
        "val=0.5",
        "--data-root",
        "data",
    ]
    monkeypatch.chdir(folder)
    assert main(["data", "prepare", "fields", *options, "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert "is larger than" in said
    assert "--tile 1024" in said
    with zipfile.ZipFile("images.zip", "w") as archive:
        for path in (folder / "images").iterdir():
            archive.write(path, path.name)
    assert main(["data", "prepare", "fields", *options, "--images", "images.zip", "--tile", "32", "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert "so large a picture must be a TIFF, PNG or JPEG file outside of archives" in said
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "3"], "--overlap is 3, but pictures are not cut"),
        (["--tile", "32", "--overlap", "17"], "--overlap is 17, wanted at most half of --tile, 16"),
        (["--tile", "32", "--instances", "labels"], "--tile cannot be combined with --instances"),
    ],
)
def test_options_that_do_not_go_together_are_a_sentence(options, message: str, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    files = ["--images", "images", "--labels", "labels", "--classes", "classes.csv", "--split", "val=0.5"]
    assert main(["data", "prepare", "fields", *files, *options, "--data-root", "data"]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert main(["data", "prepare", "camvid", "--tile", "32", "--data-root", "data"]) == 2
    assert "error: --tile is for your own images" in capsys.readouterr().err


def test_labels_that_are_lossy_resized_or_cut_short_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio")
    monkeypatch.setattr(tiling, "WHOLE_PX", 500)
    path = folder / "labels" / "a.png"
    whole = path.read_bytes()
    stream = io.BytesIO()
    Image.fromarray(draw_ids(0, *SIZES["a"])).save(stream, "JPEG")
    for content, words in ((stream.getvalue(), "is lossy"), (whole[:700], "cannot read")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            prepare_source(open_own("fields", own(folder)), folder / "data", workers=1)
    Image.fromarray(draw_ids(0, 50, 100)).save(path)
    with pytest.raises(InputError, match="100×50 pixels, wanted 100×70"):
        prepare_source(open_own("fields", own(folder)), folder / "data", workers=1)


def test_pictures_that_fit_in_a_tile_stay_as_they_are(folder: Path) -> None:
    source, plain = open_own("fields", own(folder, side=100)), open_own("fields", replace(own(folder), tiles=None))
    assert (source.rule, source.splits, source.groups) == (plain.rule, plain.splits, None)
    assert source.notes[-1] == "none of the pictures is larger than 100 pixels, so none is cut"


def test_processes_give_the_same_tiles(folder: Path) -> None:
    prepare_source(open_own("fields", own(folder)), folder / "one", workers=1)
    prepare_source(open_own("fields", own(folder)), folder / "two", workers=2)
    assert open_dataset(folder / "one", "fields").fingerprint == open_dataset(folder / "two", "fields").fingerprint


def test_pictures_without_labels_are_cut_alike_so_that_one_of_val_is_found(folder: Path, tmp_path: Path) -> None:
    # Tiles of one colour are not copies of each other: many satellite pictures have the same border.
    for name, array in (("new", pixels(9, (70, 100))), ("border", np.zeros((64, 64, 3), np.uint8))):
        (tmp_path / "more").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "more" / f"{name}.png")
        Image.fromarray(array).save(tmp_path / "more" / f"{name}-again.png")
    opened = open_own("fields", own(folder))
    train, val = opened.splits["train"][0].split("_")[0], opened.splits["val"][0].split("_")[0]
    (tmp_path / "more" / "known.png").write_bytes((folder / "images" / f"{train}.png").read_bytes())
    prepare_source(with_unlabelled(opened, [tmp_path / "more"], TileChoice(32)), tmp_path / "data", workers=1)
    found = open_dataset(tmp_path / "data", "fields")
    new = [name for name in found.splits["unlabelled"] if name.startswith("unlabelled-new")]
    assert len(new) == 6  # of two equal pictures one is kept
    assert sum("border" in name for name in found.splits["unlabelled"]) == 8
    assert not any("known" in name for name in found.splits["unlabelled"])
    tile = next(name for name in new if name.endswith("_r000032_c000064"))
    assert np.array_equal(found.image(tile), pixels(9, (70, 100))[32:70, 64:100])
    assert not found.has_label(tile)
    assert "of 5 pictures without labels are cut into" in " ".join(found.provenance.notes)
    (tmp_path / "more" / "leak.png").write_bytes((folder / "images" / f"{val}.png").read_bytes())
    with pytest.raises(InputError, match="shows the same picture as"):
        prepare_source(with_unlabelled(opened, [tmp_path / "more"], TileChoice(32)), tmp_path / "data", workers=1)


def test_a_large_picture_without_label_is_read_by_rows_as_it_is_read_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio")
    (folder / "more").mkdir()
    Image.fromarray(pixels(9, (70, 100))).save(folder / "more" / "new.png")
    sources = []
    for limit in (tiling.WHOLE_PX, 500):
        monkeypatch.setattr(tiling, "WHOLE_PX", limit)
        sources.append(with_unlabelled(open_own("fields", own(folder)), [folder / "more"], TileChoice(32)))
    whole, rows = sources
    assert whole.splits == rows.splits
    for name in whole.splits["unlabelled"]:
        assert np.array_equal(whole.samples.read(name).image, rows.samples.read(name).image)
        assert rows.samples.read(name).label is None
        assert rows.samples.size(name) == rows.samples.read(name).image.shape[:2]
