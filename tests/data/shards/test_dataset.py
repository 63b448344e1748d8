import json
import pickle
import shutil

import numpy as np
import pytest
from camvid_folders import draw_sample

from segctl import __version__
from segctl.data.advice import prepare_line
from segctl.data.datasets import KNOWN
from segctl.data.shards.dataset import fingerprint, open_dataset, pixels_sha256, signed
from segctl.errors import InputError


def test_samples_come_back_at_their_own_size(dataset):
    for name in dataset.names("train"):
        image, label = draw_sample(*dataset.size(name), seed=int(name[-5:]))
        assert np.array_equal(dataset.image(name), image)
        assert np.array_equal(dataset.label(name), np.where(label == 11, 255, label))


def test_a_region_defaults_to_the_rest_of_the_sample(dataset):
    name = dataset.names("train")[0]
    assert np.array_equal(dataset.label(name, 200, 500), dataset.label(name)[200:, 500:])
    assert np.array_equal(dataset.image(name, 5, 6, 7, 8), dataset.image(name)[5:12, 6:14])


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 301, 5), (0, 519, 1, 2), (0, 0, 0, 5)])
def test_a_region_outside_is_a_bug(dataset, region):
    with pytest.raises(ValueError, match="is not inside"):
        dataset.image(dataset.names("train")[0], *region)


def test_an_unknown_split_is_refused(dataset):
    with pytest.raises(InputError) as caught:
        dataset.names("vall")
    assert str(caught.value) == "dataset 'camvid' has no split called 'vall', did you mean 'val'?; it has train, val"


def test_a_dataset_can_be_pickled(dataset):
    name = dataset.names("val")[0]
    before = dataset.image(name)
    assert np.array_equal(pickle.loads(pickle.dumps(dataset)).image(name), before)


def test_what_is_not_prepared_says_how(tmp_path):
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path, "camvid")
    assert caught.value.message == f"dataset 'camvid' is not prepared in '{tmp_path}'"
    assert caught.value.hint == f"run `segctl data prepare camvid --data-root {tmp_path}`"


@pytest.mark.parametrize("name", KNOWN)
def test_only_what_nobody_can_download_asks_for_a_folder(name):
    source = " --source FOLDER" if KNOWN[name].needs_source else ""
    assert prepare_line(name) == f"segctl data prepare {name}{source}"


def test_some_datasets_come_by_themselves_and_some_do_not():
    assert {name: known.needs_source for name, known in KNOWN.items()}.items() >= {"shapes": False, "deepglobe": True}.items()


def test_what_segctl_does_not_know_says_what_it_does(tmp_path):
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path, "kitti")
    assert caught.value.message == f"segctl {__version__} knows no dataset called 'kitti'"
    assert caught.value.hint.startswith("it can prepare ade20k, camvid, ")


def test_a_misspelt_name_of_a_dataset_that_is_here_is_recognised(packed_root, tmp_path):
    shutil.copytree(packed_root / "camvid", tmp_path / "streets")
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path, "street")
    assert caught.value.message == f"there is no dataset called 'street' in '{tmp_path}', did you mean 'streets'?"


@pytest.mark.parametrize(
    ("sign", "change", "words"),
    [
        (dict, {"splits": None}, "it does not match its own checksum"),
        (signed, {"samples": []}, "samples is [], wanted an object"),
        (signed, {"samples": None}, "samples is None, wanted an object"),
        (signed, {"splits": {"train": "all"}}, "splits.train is 'all', wanted a valid array"),
        (signed, {"fingerprint": 3}, "fingerprint is 3, wanted a valid string"),
    ],
)
def test_an_index_that_cannot_be_read_is_refused(packed_root, tmp_path, sign, change, words):
    shutil.copytree(packed_root / "camvid", tmp_path / "camvid")
    path = tmp_path / "camvid" / "dataset.json"
    path.write_text(json.dumps(sign(json.loads(path.read_text()) | change)))
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path, "camvid")
    assert caught.value.message == f"'{path}' is damaged: {words}"
    assert caught.value.hint == f"run `segctl data prepare camvid --data-root {tmp_path}` again"


@pytest.mark.parametrize(("found", "who"), [(1, "an older"), (99, "another")])
def test_shards_of_another_format_are_refused(packed_root, tmp_path, found, who):
    shutil.copytree(packed_root / "camvid", tmp_path / "camvid")
    path = tmp_path / "camvid" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": found}))
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path, "camvid")
    assert caught.value.message == (f"'{tmp_path}/camvid' was prepared by {who} segctl: its format is {found}, wanted 2")
    assert caught.value.hint == f"run `segctl data prepare camvid --data-root {tmp_path}` again"


def test_the_fingerprint_depends_on_names_bytes_and_rule_but_not_on_order():
    one = fingerprint("rule/1", {"a": "00", "b": "11"})
    assert one == fingerprint("rule/1", {"b": "11", "a": "00"})
    assert one != fingerprint("rule/2", {"a": "00", "b": "11"})
    assert one != fingerprint("rule/1", {"a": "00", "b": "12"})
    assert one != fingerprint("rule/1", {"a": "00", "c": "11"})


def test_the_checksum_of_pixels_sees_every_pixel_and_the_shape():
    image, label = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    one = pixels_sha256(image, label)
    changed = label.copy()
    changed[3, 5] = 1
    assert one != pixels_sha256(image, changed)
    assert one != pixels_sha256(image.reshape(6, 4, 3), label.reshape(6, 4))
    assert one == pixels_sha256(image[:, ::-1], label[::-1])
