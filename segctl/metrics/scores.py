"""Counts -> the scores of a run. The name of each score says what it averages over.

The definitions are those of arXiv:2310.19252 (Sec. 3), except where RULES says otherwise. Scores are in percent, None where
undefined; the helpers below them work with fractions, NaN where undefined.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.metrics.counts import FN, FP, TP
from segctl.metrics.table import CountTable

Floats = NDArray[np.float64]
TableValue = str | int | float | None

KINDS = ("Acc", "IoU", "Dice")
"""Every average exists of each of these: tp / (tp + fn), tp / (tp + fp + fn), 2 tp / (2 tp + fp + fn)."""

TABLE_KINDS = ("IoU", "Acc", "Precision", "Dice")
"""Columns of the tables per class and per image. Precision is tp / (tp + fp); Acc of a class is also called recall."""

WORST_PERCENT = 5
"""The worst case that every evaluation has; others are computed when asked for."""
QBAR_PERCENTS = tuple(range(10, 101, 10))

SCORE_NAMES = (
    "Acc",
    *(f"m{kind}_{over}" for over in "DIC" for kind in KINDS),
    *(f"m{kind}_{over}_{part}" for part in ("q5", "qbar") for over in "IC" for kind in KINDS),
)
"""Every key of `score`, in the order in which scores.json lists them."""

PER_CLASS_COLUMNS = ("class", *(f"{kind}_{over}" for over in "DC" for kind in TABLE_KINDS), "images")


CLASS_SCORES = PER_CLASS_COLUMNS[1:-1]
"""The scores of one class, such as IoU_D; `IoU_D.person` names that of one class."""


class Rule(NamedTuple):
    """One entry of the glossary that is printed with the numbers."""

    term: str
    text: str


RULES = (
    Rule("unit", "Every score is in percent."),
    Rule(
        "valid pixel",
        "A pixel whose label is not ignored (255). Ignored pixels count nowhere; an image without a valid pixel is left out.",
    ),
    Rule("Acc", "Correct pixels over valid pixels, all images and all classes together."),
    Rule(
        "IoU, Acc, Dice of a class",
        "tp / (tp + fp + fn), tp / (tp + fn) and 2 tp / (2 tp + fp + fn), from whole pixel counts. "
        "Acc of a class is its recall. Precision, tp / (tp + fp), is n/a where nothing is predicted as the class.",
    ),
    Rule(
        "mIoU_D",
        "Dataset: counts are summed over all images, one IoU per class, then the mean over classes. "
        "What most papers print as mIoU.",
    ),
    Rule(
        "mIoU_I",
        "Image: in each image the mean IoU over the classes in its ground truth, then the mean over images. "
        "Small objects in any one image weigh as much as large ones.",
    ),
    Rule(
        "mIoU_C",
        "Class: for each class the mean IoU over the images whose ground truth has it, then the mean over classes. "
        "Rare classes weigh as much as common ones.",
    ),
    Rule("mAcc, mDice", "The same three means of Acc and Dice."),
    Rule(
        "_q5",
        "Worst case: the same mean over the worst 5 % only, the lowest max(1, int(5 / 100 * n)) of n values; "
        "for I over images, for C over the images of each class, then the mean over classes. _q1, _q10: the worst 1 and 10 %.",
    ),
    Rule("_qbar", "The average of the worst-q score over q = 10, 20, ..., 100."),
    Rule(
        "_G",
        "Group: counts are summed within each group of images (a patient's slices, a drive's frames), then the mean over groups.",
    ),
    Rule(
        "BDice",
        "Several raters: the mean Dice score at the thresholds 0.1, 0.2, ..., 0.9 of the share of raters and of the probability.",
    ),
    Rule("image-class pair", "Counts in I and C where the class is in that image's ground truth."),
    Rule(
        "n/a",
        "A class in neither ground truth nor predictions is undefined: left out of every mean, shown as n/a, never 0 or 1. "
        "A class that is predicted but never in the ground truth has IoU and Dice 0 and no Acc.",
    ),
    Rule("outside predictions", "A prediction that is none of the classes is a miss, and no class's false positive."),
    Rule(
        "binary",
        "A dataset marked binary is scored on the foreground alone, D included (Acc stays over all pixels). Its pairs count "
        "where the foreground is in ground truth or prediction; an image with neither is left out of I and C.",
    ),
)
"""The rules behind every number, in the order in which a reader needs them."""


class ImageScore(NamedTuple):
    """An image and its mIoU_I, the mean IoU over the classes in its ground truth, in percent."""

    image: str
    miou_i: float


def worst_names(percents: Iterable[int]) -> tuple[str, ...]:
    """The names of the worst-case scores of `score` that are not in SCORE_NAMES: `mIoU_I_q1` ..., each percentage once."""
    more = [q for q in dict.fromkeys(percents) if q != WORST_PERCENT]
    return tuple(f"m{kind}_{over}_q{q}" for q in more for over in "IC" for kind in KINDS)


def score(table: CountTable, *, binary: bool = False, percents: Iterable[int] = ()) -> dict[str, float | None]:
    """Every score of SCORE_NAMES in percent; None where it is undefined.

    binary: score the foreground (class 1 of 2) alone.  percents: more worst cases, each 1 to 100, see `worst_names`.
    Raises ArgumentError for `binary` with another number of classes.
    """
    counts = table.counts[table.valid_pixels > 0]
    scored = counts[:, scored_classes(table, binary)]
    dataset, pairs = ratios(scored.sum(0)), pair_ratios(scored, binary)
    percents = (WORST_PERCENT, *percents)
    scores = {"Acc": float(divided(counts[..., TP].sum(), counts[..., [TP, FN]].sum()))}
    for kind in KINDS:
        images = [mean(row) for row in pairs[kind]]
        classes = list(pairs[kind].T)
        scores[f"m{kind}_D"] = mean(dataset[kind])
        scores[f"m{kind}_I"] = mean(images)
        scores[f"m{kind}_C"] = mean([mean(column) for column in classes])
        for q in percents:
            scores[f"m{kind}_I_q{q}"] = worst(images, q)
            scores[f"m{kind}_C_q{q}"] = mean([worst(column, q) for column in classes])
        scores[f"m{kind}_I_qbar"] = mean([worst(images, q) for q in QBAR_PERCENTS])
        scores[f"m{kind}_C_qbar"] = mean([mean([worst(column, q) for column in classes]) for q in QBAR_PERCENTS])
    return {name: _percent(scores[name]) for name in (*SCORE_NAMES, *worst_names(percents))}


def per_class(table: CountTable, *, binary: bool = False) -> list[dict[str, TableValue]]:
    """One row per scored class with the keys of PER_CLASS_COLUMNS; `images` is the number of images that IoU_C averages over."""
    classes = scored_classes(table, binary)
    scored = table.counts[:, classes]
    dataset, pairs = ratios(scored.sum(0)), pair_ratios(scored, binary)
    rows: list[dict[str, TableValue]] = []
    for index, name in enumerate(table.class_names[classes]):
        row: dict[str, TableValue] = {"class": name, "images": int((~np.isnan(pairs["IoU"][:, index])).sum())}
        row |= {f"{kind}_D": _percent(dataset[kind][index]) for kind in TABLE_KINDS}
        row |= {f"{kind}_C": _percent(mean(pairs[kind][:, index])) for kind in TABLE_KINDS}
        rows.append({column: row[column] for column in PER_CLASS_COLUMNS})
    return rows


def foreground_scores(class_names: Sequence[str]) -> list[str]:
    """What is shown first of a binary dataset: its foreground's IoU, Dice, precision and recall, counted over the dataset."""
    return [f"{kind}_D.{class_names[1]}" for kind in ("IoU", "Dice", "Precision", "Acc")]


