"""Anybody's PNGs give the numbers of the same maps in memory, with any number of workers."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mask_folders import draw_pair, make_folders, save_ids

from segctl.errors import InputError
from segctl.evaluate.png_classes import GivenClasses, given_classes
from segctl.evaluate.png_folders import FilesRequest, score_files
from segctl.metrics.boundary import boundary_counts
from segctl.metrics.counts import confusion, count
from segctl.metrics.scores import score

CLASSES = GivenClasses(("0", "1", "2", "3"))
NINETEEN = GivenClasses(tuple(map(str, range(19))))
BINARY = GivenClasses(("back", "fore"), binary=True)
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_counts_and_scores_are_those_of_the_maps(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    found = score_files(FilesRequest(pred, gt, CLASSES))
    prediction, truth = (np.stack(maps) for maps in zip(*[draw_pair(index) for index in range(5)], strict=True))
    assert found.counts.table.names == tuple(f"im{index:02d}" for index in range(5))
    np.testing.assert_array_equal(found.counts.table.counts, count(prediction, truth, 4))
    np.testing.assert_array_equal(found.counts.confusion, confusion(prediction, truth, 4))
    assert {name: found.scores[name] for name in score(found.counts.table)} == score(found.counts.table)
    assert found.scores["about"]["images"] == 5
    assert found.warnings == ()


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same(tmp_path: Path, workers: int) -> None:
    pred, gt = make_folders(tmp_path, images=23)
    seen: list[tuple[int, int]] = []
    alone = score_files(FilesRequest(pred, gt, CLASSES, boundary=True))
    together = score_files(FilesRequest(pred, gt, CLASSES, boundary=True, workers=workers), lambda *done: seen.append(done))
    assert together.scores == alone.scores
    assert seen == [(done, 23) for done in range(1, 24)]


def test_boundaries_are_counted_where_asked(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path, images=1)
    found = score_files(FilesRequest(pred, gt, CLASSES, boundary=True))
    assert found.counts.boundary is not None
    np.testing.assert_array_equal(found.counts.boundary.counts[0], boundary_counts(*draw_pair(0), 4))
    assert "mBIoU_D" in found.scores


def test_another_size_is_refused_or_resized_to_the_nearest(tmp_path: Path) -> None:
    prediction, truth = draw_pair(0)
    small = cv2.resize(prediction, (16, 12), interpolation=cv2.INTER_NEAREST_EXACT)
    pred, gt = save_ids(tmp_path / "pred" / "a.png", small), save_ids(tmp_path / "gt" / "a.png", truth)
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(pred.parent, gt.parent, CLASSES))
    assert error.value.message == f"'{pred}' has 16×12 pixels, but its ground truth '{gt}' has 32×24"
    assert error.value.hint == "predict at the size of the ground truth, or add --resize nearest"
    found = score_files(FilesRequest(pred.parent, gt.parent, CLASSES, resize=True))
    large = small.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(found.counts.table.counts, count(large[None], truth[None], 4))
    assert "nearest" in found.scores["about"]["protocol"]


def cityscapes(root: Path, images: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and official-looking ground truth in label ids; returns both in train ids."""
    guesses, truths = [], []
    for index in range(images):
        guess, truth = draw_pair(index, classes=19)
        raw = np.array([*LABEL_IDS, *[0] * 237], np.uint8)
        stem, city = f"ulm_{index:06d}_000019", root / "gt" / "ulm"
        instances = np.where(truth > 10, raw[truth].astype(np.uint16) * 1000, raw[truth])
        save_ids(city / f"{stem}_gtFine_labelIds.png", raw[truth])
        save_ids(city / f"{stem}_gtFine_instanceIds.png", instances.astype(np.uint16))
        save_ids(root / "pred" / f"{stem}.png", raw[guess])
        save_ids(root / "trained" / f"{stem}.png", guess)
        guesses.append(guess)
        truths.append(truth)
    return np.stack(guesses), np.stack(truths)


@pytest.mark.parametrize(("folder", "label_ids"), [("pred", True), ("trained", False)])
def test_cityscapes_ids_of_either_kind_give_the_benchmarks_scores(tmp_path: Path, folder: str, label_ids: bool) -> None:
    guess, truth = cityscapes(tmp_path)
    classes = given_classes(None, None, label_ids=True) if label_ids else NINETEEN
    found = score_files(FilesRequest(tmp_path / folder, tmp_path / "gt", classes))
    np.testing.assert_array_equal(found.counts.table.counts, count(guess, truth, 19))
    assert found.counts.table.class_names[13] == "car"
    assert found.counts.table.groups == ("ulm",) * 3
    assert {"mIoU_K", "miIoU", "mIoU_category", "miIoU_category"} <= set(found.scores)
    assert {row["category"] for row in found.scores["per_category"]} >= {"human", "vehicle"}
    assert "iIoU" in found.scores["per_class"][13]


