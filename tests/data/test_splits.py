import pytest

from segctl.data.splits import must_not_meet


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train", "val"),
        ("train_aug", "val"),
        ("train", "validation"),
        ("train", "test"),
        ("val", "test"),
        ("trainval", "test"),
        ("train_fold0", "val_fold0"),
        ("train_fold0", "val"),
        ("train_fold3", "test"),
    ],
)
def test_what_is_evaluated_is_never_trained_on(first, second):
    assert must_not_meet(first, second)
    assert must_not_meet(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train", "train_aug"),
        ("train", "trainval"),
        ("val", "trainval"),
        ("train_fold0", "val_fold1"),
        ("train_fold0", "train_fold1"),
        ("val_fold0", "val_fold1"),
        ("train", "val_fold0"),
        ("all", "val_fold0"),
        ("extra", "train"),
        ("trains", "val"),
    ],
)
def test_other_splits_may_share_samples(first, second):
    assert not must_not_meet(first, second)
    assert not must_not_meet(second, first)
