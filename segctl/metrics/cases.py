"""Scores over groups of images: a patient's slices, a drive's frames.

    mIoU_G: counts are summed within each group, one IoU per class, the mean over its classes; then the mean over groups.

So every patient weighs as much as any other, whatever the number of slices, and what is missed in one slice counts against the
whole organ and not as a 0. Source: the case-by-case means of zifuwanggg/JDTLosses at 68ce8ac, test.py (`test_medical`), which
counts a case without any foreground as 1; here it is left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segctl.metrics.scores import KINDS, mean, ratios, scored_classes
from segctl.metrics.table import CountTable


def rows_of_groups(groups: Sequence[str] | None) -> list[NDArray[np.intp]]:
    """The images of each group, by their places; empty for fewer than two groups, which a mean over them says nothing about."""
    if groups is None or len(set(groups)) < 2:
        return []
    names = np.array(groups)
    return [np.flatnonzero(names == group) for group in sorted(set(groups))]


def case_scores(table: CountTable, *, binary: bool = False) -> dict[str, float | None]:
    """mAcc_G, mIoU_G and mDice_G in percent; None where undefined. No score at all for fewer than two groups."""
    rows = rows_of_groups(table.groups)
    if not rows:
        return {}
    scored = table.counts[:, scored_classes(table, binary)]
    found = [ratios(scored[group].sum(0)) for group in rows]
    values = {f"m{kind}_G": mean([mean(group[kind]) for group in found]) for kind in KINDS}
    return {name: None if np.isnan(value) else 100 * value for name, value in values.items()}
