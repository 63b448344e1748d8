"""Train one student with several methods and seeds, everything else being equal: which runs that takes, and their training.

Every run is a `segctl distill` in its own process. So its peak memory is its own, several can run at once on several GPUs, and a
stopped one resumes like any other run.
"""

import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

from segctl.data.batches.views import TrainingNames
from segctl.data.fitted_preset import open_preset
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError, SegctlError, StoppedError
from segctl.runs import RunFolder
from segctl.runtime.cores import default_workers, share_of_threads
from segctl.runtime.parent import start_segctl
from segctl.runtime.signals import handling
from segctl.schema.load import with_method
from segctl.schema.run import DistillRun, TrainRun, with_epochs_counted
from segctl.schema.same_run import conflicts
from segctl.schema.terms.methods import Method
from segctl.teacher.ensemble import open_teacher
from segctl.teacher.load import Teacher

Note = Callable[[str], None]
WAKE_S = 0.2


@dataclass(frozen=True)
class ComparisonRequest:
    """What to compare: a student's preset with --set changes.

    data: the value of --data.
    teacher_preset: describes the network of a teacher that is a file of plain weights.  trust_program: whether a teacher that
    is a program may be read.
    """

    preset: str
    changes: tuple[str, ...]
    teacher_preset: str | None
    data_root: Path
    runs_root: Path
    trust_program: bool = False
    data: str | None = None


@dataclass(frozen=True)
class Job:
    """One run of a comparison, and its folder."""

    method: Method
    run: TrainRun
    folder: RunFolder

    @property
    def seed(self) -> int:
        return self.run.train.seed

    def command(self, request: ComparisonRequest, teacher: Teacher | None, device: str | None, devices: int = 1) -> list[str]:
        """The arguments of `segctl` that start the run, or resume it if its folder exists.

        devices: how many train at once on this machine; their loader processes share its cores.
        """
        parts = ["distill", "--preset", request.preset, "--method", self.method, "--run", str(self.folder.path)]
        parts += [] if request.data is None else ["--data", request.data]
        for change in [*request.changes, f"train.seed={self.seed}"]:
            parts += ["--set", change]
        if devices > 1 and device is not None and device.startswith("cuda") and self.run.data.workers is None:
            parts += ["--set", f"data.workers={default_workers(devices)}"]
        if teacher is not None and self.method != "none":
            for member in teacher.networks:
                parts += ["--teacher", member.source]
            parts += [] if request.teacher_preset is None else ["--teacher-preset", request.teacher_preset]
            parts += ["--trust-program"] if request.trust_program else []
        parts += ["--data-root", str(request.data_root), "--runs-root", str(request.runs_root)]
        parts += [] if device is None else ["--device", device]
        return [*parts, "--resume"] if self.folder.path.exists() else parts


class OpenedComparison(NamedTuple):
    """What all runs share. teacher: loaded to check that it fits; None if `none` is the only method."""

    run: DistillRun
    dataset: PreparedDataset
    teacher: Teacher | None
    reasons: tuple[str, ...]


def open_comparison(request: ComparisonRequest, methods: Sequence[Method], given: Sequence[Path]) -> OpenedComparison:
    """The student's run, and the teacher that all runs share.

    given: the values of --teacher.  Raises InputError if the preset, the dataset or the teacher does not exist or does not fit.
    """
    run, reasons = open_preset(request.preset, request.changes, request.data, request.data_root)
    if not isinstance(run, DistillRun):
        raise InputError(
            f"'{run.name}' has no teacher to learn from", "give a student's preset; `segctl presets list` shows them"
        )
    dataset = open_dataset(request.data_root, run.data.dataset)
    run = with_epochs_counted(run, len(TrainingNames.of(dataset, run.data).labelled))
    if list(methods) == ["none"]:
        return OpenedComparison(run, dataset, None, reasons)
    teacher = open_teacher(
        run, given, dataset, request.runs_root,
        data_root=request.data_root, preset=request.teacher_preset, trust_program=request.trust_program,
    )  # fmt: skip
    return OpenedComparison(run, dataset, teacher, reasons)


