"""Raw ids of a table become train ids: ignored in ground truth, wrong in predictions."""

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.evaluate.png_ids import NO_CLASS, predictions_to_train_ids, truth_to_train_ids

FOREGROUND_255 = ClassTable((ClassRow("back", 0, 0, (0, 0, 0)), ClassRow("fore", 255, 1, (255, 0, 0))))


def test_label_ids_of_a_ground_truth() -> None:
    found = truth_to_train_ids(CLASSES)
    assert found[[0, 3, 7, 26, 29, 33, 34, 255]].tolist() == [255, 255, 0, 13, 255, 18, NO_CLASS, 255]


def test_label_ids_of_predictions_are_never_ignored() -> None:
    found = predictions_to_train_ids(CLASSES)
    assert found[[7, 26, 33]].tolist() == [0, 13, 18]
    assert found[[0, 3, 29, 30, 34, 255]].tolist() == [128, 131, 157, 158, NO_CLASS, NO_CLASS]


def test_a_table_may_give_255_a_meaning() -> None:
    assert truth_to_train_ids(FOREGROUND_255)[[0, 1, 255]].tolist() == [0, NO_CLASS, 1]
    assert predictions_to_train_ids(FOREGROUND_255)[[0, 1, 255]].tolist() == [0, NO_CLASS, 1]
