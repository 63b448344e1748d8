import os

import pytest

from segctl.runtime import cores
from segctl.runtime.cores import core_count, default_workers, share_of_threads, waiting_threads


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= core_count() <= (os.cpu_count() or 1)


def test_workers_are_a_share_of_the_cores():
    assert default_workers(10**6) == 1
    assert 1 <= default_workers() <= 8


def test_processes_that_train_at_once_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "core_count", lambda: 6)
    assert share_of_threads(1) == {}
    assert share_of_threads(4) == {"OMP_NUM_THREADS": "1"}
    assert share_of_threads(2) == {"OMP_NUM_THREADS": "3"}
    assert share_of_threads(9) == {"OMP_NUM_THREADS": "1"}


def test_a_number_of_threads_that_somebody_gave_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert share_of_threads(2) == {}


def test_how_threads_wait_is_set_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert set(waiting_threads()) == {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert waiting_threads() == {}
