"""Start a command in several processes of this machine through torch's own launcher, and end with one message, whatever happens.

The processes leave their pids, and what they would have said at a bad end, in a folder that this one reads: of many that fall
over each other the first one's words are the ones that help.
torch is imported where processes are started, because the command line's door asks this file about every error.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from segctl.errors import PeerError, ProcessError, SegctlError

FOLDER = "SEGCTL_PROCESSES"
"""The variable that tells a process where to leave its words; set by `launch` alone."""


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run `segctl ARGUMENTS` in that many local processes, on a free port.

    Raises ProcessError, in the words of the process that failed first, where they did not all end well.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="segctl-") as place, _environment(processes, place), _passing_on(Path(place)):
        try:
            elastic_launch(config, sys.executable)("-m", "segctl", *arguments)
        except ChildFailedError as error:
            codes = {rank: int(failure.exitcode) for rank, failure in error.failures.items()}
            raise first_words(Path(place), codes, processes) from None
        except SignalException as stop:
            raise first_words(Path(place), {}, processes, stop.sigval) from None


@contextmanager
def leaving_word() -> Iterator[None]:
    """In a process that `launch` started: leave word of a bad end instead of printing it, and end with its exit code."""
    if FOLDER not in os.environ:
        yield
        return
    folder, rank = Path(os.environ[FOLDER]), os.environ.get("RANK", "0")
    (folder / f"{rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    except SegctlError as error:
        _leave(folder / f"{rank}.json", error, "")
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        _leave(folder / f"{rank}.json", SegctlError(f"process {rank} failed: {error!r}"), traceback.format_exc())
        raise SystemExit(1) from error


def resume_with(line: str) -> None:
    """Leave the command that goes on with this run, for when a process cannot say it itself."""
    if FOLDER in os.environ:
        (Path(os.environ[FOLDER]) / "resume").write_text(line, encoding="utf-8")


def _leave(path: Path, error: SegctlError, trace: str) -> None:
    said = {"time": time.time(), "message": error.message, "hint": error.hint, "exit_code": error.exit_code, "trace": trace}
    said["lost"] = isinstance(error, PeerError)
    path.write_text(json.dumps(said), encoding="utf-8")


def first_words(folder: Path, codes: dict[int, int], processes: int, stopped: int | None = None) -> ProcessError:
    """What to say: of a process that the system killed, else what the first to fail has said."""
    killed = [(rank, signal.Signals(-code).name) for rank, code in sorted(codes.items()) if code < 0 and code != -signal.SIGTERM]
    words = sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")), key=lambda said: said["time"]
    )
    own = [said for said in words if not said["lost"]]
    if own and not (killed and own[0]["trace"]):
        return ProcessError(own[0]["message"], own[0]["hint"], own[0]["exit_code"], own[0]["trace"])
    resume = folder / "resume"
    hint = f"go on with `{resume.read_text(encoding='utf-8')}`" if resume.is_file() else ""
    if killed:
        rank, name = killed[0]
        return ProcessError(f"process {rank} of {processes} was killed by {name}; the machine may be out of memory", hint)
    if stopped is not None:
        return ProcessError("the run was stopped before it could save", hint, 128 + int(stopped))
    return ProcessError(f"a process of {processes} ended without a word: exit codes {sorted(codes.values())}", hint)


@contextmanager
def _environment(processes: int, place: str) -> Iterator[None]:
    """The variables that the processes are to have; the caller's come back."""
    before = dict(os.environ)
    os.environ[FOLDER] = place
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _passing_on(folder: Path) -> Iterator[None]:
    """Slurm's warning goes on to the processes; what stops them, torch's launcher passes on by handlers of its own, which it
    leaves behind: the earlier ones come back here."""

    def forward(number: int, frame: FrameType | None) -> None:
        for path in folder.glob("*.pid"):
            try:
                os.kill(int(path.read_text(encoding="utf-8")), number)
            except (ProcessLookupError, ValueError):
                continue

    numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGUSR1, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
