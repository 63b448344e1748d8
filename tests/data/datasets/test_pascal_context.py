"""PASCAL Context: 59 classes of index maps, by its own lists."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.data.datasets import open_source
from segctl.data.datasets.pascal_context import CLASSES, CONTEXT_NAMES
from segctl.data.inspect.check_source import check_source
from segctl.errors import InputError

LISTS = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000007"]}


def write(root: Path, top: str = "VOCdevkit/VOC2010") -> Path:
    for number, name in enumerate([name for names in LISTS.values() for name in names]):
        label = np.array([[0, 1, 2], [58, 59, number + 3]], np.uint8)
        for path, array in (
            (f"JPEGImages/{name}.jpg", np.zeros((2, 3, 3), np.uint8)),
            (f"SegmentationClassContext/{name}.png", label),
        ):
            (root / top / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array + np.uint8(number * (array.ndim == 3))).save(root / top / path)
    lists = root / top / "ImageSets/SegmentationContext"
    lists.mkdir(parents=True)
    for split, names in LISTS.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def test_ids_are_59_classes_in_alphabetical_order() -> None:
    assert len(CONTEXT_NAMES) == CLASSES.num_classes == 59
    assert list(CONTEXT_NAMES) == sorted(CONTEXT_NAMES)
    assert (CONTEXT_NAMES[0], CONTEXT_NAMES[14], CONTEXT_NAMES[58]) == ("aeroplane", "cat", "wood")
    assert len(CLASSES.rows) == 60


def test_every_listed_picture_is_a_sample(tmp_path: Path) -> None:
    source = open_source("pascal-context", [write(tmp_path)])
    assert source.splits == LISTS
    assert source.problems == ()
    sample = source.samples.read("2008_000003")
    np.testing.assert_array_equal(sample.label, [[255, 0, 1], [57, 58, 3]])
    assert source.notes[-2:] == ("train has 2 pictures, not the official 4998", "val has 1 pictures, not the official 5105")


def test_images_and_label_maps_may_lie_in_two_sources(tmp_path: Path) -> None:
    write(tmp_path / "all")
    (tmp_path / "maps").mkdir()
    (tmp_path / "all/VOCdevkit/VOC2010/SegmentationClassContext").rename(tmp_path / "maps/SegmentationClassContext")
    source = open_source("pascal-context", [tmp_path / "all", tmp_path / "maps"])
    assert source.samples.size("2008_000007") == (2, 3)


def test_what_is_missing_or_foreign_is_named(tmp_path: Path) -> None:
    top = write(tmp_path) / "VOCdevkit/VOC2010"
    label = top / "SegmentationClassContext/2008_000007.png"
    Image.fromarray(np.full((2, 3), 60, np.uint8)).save(label)
    source = open_source("pascal-context", [tmp_path])
    with pytest.raises(InputError, match="holds the id 60"):
        source.samples.read("2008_000007")
    label.unlink()
    (problem,) = open_source("pascal-context", [tmp_path]).problems
    assert "'SegmentationClassContext/2008_000007.png' is missing" in problem.problem
    assert len(check_source(open_source("pascal-context", [tmp_path]))) == 1
    (top / "ImageSets/SegmentationContext/val.txt").unlink()
    with pytest.raises(InputError, match=r"no ImageSets/SegmentationContext/val.txt"):
        open_source("pascal-context", [tmp_path])
