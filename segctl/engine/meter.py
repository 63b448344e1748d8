"""Losses and times of the steps since the last report, read from the device only when a report is due."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from segctl.data.loader import Batch
from segctl.engine.device import peak_memory_mb
from segctl.engine.setup import Session
from segctl.engine.watch import RunLog, StepReport
from segctl.errors import SegctlError

REPORTS = 100
"""About how many reports a run makes, one every 20 steps at the least often."""


class Meter:
    """Sums a run's loss terms and times between reports."""

    def __init__(self, session: Session, log: RunLog) -> None:
        self.session, self.log = session, log
        self.every = max(1, min(20, session.run.train.steps // REPORTS))
        self.restart()

    def restart(self) -> None:
        """Begin a new interval now."""
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.waited = 0.0
        self.began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here, such as a validation, is no step's time."""
        before = time.perf_counter()
        yield
        self.began += time.perf_counter() - before

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the time spent waiting for them noted."""
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def add(self, terms: dict[str, Tensor]) -> None:
        """Note one step's weighted terms (scalars on the device)."""
        self.sums = {name: self.sums.get(name, 0) + value for name, value in terms.items()}
        self.steps += 1

    def report_when_due(self) -> None:
        """Report and begin a new interval, every few steps and at the last. Raises SegctlError where the loss is no number."""
        step, train = self.session.state.step, self.session.run.train
        if step % self.every and step != train.steps:
            return
        terms = self.means()
        seconds = (time.perf_counter() - self.began) / self.steps
        report = StepReport(
            step=step,
            loss=sum(terms.values()),
            terms=terms,
            lr=self.session.state.optimizer.param_groups[0]["lr"],
            data_s=self.waited / self.steps,
            step_s=seconds,
            images_per_s=train.batch_size / seconds,
            memory_mb=peak_memory_mb(self.session.compute.device),
        )
        self.log.stepped(report)
        self.restart()

    def means(self) -> dict[str, float]:
        """Mean of every term over the interval and sum over the processes. Raises SegctlError where one is not finite."""
        sums = self.session.world.total(torch.stack([value.detach().double().cpu() for value in self.sums.values()]))
        terms = {name: value / self.steps for name, value in zip(self.sums, sums.tolist(), strict=True)}
        broken = [name for name, value in terms.items() if not math.isfinite(value)]
        if broken:
            raise SegctlError(
                f"the loss is no longer a number near step {self.session.state.step} ({', '.join(broken)})",
                "last.pt holds the state before that; try a lower --set optim.lr or --set train.precision=fp32",
            )
        return terms
