"""Runs -> groups of runs that differ only in the seed -> comparisons of groups on one dataset and split."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from segctl.metrics.table import CountTable
from segctl.report.collect import Evaluation, Run, with_exported_files
from segctl.runs import MODEL_FILE, OLD_MODEL_FILE
from segctl.schema.run import TrainRun
from segctl.schema.same_run import group_settings, without_teacher
from segctl.schema.terms.methods import METHODS


class Spread(NamedTuple):
    """Mean and sample standard deviation of the n seeds with a defined value; mean is None for n = 0, std for n < 2."""

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed, evaluated on one split; one run per seed."""

    label: str
    runs: tuple[Run, ...]
    split: str

    @property
    def spec(self) -> TrainRun:
        return self.runs[0].spec

    @property
    def method(self) -> str:
        return self.runs[0].method

    @property
    def short_label(self) -> str:
        """The label under a heading that names the preset."""
        return self.label.removeprefix(f"{self.spec.name} · ")

    @property
    def evaluations(self) -> list[Evaluation]:
        return [run.evaluations[self.split] for run in self.runs]

    @property
    def binary(self) -> bool:
        return self.evaluations[0].binary

    @property
    def trial(self) -> str:
        return self.evaluations[0].trial

    @property
    def counts(self) -> tuple[CountTable, ...] | None:
        """The counts of every seed; None where the evaluation of a run has no counts.npz."""
        found = [evaluation.counts for evaluation in self.evaluations]
        return tuple(table for table in found if table is not None) if all(table is not None for table in found) else None

    def score(self, name: str) -> Spread:
        """A score over the seeds, in percent."""
        return spread([evaluation.scores[name] for evaluation in self.evaluations])

    def class_score(self, class_name: str, column: str) -> Spread:
        """A column of the per-class table over the seeds."""
        rows = [row for evaluation in self.evaluations for row in evaluation.per_class if row["class"] == class_name]
        return spread([row.get(column) for row in rows])


@dataclass(frozen=True)
class Comparison:
    """Groups scored on the same images: one dataset, one fingerprint, one split. Other groups never share a table with them."""

    place: str
    """`dataset / split`, with the fingerprint where two fingerprints have the same dataset and split."""
    dataset: str
    fingerprint: str
    split: str
    groups: tuple[Group, ...]
    repeats: tuple[Run, ...]
    """Runs left out because a newer run has the same settings and the same seed."""


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and standard deviation (n - 1) of the defined values."""
    found = [value for value in values if value is not None]
    mean = statistics.fmean(found) if found else None
    return Spread(mean, statistics.stdev(found) if len(found) > 1 else None, len(found))


def comparisons_of(runs: Sequence[Run], split: str | None = None) -> list[Comparison]:
    """The comparisons of all evaluated runs, or of those of one split, sorted by dataset and split."""
    places: dict[tuple[str, str, str], list[Run]] = {}
    for run in (one for each in runs for one in with_exported_files(each)):
        for name, evaluation in run.evaluations.items():
            if split in (None, name):
                places.setdefault((run.spec.data.dataset, name, evaluation.fingerprint), []).append(run)
    named = [(dataset, name) for dataset, name, _ in places]
    return [_comparison(place, places[place], alone=named.count(place[:2]) == 1) for place in sorted(places)]


def without_method(spec: TrainRun) -> dict[str, Any]:
    """The settings that a distilled and an undistilled student must share to be compared."""
    return group_settings(without_teacher(spec))


def undistilled(group: Group, groups: Sequence[Group]) -> Group | None:
    """The undistilled student with the settings of a distilled group; None without one, and for `none` itself.

    Of several, the one that was scored in the same way and has most seeds in common.
    """
    if group.method == "none":
        return None
    wanted, seeds = without_method(group.spec), {run.seed for run in group.runs}
    found = [other for other in groups if other.method == "none" and group_settings(other.spec) == wanted]

    def nearness(other: Group) -> tuple[bool, int]:
        alike = _scored(other.evaluations[0]) == _scored(group.evaluations[0])
        return alike, len(seeds & {run.seed for run in other.runs})

    return max(found, key=nearness, default=None)


def baseline(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group to compare with: the undistilled student, or else the first group; None for a baseline itself."""
    found = undistilled(group, groups)
    if found is not None:
        return found
    return groups[0] if group.label != groups[0].label else None


