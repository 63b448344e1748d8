"""PNGs are paired by name, complained about by name, and read as they are."""

from pathlib import Path

import numpy as np
import pytest
from mask_folders import make_folders, save_ids
from PIL import Image

from segctl.errors import InputError
from segctl.evaluate.png_pairs import pair_pngs, read_ids

IDS = np.array([[0, 3], [255, 1]], np.uint8)


def names(pred: Path, gt: Path) -> list[str]:
    return [pair.name for pair in pair_pngs(pred, gt).pairs]


def test_files_are_paired_by_stem_in_any_folder_below(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.PNG"):
        save_ids(tmp_path / "gt" / name, IDS)
    for name in ("1.png", "x/y/2.png"):
        save_ids(tmp_path / "pred" / name, IDS)
    assert names(tmp_path / "pred", tmp_path / "gt") == ["1", "2"]


def test_stems_that_repeat_are_paired_by_path(tmp_path: Path) -> None:
    for side in ("pred", "gt"):
        for name in ("s1/0.png", "s2/0.png"):
            save_ids(tmp_path / side / name, IDS)
    assert names(tmp_path / "pred", tmp_path / "gt") == ["s1/0", "s2/0"]


def test_endings_of_cityscapes_and_deepglobe_are_left_out(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "7_mask.png", IDS)
    save_ids(tmp_path / "pred" / "7_sat.png", IDS)
    assert names(tmp_path / "pred", tmp_path / "gt") == ["7"]


@pytest.mark.parametrize(("kind", "expected"), [("labelIds", "labelIds"), ("labelTrainIds", "labelTrainIds")])
def test_cityscapes_ground_truth_is_chosen_among_its_four_kinds(tmp_path: Path, kind: str, expected: str) -> None:
    stem = "frankfurt_000000_000294"
    for ending in (kind, "instanceIds", "color"):
        save_ids(tmp_path / "gt" / "frankfurt" / f"{stem}_gtFine_{ending}.png", IDS)
    save_ids(tmp_path / "pred" / f"{stem}_leftImg8bit.png", IDS)
    matched = pair_pngs(tmp_path / "pred", tmp_path / "gt")
    (pair,) = matched.pairs
    assert (matched.kind, pair.name) == (expected, stem)
    assert pair.truth.name.endswith(f"{kind}.png")
    assert pair.instances == pair.truth.with_name(f"{stem}_gtFine_instanceIds.png")


def test_a_ground_truth_without_prediction_is_named(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    for index in (1, 3, 0, 4):
        (pred / f"im0{index}.png").unlink()
    with pytest.raises(InputError) as error:
        pair_pngs(pred, gt)
    assert error.value.message == (
        f"4 of 5 files of ground truth have no prediction in '{pred}': 'im00.png', 'im01.png', 'im03.png', ...; "
        "the files there are called 'im02.png'"
    )


def test_a_prediction_without_ground_truth_is_named(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    (gt / "im02.png").unlink()
    with pytest.raises(InputError) as error:
        pair_pngs(pred, gt)
    assert error.value.message == (
        f"1 of 5 files of prediction have no ground truth in '{gt}': 'im02.png'; "
        "the files there are called 'im00.png', 'im01.png', 'im03.png', ..."
    )
    assert error.value.hint == "files are paired by name without ending; add the missing files, remove the others, or rename them"


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        ("{}", "{}_pred"),
        ("{}", "{}-prediction"),
        ("{}", "{}_seg"),
        ("{}_gtFine_labelIds", "{}_leftImg8bit_labelTrainIds"),
        ("{}_gtFine_labelIds", "{}_leftImg8bit_pred_labelTrainIds"),
        ("{}_gt", "{}_out"),
        ("{}", "epoch9_{}"),
        ("{}_label", "model.a_{}_upernet"),
    ],
)
def test_the_usual_and_shared_endings_of_predictions_are_left_out(tmp_path: Path, truth: str, prediction: str) -> None:
    for name in ("ulm_000001_000019", "ulm_000002_000019", "ulm_000012_000019"):
        save_ids(tmp_path / "gt" / "ulm" / f"{truth.format(name)}.png", IDS)
        save_ids(tmp_path / "pred" / f"{prediction.format(name)}.png", IDS)
    pairs = pair_pngs(tmp_path / "pred", tmp_path / "gt").pairs
    assert [pair.prediction.stem.find(pair.name[:17]) >= 0 for pair in pairs] == [True] * 3
    assert len({pair.prediction for pair in pairs}) == 3


def test_images_whose_own_names_have_such_endings_stay_apart(tmp_path: Path) -> None:
    for side in ("pred", "gt"):
        for name in ("a", "a_seg", "a_pred"):
            save_ids(tmp_path / side / f"{name}.png", IDS)
    assert names(tmp_path / "pred", tmp_path / "gt") == ["a", "a_pred", "a_seg"]


def test_one_file_with_an_unknown_ending_may_be_another_image(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "a.png", IDS)
    save_ids(tmp_path / "pred" / "a_night.png", IDS)
    with pytest.raises(InputError, match=r"no prediction in '.*': 'a\.png'; the files there are called 'a_night\.png'"):
        pair_pngs(tmp_path / "pred", tmp_path / "gt")


def test_accents_of_a_mac_pair_with_those_of_other_systems(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "caf\u00e9.png", IDS)
    save_ids(tmp_path / "pred" / "cafe\u0301.png", IDS)
    assert names(tmp_path / "pred", tmp_path / "gt") == ["caf\u00e9"]


def test_linked_folders_are_followed_and_hidden_ones_left_out(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path / "store")
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "city").symlink_to(gt)
    (tmp_path / "gt" / "round").symlink_to(tmp_path / "gt")
    for folder, name in ((".ipynb_checkpoints", "im00-checkpoint.png"), ("__MACOSX", "im00.png"), (".git", "x.png")):
        save_ids(pred / folder / name, IDS)
    assert names(pred, tmp_path / "gt") == [f"im{index:02d}" for index in range(5)]


