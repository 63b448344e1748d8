"""`segctl bench`: what networks cost, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segctl.cli import completion
from segctl.cli.options import DataRootOpt, DeviceOpt, JsonOpt
from segctl.cli.output import out
from segctl.commands import DATA_ROOT
from segctl.runtime.cores import core_count

if TYPE_CHECKING:
    from segctl.bench.exported_file import Conditions
    from segctl.bench.measure import BenchRow

BENCH_COLUMNS = (
    "what",
    "form",
    "M params",
    "GFLOP",
    "file, MB",
    "peak, MB",
    "median, ms",
    "90 %, ms",
    "images/s",
    "of the first",
)


def bench_targets(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|PRESET|FILE...",
            autocompletion=completion.measurable,
            help="Runs, with the files in their export folder; presets; model files; exported files. The first is the reference.",
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HxW", help="Size of the image; default: the commonest one in the dataset of the first network."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="CPU threads; default: every core.")
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile", help="Also measure each network compiled by torch, which takes a minute to compile."
        ),
    ] = True,
    device: DeviceOpt = None,
    trust_program: Annotated[
        bool, typer.Option("--trust-program", help="Also measure .pt2 and TorchScript files, which may run code stored in them.")
    ] = False,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Measure parameters, FLOPs, memory and latency from a uint8 image to its class map, side by side in float32."""
    from segctl.bench.exported_file import Conditions
    from segctl.bench.measure import measure_in_turns
    from segctl.bench.subjects import subjects_of, usual_size
    from segctl.runtime.device import choose_compute
    from segctl.schema.evaluate import read_size

    compute = choose_compute(device, "fp32")
    sides = usual_size(targets[0], data_root, trusted=trust_program) if size is None else read_size("--size", size)
    conditions = Conditions(sides, core_count() if threads is None else threads, str(compute.device), trust_program)
    subjects = [one for target in targets for one in subjects_of(target, sides, data_root, compiled=compile_)]
    with out.progress("measuring") as progress:
        rows = measure_in_turns(subjects, conditions, progress)
    for row in rows:
        if row.failure:
            out.warn(f"{row.subject.name} as {row.subject.form} is not measured: {row.failure}")
    if json:
        out.json(_json(rows, conditions))
        return
    _show(rows, conditions)


def _show(rows: "list[BenchRow]", conditions: "Conditions") -> None:
    height, width = conditions.size
    threads = f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}"
    where = threads if conditions.device == "cpu" else f"{conditions.device}, {threads}"
    first = next(row.subject for row in rows if not row.failure)
    out.table(
        f"One image of {height}×{width} on {where}, float32 unless the file is quantised",
        BENCH_COLUMNS,
        [_cells(row) for row in rows],
        [
            "GFLOP: torch's count of multiply-adds × 2, without norms, activations and resizing. Time and memory run from an "
            "image to its class map; memory is the peak of a process that does nothing else, its libraries included.",
            f"of the first: time divided by that of {first.name} as {first.form}, the median over "
            f"{max(row.rounds for row in rows)} rounds in which all take turns.",
        ],
        drop=("images/s", "90 %, ms", "file, MB", "peak, MB"),
    )


def _cells(row: "BenchRow") -> list[str]:
    subject = row.subject
    return [
        subject.name,
        subject.form,
        _number(None if subject.parameters is None else subject.parameters / 1e6, 2),
        _number(subject.gflop, 2),
        _number(_megabytes(subject.file), 1),
        _number(row.peak_mb, 0),
        _number(row.median_ms, 1),
        _number(row.p90_ms, 1),
        _number(row.images_per_s, 1),
        _number(row.ratio, 2),
    ]


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:,.{digits}f}"


def _megabytes(file: Path | None) -> float | None:
    from segctl.programs import bytes_of

    return None if file is None else bytes_of(file) / 1e6


def _json(rows: "list[BenchRow]", conditions: "Conditions") -> dict[str, Any]:
    return {
        "size": list(conditions.size),
        "threads": conditions.threads,
        "device": conditions.device,
        "rows": [
            {
                "target": row.subject.target,
                "form": row.subject.form,
                "file": None if row.subject.file is None else str(row.subject.file),
                "parameters": row.subject.parameters,
                "gflop": row.subject.gflop,
                "file_mb": _megabytes(row.subject.file),
                "peak_mb": row.peak_mb,
                "median_ms": row.median_ms,
                "p90_ms": row.p90_ms,
                "images_per_s": row.images_per_s,
                "ratio": row.ratio,
                "rounds": row.rounds,
                "failure": row.failure or None,
            }
            for row in rows
        ],
    }
