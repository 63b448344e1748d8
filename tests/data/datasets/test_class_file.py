import os
from pathlib import Path

import numpy as np
import pytest

from segctl.data.datasets.class_file import OwnClasses, read_classes
from segctl.errors import InputError

CSV = 'Name,ID,Colour,Ignored\nroad,7,"128,64,128",\ncar,2,#00008e,no\nglare,9,1 2 3,yes\n'
YAML = """
classes:
- {name: road, id: 7, color: [128, 64, 128]}
- {name: car, id: 2, color: "#00008e"}
- {name: glare, id: 9, color: "1 2 3", ignored: true}
"""
CHANNELS = "name, r, g, b\nurban, 0, 255, 255\nforest, 0, 255, 0\n"


def read(tmp_path: Path, text: str, suffix: str = ".csv") -> OwnClasses:
    path = tmp_path / f"classes{suffix}"
    path.write_text(text)
    return read_classes(path)


@pytest.mark.parametrize(("text", "suffix"), [(CSV, ".csv"), (YAML, ".yaml"), (YAML.split("classes:")[1], ".yml")])
def test_csv_and_yaml_give_the_same_table_in_the_order_of_ids(tmp_path, text, suffix):
    classes = read(tmp_path, text, suffix)
    assert classes.table.names == ["car", "road"]
    assert classes.table.palette()[:2].tolist() == [[0, 0, 142], [128, 64, 128]]
    assert classes.table.raw_to_train()[[2, 7, 9, 255]].tolist() == [0, 1, 255, 255]
    assert np.flatnonzero(np.frombuffer(classes.ids.known, bool)).tolist() == [2, 7, 9, 255]
    assert dict(classes.colors.colors) == {(0, 0, 142): 0, (128, 64, 128): 1, (1, 2, 3): 255}
    assert classes.digest == read(tmp_path, CSV).digest


def test_columns_of_channels_are_colours_and_keep_their_order(tmp_path):
    classes = read(tmp_path, CHANNELS)
    assert classes.ids is None
    assert dict(classes.colors.colors) == {(0, 255, 255): 0, (0, 255, 0): 1}


def test_rows_without_ids_and_colours_are_numbered_and_coloured(tmp_path):
    classes = read(tmp_path, "- ground\n- crack\n", ".yaml")
    assert (classes.table.names, classes.colors) == (["ground", "crack"], None)
    assert classes.table.raw_to_train()[:3].tolist() == [0, 1, 255]
    assert len({row.color for row in classes.table.rows}) == 2


def test_a_binary_table_is_marked(tmp_path):
    assert read(tmp_path, "binary: true\nclasses: [ground, crack]\n", ".yaml").table.binary
    assert not read(tmp_path, "classes: [ground, crack]\n", ".yaml").table.binary


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("name,id\nroad,300\n", ".csv", "row 1 of '{path}' (road) has '300' for its id, wanted 0 to 255"),
        ("name,id\nroad,x\n", ".csv", "row 1 of '{path}' (road) has 'x' for its id, wanted 0 to 255"),
        ("name,color\nroad,red\n", ".csv", "row 1 of '{path}' (road) has the color 'red', wanted three values or #rrggbb"),
        ("name,idd\nroad,1\n", ".csv", "row 1 of '{path}' has a column 'idd', did you mean 'id'?"),
        ("name,id\n,1\n", ".csv", "row 1 of '{path}' has no name"),
        ("name,ignored\nroad,maybe\n", ".csv", "row 1 of '{path}' has 'maybe' for ignored, wanted yes or no"),
        ("name\nroad\nroad\n", ".csv", "the class table '{path}' has the name 'road' twice"),
        ("name,id\nroad,1\ncar,1\n", ".csv", "the class table '{path}' has the id 1 twice"),
        ("name,id\nroad,1\ncar,\n", ".csv", "the class table '{path}' has ids for 1 of 2 rows"),
        ("name,color\nroad,#000000\ncar,\n", ".csv", "the class table '{path}' has colors for 1 of 2 rows"),
        ("name,ignored\nroad,yes\n", ".csv", "the class table '{path}' has 0 classes to train, wanted 1 to 255"),
        ("", ".csv", "the class table '{path}' has 0 classes to train, wanted 1 to 255"),
        ("- a\n- b\nbinary: true", ".yaml", "the class table '{path}' is not valid YAML"),
        ("clases: [a]\n", ".yaml", "the class table '{path}' has the key 'clases', did you mean 'classes'?"),
        ("- [a, b]\n", ".yaml", "row 1 of '{path}' has ['a', 'b'] for its name, wanted text"),
        ("classes: [a, b]\nbinary: yes\n", ".yaml", "the class table '{path}' has 'yes' for binary, wanted true or false"),
        ("classes: 7\n", ".yaml", "the class table '{path}' is not a list of classes"),
        (
            "binary: true\nclasses: [a, b, c]\n",
            ".yaml",
            "the class table '{path}' is binary with 3 classes, wanted background and foreground",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, suffix, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, suffix)
    assert caught.value.message.startswith(message.format(path=tmp_path / f"classes{suffix}"))


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"the class table '.*none\.csv' cannot be read: No such file or directory"):
        read_classes(tmp_path / "none.csv")


