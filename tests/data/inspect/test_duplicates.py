import zlib

import numpy as np

from segctl.data.findings import Finding
from segctl.data.inspect.duplicates import Pictures
from segctl.data.splits import overlaps


def look(splits: dict[str, list[str]], images: dict[str, np.ndarray], crc: int | None = None) -> list[Finding]:
    pictures = Pictures(splits, images.__getitem__)
    for name, image in images.items():
        pictures.add(name, image.shape, zlib.crc32(image.data) if crc is None else crc)
    return [*overlaps(splits), *pictures.findings()]


def flat(value: int, height: int = 4) -> np.ndarray:
    return np.full((height, 5, 3), value, np.uint8)


def test_a_picture_under_two_names_in_train_and_val_is_found():
    found = look({"train": ["a", "b"], "val": ["c"]}, {"a": flat(1), "b": flat(2), "c": flat(1)})
    assert found == [Finding("c", "shows the same picture as 'a', in the splits 'val' and 'train'")]


def test_within_one_split_and_in_splits_that_may_meet_it_is_none():
    images = {"a": flat(1), "b": flat(1), "c": flat(9)}
    assert look({"train": ["a", "b"], "val": ["c"]}, images) == []
    assert look({"train": ["a"], "train_aug": ["a", "b"], "val": ["c"]}, images) == []
    assert look({"train_fold0": ["a"], "val_fold1": ["b"], "val_fold0": ["c"]}, images) == []


def test_the_same_checksum_alone_or_another_size_is_no_duplicate():
    splits = {"train": ["a"], "val": ["b"]}
    assert look(splits, {"a": flat(1), "b": flat(2)}, crc=7) == []
    assert look(splits, {"a": flat(1), "b": flat(1, height=6)}, crc=7) == []


def test_each_copy_is_named_once():
    found = look({"train": ["a", "b"], "val": ["c", "d"], "test": ["e"]}, {name: flat(1) for name in "abcde"})
    assert [finding.sample for finding in found] == ["c", "d", "e"]


def test_a_sample_in_two_splits_is_an_overlap():
    splits = {"train": ["a"], "trainval": ["a", "b"], "val": ["a", "b"]}
    assert look(splits, {"a": flat(1), "b": flat(2)}) == [Finding("a", "is in two splits, 'train' and 'val'")]
