"""Batches from a prepared dataset: the same ones with any number of workers and processes, and after any resume.

The stream of samples is one permutation of the split per epoch, end to end; step s takes the positions s·B to s·B + B - 1.
The permutation depends on (seed, epoch) alone, a view on (seed, epoch, sample index) alone. Pictures without labels that are
mixed in (data.unlabelled) are a second stream with random numbers of its own; they stand behind the others in a batch.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import current_thread, main_thread
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segctl.data.batches.ratings import Ratings, open_ballots
from segctl.data.batches.strong_views import StrongViews, Weak, strong_views
from segctl.data.batches.teacher_outputs import TeacherOutputs
from segctl.data.batches.views import NO_LABEL, TrainingNames, Views, padding_of
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError, SegctlError
from segctl.ignored import IGNORED
from segctl.schema.data import DataSpec
from segctl.schema.semi import SemiBase

GRACE_S = 5
_MIXED_IN = 2**63
"""The first seed of the second stream: larger than any seed of a run."""
_STRONG = 2**63 + 1
"""The first seed of strong views."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """images (B, H, W, bands) of the dataset's type; labels uint8 (B, H, W), 255 ignored; names of the samples; seconds that
    making it took."""

    images: Tensor
    labels: Tensor
    names: list[str]
    made_s: float = 0.0
    teacher_outputs: dict[str, Tensor] = field(default_factory=dict)
    """The cached maps (B, D, h, w) of the teacher's output by name; empty for a run without teacher cache."""
    unlabelled: Tensor | None = None
    """bool (B, H, W): the real pixels of pictures without label, whose `labels` are 255 as those of ignored pixels and of padding
    are. None for a run whose pictures all have labels."""
    strong: StrongViews | None = None
    """The strong views of the last pictures, those that data.unlabelled mixes in; None for a run that is not semi-supervised."""
    ratings: Ratings | None = None
    """What each of several raters said, whose majority `labels` are; None for a run that reads single label maps."""

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which it can be copied to the device in the background."""
        outputs = {name: maps.pin_memory() for name, maps in self.teacher_outputs.items()}
        unlabelled = None if self.unlabelled is None else self.unlabelled.pin_memory()
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            teacher_outputs=outputs,
            unlabelled=unlabelled,
            strong=None if self.strong is None else self.strong.pin_memory(),
            ratings=None if self.ratings is None else self.ratings.pin_memory(),
        )


@dataclass(frozen=True)
class Sample:
    """A whole image at its own size: image (H, W, bands) of the dataset's type; label uint8 (H, W), 255 ignored."""

    name: str
    image: Tensor
    label: Tensor

    def pin_memory(self) -> "Sample":
        """The sample in page-locked memory."""
        return Sample(self.name, self.image.pin_memory(), self.label.pin_memory())


@dataclass(frozen=True)
class Stream:
    """The samples of each step. Of a global batch, a process takes the positions i with i % size == rank."""

    length: int
    batch_size: int
    seed: int
    rank: int = 0
    size: int = 1
    mixed_in: bool = False
    """Whether this is the second stream of a run, which must not repeat the draws of the first."""

    def positions(self, step: int) -> list[int]:
        first = step * self.batch_size
        return list(range(first + self.rank, first + self.batch_size, self.size))

    def at(self, position: int) -> tuple[int, int]:
        """(epoch, sample index) of a position."""
        epoch, offset = divmod(position, self.length)
        return epoch, int(_order(self._seeds(epoch), self.length)[offset])

    def random(self, epoch: int, index: int) -> np.random.Generator:
        """The randomness of one sample in one epoch."""
        return np.random.default_rng([*self._seeds(epoch), index])

    def random_of_strong(self, position: int, view: int) -> np.random.Generator:
        """The randomness of one strong view of the sample at a position."""
        epoch, index = self.at(position)
        return np.random.default_rng([_STRONG, self.seed, epoch, index, view])

    def following(self, position: int) -> int:
        """The next position of the same global batch; the first one for the last."""
        first = position - position % self.batch_size
        return first + (position - first + 1) % self.batch_size

    def _seeds(self, epoch: int) -> tuple[int, ...]:
        # A tag in front: NumPy takes [1, 2] and [1, 2, 0] for the same seed.
        return (_MIXED_IN, self.seed, epoch) if self.mixed_in else (self.seed, epoch)


