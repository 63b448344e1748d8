"""Counts on disk: the one place that knows the arrays in the npz files of an evaluation.

    counts.npz         names, class_names, counts int64 (N, C, 3), and groups where the dataset names them
    boundary.npz       the same arrays, counted on the boundaries
    confusion.npz      matrix int64 (C, C), rows are the truth; class_names
    instances.npz      names, image int64 (K,), rows int64 (K, 4); unscored int64 (C,) where the benchmark asks for it
    calibration.npz    names, bins float64 (N, 1 + C, BINS, 3)
    raters.npz         names, counts int64 (N, 9, C, 3)
    part-*.npz         all of them in one file (`table.counts`, `boundary.counts`, ...), and `key`, while counting is under way

Every reader checks dtype and shape of each array and raises InputError, naming file and array, for anything that does not fit.
Nothing is pickled, so a file from a stranger can be read safely.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.files import read_npz, write_npz
from segctl.metrics.calibration import BINS, CalibrationTable
from segctl.metrics.counts import TP
from segctl.metrics.instances import InstanceTable
from segctl.metrics.raters import THRESHOLDS, RaterTable
from segctl.metrics.table import CountTable
from segctl.metrics.tally import EvaluationCounts

Arrays = dict[str, NDArray[Any]]

MOST_PIXELS = 2.0**53
"""Whole numbers up to this are exact as float64, which scores are computed in; no dataset has as many pixels."""

TABLE_HINT = "give a counts.npz that `segctl eval` wrote"
NEIGHBOUR_HINT = "run `segctl eval` on that run again, or move counts.npz to a folder of its own"


def save_table(path: Path, table: CountTable) -> None:
    """Write tp, fp and fn of each image to exactly this path, whole."""
    write_npz(path, _table_arrays(table))


def load_table(path: Path, hint: str = TABLE_HINT) -> CountTable:
    """Read what `save_table` wrote. Raises InputError for anything else."""
    return _Stored(path, hint).table()


def save_counts(folder: Path, counts: EvaluationCounts) -> None:
    """Write counts.npz, confusion.npz and what else was counted; remove files of an earlier evaluation that counted more."""
    save_table(folder / "counts.npz", counts.table)
    write_npz(folder / "confusion.npz", {"matrix": counts.confusion, "class_names": _texts(counts.table.class_names)})
    beside = {
        "boundary": None if counts.boundary is None else _table_arrays(counts.boundary),
        "instances": None if counts.instances is None else _instance_arrays(counts.instances, counts.unscored),
        "calibration": None if counts.calibration is None else _calibration_arrays(counts.calibration),
        "raters": None if counts.raters is None else _rater_arrays(counts.raters),
    }
    for name, arrays in beside.items():
        if arrays is None:
            (folder / f"{name}.npz").unlink(missing_ok=True)
        else:
            write_npz(folder / f"{name}.npz", arrays)


def load_counts(file: Path) -> EvaluationCounts:
    """Read a counts.npz and the files of the same evaluation beside it; a missing confusion.npz gives a matrix of zeros.

    Raises InputError where a file is malformed or is not of the same images.
    """
    table, folder = load_table(file), file.parent
    size, classes = len(table.names), len(table.class_names)
    confusion = load_confusion(folder / "confusion.npz", classes)
    boundary, instances, calibration, raters = (
        _beside(folder / f"{name}.npz") for name in ("boundary", "instances", "calibration", "raters")
    )
    counts = EvaluationCounts(
        table,
        np.zeros((classes, classes), np.int64) if confusion is None else confusion,
        boundary.table() if boundary else None,
        instances.instances(classes) if instances else None,
        calibration.calibration(size, classes) if calibration else None,
        instances.unscored(classes) if instances else None,
        raters.raters(size, classes) if raters else None,
    )
    for name in ("boundary", "instances", "calibration", "raters"):
        found = getattr(counts, name)
        if found is not None and found.names != table.names:
            raise _not_of_these_images(folder / f"{name}.npz", file)
    # The matrix has no image names. Its diagonal must be the true positives, which another evaluation would not repeat.
    if confusion is not None and confusion.any() and (confusion.diagonal() != table.counts[..., TP].sum(0)).any():
        raise _not_of_these_images(folder / "confusion.npz", file)
    return counts


def load_confusion(path: Path, classes: int, hint: str = NEIGHBOUR_HINT) -> NDArray[np.int64] | None:
    """The confusion matrix int64 (C, C), rows truth; None where there is no such file. Raises InputError for a malformed one."""
    stored = _beside(path, hint)
    return stored.array("matrix", np.int64, (classes, classes)) if stored else None


def save_part(path: Path, counts: EvaluationCounts, key: str) -> None:
    """Write what has been counted until now, whole. key: a hash of everything that decides the numbers (`files.content_key`)."""
    arrays: Arrays = {"key": np.array(key), "confusion": counts.confusion}
    arrays |= _prefixed("table", _table_arrays(counts.table))
    if counts.boundary is not None:
        arrays |= _prefixed("boundary", _table_arrays(counts.boundary))
    if counts.instances is not None and counts.unscored is not None:
        arrays |= _prefixed("instances", _instance_arrays(counts.instances, None)) | {"unscored": counts.unscored}
    if counts.calibration is not None:
        arrays |= _prefixed("calibration", _calibration_arrays(counts.calibration))
    if counts.raters is not None:
        arrays |= _prefixed("raters", _rater_arrays(counts.raters))
    write_npz(path, arrays)


def load_part(path: Path, key: str) -> EvaluationCounts | None:
    """What `save_part` wrote under this key; None where the file is missing, malformed or has another key.

    No error: whoever resumes an evaluation counts those images again.
    """
    try:
        stored = _Stored(path)
        if stored.text("key") != key:
            return None
        table = stored.under("table").table()
        size, classes = len(table.names), len(table.class_names)
        return EvaluationCounts(
            table,
            stored.array("confusion", np.int64, (classes, classes)),
            stored.under("boundary").table() if stored.has("boundary.counts") else None,
            stored.under("instances").instances(classes) if stored.has("instances.rows") else None,
            stored.under("calibration").calibration(size, classes) if stored.has("calibration.bins") else None,
            stored.unscored(classes),
            stored.under("raters").raters(size, classes) if stored.has("raters.counts") else None,
        )
    except InputError:
        return None


class _Stored:
    """The arrays of one npz file, each checked when it is taken out."""

    def __init__(self, path: Path, hint: str = TABLE_HINT, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.path, self.hint = path, hint
        self.arrays = read_npz(path, "counts", hint) if arrays is None else arrays

    def under(self, prefix: str) -> "_Stored":
        """The arrays whose names begin with `prefix.`, without it."""
        found = {name.removeprefix(f"{prefix}."): array for name, array in self.arrays.items() if name.startswith(f"{prefix}.")}
        return _Stored(self.path, self.hint, found)

    def has(self, name: str) -> bool:
        return name in self.arrays

    def array(self, name: str, dtype: type[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
        """One array; None in the shape stands for any length. Raises InputError where it is missing or of another kind."""
        found = self._take(name)
        fits = found.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, found.shape, strict=True))
        if found.dtype != dtype or not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise self.fault(f"array '{name}' is {found.dtype} {found.shape}, wanted {np.dtype(dtype)} ({wanted})")
        if found.size and not (found.min() >= 0 and float(found.sum(dtype=np.float64)) < MOST_PIXELS):  # NaN compares as false
            raise self.fault(f"array '{name}' holds numbers that are not counts: they are negative, too large or not finite")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._take(name)
        if found.ndim != 1 or found.dtype.kind != "U":
            raise self.fault(f"array '{name}' is {found.dtype} {found.shape}, wanted a list of texts")
        return tuple(map(str, found))

    def text(self, name: str) -> str:
        return str(self._take(name))

    def table(self) -> CountTable:
        names, class_names = self.texts("names"), self.texts("class_names")
        counts = self.array("counts", np.int64, (len(names), len(class_names), 3))
        try:
            return CountTable(names, class_names, counts, self.texts("groups") if self.has("groups") else None)
        except InputError as error:
            raise self.fault(error.message) from error

    def instances(self, classes: int) -> InstanceTable:
        names, rows = self.texts("names"), self.array("rows", np.int64, (None, 4))
        image = self.array("image", np.int64, (len(rows),))
        if len(rows) and not (image.min() >= 0 and image.max() < len(names)):
            raise self.fault(f"array 'image' holds numbers outside 0 to {len(names) - 1}")
        if len(rows) and not (rows[:, 0].min() >= 0 and rows[:, 0].max() < classes):
            raise self.fault(f"array 'rows' holds classes outside 0 to {classes - 1}")
        return InstanceTable(names, image, rows)

    def calibration(self, images: int, classes: int) -> CalibrationTable:
        return CalibrationTable(self.texts("names"), self.array("bins", np.float64, (images, 1 + classes, BINS, 3)))

    def raters(self, images: int, classes: int) -> RaterTable:
        return RaterTable(self.texts("names"), self.array("counts", np.int64, (images, len(THRESHOLDS), classes, 3)))

    def unscored(self, classes: int) -> NDArray[np.int64] | None:
        return self.array("unscored", np.int64, (classes,)) if self.has("unscored") else None

    def fault(self, problem: str) -> InputError:
        return InputError(f"cannot read counts from '{self.path}': {problem}", self.hint)

    def _take(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise self.fault(f"array '{name}' is missing")
        found = self.arrays[name]
        if not isinstance(found, np.ndarray):  # NumPy hands out a zip's other files as bytes
            raise self.fault(f"'{name}' is not an array")
        return found


def _beside(path: Path, hint: str = NEIGHBOUR_HINT) -> _Stored | None:
    return _Stored(path, hint) if path.is_file() else None


def _not_of_these_images(neighbour: Path, file: Path) -> InputError:
    return InputError(f"'{neighbour}' is not of the same images as '{file}'", "move counts.npz to a folder of its own")


def _table_arrays(table: CountTable) -> Arrays:
    arrays = {"names": _texts(table.names), "class_names": _texts(table.class_names), "counts": table.counts}
    return arrays if table.groups is None else arrays | {"groups": _texts(table.groups)}


def _instance_arrays(instances: InstanceTable, unscored: NDArray[np.int64] | None) -> Arrays:
    """The arrays of a file by name; unscored int64 (C,) as in EvaluationCounts, or None."""
    arrays = {"names": _texts(instances.names), "image": instances.image, "rows": instances.rows}
    return arrays if unscored is None else arrays | {"unscored": unscored}


def _calibration_arrays(calibration: CalibrationTable) -> Arrays:
    return {"names": _texts(calibration.names), "bins": calibration.bins}


def _rater_arrays(raters: RaterTable) -> Arrays:
    return {"names": _texts(raters.names), "counts": raters.counts}


def _texts(words: tuple[str, ...]) -> NDArray[np.str_]:
    return np.array(words, dtype=np.str_)


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
