"""The teacher's own stream on the pretend GPU: both streams wait for each other, the host for neither, and the numbers stay."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.device.there import run_there

GPU = "cuda"


def races() -> list[str]:
    from segctl.runtime.side_stream import SideStream
    from tests.device.pretend import LOG

    side, images = SideStream(torch.device(GPU)), torch.ones(3, device=GPU)
    with pytest.raises(RuntimeError, match="reads what main has not made yet"), torch.cuda.stream(side.stream):
        images + 1
    LOG.clear()
    result = side.queue(lambda: images + 1, [images])
    orders = LOG.orders[:]
    assert not LOG.waits
    LOG.clear()
    assert torch.equal(result().cpu(), torch.full((3,), 2.0))
    return [*orders, "result", *LOG.orders]


def test_a_stream_that_does_not_wait_is_found_and_ours_wait_in_the_right_order(guard: Path, tmp_path: Path) -> None:
    found = run_there(guard, tmp_path, races)
    side = found[0].partition(" waits")[0]
    assert found[:6] == [
        f"{side} waits for main", f"{side} launches", f"kept for {side}", "result", f"main waits for {side}", "kept for main",
    ]  # fmt: skip


def unlike() -> list[str]:
    from segctl.runtime.side_stream import SideStream

    side, images, count = SideStream(torch.device(GPU)), torch.ones(3, device=GPU), itertools.count(1)

    def broken() -> torch.Tensor:
        if torch.cuda.current_stream() == side.stream:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images + 1

    works = (lambda: images + 1, lambda: images * next(count), broken)
    return [side.fault_of(work, [images]) for work in works]


def test_the_first_try_compares_the_two_streams(guard: Path, tmp_path: Path) -> None:
    right, other, broken = run_there(guard, tmp_path, unlike)
    assert right == ""
    assert other == "its numbers on a second stream differ by 1 of 1"
    assert broken == "it does not run on a second stream (CUDA out of memory)"


def runs(data: Path, teacher: Path, folder: Path) -> dict[str, Any]:
    """The terms of a run's steps with and without a stream for the teacher, and how its streams wait in a step."""
    from tests.device.pretend import LOG
    from tests.device.training import events_of, run_of, waits_between_reports

    found: dict[str, Any] = {}
    spec = {"preset": "toy"}
    for name, overlap, deterministic in (("behind", False, False), ("beside", True, False), ("deterministic", True, True)):
        train = {"steps": 300, "validate_every": 300, "checkpoint_every": 300, "precision": "fp32"}
        train["deterministic"] = deterministic
        run = run_of("cirkd", train=train, teacher=spec | {"overlap": overlap})
        waits = waits_between_reports(run, data, teacher, folder / name)
        # The log still holds the last two steps.
        orders = [order for order in LOG.orders if " waits for " in order]
        short = run.model_copy(update={"train": run.train.model_copy(update={"steps": 2, "validate_every": 2})})
        found[name] = (waits, orders, events_of(short, set(), data, teacher, folder / f"{name}-run", GPU))
    return found


@pytest.mark.slow
def test_a_teacher_beside_the_student_teaches_the_same_and_the_host_does_not_wait(
    guard: Path, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    found = run_there(guard, tmp_path, runs, toy_data, toy_teacher, tmp_path)
    assert [found[name][0] for name in found] == [[], [], []]
    assert found["behind"][1] == found["deterministic"][1] == []
    first, second, *more = found["beside"][1]
    assert (first.endswith("waits for main"), second.startswith("main waits for ")) == (True, True)
    assert more == [first, second]  # two steps
    assert found["beside"][2] == found["behind"][2]
