"""Saved counts -> scores again, without images or network. Needs no torch."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.tables import Content, score_content
from segctl.files import read_json
from segctl.metrics.calibration import CalibrationTable
from segctl.metrics.instances import InstanceTable
from segctl.metrics.table import CountTable
from segctl.metrics.tally import Counted

Arrays = dict[str, NDArray[Any]]


def score_counts(path: Path, binary: bool) -> tuple[Counted, Content]:
    """Score a counts.npz, with what lies beside it: confusion, boundary, instances, calibration, and what scores.json says of it.

    path: the file, or the folder it is in.  binary: score the foreground alone, as the evaluation did or not.
    """
    file = path / "counts.npz" if path.is_dir() else path
    counted = read_counted(file)
    beside = file.with_name("scores.json")
    about = dict(read_json(beside).get("about", {})) if beside.is_file() else {"predictions": str(file)}
    benchmark = benchmark_of(counted.table.class_names) if counted.confusion.any() else None
    content = score_content(counted, about, binary=binary or bool(about.get("binary")), benchmark=benchmark)
    return counted, content


def read_counted(file: Path) -> Counted:
    """The counts of a file and of its neighbours. Raises InputError where one of them is not of the same evaluation."""
    table, folder = CountTable.load(file), file.parent
    classes = len(table.class_names)
    confusion = _read(folder / "confusion.npz").get("matrix", np.zeros((classes, classes), np.int64))
    instances, bins = _read(folder / "instances.npz"), _read(folder / "calibration.npz")
    boundary = CountTable.load(folder / "boundary.npz") if (folder / "boundary.npz").is_file() else None
    counted = Counted(
        table,
        confusion,
        boundary,
        InstanceTable.from_arrays(instances) if instances else None,
        CalibrationTable.from_arrays(bins) if bins else None,
        instances.get("unscored"),
    )
    for name, found in (("boundary", boundary), ("instances", counted.instances), ("calibration", counted.calibration)):
        if found is not None and found.names != table.names:
            raise _foreign(folder / f"{name}.npz", file)
    if counted.confusion.any() and (counted.confusion.diagonal() != table.counts[..., 0].sum(0)).any():
        raise _foreign(folder / "confusion.npz", file)
    return counted


def _foreign(neighbour: Path, file: Path) -> InputError:
    return InputError(f"'{neighbour}' is not of the same images as '{file}'", "score counts.npz from a folder of its own")


def _read(path: Path) -> Arrays:
    """The arrays of an npz; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read '{path}': {error}", "leave it out, or evaluate again") from error