def plan_jobs(run: DistillRun, methods: Sequence[Method], seeds: int, runs_root: Path) -> list[Job]:
    """The runs, seed by seed, so that an interrupted comparison has whole seeds; methods in the order given.

    Raises PresetError if a method does not fit the student.
    """
    jobs = []
    for seed in range(run.train.seed, run.train.seed + seeds):
        seeded = run.model_copy(update={"train": run.train.model_copy(update={"seed": seed})})
        for method in methods:
            folder = RunFolder(runs_root / f"{run.name}-{method}-seed{seed}")
            jobs.append(Job(method, with_method(seeded, method), folder))
    return jobs


def require_fitting(job: Job, teacher: Teacher | None) -> None:
    """Raise InputError if the job's folder holds a run with other settings or another teacher."""
    if not job.folder.path.exists():
        return
    if found := sorted(map(str, conflicts(job.folder.read_run(), job.run))):
        raise InputError(
            f"'{job.folder.path}' was run with other settings: {'; '.join(found)}",
            "use those settings, or another --runs-root",
        )
    taught = (job.folder.read_environment().get("teacher") or {}).get("sha256")
    if teacher is not None and job.method != "none" and taught != teacher.sha256:
        raise InputError(
            f"'{job.folder.path}' was trained with another teacher", "give that one by --teacher, or use another --runs-root"
        )


def run_jobs(
    jobs: Sequence[Job],
    command: Callable[[Job, str | None], list[str]],
    devices: Sequence[str | None],
    note: Note,
    then: Callable[[Job], None] = lambda job: None,
) -> None:
    """Train every job to its end with `segctl COMMAND`, one at a time on each device; skip finished ones.

    command: gives the arguments of a job on a device.  then: is called after a job has trained to its end, in a thread, while its
    device is still taken.
    Raises StoppedError after a signal and SegctlError if a run failed; other runs that have started end first.
    """
    free: SimpleQueue[str | None] = SimpleQueue()
    for device in devices:
        free.put(device)
    threads = share_of_threads(len(devices))
    children: set[subprocess.Popen[bytes]] = set()
    signals: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        for child in list(children):
            if child.poll() is None:
                # SIGTERM for Ctrl-C too: a terminal has sent Ctrl-C to the children already, and a second one would not save.
                child.send_signal(signal.SIGTERM)

    def train(job: Job) -> int:
        device = free.get()
        try:
            if signals:
                return 0
            code = _run(job, command(job, device), threads, children, note)
            if code == 0:
                then(job)
            return code
        finally:
            free.put(device)

    with handling({"SIGINT": pass_on, "SIGTERM": pass_on}), ThreadPoolExecutor(len(devices)) as pool:
        waiting = [pool.submit(train, job) for job in jobs if not _is_finished(job, note)]
        # Python runs signal handlers in the main thread only, and not while it waits for good.
        while wait(waiting, timeout=WAKE_S).not_done:
            pass
        codes = [future.result() for future in waiting]
    if signals:
        name = signal.Signals(signals[0]).name
        raise StoppedError(
            signals[0], f"stopped by {name}; every run has saved its state", "run the same command again to resume"
        )
    if failed := [code for code in codes if code]:
        raise SegctlError(
            f"{len(failed)} of {len(jobs)} runs failed, the first with exit code {failed[0]}",
            "see its message above; run the same command again to resume",
        )


def _is_finished(job: Job, note: Note) -> bool:
    if job.folder.finished:
        note(f"{job.folder.name}: finished already")
    return job.folder.finished


def _run(job: Job, command: list[str], threads: dict[str, str], children: "set[subprocess.Popen[bytes]]", note: Note) -> int:
    note(f"{job.folder.name}: {'resuming' if job.folder.path.exists() else 'starting'}")
    child = start_segctl(command, threads)
    children.add(child)
    try:
        return child.wait()
    finally:
        children.discard(child)
