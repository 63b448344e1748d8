import numpy as np
import pytest
from PIL import Image

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.inspect.preview import CELL_PX, color_label, draw_sheet, write_preview
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError


def test_the_sheet_is_written_whole_with_every_sample_of_a_small_split(dataset, tmp_path):
    path = tmp_path / "new" / "sheet.png"
    assert write_preview(dataset, "train", path) == dataset.names("train")
    with Image.open(path) as sheet:
        sheet.load()
        assert sheet.width > 4 * CELL_PX
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_a_large_split_is_sampled_evenly(shapes_root, tmp_path):
    shapes = open_dataset(shapes_root, "shapes")
    assert write_preview(shapes, "train", tmp_path / "sheet.png") == shapes.names("train")[::20]


def test_pictures_and_label_colours_are_on_the_sheet(dataset):
    name = dataset.names("val")[0]
    sheet = np.asarray(draw_sheet(dataset, "val", [name])).reshape(-1, 3)
    for train_id in np.unique(dataset.label(name)):
        if train_id != 255:
            assert (sheet == dataset.classes.palette()[train_id]).all(1).sum() > 50


def test_ignored_pixels_are_hatched_in_grey():
    table = ClassTable((ClassRow("road", 0, 0, (128, 64, 128)),))
    colored = color_label(np.array([[0, 255, 255, 255, 255, 255, 255, 255, 255]], np.uint8), table)
    assert colored[0, 0].tolist() == [128, 64, 128]
    assert {tuple(pixel) for pixel in colored[0, 1:].tolist()} == {(240, 240, 240), (200, 200, 200)}


def test_an_unknown_split_is_refused_and_nothing_is_written(dataset, tmp_path):
    with pytest.raises(InputError, match="has no split called 'test'"):
        write_preview(dataset, "test", tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []
