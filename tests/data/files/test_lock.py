import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segctl.data.files import lock
from segctl.data.files.lock import locked, remove_abandoned
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


HOLD = "import sys, time, pathlib, segctl.data.files.lock as lock; held = lock.locked(pathlib.Path(sys.argv[1]), 'x'); "


def hold(path: Path, then: str) -> "subprocess.Popen[str]":
    """Another process that takes the lock, says so, and goes on with `then`."""
    code = f"{HOLD} held.__enter__(); print('held', flush=True); {then}"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_killed_holder_gives_the_lock_back_at_once(tmp_path):
    path = tmp_path / "a.lock"
    process = hold(path, "time.sleep(60)")
    with pytest.raises(SegctlError, match=f"in process {process.pid} on"), locked(path, "work"):
        pass
    process.kill()
    process.wait()
    assert path.is_file()
    with locked(path, "work"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a lock of Windows ends with the first process")
def test_a_killed_holder_gives_the_lock_back_when_the_processes_that_write_for_it_have_ended(tmp_path, monkeypatch):
    path = tmp_path / "a.lock"
    monkeypatch.setattr(lock, "_LETTING_GO_S", 0.2)
    start = "writer = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(60,)); writer.kept = lock.KeptLock()"
    process = hold(path, f"import multiprocessing; {start}; writer.start(); print(writer.pid, flush=True); time.sleep(60)")
    writer = int(process.stdout.readline())
    process.kill()
    process.wait()
    with pytest.raises(SegctlError, match=f"in process {process.pid} on"), locked(path, "work"):
        pass
    os.kill(writer, signal.SIGKILL)
    with locked(path, "work"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_file_of_a_killed_holder_can_be_removed_and_that_of_a_living_one_cannot(tmp_path):
    path = tmp_path / "work.lock"
    path.write_text("{}")
    remove_abandoned(path)
    assert not path.exists()
    remove_abandoned(path)
    with locked(path, "working"):
        remove_abandoned(path)
        assert path.exists()


def test_a_forked_process_of_the_holder_does_not_hold_on(tmp_path):
    """A loader worker outlives a killed run by seconds, and must not block the run that resumes it."""
    path = tmp_path / "a.lock"
    process = hold(path, "import os; pid = os.fork(); os.write(1, b'forked\\n'); time.sleep(3 if pid == 0 else 60)")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["forked\n"] * 2  # both run, so the fork is complete
    process.kill()
    process.wait()
    with locked(path, "work"):
        pass


def test_what_a_holder_elsewhere_left_blocks_nobody(tmp_path):
    """A container that starts again has another name, and a job that is queued again runs on another machine."""
    path = tmp_path / "a.lock"
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 0.0, "since": "2026"}))
    with locked(path, "work"):
        assert json.loads(path.read_text())["host"] != "elsewhere"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": ' + "9" * 5000 + "}", "\0"])
def test_a_lock_that_cannot_be_read_is_taken(content, tmp_path):
    (tmp_path / "a.lock").write_text(content)
    with locked(tmp_path / "a.lock", "work"):
        assert json.loads((tmp_path / "a.lock").read_text())["pid"] == os.getpid()


def test_threads_that_race_for_a_lock_never_share_it(tmp_path):
    inside, most, done = [], [], []

    def work() -> None:
        for _ in range(50):
            try:
                with locked(tmp_path / "a.lock", "work"):
                    inside.append(None)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    done.append(None)
            except SegctlError:
                time.sleep(0.0005)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "blocks"), [({}, True), ({"host": "elsewhere"}, True), ({"started": 1.0}, False), ({"pid": 2**22 + 1}, False)]
)
def test_without_locks_of_the_file_system_the_text_decides(changes, blocks, tmp_path, monkeypatch):
    def refuse(descriptor, *, blocking):
        raise OSError(errno.ENOSYS, "no locks here")

    path = tmp_path / "a.lock"
    with locked(path, "work"):
        text = json.loads(path.read_text())
    monkeypatch.setattr(lock, "lock_descriptor", refuse)
    path.write_text(json.dumps(text | changes))
    if blocks:
        with pytest.raises(SegctlError, match="is under way in process"), locked(path, "work"):
            pass
    else:
        with locked(path, "work"):
            pass


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError), locked(tmp_path / "a.lock", "work"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(InputError) as caught, locked(tmp_path / "none" / "a.lock", "work"):
        pass
    assert str(caught.value) == f"cannot write to '{tmp_path}/none': No such file or directory; give another folder"


def test_processes_that_were_forked_while_it_is_held_end_quietly(tmp_path):
    with locked(tmp_path / "a.lock", "work"):
        child = multiprocessing.get_context("fork").Process(target=len, args=("",))
        child.start()
        child.join()
        assert child.exitcode == 0
        with pytest.raises(SegctlError), locked(tmp_path / "a.lock", "work"):
            pass
