"""What a run says of its steps: which one went wrong, on what, how long it takes, and when it waits for data."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import Silent, toy_run

from segctl.data.batches.loader import Batch
from segctl.errors import SegctlError
from segctl.runs import RunFolder
from segctl.runtime.world import World
from segctl.train import step_stats as meters
from segctl.train.build import build_session
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Request, Session
from segctl.train.step_stats import Alarm, StepStats

REPORT = StepReport(
    step=20, loss=1.5, terms={"jdt_main": 1.5}, lr=0.1, gradient_norm=2.0, data_s=0.0, step_s=1.0, left_s=180.0,
    images_per_s=8.0, memory_mb=100.0,
)  # fmt: skip

SLOW_LOADER = "steps spend 75 % of their time waiting for data with 1 loader workers; about 4 suffice: --set data.workers=4"


@pytest.fixture
def session(toy_data: Path) -> Session:
    return build_session(Request(toy_run(train={"steps": 400}), toy_data, toy_data))


@pytest.fixture
def watch() -> Silent:
    return Silent()


@pytest.fixture
def meter(session: Session, watch: Silent, tmp_path: Path) -> StepStats:
    return StepStats(session, RunLog(RunFolder(tmp_path), 400, watch))


def test_terms_are_means_over_the_interval(meter: StepStats) -> None:
    for value in (1.0, 2.0, 6.0):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)}, torch.tensor(1.0), ["x"])
    assert meter.means() == {"a": 3.0, "b": -3.0}


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_diverged_loss_names_the_step_the_term_and_the_samples(meter: StepStats, broken: float) -> None:
    for index, value in enumerate((1.0, broken, float("nan"))):
        meter.session.state.step += 1
        meter.add({"a": torch.tensor(1.0), "b": torch.tensor(value)}, torch.tensor(1.0), [f"image {index}", "other"])
    with pytest.raises(SegctlError) as error:
        meter.means()
    assert error.value.message == "the loss is NaN or infinite at step 2 (b), on samples image 1, other"


def test_a_slow_loader_is_noted_once_with_the_workers_that_suffice(
    meter: StepStats, watch: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 1 s, of which it waits for its batch as told; with one worker a batch takes 1 s: four keep up with 0.25 s."""
    clock = [0.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(meters, "core_count", lambda: 16)
    meter.restart()
    meter.every, meter.session.workers = 1, 1

    def take_steps(*waits: float) -> None:
        def batches() -> Iterator[Batch]:
            for wait in waits:
                clock[0] += wait
                yield Batch(torch.zeros(0), torch.zeros(0), ["x"], made_s=1.0)

        for wait, batch in zip(waits, meter.timed(batches()), strict=False):
            clock[0] += 1.0 - wait
            meter.add({"a": torch.tensor(1.0)}, torch.tensor(1.0), batch.names)
            meter.session.state.step += 1
            meter.report_when_due()

    take_steps(0.75, 0.1)  # the first interval fills the queue
    assert watch.notes == []
    take_steps(0.75, 0.75)
    assert watch.notes == [SLOW_LOADER]


def test_time_spent_waiting_is_that_of_the_batches_of_the_interval(
    meter: StepStats, watch: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(meters, "core_count", lambda: 16)
    meter.restart()
    meter.every, meter.session.workers = 2, 1

    def slow() -> Iterator[Batch]:
        for index in range(4):
            clock[0] += 3.0
            yield Batch(torch.zeros(0), torch.zeros(0), [f"{index}"], made_s=3.5)

    for batch in meter.timed(slow()):
        clock[0] += 1.0
        meter.add({"a": torch.tensor(1.0)}, torch.tensor(1.0), batch.names)
        meter.session.state.step += 1
        meter.report_when_due()
        with meter.paused():
            clock[0] += 50.0
    reports = [event for event in meter.log.folder.read_log() if event["event"] == "step"]
    assert [(event["step"], event["data_s"], event["step_s"]) for event in reports] == [(2, 3.0, 4.0), (4, 3.0, 4.0)]
    assert watch.notes == [SLOW_LOADER]


@pytest.mark.parametrize(("seconds", "shown"), [(56.4, "56 s left"), (720.0, "12 min left"), (11_100.0, "3 h 05 min left")])
def test_a_line_says_how_much_time_is_left(seconds: float, shown: str) -> None:
    assert replace(REPORT, left_s=seconds).line(200).endswith(f"1.00 s/step   {shown}")
    assert replace(REPORT, step=200, left_s=0.0).line(200).endswith("1.00 s/step")


def test_an_alarm_goes_off_after_its_time_and_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
    alarm = Alarm(60.0, World())
    clock[0] = 59.0
    assert not alarm()
    clock[0] = 60.0
    assert alarm()
    alarm.restart()
    clock[0] = 100.0
    assert not alarm()
