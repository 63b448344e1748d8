"""One picture's way from a zip to a batch: a reader who follows it opens few files."""

import subprocess
import sys
from pathlib import Path

import pytest
from archive_files import write_zip
from camvid_folders import draw_folder

MOST_FILES = 14
FOLLOW = """
import pathlib, sys
import segctl.data.batches.loader as loader
from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.schema.data import DataSpec
import segctl.data.datasets.camvid

view = DataSpec(dataset="camvid", crop=(16, 16))
top, seen = str(pathlib.Path(loader.__file__).parents[2]), set()
follow = lambda frame, event, argument: seen.add(frame.f_code.co_filename) if event == "call" else None
sys.setprofile(follow)
prepare_source(open_source("camvid", [pathlib.Path(sys.argv[1])]), pathlib.Path(sys.argv[2]), workers=1)
sys.setprofile(None)  # dataset.json holds no picture
dataset = open_dataset(pathlib.Path(sys.argv[2]), "camvid")
sys.setprofile(follow)
next(loader.training_batches(dataset, "train", view=view, batch_size=1, seed=0, first_step=0, last_step=1, workers=0))
sys.setprofile(None)
print("\\n".join(sorted(file.removeprefix(top) for file in seen if file.startswith(top))))
"""


@pytest.mark.slow
def test_a_picture_passes_few_files(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "camvid", {"train": [(24, 32)]})
    tree = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
    line = [sys.executable, "-c", FOLLOW, str(write_zip(tmp_path / "camvid", tree)), str(tmp_path / "data")]
    files = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    assert "/data/prepare.py" in files
    assert len(files) <= MOST_FILES, "\n".join(files)
