"""Classes from every kind of file, from Cityscapes, or from their number."""

from pathlib import Path

import pytest

from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.errors import InputError
from segctl.evaluate.png_classes import given_classes, read_class_file


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "road\n\ntraffic light\ncar\n"),
        ("c", "\ufeffroad\ntraffic light\ncar"),
        ("c.csv", "name\nroad\ntraffic light\ncar\n"),
        ("c.csv", "id,name,ignored\n2,car,\n0,road,no\n1,traffic light,no\n200,void,yes\n"),
        ("c.yaml", "[road, traffic light, car]"),
        ("c.yml", "classes:\n- {name: car, id: 2}\n- {name: road, id: 0}\n- {name: traffic light, id: 1}\n"),
    ],
)
def test_every_form_gives_the_names_in_the_order_of_ids(tmp_path: Path, name: str, text: str) -> None:
    found = read_class_file(write(tmp_path / name, text))
    assert (found.names, found.binary) == (("road", "traffic light", "car"), False)


def test_a_table_may_be_marked_binary(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "binary: true\nclasses: [back, fore]")
    assert given_classes(None, path, label_ids=False).binary


def test_a_list_of_names_has_no_ids_of_its_own(tmp_path: Path) -> None:
    assert given_classes(2, write(tmp_path / "c.txt", "a\nb\n"), label_ids=False).table is None


def test_names_come_from_cityscapes_or_are_just_ids() -> None:
    assert given_classes(None, None, label_ids=True).table is CLASSES
    assert given_classes(3, None, label_ids=False).names == ("0", "1", "2")


@pytest.mark.parametrize(("text", "count", "different"), [("one\n", 1, 1), ("one\none\n", 2, 1), ("", 0, 0)])
def test_names_must_be_two_and_different(tmp_path: Path, text: str, count: int, different: int) -> None:
    path = write(tmp_path / "c.txt", text)
    with pytest.raises(InputError) as error:
        read_class_file(path)
    assert error.value.message == (f"'{path}' has {count} names, {different} of them different, wanted at least 2, each once")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read class names from '.*nowhere.txt': No such file or directory"):
        read_class_file(tmp_path / "nowhere.txt")


def test_numbers_and_ids_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "a\nb\n")
    with pytest.raises(InputError) as error:
        given_classes(3, path, label_ids=False)
    assert error.value.message == f"--num-classes is 3, but '{path}' has 2 classes"
    with pytest.raises(InputError, match="--num-classes is 3, but Cityscapes has 19 classes"):
        given_classes(3, None, label_ids=True)
    with pytest.raises(InputError, match="--label-ids and --classes both define the ids"):
        given_classes(None, path, label_ids=True)


def test_no_number_at_all_is_refused() -> None:
    with pytest.raises(InputError) as error:
        given_classes(None, None, label_ids=False)
    assert error.value.message == "the number of classes is unknown: --num-classes, --classes and --label-ids are all missing"