def known_scores(class_names: Sequence[str], *, binary: bool = False) -> list[str]:
    """Every name of a score: those of `score`, then `IoU_D.person` and the like for every scored class."""
    scored = class_names[1:] if binary else class_names
    return [*SCORE_NAMES, *(f"{column}.{name}" for name in scored for column in CLASS_SCORES)]


def class_scores(table: CountTable, *, binary: bool = False) -> dict[str, float | None]:
    """Every score of every scored class by its name, such as IoU_D.person, in percent; None where it is undefined."""
    rows = per_class(table, binary=binary)
    return {f"{column}.{row['class']}": number_or_none(row[column]) for row in rows for column in CLASS_SCORES}


def number_or_none(value: object) -> float | None:
    """The number in a cell of a table; None for a text or an undefined score."""
    return float(value) if isinstance(value, int | float) else None


def per_image(table: CountTable, *, binary: bool = False) -> list[dict[str, TableValue]]:
    """One row per image: image, mIoU_I, mAcc_I, mPrecision_I, mDice_I, Acc_I, valid_pixels, then `IoU.<class>` for every class.

    Acc_I is the percentage of the image's valid pixels that are correct. An image without a valid pixel has None everywhere.
    """
    classes = scored_classes(table, binary)
    pixels = table.valid_pixels
    accuracy = divided(table.counts[..., TP].sum(1), pixels)
    pairs = pair_ratios(table.counts[:, classes], binary)
    columns = [f"IoU.{name}" for name in table.class_names[classes]]
    return [
        {
            "image": name,
            **{f"m{kind}_I": _percent(mean(pairs[kind][index])) for kind in TABLE_KINDS},
            "Acc_I": _percent(accuracy[index]),
            "valid_pixels": int(pixels[index]),
            **dict(zip(columns, map(_percent, pairs["IoU"][index]), strict=True)),
        }
        for index, name in enumerate(table.names)
    ]


