"""Kills at random moments, bytes changed at random places, and readers in processes of every kind."""

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from camvid_folders import draw_folder

from segctl.cli import main
from segctl.data.batches.loader import training_batches
from segctl.data.datasets import open_source
from segctl.data.inspect.check import check
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import INDEX_NAME, open_dataset
from segctl.errors import SegctlError
from segctl.schema.data import DataSpec

SAMPLES = 132
"""Four shards of 33."""
PREPARE = """
import sys, pathlib
from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
source, root, workers = sys.argv[1:]
tell = lambda done, total: print(done, flush=True)
prepare_source(open_source("camvid", [pathlib.Path(source)]), pathlib.Path(root), workers=int(workers), progress=tell)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(source, fingerprint) of many small samples."""
    folder = tmp_path_factory.mktemp("many")
    source = draw_folder(folder / "source", {"train": [(24, 30 + n % 5) for n in range(SAMPLES - 12)], "val": [(24, 30)] * 12})
    return source, prepare_source(open_source("camvid", [source]), folder / "straight", workers=0).fingerprint


def kill_at(source: Path, root: Path, sample: int, wait_s: float, workers: int) -> None:
    """Start preparing, and SIGKILL it so long after it has reported so many samples."""
    command = [sys.executable, "-c", PREPARE, source, root, f"{workers}"]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= sample:
                break
        time.sleep(wait_s)
        process.kill()


def assert_incomplete_or_whole(root: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """What `data check` says after a kill; whether there was something to continue with."""
    code = main(["data", "check", "camvid", "--data-root", str(root), "--json"])
    out = capsys.readouterr().out
    if code == 2:
        assert not (root / "camvid").exists()
        assert not (root / ".camvid.writing").exists()
    elif code == 3:
        assert json.loads(out) == [{"sample": "", "problem": "incomplete: preparing it was interrupted", "hint": ""}]
    else:
        assert (code, json.loads(out)) == (0, [])
    return code == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "workers"), [(3, 0), pytest.param(10, 0, marks=pytest.mark.slow), pytest.param(10, 2, marks=pytest.mark.slow)]
)
def test_a_killed_preparation_is_incomplete_and_the_next_one_finishes(many, tmp_path, capsys, kills, workers):
    source, fingerprint = many
    dice = random.Random(kills + workers)
    incomplete = 0
    for number in range(kills):
        root = tmp_path / f"{number}"
        kill_at(source, root, sample=dice.randrange(1, SAMPLES), wait_s=dice.uniform(0, 0.02), workers=workers)
        incomplete += assert_incomplete_or_whole(root, capsys)
        dataset = prepare_source(open_source("camvid", [source]), root, workers=0)
        assert dataset.fingerprint == fingerprint
        assert check(root, "camvid") == []
        assert sorted(path.name for path in root.iterdir()) == ["camvid"]
        assert sorted(path.name for path in dataset.folder.iterdir()) == [*dataset.shards, INDEX_NAME]
    assert incomplete > kills // 2


@pytest.mark.slow
def test_kills_one_after_the_other_lose_no_whole_shard(many, tmp_path, capsys):
    source, fingerprint = many
    for sample in (40, 70):
        kill_at(source, tmp_path, sample, wait_s=0, workers=0)
        assert assert_incomplete_or_whole(tmp_path, capsys)
    whole = {path.name: path.stat().st_ino for path in (tmp_path / ".camvid.writing").glob("*.h5")}
    assert len(whole) >= 2
    dataset = prepare_source(open_source("camvid", [source]), tmp_path, workers=0)
    assert dataset.fingerprint == fingerprint
    assert whole.items() <= {name: (dataset.folder / name).stat().st_ino for name in dataset.shards}.items()


