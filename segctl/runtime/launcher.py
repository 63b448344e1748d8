"""Run a command in several processes of this machine through torch's own launcher, and end with one message.

If one process fails, the others fail too because they lose it, so only the first error helps. Each process writes its pid, and
its error if it fails, into a folder; the process that started them reads the folder and reports the first error.
torch is imported only where processes are started: `segctl.cli` imports this file for every command.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from segctl.errors import PeerError, ProcessError, SegctlError
from segctl.runtime.cores import share_of_threads
from segctl.runtime.parent import parent_variable
from segctl.runtime.signals import handling

REPORTS_VARIABLE = "SEGCTL_PROCESSES"
"""The variable that names the folder for pids and errors; only `launch` sets it."""


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run `segctl ARGUMENTS` in several processes of this machine, on a free port.

    Raises ProcessError with the message of the process that failed first.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="segctl-") as place, _environment(processes, place), _forwarding_signals(Path(place)):
        try:
            elastic_launch(config, sys.executable)("-m", "segctl", *arguments)
        except ChildFailedError as error:
            codes = {rank: int(failure.exitcode) for rank, failure in error.failures.items()}
            raise first_error(Path(place), codes, processes) from None
        except SignalException as stop:
            raise first_error(Path(place), {}, processes, stop.sigval) from None


@contextmanager
def reporting_errors() -> Iterator[None]:
    """In a process that `launch` started: write an error into the folder instead of printing it, and exit with its code.

    In any other process this does nothing. Where the folder for temporary files is full, the error is printed after all.
    """
    if REPORTS_VARIABLE not in os.environ:
        yield
        return
    folder, rank = Path(os.environ[REPORTS_VARIABLE]), os.environ.get("RANK", "0")
    with suppress(OSError):
        (folder / f"{rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    except SegctlError as error:
        if not _write_error(folder / f"{rank}.json", error, ""):
            raise
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        if not _write_error(folder / f"{rank}.json", SegctlError(f"process {rank} failed: {error!r}"), traceback.format_exc()):
            raise
        raise SystemExit(1) from error


def remember_resume_command(line: str) -> None:
    """Store the command that resumes this run, to be shown if a process is killed and cannot print it."""
    if REPORTS_VARIABLE in os.environ:
        with suppress(OSError):
            (Path(os.environ[REPORTS_VARIABLE]) / "resume").write_text(line, encoding="utf-8")


def _write_error(path: Path, error: SegctlError, trace: str) -> bool:
    """Write an error for the process that started this one; whether there was room for it."""
    content = {"time": time.time(), "message": error.message, "hint": error.hint, "exit_code": error.exit_code, "trace": trace}
    content |= {"lost": isinstance(error, PeerError), "detail": error.detail if isinstance(error, PeerError) else ""}
    try:
        path.write_text(json.dumps(content), encoding="utf-8")
    except OSError:
        path.unlink(missing_ok=True)  # half an error cannot be read
        return False
    return True


def first_error(folder: Path, codes: dict[int, int], processes: int, stopped: int | None = None) -> ProcessError:
    """The error to report: the first that a process wrote, unless that is a bug which a kill of another process explains.

    codes: exit code by rank, negative for a signal.  stopped: the signal that ended all processes.
    """
    killed = [(rank, signal.Signals(-code).name) for rank, code in sorted(codes.items()) if code < 0 and code != -signal.SIGTERM]
    errors = sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")), key=lambda error: error["time"]
    )
    # A process that only lost another one ("lost") knows nothing of the cause.
    causes = [error for error in errors if not error["lost"]]
    if causes and not (killed and causes[0]["trace"]):
        return ProcessError(causes[0]["message"], causes[0]["hint"], causes[0]["exit_code"], causes[0]["trace"])
    resume = folder / "resume"
    hint = f"resume with `{resume.read_text(encoding='utf-8')}`" if resume.is_file() else ""
    if killed:
        rank, name = killed[0]
        return ProcessError(f"process {rank} of {processes} was killed by {name}; the machine may be out of memory", hint)
    if stopped is not None:
        return ProcessError("the run was stopped before it could save", hint, 128 + int(stopped))
    details = [error["detail"] for error in errors if error["detail"]]
    seen = f"; another one saw: {details[0]}" if details else ""
    return ProcessError(f"a process of {processes} ended without a message: exit codes {sorted(codes.values())}{seen}", hint)


@contextmanager
def _environment(processes: int, place: str) -> Iterator[None]:
    """Set the variables that the processes inherit; the caller's own come back at the end."""
    before = dict(os.environ)
    os.environ |= {REPORTS_VARIABLE: place, **parent_variable(), **share_of_threads(processes)}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _forwarding_signals(folder: Path) -> Iterator[None]:
    """Forward SIGUSR1 (Slurm's warning) to the processes.

    torch's launcher forwards the other signals with handlers of its own and does not remove them, so the earlier ones are put
    back here.
    """

    def forward(number: int, frame: FrameType | None) -> None:
        for path in folder.glob("*.pid"):
            try:
                os.kill(int(path.read_text(encoding="utf-8")), number)
            except (ProcessLookupError, ValueError):
                continue

    replaced_by_torch = dict.fromkeys(("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"))
    with handling({"SIGUSR1": forward, **replaced_by_torch}):
        yield
