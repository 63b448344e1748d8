"""Files appear whole or not at all, and hashes identify what they should."""

import hashlib
import json
from pathlib import Path

import pytest

from segctl.errors import InputError, first_line
from segctl.files import content_key, file_sha256, read_json, sweep_partial, write_csv, write_json, write_text, write_whole


def test_a_file_that_cannot_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.part123").write_text("half")
    (tmp_path / "a.txt").write_text("whole")
    sweep_partial(tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_json_and_csv_come_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "new" / "a.json") == {"ü": [1, None]}
    write_csv(tmp_path / "a.csv", ["a", "b"], [[1, None], ["x,y", 2]])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,\n"x,y",2\n'


def test_what_is_not_json_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*a\.json"):
        read_json(tmp_path / "a.json")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"segctl")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"segctl").hexdigest()
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1}) != content_key({"a": 2, "b": 1})
    assert content_key(["x"]) == hashlib.sha256(json.dumps(["x"]).encode()).hexdigest()


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
