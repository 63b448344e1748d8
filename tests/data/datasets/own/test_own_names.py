"""How files name their samples: suffixes and patterns."""

import numpy as np
import pytest
from own_files import draw_ids, save, train_ids, write_own
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.errors import InputError


def write(folder, image, *labels, count=3):
    """count pictures and labels, by patterns such as `train/{}_sat.jpg`; the ids of the first pattern are drawn by number."""
    for number in range(count):
        save(Image.new("RGB", (20, 12), (60 * number, 80, 90)), folder / image.format(number))
        for shift, label in enumerate(labels):
            save(Image.fromarray(draw_ids(100 * shift + number)), folder / label.format(number))
    (folder / "c.csv").write_text("name,id,ignored\nroad,1,\ncrack,3,\nglare,9,yes\n")
    return folder / "c.csv"


def opened(images, labels, classes, **how):
    return open_own("streets", OwnFiles(images, labels, classes, splits=("val=0.4",), **how))


def test_a_suffix_chooses_among_the_files_of_one_folder(tmp_path):
    classes = write(tmp_path, "d/{}.png", "d/{}_inst.png")
    source = opened(tmp_path / "d", tmp_path / "d", classes, label_suffix="_inst")
    assert source.problems == ()
    assert np.array_equal(source.samples.read("1").label, train_ids(draw_ids(1)))
    write(tmp_path, "d/{}_cls.png")
    found = [problem.problem for problem in opened(tmp_path / "d", tmp_path / "d", classes, label_suffix="_inst").problems]
    assert [problem.split(":")[0] for problem in found] == [f"sample '{n}_cls' has its image but no label" for n in range(3)]


def test_the_one_suffix_that_gives_each_picture_a_label_is_found(tmp_path):
    classes = write(tmp_path, "i/{}.jpg", "l/{}_seg.png", "l/{}_edge.png")
    source = opened(tmp_path / "i", tmp_path / "l", classes)
    assert source.problems == ()
    assert np.array_equal(source.samples.read("2").label, train_ids(draw_ids(2)))
    assert "labels are the files called NAME_seg; 3 others are left out" in source.notes


def test_two_suffixes_are_refused_until_one_is_chosen(tmp_path):
    classes = write(tmp_path, "i/{}.jpg", "l/{}_seg.png", "l/{}_mask.png")
    with pytest.raises(InputError, match=r"holds a label for every picture as '0_mask.png' and as '0_seg.png'") as caught:
        opened(tmp_path / "i", tmp_path / "l", classes)
    assert caught.value.hint == "add `--label-suffix _mask` or `--label-suffix _seg`"
    for suffix, shift in (("_seg", 0), ("_mask", 100)):
        source = opened(tmp_path / "i", tmp_path / "l", classes, label_suffix=suffix)
        assert np.array_equal(source.samples.read("2").label, train_ids(draw_ids(shift + 2)))


def test_a_suffix_that_no_label_has_is_refused(tmp_path):
    classes = write(tmp_path, "i/{}.jpg", "l/{}_seg.png")
    with pytest.raises(InputError, match=r"--label-suffix is '_mask', but no label in '.*' ends so; one is called '0_seg.png'"):
        opened(tmp_path / "i", tmp_path / "l", classes, label_suffix="_mask")


@pytest.mark.parametrize(
    ("image", "label", "patterns"),
    [
        ("train/{}_sat.jpg", "train/{}_mask.png", ("train/*_sat.jpg", "train/*_mask.png")),
        ("x{}/rgb.jpg", "x{}/cls.png", ("x*/rgb.jpg", "x*/cls.png")),
        ("a/b{}/p.jpg", "y/b{}/q.png", ("a/**/p.jpg", "y/**/q.png")),
        ("p{}.jpg", "q{}.png", ("p[0-9].jpg", "q[0-9].png")),
        ("p{}.jpg", "q{}.png", ("p?.jpg", "q?.png")),
    ],
)
def test_patterns_pair_by_what_their_stars_stand_for(tmp_path, image, label, patterns):
    classes = write(tmp_path, image, label)
    save(Image.fromarray(draw_ids(9)), tmp_path / "train" / "other.png")
    source = opened(tmp_path / patterns[0], tmp_path / patterns[1], classes)
    assert source.problems == ()
    samples = [source.samples.read(name) for names in source.splits.values() for name in names]
    read = {round(sample.image[0, 0, 0] / 60): sample.label for sample in samples}
    assert sorted(read) == [0, 1, 2]
    for number, found in read.items():
        assert np.array_equal(found, train_ids(draw_ids(number)))


def test_a_pattern_that_means_no_file_is_refused(tmp_path, capsys):
    classes = write(tmp_path, "i/{}.jpg", "l/{}.png")
    words = [
        "--images",
        tmp_path / "i" / "*.tif",
        "--labels",
        tmp_path / "l",
        "--classes",
        classes,
        "--data-root",
        tmp_path / "d",
    ]
    assert main(["data", "prepare", "streets", *map(str, words)]) == 2
    assert f"no file below '{tmp_path}/i' is called like '{tmp_path}/i/*.tif'" in capsys.readouterr().err
    words[1] = tmp_path / "i" / "[z-a].jpg"
    assert main(["data", "prepare", "streets", *map(str, words)]) == 2
    assert "cannot be read: bad character range z-a" in capsys.readouterr().err


def test_a_folder_may_have_the_signs_of_a_pattern_in_its_name(tmp_path):
    images, labels, classes = write_own(tmp_path / "set [1]", ["train/a", "val/b"])
    assert open_own("streets", OwnFiles(images, labels, classes)).problems == ()


def test_masks_need_a_class_table(tmp_path):
    write(tmp_path, "i/{}.jpg", "l/{}.png")
    with pytest.raises(InputError, match=r"--classes is missing: '.*' holds label pictures"):
        opened(tmp_path / "i", tmp_path / "l", None)
