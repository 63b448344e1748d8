import sys

import numpy as np
import pytest
import voc_files
from archive_files import write_folder, write_tar, write_tgz, write_zip
from voc_files import SBD_TOP, TOP, TRAIN, VAL, sbd_label, voc_label

from segctl.data.datasets import open_source, voc
from segctl.data.datasets.pairs import list_md5
from segctl.data.datasets.voc import CLASSES, LAYOUT, open_voc
from segctl.data.findings import Finding, refusal
from segctl.data.prepare import prepare_source
from segctl.data.source import Source
from segctl.errors import InputError

AUG = ["2007_000032", "2007_000039", "2008_000002", "2008_000007"]


@pytest.fixture
def archives(tmp_path):
    return [write_tar(tmp_path / "VOCtrainval", voc_files.voc()), write_tgz(tmp_path / "benchmark", voc_files.sbd())]


def folders(tmp_path, **trees) -> Source:
    return open_voc([write_folder(tmp_path / name, tree) for name, tree in trees.items()])


def test_tar_and_tgz_give_every_split_with_vocs_label_first(archives):
    source = open_source("voc", archives)
    assert source.problems == ()
    assert source.splits == {"train": TRAIN, "val": VAL, "trainval": sorted(TRAIN + VAL), "train_aug": AUG}
    for name in TRAIN + VAL:
        assert np.array_equal(source.samples.read(name).label, voc_label(name))
    for name in ("2008_000002", "2008_000007"):
        assert np.array_equal(source.samples.read(name).label, sbd_label(name))
        assert source.samples.digest(name) == source.samples.read(name).source_sha256


def test_sbds_label_wins_in_the_dataset_of_that_name(archives):
    """SBD knows 2007_000039 of train and 2007_000042 of val, with another label than VOC and without its border."""
    source, usual = open_source("voc-sbd-wins", archives), open_source("voc", archives)
    assert source.problems == ()
    assert source.splits == usual.splits
    differ = []
    for name in sorted({*AUG, *VAL}):
        label = source.samples.read(name).label
        assert np.array_equal(
            label, sbd_label(name) if name[:4] == "2008" or name in ("2007_000039", "2007_000042") else voc_label(name)
        )
        if not np.array_equal(label, usual.samples.read(name).label):
            differ.append((name, int((label != usual.samples.read(name).label).sum())))
    assert differ == [("2007_000039", 100), ("2007_000042", 100)]  # the square with its border, 10×10


def test_the_fingerprint_says_which_label_wins(archives, tmp_path):
    usual, other = (prepare_source(open_source(name, archives), tmp_path, workers=0) for name in ("voc", "voc-sbd-wins"))
    assert (usual.provenance.rule, other.provenance.rule) == ("voc2012-and-sbd-voc-wins/1", "voc2012-and-sbd-sbd-wins/1")
    assert usual.fingerprint != other.fingerprint


def test_without_sbd_nothing_can_win(tmp_path):
    with pytest.raises(InputError, match="has no labels of SBD, which win in 'voc-sbd-wins'"):
        open_source("voc-sbd-wins", [write_folder(tmp_path / "voc", voc_files.voc())])


def test_every_picture_is_packed_once_with_spawned_workers(archives, tmp_path):
    dataset = prepare_source(open_voc(archives), tmp_path / "data", workers=2)
    assert sorted(dataset.samples) == sorted({*AUG, *VAL})
    assert np.array_equal(dataset.label("2008_000007"), sbd_label("2008_000007"))
    assert dataset.size("2007_000042") == (62, 30)


def test_folders_give_the_same_as_archives(archives, tmp_path):
    plain, packed = folders(tmp_path, voc=voc_files.voc(), sbd=voc_files.sbd()), open_voc(archives)
    assert plain.splits == packed.splits
    assert all(plain.samples.digest(name) == packed.samples.digest(name) for name in [*AUG, *VAL])


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_ready_folder_of_labels_gives_the_same_splits_and_labels(tmp_path, write):
    source = open_voc(
        [write_folder(tmp_path / "voc", voc_files.voc()), write(tmp_path / "SegmentationClassAug", voc_files.aug())]
    )
    assert source.splits["train_aug"] == AUG
    assert np.array_equal(source.samples.read("2008_000002").label, sbd_label("2008_000002"))


def test_the_folder_of_labels_itself_may_be_given(tmp_path):
    top = write_folder(tmp_path / "voc", voc_files.voc() | voc_files.aug())
    source = open_voc([top / "VOCdevkit", top / "SegmentationClassAug"])
    assert source.splits["train_aug"] == AUG


def test_without_sbd_there_is_no_train_aug_and_a_note(tmp_path):
    source = folders(tmp_path, voc=voc_files.voc())
    assert list(source.splits) == ["train", "val", "trainval"]
    assert source.notes[0] == "train_aug is left out: neither SBD nor SegmentationClassAug was given"


def test_lists_that_are_not_the_official_ones_are_said(archives):
    note = "the lists of train and val are not the official ones, so train_aug was not compared with the official one"
    assert open_voc(archives).notes == (note,)


