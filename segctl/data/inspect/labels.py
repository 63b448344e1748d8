"""What the labels of a dataset show, judged: classes without pixels, ignored pixels, values that the class table does not name.

A class without pixels is the commonest sign of masks and a class table that do not fit. It is certain where a value outside the
table takes its place; otherwise it is a warning, because a class may be rare, or a split small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segctl.data.classes import ClassTable, LabelCounts
from segctl.data.findings import Finding
from segctl.data.shards.dataset import PreparedDataset

MAX_IGNORED = 0.3
"""Warn when at least this fraction of a split's pixels is ignored."""
_SHOWN = 5


@dataclass(frozen=True)
class LabelJudgement:
    """Problems that are certain, and sentences about what is likely one."""

    certain: list[Finding]
    warnings: list[str]


def judge_dataset(dataset: PreparedDataset, splits: Sequence[str] = ()) -> LabelJudgement:
    """Judge the labels of some splits of a prepared dataset, or of all, by the counts in its dataset.json; no shard is read.

    A dataset that an older segctl prepared has no counts and gets no judgement.
    """
    counts = {
        split: found
        for split, found in (dataset.label_counts or {}).items()
        if (not splits or split in splits) and len(found.classes) == dataset.classes.num_classes
    }
    found = judge_labels(counts, dataset.classes, "correct the labels or the class table, then prepare it again")
    if dataset.trial:  # a trial may lack any class
        return LabelJudgement([], [*(finding.problem for finding in found.certain), *found.warnings])
    return found


def judge_labels(counts: Mapping[str, LabelCounts], classes: ClassTable, advice: str) -> LabelJudgement:
    """Judge what the labels of each split show.  advice: what to do about labels that do not fit the table."""
    if not counts:
        return LabelJudgement([], [])
    whole = LabelCounts.total(counts.values())
    certain, warnings = [], _split_warnings(counts, classes)
    empty = [name for name, pixels in zip(classes.names, whole.classes, strict=True) if not pixels]
    if whole.unknown:
        words = _values(whole)
        if empty and _takes_their_place(whole, empty, classes):
            problem = f"no label shows {_list(empty)}; the labels hold {words}, which the class table does not name"
            certain.append(Finding("", problem, _advice(whole, empty, advice)))
        elif empty or not _is_id(whole):  # the id 255 usually means ignored, so 255 alone needs no warning
            warnings.append(f"the labels hold {words}, which the class table does not name: these pixels are ignored")
    warnings += [f"{what}: {count}" for what, count in whole.remarks.items()]
    return LabelJudgement(certain, warnings)


def counts_of_splits(splits: Mapping[str, Sequence[str]], labels: Mapping[str, LabelCounts]) -> dict[str, LabelCounts]:
    """What the labels of each split show, from what each label that could be read shows; splits without any are left out."""
    found = {split: [labels[name] for name in names if name in labels] for split, names in splits.items()}
    return {split: LabelCounts.total(counts) for split, counts in found.items() if counts}


def _is_id(counts: LabelCounts) -> bool:
    return "," not in next(iter(counts.unknown))


def _takes_their_place(counts: LabelCounts, empty: Sequence[str], classes: ClassTable) -> bool:
    """Whether it is certain that values outside the table are the classes without pixels.

    255 usually means ignored, so it must be one of only two classes. Blended borders have many colours, so only those colours
    count that make up half of the unknown pixels: they must be no more than the classes they may stand for.
    """
    if _is_id(counts):
        return classes.num_classes == 2 and len(empty) == 1
    total, covered, main = sum(counts.unknown.values()), 0, 0
    for pixels in sorted(counts.unknown.values(), reverse=True):
        if 2 * covered < total:
            covered, main = covered + pixels, main + 1
    return main <= len(empty)


def _values(counts: LabelCounts) -> str:
    """`255 (4.7 % of the pixels)`, the most frequent values first."""
    shown = [f"{value} ({_percent(pixels, counts.pixels)} of the pixels)" for value, pixels in list(counts.unknown.items())[:3]]
    more = len(counts.unknown) - len(shown)
    what = "" if _is_id(counts) else "the colour " if len(shown) == 1 else "the colours "
    return what + ", ".join(shown) + (f" and {more} more" if more else "")


def _advice(counts: LabelCounts, empty: Sequence[str], advice: str) -> str:
    value = next(iter(counts.unknown))
    if len(empty) > 1:
        return advice
    if _is_id(counts):
        return f"give '{empty[0]}' the id {value} in the class table, or list {value} there as ignored"
    return f"give '{empty[0]}' the colour {value} in the class table, or list {value} there as ignored"


def _split_warnings(counts: Mapping[str, LabelCounts], classes: ClassTable) -> list[str]:
    """Sentences about classes without pixels and ignored pixels; splits that lack the same classes share one."""
    warnings = []
    missing: dict[tuple[str, ...], list[str]] = {}
    for split, found in counts.items():
        if not any(found.classes):
            warnings.append(f"every pixel of the labels of split '{split}' is ignored")
            continue
        absent = tuple(name for name, pixels in zip(classes.names, found.classes, strict=True) if not pixels)
        missing.setdefault(absent, []).append(split)
        if found.blank:
            labels = "1 label" if found.blank == 1 else f"{found.blank} labels"
            are = "is" if found.blank == 1 else "are"
            warnings.append(f"{labels} of split '{split}' {are} wholly ignored")
        if found.ignored > MAX_IGNORED * found.pixels:
            warnings.append(f"{_percent(found.ignored, found.pixels)} of the pixels of split '{split}' are ignored")
    for absent, splits in missing.items():
        if absent:
            where = f"split {_list(splits)}" if len(splits) == 1 else f"the splits {_list(splits)}"
            warnings.append(f"no label of {where} shows {_list(absent)}")
    return warnings


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"
