"""The notes below a table: what a reader must know before comparing its numbers."""

from collections.abc import Sequence

from segctl.report.analysis import Measured
from segctl.report.collect import Run
from segctl.report.content import UNDEFINED
from segctl.report.groups import Comparison, Group, spread
from segctl.report.headline import scored_elsewhere, teacher_run
from segctl.report.published import has_published_split, preset_changes, published_scores
from segctl.report.tables import score_text, teacher_score
from segctl.schema.presets.published import published_on


def student_notes(groups: Sequence[Group], comparison: Comparison, runs: Sequence[Run] = ()) -> list[str]:
    """Notes on one student: changed settings, other recipes, teachers, scores by seed, runs left out.

    runs: all runs of the report, among which the teacher may be.
    """
    repeats = [
        f"`{run.label}` is left out of the mean, because a newer run has the same settings and seed"
        for run in comparison.repeats
        if run.spec.name == groups[0].spec.name
    ]
    return [*_changes(groups), *_recipes(groups), *_teachers(groups, runs), *_seeds(groups), *repeats]


def protocol_notes(comparison: Comparison) -> list[str]:
    """A warning where one table has scores of different protocols."""
    protocols: dict[str, list[str]] = {}
    for group in comparison.groups:
        protocols.setdefault(str(group.evaluations[0].about.get("protocol")), []).append(group.label)
    if len(protocols) < 2:
        return []
    found = "; ".join(f"{', '.join(labels)}: {protocol}" for protocol, labels in protocols.items())
    return [f"the protocols differ, which can change scores as well: {found}"]


def interval_notes(measured: Sequence[Measured]) -> list[str]:
    """How the intervals were computed, and why they are rough or too narrow."""
    found = [each.intervals for each in measured]
    methods = [f"`over images` is the {each.method}" for each in found]
    return list(dict.fromkeys([*methods, *(each.warning for each in found if each.warning)]))


def _changes(groups: Sequence[Group]) -> list[str]:
    """One note for all groups that changed the same settings of their preset."""
    changed: dict[str, list[str]] = {}
    for group in groups:
        changed.setdefault(", ".join(preset_changes(group.spec)), []).append(group.short_label)
    return [
        f"† {', '.join(labels)}: settings of the preset were changed, so do not compare these scores with published numbers or "
        f"with runs without the changes: {found}"
        for found, labels in changed.items()
        if found
    ]


def _recipes(groups: Sequence[Group]) -> list[str]:
    """Which published scores come from another recipe, and why none are shown where none are."""
    spec = groups[0].spec
    if groups[0].trial:
        return [f"scored on {groups[0].trial}: these are not scores of the dataset, so no published numbers are shown"]
    if not spec.published:
        return ["no numbers are published for this preset"]
    if not has_published_split(groups[0]):
        if published_on(spec, spec.data.val_split):
            return [f"numbers are published for the split {spec.data.val_split} only, so none are shown"]
        return ["the numbers published for this preset are of other data or another split, so none are shown"]
    other = list(dict.fromkeys(score.recipe for score in published_scores(groups[0]) if score.recipe != spec.recipe))
    if not other:
        return []
    return [
        f"the published numbers of recipe {', '.join(other)} come from another optimiser, schedule, augmentation or protocol "
        f"than ours (recipe {spec.recipe or 'none'}): a difference from them is not a difference between methods"
    ]


def _teachers(groups: Sequence[Group], runs: Sequence[Run]) -> list[str]:
    """The score of each teacher, with the methods it taught: in the check before training, and here if it was scored here."""
    methods: dict[str, list[str]] = {}
    for run, mine in ((run, run.evaluations[group.split]) for group in groups for run in group.runs if run.teacher):
        teacher = teacher_run(run, runs)
        score = None if teacher is None else scored_elsewhere(teacher, mine)
        here = "" if score is None else f"; {score:.2f} here, on {mine.about.get('images', UNDEFINED)} images"
        text = f"{run.teacher.get('preset')}, mIoU_D {teacher_score(run)} in the check before training{here}"
        methods.setdefault(text, []).append(run.method)
    return [f"teacher of {', '.join(dict.fromkeys(taught))}: {teacher}" for teacher, taught in methods.items()]


def _seeds(groups: Sequence[Group]) -> list[str]:
    """The score of every seed, for groups of several seeds."""
    return [f"{group.short_label}, mIoU_D by seed: {_by_seed(group)}" for group in groups if len(group.runs) > 1]


def _by_seed(group: Group) -> str:
    scores = [(run.seed, run.evaluations[group.split].scores["mIoU_D"]) for run in group.runs]
    return ", ".join(f"{score_text(spread([score]))} (seed {seed})" for seed, score in scores)