def test_a_caravan_is_wrong_but_a_vehicle(tmp_path: Path) -> None:
    stem = "ulm_000000_000019"
    for ending, ids in (("labelIds", np.full((2, 2), 26, np.uint8)), ("instanceIds", np.full((2, 2), 26001, np.uint16))):
        save_ids(tmp_path / "gt" / f"{stem}_gtFine_{ending}.png", ids)
    save_ids(tmp_path / "pred" / f"{stem}.png", np.array([[26, 29], [29, 0]], np.uint8))
    content = score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", given_classes(None, None, label_ids=True))).scores
    by_class = {row["class"]: row for row in content["per_class"]}
    by_category = {row["category"]: row for row in content["per_category"]}
    assert by_class["car"]["iIoU"] == pytest.approx(25)
    assert by_category["vehicle"]["iIoU"] == pytest.approx(75)
    assert by_category["vehicle"]["IoU"] == pytest.approx(25)


def test_a_label_outside_the_classes_names_its_file(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    save_ids(gt / "im03.png", np.full((24, 32), 33, np.uint8))
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(pred, gt, CLASSES))
    assert error.value.message == f"'{gt / 'im03.png'}': a label has the id 33, wanted 0 to 3 or 255 (ignored)"
    assert error.value.hint == "check --num-classes; 255 marks ignored pixels, or give --ignore ID"
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(pred, gt, NINETEEN))
    assert error.value.hint == "add --label-ids if these are Cityscapes label ids"


def test_own_classes_win_over_names_like_those_of_cityscapes(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    for path in gt.iterdir():
        path.rename(path.with_name(f"{path.stem}_gtFine_labelIds.png"))
    found = score_files(FilesRequest(pred, gt, CLASSES))
    prediction, truth = (np.stack(maps) for maps in zip(*[draw_pair(index) for index in range(5)], strict=True))
    np.testing.assert_array_equal(found.counts.table.counts, count(prediction, truth, 4))
    assert found.warnings == ()


def test_19_own_classes_in_names_of_cityscapes_are_asked_about(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "a_gtFine_labelIds.png", np.array([[7, 8, 18]], np.uint8))
    save_ids(tmp_path / "pred" / "a.png", np.array([[0, 1, 18]], np.uint8))
    *_, warning = score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", NINETEEN)).warnings
    assert warning.endswith("no id is above 18; for 19 classes of your own, name them with --classes FILE")


def own_table(path: Path) -> GivenClasses:
    path.write_text("name,id,ignored\nfore,255,\nback,0,\nglare,7,yes\n", encoding="utf-8")
    return given_classes(None, path, label_ids=False)


def test_ids_of_an_own_class_table_are_those_of_the_files(tmp_path: Path) -> None:
    truth = np.array([[0, 255, 255, 7, 0]], np.uint8)
    prediction = np.array([[0, 255, 7, 255, 9]], np.uint8)
    save_ids(tmp_path / "gt" / "a.png", truth)
    save_ids(tmp_path / "pred" / "a.png", prediction)
    found = score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", own_table(tmp_path / "c.csv")))
    assert found.counts.table.class_names == ("back", "fore")
    assert found.counts.table.counts[0].tolist() == [[1, 0, 1], [1, 0, 1]]


TURNED = [255, 255, 255, 255, 0, 0, 0, 0, 0]
"""A palette of the colours of COLORED, in another order than its ids."""
COLORED = "name,{}color\nground,{}0 0 0\nthing,{}255 0 0\nother,{}255 255 255\n"


@pytest.mark.parametrize("folder", ["pred", "gt"])
def test_a_palette_whose_colours_say_other_classes_than_its_values_is_refused(tmp_path: Path, folder: str) -> None:
    """As `data prepare` does with the same file and table."""
    pred, gt = make_folders(tmp_path, 2, 3)
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    for path in (pred / "im01.png", gt / "im01.png"):
        save_ids(path, ids)
    wrong = save_ids(tmp_path / folder / "im01.png", 2 - ids, TURNED)
    table = tmp_path / "classes.csv"
    table.write_text(COLORED.format("id,", "0,", "1,", "2,"), encoding="utf-8")
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(pred, gt, given_classes(None, table, False)))
    assert error.value.message == (
        f"'{wrong}' can be read in two ways: its value 0 is the id of one class, and its colour 255,255,255 is another's"
    )


