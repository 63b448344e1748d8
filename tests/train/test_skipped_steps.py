"""fp16: a step whose gradients are infinite is skipped, and a skipped step is not a taken one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import Silent, TwoLayers, toy_run

from segctl.models.moving_average import MovingAverage
from segctl.runs import RunFolder
from segctl.runtime.world import World
from segctl.train.build import build_session
from segctl.train.checkpoint import Best, State, read_checkpoint
from segctl.train.loop import fit
from segctl.train.optimizer import build_optimizer, learning_rate
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Request, Session


def state() -> State:
    torch.manual_seed(0)
    net = TwoLayers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return State(torch.device("cpu"), net, optimizer, None, scaler, MovingAverage(net, 0.5), step=0, validated=0, best=Best())


def take(state: State, *, overflows: bool) -> None:
    state.clear_gradients()
    loss = sum(weight.square().sum() for weight in state.task.parameters())
    state.scaler.scale(loss * (math.inf if overflows else 1.0)).backward()
    norm = state.apply_gradients(None)
    state.update_average(state.task, norm)
    state.step += 1


def test_a_skipped_step_changes_neither_weights_nor_average_nor_the_schedule(tmp_path: Path) -> None:
    found = state()
    take(found, overflows=False)
    before = [each.clone() for module in (found.task, found.average) for each in module.state_dict().values()]
    take(found, overflows=True)
    after = [each for module in (found.task, found.average) for each in module.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert found.scaler.get_scale() == 2.0
    assert (found.step, found.skipped, found.scheduled) == (2, 0, 2)  # only the device knows so far
    assert found.count_skips() == 1
    assert (found.step, found.skipped, found.scheduled) == (2, 1, 1)
    assert found.count_skips() == 0


def test_momentum_begins_at_zero_if_the_first_step_is_skipped() -> None:
    """torch's fused kernel would begin with whatever the memory held."""
    torch.manual_seed(0)
    fused, plain = TwoLayers(), TwoLayers()
    plain.load_state_dict(fused.state_dict())
    spec = toy_run().optim
    optimizers = [build_optimizer(spec, net, net.backbone, fused=net is fused) for net in (fused, plain)]
    assert all(buffer["momentum_buffer"].count_nonzero() == 0 for buffer in optimizers[0].state.values())
    assert len(optimizers[0].state) == len(list(fused.parameters()))
    optimizers[0].found_inf = torch.ones(())
    for step in range(3):
        for net, optimizer in zip((fused, plain), optimizers, strict=True):
            for weight in net.parameters():
                weight.grad = weight.detach().clone()
            if step or net is fused:
                optimizer.step()
        optimizers[0].found_inf = None
    for mine, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_a_checkpoint_keeps_what_was_reported_apart_from_what_was_not(tmp_path: Path) -> None:
    """Else a resumed run would follow the schedule from another step than one that was never stopped."""
    found, again = state(), state()
    for overflows in (True, False, True):
        take(found, overflows=overflows)
    found.skipped = 1
    about = {"run": "toy", "dataset": "0", "teacher": None, "settings": None}
    found.save(tmp_path / "last.pt", about, World())
    again.load(read_checkpoint(tmp_path / "last.pt"), tmp_path / "last.pt", World())
    assert (again.skipped, again.scheduled) == (found.skipped, found.scheduled) == (1, 2)
    assert again.count_skips() == 1


def test_how_weights_are_updated_is_this_start_s_choice(tmp_path: Path) -> None:
    found, again = state(), state()
    for group in found.optimizer.param_groups:
        group["fused"] = None  # as an earlier version, or another precision, saved it
    found.save(tmp_path / "last.pt", {"run": "toy", "dataset": "0", "teacher": None}, World())
    again.load(read_checkpoint(tmp_path / "last.pt"), tmp_path / "last.pt", World())
    assert [group["fused"] for group in again.optimizer.param_groups] == [True]


@pytest.fixture
def overflowing(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose gradients are infinite in its steps 2 and 3."""
    session = build_session(Request(toy_run(train={"steps": 5, "ema": 0.9}), toy_data, tmp_path, device="cpu"))
    session.state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    unscale, calls = session.state.scaler.unscale_, iter(range(100))

    def spoilt(optimizer: torch.optim.Optimizer) -> None:
        if next(calls) in (1, 2):
            optimizer.param_groups[0]["params"][0].grad.fill_(math.inf)
        unscale(optimizer)

    monkeypatch.setattr(session.state.scaler, "unscale_", spoilt)
    return session


def test_the_log_counts_skipped_steps_and_stays_json(overflowing: Session, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    fit(overflowing, folder, RunLog(folder, 5, Silent()))
    text = folder.log.read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    steps = [event for event in map(json.loads, text.splitlines()) if event["event"] == "step"]
    assert [event["skipped"] for event in steps] == [0, 1, 1, 0, 0]
    assert [event["gradient_norm"] is None for event in steps] == [False, True, True, False, False]
    run = overflowing.run
    rates = [learning_rate(run.schedule, run.optim.lr, step, 5) for step in (0, 1, 1, 1, 2)]
    assert [event["lr"] for event in steps] == pytest.approx(rates)
    assert "1 steps skipped (fp16)" in folder.train_log.read_text()
    assert overflowing.state.average is not None
    assert overflowing.state.average.n_averaged == 3


def test_no_event_is_ever_invalid_json(tmp_path: Path) -> None:
    log = RunLog(RunFolder(tmp_path), 10, Silent())
    log.event("validation", {"step": 1, "scores": {"mIoU_D": math.nan, "mIoU_I": 1.0}})
    log.event("step", {"step": 2, "loss": -math.inf, "terms": {"a": [math.inf, 2.0]}})
    found = [json.loads(line, parse_constant=pytest.fail) for line in RunFolder(tmp_path).log.read_text().splitlines()]
    assert found[0]["scores"] == {"mIoU_D": None, "mIoU_I": 1.0}
    assert (found[1]["loss"], found[1]["terms"]) == (None, {"a": [None, 2.0]})


def test_a_report_without_skips_does_not_speak_of_them() -> None:
    report = StepReport(1, 1.0, {"a": 1.0}, 0.1, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0)
    assert "skipped" not in report.line(10)
    assert report.line(10) + "   3 steps skipped (fp16)" == replace(report, skipped=3).line(10)
