"""What several raters said about the pictures of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from segctl.data.batches.views import NO_LABEL
from segctl.data.shards.dataset import PreparedDataset
from segctl.ignored import IGNORED


@dataclass(frozen=True)
class Ratings:
    """labels: uint8 (B, R, H, W), a label map of each rater, 255 where one gave no answer.  weights: float32 (B, R), of each
    rater; 0 and no answer anywhere for the raters that a picture with fewer of them lacks."""

    labels: Tensor
    weights: Tensor

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(change(self.labels), change(self.weights))

    def pin_memory(self) -> Self:
        """The ratings in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """The ratings on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def rows(self, part: Sequence[range]) -> Self:
        """The ratings of some of the pictures."""
        return self._each(lambda tensor: torch.cat([tensor[rows.start : rows.stop] for rows in part]))


def open_ballots(dataset: PreparedDataset, names: Sequence[str], labels: np.ndarray) -> Ratings:
    """The ratings behind numbers of ballots, uint8 (B, H, W), which become the raters' majority in place.

    names: the samples.  Numbers NO_LABEL, of pictures without a label that counts, stay as they are.
    """
    records = [dataset.samples[name].raters for name in names]
    most = max(len(record.weights) for record in records if record is not None) if any(records) else 1
    ratings = np.full((len(names), most, *labels.shape[1:]), IGNORED, np.uint8)
    weights = np.zeros((len(names), most), np.float32)
    for row, record in enumerate(records):
        if record is None:  # a picture without label
            continue
        count = len(record.weights)
        for rater, answers in enumerate(record.table().T):
            ratings[row, rater] = answers[labels[row]]
        weights[row, :count] = record.weights
        agreed = record.majority_table()
        agreed[NO_LABEL] = NO_LABEL
        labels[row] = agreed[labels[row]]
    return Ratings(torch.from_numpy(ratings), torch.from_numpy(weights))