@pytest.mark.parametrize("columns", [("id,", "0,", "10,", "20,"), ("", "", "", "")])
def test_a_palette_is_read_by_colour_where_its_values_are_no_ids(tmp_path: Path, columns: tuple[str, ...]) -> None:
    table = tmp_path / "classes.csv"
    table.write_text(COLORED.format(*columns), encoding="utf-8")
    train_ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    raw = np.array([0, 10, 20] if columns[0] else [0, 1, 2], np.uint8)
    save_ids(tmp_path / "gt" / "a.png", raw[train_ids])
    save_ids(tmp_path / "pred" / "a.png", 2 - train_ids, TURNED)
    found = score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", given_classes(None, table, False)))
    assert found.scores["mIoU_D"] == 100
    assert found.warnings == ()


def test_an_id_that_an_own_table_does_not_know_names_its_file(tmp_path: Path) -> None:
    gt = save_ids(tmp_path / "gt" / "a.png", np.array([[0, 9]], np.uint8))
    save_ids(tmp_path / "pred" / "a.png", np.zeros((1, 2), np.uint8))
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", own_table(tmp_path / "c.csv")))
    assert error.value.message == f"'{gt}' holds the id 9 (1 pixels), wanted 0 or 7 or 255"


def test_predictions_outside_the_classes_are_warned_of(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path, images=2)
    save_ids(pred / "im01.png", np.full((24, 32), 200, np.uint8))
    (warning,) = score_files(FilesRequest(pred, gt, CLASSES)).warnings
    assert warning == "50 % of the pixels are predicted as none of the 4 classes: id 200 (50 %)"


def thin_crack() -> np.ndarray:
    """Ids uint8 (100, 100) with class 1 on 0.4 % of them."""
    truth = np.zeros((100, 100), np.uint8)
    truth[50, 10:50] = 1
    return truth


def shifted(truth: np.ndarray, by: int) -> tuple[np.ndarray, str]:
    word = "higher" if by > 0 else "lower"
    return truth + np.uint8(by % 256), f"most pixels of most classes are predicted as an id that is one {word} than theirs"


def test_a_class_of_few_pixels_that_is_predicted_as_another_id_is_refused(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "a.png", thin_crack())
    save_ids(tmp_path / "pred" / "a.png", thin_crack() * np.uint8(255))
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", BINARY))
    assert error.value.message == (
        "the predictions hold other ids than the ground truth: class 'fore' (id 1) is never predicted; "
        "255 is predicted on 0.4 % of the pixels, which is not a class"
    )
    save_ids(tmp_path / "gt" / "a.png", thin_crack() * np.uint8(255))
    save_ids(tmp_path / "pred" / "a.png", thin_crack())
    with pytest.raises(InputError, match=r"class 'fore' \(id 255\) is never predicted; 1 is predicted on 0.4 % of the pixels"):
        score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", own_table(tmp_path / "c.csv")))


def test_a_class_that_is_never_predicted_beside_ids_of_no_class_is_named(tmp_path: Path) -> None:
    prediction = thin_crack()
    prediction[prediction == 1] = 0
    prediction[:2, 0] = 7
    prediction[3, 0] = 9
    save_ids(tmp_path / "gt" / "a.png", thin_crack())
    save_ids(tmp_path / "pred" / "a.png", prediction)
    assert score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", BINARY)).warnings == (
        "class 'fore' (id 1) is never predicted, while 0.03 % of the pixels are predicted as none of the 2 classes: "
        "ids 7 (0.02 %), 9 (0.01 %)",
    )


def test_few_predictions_of_several_ids_of_no_class_are_no_warning(tmp_path: Path) -> None:
    prediction = thin_crack()
    prediction[0, :2] = 7, 9
    save_ids(tmp_path / "gt" / "a.png", thin_crack())
    save_ids(tmp_path / "pred" / "a.png", prediction)
    assert score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", BINARY)).warnings == ()


@pytest.mark.parametrize("by", [1, -1])
def test_predictions_shifted_by_one_are_recognised_and_named(tmp_path: Path, by: int) -> None:
    for index in range(3):
        prediction, truth = draw_pair(index)
        moved, problem = shifted(prediction, by)
        save_ids(tmp_path / "gt" / f"{index}.png", truth)
        save_ids(tmp_path / "pred" / f"{index}.png", moved)
    with pytest.raises(InputError) as error:
        score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", CLASSES))
    assert error.value.message == f"the predictions hold other ids than the ground truth: {problem}"
    cure = "subtract 1 from" if by > 0 else "add 1 to"
    assert error.value.hint == f"{cure} every id of the predictions, or name the ids of the classes with --classes FILE"


