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
        ("training", "validation"),
        ("Train", "Val"),
        ("TRAIN", "VAL"),
        ("train_fold2", "valid_fold2"),
        ("fold2_train", "Val-Fold-2"),
        ("images-train", "images-val"),
        ("train", "dev"),
        ("train", "eval"),
        ("training", "testing"),
        ("trainset", "testset"),
        ("train2017", "val2017"),
        ("train2017", "minival"),
        ("trainA", "testA"),
        ("imagesTrain", "imagesVal"),
        ("train_extra", "valid"),
        ("TrainVal", "Test"),
        ("trainval", "test-dev"),
        ("val", "test-dev"),
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
        ("training", "train_aug"),
        ("validation", "Val"),
        ("dev", "val"),
        ("testA", "testB"),
        ("TrainVal", "val"),
        ("train_val", "val"),
        ("trainvalidation", "training"),
        ("training_fold0", "validation_fold1"),
        ("Train", "valid_fold2"),
        ("valley", "train"),
        ("devices", "train"),
        ("contest", "train"),
    ],
)
def test_other_splits_may_share_samples(first, second):
    assert not must_not_meet(first, second)
    assert not must_not_meet(second, first)
