"""Which splits may share samples, by their names: no sample of an evaluated split may be in a training split."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from segctl.data.findings import Finding

_ROLES = {
    "trainval": r"train(ing)?val(id(ation)?)?",
    "train": r"train(ing)?",
    "val": r"val(id(ation)?)?|dev(el(opment)?)?|eval(uation)?",
    "test": r"test(ing)?",
    "unlabelled": r"unlabell?ed",
}
"""The words that name a role; a part such as `set` or `images` may follow. Only whole words count: `trains` is a class."""
_PART = r"(set|split|data|fold|images?|imgs?|labels?)?"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""Words end before a capital and at anything that is not a letter: `images-val`, `train2017`, `testA`, `trainSet`."""


def must_not_meet(first: str, second: str) -> bool:
    """Whether no sample, and no picture, may be in both splits.

    A fold is compared only with its own fold: val_fold1 is part of train_fold0, and of a train without folds. `trainval` holds
    val by its meaning. Splits of one role (train, train_aug) may overlap; names that say nothing (all, extra) are their owner's.
    Unlabelled pictures are trained on with every fold, so they meet no val and no test.
    """
    (role, fold), (other, other_fold) = _meaning(first), _meaning(second)
    if None in (role, other) or role == other:
        return False
    if "unlabelled" in (role, other):
        return bool({"val", "test"} & {role, other})
    if "test" in (role, other):
        return True
    if "trainval" in (role, other):
        return False
    return fold == other_fold or (role if not fold else other if not other_fold else None) == "val"


def has_role(split: str) -> bool:
    """Whether the name says what the split is for: `train`, `valid`, `testA`, `val_fold1`, but not `paris`."""
    return _meaning(split)[0] is not None


def overlaps(splits: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Samples in two splits that must not share any."""
    return [
        Finding(sample, f"is in two splits, '{first}' and '{second}'")
        for (first, names), (second, others) in combinations(splits.items(), 2)
        if must_not_meet(first, second)
        for sample in sorted(set(names) & set(others))
    ]


def _meaning(split: str) -> tuple[str | None, str]:
    """(train, val, test, trainval, unlabelled or None; the fold, "" if there is none)."""
    roles = [role for word in _WORD.findall(split) if (role := _role(word.lower()))]
    fold = re.search(r"fold[^a-z0-9]?(\d+)", split.lower())
    # The first word decides ("test-dev" is a test), but train beside val is both: train_val, TrainVal.
    role = "trainval" if set(roles) == {"train", "val"} else next(iter(roles), None)
    return role, fold[1] if fold else ""


def _role(word: str) -> str | None:
    return next((role for role, names in _ROLES.items() if re.fullmatch(rf"(mini)?({names}){_PART}", word)), None)
