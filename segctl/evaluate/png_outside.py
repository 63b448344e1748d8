"""Predictions of ids outside the classes: what they probably are. Needs no torch.

A prediction outside the classes is scored as a miss. That is right for a few stray pixels, and hides a mistake where a file holds
other ids than the class table: 255 for class 1, ids that begin at 1, label ids for train ids. A share of all pixels cannot tell
the two apart, because a whole class may have less than 1 % of them. So each class is judged by itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.errors import InputError
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.ignored import IGNORED
from segctl.metrics.counts import FN, FP, TP
from segctl.metrics.table import CountTable

Strays = Counter[tuple[int, int]]
"""Pixels by (train id of the ground truth, id in the file of the prediction), for predictions outside the classes."""

MANY_OUTSIDE = 1.0
"""Warn when more than this percentage of the valid pixels is predicted as no class."""

MOST, FEW = 0.5, 0.1
"""Other ids are certain where at least MOST of the pixels in question have them and fewer than FEW have the right ones."""

_SHOWN = 5


def find_strays(
    raw: NDArray[np.integer], prediction: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int, ignored: int
) -> Strays:
    """The strays of one image. raw: ids in the prediction's file.  prediction, truth: train ids. All (H, W), unsigned."""
    there = (truth != ignored) & (prediction >= num_classes)
    keys, numbers = np.unique(truth[there].astype(np.int64) << 16 | raw[there], return_counts=True)
    return Counter({(int(key) >> 16, int(key) & 0xFFFF): int(number) for key, number in zip(keys, numbers, strict=True)})


@dataclass(frozen=True)
class JudgedPredictions:
    """The counts of all images, and what is needed to judge them.

    ids: the id of each class in the files of the predictions, in the order of train ids.  allowed: further ids that the class
    table knows, which are wrong but no mistake.  confusion: int64 (C, C), rows are the truth.
    """

    names: Sequence[str]
    ids: Sequence[int]
    allowed: frozenset[int]
    table: CountTable
    confusion: NDArray[np.int64]
    strays: Strays

    def warnings(self) -> Iterator[str]:
        """What is allowed but probably a mistake. Raises InputError where the predictions certainly have other ids."""
        self._refuse_other_ids()
        pixels = int(self.table.valid_pixels.sum())
        outside = Counter[int]()
        for (_, found), number in self.strays.items():
            outside[found] += number
        if not outside:
            return
        share = 100 * outside.total() / pixels
        missing = [self._called(index) for index in np.flatnonzero((self._truth > 0) & (self._predicted == 0)).tolist()]
        kinds = ", ".join(f"{found} ({100 * number / pixels:.2g} %)" for found, number in outside.most_common(_SHOWN))
        kinds += ", ..." if len(outside) > _SHOWN else ""
        where = f"{share:.2g} % of the pixels are predicted as none of the {len(self.names)} classes: {_ids(outside)} {kinds}"
        hint = "; add --label-ids if they hold Cityscapes label ids" if len(self.names) == 19 and not self.allowed else ""
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            verb = "class {} is" if len(missing) == 1 else "classes {} are"
            yield f"{verb.format(', '.join(missing[:_SHOWN]) + more)} never predicted, while {where}{hint}"
        elif share > MANY_OUTSIDE or len(outside) == 1:
            yield f"{where}{hint}"

    def _refuse_other_ids(self) -> None:
        for meant, problem, hint in self._hypotheses():
            there = [index for index in meant if self._truth[index] > 0]
            if there and self._fits(there, meant):
                raise InputError(f"the predictions hold other ids than the ground truth: {problem}", hint)

    def _hypotheses(self) -> Iterator[tuple[Mapping[int, int], str, str]]:
        """Ids that predictions may hold instead of the classes' own, by train id; what to say about them, and what to do."""
        unknown = {found for _, found in self.strays} - self.allowed
        never = np.flatnonzero((self._truth > 0) & (self._predicted == 0)).tolist()
        if len(unknown) == len(never) == 1:
            (found,), (index,) = unknown, never
            share = (
                100 * sum(number for (_, stray), number in self.strays.items() if stray == found) / self.table.valid_pixels.sum()
            )
            yield (
                {index: found},
                f"class {self._called(index)} is never predicted; "
                f"{found} is predicted on {share:.2g} % of the pixels, which is not a class",
                f"save the predictions with the id {self.ids[index]} for it",
            )
        for step, word, cure in ((1, "higher", "subtract 1 from"), (-1, "lower", "add 1 to")):
            yield (
                # 8 bits wrap around: one below 0 is 255.
                {index: (own + step) % 256 if own + step < 0 else own + step for index, own in enumerate(self.ids)},
                f"most pixels of most classes are predicted as an id that is one {word} than theirs",
                f"{cure} every id of the predictions, or name the ids of the classes with --classes FILE",
            )
        if list(self.ids) != list(range(len(self.ids))):
            yield (
                {index: index for index, own in enumerate(self.ids) if own != index},
                f"they hold 0 to {len(self.ids) - 1}, the positions of the classes, and not the ids of the class table",
                "save the predictions with the ids of the class table",
            )
        elif len(self.ids) == 19 and (benchmark_of(self.names) or list(self.names) == [*map(str, range(19))]):
            rows = [row for row in CLASSES.rows if row.train_id != IGNORED and row.raw_id is not None]
            yield (
                {row.train_id: row.raw_id for row in rows if row.raw_id is not None},
                "they hold Cityscapes label ids",
                "add --label-ids",
            )

    def _fits(self, there: Sequence[int], meant: Mapping[int, int]) -> bool:
        """Whether the classes `there` are mostly predicted as the ids `meant`, and hardly ever as their own."""
        truth = self._truth
        total = sum(int(truth[index]) for index in there)
        as_meant = {index: self._times(index, meant[index]) for index in there}
        as_own = sum(int(self.confusion[index, index]) for index in there)
        if sum(as_meant.values()) < MOST * total or as_own > FEW * total:
            return False
        if len(meant) == 1:
            return True
        # Two classes that a network mixes up look like a shift of one of them, so a shift needs two classes and most of all.
        most = [index for index in there if as_meant[index] >= MOST * truth[index]]
        return len(most) >= max(2, 2 * len(there) / 3)

    def _times(self, index: int, found: int) -> int:
        """The pixels of a class that are predicted as an id, whether that is a class or not."""
        known = self._position.get(found)
        return self.strays[index, found] if known is None else int(self.confusion[index, known])

    @cached_property
    def _position(self) -> dict[int, int]:
        return {own: index for index, own in enumerate(self.ids)}

    @cached_property
    def _truth(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.table.counts[..., [TP, FN]].sum((0, 2))
        return found

    @cached_property
    def _predicted(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.table.counts[..., [TP, FP]].sum((0, 2))
        return found

    def _called(self, index: int) -> str:
        """`1`, or `'crack' (id 255)` for a class with a name."""
        name, own = self.names[index], self.ids[index]
        return name if name == str(own) else f"'{name}' (id {own})"


def _ids(found: Mapping[int, int]) -> str:
    return "id" if len(found) == 1 else "ids"
