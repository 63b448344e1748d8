"""A packed dataset with pictures of several sizes, some larger than a tile."""

from pathlib import Path

import pytest
import shard_files
from camvid_folders import draw_folder

from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.data.shards.shard import CODECS, write_shard

SIZES = {"train": [(300, 520), (120, 96), (64, 80), (200, 310), (96, 128), (90, 70)], "val": [(120, 96), (64, 80)]}


@pytest.fixture(scope="session")
def packed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    prepare_source(open_source("camvid", [draw_folder(root / "camvid-source", SIZES)]), root, workers=0)
    return root


@pytest.fixture(scope="session")
def source(packed_root: Path) -> Path:
    return packed_root / "camvid-source"


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    prepare_source(open_source("shapes", []), root, workers=0)
    return root


@pytest.fixture
def dataset(packed_root: Path) -> PreparedDataset:
    return open_dataset(packed_root, "camvid")


@pytest.fixture(params=CODECS)
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "toy-00000-of-00001.h5"
    write_shard(path, (shard_files.raw_sample(name) for name in shard_files.SIZES), request.param)
    return path
