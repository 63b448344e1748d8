"""Counts on disk: what is saved comes back, and anything else is named with its file and array."""

import dataclasses
import zipfile

import numpy as np
import pytest
from counted_images import NAMES, assert_same, counted, everything, only_pairs

from segctl.errors import InputError
from segctl.metrics.store import load_confusion, load_counts, load_part, load_table, save_counts, save_part, save_table


@pytest.fixture
def table():
    return counted(NAMES[:3], only_pairs).table


def rewrite(path, **changes):
    """Change arrays of an npz; None removes one."""
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_a_table_comes_back_with_its_groups(tmp_path, table):
    save_table(tmp_path / "counts.npz", table)
    found = load_table(tmp_path / "counts.npz")
    assert (found.names, found.class_names, found.groups) == (table.names, table.class_names, table.groups)
    np.testing.assert_array_equal(found.counts, table.counts)


def test_the_path_is_taken_as_given(tmp_path, table):
    save_table(tmp_path / "without-ending", table)
    assert [path.name for path in tmp_path.iterdir()] == ["without-ending"]


def test_a_table_of_no_image_comes_back(tmp_path):
    save_table(tmp_path / "counts.npz", counted([]).table)
    assert load_table(tmp_path / "counts.npz").names == ()


def test_saving_twice_gives_the_same_bytes(tmp_path, table):
    for name in ("one.npz", "two.npz"):
        save_table(tmp_path / name, table)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("counter", [everything, only_pairs])
def test_all_counts_come_back_from_their_folder(tmp_path, counter):
    counts = counted(NAMES, counter)
    save_counts(tmp_path, counts)
    assert_same(load_counts(tmp_path / "counts.npz"), counts)


def test_files_of_an_evaluation_that_counted_more_are_removed(tmp_path):
    save_counts(tmp_path, counted(NAMES))
    save_counts(tmp_path, counted(NAMES, only_pairs))
    assert {path.name for path in tmp_path.iterdir()} == {"counts.npz", "confusion.npz"}


@pytest.mark.parametrize("counter", [everything, only_pairs])
def test_a_part_comes_back_under_its_own_key_alone(tmp_path, counter):
    path, part = tmp_path / "part.npz", counted(NAMES[:3], counter)
    save_part(path, part, "these weights")
    assert_same(load_part(path, "these weights"), part)
    assert load_part(path, "other weights") is None


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_a_part_that_is_missing_or_damaged_is_none(tmp_path, content):
    path = tmp_path / "part.npz"
    if content is not None:
        path.write_bytes(content)
    assert load_part(path, "key") is None


def malformed(path, kind):
    """A file that is not what it should be, in one of the ways that files are."""
    if kind == "no npz":
        with path.open("wb") as handle:
            np.save(handle, np.zeros(3))
    elif kind == "a zip of text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("names.npy", "no array")
    elif kind == "damaged inside":
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2 : len(whole) // 2 + 40] = b"x" * 40
        path.write_bytes(whole)
    elif kind == "cut short":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["no npz", "a zip of text", "damaged inside", "cut short", "empty", "missing"])
def test_a_malformed_file_is_named(tmp_path, table, kind):
    path = tmp_path / "counts.npz"
    save_table(path, table)
    malformed(path, kind)
    with pytest.raises(InputError) as error:
        load_table(path)
    assert error.value.message.startswith(f"cannot read counts from '{path}': ")
    assert error.value.hint == "give a counts.npz that `segctl eval` wrote"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"counts": None}, "array 'counts' is missing"),
        ({"counts": np.zeros((3, 19, 3))}, "array 'counts' is float64 (3, 19, 3), wanted int64 (3, 19, 3)"),
        ({"counts": np.zeros((2, 19, 3), np.int64)}, "array 'counts' is int64 (2, 19, 3), wanted int64 (3, 19, 3)"),
        ({"names": np.arange(3)}, "array 'names' is int64 (3,), wanted a list of texts"),
        ({"names": np.array(["a", "a", "b"])}, "image 'a' was counted twice, wanted every image once"),
        ({"groups": np.array(["a"])}, "got 1 groups, wanted 3, one for each image"),
    ],
)
def test_a_wrong_array_is_named_with_what_was_wanted(tmp_path, table, changes, fault):
    save_table(tmp_path / "counts.npz", table)
    rewrite(tmp_path / "counts.npz", **changes)
    with pytest.raises(InputError) as error:
        load_table(tmp_path / "counts.npz")
    assert error.value.message == f"cannot read counts from '{tmp_path / 'counts.npz'}': {fault}"


