"""The benchmark's facts are those of the class table, and ids go there and back."""

import numpy as np

from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.evaluate.png_cityscapes import benchmark_of, train_to_label_ids
from segctl.evaluate.png_ids import truth_to_train_ids


def test_the_benchmark_is_known_by_its_19_names_in_any_order() -> None:
    assert benchmark_of(CLASSES.names) is not None
    assert benchmark_of(CLASSES.names[::-1]) is not None
    assert benchmark_of(CLASSES.names[1:]) is None
    assert benchmark_of([*CLASSES.names, "caravan"]) is None


def test_categories_hold_each_class_once_and_no_unscored_one() -> None:
    benchmark = benchmark_of(CLASSES.names)
    assert benchmark is not None
    assert list(benchmark.categories) == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert sorted(name for names in benchmark.categories.values() for name in names) == sorted(CLASSES.names)
    assert list(benchmark.average_px) == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert benchmark.unscored == {"vehicle": (29 + 128, 30 + 128)}


def test_train_ids_go_to_label_ids_and_back() -> None:
    ids = np.arange(19, dtype=np.uint8)
    np.testing.assert_array_equal(truth_to_train_ids(CLASSES)[train_to_label_ids()[ids]], ids)
    assert train_to_label_ids()[255] == 0
