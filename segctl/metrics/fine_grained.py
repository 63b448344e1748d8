"""`FineGrainedIoU`: the scores of `segctl eval` as a metric object for a loop of your own.

It follows torchmetrics' conventions, and is a `torchmetrics.Metric` where torchmetrics is installed (extra `torchmetrics`): it
moves between devices, resets with its trainer, and adds up over processes.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.metrics.counts import count
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable

if TYPE_CHECKING:
    from torch import Tensor


class _PlainMetric:
    """The part of `torchmetrics.Metric` that counting needs, for an environment without it; everything stays in this process."""

    def __init__(self) -> None:
        self._states: list[str] = []

    def add_state(self, name: str, default: list[Any], dist_reduce_fx: str) -> None:
        self._states.append(name)
        setattr(self, name, default)

    def reset(self) -> None:
        """Forget all images."""
        for name in self._states:
            setattr(self, name, [])

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Update, and return the scores of these images alone."""
        batch = copy.deepcopy(self)
        batch.reset()
        batch.update(*arguments, **named)  # type: ignore[attr-defined]
        self.merge(batch)  # type: ignore[attr-defined]
        return batch.compute()  # type: ignore[attr-defined]


try:
    from torchmetrics import Metric as _Metric
except ImportError:
    _Metric = _PlainMetric  # type: ignore[assignment, misc]


class FineGrainedIoU(_Metric):
    """IoU, accuracy and Dice over the dataset (D), images (I) and classes (C), with worst cases (arXiv:2310.19252).

        metric = FineGrainedIoU(19)
        for image, label, name in batches:
            metric.update(net(image), label, name)
        metric.compute()["mIoU_I"]

    num_classes: C.  class_names: C names, "0", "1", … if left out.  ignore_index: the label of pixels that are not counted.
    binary: score the foreground (class 1 of 2) alone.

    The scores equal those of `segctl eval --pred` on the same label maps. Integers per image and class are kept, 24·C bytes an
    image, so they do not depend on batches and processes.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Any
    """A list of int64 (B, C, 3), tensors with torchmetrics and arrays without; torchmetrics joins it over processes."""
    names: Any
    """A list of uint8 (bytes,) in the order of `counts`: the images' names."""

    def __init__(
        self,
        num_classes: int,
        *,
        class_names: Sequence[str] | None = None,
        ignore_index: int = IGNORED,
        binary: bool = False,
        **torchmetrics: Any,
    ) -> None:
        """torchmetrics: options of `torchmetrics.Metric`, such as `sync_on_compute`, where it is installed.

        Raises ArgumentError for a number of classes below 1, and for names or `binary` that do not fit it.
        """
        super().__init__(**torchmetrics)
        if num_classes < 1:
            raise ArgumentError(f"num_classes is {num_classes}, wanted at least 1")
        self.num_classes, self.ignore_index, self.binary = num_classes, ignore_index, binary
        self.class_names = tuple(map(str, range(num_classes)) if class_names is None else class_names)
        CountTable((), self.class_names, np.zeros((0, num_classes, 3), np.int64))  # refuses names that do not fit
        if binary and num_classes != 2:
            raise ArgumentError(f"binary scores have 2 classes, got num_classes {num_classes}")
        self.add_state("counts", default=[], dist_reduce_fx="cat")
        # Processes can exchange tensors alone, so names travel as UTF-8, each with a line break behind it.
        self.add_state("names", default=[], dist_reduce_fx="cat")

    def update(self, pred: Any, label: Any, names: Sequence[str] | str | None = None) -> None:
        """Count images.

        pred: class ids, integers (B, H, W) or (H, W), or scores of classes, floats (B, C, H, W) or (C, H, W), of which the
        largest counts.  label: integers (B, H, W) or (H, W).  names: B names. Arrays, or tensors on one device.
        Named images may come again, as a distributed sampler repeats some to fill the last batch: they count once.
        Raises ArgumentError for other shapes, ids of no class, and names that do not fit.
        """
        if len(label.shape) == 2:
            pred, label = pred[None], label[None]
            names = [names] if isinstance(names, str) else names
        if len(pred.shape) == 4:
            if pred.shape[1] != self.num_classes:
                raise ArgumentError(
                    f"got scores of {pred.shape[1]} classes, shape {tuple(pred.shape)}, wanted (B, {self.num_classes}, H, W)"
                )
            pred = pred.argmax(1)
        found = count(pred, label, self.num_classes, self.ignore_index)
        self.counts.append(self._state(found))
        self.names.append(self._state(np.frombuffer(_lines(names, len(found)), np.uint8).copy()))

    def _state(self, values: "NDArray[Any] | Tensor") -> Any:
        if issubclass(_Metric, _PlainMetric):
            return values if isinstance(values, np.ndarray) else values.cpu().numpy()
        import torch

        return torch.as_tensor(values).to(self.device)

    @property
    def table(self) -> CountTable:
        """The counts of all images that this process has, for `segctl.metrics`' tables per class and image, and its intervals.

        Images without a name are called "image 0", "image 1", …
        Raises ArgumentError where a name came twice with other counts.
        """
        counts = [np.zeros((0, self.num_classes, 3), np.int64), *map(_as_array, _parts(self.counts))]
        text = b"".join(_as_array(part).tobytes() for part in _parts(self.names)).decode()
        rows: dict[str, NDArray[np.int64]] = {}
        for index, (name, row) in enumerate(zip(text.split("\n")[:-1], np.concatenate(counts), strict=True)):
            known = rows.setdefault(name or f"image {index}", row)
            if not np.array_equal(known, row):
                raise ArgumentError(f"image '{name}' came twice with other counts, wanted every image once")
        ordered = np.stack(list(rows.values())) if rows else counts[0]
        return CountTable(tuple(rows), self.class_names, ordered)

    def compute(self) -> dict[str, float]:
        """Every score in percent by its name (`mIoU_D`, `mIoU_I`, `mIoU_C_q5` …), NaN where it is undefined."""
        scores = score(self.table, binary=self.binary)
        return {name: float("nan") if value is None else value for name, value in scores.items()}

    def merge(self, other: Self) -> None:
        """Add the images that another metric has counted. Raises ArgumentError where its classes or options differ."""
        mine, theirs = ((one.class_names, one.ignore_index, one.binary) for one in (self, other))
        if mine != theirs:
            raise ArgumentError(f"cannot merge counts of {theirs} into counts of {mine} (class names, ignore_index, binary)")
        self.counts.extend(map(self._state, _parts(other.counts)))
        self.names.extend(map(self._state, _parts(other.names)))
        self._computed = None  # torchmetrics' copy of the last result


def _parts(state: Any) -> list[Any]:
    """A state as a list: torchmetrics joins the list to one tensor when it adds up over processes."""
    return state if isinstance(state, list) else [state]


def _as_array(values: Any) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def _lines(names: Sequence[str] | str | None, count: int) -> bytes:
    """Names as UTF-8, each ended by a line break. Raises ArgumentError where they do not fit `count` images."""
    if names is None:
        return b"\n" * count
    if isinstance(names, str) or len(names) != count:
        raise ArgumentError(f"got the names {names!r}, wanted {count}, one for each image")
    wrong = next((name for name in names if not name or "\n" in name), None)
    if wrong is not None:
        raise ArgumentError(f"got the name {wrong!r}, wanted a name of one line")
    return "".join(f"{name}\n" for name in names).encode()
