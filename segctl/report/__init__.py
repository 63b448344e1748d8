"""Run folders -> tables, figures, a Markdown page and a web page. Reads what runs left on disk; needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from segctl import __version__
from segctl.errors import InputError, did_you_mean
from segctl.files import write_text
from segctl.report import html, markdown
from segctl.report.analysis import measure
from segctl.report.collect import Collection, collect
from segctl.report.findings import Drawer
from segctl.report.groups import Comparison, compare
from segctl.report.sections import Frame, build


@dataclass(frozen=True)
class Report:
    """What was written (a Markdown file and a web page of the same content), and the numbers in it."""

    path: Path
    web: Path
    collection: Collection
    comparisons: tuple[Comparison, ...]


def write_report(runs: Sequence[Path], runs_root: Path, path: Path, split: str | None = None) -> Report:
    """Write a Markdown file, the same content as one web page beside it, and `<its name>_files/` with the figures.

    path: of either file; the web page is the one that ends in .html.
    runs: run folders; none takes every run under `runs_root`.  split: only that one of the evaluated splits.
    """
    web = path.with_suffix(".html")
    path = path.with_suffix(".md") if path == web else path
    collection = collect(runs, runs_root)
    _check_split(collection, split)
    comparisons = tuple(compare(collection.runs, split))
    figures = Path(f"{path.stem}_files")
    _check_writable(path, figures)
    made = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by segctl {__version__}."
    measured = {comparison.place: measure(comparison) for comparison in comparisons}
    page = build(Frame(collection, comparisons, measured, split, Drawer(path.parent, figures)), made)
    write_text(path, markdown.render(page))
    write_text(web, html.render(page, path.parent))
    return Report(path, web, collection, comparisons)


def _check_split(collection: Collection, split: str | None) -> None:
    known = sorted({name for run in collection.runs for name in run.evaluations})
    if split is not None and split not in known:
        evaluated = f"runs are evaluated on {', '.join(known)}" if known else "no run is evaluated at all"
        raise InputError(f"no run is evaluated on split '{split}'{did_you_mean(split, known)}", f"{evaluated}; see `segctl eval`")


def _check_writable(path: Path, figures: Path) -> None:
    """Say now, and not after drawing, that the report has no place."""
    if path.is_dir():
        raise InputError(f"cannot write the report to '{path}': it is a folder", "give a file, such as -o report.md")
    try:
        (path.parent / figures).mkdir(parents=True, exist_ok=True)
        probe = path.parent / figures / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write the report to '{path}': {error.strerror}", "give another place with -o") from error
