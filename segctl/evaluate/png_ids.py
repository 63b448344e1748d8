"""Ids in PNGs -> train ids, for ground truth and for predictions. Needs no torch."""

import numpy as np
from numpy.typing import NDArray

from segctl.data.classes import ClassTable
from segctl.evaluate.png_cityscapes import STAND_IN
from segctl.ignored import IGNORED

NO_CLASS = 254
"""A train id that no class has and that is not ignored."""


def truth_to_train_ids(table: ClassTable) -> NDArray[np.uint8]:
    """uint8 (256,): the train id of each raw id of a ground truth, 255 if ignored, NO_CLASS if it may not occur."""
    known = table.known_raw_ids()
    known[IGNORED] = True
    return np.where(known, table.raw_to_train(), NO_CLASS).astype(np.uint8)


def predictions_to_train_ids(table: ClassTable) -> NDArray[np.uint8]:
    """uint8 (256,): the same for predictions, where an ignored class is not ignored but wrong.

    Ignored raw ids below STAND_IN stay apart from each other, because some are right answers within a category.
    """
    found = np.full(256, NO_CLASS, np.uint8)
    for row in table.rows:
        if row.raw_id is not None and row.train_id != IGNORED:
            found[row.raw_id] = row.train_id
        elif row.raw_id is not None and row.raw_id + STAND_IN < NO_CLASS and table.num_classes <= STAND_IN:
            found[row.raw_id] = row.raw_id + STAND_IN
    return found
