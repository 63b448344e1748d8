"""Which splits may share samples, by their names: what is evaluated must never be trained on."""

import re

_ROLES = {"trainval": "trainval", "train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}


def must_not_meet(first: str, second: str) -> bool:
    """Whether no sample, and no picture, may be in both splits.

    A fold is compared only with its own fold: val_fold1 is part of train_fold0, and of a train without folds. `trainval` holds
    val by its meaning. Splits of one role (train, train_aug) may overlap; names that say nothing (all, extra) are their owner's.
    """
    (role, fold), (other, other_fold) = _meaning(first), _meaning(second)
    if None in (role, other) or role == other:
        return False
    if "test" in (role, other):
        return True
    if "trainval" in (role, other):
        return False
    return fold == other_fold or (role if not fold else other if not other_fold else None) == "val"


def _meaning(split: str) -> tuple[str | None, str]:
    """(train, val, test, trainval or None; the fold, empty where there is none)."""
    role = next((role for word, role in _ROLES.items() if re.match(rf"{word}(?![a-z])", split)), None)
    fold = re.search(r"fold_?(\d+)", split)
    return role, fold[1] if fold else ""
