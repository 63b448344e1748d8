"""Ctrl-C and SIGTERM stop a run between two steps, so that it can be taken up again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """The signal that asked this process to stop, once one has come."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second Ctrl-C does not wait."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def stop_between_steps() -> Iterator[StopRequest]:
    """Collect Ctrl-C and SIGTERM instead of dying from them; the previous handlers come back at the end."""
    request = StopRequest()
    previous = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
