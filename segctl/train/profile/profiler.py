"""Measure the steps of a run that `--profile` covers, in the main process; training continues unchanged afterwards."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch

from segctl.data.batches.loader import Batch
from segctl.files import write_json, write_text, write_whole
from segctl.runs import RunFolder
from segctl.runtime.phases import Clock, Phase, hold
from segctl.train.profile.summary import COLUMNS, LABELS, Profile, Window, advice
from segctl.train.profile.trace import CPU, CUDA, Recorder, busy_s, peak_mb_by_phase, read_events
from segctl.train.run_log import RunLog, Watch
from segctl.train.session import Session
from segctl.train.step_stats import feeding_of

Keep = Callable[[Profile, bytes], None]


class Profiler:
    """Measures the steps of a window, and then calls `keep` once with the profile and the trace.

    Use it as a context: at its end the profiler is released, and `unfinished` is called if the window was not complete.
    """

    def __init__(self, session: Session, window: Window, keep: Keep, unfinished: Callable[[str], None]) -> None:
        self.session, self.window, self.keep, self.unfinished = session, window, keep, unfinished
        self.steps = 0
        self.made: list[float] = []
        self.clock: Clock | None = None
        self.recorder: Recorder | None = None

    def __enter__(self) -> Self:
        self._turn()
        return self

    def __exit__(self, *error: object) -> None:
        hold(None)
        if self.recorder is not None:
            self.recorder.abandon()
            self.recorder = None
        if self.steps < self.window.total:
            self.unfinished(f"no profile: it needs {self.window.total} steps, and the run ended after {self.steps}")

    @property
    def done(self) -> bool:
        return self.steps >= self.window.total

    def step_taken(self, batch: Batch) -> None:
        """Record that a step on this batch is over. The time of this call does not count for any step."""
        if self.done:
            return
        self.steps += 1
        if self.clock is not None and self.recorder is None:
            self.clock.next_step()
            self.made.append(batch.made_s)
        self._turn()

    def _turn(self) -> None:
        """Start or stop measuring, between two steps."""
        device, window = self.session.compute.device, self.window
        if self.steps == window.warmup:
            self.clock = Clock(device)
            hold(self.clock)
        if self.steps == window.warmup + window.timed:
            self.recorder = Recorder(device)
            hold(Clock(device, named=True))
        if self.steps == window.total and self.recorder is not None and self.clock is not None:
            hold(None)
            trace, self.recorder = self.recorder.stop(), None
            self.keep(self._profile(self.clock.spent(), trace), trace)

    def _profile(self, steps: list[dict[Phase, float]], trace: bytes) -> Profile:
        session, events = self.session, read_events(trace)
        on_gpu = session.compute.device.type == "cuda"
        totals = [sum(step.values()) for step in steps]
        means = {name: sum(step.get(name, 0.0) for step in steps) / len(steps) for name in LABELS}
        if session.world.size == 1:
            means["other"] += means["peers"]
        phases = {
            name: spent
            for name, spent in means.items()
            if any(name in step for step in steps) and (name != "peers" or session.world.size > 1)
        }
        feeding = feeding_of(session, sum(self.made) / len(self.made), means["data"], sum(totals) / len(totals))
        return Profile(
            device=torch.cuda.get_device_name(session.compute.device) if on_gpu else "cpu",
            precision=session.compute.precision,
            batch_size=session.run.train.batch_size,
            processes=session.world.size,
            window=self.window,
            phases=phases,
            step_s=feeding.step_s,
            fastest_step_s=min(totals),
            slowest_step_s=max(totals),
            peak_mb=peak_mb_by_phase(events, CUDA if on_gpu else CPU),
            feeding=feeding,
            busy_s=busy_s(events) / self.window.traced if on_gpu else None,
        )


def show_profile(profile: Profile, watch: Watch) -> None:
    """Show the table of phases, and the advice."""
    watch.table(profile.title(), COLUMNS, profile.rows(), profile.notes())
    watch.note(f"profile: {advice(profile)}")


def profiler_of_run(session: Session, window: Window, folder: RunFolder, log: RunLog) -> Profiler:
    """A profiler that shows its profile and writes it into the run's folder; for the main process."""

    def keep(profile: Profile, trace: bytes) -> None:
        _write_profile(folder, profile, trace)
        show_profile(profile, log.watch)
        readable = folder.profile.with_suffix(".md")
        log.note(f"profile saved in '{readable}'; ui.perfetto.dev and chrome://tracing open '{folder.trace}'")

    return Profiler(session, window, keep, log.note)


def _write_profile(folder: RunFolder, profile: Profile, trace: bytes) -> None:
    """Write profile.json, profile.md and trace.json.gz into the run's folder, over earlier ones."""
    write_whole(folder.trace, lambda partial: _write(partial, gzip.compress(trace, 6)))
    write_json(folder.profile, profile.content())
    write_text(folder.profile.with_suffix(".md"), profile.markdown())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
