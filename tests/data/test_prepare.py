import json
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from camvid_folders import draw_folder
from PIL import Image

from segctl import __version__
from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets import open_source
from segctl.data.prepare import Conversion, convert, plan_shards, prepare_source, staging_folder
from segctl.data.shards.dataset import open_dataset, pixels_sha256
from segctl.data.shards.tiles import file_hash
from segctl.data.source import RawSample, Source
from segctl.errors import InputError, SegctlError
from tests.slow_cases import slow_after

SIZES = {"train": [(48, 64), (32, 40), (64, 48)], "val": [(48, 64)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "source", SIZES)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_shards_and_index_are_all_that_is_written(folder, tmp_path):
    dataset = prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert files(tmp_path / "data") == ["camvid/camvid-00000-of-00001.h5", "camvid/dataset.json"]
    assert dataset.folder == tmp_path / "data" / "camvid"
    assert {split: len(names) for split, names in dataset.splits.items()} == {"train": 3, "val": 1}


def test_the_index_says_where_the_data_comes_from_without_paths(folder, tmp_path):
    prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    text = (tmp_path / "data" / "camvid" / "dataset.json").read_text()
    index = json.loads(text)
    assert str(tmp_path) not in text
    assert index["provenance"]["origin"] == "folder 'source' in the 480×360 layout"
    assert index["provenance"]["decoder"].startswith("pillow ")
    assert index["counts"] == {"train": 3, "val": 1}
    assert index["groups"]["0001TP_00000"] == "0001TP"
    sample = index["samples"]["0016E5_00001"]
    assert (sample["height"], sample["width"]) == (32, 40)
    assert sample["source_bytes"] == sum((folder / f / "0016E5_00001.png").stat().st_size for f in ("train", "trainannot"))


@pytest.mark.parametrize(("workers", "codec"), slow_after([(0, "zstd"), (2, "lz4"), (0, "none")]))
def test_workers_and_codec_change_neither_fingerprint_nor_pixels(tmp_path, workers, codec):
    folder = draw_folder(tmp_path / "source", {"train": [(16, 16 + n % 3) for n in range(70)]})
    one = prepare_source(open_source("camvid", [folder]), tmp_path / "one", workers=0)
    other = prepare_source(open_source("camvid", [folder]), tmp_path / "other", workers=workers, codec=codec)
    assert one.fingerprint == other.fingerprint
    assert one.samples == other.samples
    assert one.shards == other.shards
    assert len(one.shards) == 3
    assert all(np.array_equal(one.image(name), other.image(name)) for name in one.samples)


def test_the_fingerprint_is_of_the_source_alone(folder, tmp_path):
    first = prepare_source(open_source("camvid", [folder]), tmp_path / "a", workers=0).fingerprint
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert prepare_source(open_source("camvid", [moved]), tmp_path / "b", workers=0).fingerprint == first
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(moved / "valannot" / "0016E5_00003.png")
    assert prepare_source(open_source("camvid", [moved]), tmp_path / "b", workers=0).fingerprint != first


def test_progress_ends_at_the_number_of_samples(folder, tmp_path):
    seen: list[tuple[int, int]] = []
    prepare_source(
        open_source("camvid", [folder]), tmp_path / "data", workers=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_preparing_the_same_bytes_again_does_nothing(folder, tmp_path):
    prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    seen: list[int] = []
    prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, progress=lambda done, total: seen.append(done))
    assert seen == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_a_sample_for_training_and_for_scoring_is_refused_before_anything_is_written(folder, tmp_path):
    source = open_source("camvid", [folder])
    name = source.splits["val"][0]
    leaking = replace(source, splits={**source.splits, "train": [*source.splits["train"], name]})
    with pytest.raises(InputError, match=f"sample '{name}' is in two splits, 'train' and 'val'"):
        prepare_source(leaking, tmp_path / "data", workers=0)
    assert not (tmp_path / "data").exists()
    prepare_source(replace(source, splits={**source.splits, "extra": [name]}), tmp_path / "data", workers=0)


def test_the_lock_of_a_process_that_was_killed_at_its_very_end_goes_too(folder, tmp_path):
    root = tmp_path / "data"
    prepare_source(open_source("camvid", [folder]), root, workers=0)
    (root / ".camvid.lock").touch()
    prepare_source(open_source("camvid", [folder]), root, workers=0)
    assert [path.name for path in root.iterdir()] == ["camvid"]


def test_another_codec_or_a_lost_shard_is_prepared_again(folder, tmp_path):
    shard = prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0).folder / "camvid-00000-of-00001.h5"
    assert prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, codec="zstd").provenance.codec == "zstd"
    shard.unlink()
    assert prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, codec="zstd").image(
        "0016E5_00001"
    ).shape == (32, 40, 3)