@pytest.mark.slow
def test_two_preparations_at_once_do_not_disturb_each_other(many, tmp_path):
    source, fingerprint = many
    with subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(source), str(tmp_path), "0"], stdout=subprocess.PIPE, text=True
    ) as one:
        while int(one.stdout.readline()) < 1:
            pass
        with pytest.raises(SegctlError) as caught:
            prepare_source(open_source("camvid", [source]), tmp_path, workers=0)
        one.communicate()
    assert one.returncode == 0
    assert caught.value.message.startswith(f"preparing 'camvid' in '{tmp_path}' is under way in process {one.pid} on ")
    assert open_dataset(tmp_path, "camvid").fingerprint == fingerprint
    assert check(tmp_path, "camvid") == []


def tile_owners(shard: Path) -> dict[int, str]:
    """The sample that each byte inside a tile belongs to."""
    with h5py.File(shard) as file:
        arrays, table = json.loads(file["index/arrays"][()].tobytes()), file["index/tiles"][()]
    owners = {}
    for key, (first, _, _, shape, tile) in arrays.items():
        for offset, length, _ in table[first : first + -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])]:
            owners |= dict.fromkeys(range(int(offset), int(offset + length)), key.partition("/")[2])
    return owners


@pytest.mark.parametrize("where", ["tile", "shard", "index"])
def test_a_changed_byte_is_found_and_never_a_wrong_pixel(packed_root, tmp_path, dataset, where):
    """60 places: inside of a tile the sample is named, by check and by the read; elsewhere the file is."""
    shard = tmp_path / "camvid" / dataset.shards[0]
    index = tmp_path / "camvid" / INDEX_NAME
    shutil.copytree(packed_root / "camvid", tmp_path / "camvid")
    owners, sound = tile_owners(shard), {shard: shard.read_bytes(), index: index.read_bytes()}
    path = index if where == "index" else shard
    dice = random.Random(where)
    places = [place for place in range(len(sound[path])) if where == "index" or (place in owners) == (where == "tile")]
    for place in dice.sample(places, 20):
        changed = bytearray(sound[path])
        changed[place] ^= dice.randrange(1, 256)
        path.write_bytes(changed)
        findings = check(tmp_path, "camvid")
        if where == "tile":
            assert [finding.sample for finding in findings] == [owners[place]]
            with pytest.raises(SegctlError, match=f"of sample '{owners[place]}' cannot be read"):
                read_all(tmp_path, [owners[place]], dataset)
            read_all(tmp_path, [name for name in dataset.samples if name != owners[place]], dataset)
        else:
            assert findings
            assert all(finding.sample == "" and path.name in finding.problem for finding in findings)
            with suppress(SegctlError):
                read_all(tmp_path, list(dataset.samples), dataset)
        path.write_bytes(sound[path])
    assert check(tmp_path, "camvid") == []


def read_all(root: Path, names: list[str], sound) -> None:
    """Every pixel is right, or it is an error."""
    hurt = open_dataset(root, "camvid")
    for name in names:
        assert np.array_equal(hurt.image(name), sound.image(name))
        assert np.array_equal(hurt.label(name), sound.label(name))


def batches(dataset, workers: int, method: str | None) -> list[bytes]:
    view = DataSpec(dataset="camvid", crop=(48, 64))
    stream = {"view": view, "batch_size": 3, "seed": 1, "first_step": 0, "last_step": 3}
    found = training_batches(dataset, "train", workers=workers, start_method=method, **stream)
    return [batch.images.numpy().tobytes() + batch.labels.numpy().tobytes() for batch in found]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("codec", "methods"), [("source", ["fork"]), pytest.param("zstd", ["fork", "forkserver"], marks=pytest.mark.slow)]
)
def test_every_start_method_gives_the_same_bytes(packed_root, source, tmp_path, codec, methods):
    """Other counts of workers, with lz4, are in test_loader.py."""
    dataset = prepare_source(open_source("camvid", [source]), tmp_path, codec=codec, workers=0)
    wanted = batches(open_dataset(packed_root, "camvid"), 0, None)
    assert batches(dataset, 0, None) == wanted
    for method in methods:
        assert batches(dataset, 1, method) == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_all_start_methods_and_counts_of_workers_give_the_same_bytes(dataset, method):
    wanted = batches(dataset, 0, None)
    for workers in (1, 4):
        assert batches(dataset, workers, method) == wanted
