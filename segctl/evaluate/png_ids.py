"""Ids in PNGs -> train ids, for ground truth and for predictions. Needs no torch."""

import numpy as np
from numpy.typing import NDArray

from segctl.data.classes import ClassTable
from segctl.evaluate.png_cityscapes import STAND_IN
from segctl.ignored import IGNORED

NO_CLASS = 254
"""A train id that is neither a class nor ignored."""


def truth_to_train_ids(table: ClassTable, ignored: int = IGNORED) -> NDArray[np.uint8]:
    """uint8 (256,): the train id of each raw id of ground truth; 255 for ignored ids, NO_CLASS for ids that must not occur.

    ignored: an id that is ignored unless the table gives it a meaning; ids above 255 are in no 8-bit file.
    """
    known = table.known_raw_ids()
    if ignored < len(known):
        known[ignored] = True
    return np.where(known, table.raw_to_train(), NO_CLASS).astype(np.uint8)


def predictions_to_train_ids(table: ClassTable) -> NDArray[np.uint8]:
    """uint8 (256,): the train id of each raw id of a prediction. A prediction of an ignored class is wrong; it is not ignored.

    Each ignored raw id below STAND_IN gets an id of its own, because some of them are right within their category.
    """
    found = np.full(256, NO_CLASS, np.uint8)
    for row in table.rows:
        if row.raw_id is not None and row.train_id != IGNORED:
            found[row.raw_id] = row.train_id
        elif row.raw_id is not None and row.raw_id + STAND_IN < NO_CLASS and table.num_classes <= STAND_IN:
            found[row.raw_id] = row.raw_id + STAND_IN
    return found
