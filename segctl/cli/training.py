"""`segctl train` and `segctl distill`: a preset in, a run folder out."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segctl.cli.options import DATA_ROOT, RUNS_ROOT, DataRootOpt, DeviceOpt, PresetOpt, RunsRootOpt, SetOpt
from segctl.cli.output import out
from segctl.commands import command_line
from segctl.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from segctl.schema.run import DistillRun, TrainRun

Start = Literal["new", "resume", "extend"]

RunOpt = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="The run's folder; a free name under the runs root if left out.")
]
ResumeOpt = Annotated[bool, typer.Option("--resume", help="Go on with a stopped run, exactly as if it had not stopped.")]
ExtendOpt = Annotated[
    int | None,
    typer.Option("--extend-to", metavar="STEPS", min=1, help="Go on with the run of --run, finished or not, to more steps."),
]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="One step, one validation, one checkpoint round trip; keep nothing.")]
StepsOpt = Annotated[int | None, typer.Option("--steps", metavar="N", help="The same as --set train.steps=N.")]
SeedOpt = Annotated[int | None, typer.Option("--seed", metavar="N", help="The same as --set train.seed=N.")]
DeterministicOpt = Annotated[
    bool,
    typer.Option("--deterministic", help="The same bits in every run, on a GPU too: the same as --set train.deterministic=true."),
]
ProcessesOpt = Annotated[
    int, typer.Option("--processes", metavar="N", min=1, help="Local processes, one per GPU; they share the global batch.")
]
ProfileOpt = Annotated[
    bool, typer.Option("--profile", help="Tell where a step's time goes, from some early steps; leaves a table and a trace.")
]
TensorboardOpt = Annotated[
    bool, typer.Option("--tensorboard", help="Write scalars for TensorBoard into the run's folder as well.")
]
MethodOpt = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="none, kd, skd, ifvd, cwd, cirkd, maskd, dist or jml, instead of the preset's own distiller.",
    ),
]
TeacherOpt = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        metavar="RUN_OR_FILE",
        help="The teacher, instead of the newest run of the preset's: a run, a weights file, a TorchScript or torch.export file, "
        "a Hugging Face folder, or hf:ORG/NAME.",
    ),
]
TeacherPresetOpt = Annotated[
    str | None,
    typer.Option(
        "--teacher-preset", metavar="NAME_OR_FILE", help="The preset whose network a teacher's plain weights belong to."
    ),
]


def train(
    preset: PresetOpt = None,
    set_: SetOpt = None,
    run: RunOpt = None,
    resume: ResumeOpt = False,
    extend_to: ExtendOpt = None,
    dry_run: DryRunOpt = False,
    steps: StepsOpt = None,
    seed: SeedOpt = None,
    deterministic: DeterministicOpt = False,
    device: DeviceOpt = None,
    processes: ProcessesOpt = 1,
    profile: ProfileOpt = False,
    tensorboard: TensorboardOpt = False,
    data_root: DataRootOpt = DATA_ROOT,
    runs_root: RunsRootOpt = RUNS_ROOT,
) -> None:
    """Train a network on labels. A student's preset is trained without its teacher."""
    from segctl.schema.run import DistillRun

    asked = _asked(preset, set_, steps, seed, deterministic, run, resume, extend_to)
    name = asked.name
    if isinstance(asked, DistillRun) and preset is not None:
        out.note(f"'{asked.name}' is a student's preset: its distiller and teacher are left out, as with `distill --method none`")
        asked, name = asked.without_teacher(), f"{asked.name}-none"
    _go(asked, name, run, _start(resume, extend_to), dry_run, device, processes, profile, tensorboard, data_root, runs_root)


def distill(
    preset: PresetOpt = None,
    method: MethodOpt = None,
    teacher: TeacherOpt = None,
    teacher_preset: TeacherPresetOpt = None,
    set_: SetOpt = None,
    run: RunOpt = None,
    resume: ResumeOpt = False,
    extend_to: ExtendOpt = None,
    dry_run: DryRunOpt = False,
    steps: StepsOpt = None,
    seed: SeedOpt = None,
    deterministic: DeterministicOpt = False,
    device: DeviceOpt = None,
    processes: ProcessesOpt = 1,
    profile: ProfileOpt = False,
    tensorboard: TensorboardOpt = False,
    data_root: DataRootOpt = DATA_ROOT,
    runs_root: RunsRootOpt = RUNS_ROOT,
) -> None:
    """Train a student on labels and on a teacher."""
    from segctl.schema.run import DistillRun

    asked = _asked(preset, set_, steps, seed, deterministic, run, resume, extend_to)
    name = asked.name
    if not isinstance(asked, DistillRun):
        source = ["--preset", preset] if preset is not None else ["--resume", "--run", str(run)]
        line = command_line("train", *source, data_root=data_root, runs_root=runs_root)
        raise InputError(f"'{asked.name}' has no teacher to learn from", f"use `{line}`")
    if method is not None:
        asked, name = _with_method(asked, method), f"{asked.name}-{method}"
    if teacher is not None and not isinstance(asked, DistillRun):
        raise InputError("--method none has no use for a --teacher", "leave one of them out")
    if teacher_preset is not None and teacher is None:
        raise InputError("--teacher-preset describes the file of a --teacher, and none is given", "add --teacher FILE")
    _go(
        asked, name, run, _start(resume, extend_to), dry_run, device, processes, profile, tensorboard, data_root, runs_root,
        teacher, teacher_preset,
    )  # fmt: skip