TABLE = (
    "name{0}id{0}color{0}ignored\r\nroad{0}7{0}128 64 128{0}\r\nch\u00e2teau{0}2{0}#00008e{0}no\r\nglare{0}9{0}1 2 3{0}yes\r\n"
)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_what_spreadsheets_save_is_read(tmp_path, separator, encoding, suffix):
    path = tmp_path / f"c{suffix}"
    path.write_bytes((TABLE.format(separator) + f"{separator * 3}\r\n" * 2).encode(encoding))
    classes = read_classes(path)
    assert classes.table.names == ["ch\u00e2teau", "road"]
    assert classes.table.raw_to_train()[[2, 7, 9]].tolist() == [0, 1, 255]


def test_cells_behind_the_last_column_may_be_empty_and_nothing_else(tmp_path):
    assert read(tmp_path, "name,id,,\nroad,1,,,,\n").table.names == ["road"]
    with pytest.raises(InputError, match="has a column ''"):
        read(tmp_path, "name,id,\nroad,1,x\n")


def test_the_columns_of_other_tools_are_known(tmp_path):
    classes = read(tmp_path, "Pixel Value, Class\n0, background\n4, cat\n")
    assert classes.table.names == ["background", "cat"]
    assert classes.table.raw_to_train()[[0, 4]].tolist() == [0, 1]


def test_a_text_file_has_a_name_a_line(tmp_path):
    assert read(tmp_path, "__ignore__\n_background_\ncat, big\n", ".txt").table.names == ["_background_", "cat, big"]
    assert read(tmp_path, "name\nroad\n", ".txt").table.names == ["road"]


def test_the_labelmap_of_cvat_is_a_table_of_colours(tmp_path):
    classes = read(tmp_path, "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\n", ".txt")
    assert (classes.ids, classes.table.names) == (None, ["background", "cat"])
    assert dict(classes.colors.colors) == {(0, 0, 0): 0, (255, 0, 0): 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"name,id\nroad,{'9' * 5000}\n", "for its id, wanted 0 to 255"),
        ("name,id\nroad,\u00b2\n", "for its id, wanted 0 to 255"),
        ('name,id\n"' + "x" * 200_000, "is not valid CSV"),
        ('name,id\n"a\nb",1\n', "a line break or control character"),
    ],
)
def test_cells_that_no_table_has_are_a_sentence(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, text)


def test_a_table_that_is_a_pipe_is_never_read(tmp_path):
    os.mkfifo(tmp_path / "c.csv")
    with pytest.raises(InputError, match="cannot be read: it is a named pipe, not a file"):
        read_classes(tmp_path / "c.csv")
