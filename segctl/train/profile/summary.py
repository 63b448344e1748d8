"""Where a step's time goes, in a form one can act on: `--profile`.

Some steps warm up: libraries settle, and the batches that the loader made ahead meanwhile are used up. The next are timed, with
nothing else to slow them down: they are what the table says. A few more run under torch's own profiler, which does slow them
down, for the trace and for memory. profiler.py does this; here is which steps it takes, and what is made of them.
"""

from dataclasses import asdict, dataclass
from typing import Any

from segctl.errors import InputError
from segctl.runtime.phases import Phase
from segctl.train.loader_advice import Feeding

SETTLING, TIMED, TRACED = 5, 10, 3
FEWEST = 3
NOTEWORTHY, MUCH = 0.1, 0.35
"""Shares of a step from which on waiting is worth a sentence, and from which on a part is the one to look at."""

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
"""For a dry run, after its first step."""


def plan(left: int, workers: int) -> Window:
    """The steps to look at, of so many that the run has left. Raises InputError for fewer than three.

    Each loader process has up to two batches ready; a loader half as fast as the steps has used them up after twice as many.
    """
    if left < FEWEST:
        raise InputError(
            f"--profile takes at least {FEWEST} steps (one to warm up, one to time, one to trace), and {left} are left",
            "leave --profile out, or give more --steps",
        )
    traced = min(TRACED, left // 3)
    timed = min(TIMED, (left - traced + 1) // 2)
    return Window(min(SETTLING + 4 * workers, left - traced - timed), timed, traced)


@dataclass(frozen=True)
class Profile:
    """What was found. Times in seconds a step, means over the timed steps; the phases add up to step_s."""

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
    """What tensors took at most in a phase, above what lay there when the step began."""
    feeding: Feeding
    busy_s: float | None
    """Seconds a step that a GPU computes or copies; None on a CPU."""

    def share(self, phase: Phase) -> float:
        return self.phases.get(phase, 0.0) / self.step_s

    def rows(self) -> list[list[str]]:
        """Phase, milliseconds a step, share, MB; the whole step last."""
        return [
            *([LABELS[name], f"{1000 * spent:.1f}", f"{100 * self.share(name):.1f} %", _mb(self.peak_mb.get(name))]
              for name, spent in self.phases.items()),
            ["step", f"{1000 * self.step_s:.1f}", "100.0 %", _mb(max(self.peak_mb.values(), default=None))],
        ]  # fmt: skip

    def title(self) -> str:
        several = f" over {self.processes} processes" if self.processes > 1 else ""
        return f"Where a step's time goes: {self.device}, {self.precision}, batch {self.batch_size}{several}"

    def notes(self) -> list[str]:
        """How the numbers came about."""
        window = self.window
        lines = [
            f"{_steps(window.timed)} after {window.warmup} to warm up, {1000 * self.fastest_step_s:.1f} to "
            f"{1000 * self.slowest_step_s:.1f} ms; memory from {_steps(window.traced)} after these, which torch's profiler saw, "
            "above what lay there before a step",
            f"a loader process makes a batch in {1000 * self.feeding.made_s:.1f} ms; workers: {self.feeding.workers}",
        ]
        if self.busy_s is not None:
            lines.append(
                f"times are the device's: a phase lasts from when the GPU reaches it to when the GPU has done it; in "
                f"{100 * self.busy_s / self.step_s:.0f} % of a step the GPU computes or copies"
            )
        if self.processes > 1:
            lines.append("backward includes the averaging of gradients over the processes; this is the main process")
        return lines

    def markdown(self) -> str:
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
        """For profile.json."""
        phases = {
            name: {"seconds": spent, "share": self.share(name), "peak_mb": self.peak_mb.get(name)}
            for name, spent in self.phases.items()
        }
        return asdict(self) | {"phases": phases, "images_per_s": self.batch_size / self.step_s, "advice": advice(self)}


COLUMNS = ["phase", "ms a step", "share", "MB at most"]


def advice(profile: Profile) -> str:
    """One sentence: the part to act on, and how."""
    return _of_waiting(profile) or _of_working(profile)


def _of_waiting(profile: Profile) -> str | None:
    """What to do about a device that waits; None where it does not."""
    feeding, rest = profile.feeding, 1 - (profile.busy_s or profile.step_s) / profile.step_s
    if profile.share("data") >= NOTEWORTHY:
        return f"{_is(profile, 'data')} with {feeding.workers} loader workers; {feeding.advice()}"
    if feeding.falls_behind:
        return f"{feeding.workers} loader workers do not keep up: steps live on batches made ahead; {feeding.advice()}"
    if profile.share("peers") >= NOTEWORTHY:
        if profile.batch_size % profile.processes:
            cure = f"a train.batch_size that {profile.processes} divides gives each as much to do"
        else:
            cure = "one of them is slower; see what else runs there"
        return f"{_is(profile, 'peers')}: {cure}"
    if profile.busy_s is not None and rest >= 2 * NOTEWORTHY:
        cause = "its kernels are shorter than it takes to start them"
        cure = "train.compile=true, a larger train.batch_size or less train.accumulate"
        return f"the GPU rests in {100 * rest:.0f} % of a step, because {cause}: {cure}"
    return None


def _of_working(profile: Profile) -> str:
    """The part that takes most, where nothing waits."""
    halved = "train.precision=bf16 (where the device has it) or " if profile.precision == "fp32" else ""
    if profile.share("teacher") >= MUCH:
        return f"{_is(profile, 'teacher')}: {halved}teacher.cache=true (where views never change) or a smaller teacher"
    if profile.share("loss") >= MUCH:
        return f"{_is(profile, 'loss')}: a lighter --method, or a smaller data.crop; the trace names the operations"
    if profile.share("other") >= NOTEWORTHY:
        return f"{_is(profile, 'other')}: Python around the networks, which a larger train.batch_size outweighs"
    work = profile.share("student") + profile.share("backward")
    return f"nothing waits: the student's forward and backward are {100 * work:.0f} % of a step; {halved}a smaller data.crop"


def _is(profile: Profile, name: Phase) -> str:
    return f"{100 * profile.share(name):.0f} % of a step is {LABELS[name]}"


def _mb(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
