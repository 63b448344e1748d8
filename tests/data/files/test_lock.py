import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from segctl.data.files.lock import locked
from segctl.errors import InputError, SegctlError


def test_the_lock_is_gone_afterwards_whatever_happens(tmp_path):
    with locked(tmp_path / "a.lock", "work"):
        assert (tmp_path / "a.lock").is_file()
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "a.lock", "work"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_who_works_is_named(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path, "work"), pytest.raises(SegctlError) as caught, locked(path, "preparing 'x'"):
        pass
    assert caught.value.exit_code == 1
    assert caught.value.message.startswith(
        f"preparing 'x' is under way in process {os.getpid()} on {socket.gethostname()}, since 2"
    )
    assert caught.value.hint == f"wait for it to end, or stop it; if it is long gone, delete '{path}'"


def leave(path: Path, **changes: object) -> None:
    """A lock as a process leaves it that was killed, with some of what it says changed."""
    code = "import os, sys, pathlib, segctl.data.files.lock as lock; held = lock.locked(pathlib.Path(sys.argv[1]), 'x')"
    subprocess.run([sys.executable, "-c", f"{code}; held.__enter__(); os._exit(0)", str(path)], check=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_lock_of_a_dead_process_is_taken(tmp_path):
    leave(tmp_path / "a.lock")
    with locked(tmp_path / "a.lock", "work"):
        assert json.loads((tmp_path / "a.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell when a process started")
def test_a_later_process_of_the_same_number_is_another(tmp_path):
    leave(tmp_path / "a.lock", pid=os.getpid())
    with locked(tmp_path / "a.lock", "work"):
        pass


def test_a_process_elsewhere_is_believed_to_live(tmp_path):
    leave(tmp_path / "a.lock", host="elsewhere")
    with pytest.raises(SegctlError, match="on elsewhere"), locked(tmp_path / "a.lock", "work"):
        pass
    assert (tmp_path / "a.lock").exists()


def test_a_lock_that_cannot_be_read_is_taken(tmp_path):
    (tmp_path / "a.lock").write_text("")
    with locked(tmp_path / "a.lock", "work"):
        pass


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(InputError) as caught, locked(tmp_path / "none" / "a.lock", "work"):
        pass
    assert str(caught.value) == f"cannot write to '{tmp_path}/none': No such file or directory; give another folder"