def worst_images(table: CountTable, k: int, *, binary: bool = False) -> list[ImageScore]:
    """The k images of lowest mIoU_I, worst first, ties by name; images where it is undefined are left out."""
    iou = pair_ratios(table.counts[:, scored_classes(table, binary)], binary)["IoU"]
    values = [(name, mean(row)) for name, row in zip(table.names, iou, strict=True)]
    found = [ImageScore(name, 100 * value) for name, value in values if not math.isnan(value)]
    return sorted(found, key=lambda image: (image.miou_i, image.image))[:k]


def ratios(counts: NDArray[Any]) -> dict[str, Floats]:
    """Acc, IoU, Dice and Precision as fractions from counts (..., C, 3), each (..., C); NaN where the denominator is 0."""
    tp, fp, fn = counts[..., TP], counts[..., FP], counts[..., FN]
    return {
        "Acc": divided(tp, tp + fn),
        "IoU": divided(tp, tp + fp + fn),
        "Dice": divided(2 * tp, 2 * tp + fp + fn),
        "Precision": divided(tp, tp + fp),
    }


def worst(values: Iterable[float], percent: int) -> float:
    """Mean of the lowest `worst_count` of the n values that are not NaN; NaN without any."""
    found = sorted(_defined(values))
    return mean(found[: worst_count(percent, len(found))])


def worst_count(percent: int, total: int) -> int:
    """How many of n values are the worst q percent: max(1, int(q / 100 * n)), at least one.

    The floats are computed in this order on purpose. `int(70 / 100 * 90)` is 62, because the product is a little less than 63,
    and so it is in the code behind the published numbers (zifuwanggg/JDTLosses, metrics/metric.py at 68ce8ac).
    """
    return max(1, int(percent / 100 * total))


def pair_ratios(counts: NDArray[np.int64], binary: bool) -> dict[str, Floats]:
    """The ratios (N, C) of image-class pairs from counts (N, C, 3); NaN for pairs that do not count in I and C."""
    absent = (counts.sum(-1) if binary else counts[..., [TP, FN]].sum(-1)) == 0
    found = ratios(counts)
    for values in found.values():
        values[absent] = np.nan
    return found


def scored_classes(table: CountTable, binary: bool) -> slice:
    """Which classes are scored: all of them, or class 1 of 2."""
    if binary and len(table.class_names) != 2:
        raise ArgumentError(f"binary scores need 2 classes, background and foreground; got {len(table.class_names)}")
    return slice(1, 2) if binary else slice(None)


def divided(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """part / whole of arrays of one shape, NaN where whole is 0."""
    fraction: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return fraction


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    found = _defined(values)
    # fsum rounds only once, so the order of the images cannot change the last digit.
    return math.fsum(found) / len(found) if found else math.nan


def _defined(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values if not math.isnan(value)]


def _percent(fraction: float) -> float | None:
    return None if math.isnan(fraction) else 100 * float(fraction)
