"""Pictures that are predicted part by part get the mask that they would get in one piece, and GeoTIFFs stay where they lie."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segctl.cli import main
from segctl.data.files.windows import open_windows
from segctl.errors import InputError
from segctl.evaluate.draw_masks import write_index, write_index_rows
from segctl.evaluate.predictor import predict_classes, sliding_rows
from segctl.inference import run_network
from segctl.models import load
from segctl.runtime.device import choose_compute
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol
from tests.slow_cases import slow_after

rasterio = pytest.importorskip("rasterio")
PICTURE = np.random.default_rng(0).integers(0, 256, (150, 97, 3), np.uint8)


@pytest.mark.parametrize(("tile", "stride"), slow_after([((32, 48), 2 / 3), ((64, 97), 1.0), ((150, 40), 0.5), ((32, 32), 0.2)]))
def test_rows_are_those_of_the_picture_in_one_piece(toy_teacher: Path, tile: tuple[int, int], stride: float) -> None:
    model, compute, sliding = load(toy_teacher), choose_compute("cpu", "fp32"), SlidingProtocol(tile=tile, stride=stride)
    pixels = torch.from_numpy(PICTURE)
    wanted = predict_classes(model, pixels[None], EvaluateSpec(protocol=sliding), compute)[0]
    asked: list[tuple[int, int]] = []

    def read(top: int, rows: int) -> torch.Tensor:
        asked.append((top, rows))
        return pixels[top : top + rows]

    found = torch.cat([*sliding_rows(model, (150, 97), read, sliding, compute)])
    assert torch.equal(found, wanted)
    assert [top for top, _ in asked] == [0, *np.cumsum([rows for _, rows in asked])[:-1]]  # each row once, downwards
    assert sum(rows for _, rows in asked) == 150


def test_a_mask_in_parts_is_the_mask_in_one(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(0, 11, (50, 33), np.uint8)
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), np.uint8)
    for colors in (palette, None):
        write_index_rows(tmp_path / "parts.png", iter([ids[:7], ids[7:8], ids[8:]]), (50, 33), colors)
        write_index(tmp_path / "whole.png", ids, colors)
        with Image.open(tmp_path / "parts.png") as parts, Image.open(tmp_path / "whole.png") as whole:
            assert (parts.mode, parts.getpalette()) == (whole.mode, whole.getpalette())
            np.testing.assert_array_equal(np.array(parts), ids)


def geotiff(path: Path, values: np.ndarray = PICTURE) -> Path:
    height, width, count = values.shape
    place = rasterio.transform.from_origin(500_000, 5_400_000, 10, 10)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=values.dtype.name,
        crs="EPSG:32633",
        transform=place,
    ) as file:
        file.write(values.transpose(2, 0, 1))
    return path


@pytest.fixture
def here(toy_teacher: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(toy_teacher)
    Image.fromarray(PICTURE).save(tmp_path / "plain.png")
    geotiff(tmp_path / "placed.tif")
    return tmp_path


def test_a_geotiff_gets_a_mask_with_its_place(here: Path) -> None:
    assert main(["predict", "run", "plain.png", "placed.tif", "-o", "out"]) == 0
    with Image.open(here / "out" / "plain.png") as plain:
        wanted = np.array(plain)
    with rasterio.open(here / "out" / "placed.tif") as mask, rasterio.open(here / "placed.tif") as picture:
        assert (mask.crs, mask.transform) == (picture.crs, picture.transform)
        np.testing.assert_array_equal(mask.read(1), wanted)
    assert not (here / "out" / "placed.png").exists()


def test_large_pictures_are_predicted_in_parts_with_the_same_masks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sliding = ["--protocol", "sliding", "--tile", "32x48"]
    assert main(["predict", "run", "plain.png", "placed.tif", "-o", "whole", *sliding]) == 0
    monkeypatch.setattr(run_network, "IN_PARTS_PX", 1000)
    monkeypatch.setattr("segctl.inference.predict_pictures.LARGE_MASK_PX", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow would refuse to read them
    assert main(["predict", "run", "plain.png", "placed.tif", "-o", "parts", *sliding]) == 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for name in ("plain.png", "placed.tif"):
        with Image.open(here / "parts" / name) as parts, Image.open(here / "whole" / name) as whole:
            np.testing.assert_array_equal(np.array(parts), np.array(whole))


def test_a_large_picture_in_one_piece_is_refused_with_the_way_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert main(["predict", "run", "plain.png", "-o", "out"]) == 2
    assert "segctl predict --protocol sliding" in capsys.readouterr().err
    monkeypatch.setattr(run_network, "IN_PARTS_PX", 1000)
    assert main(["predict", "run", "plain.png", "-o", "out", "--protocol", "sliding", "--tile", "32x48", "--overlay"]) == 2
    assert "'plain.png' is too large for an overlay" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_a_large_picture_that_is_cut_short_is_named_and_the_others_are_done(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_network, "IN_PARTS_PX", 1000)
    whole = (here / "plain.png").read_bytes()
    (here / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert main(["predict", "run", "cut.png", "plain.png", "-o", "out", "--protocol", "sliding", "--tile", "32x48"]) == 2
    assert "cannot read 'cut.png'" in capsys.readouterr().err
    assert sorted(path.name for path in (here / "out").iterdir()) == ["plain.png", "predict.json"]


def test_parts_are_judged_like_whole_pictures(tmp_path: Path) -> None:
    with open_windows(geotiff(tmp_path / "rgb.tif")) as windows:
        np.testing.assert_array_equal(windows.read(10, 20, 30, 40), PICTURE[10:40, 20:60])
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / "grey.png")
    with open_windows(tmp_path / "grey.png") as windows:
        np.testing.assert_array_equal(windows.read(0, 0, 3, 4), PICTURE[:3, :4, :1].repeat(3, 2))
    geotiff(tmp_path / "deep.tif", PICTURE.astype(np.uint16))
    geotiff(tmp_path / "wide.tif", np.zeros((4, 4, 6), np.uint8))
    Image.fromarray(PICTURE).save(tmp_path / "a.webp")
    Image.fromarray(PICTURE).save(
        tmp_path / "turned.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    )
    for name in ("deep.tif", "wide.tif", "a.webp", "turned.jpg", "gone.tif"):
        with pytest.raises(InputError, match=name), open_windows(tmp_path / name):
            pass
