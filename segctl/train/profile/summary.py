"""Where a step's time goes and what to change: `--profile`.

The first steps warm up: libraries initialise, and the batches that the loader made in advance are used up. The next steps are
timed without anything that slows them down; the table shows these. A few more steps run under torch's own profiler, which slows
them down, for the trace and for memory. profiler.py measures; this file chooses the steps and words the result.
"""

from dataclasses import asdict, dataclass
from typing import Any

from segctl.errors import InputError
from segctl.runtime.phases import Phase
from segctl.train.profile.loader_advice import Feeding

WARMUP, TIMED, TRACED = 5, 10, 3
FEWEST = 3
WAITING, BOTTLENECK = 0.1, 0.35
"""Report waiting above 10 % of a step; call a phase the bottleneck above 35 %."""

LABELS: dict[Phase, str] = {
    "data": "waiting for data",
    "copy": "copy to the device",
    "teacher": "teacher forward",
    "student": "student forward",
    "loss": "loss and distillation terms",
    "backward": "backward",
    "optimiser": "optimiser",
    "peers": "waiting for other processes",
    "other": "other",
}


@dataclass(frozen=True)
class Window:
    """Steps to warm up, to time and to trace, in this order."""

    warmup: int
    timed: int
    traced: int

    @property
    def total(self) -> int:
        return self.warmup + self.timed + self.traced


TRIAL = Window(1, 3, 1)
"""The window of a dry run, after its first step."""


def plan_window(left: int, workers: int) -> Window:
    """The steps to profile in a run that has `left` steps left. Raises InputError for fewer than three."""
    if left < FEWEST:
        raise InputError(
            f"--profile needs at least {FEWEST} steps (one to warm up, one to time, one to trace), and {left} are left",
            "leave out --profile, or give more --steps",
        )
    traced = min(TRACED, left // 3)
    timed = min(TIMED, (left - traced + 1) // 2)
    # Each loader process has up to two batches ready. A loader half as fast as the steps runs out of them after twice as many.
    return Window(min(WARMUP + 4 * workers, left - traced - timed), timed, traced)


@dataclass(frozen=True)
class Profile:
    """The result of --profile: seconds per step, as means over the timed steps; the phases add up to step_s."""

    device: str
    precision: str
    batch_size: int
    processes: int
    window: Window
    phases: dict[Phase, float]
    step_s: float
    fastest_step_s: float
    slowest_step_s: float
    peak_mb: dict[Phase, float]
    """Peak memory of tensors in a phase in MB, above what was allocated when the step began."""
    feeding: Feeding
    busy_s: float | None
    """Seconds per step in which a GPU computes or copies; None on a CPU."""

    def share(self, phase: Phase) -> float:
        """The fraction of a step that a phase takes, from 0 to 1."""
        return self.phases.get(phase, 0.0) / self.step_s

    def rows(self) -> list[list[str]]:
        """The table's rows: phase, milliseconds per step, share, MB; the whole step last."""
        return [
            *([LABELS[name], f"{1000 * spent:.1f}", f"{100 * self.share(name):.1f} %", _mb(self.peak_mb.get(name))]
              for name, spent in self.phases.items()),
            ["step", f"{1000 * self.step_s:.1f}", "100.0 %", _mb(max(self.peak_mb.values(), default=None))],
        ]  # fmt: skip

    def title(self) -> str:
        several = f" over {self.processes} processes" if self.processes > 1 else ""
        return f"Where a step's time goes: {self.device}, {self.precision}, batch {self.batch_size}{several}"

    def notes(self) -> list[str]:
        """How the numbers were measured."""
        window = self.window
        lines = [
            f"times: {_steps(window.timed)} after {window.warmup} to warm up, {1000 * self.fastest_step_s:.1f} to "
            f"{1000 * self.slowest_step_s:.1f} ms each; memory: {_steps(window.traced)} under torch's profiler after these, "
            "above what was allocated before the step",
            f"a loader process makes a batch in {1000 * self.feeding.made_s:.1f} ms; workers: {self.feeding.workers}",
        ]
        if self.busy_s is not None:
            lines.append(
                f"times are measured on the GPU, from when it starts a phase to when it ends it; the GPU computes or copies "
                f"in {100 * self.busy_s / self.step_s:.0f} % of a step"
            )
        if self.processes > 1:
            lines.append("backward includes averaging gradients over the processes; times are the main process's")
        return lines

    def markdown(self) -> str:
        """The content of profile.md."""
        lines = [
            f"# {self.title()}",
            "",
            f"{advice(self)}.",
            "",
            "| phase | ms a step | share | MB at most |",
            "|---|---:|---:|---:|",
        ]
        lines += [f"| {' | '.join(row)} |" for row in self.rows()]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes())]) + "\n"

    def content(self) -> dict[str, Any]:
        """The content of profile.json."""
        phases = {
            name: {"seconds": spent, "share": self.share(name), "peak_mb": self.peak_mb.get(name)}
            for name, spent in self.phases.items()
        }
        return asdict(self) | {"phases": phases, "images_per_s": self.batch_size / self.step_s, "advice": advice(self)}


COLUMNS = ["phase", "ms a step", "share", "MB at most"]


def advice(profile: Profile) -> str:
    """One sentence: which part of a step to make faster, and how."""
    return _advice_on_waiting(profile) or _advice_on_work(profile)


def _advice_on_waiting(profile: Profile) -> str | None:
    """What to do if the device waits; None if it does not."""
    feeding, rest = profile.feeding, 1 - (profile.busy_s or profile.step_s) / profile.step_s
    if profile.share("data") >= WAITING:
        return f"{_is(profile, 'data')} with {feeding.workers} loader workers; {feeding.advice()}"
    if feeding.falls_behind:
        return f"{feeding.workers} loader workers are too slow, which batches made in advance still hide; {feeding.advice()}"
    if profile.share("peers") >= WAITING:
        if profile.batch_size % profile.processes:
            cure = f"a train.batch_size that is a multiple of {profile.processes} gives all the same work"
        else:
            cure = "one of them is slower; check what else runs on its machine"
        return f"{_is(profile, 'peers')}: {cure}"
    if profile.busy_s is not None and rest >= 2 * WAITING:
        cause = "its kernels are shorter than it takes to start them"
        cure = "try train.compile=true, a larger train.batch_size or a smaller train.accumulate"
        return f"the GPU is idle in {100 * rest:.0f} % of a step, because {cause}: {cure}"
    return None


def _advice_on_work(profile: Profile) -> str:
    """What to do about the largest part of a step in which nothing waits."""
    halved = "train.precision=bf16 (if the device has it) or " if profile.precision == "fp32" else ""
    if profile.share("teacher") >= BOTTLENECK:
        return f"{_is(profile, 'teacher')}: try {halved}teacher.cache=true (if views never change) or a smaller teacher"
    if profile.share("loss") >= BOTTLENECK:
        return f"{_is(profile, 'loss')}: try a cheaper --method or a smaller data.crop; the trace names the operations"
    if profile.share("other") >= WAITING:
        return f"{_is(profile, 'other')}: Python code around the networks; try a larger train.batch_size"
    work = profile.share("student") + profile.share("backward")
    return f"nothing waits: the student's forward and backward take {100 * work:.0f} % of a step; try {halved}a smaller data.crop"


def _is(profile: Profile, name: Phase) -> str:
    return f"{100 * profile.share(name):.0f} % of a step is {LABELS[name]}"


def _mb(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