def test_official_lists_must_lead_to_the_official_train_aug(archives, monkeypatch):
    official = {"train": list_md5(sorted(TRAIN)), "val": list_md5(sorted(VAL)), "train_aug": list_md5(sorted(AUG))}
    monkeypatch.setattr(voc, "OFFICIAL_MD5", official)
    assert (open_voc(archives).problems, open_voc(archives).notes) == ((), ())
    monkeypatch.setattr(voc, "OFFICIAL_MD5", official | {"train_aug": list_md5(sorted([*AUG, "2011_000001"]))})
    problem = "train_aug has 4 pictures that are not the official 10582"
    assert open_voc(archives).problems == (
        Finding("", problem, "give the whole of SBD (benchmark.tgz), or of SegmentationClassAug"),
    )


def test_the_md5_of_a_list_is_that_of_its_lines():
    assert list_md5(["a", "b"]) == "dd8c6a395b5dd36c56d23275028f526c"


def test_a_missing_picture_and_a_missing_label_are_findings(tmp_path):
    tree = voc_files.voc()
    del tree[f"{TOP}/JPEGImages/2008_000002.jpg"], tree[f"{TOP}/SegmentationClass/2007_000042.png"]
    extra = voc_files.sbd()
    del extra[f"{SBD_TOP}/cls/2008_000007.mat"]
    source = folders(tmp_path, voc=tree, sbd=extra)
    given = f"'{tmp_path}/voc' and '{tmp_path}/sbd'"
    assert [finding.problem for finding in source.problems] == [
        f"sample '2007_000042' is listed, but has no label in SegmentationClass of {given}",
        f"sample '2008_000002' is listed, but 'JPEGImages/2008_000002.jpg' is missing from {given}",
        f"sample '2008_000007' is listed, but has no label in SBD's cls or SegmentationClassAug of {given}",
    ]
    assert "and 2 more problems" in str(refusal(source.problems))


def test_a_source_without_vocs_own_part_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        folders(tmp_path, sbd=voc_files.sbd())
    assert caught.value.message == f"the VOC source '{tmp_path}/sbd' has no JPEGImages"
    assert caught.value.hint == LAYOUT


def test_sbd_of_another_size_than_its_picture_is_refused(tmp_path):
    extra = voc_files.sbd() | {f"{SBD_TOP}/cls/2008_000002.mat": voc_files.mat(np.zeros((9, 9), np.uint8))}
    source = folders(tmp_path, voc=voc_files.voc(), sbd=extra)
    with pytest.raises(InputError) as caught:
        source.samples.read("2008_000002")
    where = f"{SBD_TOP}/cls/2008_000002.mat"
    assert caught.value.message == f"the label of sample '2008_000002' ({where}) is 9×9 pixels, wanted 30×22 as its image"


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file at all" * 20])
def test_a_damaged_mat_file_is_named(tmp_path, content):
    source = folders(tmp_path, voc=voc_files.voc(), sbd=voc_files.sbd() | {f"{SBD_TOP}/cls/2008_000002.mat": content})
    with pytest.raises(InputError) as caught:
        source.samples.read("2008_000002")
    where = f"{SBD_TOP}/cls/2008_000002.mat"
    assert caught.value.message == f"the label of sample '2008_000002' ({where}) cannot be read: it is not a MATLAB file of SBD"


def test_without_scipy_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    source = folders(tmp_path, voc=voc_files.voc(), sbd=voc_files.sbd())
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError) as caught:
        source.samples.read("2008_000002")
    assert str(caught.value) == (
        "SBD's .mat files cannot be read without scipy; pip install scipy, or give a folder SegmentationClassAug instead"
    )
    assert source.samples.read(TRAIN[0]).name == TRAIN[0]


def test_a_label_in_colours_is_refused(tmp_path):
    tree = voc_files.voc() | {f"{TOP}/SegmentationClass/{TRAIN[0]}.png": voc_files.picture(TRAIN[0])}
    with pytest.raises(InputError, match="is RGB, wanted an index map"):
        folders(tmp_path, voc=tree).samples.read(TRAIN[0])


def test_an_id_that_is_no_class_is_refused(tmp_path):
    label = voc_label(TRAIN[0])
    label[0, 0] = 21
    tree = voc_files.voc() | {f"{TOP}/SegmentationClass/{TRAIN[0]}.png": voc_files.palette_png(label)}
    with pytest.raises(InputError, match=r"holds the id 21 \(1 pixels\), wanted 0 to 20 or 255"):
        folders(tmp_path, voc=tree).samples.read(TRAIN[0])


def test_the_palette_is_the_published_one():
    assert CLASSES.num_classes == 21
    assert CLASSES.palette()[:6].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert CLASSES.palette()[[15, 20]].tolist() == [[192, 128, 128], [0, 64, 128]]
    assert (CLASSES.rows[15].name, CLASSES.rows[20].name) == ("person", "tvmonitor")
