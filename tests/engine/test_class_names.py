"""Names of classes, from every kind of file."""

from pathlib import Path

import pytest

from segctl.engine.class_names import name_classes, read_class_names
from segctl.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "road\n\ntraffic light\ncar\n"),
        ("c", "\ufeffroad\ntraffic light\ncar"),
        ("c.csv", "name\nroad\ntraffic light\ncar\n"),
        ("c.csv", "id,name,ignored\n2,car,\n0,road,false\n1,traffic light,no\n255,void,true\n"),
        ("c.yaml", "[road, traffic light, car]"),
        ("c.yml", "classes:\n- {name: car, id: 2}\n- {name: road, id: 0}\n- {name: traffic light, id: 1}\n"),
        ("c.yaml", "- name: road\n- name: traffic light\n- name: car\n- {name: void, ignored: true}\n"),
    ],
)
def test_every_form_gives_the_names_in_the_order_of_ids(tmp_path: Path, name: str, text: str) -> None:
    assert read_class_names(write(tmp_path / name, text)) == (("road", "traffic light", "car"), False)


def test_a_file_may_be_marked_binary(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "binary: true\nclasses: [back, fore]")
    assert name_classes(None, path, label_ids=False) == (("back", "fore"), True)


def test_names_come_from_cityscapes_or_are_just_ids() -> None:
    assert name_classes(None, None, label_ids=True)[0][:2] == ("road", "sidewalk")
    assert name_classes(3, None, label_ids=False) == (("0", "1", "2"), False)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "one\n", "holds 1 classes, wanted at least 2"),
        ("c.txt", "one\none\n", "names a class twice"),
        ("c.csv", "title\none\ntwo\n", "holds {'title': 'one'}, wanted a class with a name"),
        ("c.yaml", "classes: road", "holds no list of classes"),
        ("c.yaml", "[road", "is not valid YAML"),
        ("c.yaml", "[{name: a, id: 1}, {name: b, id: 2}]", "has the ids 1, 2, wanted 0 to 1, each once"),
    ],
)
def test_a_file_that_does_not_fit_is_a_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError) as error:
        read_class_names(path)
    assert error.value.message.startswith(f"--classes '{path}' {message}")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read --classes '.*nowhere.txt'"):
        read_class_names(tmp_path / "nowhere.txt")


def test_numbers_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", "a\nb\n")
    with pytest.raises(InputError) as error:
        name_classes(3, path, label_ids=False)
    assert error.value.message == f"--num-classes is 3, but '{path}' has 2 classes"
    with pytest.raises(InputError, match="--num-classes is 3, but Cityscapes has 19 classes"):
        name_classes(3, None, label_ids=True)


def test_no_number_at_all_is_refused() -> None:
    with pytest.raises(InputError) as error:
        name_classes(None, None, label_ids=False)
    assert error.value.message == "how many classes are there? none of --num-classes, --classes and --label-ids is given"