def test_a_damaged_shard_is_prepared_again(folder, tmp_path):
    shard = prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0).folder / "camvid-00000-of-00001.h5"
    sound = file_hash(shard)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert file_hash(shard) == sound


@pytest.mark.parametrize("workers", slow_after([0, 2]))
def test_a_bad_sample_leaves_whole_shards_only(tmp_path, workers):
    folder = draw_folder(tmp_path / "source", {"train": [(16, 16)] * 70})
    path = folder / "train" / "0016E5_00068.png"
    sound = path.read_bytes()
    path.write_bytes(sound[:-30])
    with pytest.raises(InputError) as caught:
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=workers)
    message = "the image of sample '0016E5_00068' (train/0016E5_00068.png) cannot be read: it is cut short"
    assert caught.value.message == message
    left = {path.name for path in staging_folder(tmp_path / "data", "camvid").iterdir()}
    whole = {f"camvid-{number:05d}-of-00003.{end}" for number in (0, 1) for end in ("h5", "json")}
    assert left == whole if workers == 0 else left <= whole
    path.write_bytes(sound)
    prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=workers)
    assert files(tmp_path / "data") == [f"camvid/camvid-{number:05d}-of-00003.h5" for number in range(3)] + [
        "camvid/dataset.json"
    ]


def test_a_bad_sample_in_the_first_shard_leaves_nothing(folder, tmp_path):
    (folder / "train" / "0016E5_00001.png").write_bytes((folder / "train" / "0016E5_00001.png").read_bytes()[:-30])
    with pytest.raises(InputError, match="it is cut short"):
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert not (tmp_path / "data").exists()


def interrupted(tmp_path: Path, stop: int = 50) -> tuple[Path, Path, list[Path]]:
    """(source, data root, whole shards) of a preparation of 70 samples in three shards that Ctrl-C stopped."""
    folder, root = draw_folder(tmp_path / "source", {"train": [(16, 16 + n % 3) for n in range(70)]}), tmp_path / "data"

    def press(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_source(open_source("camvid", [folder]), root, workers=0, progress=press)
    return folder, root, sorted(staging_folder(root, "camvid").glob("*.h5"))


def test_a_second_start_continues_where_the_first_stopped(tmp_path):
    folder, root, whole = interrupted(tmp_path)
    assert [path.name for path in whole] == ["camvid-00000-of-00003.h5", "camvid-00001-of-00003.h5"]
    kept = [path.stat().st_ino for path in whole]
    dataset = prepare_source(open_source("camvid", [folder]), root, workers=0)
    assert [(dataset.folder / path.name).stat().st_ino for path in whole] == kept
    straight = prepare_source(open_source("camvid", [folder]), tmp_path / "straight", workers=0)
    assert dataset.fingerprint == straight.fingerprint
    assert dataset.samples == straight.samples
    assert dataset.shard_hashes == straight.shard_hashes


def again(root: Path, folder: Path, **options: object) -> set[str]:
    """The shards that preparing again takes over from the staging folder."""
    before = {path.name: path.stat().st_ino for path in staging_folder(root, "camvid").glob("*.h5")}
    dataset = prepare_source(open_source("camvid", [folder]), root, workers=0, **options)
    return {name for name in dataset.shards if (dataset.folder / name).stat().st_ino == before.get(name)}


def test_a_shard_of_other_source_bytes_is_made_again(tmp_path):
    folder, root, _ = interrupted(tmp_path)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "trainannot" / "0001TP_00000.png")
    assert again(root, folder) == {"camvid-00001-of-00003.h5"}
    assert not open_dataset(root, "camvid").label("0001TP_00000").any()


