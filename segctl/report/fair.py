"""Methods of one student under the very same settings: score, difference to the undistilled student, and what each costs."""

import statistics
from collections.abc import Sequence

from segctl.report.collect import Run
from segctl.report.content import UNDEFINED, Table, table
from segctl.report.gains import COLUMN, gain_cell, interval_cell
from segctl.report.groups import Group, method_rank, undistilled, without_method
from segctl.report.tables import score_text

COLUMNS = ("method", "seeds", "mIoU_D", COLUMN, "95 % of it", "s/step", "of none", "peak memory, MB")
ABOUT = (
    "The student, data, steps and teacher are the same; each method has its own weights of terms. `gain over none` is the mean "
    "over seeds of a method's mIoU_D minus that of `none` with the same seed; seeds that only one of them has do not count. "
    "`95 % of it` is Student's interval for that mean over seeds: n/a for one seed; where it holds 0, no difference is shown. "
    "Seconds per step are medians of each run's log, at the speed that the machine had then. Peak memory is the process's, on a "
    "GPU that of its tensors. Both are means over the seeds."
)


def fair_groups(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that differ in nothing but method and seed, where `none` is among them and not alone."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(str(sorted(without_method(group.spec).items())), []).append(group)
    sets = [sorted(members, key=lambda group: method_rank(group.method)) for members in found.values()]
    return [members for members in sets if len(members) > 1 and any(group.method == "none" for group in members)]


def fair_table(members: Sequence[Group]) -> Table:
    """One row a method; gains are n/a without `none` among them."""
    return table(COLUMNS, [_row(group, members) for group in members])


def _row(group: Group, members: Sequence[Group]) -> list[str]:
    base = group if group.method == "none" else undistilled(group, members)
    seconds, of_none = _mean([_seconds(run) for run in group.runs]), _mean([_seconds(run) for run in base.runs] if base else [])
    ratio = seconds / of_none if seconds is not None and of_none else None
    memory = _mean([_memory(run) for run in group.runs])
    return [
        group.short_label,
        f"{len(group.runs)}",
        score_text(group.score("mIoU_D")),
        gain_cell(group, members),
        interval_cell(group, members),
        UNDEFINED if seconds is None else f"{seconds:.3g}",
        UNDEFINED if ratio is None else f"{ratio:.2f}",
        UNDEFINED if memory is None else f"{memory:,.0f}",
    ]


def _seconds(run: Run) -> float | None:
    value = run.environment.get("seconds_per_step")
    return None if value is None else float(value)


def _memory(run: Run) -> float | None:
    value = run.environment.get("peak_memory_mb")
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None
