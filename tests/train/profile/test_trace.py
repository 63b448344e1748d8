"""What a trace says: memory by phase, and how long a GPU was busy."""

import json
from typing import Any

import pytest
import torch

from segctl.runtime.phases import Clock, hold, phase
from segctl.train.profile.trace import CPU, Recorder, busy_s, peak_mb_by_phase, read_events


def mark(name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"cat": "user_annotation", "name": name, "ts": ts, "dur": dur}


def memory(ts: float, change: int, total: int, device: int = 0) -> dict[str, Any]:
    return {
        "name": "[memory]",
        "ts": ts,
        "args": {"Device Type": device, "Bytes": change * 10**6, "Total Allocated": total * 10**6},
    }


TWO_STEPS = [
    mark("student", 0, 10), memory(1, 5, 105), memory(2, 900, 1005), memory(3, -900, 105), mark("optimiser", 20, 5),
    mark("student", 30, 10), memory(31, 7, 112), memory(32, 3, 115), memory(33, 400, 400, device=1),
    mark("loss", 45, 5), mark("backward", 60, 10), memory(61, 20, 135), memory(62, -25, 110), mark("optimiser", 80, 5),
]  # fmt: skip


def test_memory_is_the_last_steps_above_what_lay_there_before_it() -> None:
    # Before the last step 105 MB; the loss asks for nothing, so the student's 115 MB are what it sees.
    assert peak_mb_by_phase(TWO_STEPS, 0) == {"student": 10.0, "loss": 10.0, "backward": 30.0, "optimiser": 5.0}


def test_the_only_step_is_measured_from_before_its_first_tensor() -> None:
    assert peak_mb_by_phase(TWO_STEPS[:5], 0) == {"student": 905.0, "optimiser": 5.0}


def test_other_devices_memory_does_not_count() -> None:
    assert peak_mb_by_phase(TWO_STEPS, 1)["student"] == 400.0
    assert peak_mb_by_phase([mark("student", 0, 10)], 0) == {}


def test_a_gpu_is_busy_while_any_of_its_streams_is() -> None:
    kernels = [("kernel", 0, 10), ("gpu_memcpy", 5, 10), ("cpu_op", 20, 100), ("kernel", 6, 2), ("gpu_memset", 40, 5)]
    events = [{"cat": category, "name": "x", "ts": ts, "dur": dur} for category, ts, dur in sorted(kernels, key=lambda k: k[1])]
    assert busy_s(events) == pytest.approx(20e-6)


def test_torchs_trace_has_the_phases_by_name_and_the_memory_they_take() -> None:
    recorder = Recorder(torch.device("cpu"))
    hold(Clock(torch.device("cpu"), named=True))
    with phase("student"):
        kept = torch.ones(250_000)
    with phase("loss"):
        kept = kept.new_zeros(1)
    hold(None)
    events = read_events(recorder.stop())
    found = peak_mb_by_phase(events, CPU)
    assert found["student"] == pytest.approx(1.0, abs=0.01)
    assert found.keys() == {"student", "loss"}
    assert any(event["name"] == "aten::ones" for event in events)


def test_events_come_in_the_order_of_their_beginning() -> None:
    trace = {"traceEvents": [mark("b", 2, 1), {"name": "process_name"}, mark("a", 1, 5)]}
    assert [event["name"] for event in read_events(json.dumps(trace).encode())] == ["a", "b"]