def test_shards_of_another_codec_are_made_again(tmp_path):
    folder, root, _ = interrupted(tmp_path)
    assert again(root, folder, codec="none") == set()


def test_a_shard_that_changed_on_the_disk_is_made_again(tmp_path):
    folder, root, whole = interrupted(tmp_path)
    content = bytearray(whole[1].read_bytes())
    content[len(content) // 2] ^= 1
    whole[1].write_bytes(content)
    assert again(root, folder) == {"camvid-00000-of-00003.h5"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 3}'])
def test_a_shard_without_a_sound_record_is_made_again(tmp_path, text):
    folder, root, whole = interrupted(tmp_path)
    whole[0].with_suffix(".json").write_text(text)
    assert again(root, folder) == {"camvid-00001-of-00003.h5"}


def test_shards_of_fewer_samples_are_made_again(tmp_path):
    folder, root, _ = interrupted(tmp_path)
    for kind in ("train", "trainannot"):
        (folder / kind / "0001TP_00000.png").unlink()
    assert again(root, folder) == set()


def test_a_trial_packs_a_few_samples_of_each_split_and_says_so(tmp_path):
    folder = draw_folder(tmp_path / "source", {"train": [(16, 16)] * 10, "val": [(16, 16)] * 3})
    trial = prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, limit=4)
    assert {split: len(names) for split, names in trial.splits.items()} == {"train": 4, "val": 3}
    assert trial.names("train") == ["0001TP_00000", "0016E5_00002", "0016E5_00005", "0016E5_00007"]
    assert trial.trial == "a trial: at most 4 samples of each split"
    assert trial.groups.keys() == trial.samples.keys()
    whole = prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert (whole.trial, len(whole.samples)) == ("", 13)
    assert whole.fingerprint != trial.fingerprint
    assert prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, limit=4).trial == trial.trial


def test_a_trial_that_takes_everything_is_no_trial(folder, tmp_path):
    assert prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, limit=3).trial == ""


def test_a_trial_of_nothing_is_refused(folder, tmp_path):
    with pytest.raises(InputError) as caught:
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, limit=0)
    assert str(caught.value) == "--limit is 0, wanted at least 1; leave it out to pack the whole dataset"


def test_a_bad_sample_leaves_the_older_dataset_in_place(folder, tmp_path):
    before = prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0).fingerprint
    Image.fromarray(np.full((32, 40), 99, np.uint8)).save(folder / "trainannot" / "0016E5_00001.png")
    with pytest.raises(InputError, match="holds the id 99"):
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert open_dataset(tmp_path / "data", "camvid").fingerprint == before


def test_what_headers_tell_is_said_before_anything_is_written(folder, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "valannot" / "0016E5_00003.png")
    with pytest.raises(InputError, match="is 8×8 pixels, wanted 64×48 as its image"):
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert not (tmp_path / "data").exists()


def test_ctrl_c_leaves_nothing_half_written(folder, tmp_path):
    def press(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0, progress=press)
    assert not (tmp_path / "data").exists()


def test_what_a_killed_prepare_left_is_cleared_away(folder, tmp_path):
    staging = staging_folder(tmp_path / "data", "camvid")
    staging.mkdir(parents=True)
    (staging / ".camvid-00000-of-00001.h5.part77").write_bytes(b"half")
    prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert files(tmp_path / "data") == ["camvid/camvid-00000-of-00001.h5", "camvid/dataset.json"]


def test_a_source_that_lies_where_the_shards_would_go_is_left_alone(tmp_path):
    folder = draw_folder(tmp_path / "data" / "camvid", SIZES)
    before = files(folder)
    with pytest.raises(InputError) as caught:
        prepare_source(open_source("camvid", [folder]), tmp_path / "data", workers=0)
    assert caught.value.message == f"'{folder}' would hold the shards, but it holds other files ('train')"
    assert files(folder) == before


