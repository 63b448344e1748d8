"""LiTS and KiTS19, with a few small volumes in the published layouts."""

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


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume int16 (5 slices, 8, 8) and its segmentation: organ everywhere in slices 1 to 4, a tumour in slices 2 and 3."""
    volume = np.random.default_rng(seed).integers(-1000, 1000, (5, 8, 8)).astype(np.int16)
    label = np.zeros((5, 8, 8), np.uint8)
    label[1:] = 1
    label[2, :4, :2] = label[3, 7, 7] = 2
    return volume, label


def lits(cases: int = 6, **how: float) -> Tree:
    tree: Tree = {"Training Batch 1/test-volume-3.nii": b"not read"}
    for case in range(cases):
        volume, label = (np.moveaxis(array, 0, 2) for array in scan(case))
        folder = f"media/nas/LITS/Training Batch {1 + case % 2}"
        tree[f"{folder}/volume-{case}.nii"] = nifti(volume, packed=False, **how)
        tree[f"{folder}/segmentation-{case}.nii"] = nifti(label, packed=False)
    return tree


def kits(cases: int = 6) -> Tree:
    tree: Tree = {"data/kits.json": b"[]", "data/case_00210/imaging.nii.gz": nifti(scan(210)[0])}
    for case in range(cases):
        for kind, array in zip(("imaging", "segmentation"), scan(case), strict=True):
            tree[f"data/case_{case:05d}/{kind}.nii.gz"] = nifti(array)
    return tree


@pytest.mark.parametrize(("name", "draw", "low", "high"), [("lits", lits, -60, 140), ("kits", kits, -200, 300)])
def test_a_slice_pixel_by_pixel(name: str, draw, low: int, high: int, tmp_path: Path) -> None:
    """8×8 numbers become 512×512: each pixel's centre lies 64 apart, and there resizing keeps the number nearly."""
    source = open_source(name, [write_folder(tmp_path / name, draw())])
    first = next(iter(source.splits["all"]))
    assert first == {"lits": "000_0002", "kits": "00000_0002"}[name]
    sample = source.samples.read(first)
    volume, label = scan(0)
    assert sample.image.shape == (512, 512, 1)
    for row, column in np.ndindex(8, 8):
        block = sample.label[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
        assert (block == (label[2, row, column] == 2)).all()
    corner = round(min(max((int(volume[2, 0, 0]) - low) * 255 / (high - low), 0), 255))
    assert sample.image[:32, :32, 0].tolist() == [[corner] * 32] * 32  # before the first centre nothing is mixed
    assert source.groups[first] == first.partition("_")[0]


def test_slices_with_a_tumour_alone_are_packed_by_patient(tmp_path: Path) -> None:
    halves = [{p: c for p, c in lits().items() if f"Batch {number}" in p} for number in (1, 2)]
    source = open_source("lits", [write_zip(tmp_path / f"batch{index}", half) for index, half in enumerate(halves)])
    dataset = prepare_source(source, tmp_path / "data", workers=0)
    assert len(dataset.samples) == 12
    assert dataset.bands == 1
    assert dataset.splits["val_fold0"] == ["000_0002", "000_0003"]
    assert dataset.splits["val_fold4"] == [f"{case}_000{index}" for case in ("004", "005") for index in (2, 3)]
    assert check(tmp_path / "data", "lits") == []
    assert any("these are 12 slices of 6 cases, not the official 7190 of 131" in note for note in dataset.provenance.notes)
    again = prepare_source(source, tmp_path / "data", workers=0)
    assert again.provenance.created == dataset.provenance.created


def test_the_scale_of_the_header_holds(tmp_path: Path) -> None:
    plain = open_source("lits", [write_folder(tmp_path / "a", lits(5))]).samples
    scaled = open_source("lits", [write_folder(tmp_path / "b", lits(5, slope=1.0, intercept=20.0))]).samples
    one, other = plain.read("000_0002").image.astype(int), scaled.read("000_0002").image.astype(int)
    inside = (one > 0) & (one < 200)
    assert (abs(other - one - 25.5)[inside] <= 2).all()  # 20 of 200 units
    assert inside.any()


def test_a_case_without_segmentation_is_left_out(tmp_path: Path) -> None:
    source = open_source("kits", [write_folder(tmp_path / "kits", kits())])
    assert "1 volumes have no segmentation and are left out" in source.notes
    assert len(source.splits["all"]) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"data/case_00002/segmentation.nii.gz": nifti(np.zeros((5, 8, 7), np.uint8))},
            "has 5×8×7 numbers, wanted 5×8×8",
        ),
        ({"data/case_00002/segmentation.nii.gz": nifti(np.full((5, 8, 8), 3, np.uint8))}, "holds the value 3, wanted 0 to 2"),
        ({"old/case_00002/imaging.nii.gz": nifti(scan(2)[0])}, "are the same case"),
        ({"data/case_00009/segmentation.nii.gz": nifti(scan(2)[1])}, "case 9 has its segmentation but no imaging"),
    ],
)
def test_what_does_not_fit_is_a_problem_in_a_sentence(change: Tree, words: str, tmp_path: Path) -> None:
    problems = open_source("kits", [write_folder(tmp_path / "kits", kits() | change)]).problems
    assert [words in str(problem) for problem in problems] == [True]


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no volume of 'lits' with its segmentation: it has 0 volumes and 0 segmentations"):
        open_source("lits", [write_folder(tmp_path / "kits", kits())])
    cut = kits()["data/case_00001/segmentation.nii.gz"][:-9]
    with pytest.raises(InputError, match=r"case_00001/segmentation.nii.gz' is not a whole NIfTI volume: it is cut short"):
        open_source("kits", [write_folder(tmp_path / "cut", kits() | {"data/case_00001/segmentation.nii.gz": cut})])
