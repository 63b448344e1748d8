from pathlib import Path

import numpy as np
import pytest
from archive_files import write_folder, write_tar, write_zip
from cityscapes_files import png
from deepglobe_files import IDS, SIZE, draw_mask, jpeg, tree

from segctl.data.datasets import open_source
from segctl.data.datasets.aerial import deepglobe
from segctl.data.datasets.aerial.deepglobe import FOLD_MD5, LAYOUT, OFFICIAL_NAMES_MD5, names_md5, open_deepglobe, sort_names
from segctl.data.findings import Finding
from segctl.data.prepare import prepare_source
from segctl.data.source import Source
from segctl.errors import InputError


def opened(tmp_path: Path, files: dict[str, bytes]) -> Source:
    return open_deepglobe([write_folder(tmp_path / "deepglobe", files)])


def slow_label(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Pixel by pixel, by the table of colours."""
    names = {(0, 1, 1): 0, (1, 1, 0): 1, (1, 0, 1): 2, (0, 1, 0): 3, (0, 0, 1): 4, (1, 1, 1): 5, (0, 0, 0): 255, (1, 0, 0): 255}
    bits = [[tuple(int(value >= 128) for value in pixel) for pixel in row] for row in mask.tolist()]
    return np.array([[names[pixel] for pixel in row] for row in bits]), sum(row.count((1, 0, 0)) for row in bits)


def test_masks_become_classes_by_threshold_and_red_is_counted(tmp_path):
    source = opened(tmp_path, tree())
    for name in IDS:
        label, red = slow_label(draw_mask(int(name)))
        sample = source.samples.read(name)
        assert np.array_equal(sample.label, label)
        assert sample.unknown_pixels == red > 0


def test_127_is_off_and_128_is_on(tmp_path):
    mask = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask[:, 0], mask[:, 1] = (127, 128, 127), (128, 128, 127)
    sample = opened(tmp_path, tree() | {"train/119_mask.png": png(mask)}).samples.read("119")
    assert sample.label[0, :3].tolist() == [3, 1, 255]
    assert sample.unknown_pixels == 0


def test_how_many_pixels_have_no_class_is_kept_in_the_dataset(tmp_path):
    dataset = prepare_source(opened(tmp_path, tree()), tmp_path / "data", workers=0)
    assert dataset.unknown_pixels() == {name: slow_label(draw_mask(int(name)))[1] for name in IDS}


def test_names_are_sorted_as_file_names_not_as_numbers():
    assert sort_names(["1045", "10452", "995", "10233", "100694"]) == ["100694", "10233", "10452", "1045", "995"]


def test_folds_are_fifths_of_the_sorted_names_and_the_rest_is_only_trained_on(tmp_path):
    source = opened(tmp_path, tree())
    assert source.splits["all"] == IDS
    assert [source.splits[f"val_fold{fold}"] for fold in range(5)] == [IDS[2 * fold : 2 * fold + 2] for fold in range(5)]
    for fold in range(5):
        val = source.splits[f"val_fold{fold}"]
        assert source.splits[f"train_fold{fold}"] == [name for name in IDS if name not in val]
    assert source.notes == ("these are 11 pictures, not the official 803: the folds are cut by the same rule",)


def test_the_official_names_must_give_the_official_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(deepglobe, "OFFICIAL_NAMES_MD5", names_md5(IDS))
    folds = [names_md5(IDS[2 * fold : 2 * fold + 2]) for fold in range(5)]
    monkeypatch.setattr(deepglobe, "FOLD_MD5", tuple(folds))
    assert (opened(tmp_path, tree()).problems, opened(tmp_path, tree()).notes) == ((), ())
    monkeypatch.setattr(deepglobe, "FOLD_MD5", (*folds[:4], FOLD_MD5[4]))
    assert opened(tmp_path, tree()).problems == (Finding("", "val_fold4 is not the official list", "report this as a bug"),)
    assert OFFICIAL_NAMES_MD5 not in folds


@pytest.mark.parametrize("write", [write_folder, write_zip, write_tar])
def test_unlabelled_pictures_beside_the_training_set_are_left_out_with_a_note(tmp_path, write):
    files = tree() | {"valid/7_sat.jpg": jpeg(7), "test/8_sat.jpg": jpeg(8), "metadata.csv": b"x", "class_dict.csv": b"x"}
    source = open_source("deepglobe", [write(tmp_path / "archive", files)])
    assert source.splits["all"] == IDS
    assert source.problems == ()
    assert source.notes[0] == "2 pictures of valid and test are left out: they have no masks"


def test_pictures_and_masks_may_lie_in_folders_of_their_own(tmp_path):
    files = tree(IDS[:6], "data/training_data/images", "data/training_data/masks")
    files |= tree(IDS[6:], "data/test_data/images", "data/test_data/masks")
    assert opened(tmp_path, files).splits["all"] == IDS


def test_unpaired_and_doubled_files_are_findings(tmp_path):
    files = tree() | {"other/119_sat.jpg": jpeg(1)}
    del files["train/855_mask.png"]
    assert [finding.problem for finding in opened(tmp_path, files).problems] == [
        "sample '119' occurs twice, as 'other/119_sat.jpg' and 'train/119_sat.jpg'",
        f"sample '855' has its image but no label: '855_mask.png' is missing from '{tmp_path}/deepglobe'",
    ]


def test_a_source_without_masks_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        opened(tmp_path, {"train/1_sat.jpg": jpeg(1)})
    assert str(caught.value) == f"the DeepGlobe source '{tmp_path}/deepglobe' has no masks (ID_mask.png); {LAYOUT}"


def test_a_grey_mask_is_refused(tmp_path):
    files = tree() | {"train/119_mask.png": png(np.zeros((SIZE, SIZE), np.uint8))}
    with pytest.raises(InputError) as caught:
        opened(tmp_path, files).samples.read("119")
    assert caught.value.message == "the mask of sample '119' (train/119_mask.png) is 8-bit grey, wanted RGB"