def test_a_data_root_that_cannot_be_written_is_one_sentence(folder, tmp_path):
    root = tmp_path / "file"
    root.write_text("not a folder")
    with pytest.raises(InputError) as caught:
        prepare_source(open_source("camvid", [folder]), root, workers=0)
    assert str(caught.value) == f"cannot write to the data root '{root}': File exists; give another folder with --data-root"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_data_root_is_one_sentence(folder, tmp_path):
    root = tmp_path / "data"
    root.mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"):
        prepare_source(open_source("camvid", [folder]), root, workers=0)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("camvid", [], "'camvid' needs --source and got none"),
        ("shapes", [Path("x")], "'shapes' is drawn by segctl, but --source is 'x'"),
        ("camvdi", [], f"segctl {__version__} knows no dataset called 'camvdi', did you mean 'camvid'?"),
        ("kitti", [], f"segctl {__version__} knows no dataset called 'kitti'"),
    ],
)
def test_a_name_or_source_that_does_not_fit_is_refused(name, source, message):
    with pytest.raises(InputError) as caught:
        open_source(name, source)
    assert caught.value.message == message


def test_shapes_are_prepared_without_a_source(shapes_root):
    dataset = open_dataset(shapes_root, "shapes")
    assert {split: len(names) for split, names in dataset.splits.items()} == {"train": 240, "val": 60}
    assert len({dataset.size(name) for name in dataset.samples}) == 3
    assert dataset.fingerprint == "1a2e711f27905debf783647bede9d79040139e1a93f05a1e51adb36b178314cc"


def test_shards_hold_sorted_runs_of_equal_length():
    names = {f"{number:03d}": (8, 8) for number in reversed(range(70))}
    shards = plan_shards("toy", names)
    assert [name for name, _ in shards] == [f"toy-{index:05d}-of-00003.h5" for index in range(3)]
    assert [len(samples) for _, samples in shards] == [23, 23, 24]
    assert [name for _, samples in shards for name in samples] == sorted(names)


def test_large_pictures_get_more_shards():
    assert len(plan_shards("toy", {f"{number}": (1024, 2048) for number in range(640)})) == 10


CLASSES = ClassTable((ClassRow("all", 0, 0, (9, 9, 9)),))


@dataclass(frozen=True)
class Grey:
    """Reads flat samples; reading `fatal` kills the process that reads it, as running out of memory would."""

    fatal: str = ""

    def size(self, name: str) -> tuple[int, int]:
        return 4, 5

    def digest(self, name: str) -> str:
        return name

    def read(self, name: str) -> RawSample:
        if name == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return RawSample(name, np.full((4, 5, 3), ord(name), np.uint8), np.zeros((4, 5), np.uint8), None, name, 7)


def conversion(folder: Path, samples: Grey) -> Conversion:
    source = Source("grey", "grey/1", "the test", "none", CLASSES, {"train": ["a", "b", "c"]}, samples)
    return Conversion(source, folder, "lz4", (("grey-0.h5", ("a",)), ("grey-1.h5", ("b", "c"))))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_records_say_where_each_sample_went(tmp_path, workers):
    shards = convert(conversion(tmp_path, Grey()), workers, lambda done, total: None)
    records = {name: record for shard in shards for name, record in shard.records.items()}
    assert [shard.filename for shard in shards] == ["grey-0.h5", "grey-1.h5"]
    assert [shard.file_hash for shard in shards] == [file_hash(tmp_path / shard.filename) for shard in shards]
    assert {name: record.shard for name, record in records.items()} == {"a": 0, "b": 1, "c": 1}
    sample = Grey().read("b")
    assert records["b"].pixels_sha256 == pixels_sha256(sample.image, sample.label)
    assert records["b"].source_bytes == 7


@pytest.mark.slow
def test_a_worker_that_dies_is_one_sentence(tmp_path):
    with pytest.raises(SegctlError) as caught:
        convert(conversion(tmp_path, Grey(fatal="c")), 2, lambda done, total: None)
    assert str(caught.value) == "a converting process died; try again with --workers 1; the machine may be out of memory"
