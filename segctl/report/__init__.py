"""Run folders -> tables, figures, a Markdown page and a web page. Reads the files of runs; needs no torch.

collect.py      the files of a run -> Run, with an Evaluation for each split
groups.py       runs that differ only in the seed -> Group; groups on the same images -> Comparison
gains.py  analysis.py    what to conclude: gains over `none`, intervals, differences, images, mix-ups
tables.py  notes.py  published.py  figures.py  strips.py    parts of the page
headline.py     the first screen
explorer/       pictures of a split with the predictions of all runs
sections.py     all parts -> a Page of content.py, which markdown.py and html.py render
diff.py         two runs -> a Page about where one is better and where worse
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from segctl import __version__
from segctl.errors import InputError, did_you_mean
from segctl.files import move_whole, require_plain, write_text
from segctl.report import html, markdown
from segctl.report.analysis import image_table, measure
from segctl.report.collect import Collection, Run, collect
from segctl.report.content import Page
from segctl.report.diff import Diff, build_diff, diff_runs
from segctl.report.explorer.album import Budget, collect_album
from segctl.report.groups import Comparison, comparisons_of, grouped
from segctl.report.headline import first_of, trio_of
from segctl.report.sections import Drawer, Frame, build


@dataclass(frozen=True)
class Report:
    """The files that were written, a Markdown file and a web page of the same content, and the numbers in them."""

    path: Path
    web: Path
    collection: Collection
    comparisons: tuple[Comparison, ...]


def write_report(
    runs: Sequence[Path], runs_root: Path, path: Path, split: str | None = None, budget: Budget | None = None
) -> Report:
    """Write a Markdown file, a web page of the same content beside it, and the figures in `<name>_files/`.

    path: of either file; the web page is the one that ends in .html.  runs: run folders; if empty, every run under `runs_root`.
    split: report only this evaluated split.  budget: how many pictures the web page keeps. Raises InputError before drawing where
    the report cannot be written; a report that fails leaves nothing new.
    """
    places = _places(path)
    collection = collect(runs, runs_root)
    _check_split(collection, split)
    comparisons = tuple(comparisons_of(collection.runs, split))
    made = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by segctl {__version__}."

    def draw(drawer: Drawer) -> Page:
        return build(_frame(collection, comparisons, split, drawer, budget or Budget()), made)

    path, web = _write(places, draw)
    return Report(path, web, collection, comparisons)


@dataclass(frozen=True)
class DiffReport:
    """The files that were written about the difference of two runs, and the numbers in them."""

    path: Path
    web: Path
    first: Run
    second: Run
    diffs: tuple[Diff, ...]


def write_diff(
    first: Path, second: Path, runs_root: Path, path: Path, split: str | None = None, budget: Budget | None = None
) -> DiffReport:
    """Write where the second run is better and where worse, by class, image, size of region and at the boundary.

    The files are those of `write_report`. Raises InputError where the runs cannot be compared.
    """
    places = _places(path)
    budget = budget or Budget()
    a, b, diffs = diff_runs(first, second, runs_root, split, budget)
    path, web = _write(places, lambda drawer: build_diff(a, b, diffs, drawer, budget))
    return DiffReport(path, web, a, b, tuple(diffs))


def _frame(
    collection: Collection, comparisons: tuple[Comparison, ...], split: str | None, drawer: Drawer, budget: Budget
) -> Frame:
    """Everything that the sections need, measured; collects the pictures."""
    runs = collection.runs
    positions = {run.label: index for index, (_, members) in enumerate(grouped(runs)) for run in members}
    for found in comparisons:  # an exported file stands beside its run, in a colour of its own
        for group in found.groups:
            colour = max(positions.values()) + 1
            positions |= {run.label: colour for run in group.runs if run.label not in positions}
    measured = {found.place: measure(found, positions) for found in comparisons}
    scores = {place: image_table(found) for place, found in measured.items() if found}
    pictures = {}
    for comparison in comparisons:
        trio = trio_of(comparison, runs)
        pictures[comparison.place] = collect_album(
            comparison, trio.teacher, trio.pair, positions, scores.get(comparison.place), budget
        )
    return Frame(collection, comparisons, measured, split, drawer, scores, pictures, positions, first_of(comparisons, runs))


def _places(path: Path) -> tuple[Path, Path]:
    """The Markdown file and the web page beside it. Raises InputError where they cannot be written."""
    if path.is_dir() or not path.name:
        raise InputError(f"cannot write the report to '{path}': it is a folder", "give a file, such as -o report.md")
    is_web = path.suffix.lower() == ".html"
    path, web = (path.with_suffix(".md"), path) if is_web else (path, path.with_suffix(".html"))
    _check_places(path, web)
    return path, web


def _write(places: tuple[Path, Path], draw: Callable[[Drawer], Page]) -> tuple[Path, Path]:
    """Draw a page and write it in both forms, with its figures; if anything fails, nothing new is left."""
    path, web = places
    figures = Path(f"{path.stem}_files")
    with _workshop(path) as workshop:
        (workshop / figures).mkdir()
        page = draw(Drawer(workshop, figures))
        write_text(workshop / path.name, markdown.render_markdown(page))
        write_text(workshop / web.name, html.render_html(page, workshop))
        # All files are on the disk now, so a full disk cannot leave a new page beside an old one.
        for file in [*sorted((workshop / figures).iterdir()), workshop / path.name, workshop / web.name]:
            move_whole(file, path.parent / file.relative_to(workshop))
    return path, web


def _check_split(collection: Collection, split: str | None) -> None:
    known = sorted({name for run in collection.runs for name in run.evaluations})
    if split is not None and split not in known:
        evaluated = f"runs are evaluated on {', '.join(known)}" if known else "no run is evaluated"
        raise InputError(f"no run is evaluated on split '{split}'{did_you_mean(split, known)}", f"{evaluated}; see `segctl eval`")


def _check_places(path: Path, web: Path) -> None:
    """Raise InputError where a file is in the way that the report must not replace."""
    for file in (path, web):
        try:
            require_plain(file)
            foreign = file == web and file.is_file() and b"by segctl" not in file.read_bytes()
        except OSError as error:
            raise _cannot_write(path, error) from error
        if foreign:
            raise InputError(
                f"'{file}' is in the way of the web page, and `segctl report` did not write it", "give another file with -o"
            )


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """A temporary folder beside the report, where it is made; in the end it is removed, and so are folders that stay empty."""
    new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.stem[:40]}.part", dir=path.parent))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write the report to '{path}': {error.strerror or error}", "give another file with -o")
