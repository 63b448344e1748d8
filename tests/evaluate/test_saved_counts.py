"""Saved counts give the scores that were printed when they were made."""

from pathlib import Path

import numpy as np
import pytest
from mask_folders import make_folders

from segctl.errors import InputError
from segctl.evaluate.png_classes import GivenClasses
from segctl.evaluate.png_folders import FilesRequest, score_files
from segctl.evaluate.saved_counts import score_counts
from segctl.evaluate.tables import write_tables


def saved(root: Path, binary: bool = False) -> tuple[Path, dict[str, object]]:
    """A folder of tables, and the content of its scores.json."""
    pred, gt = make_folders(root, classes=2)
    scored = score_files(FilesRequest(pred, gt, GivenClasses(("back", "fore")), binary=binary, boundary=True))
    write_tables(root / "tables", scored.counts, scored.scores)
    return root / "tables", scored.scores


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("given", ["", "counts.npz"])
def test_counts_are_scored_as_they_were(tmp_path: Path, binary: bool, given: str) -> None:
    folder, content = saved(tmp_path, binary)
    assert score_counts(folder / given, binary=False)[1] == content


def test_counts_alone_are_enough(tmp_path: Path) -> None:
    folder, content = saved(tmp_path)
    (tmp_path / "alone.npz").write_bytes((folder / "counts.npz").read_bytes())
    found = score_counts(tmp_path / "alone.npz", binary=False)[1]
    assert found["mIoU_D"] == content["mIoU_D"]
    assert found["intervals"] == content["intervals"]
    assert "mBIoU_D" not in found


def test_plain_counts_can_be_scored_as_binary(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    found = score_counts(folder, binary=True)[1]
    assert [row["class"] for row in found["per_class"]] == ["fore"]


@pytest.mark.parametrize("name", ["confusion", "boundary"])
def test_a_neighbour_of_another_evaluation_is_refused(tmp_path: Path, name: str) -> None:
    folder, _ = saved(tmp_path)
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    if name == "confusion":
        arrays["matrix"] = arrays["matrix"] + 1
    else:
        arrays["names"] = np.array([f"other{index}" for index in range(len(arrays["names"]))])
    np.savez(folder / f"{name}.npz", **arrays)
    with pytest.raises(InputError) as error:
        score_counts(folder, binary=False)
    assert error.value.message == f"'{folder / name}.npz' is not of the same images as '{folder / 'counts.npz'}'"


def test_a_damaged_neighbour_is_named(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    (folder / "confusion.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"cannot read counts from '.*confusion.npz'"):
        score_counts(folder, binary=False)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read counts from '.*counts.npz'"):
        score_counts(tmp_path / "counts.npz", binary=False)
