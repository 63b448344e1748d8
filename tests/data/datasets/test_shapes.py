import hashlib

import numpy as np

from segctl.data.datasets.shapes import CLASSES, SIZES, SPLIT_SIZES, open_shapes

SHAPES = open_shapes([])


def test_the_same_pictures_on_every_machine():
    digest = hashlib.sha256()
    for name in ("train-0000", "train-0001", "train-0239", "val-0000", "val-0059"):
        sample = SHAPES.samples.read(name)
        assert sample.source_sha256 == hashlib.sha256(sample.image.tobytes() + sample.label.tobytes()).hexdigest()
        digest.update(sample.source_sha256.encode())
    assert digest.hexdigest() == "0d107db72464fa2121c335ce6f7fdc38391c977e55ae56eeed772d52f78b3033"


def test_names_and_sizes_are_known_without_drawing():
    assert {split: len(names) for split, names in SHAPES.splits.items()} == SPLIT_SIZES
    assert SHAPES.splits["val"][59] == "val-0059"
    for name in SHAPES.splits["val"][:10]:
        assert SHAPES.samples.read(name).label.shape == SHAPES.samples.size(name)
    assert {SHAPES.samples.size(name) for name in SHAPES.splits["train"]} == set(SIZES)


def test_every_class_is_in_both_splits_and_some_are_rare():
    assert CLASSES.num_classes >= 6
    for names in SHAPES.splits.values():
        labels = [SHAPES.samples.read(name).label for name in names[:60]]
        pixels = np.sum([np.bincount(label.ravel(), minlength=256) for label in labels], 0)
        shares = pixels[: CLASSES.num_classes] / pixels.sum()
        assert shares.min() > 0
        assert shares.min() < 0.01 < 0.5 < shares.max()
        assert 0.01 < pixels[255] / pixels.sum() < 0.1
        assert set(np.flatnonzero(pixels)) <= {*range(CLASSES.num_classes), 255}


def test_objects_have_an_ignored_border():
    label = SHAPES.samples.read("train-0002").label
    for shifted, here in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
        different = (shifted != here) & (np.minimum(shifted, here) == 0)
        assert (np.maximum(shifted, here)[different] == 255).all()


def test_samples_differ():
    digests = {SHAPES.samples.read(name).source_sha256 for name in SHAPES.splits["train"][:20] + SHAPES.splits["val"][:20]}
    assert len(digests) == 40
