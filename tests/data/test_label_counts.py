import json

import numpy as np
import pytest
from own_files import save, write_own
from PIL import Image

from segctl.data.classes import ClassRow, ClassTable, LabelCounts, judge_labels
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.inspect.check import check
from segctl.data.inspect.check_source import check_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import INDEX_NAME, index_text, open_dataset, signed
from segctl.errors import InputError

THREE = ClassTable(tuple(ClassRow(name, number, number, (0, 0, number)) for number, name in enumerate("abc")))
TWO = ClassTable(THREE.rows[:2])


def judged(classes: ClassTable, **splits: LabelCounts) -> tuple[list[str], list[str]]:
    found = judge_labels(splits, classes, "correct them")
    return [finding.problem for finding in found.certain], found.warnings


def test_counts_are_of_classes_ignored_pixels_and_blank_labels():
    label = np.array([[0, 0, 2], [255, 255, 255]], np.uint8)
    one, blank = LabelCounts.of(label, 3, {"255": 3}), LabelCounts.of(np.full((2, 2), 255, np.uint8), 3, {"255": 4})
    assert (one.classes, one.ignored, one.blank) == ((2, 0, 1), 3, 0)
    assert LabelCounts.total([one, blank]) == LabelCounts((2, 0, 1), 7, labels=2, blank=1, unknown={"255": 7})
    assert LabelCounts.total([one, blank]).pixels == 10


def test_classes_without_pixels_are_named_once_for_splits_that_lack_the_same():
    full, lacking = LabelCounts((5, 5, 5), 0), LabelCounts((5, 0, 0), 0)
    assert judged(THREE, train=full, val=lacking, test=lacking) == ([], ["no label of the splits 'val', 'test' shows 'b', 'c'"])
    assert judged(THREE, train=full, val=lacking)[1] == ["no label of split 'val' shows 'b', 'c'"]
    assert judged(THREE, train=full) == ([], [])


def test_ignored_pixels_and_blank_labels_are_said():
    assert judged(TWO, train=LabelCounts((5, 2), 3))[1] == []
    assert judged(TWO, train=LabelCounts((3, 2), 5, labels=3, blank=2))[1] == [
        "2 labels of split 'train' are wholly ignored",
        "50.0 % of the pixels of split 'train' are ignored",
    ]
    assert judged(TWO, test=LabelCounts((0, 0), 5))[1] == ["every pixel of the labels of split 'test' is ignored"]


@pytest.mark.parametrize(
    ("classes", "pixels", "unknown", "certain"),
    [
        (TWO, (90, 0), {"255": 5}, True),  # masks of 0 and 255
        (TWO, (90, 5), {"255": 5}, False),  # 255 is the custom for ignored
        (THREE, (90, 5, 0), {"255": 5}, False),  # a rare class and an ignored border
        (THREE, (90, 5, 0), {"255,255,255": 5}, True),
        (THREE, (90, 0, 0), {"255,255,255": 3, "1,1,1": 2}, True),
        (THREE, (90, 5, 0), {"255,255,255": 9, "250,250,250": 2, "9,9,9": 1}, True),  # one colour and its blended border
        (THREE, (90, 5, 0), {f"{shade},0,0": 1 for shade in range(30)}, False),  # blended borders alone
        (THREE, (90, 5, 5), {"255,255,255": 5}, False),
    ],
)
def test_a_value_that_takes_the_place_of_a_class_is_certain(classes, pixels, unknown, certain):
    problems, warnings = judged(classes, train=LabelCounts(pixels, 5, unknown=unknown))
    assert bool(problems) == certain
    value = next(iter(unknown))
    if value != "255" or 0 in pixels:
        assert value in " ".join([*problems, *warnings])
    else:
        assert (problems, warnings) == ([], [])


def colored(tmp_path, *, stray: int, thing: bool) -> OwnFiles:
    """Masks of a black ground with `stray` white pixels each, and some red pixels of a thing if there is one."""
    files = write_own(tmp_path, ["train/a", "val/b"])
    files[2].write_text("name,color\nground,0 0 0\nthing,255 0 0\n")
    mask = np.zeros((12, 20, 3), np.uint8)
    mask[0, :stray] = 255
    mask[5, :3] = (255, 0, 0) if thing else 0
    for path in files[1].rglob("*.png"):
        save(Image.fromarray(mask), path)
    return OwnFiles(*files)


STRAY = "the labels hold the colour 255,255,255 (0.83 % of the pixels), which the class table does not name"


def test_a_colour_in_the_place_of_a_class_refuses_everywhere(tmp_path):
    source = open_own("toy", colored(tmp_path, stray=2, thing=False))
    problem = f"no label shows 'thing'; {STRAY}"
    assert [finding.problem for finding in check_source(source)] == [problem]
    with pytest.raises(InputError, match="no label shows 'thing'") as caught:
        prepare_source(source, tmp_path / "data", workers=0)
    assert caught.value.hint.startswith("give 'thing' the colour 255,255,255 in the class table")
    assert not (tmp_path / "data").exists()


def test_a_stray_colour_is_a_warning_everywhere(tmp_path):
    source, told = open_own("toy", colored(tmp_path, stray=2, thing=True)), []
    assert check_source(source, warn=told.append) == []
    dataset = prepare_source(source, tmp_path / "data", workers=0)
    assert check(tmp_path / "data", "toy", warn=told.append) == []
    text = f"{STRAY}: these pixels are ignored"
    assert told == [text, text]
    assert dataset.judged_labels(["val"]).warnings == [text]


def test_a_trial_may_lack_a_class(tmp_path):
    files = colored(tmp_path, stray=2, thing=True)
    for number in range(4):
        save(Image.new("RGB", (20, 12), (number, 9, 9)), files.images / "train" / f"c{number}.jpg")
        mask = np.zeros((12, 20, 3), np.uint8)
        mask[0, :2] = 255
        save(Image.fromarray(mask), files.labels / "train" / f"c{number}.png")
    (files.labels / "val" / "b.png").write_bytes((files.labels / "train" / "c0.png").read_bytes())
    (files.labels / "train" / "a.png").write_bytes((files.labels / "train" / "c0.png").read_bytes())
    dataset = prepare_source(open_own("toy", files), tmp_path / "data", workers=0, limit=1)
    assert "no label shows 'thing'" in " ".join(dataset.judged_labels().warnings)


def test_a_dataset_of_an_older_segctl_is_counted_when_it_is_checked(tmp_path):
    files = write_own(tmp_path, ["train/a", "val/b"])
    save(Image.fromarray(np.full((12, 20), 1, np.uint8)), files[1] / "val" / "b.png")
    prepare_source(open_own("toy", OwnFiles(*files)), tmp_path / "data", workers=0)
    path = tmp_path / "data" / "toy" / INDEX_NAME
    index = json.loads(path.read_text())
    del index["labels"]
    path.write_text(index_text(signed(index)))
    assert open_dataset(tmp_path / "data", "toy").judged_labels().warnings == []
    told = []
    assert check(tmp_path / "data", "toy", warn=told.append) == []
    assert told[-1] == "no label of split 'val' shows 'crack'"
