"""QUBIQ, with a few small slices in the published layout."""

from pathlib import Path

import numpy as np
import pytest
from archive_files import write_folder, write_zip
from nifti_files import nifti

from segctl.data.datasets import open_source
from segctl.data.inspect.check import check
from segctl.data.prepare import prepare_source
from segctl.errors import InputError

pytest.importorskip("nibabel", reason="the extra `medical` is not installed")
Tree = dict[str, bytes]


def case(name: str, number: int, raters: int, tasks: int = 1, bands: int = 1) -> Tree:
    """One case: an image of 5 columns and 4 rows, whose third column all raters outline and the fourth some."""
    folder = f"training_data_v3_QC/{name}/case{number:02d}"
    image = np.arange(20 * bands, dtype=np.float32).reshape((5, 4) if bands == 1 else (5, 4, bands)) + number
    tree = {f"{folder}/image.nii.gz": nifti(image)}
    for task in range(1, tasks + 1):
        for rater in range(1, raters + 1):
            label = np.zeros((5, 4), np.uint8)
            label[2], label[3] = 1, rater <= raters // 2
            tree[f"{folder}/task{task:02d}_seg{rater:02d}.nii.gz"] = nifti(label)
    return tree


def kidneys(count: int = 10) -> Tree:
    return {path: content for number in range(1, count + 1) for path, content in case("kidney", number, 3).items()}


def test_a_case_by_hand(tmp_path: Path) -> None:
    source = open_source("qubiq-kidney", [write_folder(tmp_path / "q", kidneys())])
    sample = source.samples.read("case01")
    assert sample.image.shape == (256, 256, 1)
    # Row 0 of the picture is the first number of each column: 1, 5, 9, 13, 17 of at most 20.
    assert sample.image[0, [0, 255], 0].tolist() == [round(255 * 1 / 20), round(255 * 17 / 20)]
    assert sample.image[255, 255, 0] == 255
    maps = sample.votes.record.table()[sample.votes.numbers]
    assert maps.shape == (256, 256, 3)
    assert maps[0, [0, 128, 180, 255]].tolist() == [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert sample.label[9, [0, 128, 180]].tolist() == [0, 1, 0]


def test_it_is_packed_with_one_band_and_every_raters_map(tmp_path: Path) -> None:
    halves = [{p: c for p, c in kidneys().items() if ("case0" in p) == first} for first in (True, False)]
    given = [write_zip(tmp_path / f"part{index}", half) for index, half in enumerate(halves)]
    dataset = prepare_source(open_source("qubiq-kidney", given), tmp_path / "data", workers=0)
    assert dataset.bands == 1
    assert dataset.classes.binary
    assert len(dataset.raters_of("case07").weights) == 3
    assert check(tmp_path / "data", "qubiq-kidney") == []
    assert dataset.splits["val_fold0"] == ["case01", "case02"]
    assert dataset.splits["val_fold4"] == ["case09", "case10"]
    assert len(dataset.splits["train_fold3"]) == 8
    assert "these are 10 cases, not the official 24: the folds are cut by the same rule" in dataset.provenance.notes


def test_the_last_fold_takes_what_is_left_and_no_case_is_in_both(tmp_path: Path) -> None:
    source = open_source("qubiq-kidney", [write_folder(tmp_path / "q", kidneys(12))])
    assert [len(source.splits[f"val_fold{fold}"]) for fold in range(5)] == [2, 2, 2, 2, 4]
    assert all(not set(source.splits[f"val_fold{fold}"]) & set(source.splits[f"train_fold{fold}"]) for fold in range(5))


def test_prostate_case_9_is_left_out_and_55_stands_in_its_place(tmp_path: Path) -> None:
    tree: Tree = {}
    for number in (*range(1, 13), 55):
        tree |= case("prostate", number, 5 if number == 9 else 6, tasks=2)
    source = open_source("qubiq-prostate-2", [write_folder(tmp_path / "q", tree)])
    assert "case 9 is left out: it has 5 raters, not 6" in source.notes
    assert [source.splits[f"val_fold{fold}"] for fold in (3, 4)] == [
        ["case07", "case08"],
        ["case10", "case11", "case12", "case55"],
    ]
    assert source.name == "qubiq-prostate-2"


def test_four_sequences_are_four_bands(tmp_path: Path) -> None:
    tree = {path: content for number in range(1, 6) for path, content in case("brain-tumor", number, 3, 3, bands=4).items()}
    source = open_source("qubiq-brain-tumor-3", [write_folder(tmp_path / "q", tree)])
    image = source.samples.read("case01").image
    assert image.shape == (256, 256, 4)
    assert image[0, 0].tolist() == [round(255 * value / 80) for value in (1, 2, 3, 4)]
    renamed = {path.replace("brain-tumor", "kidney"): content for path, content in tree.items()}
    kidney = open_source("qubiq-kidney", [write_folder(tmp_path / "k", renamed)])
    with pytest.raises(InputError, match="has 4 bands, wanted 1"):
        kidney.samples.size("case01")


def test_a_rater_with_another_size_or_other_values_is_refused(tmp_path: Path) -> None:
    path = "training_data_v3_QC/kidney/case02/task01_seg03.nii.gz"
    tree = kidneys() | {path: nifti(np.zeros((4, 4), np.uint8))}
    with pytest.raises(InputError, match=r"task01_seg03.nii.gz\) is 4×4 pixels, wanted 5×4 as its image"):
        open_source("qubiq-kidney", [write_folder(tmp_path / "size", tree)]).samples.size("case02")
    tree[path] = nifti(np.full((5, 4), 2, np.uint8))
    with pytest.raises(InputError, match="holds the value 2, wanted 0 and 1"):
        open_source("qubiq-kidney", [write_folder(tmp_path / "value", tree)]).samples.read("case02")


def test_what_is_no_whole_nifti_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = "training_data_v3_QC/kidney/case02/image.nii.gz"
    for index, (content, words) in enumerate(
        [
            (b"none", "is not a NIfTI volume"),
            (kidneys()[path][:-20], "not a whole NIfTI volume"),
            (nifti(np.zeros((5, 4, 3, 2), np.uint8)), "one slice"),
        ]
    ):
        source = open_source("qubiq-kidney", [write_folder(tmp_path / str(index), kidneys() | {path: content})])
        with pytest.raises(InputError, match=words):
            source.samples.read("case02")


def test_another_set_and_missing_parts_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no folders brain-growth/caseNN with image.nii.gz and task01_segNN.nii.gz"):
        open_source("qubiq-brain-growth", [write_folder(tmp_path / "q", kidneys())])
    tree = {path: content for path, content in kidneys().items() if "case03/image" not in path and "case04/task" not in path}
    problems = open_source("qubiq-kidney", [write_folder(tmp_path / "part", tree)]).problems
    assert [one.problem for one in problems] == [
        "case 3 of kidney has its labels but no image.nii.gz",
        "case 4 of kidney has its image but no task01_segNN.nii.gz",
    ]