@pytest.mark.parametrize("name", ["a\x1b]0;title\x07", "b\udcff", "c\nd"])
def test_a_name_with_control_characters_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    pred, gt = make_folders(tmp_path)
    save_ids(gt / f"{name}.png", IDS)
    with pytest.raises(InputError, match=r"control characters|UTF-8"):
        pair_pngs(pred, gt)


def test_accents_of_macs_and_others_are_paired(tmp_path: Path) -> None:
    save_ids(tmp_path / "pred" / "cafe\u0301.png", IDS)
    save_ids(tmp_path / "gt" / "caf\u00e9.png", IDS)
    (pair,) = pair_pngs(tmp_path / "pred", tmp_path / "gt").pairs
    assert np.array_equal(read_ids(pair.prediction), read_ids(pair.truth))


def test_names_in_any_writing_are_paired(tmp_path: Path) -> None:
    wanted = ["Screenshot 5.00\u202fPM", "\u05d0\u200f", "\u3042\u3000\u3044", "caf\u00e9\u00a0 (2)"]
    for side in ("pred", "gt"):
        for name in wanted:
            save_ids(tmp_path / side / f"{name}.png", IDS)
    assert names(tmp_path / "pred", tmp_path / "gt") == sorted(wanted)


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    save_ids(pred / "again" / "im02.png", IDS)
    with pytest.raises(InputError) as error:
        pair_pngs(pred, gt)
    assert error.value.message == f"'again/im02.png' and 'im02.png' in '{pred}' are both the image 'im02'"


def test_folders_that_are_none_or_empty_are_refused(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--gt '.*nowhere' is not a folder"):
        pair_pngs(pred, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"--pred '.*empty' holds no PNG"):
        pair_pngs(tmp_path / "empty", gt)


def test_grey_palette_one_bit_and_16_bit_ids_are_read_as_they_are(tmp_path: Path) -> None:
    grey = save_ids(tmp_path / "grey.png", IDS)
    palette = save_ids(tmp_path / "palette.png", IDS, list(range(255, -1, -1)) * 3)
    wide = save_ids(tmp_path / "wide.png", IDS.astype(np.uint16) + 1000)
    one_bit = save_ids(tmp_path / "bits.png", IDS == 3)
    with Image.open(palette) as opened, Image.open(one_bit) as bits:
        assert (opened.mode, bits.mode) == ("P", "1")
    np.testing.assert_array_equal(read_ids(grey), IDS)
    np.testing.assert_array_equal(read_ids(palette), IDS)
    np.testing.assert_array_equal(read_ids(wide), IDS.astype(int) + 1000)
    np.testing.assert_array_equal(read_ids(one_bit), IDS == 3)


def test_colours_are_refused(tmp_path: Path) -> None:
    path = save_ids(tmp_path / "colour.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError) as error:
        read_ids(path)
    assert str(error.value) == (
        f"'{path}' is RGB, wanted one channel of class ids (grey or palette); save class ids, not colours"
    )


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_a_damaged_file_is_named(tmp_path: Path, cut: int) -> None:
    path = save_ids(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 9, (50, 50), np.uint8))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=f"cannot read '{path}': "):
        read_ids(path)


def test_a_mask_of_too_many_pixels_gets_advice_for_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_ids(tmp_path / "a.png", np.zeros((40, 60), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="is larger than 0 million pixels") as error:
        read_ids(path)
    assert error.value.hint == (
        "cut the ground truth and its prediction into the same tiles without overlap, and score the folders of tiles"
    )
