"""Signals during a run: Ctrl-C and SIGTERM stop it between two steps, SIGUSR1 (Slurm's warning) saves a checkpoint.

Imports no torch, because the launcher uses it too.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from segctl.errors import StoppedError

if TYPE_CHECKING:
    from segctl.runtime.world import World

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handling(handlers: Mapping[str, Handler | None]) -> Iterator[None]:
    """Install handlers by the names of their signals, and put the earlier ones back at the end.

    A None installs nothing, but the earlier handler comes back all the same: for code inside that installs its own.
    Names that this system does not have (SIGUSR1 and SIGHUP on Windows) are skipped.  Only for the main thread.
    """
    known = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    before = {number: signal.getsignal(number) for number in known}
    try:
        for number, handler in known.items():
            if handler is not None:
                signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            if earlier is not None:  # None: installed by C code, so Python cannot put it back
                signal.signal(number, earlier)


class _Terminated(BaseException):
    """No Exception, so that no `except Exception` of a library takes it for an error of its own."""


@contextmanager
def ending_in_order(message: str) -> Iterator[None]:
    """On SIGTERM, leave the block as if an error was raised there, so that half-written files go; then raise StoppedError.

    message: what was stopped, in a sentence.  In other threads than the main one, which get no signals, nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling({"SIGTERM": stop}):
        try:
            yield
        except _Terminated:
            raise StoppedError(signal.SIGTERM, message) from None


class Agreed(NamedTuple):
    """What signals have asked of any process of a run; the same on all processes."""

    stop: signal.Signals | None
    save: bool


class Requests:
    """What signals have asked of this process: `stop` is the signal that ends the run, `save` asks for a checkpoint."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False

    def agree(self, world: "World") -> Agreed:
        """What any process has been asked until now. All processes get the same, so that they stop and save at the same step."""
        import torch

        stop, save = world.largest(torch.tensor([self.stop or 0, int(self.save)])).tolist()
        return Agreed(signal.Signals(stop) if stop else None, bool(save))

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal. A second Ctrl-C ends the process at once."""
        if signal.Signals(number).name == "SIGUSR1":
            self.save = True
        elif self.stop is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.stop = signal.Signals(number)


@contextmanager
def requests_between_steps() -> Iterator[Requests]:
    """Collect Ctrl-C, SIGTERM and SIGUSR1 instead of ending the process; the earlier handlers come back at the end."""
    requests = Requests()
    with handling(dict.fromkeys(("SIGINT", "SIGTERM", "SIGUSR1"), requests.receive)):
        yield requests