def test_two_classes_that_a_network_mixes_up_are_scored(tmp_path: Path) -> None:
    truth = np.arange(4, dtype=np.uint8).repeat(50).reshape(4, 50)
    save_ids(tmp_path / "gt" / "a.png", truth)
    save_ids(tmp_path / "pred" / "a.png", np.array([1, 0, 2, 3], np.uint8)[truth])
    found = score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", CLASSES))
    assert (found.scores["Acc"], found.warnings) == (50, ())


def test_train_ids_where_a_table_has_other_ids_and_label_ids_without_a_table_are_named(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    with pytest.raises(InputError, match="they hold 0 to 18, the positions of the classes, and not the ids of the class table"):
        score_files(FilesRequest(tmp_path / "trained", tmp_path / "gt", given_classes(None, None, label_ids=True)))
    with pytest.raises(InputError, match="they hold Cityscapes label ids; add --label-ids"):
        score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", NINETEEN))


def test_255_is_a_class_where_there_are_more_than_255(tmp_path: Path) -> None:
    truth = np.array([[254, 255, 299, 65535]], np.uint16)
    save_ids(tmp_path / "gt" / "a.png", truth)
    save_ids(tmp_path / "pred" / "a.png", np.array([[254, 255, 0, 1]], np.uint16))
    found = score_files(
        FilesRequest(tmp_path / "pred", tmp_path / "gt", given_classes(300, None, label_ids=False), boundary=True)
    )
    assert found.counts.table.valid_pixels.tolist() == [3]
    assert found.scores["Acc"] == pytest.approx(200 / 3)
    assert (found.scores["about"]["ignored_ids"], found.scores["about"]["ignored_percent"]) == ([65535], 25)


def test_the_ignored_id_can_be_named(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "a.png", np.array([[0, 1, 2, 200]], np.uint8))
    save_ids(tmp_path / "pred" / "a.png", np.array([[0, 1, 1, 1]], np.uint8))
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    found = score_files(FilesRequest(pred, gt, CLASSES, boundary=True, ignored=200))
    assert found.scores["Acc"] == pytest.approx(200 / 3)
    assert score_files(FilesRequest(pred, gt, GivenClasses(tuple(map(str, range(201)))), ignored=0)).scores[
        "Acc"
    ] == pytest.approx(100 / 3)
    with pytest.raises(InputError, match="a label has the id 200, wanted 0 to 3 or 255"):
        score_files(FilesRequest(pred, gt, CLASSES))
    (tmp_path / "c.csv").write_text("name,id\na,0\nb,1\nc,2\n", encoding="utf-8")
    table = given_classes(None, tmp_path / "c.csv", label_ids=False)
    assert score_files(FilesRequest(pred, gt, table, ignored=200)).scores["about"]["ignored_ids"] == [200]
    with pytest.raises(InputError, match="--ignore 2 is the id of the class 'c'; leave --ignore out"):
        score_files(FilesRequest(pred, gt, table, ignored=2))


def test_ground_truth_that_is_mostly_ignored_is_warned_of(tmp_path: Path) -> None:
    save_ids(tmp_path / "gt" / "a.png", np.array([[0, 1, 255, 255]], np.uint8))
    save_ids(tmp_path / "pred" / "a.png", np.array([[0, 1, 1, 1]], np.uint8))
    assert score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", CLASSES)).warnings == (
        "50.0 % of the ground truth is ignored",
    )


def test_masks_of_0_and_255_are_warned_of(tmp_path: Path) -> None:
    for side in ("pred", "gt"):
        save_ids(tmp_path / side / "a.png", np.array([[0, 255]], np.uint8))
    found = score_files(FilesRequest(tmp_path / "pred", tmp_path / "gt", BINARY, binary=True))
    assert found.warnings == (
        "no ground truth has class 1; 255 marks ignored pixels, so masks of 0 and 255 need --classes FILE with the id 255",
    )


def test_binary_scores_are_of_the_foreground(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path, classes=2)
    found = score_files(FilesRequest(pred, gt, BINARY, binary=True))
    assert found.scores["mIoU_D"] == score(found.counts.table, binary=True)["mIoU_D"]
    assert [row["class"] for row in found.scores["per_class"]] == ["fore"]
    assert found.scores["about"]["binary"] is True


def test_torch_is_never_imported(tmp_path: Path) -> None:
    pred, gt = make_folders(tmp_path)
    tables = str(tmp_path / "tables")
    command = ["eval", "--pred", str(pred), "--gt", str(gt), "--num-classes", "4", "--boundary", "-o", tables]
    code = f"""
import sys
from segctl.cli import main
assert main({command!r}) == 0
assert main(["eval", "--counts", {tables!r}]) == 0
print("loaded:", sorted(set(sys.modules) & {{"torch", "h5py", "timm", "matplotlib"}}))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "loaded: []"
