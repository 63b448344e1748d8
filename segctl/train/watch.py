"""What a run reports while it trains, and who shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepReport:
    """Means over the steps since the last report; times in seconds, memory in MB.

    gradient_norm: of the last step, before any clipping; infinite if that step was skipped.  skipped: how many of the steps
    changed no weight, because fp16 made a gradient infinite; the scale of the gradients is halved then.
    left_s: how long the rest of the run takes at this pace.
    """

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    gradient_norm: float
    data_s: float
    step_s: float
    left_s: float
    images_per_s: float
    memory_mb: float
    skipped: int = 0

    def short(self) -> str:
        """`loss 0.412   0.31 s/step`."""
        return f"loss {self.loss:.3f}   {self.step_s:.2f} s/step"

    def line(self, steps: int) -> str:
        """`step 20/200   loss 0.412 = cross_entropy_main 0.318 + jdt_main 0.094   0.31 s/step   56 s left`."""
        parts = " + ".join(f"{name} {value:.3f}" for name, value in self.terms.items())
        left = f"   {_duration(self.left_s)} left" if self.step < steps else ""
        skipped = f"   {self.skipped} steps skipped (fp16)" if self.skipped else ""
        return f"step {self.step}/{steps}   loss {self.loss:.3f} = {parts}   {self.step_s:.2f} s/step{left}{skipped}"


class Watch(Protocol):
    """Shows a run to a person; the command line has one for terminals and one for pipes."""

    def note(self, text: str) -> None:
        """Show a decision or an event."""

    def stepped(self, report: StepReport, steps: int) -> None:
        """Show a report of a run of `steps` steps."""

    def advance(self, label: str, done: int, total: int) -> None:
        """Show the progress of work that is not steps, such as validation."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        """Show a result, such as a profile."""


def _duration(seconds: float) -> str:
    """`56 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
