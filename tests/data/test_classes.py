import json

import numpy as np
import pytest
from pydantic import TypeAdapter

from segctl.data.classes import ClassRow, ClassTable
from segctl.errors import InputError

TABLE = ClassTable(
    (ClassRow("void", 9, 255, (1, 1, 1)), ClassRow("tree", 4, 1, (0, 200, 0)), ClassRow("road", 2, 0, (90, 0, 90)))
)


def test_names_and_colours_follow_the_train_ids():
    assert TABLE.names == ["road", "tree"]
    assert TABLE.num_classes == 2
    assert TABLE.palette()[[0, 1, 2, 255]].tolist() == [[90, 0, 90], [0, 200, 0], [0, 0, 0], [0, 0, 0]]


def test_raw_ids_become_train_ids_and_unknown_ones_are_ignored():
    assert TABLE.raw_to_train()[[2, 4, 9, 0]].tolist() == [0, 1, 255, 255]
    assert np.flatnonzero(TABLE.known_raw_ids()).tolist() == [2, 4, 9]


def test_a_table_survives_json():
    for table in (TABLE, ClassTable(TABLE.rows, binary=True)):
        assert TypeAdapter(ClassTable).validate_json(json.dumps(table.to_json()), strict=True) == table


def test_a_gap_in_the_train_ids_is_refused():
    with pytest.raises(InputError) as caught:
        ClassTable((ClassRow("road", 0, 0, (0, 0, 0)), ClassRow("tree", 1, 2, (0, 0, 0))))
    assert caught.value.message == "the class table has train ids [0, 2], wanted 0 to 1 without gaps or repeats"