def method_rank(method: str) -> int:
    """The place of a method in tables: `none` first, then the order of the schema, then methods of the user's own."""
    known: list[str] = list(METHODS)
    return known.index(method) if method in known else len(known)


def methods_side_by_side(groups: Sequence[Group]) -> list[list[Group]]:
    """Sets of groups that differ only in method and seed, sorted by method; only sets of `none` and at least one more group."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(str(sorted(without_method(group.spec).items())), []).append(group)
    sets = [sorted(members, key=lambda group: method_rank(group.method)) for members in found.values()]
    return [members for members in sets if len(members) > 1 and any(group.method == "none" for group in members)]


def grouped(runs: Sequence[Run]) -> list[tuple[str, tuple[Run, ...]]]:
    """Label and runs of every group of runs that differ only in the seed, scored or not."""
    return _labelled(_by(runs, [_identity(run) for run in runs]))


def _comparison(place: tuple[str, str, str], runs: list[Run], *, alone: bool) -> Comparison:
    dataset, split, fingerprint = place
    newest: dict[tuple[str, int], Run] = {}
    repeats = []
    for run in runs:
        key = (_identity(run, split), run.seed)
        if key in newest:
            repeats.append(newest[key])
        newest[key] = run
    members = _by(list(newest.values()), [identity for identity, _ in newest])
    groups = tuple(Group(label, runs, split) for label, runs in _labelled(members))
    name = f"{dataset} / {split}" if alone else f"{dataset} / {split}, data {fingerprint[:12]}"
    if trial := groups[0].trial:
        name = f"{name} ({trial})"
    return Comparison(name, dataset, fingerprint, split, groups, tuple(repeats))


def _identity(run: Run, split: str | None = None) -> str:
    """A text that is equal for runs that differ only in the seed: settings, weights of the teacher, way of scoring."""
    scored = _scored(run.evaluations[split]) if split is not None else []
    return json.dumps([group_settings(run.spec), run.teacher.get("sha256"), scored], sort_keys=True)


def _scored(evaluation: Evaluation) -> list[Any]:
    """How a run was scored: what must be equal for two scores to be comparable."""
    weights = evaluation.about.get("weights")
    # Both names are of the network itself, before and after version 0.1.
    return [
        evaluation.about.get("protocol"),
        MODEL_FILE if weights == OLD_MODEL_FILE else weights,
        evaluation.about.get("binary"),
    ]


def _by(runs: Sequence[Run], identities: Sequence[str]) -> list[tuple[Run, ...]]:
    """Runs of equal identity, sorted by seed; the groups are sorted by preset and method."""
    found: dict[str, list[Run]] = {}
    for run, identity in zip(runs, identities, strict=True):
        found.setdefault(identity, []).append(run)
    members = [tuple(sorted(runs, key=lambda run: run.seed)) for runs in found.values()]
    return sorted(members, key=lambda runs: (runs[0].spec.name, method_rank(runs[0].method)))


def _labelled(members: Sequence[tuple[Run, ...]]) -> list[tuple[str, tuple[Run, ...]]]:
    """`preset · method`; where groups share that label, with the setting in which they differ, or else with their runs."""
    plain = [f"{runs[0].spec.name} · {runs[0].method}" for runs in members]
    alike = {
        label: [group_settings(runs[0].spec) for runs, other in zip(members, plain, strict=True) if other == label]
        for label in plain
    }
    return [
        (label if len(alike[label]) == 1 else f"{label} ({_distinction(runs, alike[label])})", runs)
        for label, runs in zip(plain, members, strict=True)
    ]


def _distinction(runs: tuple[Run, ...], alike: Sequence[dict[str, Any]]) -> str:
    mine = group_settings(runs[0].spec)
    # A setting that only one group has, such as the tile of sliding windows, follows from another one that differs.
    differing = [path for path in mine if any(other.get(path, mine[path]) != mine[path] for other in alike)]
    if len(differing) == 1 and not isinstance(mine[differing[0]], list):
        return f"{differing[0]} {setting_text(mine[differing[0]])}"
    return ", ".join(run.label for run in runs)


def setting_text(value: Any) -> str:
    """The value of a setting as a user would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
