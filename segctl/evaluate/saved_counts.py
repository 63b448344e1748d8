"""Saved counts -> scores again, without images and without a network. Needs no torch."""

from pathlib import Path

from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.scores_record import read_about
from segctl.evaluate.tables import ScoresJson, scores_json
from segctl.metrics.store import load_counts
from segctl.metrics.tally import USUAL, Choice, EvaluationCounts


def score_counts(path: Path, binary: bool, choice: Choice = USUAL) -> tuple[EvaluationCounts, ScoresJson]:
    """Score a counts.npz together with the files of the same evaluation beside it.

    path: the file, or its folder.  binary: score the foreground alone, even if the evaluation did not.
    choice: which scores beside the usual.
    Raises InputError for a malformed file.
    """
    file = path / "counts.npz" if path.is_dir() else path
    counts = load_counts(file)
    beside = file.with_name("scores.json")
    about = read_about(beside) if beside.is_file() else {"predictions": str(file)}
    # A matrix of zeros stands for a missing confusion.npz, which the scores of the benchmark's categories need.
    benchmark = benchmark_of(counts.table.class_names) if counts.confusion.any() else None
    scores = scores_json(counts, about, binary=binary or bool(about.get("binary")), benchmark=benchmark, choice=choice)
    return counts, scores
