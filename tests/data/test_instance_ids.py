"""Instance maps of every coding become one, and are scored as the map in memory is."""

import json
from pathlib import Path

import numpy as np
import pytest
import voc_files
from archive_files import write_folder
from own_files import write_own
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.datasets.voc import open_voc
from segctl.data.findings import Finding
from segctl.data.instance_ids import MOST_INSTANCES, numbered_instances
from segctl.data.prepare import prepare_source
from segctl.errors import InputError


def test_numbers_by_hand() -> None:
    eight = np.array([[0, 3, 255], [3, 7, 0]], np.uint8)
    assert numbered_instances(eight).tolist() == [[0, 1000, 0], [1000, 1001, 0]]
    sixteen = eight.astype(np.uint16)
    assert numbered_instances(sixteen).tolist() == [[0, 1000, 1002], [1000, 1001, 0]]  # 255 is a number like any other
    rgb = np.zeros((1, 3, 3), np.uint8)
    rgb[0, 1], rgb[0, 2] = (1, 0, 0), (0, 0, 1)  # the numbers 1 and 65536
    assert numbered_instances(rgb).tolist() == [[0, 1000, 1001]]


def test_more_instances_than_the_code_holds_are_refused() -> None:
    codes = np.arange(MOST_INSTANCES + 2, dtype=np.int64)
    rgb = np.stack([codes & 255, codes >> 8 & 255, codes >> 16], -1)[None].astype(np.uint8)
    with pytest.raises(InputError, match="got 64537 instances in one map, wanted at most 64536"):
        numbered_instances(rgb)
    assert numbered_instances(rgb[:, :-1]).max() == 65535


def coded(kind: str, numbers: np.ndarray) -> Image.Image:
    if kind == "rgb":
        wide = numbers.astype(np.int64) * 70_001  # spreads over all three channels
        return Image.fromarray(np.stack([wide & 255, wide >> 8 & 255, wide >> 16], -1).astype(np.uint8))
    return Image.fromarray(numbers.astype(np.uint16 if kind == "16" else np.uint8))


@pytest.mark.parametrize("kind", ["rgb", "16", "8"])
@pytest.mark.parametrize("ending", ["", "_panoptic"])
def test_maps_of_a_persons_own_are_packed(tmp_path: Path, kind: str, ending: str) -> None:
    names, numbers = ["train/a", "val/b"], np.zeros((12, 20), np.uint8)
    numbers[:3], numbers[5:, 4:] = 9, 2
    files = write_own(tmp_path, names)
    (tmp_path / "instances" / "val").mkdir(parents=True)
    coded(kind, numbers).save(tmp_path / "instances" / "val" / f"b{ending}.png")
    own = OwnFiles(*files, instances=tmp_path / "instances")
    dataset = prepare_source(open_own("streets", own), tmp_path / "data", workers=0)
    wanted = np.where(numbers == 9, 1001, np.where(numbers == 2, 1000, 0))
    np.testing.assert_array_equal(dataset.instance("b"), wanted)
    assert dataset.instance("a") is None


def test_a_split_with_some_maps_is_refused(tmp_path: Path) -> None:
    files = write_own(tmp_path, ["val/a", "val/b"])
    (tmp_path / "instances").mkdir()
    Image.fromarray(np.ones((12, 20), np.uint8)).save(tmp_path / "instances" / "b.png")
    source = open_own("streets", OwnFiles(*files, instances=tmp_path / "instances"))
    assert source.problems == (
        Finding("a", "sample 'a' has no instance map, but others of 'val' have one", "add it, or give a folder of all"),
    )


def test_voc_numbers_its_objects_for_val_alone(tmp_path: Path) -> None:
    tree = voc_files.voc()
    for name in voc_files.TRAIN + voc_files.VAL:
        objects = np.where(voc_files.voc_label(name) == 15, 4, voc_files.voc_label(name)).astype(np.uint8)
        tree[f"{voc_files.TOP}/SegmentationObject/{name}.png"] = voc_files.palette_png(objects)
    source = open_voc([write_folder(tmp_path / "voc", tree)])
    assert source.problems == ()
    assert source.samples.read(voc_files.TRAIN[0]).instance is None
    sample = source.samples.read(voc_files.VAL[0])
    np.testing.assert_array_equal(sample.instance, np.where(sample.label == 15, 1000, 0))  # the border is not an object
    del tree[f"{voc_files.TOP}/SegmentationObject/{voc_files.VAL[1]}.png"]
    (problem,) = open_voc([write_folder(tmp_path / "less", tree)]).problems
    assert "have no map in SegmentationObject" in problem.problem


@pytest.mark.parametrize("kind", ["rgb", "16", "8"])
def test_eval_scores_the_segments_of_any_map(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A person all right and a group all missed, with 50 false pixels: 40 for the class, 50 for the ground, 45 together."""
    truth, guess, numbers = (np.zeros((20, 20), np.uint8) for _ in range(3))
    truth.ravel()[:200], numbers.ravel()[:100], numbers.ravel()[100:200] = 1, 5, 8
    guess.ravel()[:100], guess.ravel()[200:250] = 1, 1
    for side, picture in (("pred", guess), ("gt", truth)):
        (tmp_path / side).mkdir()
        Image.fromarray(picture).save(tmp_path / side / "x.png")
    (tmp_path / "maps").mkdir()
    coded(kind, numbers).save(tmp_path / "maps" / "x.png")
    given = ["eval", "--pred", str(tmp_path / "pred"), "--gt", str(tmp_path / "gt"), "--num-classes", "2", "--json"]
    given += ["--instances", str(tmp_path / "maps"), "--worst", "1,10", "-o", str(tmp_path / "tables")]
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["mIoU_K"], found["mIoU_K_q5"], found["mIoU_K_q10"]) == pytest.approx((45, 25, 25))
    assert found["mDice_K"] == pytest.approx((100 * (2 * 100 / 225 + 0) / 2 + 100 * 300 / 450) / 2)
    assert "mIoU_C_q1" in found
    assert main(["eval", "--counts", str(tmp_path / "tables"), "--segment-px", "101", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["mIoU_K"] == pytest.approx(50)  # only the ground is left
    assert again["about"]["segment_px"] == 101
    (tmp_path / "maps" / "x.png").rename(tmp_path / "maps" / "y.png")
    assert main(given) == 2
    assert "1 of 1 files of ground truth have no instance map in" in capsys.readouterr().err


def test_cityscapes_maps_beside_some_of_the_ground_truth_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = np.full((4, 4), 7, np.uint8)
    for name in ("a_000000_000000", "a_000000_000001"):
        for folder, ending in (("pred", "leftImg8bit"), ("gt", "gtFine_labelIds")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(ids).save(tmp_path / folder / f"{name}_{ending}.png")
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "gt" / "a_000000_000000_gtFine_instanceIds.png")
    given = ["eval", "--pred", str(tmp_path / "pred"), "--gt", str(tmp_path / "gt"), "--label-ids"]
    assert main(given) == 2
    assert "a_000000_000001_gtFine_labelIds.png' has no instance map beside it" in capsys.readouterr().err
    (tmp_path / "gt" / "a_000000_000000_gtFine_instanceIds.png").unlink()
    assert main([*given, "--segment-px", "3"]) == 0
    assert "--segment-px changes nothing" in capsys.readouterr().err


@pytest.mark.parametrize("worst", ["0", "101", "x", "", "5,", "2.5", "-1"])
def test_a_worst_case_that_is_no_percentage_is_refused(worst: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--counts", "counts.npz", f"--worst={worst}"]) == 2
    assert "--worst" in capsys.readouterr().err
