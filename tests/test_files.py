"""Files appear whole or not at all, and hashes identify what they should."""

import hashlib
import json
import os
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


def test_a_device_a_link_and_a_folder_are_refused_and_stay(tmp_path: Path) -> None:
    victim, link, pipe = tmp_path / "victim.txt", tmp_path / "link.txt", tmp_path / "pipe"
    victim.write_text("mine")
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path, what in ((link, f"a link to '{victim}'"), (pipe, "a device, a pipe or a socket"), (tmp_path, "a folder")):
        with pytest.raises(InputError) as error:
            write_text(path, "new")
        assert str(error.value) == f"cannot write '{path}': it is {what}; give the path of a plain file"
    assert (victim.read_text(), link.is_symlink(), pipe.is_fifo()) == ("mine", True, True)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["link.txt", "pipe", "victim.txt"]


def test_the_mode_of_a_replaced_file_stays_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("old")
    secret.chmod(0o600)
    write_text(secret, "new")
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("new", 0o600)
    write_text(tmp_path / "new.txt", "new")
    (tmp_path / "plain.txt").write_text("new")
    assert (tmp_path / "new.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_a_link_laid_at_a_temporary_name_of_the_process_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / f".a.txt.part{os.getpid()}").symlink_to(victim)
    write_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "mine"


def test_a_parent_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "a.csv", tmp_path / "file" / "b" / "a.csv"):
        with pytest.raises(InputError, match=r"cannot write '.*a\.csv': .*; one of its parents is a file: give another path"):
            write_text(path, "new")
    with pytest.raises(InputError, match="File name too long; give a shorter name"):
        write_text(tmp_path / ("n" * 300), "new")


def test_json_and_csv_come_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "new" / "a.json") == {"ü": [1, None]}
    write_csv(tmp_path / "a.csv", ["a", "b"], [[1, None], ["x,y", 2]])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,\n"x,y",2\n'


def test_no_cell_is_a_formula_and_numbers_stay(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["=class", "b"], [["=1+1", -1.5], ["@cmd", "-x"], ["+1", "a=b"]])
    assert (tmp_path / "a.csv").read_text() == "'=class,b\n'=1+1,-1.5\n'@cmd,'-x\n'+1,a=b\n"


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
