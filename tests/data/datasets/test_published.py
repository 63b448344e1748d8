"""ADE20K, COCO-Stuff, Mapillary Vistas, Nighttime Driving and Dark Zurich, in the layouts that their archives have."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_folder, write_zip
from cityscapes_files import png
from PIL import Image

from segctl.data.datasets import KNOWN, class_table, open_source
from segctl.data.datasets.cityscapes_classes import CLASSES as CITYSCAPES
from segctl.data.prepare import prepare_source
from segctl.errors import InputError

Tree = dict[str, bytes]
EVERY_ID = np.arange(256, dtype=np.uint8).reshape(16, 16)


def jpeg(mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (16, 16), 90).save(stream, "JPEG")
    return stream.getvalue()


def palette_png(values: np.ndarray) -> bytes:
    image, stream = Image.fromarray(values, "P"), io.BytesIO()
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(stream, "PNG")
    return stream.getvalue()


def ids_up_to(most: int, *others: int) -> np.ndarray:
    """uint8 (16, 16): all ids from 0 to `most`, the others behind them, then zeros."""
    ids = [*range(most + 1), *others]
    return np.array(ids + [0] * (256 - len(ids)), np.uint8).reshape(16, 16)


COCO_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
COCO_IDS = [value for value in range(182) if value not in COCO_GAPS]


def coco_label() -> np.ndarray:
    return np.array(COCO_IDS + [255] * (256 - len(COCO_IDS)), np.uint8).reshape(16, 16)


def ade20k() -> Tree:
    root = "ADEChallengeData2016"
    label = png(ids_up_to(150))
    return {
        f"{root}/images/training/ADE_train_00000001.jpg": jpeg(),
        f"{root}/annotations/training/ADE_train_00000001.png": label,
        f"{root}/images/validation/ADE_val_00000001.jpg": jpeg(),
        f"{root}/annotations/validation/ADE_val_00000001.png": label,
        f"{root}/objectInfo150.txt": b"not read",
    }


def coco_stuff() -> Tree:
    return {
        "images/train2017/000000000009.jpg": jpeg("L"),
        "annotations/train2017/000000000009.png": png(coco_label()),
        "annotations/train2017/000000000009_labelTrainIds.png": png(ids_up_to(170)),
        "images/val2017/000000000139.jpg": jpeg(),
        "annotations/val2017/000000000139.png": png(coco_label()),
    }


def mapillary() -> Tree:
    return {
        "training/images/aa.jpg": jpeg(),
        "training/v1.2/labels/aa.png": palette_png(ids_up_to(65)),
        "training/v2.0/labels/aa.png": palette_png(ids_up_to(123)),
        "validation/images/bb.jpg": jpeg(),
        "validation/v1.2/labels/bb.png": palette_png(ids_up_to(65)),
        "testing/images/cc.jpg": jpeg(),
    }


def nighttime() -> Tree:
    root = "NighttimeDrivingTest"
    return {
        f"{root}/leftImg8bit/test/night/0_leftImg8bit.png": png(np.zeros((16, 16, 3), np.uint8)),
        f"{root}/gtCoarse_daytime_trainvaltest/test/night/0_gtCoarse_labelTrainIds.png": png(ids_up_to(18, 255)),
        f"{root}/gtCoarse_daytime_trainvaltest/test/night/0_gtCoarse_labelIds.png": png(ids_up_to(33)),
    }


def dark_zurich() -> Tree:
    place = "night/GOPR0356/GOPR0356_frame_000321"
    return {
        f"rgb_anon/val/{place}_rgb_anon.png": png(np.zeros((16, 16, 3), np.uint8)),
        "rgb_anon/val_ref/day/GOPR0356_ref/GOPR0356_frame_000321_ref_rgb_anon.png": png(np.zeros((16, 16, 3), np.uint8)),
        f"gt/val/{place}_gt_labelTrainIds.png": png(ids_up_to(18, 255)),
        f"gt/val/{place}_gt_labelColor.png": png(np.zeros((16, 16, 3), np.uint8)),
        f"gt/val/{place}_gt_invGray.png": png(np.zeros((16, 16), np.uint8)),
    }


TREES: dict[str, tuple[Callable[[], Tree], dict[str, int], int]] = {
    "ade20k": (ade20k, {"train": 20_210, "val": 2_000}, 150),
    "coco-stuff": (coco_stuff, {"train": 118_287, "val": 5_000}, 171),
    "mapillary-vistas": (mapillary, {"train": 18_000, "val": 2_000}, 65),
    "nighttime-driving": (nighttime, {"test": 50}, 19),
    "dark-zurich": (dark_zurich, {"val": 50}, 19),
}
"""Files, official counts, classes."""
every_dataset = pytest.mark.parametrize("name", TREES)


@every_dataset
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_the_published_layout_is_read_and_all_classes_appear(
    name: str, write: Callable[[Path, Tree], Path], tmp_path: Path
) -> None:
    draw, counts, classes = TREES[name]
    source = open_source(name, [write(tmp_path / "source", draw())])
    assert {split: len(names) for split, names in source.splits.items()} == dict.fromkeys(counts, 1)
    assert source.problems == ()
    assert source.notes == tuple(f"{split} has 1 of the official {count} pictures" for split, count in counts.items())
    for names in source.splits.values():
        sample = source.samples.read(names[0])
        assert sample.image.shape == (16, 16, 3)
        assert set(np.unique(sample.label).tolist()) == {*range(classes), 255}
    assert class_table(name).num_classes == classes


@every_dataset
def test_it_is_packed_and_read_back(name: str, tmp_path: Path) -> None:
    draw, counts, classes = TREES[name]
    source = open_source(name, [write_folder(tmp_path / "source", draw())])
    dataset = prepare_source(source, tmp_path / "data", workers=0)
    assert dataset.classes.num_classes == classes
    assert set(dataset.splits) == set(counts)


@pytest.mark.parametrize(
    ("name", "raw", "train", "called"),
    [
        ("ade20k", 0, 255, "unlabelled"), ("ade20k", 1, 0, "wall"), ("ade20k", 13, 12, "person"), ("ade20k", 150, 149, "flag"),
        ("coco-stuff", 0, 0, "person"), ("coco-stuff", 12, 11, "stop sign"), ("coco-stuff", 91, 80, "banner"),
        ("coco-stuff", 181, 170, "wood"),
        ("mapillary-vistas", 0, 0, "bird"), ("mapillary-vistas", 13, 13, "road"), ("mapillary-vistas", 64, 64, "ego vehicle"),
        ("mapillary-vistas", 65, 255, "unlabeled"),
        ("dark-zurich", 0, 0, "road"), ("dark-zurich", 18, 18, "bicycle"),
    ],
)  # fmt: skip
def test_ids_become_train_ids(name: str, raw: int, train: int, called: str) -> None:
    row = next(row for row in class_table(name).rows if row.raw_id == raw)
    assert (row.train_id, row.name) == (train, called)
    assert class_table(name).raw_to_train()[raw] == train


def test_the_eleven_labels_that_were_removed_from_coco_are_no_classes() -> None:
    assert set(range(182)) - {row.raw_id for row in class_table("coco-stuff").rows} == COCO_GAPS
    names = class_table("coco-stuff").names
    assert len(set(names)) == 171
    assert not {"street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door", "blender"} & set(names)


@pytest.mark.parametrize("name", ["nighttime-driving", "dark-zurich"])
def test_the_classes_at_night_are_those_by_day(name: str) -> None:
    assert class_table(name).names == CITYSCAPES.names
    assert np.array_equal(class_table(name).palette(), CITYSCAPES.palette())


@pytest.mark.parametrize(
    ("name", "path", "label", "message"),
    [
        ("ade20k", "ADEChallengeData2016/annotations/training/ADE_train_00000001.png", ids_up_to(149, 255), "holds the id 255"),
        ("coco-stuff", "annotations/val2017/000000000139.png", ids_up_to(181), "holds the id 11"),
        ("mapillary-vistas", "validation/v1.2/labels/bb.png", ids_up_to(123), "holds the id 66"),
        ("dark-zurich", "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_labelTrainIds.png", ids_up_to(33), "Cityscapes labelIds"),
    ],
)
def test_labels_under_another_rule_are_refused(name: str, path: str, label: np.ndarray, message: str, tmp_path: Path) -> None:
    """ADE20K with zero reduced; COCO's 182 ids; Mapillary 2.0; labelIds instead of train ids."""
    tree = TREES[name][0]()
    assert path in tree
    source = open_source(name, [write_folder(tmp_path / "source", tree | {path: png(label)})])
    sample = next(sample for names in source.splits.values() for sample in names if sample in path)
    with pytest.raises(InputError) as error:
        source.samples.read(sample)
    assert message in error.value.message


