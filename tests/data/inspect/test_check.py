import json
import shutil
from pathlib import Path

import cityscapes_files
import h5py
import numpy as np
import pytest
from archive_files import write_folder
from camvid_folders import draw_folder

from segctl.data.datasets import open_source
from segctl.data.inspect.check import Finding, check
from segctl.data.prepare import prepare_source, staging_folder
from segctl.data.shards.dataset import INDEX_NAME, fingerprint, index_text, open_dataset, pixels_sha256, signed
from segctl.data.shards.shard import write_shard
from segctl.data.shards.tiles import file_hash
from segctl.data.source import RawSample
from segctl.errors import InputError

FIRST = "0001TP_00000"


@pytest.fixture
def root(packed_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(packed_root / "camvid", tmp_path / "camvid")
    return tmp_path


def shard(root: Path) -> Path:
    return root / "camvid" / "camvid-00000-of-00001.h5"


def change_index(root: Path, **changes: object) -> None:
    path = root / "camvid" / INDEX_NAME
    path.write_text(index_text(signed(json.loads(path.read_text()) | changes)))


def index(root: Path) -> dict:
    return json.loads((root / "camvid" / INDEX_NAME).read_text())


def test_a_whole_dataset_has_no_findings(root):
    seen: list[tuple[int, int]] = []
    assert check(root, "camvid", lambda done, total: seen.append((done, total))) == []
    assert seen[-1] == (8, 8)


def test_a_dataset_that_is_not_here_is_a_wrong_command(tmp_path):
    with pytest.raises(InputError, match="is not prepared in"):
        check(tmp_path, "camvid")


def test_an_interrupted_prepare_is_found(tmp_path):
    staging_folder(tmp_path, "camvid").mkdir()
    assert check(tmp_path, "camvid") == [Finding("", "incomplete: preparing it was interrupted")]


def test_a_missing_shard_is_found_once(root):
    shard(root).unlink()
    assert check(root, "camvid") == [Finding("", "incomplete: 'camvid-00000-of-00001.h5' with 8 samples is missing")]


def test_a_damaged_tile_is_found_with_its_sample(root):
    with h5py.File(shard(root)) as file:
        first = json.loads(file["index/arrays"][()].tobytes())[f"images/{FIRST}"][0]
        offset = int(file["index/tiles"][first + 3, 0])
    content = bytearray(shard(root).read_bytes())
    content[offset + 5] ^= 1
    shard(root).write_bytes(content)
    reason = f"the image of sample '{FIRST}' cannot be read from '{shard(root)}': a tile does not match its checksum"
    assert check(root, "camvid") == [Finding(FIRST, reason)]


def rewrite(root: Path, image: np.ndarray, label: np.ndarray) -> None:
    """Put other pixels into the first sample, in a shard that is sound in itself."""
    source = open_dataset(root, "camvid")
    samples = [
        RawSample(name, image, label, None, "", 0)
        if name == FIRST
        else RawSample(name, source.image(name), source.label(name), None, "", 0)
        for name in source.samples
    ]
    write_shard(shard(root), samples, "lz4")
    change_index(root, shards={shard(root).name: file_hash(shard(root))}, contents=None)


def test_a_sound_shard_of_another_dataset_is_not_read(root):
    """Names and sizes are equal; only what the samples hold differs."""
    samples = [
        RawSample(name, 255 - source.image(name), source.label(name), None, "", 0)
        for source in [open_dataset(root, "camvid")]
        for name in source.samples
    ]
    write_shard(shard(root), samples, "lz4")
    changed = open_dataset(root, "camvid")
    with pytest.raises(InputError, match=r"is sound, but not the file that 'dataset.json' describes"):
        changed.image(FIRST)
    (found,) = check(root, "camvid")
    assert "cannot be opened: it is sound, but not the file" in found.problem


def test_other_pixels_are_found_though_their_tiles_are_sound(root, dataset):
    image = dataset.image(FIRST)
    image[0, 0, 0] += 1
    rewrite(root, image, dataset.label(FIRST))
    assert check(root, "camvid") == [Finding(FIRST, "does not hold the pixels that were packed")]


def test_a_size_that_differs_is_found(root, dataset):
    rewrite(root, dataset.image(FIRST), dataset.label(FIRST)[:-1])
    assert check(root, "camvid") == [Finding(FIRST, "image is 520×300 and label 520×299, wanted 520×300")]


def test_an_id_outside_the_class_table_is_found(root, dataset):
    label = dataset.label(FIRST)
    label[5, 5] = 11
    rewrite(root, dataset.image(FIRST), label)
    samples = index(root)["samples"]
    samples[FIRST]["pixels_sha256"] = pixels_sha256(dataset.image(FIRST), label)
    change_index(root, samples=samples)
    assert check(root, "camvid") == [Finding(FIRST, "label holds id 11, wanted 0 to 10 or 255")]


def test_an_overlap_of_splits_is_found(root):
    splits = index(root)["splits"]
    change_index(root, splits=splits | {"val": [*splits["val"], FIRST]})
    assert check(root, "camvid") == [Finding(FIRST, "is in two splits, 'train' and 'val'")]


def test_a_split_that_lists_what_is_not_packed_is_found(root):
    splits = index(root)["splits"]
    change_index(root, splits=splits | {"val": [*splits["val"], "gone"]})
    assert check(root, "camvid") == [Finding("gone", "is listed in 'val' but not packed")]


def test_an_index_of_other_sources_is_found(root):
    change_index(root, fingerprint=fingerprint("another rule", {}))
    assert check(root, "camvid") == [Finding("", "dataset.json does not match its own fingerprint")]


def test_a_damaged_index_of_a_shard_is_one_finding_that_names_the_file(root):
    with h5py.File(shard(root)) as file:
        offset = file["index/tiles"].id.get_offset()
    content = bytearray(shard(root).read_bytes())
    content[offset + 40] ^= 1
    shard(root).write_bytes(content)
    problem = f"'{shard(root).name}' with 8 samples cannot be opened: the file's index does not match its checksum"
    assert check(root, "camvid") == [Finding("", problem)]


def test_a_changed_index_is_a_finding(root):
    path = root / "camvid" / INDEX_NAME
    path.write_text(path.read_text().replace('"height": 300', '"height": 301'))
    (finding,) = check(root, "camvid")
    assert finding.problem == f"'{path}' is damaged: it does not match its own checksum"


def test_a_changed_space_is_a_finding(root):
    path = root / "camvid" / INDEX_NAME
    path.write_text(path.read_text().replace(": 300", ":  300"))
    assert check(root, "camvid") == [Finding("", "'dataset.json' is not as it was written, although its content is the same")]


def test_label_ids_where_train_ids_are_meant_are_recognised(root, dataset):
    label = dataset.label(FIRST)
    label[5, 5] = 26
    rewrite(root, dataset.image(FIRST), label)
    samples = index(root)["samples"]
    samples[FIRST]["pixels_sha256"] = pixels_sha256(dataset.image(FIRST), label)
    rows = [{"name": f"class {number}", "raw_id": number, "train_id": number, "color": [0, 0, 0]} for number in range(19)]
    change_index(root, samples=samples, classes={"binary": False, "rows": rows})
    guess = "these look like Cityscapes labelIds where train ids are meant"
    assert check(root, "camvid") == [Finding(FIRST, f"label holds id 26, wanted 0 to 18 or 255; {guess}")]


def test_the_same_picture_in_train_and_val_is_found(tmp_path):
    folder = draw_folder(tmp_path / "source", {"train": [(20, 24), (20, 30)], "val": [(20, 24)]})
    shutil.copy(folder / "train" / "0001TP_00000.png", folder / "val" / "0016E5_00002.png")
    prepare_source(open_source("camvid", [folder]), tmp_path, workers=0)
    problem = "shows the same picture as '0001TP_00000', in the splits 'val' and 'train'"
    assert check(tmp_path, "camvid") == [Finding("0016E5_00002", problem)]


def test_folds_and_splits_that_hold_others_are_no_overlap(root):
    splits = index(root)["splits"]
    train, val = splits["train"], splits["val"]
    more = {
        "trainval": train + val,
        "train_aug": train,
        "val_fold0": train[:2],
        "train_fold0": train[2:],
        "val_fold1": train[2:4],
    }
    change_index(root, splits=splits | more)
    assert check(root, "camvid") == []


def test_a_damaged_instance_map_is_found_with_its_sample(tmp_path):
    tree = cityscapes_files.images() | cityscapes_files.labels()
    source = open_source("cityscapes", [write_folder(tmp_path / "source", tree)])
    dataset = prepare_source(source, tmp_path, workers=0)
    name = "frankfurt_000000_000294"
    assert np.array_equal(dataset.instance(name), cityscapes_files.draw_frame(name)[2])
    assert dataset.instance("aachen_000000_000019") is None
    path = dataset.folder / dataset.shards[0]
    with h5py.File(path) as file:
        first = json.loads(file["index/arrays"][()].tobytes())[f"instances/{name}"][0]
        offset = int(file["index/tiles"][first, 0])
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 1
    path.write_bytes(content)
    reason = f"the instance of sample '{name}' cannot be read from '{path}': a tile does not match its checksum"
    assert check(tmp_path, "cityscapes") == [Finding(name, reason)]
