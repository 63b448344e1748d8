"""`segctl compare`: train one student with several methods and seeds, and print them in one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segctl.cli import completion
from segctl.cli.options import (
    DataOpt,
    DataRootOpt,
    GivenTeachers,
    JsonOpt,
    RunsRootOpt,
    SetOpt,
    StepsOpt,
    TeacherOpt,
    TeacherPresetOpt,
    TrustOpt,
)
from segctl.cli.output import out
from segctl.commands import DATA_ROOT, RUNS_ROOT, command_line
from segctl.errors import InputError, did_you_mean
from segctl.runtime.device_name import check_device_name

if TYPE_CHECKING:
    from segctl.report.groups import Group
    from segctl.schema.run import DistillRun
    from segctl.schema.terms.methods import Method
    from segctl.train.compare import Job


def compare(
    preset: Annotated[
        str,
        typer.Option("--preset", metavar="NAME_OR_FILE", autocompletion=completion.presets, help="The student's preset."),
    ],
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="NAMES",
            autocompletion=completion.methods,
            help="Methods, separated by commas, such as none,kd,cwd,jml.",
        ),
    ],
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, max=1000, help="How many seeds; the first is the preset's.")
    ] = 3,
    data: DataOpt = None,
    teacher: TeacherOpt = None,
    teacher_preset: TeacherPresetOpt = None,
    trust_program: TrustOpt = False,
    set_: SetOpt = None,
    steps: StepsOpt = None,
    devices: Annotated[
        str | None,
        typer.Option(
            "--devices",
            metavar="NAMES",
            help="Devices to train on at the same time, such as cuda:0,cuda:1; default: one run at a time.",
        ),
    ] = None,
    data_root: DataRootOpt = DATA_ROOT,
    runs_root: RunsRootOpt = RUNS_ROOT,
    json: JsonOpt = False,
) -> None:
    """Train one student with several methods and seeds, and print one table. Run the same command again to resume."""
    names = _methods(methods)
    places: list[str | None] = (
        [None] if devices is None else [check_device_name(name, "--devices") for name in devices.split(",")]
    )
    from segctl.train.build import require_methods
    from segctl.train.compare import ComparisonRequest, open_comparison, plan_jobs, require_fitting, run_jobs

    changes = [*(set_ or []), *([] if steps is None else [f"train.steps={steps}"])]
    teachers = GivenTeachers.of(teacher)
    if teachers.weights is not None:
        if any(change.startswith("teacher.weights=") for change in changes):
            raise InputError("--teacher gives weights, and --set teacher.weights does too", "give them in one place")
        changes.append(f"teacher.weights={list(teachers.weights)}")
    request = ComparisonRequest(preset, tuple(changes), teacher_preset, data_root, runs_root, trust_program, data)
    run, dataset, shared_teacher, reasons = open_comparison(request, names, teachers.paths)
    for note in (*reasons, *(() if shared_teacher is None else shared_teacher.notes)):
        out.note(note)
    jobs = plan_jobs(run, names, seeds, runs_root)
    require_methods({job.method: job.run for job in jobs}, dataset, shared_teacher)
    for job in jobs:
        require_fitting(job, shared_teacher)
    run_jobs(jobs, lambda job, device: job.command(request, shared_teacher, device, len(places)), places, out.note)
    _evaluate(jobs, run, data_root, places[0])
    _show(jobs, run, json)


def _methods(text: str) -> "list[Method]":
    from segctl.schema.terms.methods import METHODS

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in METHODS:
            near = did_you_mean(name, list(METHODS))
            raise InputError(f"--methods: '{name}' is not known{near}", f"use any of {', '.join(METHODS)}")
    if len(set(names)) < len(names) or not names:
        raise InputError(f"--methods: got '{text}', wanted one or more methods, each of them once", "for example none,kd,jml")
    return [method for method in METHODS if method in names]


def _evaluate(jobs: "list[Job]", run: "DistillRun", data_root: Path, device: str | None) -> None:
    """Score the runs that have no scores yet."""
    from segctl.evaluate.run import EvaluationRequest, evaluate_run
    from segctl.runtime.world import World

    for job in jobs:
        if (job.folder.evaluation(run.data.val_split) / "scores.json").is_file():
            continue
        with out.progress(f"scoring {job.folder.name}") as progress:
            evaluate_run(EvaluationRequest(job.folder, data_root, device=device), World(), progress)


def _show(jobs: "list[Job]", run: "DistillRun", json: bool) -> None:
    from segctl.report.collect import read_run
    from segctl.report.gains import gain_notes
    from segctl.report.groups import comparisons_of, methods_side_by_side
    from segctl.report.tables import ABOUT_SIDE_BY_SIDE, side_by_side_table

    comparisons = comparisons_of([read_run(job.folder) for job in jobs], run.data.val_split)
    groups = [member for comparison in comparisons for member in comparison.groups]
    sets = methods_side_by_side(groups) or [groups]
    if json:
        out.json([_result(member, members) for members in sets for member in members])
        return
    for members in sets:
        table = side_by_side_table(members)
        rows = [[cell.text for cell in row] for row in table.rows]
        title = f"{run.name} on {comparisons[0].place}, {run.train.steps:,} steps, in percent"
        out.table(
            title,
            table.columns,
            rows,
            [*gain_notes(members), ABOUT_SIDE_BY_SIDE],
            drop=("parameters", "GFLOP", "peak memory, MB", "of none", "s/step"),
        )
    out.result(f"next: {command_line('report', *(job.folder.path for job in jobs))}")


def _result(group: "Group", members: "list[Group]") -> dict[str, Any]:
    from segctl.metrics.scores import SCORE_NAMES
    from segctl.report.gains import gain

    found = gain(group, members)
    return {
        "method": group.method,
        "runs": [str(run.folder.path) for run in group.runs],
        "file": group.evaluations[0].program,
        "scores": {name: group.score(name)._asdict() for name in SCORE_NAMES},
        "minus_none": None if found is None else {**found._asdict(), "n": len(found.seeds)},
        "seconds_per_step": [run.environment.get("seconds_per_step") for run in group.runs],
        "peak_memory_mb": [run.environment.get("peak_memory_mb") for run in group.runs],
        "cost": dict(group.runs[0].cost) or None,
    }
