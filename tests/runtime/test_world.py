"""How the processes of a run meet, lose each other and end."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from waiting import LIMIT

from segctl.errors import PeerError, SegctlError
from segctl.runtime.launcher import REPORTS_VARIABLE, first_error, reporting_errors
from segctl.runtime.world import World

CODE = """
import atexit, threading, time
from segctl.runtime.world import end_process
atexit.register(lambda: print("handler"))
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
print("work", end=" ")
end_process(3)
"""


@pytest.mark.slow
def test_a_process_of_several_ends_with_its_threads_its_handlers_and_its_output():
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (3, "work thread\nhandler\n", "")


NCCL_INVALID = """NCCL error in: ProcessGroupNCCL.cpp:3690, invalid usage, NCCL version 2.27.7
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 3b000"""


@pytest.mark.parametrize(
    "text",
    [
        "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3214",
        "NCCL error: remote process exited or there was a network error, NCCL version 2.27.7\nncclRemoteError: A call failed",
        "socketProgress: Connection closed by remote peer node2<4711>, NCCL",
    ],
)
def test_a_peer_that_has_gone_is_told_by_its_connection(text):
    with pytest.raises(PeerError) as caught, World(0, 2, 2).losing_peers():
        raise RuntimeError(text)
    assert caught.value.detail == text.splitlines()[0]


def test_any_other_error_of_nccl_keeps_its_words():
    with pytest.raises(SegctlError) as caught, World(1, 2, 2).losing_peers():
        raise RuntimeError(NCCL_INVALID)
    assert not isinstance(caught.value, PeerError)
    assert caught.value.message.startswith(
        "process 1 of 2 failed in NCCL: NCCL error in: ProcessGroupNCCL.cpp:3690, invalid usage"
    )
    assert caught.value.message.endswith("Last error: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 3b000")
    assert "NCCL_DEBUG=INFO" in caught.value.hint


def test_an_error_that_names_no_peer_is_let_through():
    for world in (World(0, 2, 2), World()):
        with pytest.raises(RuntimeError, match="shapes"), world.losing_peers():
            raise RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="Duplicate"), World().losing_peers():
        raise RuntimeError(NCCL_INVALID)


def test_what_a_process_saw_of_a_lost_one_is_reported_if_nobody_says_more(tmp_path, monkeypatch):
    monkeypatch.setenv(REPORTS_VARIABLE, str(tmp_path))
    with pytest.raises(SystemExit), reporting_errors():
        raise PeerError(detail="Connection closed by peer")
    found = first_error(tmp_path, {0: 1, 1: 1}, 2)
    assert found.message == (
        "a process of 2 ended without a message: exit codes [1, 1]; another one saw: Connection closed by peer"
    )


ALONE = """
import signal, sys
from datetime import timedelta
from segctl.runtime import world
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it
world.SILENCE_S = 0.3
world.ARRIVAL = timedelta(seconds=float(sys.argv[1]))
try:
    world.join_world(lambda text: print(text, flush=True))
except KeyboardInterrupt:
    print("interrupted")
    world.end_process(130)
except world.SegctlError as error:
    print(error.message.split(": ")[0], "|", error.hint)
    world.end_process(1)
"""


def _alone(rank: int, seconds: float) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_nobody_meets_says_so_and_ends_in_time(rank):
    found, _ = _alone(rank, 1.5).communicate(timeout=LIMIT)
    waiting, failure, *_ = found.splitlines()
    assert waiting.startswith(f"process {rank} waits at 127.0.0.1:")
    assert waiting.endswith("for all 2 processes of this run, at most 0 minutes")
    assert failure.startswith(f"process {rank} did not meet all 2 processes of this run at 127.0.0.1")
    assert "MASTER_ADDR" in failure


@pytest.mark.slow
def test_ctrl_c_ends_a_process_that_waits_for_the_others():
    process = _alone(1, 600)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("process 1 waits")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LIMIT) == 130
    assert process.stdout.read() == "interrupted\n"
