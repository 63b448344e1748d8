"""`segctl report`: one page about many runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segctl.cli import completion
from segctl.cli.options import JsonOpt, RunsRootOpt
from segctl.cli.output import out
from segctl.commands import RUNS_ROOT

if TYPE_CHECKING:
    from segctl.report.groups import Comparison


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUNS", autocompletion=completion.runs, help="Run folders; default: all runs.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The Markdown file to write, with a web page beside it.")
    ] = Path("report.md"),
    runs_root: RunsRootOpt = RUNS_ROOT,
    split: Annotated[str | None, typer.Option("--split", help="Report this evaluated split only; default: all.")] = None,
    json: JsonOpt = False,
) -> None:
    """Write a report as Markdown and as a web page: scores with intervals beside published ones, classes, images."""
    from segctl.report import write_report
    from segctl.report.tables import HEADLINE, scores_table

    written = write_report(runs or [], runs_root, output, split)
    for sentence in written.collection.unreadable:
        out.warn(f"left out: {sentence}")
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
