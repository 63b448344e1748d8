"""What an evaluation leaves on the disk."""

import csv
import json
from pathlib import Path

import numpy as np
from mask_folders import make_folders

from segctl.evaluate.png_classes import GivenClasses
from segctl.evaluate.png_folders import FilesRequest, score_files
from segctl.evaluate.tables import write_tables
from segctl.metrics.scores import PER_CLASS_COLUMNS, SCORE_NAMES
from segctl.metrics.store import load_table


def write(root: Path, boundary: bool = False) -> Path:
    pred, gt = make_folders(root)
    scored = score_files(FilesRequest(pred, gt, GivenClasses(tuple("abcd")), boundary=boundary))
    write_tables(root / "tables", scored.counts, scored.scores)
    return root / "tables"


def test_every_table_is_there_and_holds_what_its_name_says(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "scores.json", "per_image.csv", "per_class.csv", "counts.npz", "confusion.npz",
    }  # fmt: skip
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert set(SCORE_NAMES) <= set(content)
    assert len(load_table(folder / "counts.npz").names) == 5
    with (folder / "per_image.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["image"] for row in rows] == [f"im{index:02d}" for index in range(5)]
    with (folder / "per_class.csv").open(encoding="utf-8") as handle:
        assert tuple(next(csv.reader(handle))) == PER_CLASS_COLUMNS
    with np.load(folder / "confusion.npz") as file:
        assert file["matrix"].shape == (4, 4)


def test_every_score_has_its_interval_and_the_method_is_said(tmp_path: Path) -> None:
    content = json.loads((write(tmp_path) / "scores.json").read_text(encoding="utf-8"))
    assert set(content["intervals"]) == set(SCORE_NAMES)
    low, high = content["intervals"]["mIoU_D"]
    assert low <= content["mIoU_D"] <= high
    assert set(content["intervals_per_class"]) == set("abcd")
    assert content["intervals_method"] == "95 % percentile bootstrap over 5 images, 2,000 resamples, seed 0"
    assert content["intervals_warning"] == "there are only 5 images: these intervals are rough"


def test_what_is_not_counted_any_more_does_not_stay_behind(tmp_path: Path) -> None:
    assert (write(tmp_path, boundary=True) / "boundary.npz").is_file()
    assert not (write(tmp_path) / "boundary.npz").exists()
