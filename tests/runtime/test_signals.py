"""Signal handlers that are swapped for a while."""

import os
import signal

import pytest

from segctl.runtime.signals import handling, requests_between_steps
from segctl.runtime.world import World


def test_handlers_are_installed_and_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    received: list[int] = []
    with handling({"SIGTERM": lambda number, frame: received.append(number)}):
        os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


def test_handlers_that_other_code_installs_meanwhile_are_put_back_too() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with handling({"SIGTERM": None}):
        assert signal.getsignal(signal.SIGTERM) == before
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="inside"), handling({"SIGTERM": lambda number, frame: None}):
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_that_a_system_lacks_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither SIGUSR1 nor SIGHUP."""
    monkeypatch.delattr(signal, "SIGUSR1")
    with handling({"SIGUSR1": None, "SIGNOSUCH": None}), requests_between_steps() as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.agree(World()).stop == signal.SIGTERM


def test_a_run_is_asked_to_save_and_then_to_stop() -> None:
    with requests_between_steps() as requests:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.agree(World()) == (None, True)
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.agree(World()) == (signal.SIGINT, True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
