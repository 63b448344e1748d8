"""The trace of torch's profiler over a few steps: the file for Perfetto and chrome://tracing, and the memory read from it."""

import json
import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from segctl.runtime.phases import Phase

Events = Sequence[dict[str, Any]]
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
"""The categories of trace events in which a GPU works."""

CPU, CUDA = 0, 1
"""The numbers of devices in a trace."""


class Recorder:
    """torch's profiler; it records from construction until `stop`."""

    def __init__(self, device: torch.device) -> None:
        # Otherwise the library below prints to stderr, such as a complaint that a CPU has no CUDA driver.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.device = device
        self.profile = torch.profiler.profile(activities=activities, profile_memory=True)
        self.profile.start()

    def stop(self) -> bytes:
        """Stop, and return the trace as JSON."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profile.export_chrome_trace(str(path))
            return path.read_bytes()

    def abandon(self) -> None:
        """Stop without a trace."""
        self.profile.stop()


def read_events(trace: bytes) -> list[dict[str, Any]]:
    """The events of a trace, sorted by start time; times in microseconds."""
    return sorted((event for event in json.loads(trace)["traceEvents"] if "ts" in event), key=lambda event: float(event["ts"]))


def peak_mb_by_phase(events: Events, device: int) -> dict[Phase, float]:
    """The peak memory of tensors in each phase of the last step, in MB above what was allocated before that step.

    The host allocates memory, so the host's times of a phase are right for a GPU too. Memory that a library takes without
    torch's allocator is not counted.  device: CPU or CUDA.
    """
    levels = [
        (float(event["ts"]), event["args"])
        for event in events
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == device
    ]
    if not levels:
        return {}
    times = [at for at, _ in levels]
    totals = [about["Total Allocated"] for _, about in levels]
    start = _last_step(events)
    before = bisect_left(times, start)
    ground = totals[before - 1] if before else totals[0] - levels[0][1]["Bytes"]
    found: dict[Phase, float] = {}
    for event in events:
        if _is_phase(event) and float(event["ts"]) >= start:
            first, last = bisect_left(times, float(event["ts"])), bisect_right(times, _end(event))
            peak = max([totals[first - 1] if first else ground, *totals[first:last]])
            found[event["name"]] = max(found.get(event["name"], 0.0), (peak - ground) / 1e6)
    return found


def busy_s(events: Events) -> float:
    """Seconds in which the GPU computed or copied anything: the union of its kernels and copies."""
    busy, until = 0.0, float("-inf")
    for event in events:
        if event.get("cat") in ON_DEVICE:
            busy += max(0.0, _end(event) - max(until, float(event["ts"])))
            until = max(until, _end(event))
    return busy / 1e6


def _last_step(events: Events) -> float:
    """When the last step began, in microseconds: at the end of the previous step's optimiser phase."""
    ends = [_end(event) for event in events if _is_phase(event) and event["name"] == "optimiser"]
    return ends[-2] if len(ends) > 1 else float("-inf")


def _is_phase(event: dict[str, Any]) -> bool:
    return event.get("cat") == "user_annotation" and event["name"] in get_args(Phase)


def _end(event: dict[str, Any]) -> float:
    return float(event["ts"]) + float(event["dur"])
