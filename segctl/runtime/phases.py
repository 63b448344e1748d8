"""Whose time it is: every moment of a step belongs to one phase, so that the phases add up to the step.

On a GPU a moment is an event in the stream that the networks run in, and a phase lasts from the moment the device reaches its
beginning to the moment it reaches its end. Kernels are started long before they run, so the clock on the wall would credit a
phase with what it starts, not with what it costs; and waiting for a batch while the device still works costs a step nothing.
Backward runs in a thread of its own, but in the same stream, and ends before the phase does.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

import torch

Phase = Literal["data", "copy", "teacher", "student", "loss", "backward", "optimiser", "peers", "other", "between"]
"""`peers` waits for other processes, `other` is the rest of a step, and `between` is no step's time: validation, checkpoints."""

Moment = float | torch.cuda.Event


def moment(device: torch.device) -> Moment:
    """Now, on the device's own timeline."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def seconds(begin: Moment, end: Moment) -> float:
    """From one moment to a later one; on a GPU both must have been reached."""
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float)
        assert isinstance(end, float)
        return end - begin
    return float(begin.elapsed_time(end)) / 1000


class Clock:
    """The phases of some steps, one after another. `named`: they appear in torch's trace under their names as well."""

    def __init__(self, device: torch.device, *, named: bool = False) -> None:
        self.device, self.named = device, named
        self.turns: list[tuple[int, Phase, Moment]] = []
        self.step = 0
        self.turn("other")

    def turn(self, name: Phase) -> None:
        """From now on the time is this phase's."""
        self.current: Phase = name
        self.turns.append((self.step, name, moment(self.device)))

    def next_step(self) -> None:
        """What comes belongs to another step."""
        self.step += 1
        self.turn(self.current)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """The time in here is this phase's, and then again that of the one before."""
        before = self.current
        self.turn(name)
        try:
            with torch.profiler.record_function(name) if self.named else nullcontext():
                yield
        finally:
            self.turn(before)

    def spent(self) -> list[dict[Phase, float]]:
        """Seconds by phase, for every step but the last, which has only begun. Waits for the device."""
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
    """Mark what a part of the code does, for whoever holds a clock; without one it costs half a microsecond."""
    clock = _clock.get()
    return _NOTHING if clock is None else clock.phase(name)


def hold(clock: Clock | None) -> None:
    """Let phases be measured by this clock from now on, or by none."""
    _clock.set(clock)
