"""`segctl report`: one page about many runs, or about the difference of two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segctl.cli import completion
from segctl.cli.options import DataRootOpt, JsonOpt, RunsRootOpt
from segctl.cli.output import out
from segctl.commands import DATA_ROOT, RUNS_ROOT
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.report.explorer.album import Budget
    from segctl.report.groups import Comparison

ALL = "all"


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUNS", autocompletion=completion.runs, help="Run folders; default: all runs.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The Markdown file to write, with a web page beside it; default: report.md, or diff.md with --diff.",
        ),
    ] = None,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Compare two runs, RUN_A RUN_B: where the second is better, and whether the difference is beyond noise.",
        ),
    ] = False,
    pictures: Annotated[
        str,
        typer.Option(
            "--pictures", metavar="N|all", help="Number of pictures per split on the web page, with the predictions of all runs."
        ),
    ] = "40",
    runs_root: RunsRootOpt = RUNS_ROOT,
    data_root: DataRootOpt = DATA_ROOT,
    split: Annotated[str | None, typer.Option("--split", help="Report only this evaluated split; default: all.")] = None,
    json: JsonOpt = False,
) -> None:
    """Write a report as Markdown and as a web page: scores with intervals and published scores, classes, pictures."""
    from segctl.report import write_report
    from segctl.report.explorer.album import Budget
    from segctl.report.tables import HEADLINE, scores_table

    if diff and len(runs or []) != 2:
        raise InputError(
            f"--diff compares two runs, got {len(runs or [])}", "give them, as in `segctl report --diff RUN_A RUN_B`"
        )
    with out.progress("drawing pictures") as progress:
        budget = Budget(_count(pictures), data_root, progress)
        if diff and runs:
            _diff(runs, runs_root, output or Path("diff.md"), split, budget, json)
            return
        written = write_report(runs or [], runs_root, output or Path("report.md"), split, budget)
    for sentence in written.collection.unreadable:
        out.warn(f"left out: {sentence}")
    for run in written.collection.runs:
        if run.lost_log:
            out.warn(f"{run.label}: {run.lost_log}")
    if json:
        out.json(
            {"report": str(written.path), "web": str(written.web), "results": [_result(found) for found in written.comparisons]}
        )
        return
    for comparison in written.comparisons:
        table = scores_table(comparison, HEADLINE)
        rows = [[cell.text for cell in row] for row in table.rows]
        out.table(f"{comparison.place}, in percent", table.columns, rows)
    out.result(f"{written.path}\n{written.web}")


def _count(text: str) -> int | None:
    """The number of pictures; None for all."""
    if text == ALL:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InputError(f"--pictures '{text}' is not a number of pictures", "give a number, such as 40, or all, or 0 for none")
    return int(text)


def _diff(runs: list[Path], runs_root: Path, output: Path, split: str | None, budget: "Budget", json: bool) -> None:
    from segctl.report import write_diff
    from segctl.report.diff import row_cells

    written = write_diff(runs[0], runs[1], runs_root, output, split, budget)
    if json:
        out.json({"report": str(written.path), "web": str(written.web), "diffs": [found.as_json() for found in written.diffs]})
        return
    for found in written.diffs:
        for title, rows in (("score", found.scores), ("class, IoU_D", found.classes), ("region", found.sizes)):
            cells = [[row.name, *row_cells(row)] for row in rows]
            if cells:
                columns = (title, written.first.label, written.second.label, "difference", "verdict")
                out.table(f"{found.comparison.place}, in percent", columns, cells)
        for note in found.notes:
            out.note(note)
    out.result(f"{written.path}\n{written.web}")


def _result(comparison: "Comparison") -> dict[str, Any]:
    from segctl.metrics.scores import SCORE_NAMES

    groups = [
        {
            "label": group.label,
            "runs": [str(run.folder.path) for run in group.runs],
            "scores": {name: group.score(name)._asdict() for name in SCORE_NAMES},
        }
        for group in comparison.groups
    ]
    return {"dataset": comparison.dataset, "fingerprint": comparison.fingerprint, "split": comparison.split, "groups": groups}
