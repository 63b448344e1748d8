"""Turns, medians and ratios by hand, and a table of real subjects."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segctl.bench import measure as module
from segctl.bench.exported_file import Conditions
from segctl.bench.measure import measure_in_turns, peak_of, peaks_of, take_turns
from segctl.bench.subjects import Subject
from segctl.errors import InputError
from tests.bench.onnx_files import write_onnx

HERE = Conditions((16, 24), 1, "cpu")


def silent(done, total):
    pass


@dataclass(frozen=True)
class Timed(Subject):
    """A subject that takes so many of the test's milliseconds, or that fails."""

    ms: tuple[float, ...] = ()

    def segment(self, conditions):
        if not self.ms:
            raise InputError("no such provider", "install it")
        turns = iter([0.0] * module.WARM_UP_RUNS + list(self.ms) * 100)
        return lambda image: CLOCK.pass_by(next(turns))


class Clock:
    def __init__(self):
        self.now = 0.0

    def pass_by(self, ms):
        self.now += ms / 1000


CLOCK = Clock()


def timed(name, *ms):
    return Timed(name, "torch compiled", None, Path("data"), ms=ms)  # whose memory is not measured


@pytest.fixture
def _own_clock(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", (5, 5))
    monkeypatch.setattr(module.time, "perf_counter", lambda: CLOCK.now)
    monkeypatch.setattr(take_turns, "__defaults__", (lambda: CLOCK.now,))


@pytest.mark.usefixtures("_own_clock")
def test_medians_and_ratios_by_hand():
    """The ratio is the median of 10/20, 30/20, 20/40, 40/40, 20/20 = 1.0, which is not the ratio of the medians, 20/20."""
    first, second = measure_in_turns([timed("a", 20, 20, 40, 40, 20), timed("b", 10, 30, 20, 40, 30)], HERE, silent)
    assert (first.median_ms, second.median_ms) == (pytest.approx(20), pytest.approx(30))
    assert first.ratio == pytest.approx(1)
    assert second.ratio == pytest.approx(1.0)  # 0.5, 1.5, 0.5, 1, 1.5
    assert first.images_per_s == pytest.approx(50)
    assert (first.rounds, second.rounds) == (5, 5)
    assert first.p90_ms >= first.median_ms


@pytest.mark.usefixtures("_own_clock")
def test_a_subject_that_fails_has_a_row_and_the_next_one_is_the_reference():
    broken, whole = measure_in_turns([timed("broken"), timed("whole", 10)], HERE, silent)
    assert broken.failure == "no such provider"
    assert broken.median_ms is broken.ratio is broken.images_per_s is None
    assert whole.ratio == pytest.approx(1)


def test_if_all_fail_there_is_no_table():
    with pytest.raises(InputError, match="nothing could be measured: no such provider"):
        measure_in_turns([timed("broken")], HERE, silent)


def test_all_take_turns_in_every_round(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", (3, 3))
    order = []
    take_turns({0: lambda image: order.append("a"), 1: lambda image: order.append("b")}, np.zeros((1, 1, 1, 3), np.uint8))
    assert order == ["a", "b"] * 3


def test_fast_subjects_have_many_rounds_and_slow_ones_few():
    ticks = iter(range(10**6))
    slow = take_turns({0: lambda image: None}, np.zeros((1, 1, 1, 3), np.uint8), clock=lambda: 5.0 * next(ticks))
    assert len(slow[0]) == module.ROUNDS[0]
    ticks = iter(range(10**6))
    fast = take_turns({0: lambda image: None}, np.zeros((1, 1, 1, 3), np.uint8), clock=lambda: 0.001 * next(ticks))
    assert len(fast[0]) == module.ROUNDS[1]


def test_every_peak_is_that_of_its_subject_and_a_gpu_measures_one_at_a_time(monkeypatch):
    running, most, told = [], [], []

    def peak(subject, conditions):
        running.append(subject)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(subject)
        return float(subject.name)

    monkeypatch.setattr(module, "peak_of", peak)
    monkeypatch.setattr(module, "core_count", lambda: 8)
    subjects = {index: timed(str(10 * index)) for index in (0, 2, 3)}
    assert peaks_of(subjects, HERE, told.append) == {0: 0.0, 2: 20.0, 3: 30.0}
    assert (max(most), told) == (module.PEAKS_AT_ONCE, [1, 2, 3])
    most.clear()
    assert peaks_of(subjects, Conditions(HERE.size, 1, "cuda")) == {0: 0.0, 2: 20.0, 3: 30.0}
    assert max(most) == 1


@pytest.mark.slow
def test_the_memory_of_a_file_is_that_of_a_process_of_its_own(tmp_path):
    path = write_onnx(tmp_path / "toy.onnx")
    small = peak_of(Subject(str(path), "onnx", path, tmp_path), HERE)
    large = peak_of(Subject(str(path), "onnx", path, tmp_path), Conditions((2048, 2048), 1, "cpu"))
    assert large - small > 2048 * 2048 * 5 * 4 / 1e6 * 0.9, "the logits alone take that many MB"
