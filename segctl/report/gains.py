"""The gain of a distilled student over the undistilled one; the report and `segctl compare` both compute it here.

A gain is paired by seed. The seed decides weights, order and augmentation, so a method's run and the undistilled run of the same
seed share all three, and the difference comes from the method.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

from segctl.report.collect import Evaluation, Run
from segctl.report.content import UNDEFINED
from segctl.report.groups import Group, undistilled

CONFIDENCE_LEVEL = 0.95
COLUMN = "gain over none"
"""The name of the column in every table."""


class Gain(NamedTuple):
    """Points above `none`: the mean over the common seeds, and the ends of Student's interval, None for fewer than two seeds."""

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]


def gain(group: Group, groups: Sequence[Group], score: str = "mIoU_D") -> Gain | None:
    """The mean over seeds of the group's score minus that of the undistilled student with the same seed and settings.

    None for `none` itself, without an undistilled student among `groups`, and without a seed for which both have the score.
    """
    return _gain(group, groups, lambda found: found.scores[score])


def class_gain(group: Group, groups: Sequence[Group], class_name: str, column: str = "IoU_D") -> Gain | None:
    """As `gain`, for a column of the per-class table."""

    def value(found: Evaluation) -> float | None:
        return next((row.get(column) for row in found.per_class if row["class"] == class_name), None)

    return _gain(group, groups, value)


def beyond_seeds(found: Gain | None) -> bool:
    """Whether the interval of a gain over seeds excludes 0; False for a single seed, whose noise is unknown."""
    return found is not None and found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)


def better(found: Gain | None) -> bool:
    """Whether a gain is above 0 beyond the noise of seeds: what tables set in bold."""
    return found is not None and found.mean > 0 and beyond_seeds(found)


def _gain(group: Group, groups: Sequence[Group], value: Callable[[Evaluation], float | None]) -> Gain | None:
    base = undistilled(group, groups)
    if base is None:
        return None
    found = {
        ours.seed: mine - other
        for ours, theirs in paired(group, base)
        if (mine := value(ours.evaluations[group.split])) is not None
        and (other := value(theirs.evaluations[base.split])) is not None
    }
    if not found:
        return None
    points, seeds = list(found.values()), tuple(found)
    mean = statistics.fmean(points)
    if len(points) < 2:
        return Gain(mean, None, None, seeds)
    half = _student_quantile(len(points) - 1) * statistics.stdev(points) / math.sqrt(len(points))
    return Gain(mean, mean - half, mean + half, seeds)


def paired(group: Group, base: Group) -> list[tuple[Run, Run]]:
    """The runs of both groups that have the same seed, the group's first."""
    theirs = {run.seed: run for run in base.runs}
    return [(run, theirs[run.seed]) for run in group.runs if run.seed in theirs]


def gain_cell(group: Group, groups: Sequence[Group]) -> str:
    """The gain in points of mIoU_D, such as `+1.50`; a dash for `none` itself."""
    found = gain(group, groups)
    return "–" if group.method == "none" else UNDEFINED if found is None else f"{found.mean:+.2f}"


def interval_cell(group: Group, groups: Sequence[Group]) -> str:
    """Student's interval of the gain over the seeds, such as `[-4.85, +7.85]`; a dash for `none` itself."""
    found = gain(group, groups)
    if group.method == "none":
        return "–"
    return UNDEFINED if found is None or found.low is None or found.high is None else f"[{found.low:+.2f}, {found.high:+.2f}]"


def gain_notes(groups: Sequence[Group]) -> list[str]:
    """Which seeds each gain compares, where a method and `none` have different seeds; and which methods have several rows."""
    return [*filter(None, (seeds_note(group, groups) for group in groups)), *_separate(groups)]


def seeds_note(group: Group, groups: Sequence[Group]) -> str | None:
    """Which seeds the group's gain compares; None where both sides have the same seeds, or there is no `none`."""
    base = undistilled(group, groups)
    if base is None:
        return None
    mine, theirs = [run.seed for run in group.runs], [run.seed for run in base.runs]
    found = gain(group, groups)
    compared = () if found is None else found.seeds
    if set(compared) == set(mine) == set(theirs):
        return None
    pair = f"{group.short_label} against {base.short_label}"
    have = f"{group.short_label} has {_seeds(mine)} and {base.short_label} has {_seeds(theirs)}"
    if not compared:
        return f"{pair}: no seed has both scores, so there is no gain ({have})"
    return f"{pair}: {_seeds(compared)} only ({have})"


def _separate(groups: Sequence[Group]) -> list[str]:
    """Methods whose seeds are spread over several rows, each with a mean and a gain of its own."""
    methods: dict[str, list[Group]] = {}
    for group in groups:
        methods.setdefault(group.method, []).append(group)
    notes = []
    for method, members in methods.items():
        seeds = [{run.seed for run in group.runs} for group in members]
        if len(members) > 1 and all(one.isdisjoint(other) for one, other in combinations(seeds, 2)):
            rows = "; ".join(f"{group.short_label} has {_seeds(sorted(own))}" for group, own in zip(members, seeds, strict=True))
            notes.append(
                f"the seeds of {method} are in {len(members)} rows, because their runs differ in more than the seed: {rows}"
            )
    return notes


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _student_quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + CONFIDENCE_LEVEL / 2))
