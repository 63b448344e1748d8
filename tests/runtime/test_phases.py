"""Every moment of a step belongs to one phase, and the phases add up to the step."""

import pytest
import torch

from segctl.runtime import phases as clocks
from segctl.runtime.phases import Clock, hold, phase

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    time = [0.0]
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: time[0])
    return time


def test_phases_inside_each_other_share_the_time_and_add_up_to_the_step(now: list[float]) -> None:
    clock = Clock(CPU)
    hold(clock)
    now[0] = 1.0  # other
    with phase("data"):
        now[0] = 3.0
    with phase("backward"):
        now[0] = 7.0
        with phase("peers"):
            now[0] = 15.0
        now[0] = 31.0
    clock.next_step()
    hold(None)
    assert clock.spent() == [{"other": 1.0, "data": 2.0, "backward": 20.0, "peers": 8.0}]
    assert sum(clock.spent()[0].values()) == 31.0


def test_time_between_steps_is_no_steps_time(now: list[float]) -> None:
    clock = Clock(CPU)
    hold(clock)
    with phase("student"):
        now[0] = 1.0
    with phase("between"):
        now[0] = 101.0
    clock.next_step()
    with phase("student"):
        now[0] = 103.0
    clock.next_step()
    now[0] = 1000.0  # of a step that has not been taken
    hold(None)
    assert clock.spent() == [{"other": 0.0, "student": 1.0}, {"other": 0.0, "student": 2.0}]


def test_a_phase_ends_where_an_error_leaves_it(now: list[float]) -> None:
    clock = Clock(CPU)
    hold(clock)
    with pytest.raises(ValueError, match="x"), phase("loss"):
        raise ValueError("x")
    hold(None)
    assert clock.current == "other"


def test_without_a_clock_a_phase_is_nothing() -> None:
    assert phase("data") is phase("loss")
