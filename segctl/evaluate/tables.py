"""Counts -> the files of an evaluation. Needs no torch, so that it also serves predictions of other frameworks.

scores.json      every score with its interval, the scores of each class, and `about`: what was scored, and how
per_image.csv    one row per image         per_class.csv    one row per class
*.npz            the counts, see metrics/store.py
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segctl.files import write_csv, write_json
from segctl.metrics.cityscapes_scores import Benchmark
from segctl.metrics.intervals import Bootstrap, Interval, intervals
from segctl.metrics.scores import PER_CLASS_COLUMNS, SCORE_NAMES, per_class, per_image
from segctl.metrics.store import save_counts
from segctl.metrics.tally import USUAL, Choice, EvaluationCounts, all_scores
from segctl.runtime.cores import core_count

ScoresJson = dict[str, Any]
"""The content of a scores.json."""


def scores_json(
    counts: EvaluationCounts,
    about: Mapping[str, Any],
    *,
    binary: bool,
    benchmark: Benchmark | None = None,
    how: Bootstrap | None = None,
    choice: Choice = USUAL,
) -> ScoresJson:
    """The content of scores.json. `about` gets what the counts themselves know: the number of images, ignored images, ..."""
    table = counts.table
    scores = all_scores(counts, binary=binary, benchmark=benchmark, choice=choice)
    found = intervals(table, binary=binary, how=how or Bootstrap(threads=core_count()))
    named = {name.partition(".")[0] for name in scores if "." in name}
    rows = [
        row | {kind: scores[f"{kind}.{row['class']}"] for kind in ("IoU_K", "iIoU") if f"{kind}.{row['class']}" in scores}
        for row in per_class(table, binary=binary)
    ]
    content: ScoresJson = {name: value for name, value in scores.items() if "." not in name}
    content["intervals"] = {name: _ends(found.scores[name]) for name in SCORE_NAMES}
    content["intervals_per_class"] = {name: _ends(interval) for name, interval in found.per_class.items()}
    content["intervals_method"], content["intervals_warning"] = found.method, found.warning
    content["per_class"] = rows
    if "IoU_category" in named:
        content["per_category"] = _categories(scores)
    content["about"] = {
        **{name: value for name, value in about.items() if name != "segment_px"},
        **choice.in_words(),
        "images": len(table.names),
        "binary": binary,
        "ignored_images": table.ignored_images,
        "outside_predictions": table.outside_predictions,
    }
    return content


def _categories(scores: Mapping[str, float | None]) -> list[dict[str, Any]]:
    names = [name.partition(".")[2] for name in scores if name.startswith("IoU_category.")]
    return [
        {"category": name, "IoU": scores[f"IoU_category.{name}"], "iIoU": scores.get(f"iIoU_category.{name}")} for name in names
    ]


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def write_tables(folder: Path, counts: EvaluationCounts, scores: ScoresJson) -> None:
    """Write every file. scores.json comes last, so where it exists the other files are complete and belong to it."""
    images = per_image(counts.table, binary=bool(scores["about"]["binary"]))
    columns = list(images[0]) if images else ["image"]
    write_csv(folder / "per_image.csv", columns, [list(row.values()) for row in images])
    rows = scores["per_class"]
    columns = [*PER_CLASS_COLUMNS, *(name for name in (rows[0] if rows else {}) if name not in PER_CLASS_COLUMNS)]
    write_csv(folder / "per_class.csv", columns, [[row[column] for column in columns] for row in rows])
    save_counts(folder, counts)
    write_json(folder / "scores.json", scores)
