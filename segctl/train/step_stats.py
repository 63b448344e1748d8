"""Losses and times of the steps since the last report, read from the device only when a report is due."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from segctl.data.batches.loader import Batch
from segctl.errors import SegctlError
from segctl.runtime.cores import core_count
from segctl.runtime.memory import peak_memory_mb
from segctl.runtime.phases import Moment, moment, phase, seconds
from segctl.runtime.world import World
from segctl.train.optimizer import reported_rate
from segctl.train.profile.loader_advice import Feeding
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Session

WAITING_TOO_LONG = 0.25
"""Warn when a step spends at least this fraction of its time waiting for data."""

SAMPLES_NAMED = 8
"""How many samples the message about a diverged loss lists."""

REPORTS = 100
"""About how many reports a run makes; at least one every 20 steps."""


class Alarm:
    """Goes off when `seconds` have passed on any process, on all processes at the same step."""

    def __init__(self, seconds: float, world: World) -> None:
        self.seconds, self.world = seconds, world
        self.restart()

    def restart(self) -> None:
        """Start counting from now."""
        self.began = time.perf_counter()

    def __call__(self) -> bool:
        """Whether the time has passed. Every process must call this at the same steps."""
        mine = time.perf_counter() - self.began >= self.seconds
        return bool(self.world.largest(torch.tensor(int(mine))))


class StepStats:
    """Collects a run's loss terms and times between reports."""

    def __init__(self, session: Session, log: RunLog) -> None:
        self.session, self.log = session, log
        self.every = max(1, min(20, session.run.train.steps // REPORTS))
        self.warned = False
        self.restart()

    def restart(self) -> None:
        """Start a new interval now."""
        self.taken: list[tuple[dict[str, Tensor], list[str]]] = []
        self.norm: Tensor | None = None
        self.waits: list[tuple[Moment, Moment]] = []
        self.made = 0.0
        self.began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time in this context, such as that of a validation."""
        before = time.perf_counter()
        yield
        self.began += time.perf_counter() - before

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the time that the device waits for each is recorded."""
        iterator, device = iter(batches), self.session.compute.device
        while True:
            before = moment(device)
            with phase("data"):
                batch = next(iterator, None)
            if batch is None:
                return
            self.waits.append((before, moment(device)))
            self.made += batch.made_s
            yield batch

    def add(self, terms: dict[str, Tensor], gradient_norm: Tensor, names: list[str]) -> None:
        """Record one step's weighted terms and gradient norm (scalars on the device), and the names of its samples."""
        self.taken.append((terms, names))
        self.norm = gradient_norm

    def report_when_due(self) -> None:
        """Report and start a new interval, every few steps and at the last one.

        Raises SegctlError if the loss is NaN or infinite.
        """
        step, train = self.session.state.step, self.session.run.train
        if step % self.every and step != train.steps:
            return
        terms, count = self.means(), len(self.taken)
        seconds = (time.perf_counter() - self.began) / count
        report = StepReport(
            step=step,
            loss=sum(terms.values()),
            terms=terms,
            lr=reported_rate(self.session.state.optimizer),
            gradient_norm=float(self.norm) if self.norm is not None else 0.0,
            data_s=self._waited() / count,
            step_s=seconds,
            left_s=seconds * (train.steps - step),
            images_per_s=train.batch_size / seconds,
            memory_mb=peak_memory_mb(self.session.compute.device),
            skipped=self.session.state.count_skips(),
        )
        self.log.stepped(report)
        self._warn_of_slow_loader(report, self.made / count)
        self.restart()

    def means(self) -> dict[str, float]:
        """The mean of every term over the interval, summed over the processes. Raises SegctlError if one is NaN or infinite."""
        # First to the CPU: an Apple GPU has no float64.
        steps = torch.stack([torch.stack(list(terms.values())) for terms, _ in self.taken]).detach().cpu().double()
        summed = self.session.world.total(steps)
        names = list(self.taken[0][0])
        broken = (~summed.isfinite()).nonzero()
        if len(broken):
            raise self._diverged(int(broken[0, 0]), names[int(broken[0, 1])])
        return dict(zip(names, summed.mean(0).tolist(), strict=True))

    def _diverged(self, index: int, term: str) -> SegctlError:
        """The error for a loss that is NaN or infinite: at which step, on which samples, and what to try."""
        step = self.session.state.step - len(self.taken) + index + 1
        samples = ", ".join(self.taken[index][1][:SAMPLES_NAMED])
        return SegctlError(
            f"the loss is NaN or infinite at step {step} ({term}), on samples {samples}",
            "last.pt holds an earlier state, if one was saved: resume with a lower --set optim.lr, --set train.clip_norm=1 or "
            "--set train.precision=fp32; if that state is lost too, start a new run with them",
        )

    def _waited(self) -> float:
        """Seconds of the interval that steps waited for data, on the process that waited longest: the others waited for it.

        Call `means` first: it reads the interval's last step from the device, so the device has reached all moments.
        """
        mine = sum(seconds(before, after) for before, after in self.waits)
        return float(self.session.world.largest(torch.tensor(mine, dtype=torch.float64)))

    def _warn_of_slow_loader(self, report: StepReport, made_s: float) -> None:
        """Note once that steps wait for data, and how to avoid that; made_s: seconds that a loader process needs for a batch."""
        waits = report.data_s / report.step_s
        # In the first interval the loader fills its queue.
        if self.warned or report.step <= self.every or waits < WAITING_TOO_LONG:
            return
        self.warned = True
        feeding = feeding_of(self.session, made_s, report.data_s, report.step_s)
        self.log.note(
            f"steps spend {100 * waits:.0f} % of their time waiting for data with {feeding.workers} loader workers; "
            f"{feeding.advice()}"
        )


def feeding_of(session: Session, made_s: float, waited_s: float, step_s: float) -> Feeding:
    """How well this process's loader keeps up; times in seconds per step."""
    cores, codec = max(1, core_count() // session.world.local_size), session.dataset.provenance.codec
    return Feeding(made_s, waited_s, step_s, session.workers, cores, codec)
