"""Tables of counts, made of pixels."""

import numpy as np

from segctl.metrics.counts import count
from segctl.metrics.table import CountTable

IGNORED = 255


def table_of(images, num_classes=2):
    """A table of images given as (prediction, label) tuples of pixels."""
    counts = [count(np.array([[guess]], np.uint8), np.array([[truth]], np.uint8), num_classes) for guess, truth in images]
    names = tuple(f"{index:03d}" for index in range(len(images)))
    return CountTable(names, tuple("abcdefgh"[:num_classes]), np.concatenate(counts))


def random_table(seed, images=23, num_classes=4, absent=True):
    """Images of 40 pixels with some of the classes each; the last class is nowhere where `absent`."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        classes = rng.choice(num_classes - absent, rng.integers(1, num_classes), replace=True)
        truth = rng.choice(classes, 40)
        guess = np.where(rng.random(40) < 0.6, truth, rng.integers(0, num_classes - absent, 40))
        truth[rng.random(40) < 0.1] = IGNORED
        made.append((guess, truth))
    return table_of(made, num_classes)
