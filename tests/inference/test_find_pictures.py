"""Files, folders and patterns become pictures, each once, upright."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.errors import InputError
from segctl.inference.find_pictures import find_pictures, read_upright

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG", "deep/c.bmp", ".hidden.png"):
        draw(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def names(*given: object) -> list[str]:
    return [picture.name for picture in find_pictures([str(one) for one in given])]


def test_a_folder_stands_for_all_pictures_below_it(folder: Path) -> None:
    assert names(folder) == ["a", "b", "deep/c"]


def test_linked_folders_are_followed_and_folders_of_editors_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "linked").symlink_to(folder)
    draw(folder / ".ipynb_checkpoints" / "a-checkpoint.png")
    draw(folder / "__MACOSX" / "a.png")
    assert names(tmp_path / "out") == ["linked/a", "linked/b", "linked/deep/c"]


def test_files_and_patterns_stand_for_themselves_and_nothing_comes_twice(folder: Path) -> None:
    assert names(folder / "b.JPG", folder / "*.png", folder / "**" / "*.bmp", folder / "a.png") == ["b", "a", "c"]


def test_a_file_of_any_ending_may_be_named(folder: Path) -> None:
    assert names(folder / "notes.txt") == ["notes"]


def test_two_pictures_of_one_name_are_refused(folder: Path) -> None:
    draw(folder / "a.jpg")
    with pytest.raises(InputError) as error:
        names(folder / "a.png", folder / "a.jpg")
    assert error.value.message == f"'{folder / 'a.png'}' and '{folder / 'a.jpg'}' would both become 'a.png'"


@pytest.mark.parametrize("text", ["nowhere", "no*thing"])
def test_what_stands_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        find_pictures([text])
    assert error.value.message == f"'{text}' is not a picture, a folder or a pattern that matches pictures"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        find_pictures([str(tmp_path)])


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.fromarray(PIXELS).save(tmp_path / "t.png", exif=exif)
    np.testing.assert_array_equal(read_upright(tmp_path / "t.png"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_grey_palette_and_transparent_pictures_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "p.tif")
    assert read_upright(tmp_path / "p.tif").shape == (2, 3, 3)


def test_deep_and_damaged_pictures_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"'.*deep.png' is 16 bits deep, wanted 8-bit colour or grey"):
        read_upright(tmp_path / "deep.png")
    (tmp_path / "no.jpg").write_bytes(b"hello")
    with pytest.raises(InputError) as error:
        read_upright(tmp_path / "no.jpg")
    assert error.value.message == f"cannot read '{tmp_path / 'no.jpg'}': it is not a picture"