@lru_cache(maxsize=4)
def _order(seeds: tuple[int, ...], length: int) -> np.ndarray:
    return np.random.default_rng([*seeds]).permutation(length)


def training_batches(  # noqa: PLR0913 - one call says everything about a stream
    dataset: PreparedDataset,
    split: str,
    *,
    view: DataSpec,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    workers: int,
    rank: int = 0,
    size: int = 1,
    start_method: str | None = None,
    teacher_outputs: TeacherOutputs | None = None,
    labels: bool = True,
    semi: SemiBase | None = None,
    raters: bool = False,
) -> Iterator[Batch]:
    """This rank's share of the global batches of steps first_step to last_step - 1, with the teacher's cached outputs if given.

    `batch_size` is global; pictures of `view.unlabelled` come on top of it.  labels: whether labels are read; if not, every
    picture counts as one without label.  semi: what strong views to make of them; None for none.  raters: read the label maps
    of several raters.
    Raises InputError if the batch is larger than the split or smaller than `size`, or a sample has no raters.
    """
    view = view if view.train_split == split else view.model_copy(update={"train_split": split})
    names = TrainingNames.of(dataset, view)
    check_batch(dataset, names.labelled, split, batch_size, size)
    per_batch = 0 if view.unlabelled is None else view.unlabelled.per_batch
    stream = Stream(len(names.labelled), batch_size, seed, rank, size)
    second = Stream(len(names.unlabelled), per_batch, seed, rank, size, mixed_in=True)
    views = Views.of(dataset, split, view)
    if not labels:
        views = replace(views, unlabelled=frozenset(names.labelled))
    if raters and labels:
        for name in set(names.labelled) - views.unlabelled:
            dataset.raters_of(name)  # raises for a sample with a single label map
        views = replace(views, raters=True)
    return _through_workers(
        _TrainingSteps(names, views, stream, second, teacher_outputs, semi),
        range(first_step, last_step),
        workers,
        start_method,
    )


def check_batch(dataset: PreparedDataset, names: Sequence[str], split: str, batch_size: int, size: int = 1) -> None:
    """Raise InputError for a global batch that the training samples of a split cannot fill or `size` processes cannot share."""
    images = len(names)
    if batch_size > images:
        labelled = "" if images == len(dataset.names(split)) else "labelled "
        raise InputError(
            f"train.batch_size: got {batch_size}, wanted at most {images}, the {labelled}images of split '{split}' of "
            f"'{dataset.name}'",
            f"add --set train.batch_size={images}",
        )
    if batch_size < size:
        raise InputError(
            f"train.batch_size: got {batch_size}, wanted at least {size}, one image for each process",
            f"add --set train.batch_size={size}",
        )


def evaluation_samples(
    dataset: PreparedDataset, names: list[str], *, workers: int, start_method: str | None = None
) -> Iterator[Sample]:
    """Whole samples at their own size, in the order of `names`."""
    return _through_workers(_WholeSamples(dataset, names), range(len(names)), workers, start_method)


def rank_share(names: list[str], rank: int, size: int) -> list[str]:
    """The samples that rank `rank` of `size` processes evaluates: every size-th, so that none counts twice."""
    return names[rank::size]


@dataclass(frozen=True)
class _Failure:
    """An error that travels out of a worker; it is raised in the main process, with its own type and words.

    torch would raise a new error of the same type, with the worker's traceback as its text.
    """

    error: SegctlError


