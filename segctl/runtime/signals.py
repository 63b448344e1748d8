"""Ctrl-C and SIGTERM stop a run between two steps, SIGUSR1 (Slurm's warning) saves one, so that it can be taken up again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import torch

from segctl.runtime.world import World


class Agreed(NamedTuple):
    """What the processes of a run have been asked, as of one moment."""

    stop: signal.Signals | None
    save: bool


class Requests:
    """What signals have asked of this process: `stop` is the signal that wants it to end, `save` asks for a checkpoint."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False

    def agree(self, world: World) -> "Agreed":
        """What any process has been asked so far, the same on all, so that they stop and save at one step."""
        stop, save = world.largest(torch.tensor([self.stop or 0, int(self.save)])).tolist()
        return Agreed(signal.Signals(stop) if stop else None, bool(save))

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second Ctrl-C does not wait."""
        if number == signal.SIGUSR1:
            self.save = True
        elif self.stop is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.stop = signal.Signals(number)


@contextmanager
def requests_between_steps() -> Iterator[Requests]:
    """Collect Ctrl-C, SIGTERM and SIGUSR1 instead of dying from them; the previous handlers come back at the end."""
    requests = Requests()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    previous = {number: signal.signal(number, requests.receive) for number in numbers}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
