import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from camvid_folders import draw_folder, draw_sample
from PIL import Image

from segctl.data.findings import refuse
from segctl.data.sources.camvid import CLASSES, open_camvid
from segctl.errors import InputError

SIZES = {"train": [(48, 64), (48, 64), (32, 40)], "val": [(48, 64)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "CamVid", SIZES)


def refusal(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_all(folder)
    return caught.value


def read_all(folder: Path) -> None:
    source = open_camvid([folder])
    refuse(source.problems)
    for name in source.images:
        source.read(name)


def test_the_splits_that_are_there_are_taken(folder):
    source = open_camvid([folder])
    assert source.splits == {"train": ["0001TP_00000", "0016E5_00001", "0016E5_00002"], "val": ["0016E5_00003"]}
    assert source.groups["0016E5_00001"] == "0016E5"
    assert source.origin == "folder 'CamVid' in the 480×360 layout"


def test_void_becomes_ignored_and_other_ids_stay(folder):
    sample = open_camvid([folder]).read("0016E5_00001")
    image, raw = draw_sample(48, 64, 1)
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.label, np.where(raw == 11, 255, raw))
    assert sample.instance is None


def test_the_digest_is_that_of_the_sample_and_changes_with_either_file(folder):
    source = open_camvid([folder])
    before = source.digest("0016E5_00001")
    assert source.read("0016E5_00001").source_sha256 == before
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(folder / "trainannot" / "0016E5_00001.png")
    assert source.digest("0016E5_00001") != before


def test_a_list_gives_the_order_and_may_leave_samples_out(folder):
    lines = [f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/trainannot/{name}.png" for name in ("0016E5_00002", "0001TP_00000")]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    source = open_camvid([folder])
    assert source.splits["train"] == ["0016E5_00002", "0001TP_00000"]
    assert "0016E5_00001" not in source.images


def test_a_list_that_names_what_is_not_there_is_refused(folder):
    (folder / "train.txt").write_text("/SegNet/CamVid/train/gone.png /SegNet/CamVid/trainannot/gone.png\n")
    assert refusal(folder).message == "'train.txt' lists 'gone', but 'train/gone.png' is missing"


def test_a_list_that_repeats_a_sample_is_refused(folder):
    (folder / "val.txt").write_text("val/0016E5_00003.png\nval/0016E5_00003.png\n")
    assert refusal(folder).message == "'val.txt' lists '0016E5_00003' more than once"


def test_a_missing_source_is_refused(tmp_path):
    error = refusal(tmp_path / "nowhere")
    assert error.message == f"the source '{tmp_path}/nowhere' does not exist"
    assert error.hint == "give a folder, or a zip or tar archive"


def test_an_empty_source_is_refused(tmp_path):
    assert refusal(tmp_path).message == f"the CamVid source '{tmp_path}' has none of the folders train/, val/, test/"


def test_a_file_as_source_is_refused(tmp_path):
    path = tmp_path / "camvid.zip"
    path.write_bytes(b"PK")
    assert refusal(path).message == f"the archive '{path}' is cut short or damaged (File is not a zip file)"


def test_a_split_without_label_folder_is_refused(folder):
    shutil.rmtree(folder / "valannot")
    assert refusal(folder).message == f"the folder 'valannot' of '{folder}' is missing or holds no PNG files"


def test_an_empty_split_is_refused(folder):
    (folder / "val" / "0016E5_00003.png").unlink()
    assert refusal(folder).message == f"the folder 'val' of '{folder}' is missing or holds no PNG files"


def test_an_image_without_a_label_is_refused(folder):
    (folder / "trainannot" / "0016E5_00001.png").unlink()
    error = refusal(folder)
    missing = "'trainannot/0016E5_00001.png' is missing"
    assert error.message == f"sample '0016E5_00001' has its image but no label: {missing} from '{folder}'"
    assert error.hint == "add the label, or remove the image"


def test_a_label_without_an_image_is_refused(folder):
    (folder / "train" / "0016E5_00001.png").unlink()
    missing = "'train/0016E5_00001.png' is missing"
    assert refusal(folder).message == f"sample '0016E5_00001' has its label but no image: {missing} from '{folder}'"


def test_a_sample_in_two_splits_is_refused(folder):
    for name in ("train", "trainannot"):
        shutil.copy(folder / name / "0016E5_00001.png", folder / name.replace("train", "val") / "0016E5_00001.png")
    assert refusal(folder).message == f"sample '0016E5_00001' is in two splits of '{folder}'"


def test_a_label_of_another_size_is_refused(folder):
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(folder / "trainannot" / "0016E5_00001.png")
    message = "the label of sample '0016E5_00001' (trainannot/0016E5_00001.png) is 32×24 pixels, wanted 64×48 as its image"
    assert refusal(folder).message == message


def test_an_id_out_of_range_is_refused(folder):
    label = np.zeros((48, 64), np.uint8)
    label[3, 5:8] = 12
    Image.fromarray(label).save(folder / "trainannot" / "0016E5_00001.png")
    message = "the label of sample '0016E5_00001' (trainannot/0016E5_00001.png) holds the id 12 (3 pixels), wanted 0 to 11"
    assert refusal(folder).message == message


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
    assert {source.size(name) for name in source.splits["val"]} == {(360, 480)}
