"""Tables at any width: no word is cut, names stay whole, and what does not fit is dropped, wrapped, exchanged or stacked."""

import pytest

from segctl.cli.layout import lay_out, wrap

COLUMNS = ["name", "dataset", "what it is", "steps"]
ROWS = [
    ["camvid-psp18-scratch", "camvid", "a small student network", "10,000"],
    ["cityscapes-dl101", "cityscapes", "a large teacher network", "40,000"],
]


def lines(found):
    return [*found.header, *found.body]


def words(texts):
    return {word for text in texts for word in text.split()}


@pytest.mark.parametrize("drop", [(), ("steps",), ("steps", "dataset", "what it is")])
def test_no_word_is_cut_and_no_line_too_long(drop):
    known = words([*COLUMNS, *(cell for row in ROWS for cell in row)])
    for width in range(24, 91):
        found = lay_out(COLUMNS, ROWS, width, drop)
        assert max(map(len, lines(found))) <= width
        assert words(lines(found)) <= known, width
        for row in ROWS:
            assert any(row[0] in line for line in lines(found)), width
        shown = known - words(found.left_out) - words(row[COLUMNS.index(name)] for row in ROWS for name in found.left_out)
        assert shown - {"name"} <= words(lines(found)), width  # stacked, the name of the first column is not needed


def test_a_wide_table_has_all_columns_and_right_aligned_numbers():
    assert lines(lay_out(COLUMNS, ROWS, 80)) == [
        "name                  dataset     what it is                steps",
        "camvid-psp18-scratch  camvid      a small student network  10,000",
        "cityscapes-dl101      cityscapes  a large teacher network  40,000",
    ]


def test_columns_of_little_value_go_in_the_order_given():
    assert lay_out(COLUMNS, ROWS, 62, ("steps", "dataset")).left_out == ("steps",)
    assert lay_out(COLUMNS, ROWS, 50, ("dataset", "steps")).left_out == ("dataset", "steps")


def test_a_column_that_fits_again_comes_back():
    found = lay_out(["name", "n", "a long column"], [["x", "1", "with a long text"]], 10, ("n", "a long column"))
    assert found.left_out == ("a long column",)
    assert found.header == ("name  n",)


def test_cells_are_wrapped_at_spaces_and_names_are_not():
    assert lines(lay_out(["a name", "text"], [["two words", "one two three"]], 19)) == [
        "a name     text",
        "two words  one two",
        "           three",
    ]


def test_few_rows_of_many_numbers_are_exchanged():
    found = lay_out(["", "D", "I", "C"], [["mIoU", "47.11", "45.20", "39.93"], ["from-to", "1.0-2.0", "n/a", "1.0-2.0"]], 24)
    assert lines(found) == [
        "    mIoU  from-to",
        "D  47.11  1.0-2.0",
        "I  45.20      n/a",
        "C  39.93  1.0-2.0",
    ]


def test_what_fits_in_no_other_way_is_stacked_without_empty_cells():
    rows = [["a-very-long-name-of-a-run", "1", "some words"], ["b", "", "others"]]
    assert lines(lay_out(["run", "steps", "what"], rows, 20)) == [
        "a-very-long-name-of-a-run",
        "  steps  1",
        "  what   some words",
        "",
        "b",
        "  what   others",
    ]


def test_a_table_without_rows_is_its_header():
    assert lines(lay_out(["class", "IoU"], [], 40)) == ["class  IoU"]


def test_a_word_longer_than_the_width_stays_whole():
    assert wrap("see runs/a-long-name now", 8) == ["see", "runs/a-long-name", "now"]
