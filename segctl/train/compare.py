"""The same student, teacher, data and steps by several methods and seeds: which runs that means, and taking them to their ends.

Every run is a process of its own, the very `segctl distill` one would type, so that its peak memory is its own, several can
run beside each other on several GPUs, and one that was stopped goes on like any other.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError, SegctlError, StoppedError
from segctl.runs import RunFolder
from segctl.schema.load import load_preset, with_method
from segctl.schema.methods import Method
from segctl.schema.run import DistillRun, TrainRun
from segctl.schema.same_run import conflicts
from segctl.teacher.load import Teacher, find_teacher, load_teacher

Note = Callable[[str], None]
WAKE_S = 0.2


@dataclass(frozen=True)
class Asked:
    """What is compared: a student's preset with changes; `teacher_preset` describes a teacher of plain weights."""

    preset: str
    changes: tuple[str, ...]
    teacher_preset: str | None
    data_root: Path
    runs_root: Path


@dataclass(frozen=True)
class Job:
    """One run of a comparison, and where it lies."""

    method: Method
    run: TrainRun
    folder: RunFolder

    @property
    def seed(self) -> int:
        return self.run.train.seed

    def command(self, asked: Asked, teacher: Teacher | None, device: str | None) -> list[str]:
        """The arguments of `segctl` that begin it, or go on with it."""
        parts = ["distill", "--preset", asked.preset, "--method", self.method, "--run", str(self.folder.path)]
        for change in [*asked.changes, f"train.seed={self.seed}"]:
            parts += ["--set", change]
        if teacher is not None and self.method != "none":
            parts += ["--teacher", teacher.source]
            parts += [] if asked.teacher_preset is None else ["--teacher-preset", asked.teacher_preset]
        parts += ["--data-root", str(asked.data_root), "--runs-root", str(asked.runs_root)]
        parts += [] if device is None else ["--device", device]
        return [*parts, "--resume"] if self.folder.path.exists() else parts


def open_comparison(asked: Asked, methods: Sequence[Method], given: Path | None) -> tuple[DistillRun, Teacher | None]:
    """The student's run, and the one teacher of all its runs, loaded so that it is known to fit; None for `none` alone.

    Raises InputError for what is not there.
    """
    run = load_preset(asked.preset, asked.changes)
    if not isinstance(run, DistillRun):
        raise InputError(f"'{run.name}' has no teacher to learn from", "give a student's preset; see `segctl presets list`")
    dataset = open_dataset(asked.data_root, run.data.dataset)
    if list(methods) == ["none"]:
        return run, None
    path = find_teacher(run, given, asked.runs_root, asked.data_root)
    return run, load_teacher(path, dataset, asked.teacher_preset)


def plan(run: DistillRun, methods: Sequence[Method], seeds: int, runs_root: Path) -> list[Job]:
    """Seed by seed, the methods in the order given, so that a comparison broken off early has whole seeds.

    Raises PresetError where a method does not fit the student.
    """
    jobs = []
    for seed in range(run.train.seed, run.train.seed + seeds):
        seeded = run.model_copy(update={"train": run.train.model_copy(update={"seed": seed})})
        for method in methods:
            folder = RunFolder(runs_root / f"{run.name}-{method}-seed{seed}")
            jobs.append(Job(method, with_method(seeded, method), folder))
    return jobs


def require_fitting(job: Job, teacher: Teacher | None) -> None:
    """Refuse a folder in the job's place that holds another run. Raises InputError."""
    if not job.folder.path.exists():
        return
    if found := sorted(map(str, conflicts(job.folder.read_run(), job.run))):
        raise InputError(
            f"'{job.folder.path}' was run with other settings: {'; '.join(found)}",
            "compare with those settings, or under another --runs-root",
        )
    taught = (job.folder.read_environment().get("teacher") or {}).get("sha256")
    if teacher is not None and job.method != "none" and taught != teacher.sha256:
        raise InputError(f"'{job.folder.path}' learnt from another teacher", "give that one, or another --runs-root")


def take(jobs: Sequence[Job], command: Callable[[Job, str | None], list[str]], devices: Sequence[str | None], note: Note) -> None:
    """Take every job to its end by `segctl COMMAND`, one at a time on each device; finished ones are left alone.

    Raises StoppedError where a signal came, and SegctlError where a run failed; the others under way end first.
    """
    free: SimpleQueue[str | None] = SimpleQueue()
    for device in devices:
        free.put(device)
    with _passing_signals_on() as (children, stopped), ThreadPoolExecutor(len(devices)) as pool:

        def go(job: Job) -> int:
            device = free.get()
            try:
                return 0 if stopped else _run(job, command(job, device), children, note)
            finally:
                free.put(device)

        waiting = [pool.submit(go, job) for job in jobs if not _is_done(job, note)]
        while wait(waiting, timeout=WAKE_S).not_done:
            pass  # a signal's handler only runs in this thread, and only while it is awake
        codes = [future.result() for future in waiting]
    if stopped:
        name = signal.Signals(stopped[0]).name
        raise StoppedError(stopped[0], f"stopped by {name}; every run has saved its state", "give the same command to go on")
    if failed := [code for code in codes if code]:
        raise SegctlError(
            f"{len(failed)} of {len(jobs)} runs failed, the first with exit code {failed[0]}",
            "see its message above; the same command goes on with what is left",
        )


def _is_done(job: Job, note: Note) -> bool:
    if job.folder.finished:
        note(f"{job.folder.name}: finished before")
    return job.folder.finished


def _run(job: Job, command: list[str], children: "set[subprocess.Popen[bytes]]", note: Note) -> int:
    note(f"{job.folder.name}: {'going on' if job.folder.path.exists() else 'starting'}")
    child = subprocess.Popen([sys.executable, "-m", "segctl", *command], stdout=subprocess.DEVNULL)
    children.add(child)
    try:
        return child.wait()
    finally:
        children.discard(child)


@contextmanager
def _passing_signals_on() -> Iterator[tuple["set[subprocess.Popen[bytes]]", list[int]]]:
    """The runs under way, and the signals that came: Ctrl-C and SIGTERM reach every run, which saves, and are remembered."""
    children: set[subprocess.Popen[bytes]] = set()
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for child in list(children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)  # a terminal's Ctrl-C has reached it already; a second one would not save

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield children, came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