def _start(resume: bool, extend_to: int | None) -> Start:
    return "extend" if extend_to is not None else "resume" if resume else "new"


def _asked(
    preset: str | None,
    set_: list[str] | None,
    steps: int | None,
    seed: int | None,
    deterministic: bool,
    run: Path | None,
    resume: bool,
    extend_to: int | None,
) -> "TrainRun":
    """The run that the options describe: a preset with changes, or the one in the folder to go on with."""
    from segctl.runs import RunFolder
    from segctl.schema.load import load_preset

    if extend_to is not None and (run is None or preset is not None or steps is not None):
        raise InputError("--extend-to goes on with a run as it is", "give --run DIR beside it, and neither --preset nor --steps")
    steps = extend_to if extend_to is not None else steps
    changes = list(set_ or [])
    changes += [] if steps is None else [f"train.steps={steps}"]
    changes += [] if seed is None else [f"train.seed={seed}"]
    changes += ["train.deterministic=true"] if deterministic else []
    if preset is not None:
        return load_preset(preset, changes)
    if run is not None and (resume or extend_to is not None):
        folder = RunFolder(run)
        folder.read_run()
        return load_preset(str(folder.run_yaml), changes)
    raise InputError("which run? neither --preset nor --resume with --run is given", "see `segctl presets list`")


def _with_method(run: "DistillRun", method: str) -> "TrainRun":
    from segctl.schema.load import sibling, with_method
    from segctl.schema.methods import METHODS, variant_of

    if method not in METHODS:
        raise InputError(
            f"--method '{method}' is not known{did_you_mean(method, list(METHODS))}", f"use one of {', '.join(METHODS)}"
        )
    for published in run.published:
        if published.method == method and published.recipe != run.recipe:
            number = f"{published.value:.2f} {published.metric}"
            other = sibling(run.name, published.recipe)
            where = "" if other is None else f"; preset '{other}' has it"
            out.note(f"published for {method}: {number}, under the {published.recipe} recipe, not this one ({run.recipe}){where}")
    if (variant := variant_of(method, run.data.dataset, run.model.aux)) is not None:
        out.note(variant.why)
    return with_method(run, method)


def _go(
    run: "TrainRun",
    name: str,
    folder: Path | None,
    start: Start,
    dry_run: bool,
    device: str | None,
    processes: int,
    profile: bool,
    tensorboard: bool,
    data_root: Path,
    runs_root: Path,
    teacher: Path | None = None,
    teacher_preset: str | None = None,
) -> None:
    if profile:  # before torch is loaded, which says on stderr that it did not see every tensor being made
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from segctl.cli.progress import watching
    from segctl.runs import RunFolder, free_folder, newest_unfinished
    from segctl.runtime.world import joined_world, under_launcher
    from segctl.train import dry_run as trial
    from segctl.train.session import Request
    from segctl.train.start import resume_run, start_run

    if dry_run and (start != "new" or folder is not None or tensorboard):
        raise InputError(
            "--dry-run keeps nothing, so it takes none of --run, --resume, --extend-to and --tensorboard", "leave them out"
        )
    if processes > 1 and not under_launcher():
        from segctl.runtime.launcher import launch as launch_processes

        launch_processes(processes, out.arguments)
        return
    command = shlex.join(["segctl", *out.arguments])
    with joined_world() as world, watching() as watch:
        request = Request(run, data_root, runs_root, teacher, teacher_preset, device, command, world, profile, tensorboard)
        if dry_run:
            found = trial.dry_run(request, watch)
        elif start != "new":
            target = world.share(RunFolder(folder) if folder is not None else newest_unfinished(runs_root, name))
            resume_run(request, target, watch, extend=start == "extend")
        else:
            target = world.share(RunFolder(folder) if folder is not None else free_folder(runs_root, name))
            target = start_run(request, target, watch, free_name=None if folder is not None else name)
    if dry_run:
        out.table("Dry run: nothing was kept", ["what", "value"], [[key, f"{value:.4g}"] for key, value in found.items()])
        return
    out.result(f"run saved in {target.path}      next: {command_line('eval', target.path, data_root=data_root)}")