@dataclass(frozen=True)
class _TrainingSteps(Dataset[Batch | _Failure]):
    samples: TrainingNames
    views: Views
    stream: Stream
    second: Stream
    teacher_outputs: TeacherOutputs | None
    semi: SemiBase | None = None

    def __getitem__(self, step: int) -> Batch | _Failure:
        try:
            return self._batch(step)
        except SegctlError as error:
            return _Failure(error)

    def _batch(self, step: int) -> Batch:
        began = time.perf_counter()
        streams = ((self.stream, self.samples.labelled, False), (self.second, self.samples.unlabelled, True))
        wanted = [
            (samples[index], stream.random(epoch, index), index, hidden)
            for stream, samples, hidden in streams
            for epoch, index in map(stream.at, stream.positions(step))
        ]
        height, width = self.views.spec.crop
        images = np.empty((len(wanted), height, width, self.views.dataset.bands), self.views.dataset.pixel_type)
        labels = np.empty((len(wanted), height, width), np.uint8)
        seen = []
        for row, (name, random, index, hidden) in enumerate(wanted):
            drawn, _, _ = self.views.read_marked(name, random, (images[row], labels[row]), hidden=hidden)
            seen.append((index, drawn.flip))
        strong = None
        if self.semi is not None:
            beside = len(self.stream.positions(step))
            strong = self._strong(self.semi, step, list(zip(images[beside:], labels[beside:], strict=True)))
            labels[beside:][labels[beside:] != IGNORED] = NO_LABEL  # also what copy_paste brought: its teacher knows no labels
        ratings = open_ballots(self.views.dataset, [name for name, *_ in wanted], labels) if self.views.raters else None
        unlabelled = None
        if self.views.unlabelled or self.samples.unlabelled:
            unlabelled = labels == NO_LABEL
            labels[unlabelled] = IGNORED
        outputs = {} if self.teacher_outputs is None else self.teacher_outputs.read(seen)
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            [name for name, *_ in wanted],
            time.perf_counter() - began,
            outputs,
            None if unlabelled is None else torch.from_numpy(unlabelled),
            strong,
            ratings,
        )

    def _strong(self, semi: SemiBase, step: int, own: list[Weak]) -> StrongViews:
        """The strong views of this process's pictures without labels, whose weak views are `own`."""
        positions = self.second.positions(step)
        read = dict(zip(positions, own, strict=True))

        def weak(position: int) -> Weak:
            if position not in read:  # it belongs to another process
                epoch, index = self.second.at(position)
                random = self.second.random(epoch, index)
                read[position] = self.views.read_marked(self.samples.unlabelled[index], random, hidden=True)[1:]
            return read[position]

        following, random = self.second.following, self.second.random_of_strong
        return strong_views(semi, positions, following, weak, random, padding_of(self.views.dataset))


@dataclass(frozen=True)
class _WholeSamples(Dataset[Sample | _Failure]):
    dataset: PreparedDataset
    names: list[str]

    def __getitem__(self, index: int) -> Sample | _Failure:
        name = self.names[index]
        try:
            return Sample(name, torch.from_numpy(self.dataset.image(name)), torch.from_numpy(self.dataset.label(name)))
        except SegctlError as error:
            return _Failure(error)


def _through_workers(items: "Dataset[Item | _Failure]", order: range, workers: int, start_method: str | None) -> Iterator[Item]:
    """The items at `order`, made by worker processes, or in this process for 0 workers."""
    loader = DataLoader(
        items,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        multiprocessing_context=start_method if workers else None,
        pin_memory=torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]  # a run on the CPU must not open a GPU
        worker_init_fn=_enter_worker,
        generator=torch.Generator(),  # its own, so that loading draws nothing from the run's random stream
    )
    iterator = _start(loader)
    try:
        while (item := _next(iterator, workers)) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        del iterator  # stops the workers now; the garbage collector may close their pipes first and then wait for them


def _next(iterator: "Iterator[Item | _Failure]", workers: int) -> "Item | _Failure | None":
    """The next item; None after the last. A worker that died becomes a _Failure; a bug in a worker keeps its traceback."""
    try:
        return next(iterator, None)
    except (RuntimeError, EOFError, OSError) as error:
        text = str(error)
        bug = "Caught" in text or (isinstance(error, RuntimeError) and "DataLoader worker" not in text)
        if workers == 0 or bug:
            raise
        reason = text or "its pipe closed"
        hint = "set data.workers to 0 to load in the main process; the machine may be out of memory"
        return _Failure(SegctlError(f"a loader process died ({reason})", hint))


def _start(loader: "DataLoader[Item | _Failure]") -> "Iterator[Item | _Failure]":
    """Start the workers, and restore the handler of SIGCHLD that torch replaces.

    torch's handler raises in whatever code happens to run when a worker dies. Without it, `_next` notices within seconds.
    """
    if loader.num_workers == 0 or not hasattr(signal, "SIGCHLD") or current_thread() is not main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return iterator


def _enter_worker(worker: int) -> None:
    """Set one thread, and leave signals to the main process, although a terminal or scheduler sends them to every process.

    A worker ignores Ctrl-C and SIGUSR1. After SIGTERM it works for GRACE_S more seconds, so that the current step can end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