def test_the_labels_of_mapillarys_first_archive_lie_without_a_version(tmp_path: Path) -> None:
    tree = {path.replace("v1.2/", ""): content for path, content in mapillary().items() if "v2.0" not in path}
    assert open_source("mapillary-vistas", [write_folder(tmp_path / "source", tree)]).splits == {"train": ["aa"], "val": ["bb"]}


def test_coco_comes_in_three_archives_side_by_side(tmp_path: Path) -> None:
    pictures = {path.removeprefix("images/"): content for path, content in coco_stuff().items() if path.startswith("images/")}
    maps = {
        path.removeprefix("annotations/"): content for path, content in coco_stuff().items() if path.startswith("annotations/")
    }
    given = [
        write_zip(tmp_path / "train2017", {path: content for path, content in pictures.items() if path.startswith("train")}),
        write_zip(tmp_path / "val2017", {path: content for path, content in pictures.items() if path.startswith("val")}),
        write_zip(tmp_path / "stuffthingmaps_trainval2017", maps),
    ]
    assert open_source("coco-stuff", given).splits == {"train": ["000000000009"], "val": ["000000000139"]}
    assert open_source("coco-stuff", given[1:]).notes[0].startswith("train is left out: it has no pictures in ")


def test_a_file_without_its_partner_is_a_problem(tmp_path: Path) -> None:
    tree = ade20k()
    tree["ADEChallengeData2016/images/training/ADE_train_00000002.jpg"] = jpeg()
    tree["ADEChallengeData2016/annotations/validation/ADE_val_00000009.png"] = png(ids_up_to(150))
    problems = open_source("ade20k", [write_folder(tmp_path / "source", tree)]).problems
    assert [problem.sample for problem in problems] == ["ADE_train_00000002", "ADE_val_00000009"]
    assert "has its image but no label map" in str(problems[0])
    assert "has its label map but no image" in str(problems[1])


def test_a_sample_in_both_splits_is_a_problem(tmp_path: Path) -> None:
    tree = ade20k()
    for kind, ending in (("images", "jpg"), ("annotations", "png")):
        path = f"ADEChallengeData2016/{kind}/{{}}/ADE_train_00000001.{ending}"
        tree[path.format("validation")] = tree[path.format("training")]
    problems = open_source("ade20k", [write_folder(tmp_path / "source", tree)]).problems
    assert len(problems) == 2
    assert all("occurs twice" in str(problem) for problem in problems)


@every_dataset
def test_a_folder_of_something_else_is_refused_with_what_was_wanted(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_source(name, [write_folder(tmp_path / "source", {"photos/a.jpg": jpeg(), "masks/a.png": png(EVERY_ID)})])
    assert f"has no pictures of '{name}' with label maps: it has 0 pictures (" in error.value.message
    assert "--source" in error.value.hint


@every_dataset
def test_it_is_in_the_table_with_where_to_get_it(name: str) -> None:
    assert KNOWN[name].origin
