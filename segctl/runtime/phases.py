"""The phases of a training step: every moment of a step belongs to one phase, so the times of the phases add up to the step.

On a GPU a moment is a CUDA event in the stream that the networks run in. A phase lasts from the time the GPU reaches its start to
the time the GPU reaches its end. A wall clock would be wrong: kernels are queued long before they run, so it would measure what a
phase queues, not what the phase costs; and waiting for a batch while the GPU is still busy costs nothing.
The backward pass runs in a thread of its own, but in the same stream, and ends before its phase does.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

import torch

Phase = Literal["data", "copy", "teacher", "student", "loss", "backward", "optimiser", "peers", "other", "between"]
"""`peers`: waiting for other processes. `other`: the rest of a step. `between`: outside steps, such as validation."""

Moment = float | torch.cuda.Event


def moment(device: torch.device) -> Moment:
    """The current moment on the device's own timeline."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def seconds(begin: Moment, end: Moment) -> float:
    """Seconds from one moment to a later one. A GPU must have reached both."""
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float)
        assert isinstance(end, float)
        return end - begin
    return float(begin.elapsed_time(end)) / 1000


class Clock:
    """Records the phases of consecutive steps. `named`: torch's profiler trace shows the phases by name too."""

    def __init__(self, device: torch.device, *, named: bool = False) -> None:
        self.device, self.named = device, named
        self.turns: list[tuple[int, Phase, Moment]] = []
        self.step = 0
        self.turn("other")

    def turn(self, name: Phase) -> None:
        """Count the time from now on for this phase."""
        self.current: Phase = name
        self.turns.append((self.step, name, moment(self.device)))

    def next_step(self) -> None:
        """Count the time from now on for the next step."""
        self.step += 1
        self.turn(self.current)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Count the time in this context for a phase; afterwards the phase before it continues."""
        before = self.current
        self.turn(name)
        try:
            with torch.profiler.record_function(name) if self.named else nullcontext():
                yield
        finally:
            self.turn(before)

    def spent(self) -> list[dict[Phase, float]]:
        """Seconds by phase for every step but the last one, which has only begun. Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        found: list[dict[Phase, float]] = [{} for _ in range(self.step)]
        for (step, name, begin), (_, _, end) in zip(self.turns, self.turns[1:], strict=False):
            if step < self.step and name != "between":
                found[step][name] = found[step].get(name, 0.0) + seconds(begin, end)
        return found


_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)
_NOTHING = nullcontext()


def phase(name: Phase) -> AbstractContextManager[None]:
    """Mark a part of the code as a phase, for the clock set by `hold`. Without a clock this costs half a microsecond."""
    clock = _clock.get()
    return _NOTHING if clock is None else clock.phase(name)


def measuring() -> bool:
    """Whether a clock measures phases."""
    return _clock.get() is not None


def hold(clock: Clock | None) -> None:
    """Measure phases with this clock from now on; None stops measuring."""
    _clock.set(clock)
