"""Our scores and published ones: which pairs to compare, and which settings of the preset a run changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from segctl.report.groups import Group, method_rank, setting_text
from segctl.schema.load import load_preset, preset_names
from segctl.schema.presets.published import published_on
from segctl.schema.run import PublishedScore, TrainRun
from segctl.schema.same_run import changes_of_preset, without_teacher


@dataclass(frozen=True)
class Pairing:
    """A method of one student: our group and a published score; one of the two may be None."""

    method: str
    ours: Group | None
    theirs: PublishedScore | None


def pairings(groups: Sequence[Group]) -> list[Pairing]:
    """Every method that we ran or somebody published for the student of these groups; equal recipes are paired first.

    Groups scored on another dataset, split or part of it than the published scores are of get none.
    """
    published = list(dict.fromkeys(score for group in groups for score in published_scores(group)))
    listed = list(dict.fromkeys(score.method for score in published))
    ours = sorted({group.method for group in groups} - set(listed), key=method_rank)
    order = sorted([*listed, *ours], key=lambda method: method != "none")
    return [pairing for method in order for pairing in _of_method(method, groups, published)]


def _of_method(method: str, groups: Sequence[Group], published: Sequence[PublishedScore]) -> list[Pairing]:
    ours = [group for group in groups if group.method == method]
    theirs = [score for score in published if score.method == method]
    pairs = []
    for group in ours:
        match = next((score for score in theirs if score.recipe == group.spec.recipe), theirs[0] if theirs else None)
        if match is not None:
            theirs.remove(match)
        pairs.append(Pairing(method, group, match))
    return [*pairs, *(Pairing(method, None, score) for score in theirs)]


def published_scores(group: Group) -> tuple[PublishedScore, ...]:
    """The published scores that may stand beside a group's mIoU_D: of the same score on the same whole split."""
    if group.trial:
        return ()
    return tuple(score for score in published_on(group.spec, group.split) if score.metric == "mIoU_D")


def has_published_split(group: Group) -> bool:
    """Whether any published score may stand beside a group's."""
    return bool(published_scores(group))


def preset_changes(spec: TrainRun) -> list[str]:
    """What a run changed in its shipped preset, such as `train.steps` 800 (preset 40,000); empty for a preset of the user's own.

    The method is not a change: tables have a row for each method.
    """
    if spec.name not in preset_names():
        return []
    found = changes_of_preset(without_teacher(_shipped(spec.name)), without_teacher(spec))
    return [_change(path, mine, shipped) for path, shipped, mine in found]


@cache
def _shipped(name: str) -> TrainRun:
    return load_preset(name)


def _change(path: str, mine: Any, shipped: Any) -> str:
    if isinstance(mine, list) and mine and isinstance(mine[0], dict):
        return f"`{path}` changed"
    return f"`{path}` {setting_text(mine)} (preset {setting_text(shipped)})"
