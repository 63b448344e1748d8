"""What was counted -> the tables of an evaluation on the disk. Needs no torch, for predictions of any framework.

scores.json      every score with its interval, per class, and `about`: what was scored, and how
per_image.csv    one row an image          per_class.csv    one row a class
counts.npz  confusion.npz                  and boundary.npz, instances.npz, calibration.npz where those were counted
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.files import write_csv, write_json, write_whole
from segctl.metrics.cityscapes import Benchmark
from segctl.metrics.intervals import Bootstrap, Interval, intervals
from segctl.metrics.scores import PER_CLASS_COLUMNS, SCORE_NAMES, per_class, per_image
from segctl.metrics.tally import Counted, all_scores
from segctl.runtime.cores import core_count

Content = dict[str, Any]


def score_content(
    counted: Counted, about: Mapping[str, Any], *, binary: bool, benchmark: Benchmark | None = None, how: Bootstrap | None = None
) -> Content:
    """What scores.json holds. `about` is added to, by what the counts know themselves."""
    table = counted.table
    scores = all_scores(counted, binary=binary, benchmark=benchmark)
    found = intervals(table, binary=binary, how=how or Bootstrap(threads=core_count()))
    named = {name.partition(".")[0] for name in scores if "." in name}
    rows = [
        row | {kind: scores[f"{kind}.{row['class']}"] for kind in ("IoU_K", "iIoU") if f"{kind}.{row['class']}" in scores}
        for row in per_class(table, binary=binary)
    ]
    content: Content = {name: value for name, value in scores.items() if "." not in name}
    content["intervals"] = {name: _ends(found.scores[name]) for name in SCORE_NAMES}
    content["intervals_per_class"] = {name: _ends(interval) for name, interval in found.per_class.items()}
    content["intervals_method"], content["intervals_warning"] = found.method, found.warning
    content["per_class"] = rows
    if "IoU_category" in named:
        content["per_category"] = _categories(scores)
    content["about"] = {
        **about,
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


def write_tables(folder: Path, counted: Counted, content: Content) -> None:
    """Write every table; scores.json comes last, so its presence means that they belong together."""
    table, binary = counted.table, bool(content["about"]["binary"])
    images = per_image(table, binary=binary)
    columns = list(images[0]) if images else ["image"]
    write_csv(folder / "per_image.csv", columns, [list(row.values()) for row in images])
    rows = content["per_class"]
    columns = [*PER_CLASS_COLUMNS, *(name for name in (rows[0] if rows else {}) if name not in PER_CLASS_COLUMNS)]
    write_csv(folder / "per_class.csv", columns, [[row[column] for column in columns] for row in rows])
    write_whole(folder / "counts.npz", table.save)
    _write_arrays(folder / "confusion.npz", {"matrix": counted.confusion, "class_names": np.array(table.class_names, np.str_)})
    for name in ("boundary", "instances", "calibration"):
        found = getattr(counted, name)
        if found is None:
            (folder / f"{name}.npz").unlink(missing_ok=True)
        else:
            more = {"unscored": counted.unscored} if name == "instances" and counted.unscored is not None else {}
            _write_arrays(folder / f"{name}.npz", found.arrays() | more)
    write_json(folder / "scores.json", content)


def _write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]  # NumPy reads the names as its own options' types

    write_whole(path, write)
