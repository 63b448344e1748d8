"""Run folders -> tables, figures, a Markdown page and a web page. Reads the files of runs; needs no torch.

collect.py      the files of a run -> Run, with an Evaluation for each split
groups.py       runs that differ only in the seed -> Group; groups on the same images -> Comparison
gains.py  analysis.py    what to conclude: gains over `none`, intervals, differences, images, mix-ups
tables.py  notes.py  published.py  figures.py  strips.py    parts of the page
sections.py     all parts -> a Page of content.py, which markdown.py and html.py render
"""

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
from segctl.report.groups import Comparison, comparisons_of
from segctl.report.sections import Drawer, Frame, build


@dataclass(frozen=True)
class Report:
    """The files that were written, a Markdown file and a web page of the same content, and the numbers in them."""

    path: Path
    web: Path
    collection: Collection
    comparisons: tuple[Comparison, ...]


def write_report(runs: Sequence[Path], runs_root: Path, path: Path, split: str | None = None) -> Report:
    """Write a Markdown file, a web page of the same content beside it, and the figures in `<name>_files/`.

    path: of either file; the web page is the one that ends in .html.  runs: run folders; if empty, every run under `runs_root`.
    split: report only this evaluated split. Raises InputError before drawing where the report cannot be written.
    """
    web = path.with_suffix(".html")
    path = path.with_suffix(".md") if path == web else path
    collection = collect(runs, runs_root)
    _check_split(collection, split)
    comparisons = tuple(comparisons_of(collection.runs, split))
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
        evaluated = f"runs are evaluated on {', '.join(known)}" if known else "no run is evaluated"
        raise InputError(f"no run is evaluated on split '{split}'{did_you_mean(split, known)}", f"{evaluated}; see `segctl eval`")


def _check_writable(path: Path, figures: Path) -> None:
    """Raise InputError now, and not after minutes of drawing, where the report cannot be written."""
    if path.is_dir():
        raise InputError(f"cannot write the report to '{path}': it is a folder", "give a file, such as -o report.md")
    try:
        (path.parent / figures).mkdir(parents=True, exist_ok=True)
        probe = path.parent / figures / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write the report to '{path}': {error.strerror}", "give another file with -o") from error
