"""Losses and times of the steps since the last report, read from the device only when a report is due."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from segctl.data.batches.loader import Batch
from segctl.errors import SegctlError
from segctl.runtime.cores import core_count
from segctl.runtime.device import peak_memory_mb
from segctl.runtime.phases import Moment, moment, phase, seconds
from segctl.runtime.world import World
from segctl.train.loader_advice import Feeding
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Session

HUNGRY = 0.25
"""Share of a step spent waiting for its batch from which on a person should know."""

SAMPLES_NAMED = 8

REPORTS = 100
"""About how many reports a run makes, one every 20 steps at the least often."""


class Alarm:
    """Goes off after so many seconds, by the first clock to reach them, on all processes at one step."""

    def __init__(self, seconds: float, world: World) -> None:
        self.seconds, self.world = seconds, world
        self.restart()

    def restart(self) -> None:
        """Wait for the whole time again."""
        self.began = time.perf_counter()

    def __call__(self) -> bool:
        """Whether the time is over."""
        mine = time.perf_counter() - self.began >= self.seconds
        return bool(self.world.largest(torch.tensor(int(mine))))


class Meter:
    """Sums a run's loss terms and times between reports."""

    def __init__(self, session: Session, log: RunLog) -> None:
        self.session, self.log = session, log
        self.every = max(1, min(20, session.run.train.steps // REPORTS))
        self.warned = False
        self.restart()

    def restart(self) -> None:
        """Begin a new interval now."""
        self.taken: list[tuple[dict[str, Tensor], list[str]]] = []
        self.norm: Tensor | None = None
        self.waits: list[tuple[Moment, Moment]] = []
        self.made = 0.0
        self.began = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here, such as a validation, is no step's time."""
        before = time.perf_counter()
        yield
        self.began += time.perf_counter() - before

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the time that the device waits for them noted."""
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
        """Note one step's weighted terms and its gradients' norm (scalars on the device), and the samples it was taken on."""
        self.taken.append((terms, names))
        self.norm = gradient_norm

    def report_when_due(self) -> None:
        """Report and begin a new interval, every few steps and at the last. Raises SegctlError where the loss is no number."""
        step, train = self.session.state.step, self.session.run.train
        if step % self.every and step != train.steps:
            return
        terms, count = self.means(), len(self.taken)
        seconds = (time.perf_counter() - self.began) / count
        report = StepReport(
            step=step,
            loss=sum(terms.values()),
            terms=terms,
            lr=self.session.state.optimizer.param_groups[0]["lr"],
            gradient_norm=float(self.norm) if self.norm is not None else 0.0,
            data_s=self._waited() / count,
            step_s=seconds,
            left_s=seconds * (train.steps - step),
            images_per_s=train.batch_size / seconds,
            memory_mb=peak_memory_mb(self.session.compute.device),
        )
        self.log.stepped(report)
        self._warn_of_hunger(report, self.made / count)
        self.restart()

    def means(self) -> dict[str, float]:
        """Mean of every term over the interval, summed over the processes. Raises SegctlError where one is not finite."""
        steps = torch.stack([torch.stack(list(terms.values())) for terms, _ in self.taken]).detach().double().cpu()
        summed = self.session.world.total(steps)
        names = list(self.taken[0][0])
        broken = (~summed.isfinite()).nonzero()
        if len(broken):
            raise self._diverged(int(broken[0, 0]), names[int(broken[0, 1])])
        return dict(zip(names, summed.mean(0).tolist(), strict=True))

    def _diverged(self, index: int, term: str) -> SegctlError:
        """Which step it was, on which samples, and what can be taken up again."""
        step = self.session.state.step - len(self.taken) + index + 1
        samples = ", ".join(self.taken[index][1][:SAMPLES_NAMED])
        return SegctlError(
            f"the loss is no longer a number at step {step} ({term}), on samples {samples}",
            "last.pt holds an earlier state, if one was saved; try a lower --set optim.lr, --set train.clip_norm=1 or "
            "--set train.precision=fp32",
        )

    def _waited(self) -> float:
        """Seconds of the interval in which steps waited for data, of the process that waited longest: the others waited for it.

        `means` has read this interval's last step from the device, so all its moments have been reached.
        """
        mine = sum(seconds(before, after) for before, after in self.waits)
        return float(self.session.world.largest(torch.tensor(mine, dtype=torch.float64)))

    def _warn_of_hunger(self, report: StepReport, made_s: float) -> None:
        """Say once that steps wait for their data, and what would do; made_s is what a loader process needs for a batch.

        The first interval fills the queue.
        """
        waits = report.data_s / report.step_s
        if self.warned or report.step <= self.every or waits < HUNGRY:
            return
        self.warned = True
        feeding = feeding_of(self.session, made_s, report.data_s, report.step_s)
        self.log.note(
            f"steps wait for data {100 * waits:.0f} % of their time with {feeding.workers} loader workers; {feeding.advice()}"
        )


def feeding_of(session: Session, made_s: float, waited_s: float, step_s: float) -> Feeding:
    """How this process's loader keeps up, by its seconds a step."""
    cores, codec = max(1, core_count() // session.world.local_size), session.dataset.provenance.codec
    return Feeding(made_s, waited_s, step_s, session.workers, cores, codec)
