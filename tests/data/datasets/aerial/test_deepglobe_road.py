"""DeepGlobe Road, with a few small pictures."""

from pathlib import Path

import numpy as np
import pytest
from archive_files import write_folder
from cityscapes_files import png
from deepglobe_files import IDS, SIZE, jpeg, tree

from segctl.data.datasets import class_table, open_source
from segctl.data.datasets.aerial.deepglobe_road import RoadRule
from segctl.data.prepare import prepare_source
from segctl.errors import InputError


def road_mask(seed: int) -> np.ndarray:
    """uint8 (H, W, 3): grey pixels of all values, and two red ones."""
    grey = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 1)).astype(np.uint8).repeat(3, 2)
    grey[0, :2] = (255, 0, 0)
    return grey


def roads() -> dict[str, bytes]:
    files = {f"train/{name}_sat.jpg": jpeg(int(name)) for name in IDS} | {"valid/7_sat.jpg": jpeg(7)}
    return files | {f"train/{name}_mask.png": png(road_mask(int(name))) for name in IDS}


def test_127_is_no_road_128_is_one_and_a_coloured_pixel_is_ignored() -> None:
    mask = np.array([[[127, 127, 127], [128, 128, 128], [0, 0, 0], [255, 255, 255]]] * 25, np.uint8)
    mask[0, 0] = (255, 0, 0)
    label, unknown = RoadRule().train_ids("it", mask)
    assert label[0].tolist() == [255, 1, 0, 1]
    assert label[1].tolist() == [0, 1, 0, 1]
    assert unknown.pixels == 1
    assert RoadRule().train_ids("it", mask[1:, :, 0])[0].tolist() == [[0, 1, 0, 1]] * 24


def test_every_mask_is_read_pixel_by_pixel_and_coloured_pixels_are_counted(tmp_path: Path) -> None:
    source = open_source("deepglobe-road", [write_folder(tmp_path / "road", roads())])
    for name in IDS:
        wanted = [[255 if len({value >= 128 for value in pixel}) > 1 else int(pixel[0] >= 128) for pixel in row]
                  for row in road_mask(int(name)).tolist()]  # fmt: skip
        sample = source.samples.read(name)
        assert sample.label.tolist() == wanted
        assert sample.unknown_pixels == 2


def test_land_cover_masks_are_refused(tmp_path: Path) -> None:
    source = open_source("deepglobe-road", [write_folder(tmp_path / "land", tree())])
    with pytest.raises(InputError, match=r"is coloured on \d\d\.\d % of its pixels, wanted black and white"):
        source.samples.read(IDS[0])


def test_folds_are_those_of_land_cover_and_the_score_is_that_of_roads(tmp_path: Path) -> None:
    source = open_source("deepglobe-road", [write_folder(tmp_path / "road", roads())])
    assert source.splits["all"] == IDS
    assert [source.splits[f"val_fold{fold}"] for fold in range(5)] == [IDS[2 * fold : 2 * fold + 2] for fold in range(5)]
    assert source.notes == (
        "1 pictures of valid and test are left out: they have no masks",
        "these are 11 pictures, not the official 6226: the folds are cut by the same rule",
    )
    dataset = prepare_source(source, tmp_path / "data", workers=0)
    assert dataset.classes.binary
    assert dataset.classes.names == class_table("deepglobe-road").names == ["background", "road"]
