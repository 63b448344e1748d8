"""Photos that are stored turned become upright where the sizes of photo and label tell what the label was drawn on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.inspect.check_source import check_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from tests.data.own_files import CSV, draw_ids, train_ids

UPRIGHT = (20, 12)
"""(H, W) of the photos when they are upright, as a phone shows them."""
STORE = {
    1: lambda array: array,
    3: lambda array: np.rot90(array, 2),
    6: lambda array: np.rot90(array, 1),  # the phone must turn it by 90 degrees clockwise
    8: lambda array: np.rot90(array, -1),
    5: lambda array: array.swapaxes(0, 1),
}
"""What a camera stores under each EXIF orientation."""


def photo(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*UPRIGHT, 3), np.uint8)


def write(folder: Path, orientations: list[int], *, stored_labels: bool = False, size: tuple[int, int] = UPRIGHT) -> OwnFiles:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "classes.csv").write_text(CSV)
    for number, orientation in enumerate(orientations):
        exif = Image.Exif()
        exif[0x0112] = orientation
        store = STORE[orientation]
        picture, label = photo(number)[: size[0], : size[1]], draw_ids(number, *size)
        Image.fromarray(np.ascontiguousarray(store(picture))).save(folder / "images" / f"{number}.png", exif=exif)
        Image.fromarray(np.ascontiguousarray(store(label) if stored_labels else label)).save(folder / "labels" / f"{number}.png")
    return OwnFiles(folder / "images", folder / "labels", folder / "classes.csv", ("val=0.3",))


def require_upright(dataset: PreparedDataset) -> None:
    for name in dataset.samples:
        np.testing.assert_array_equal(dataset.image(name), photo(int(name)))
        np.testing.assert_array_equal(dataset.label(name), train_ids(draw_ids(int(name), *UPRIGHT)))


@pytest.mark.parametrize("stored_labels", [False, True])
@pytest.mark.parametrize("codec", ["lz4", "source"])
def test_sizes_tell_what_a_label_was_drawn_on(stored_labels: bool, codec, tmp_path: Path) -> None:
    own = write(tmp_path, [1, 6, 8, 5], stored_labels=stored_labels)
    assert check_source(open_own("photos", own)) == []
    dataset = prepare_source(open_own("photos", own), tmp_path / "data", codec=codec, workers=1)
    require_upright(dataset)
    assert {dataset.samples[name].height for name in dataset.samples} == {20}
    remarks = {text: count for counts in dataset.label_counts.values() for text, count in counts.remarks.items()}
    assert list(remarks) == ["images stored turned (EXIF), made upright as the sizes of their labels show"]


def test_the_count_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [6, 6, 1])
    files = [
        f"--{kind}={tmp_path / name}" for kind, name in (("images", "images"), ("labels", "labels"), ("classes", "classes.csv"))
    ]
    assert (
        main(["data", "prepare", "photos", *files, "--split", "val=0.3", "--workers", "1", "--data-root", str(tmp_path / "d")])
        == 0
    )
    shown = capsys.readouterr()
    assert "images stored turned (EXIF), made upright as the sizes of their labels show: 2" in shown.out + shown.err


@pytest.mark.parametrize(
    ("orientation", "size"),
    [(3, UPRIGHT), (6, (12, 12)), (8, (12, 12))],
    ids=["upside down", "square", "square, left"],
)
def test_where_sizes_tell_nothing_the_photo_is_refused(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    own = write(tmp_path, [1, 1, orientation], size=size)
    with pytest.raises(
        InputError, match=rf"sample '2' \(2.png\) is stored turned or mirrored \(EXIF orientation {orientation}\)"
    ):
        prepare_source(open_own("photos", own), tmp_path / "data", workers=1)
    assert not (tmp_path / "data" / "photos").exists()


def test_a_label_of_neither_size_is_refused(tmp_path: Path) -> None:
    own = write(tmp_path, [1, 1, 6])
    Image.fromarray(draw_ids(2, 10, 6)).save(tmp_path / "labels" / "2.png")
    with pytest.raises(InputError, match="is stored turned or mirrored"):
        prepare_source(open_own("photos", own), tmp_path / "data", workers=1)


@pytest.mark.parametrize(("size", "fits"), [(UPRIGHT, True), (UPRIGHT[::-1], False), (None, False)])
def test_annotations_count_only_where_they_name_the_upright_size(size, fits: bool, tmp_path: Path) -> None:
    write(tmp_path, [6, 6, 6])
    images = [
        {"id": n, "file_name": f"{n}.png", **({} if size is None else {"height": size[0], "width": size[1]})} for n in range(3)
    ]
    shapes = [
        {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": [[2, 3, 10, 3, 10, 15, 2, 15]]} for n in range(3)
    ]
    coco = {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "door"}]}
    (tmp_path / "labels.json").write_text(json.dumps(coco))
    source = open_own("photos", OwnFiles(tmp_path / "images", tmp_path / "labels.json", splits=("val=0.3",)))
    if not fits:
        with pytest.raises(InputError, match="is stored turned or mirrored"):
            prepare_source(source, tmp_path / "data", workers=1)
        return
    dataset = prepare_source(source, tmp_path / "data", workers=1)
    wanted = np.zeros(UPRIGHT, np.uint8)
    wanted[3:15, 2:10] = 1
    for name in dataset.samples:
        np.testing.assert_array_equal(dataset.image(name), photo(int(name)))
        np.testing.assert_array_equal(dataset.label(name), wanted)