def test_pickled_names_are_not_unpickled(tmp_path, table):
    save_table(tmp_path / "counts.npz", table)
    rewrite(tmp_path / "counts.npz", names=np.array(["a", "b", "c"], dtype=object))
    with pytest.raises(InputError, match="cannot read counts from"):
        load_table(tmp_path / "counts.npz")


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("confusion", {"matrix": None}, "array 'matrix' is missing"),
        ("confusion", {"matrix": np.zeros((2, 2), np.int64)}, "array 'matrix' is int64 (2, 2), wanted int64 (19, 19)"),
        ("instances", {"image": np.zeros(1, np.int64)}, "array 'image' is int64 (1,), wanted int64 ("),
        ("instances", {"rows": np.full((9, 4), 99), "image": np.zeros(9, int)}, "array 'rows' holds classes outside 0 to 18"),
        ("instances", {"rows": np.ones((9, 4), int), "image": np.full(9, 7)}, "array 'image' holds numbers outside 0 to 6"),
        (
            "calibration",
            {"bins": np.zeros((7, 20, 10, 2))},
            "array 'bins' is float64 (7, 20, 10, 2), wanted float64 (7, 20, 10, 3)",
        ),
    ],
)
def test_a_wrong_array_beside_the_counts_is_named(tmp_path, name, changes, fault):
    save_counts(tmp_path, counted(NAMES))
    rewrite(tmp_path / f"{name}.npz", **changes)
    with pytest.raises(InputError) as error:
        load_counts(tmp_path / "counts.npz")
    assert error.value.message.startswith(f"cannot read counts from '{tmp_path / name}.npz': {fault}")
    assert error.value.hint == "run `segctl eval` on that run again, or move counts.npz to a folder of its own"


def test_counts_of_other_images_beside_the_counts_are_refused(tmp_path):
    counts = counted(NAMES)
    save_counts(tmp_path, counts)
    others = counts.boundary.rows(NAMES[:4])
    save_table(tmp_path / "boundary.npz", others)
    with pytest.raises(InputError, match=r"boundary.npz' is not of the same images as '.*counts.npz'"):
        load_counts(tmp_path / "counts.npz")


def test_a_confusion_matrix_that_is_not_there_is_none(tmp_path):
    assert load_confusion(tmp_path / "confusion.npz", 19) is None


def test_a_table_without_groups_comes_back_without(tmp_path, table):
    save_table(tmp_path / "counts.npz", dataclasses.replace(table, groups=None))
    assert load_table(tmp_path / "counts.npz").groups is None


@pytest.mark.parametrize("value", [-1, 2**62, np.iinfo(np.int64).max])
def test_numbers_that_are_no_counts_are_refused(tmp_path, table, value):
    save_table(tmp_path / "counts.npz", table)
    counts = table.counts.copy()
    counts[0, 0, 0] = value
    rewrite(tmp_path / "counts.npz", counts=counts)
    with pytest.raises(InputError, match="array 'counts' holds numbers that are not counts: they are negative, too large"):
        load_table(tmp_path / "counts.npz")


def test_bins_that_are_not_finite_are_refused(tmp_path):
    save_counts(tmp_path, counted(NAMES))
    with np.load(tmp_path / "calibration.npz") as file:
        bins = file["bins"] * np.nan
    rewrite(tmp_path / "calibration.npz", bins=bins)
    with pytest.raises(InputError, match=r"calibration\.npz': array 'bins' holds numbers that are not counts"):
        load_counts(tmp_path / "counts.npz")


def test_a_class_that_is_named_twice_is_refused(tmp_path, table):
    save_table(tmp_path / "counts.npz", table)
    names = np.array([table.class_names[0]] * len(table.class_names))
    rewrite(tmp_path / "counts.npz", class_names=names)
    with pytest.raises(InputError, match=f"class '{table.class_names[0]}' is named twice, wanted every class once"):
        load_table(tmp_path / "counts.npz")
