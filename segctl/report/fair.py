"""Methods of one student under the very same settings: score, difference to the undistilled student, and what each costs."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from segctl.report.collect import Run
from segctl.report.content import Table, table
from segctl.report.groups import Group, method_rank, without_method
from segctl.report.tables import UNDEFINED, score_text

CONFIDENCE = 0.95
COLUMNS = ("method", "seeds", "mIoU_D", "minus none", "95 % of it", "s/step", "of none", "peak memory, MB")
ABOUT = (
    "The same student, data, steps and teacher; each method's own weights. `minus none` is the mean over seeds of a method's "
    "score minus that of `none` with the same seed, and `95 % of it` Student's interval for that mean over seeds: n/a for one "
    "seed, and no difference is shown where it holds 0. Seconds per step are medians of each run's log, at the speed the machine "
    "had then; peak memory is the process's, on a GPU that of its tensors; both are means over the seeds."
)


class Gain(NamedTuple):
    """Points above `none` over n seeds in common; the ends of its interval are None for fewer than two."""

    mean: float
    low: float | None
    high: float | None
    n: int


def fair_groups(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that differ in nothing but method and seed, where `none` is among them and not alone."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(str(sorted(without_method(group.spec).items())), []).append(group)
    sets = [sorted(members, key=lambda group: method_rank(group.method)) for members in found.values()]
    return [members for members in sets if len(members) > 1 and any(group.method == "none" for group in members)]


def gain(group: Group, base: Group, score: str = "mIoU_D") -> Gain | None:
    """The paired difference over the seeds that both have; None where there are none."""
    theirs = {run.seed: run.evaluations[base.split].scores[score] for run in base.runs}
    pairs = [(run.evaluations[group.split].scores[score], theirs.get(run.seed)) for run in group.runs]
    points = [ours - other for ours, other in pairs if ours is not None and other is not None]
    if not points:
        return None
    mean = statistics.fmean(points)
    if len(points) < 2:
        return Gain(mean, None, None, len(points))
    half = _student_quantile(len(points) - 1) * statistics.stdev(points) / math.sqrt(len(points))
    return Gain(mean, mean - half, mean + half, len(points))


def fair_table(members: Sequence[Group]) -> Table:
    """One row a method; n/a beside `none` where it is not among them."""
    base = next((group for group in members if group.method == "none"), None)
    return table(COLUMNS, [_row(group, base) for group in members])


def _row(group: Group, base: Group | None) -> list[str]:
    found = None if base is None or group is base else gain(group, base)
    seconds, of_none = _mean([_seconds(run) for run in group.runs]), _mean([_seconds(run) for run in base.runs] if base else [])
    ratio = seconds / of_none if seconds is not None and of_none else None
    memory = _mean([_memory(run) for run in group.runs])
    return [
        group.method if group.method != "custom" else group.label,
        f"{len(group.runs)}",
        score_text(group.score("mIoU_D")),
        "–" if group is base else UNDEFINED if found is None else f"{found.mean:+.2f}",
        "–" if group is base else _interval(found),
        UNDEFINED if seconds is None else f"{seconds:.3g}",
        UNDEFINED if ratio is None else f"{ratio:.2f}",
        UNDEFINED if memory is None else f"{memory:,.0f}",
    ]


def _interval(found: Gain | None) -> str:
    if found is None or found.low is None or found.high is None:
        return UNDEFINED
    return f"[{found.low:+.2f}, {found.high:+.2f}]"


def _student_quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _seconds(run: Run) -> float | None:
    value = run.environment.get("seconds_per_step")
    return None if value is None else float(value)


def _memory(run: Run) -> float | None:
    value = run.environment.get("peak_memory_mb")
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None
