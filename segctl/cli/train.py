"""`segctl train`: a preset in, a run folder out. `segctl distill` uses the same functions."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segctl.cli.options import GivenTeachers, RunOptions, with_run_options
from segctl.cli.output import out
from segctl.commands import command_line
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.data.fitted_preset import OpenedPreset
    from segctl.schema.run import TrainRun


@with_run_options(RunOptions, without=("method", "teacher", "teacher_preset", "trust_program", "fsdp"))
def train(options: RunOptions) -> None:
    """Train a network on labels. A student's preset is trained without its teacher."""
    from segctl.schema.load import require_consistent
    from segctl.schema.run import DistillRun

    run, reasons = described_run(options)
    name = run.name
    if isinstance(run, DistillRun) and options.preset is not None:
        out.note(f"'{name}' is a student's preset: its distiller and teacher are left out, as with `distill --method none`")
        if run.data.unlabelled is not None and run.semi is None:
            out.note("data.unlabelled is left out too: only a teacher can teach from pictures without labels")
        run, name = run.without_teacher(), f"{name}-{'none' if run.semi is None else run.semi.kind}"
    require_consistent(run, f"preset '{options.preset or options.run}'")
    train_run(run, name, options, reasons)


def described_run(options: RunOptions) -> "OpenedPreset":
    """The run that the options describe: a preset with changes, or the run in the folder to resume or extend.

    Its blocks are not judged together yet: the command may leave out or replace the distiller first.
    """
    from segctl.data.fitted_preset import OpenedPreset, open_preset
    from segctl.runs import RunFolder
    from segctl.schema.load import read_preset

    extend_to = options.extend_to
    if extend_to is not None and (options.run is None or options.preset is not None or options.steps is not None):
        raise InputError(
            "--extend-to needs --run DIR, and neither --preset nor --steps", "give --run DIR and leave out the others"
        )
    steps = extend_to if extend_to is not None else options.steps
    changes = list(options.set_ or [])
    changes += [] if steps is None else [f"train.steps={steps}"]
    changes += [] if options.seed is None else [f"train.seed={options.seed}"]
    changes += ["train.deterministic=true"] if options.deterministic else []
    if options.preset is not None:
        return open_preset(options.preset, changes, options.data, options.data_root)
    if options.data is not None:
        raise InputError("--data needs --preset, which it fits to a dataset; a run has its own", "leave --data out")
    if options.run is not None and (options.resume or extend_to is not None):
        folder = RunFolder(options.run)
        folder.read_run()  # for its error if the folder is not a run
        return OpenedPreset(read_preset(str(folder.run_yaml), changes))
    raise InputError("no run is given: wanted --preset NAME, or --resume --run DIR", "`segctl presets list` shows the presets")


def train_run(run: "TrainRun", name: str, options: RunOptions, reasons: tuple[str, ...]) -> None:
    """Start, resume, extend or dry-run a run in this process or in several.

    name: of a new run's folder, if the options do not give one.  reasons: why segctl chose what the preset leaves open.
    """
    if options.profile:  # before torch is imported: torch warns of tensors made before its profiler
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from segctl.cli.progress import watching
    from segctl.runs import RunFolder, free_folder, newest_unfinished
    from segctl.runtime.world import joined_world, restarts, under_launcher
    from segctl.train.dry_run import dry_run
    from segctl.train.extend import extend_run
    from segctl.train.resume import resume_run
    from segctl.train.session import Request
    from segctl.train.start import start_run

    resumes = options.resume or options.extend_to is not None
    teachers = GivenTeachers.of(options.teacher).paths
    track = tuple(dict.fromkeys([*(options.track or []), *(["tensorboard"] if options.tensorboard else [])]))
    had, allowed = restarts()
    _check_kept(options, bool(track), allowed)
    if not under_launcher() and _launched(run, name, options, resumes=had > 0 and _after_a_restart(options) == "resume"):
        return
    with joined_world(out.note_of_any_rank) as world, watching() as watch:
        request = Request(
            run=run,
            data_root=options.data_root,
            runs_root=options.runs_root,
            teacher=next(iter(teachers), None),
            further_teachers=teachers[1:],
            teacher_preset=options.teacher_preset,
            trust_program=options.trust_program,
            device=options.device,
            command=shlex.join(["segctl", *out.arguments]),
            world=world,
            profile=options.profile,
            track=track,
            reasons=reasons,
            fsdp=options.fsdp,
        )
        if options.dry_run:
            found = dry_run(request, watch)
        else:
            # Only the main process chooses the folder: another process might look after the folder has been made.
            if options.run is not None:
                folder = RunFolder(options.run)
            elif resumes:
                folder = world.share(newest_unfinished(options.runs_root, name))
            else:
                folder = world.share(free_folder(options.runs_root, name))
            what = _asked_for(options)
            if max(world.gather(had)) > 0:  # an agent does not count the restarts that another machine asked for
                what = world.from_main(lambda: _after_a_restart(options))
                watch.note(f"torchrun has started the processes again: {STARTED_AGAIN[what]}")
            match what:
                case "start":
                    folder = start_run(request, folder, watch, free_name=name if options.run is None else None)
                case "resume":
                    resume_run(request, folder, watch)
                case "extend":
                    extend_run(request, folder, watch)
    if options.dry_run:
        out.table("Dry run: nothing was kept", ["what", "value"], [[key, f"{value:.4g}"] for key, value in found.items()])
        return
    out.result(f"run saved in {folder.path}      next: {_next_line(run, folder.path, options)}")


def _next_line(run: "TrainRun", folder: Path, options: RunOptions) -> str:
    """What to type after a run: its evaluation, or the training of a network on its backbone."""
    from segctl.schema.run import PretrainRun

    if not isinstance(run, PretrainRun):
        return command_line("eval", folder, data_root=options.data_root)
    preset = ["--preset", options.preset or "PRESET", *(["--data", options.data] if options.data else [])]
    weights = ["--set", f"model.weights={folder}"]
    return command_line("train", *preset, *weights, data_root=options.data_root, runs_root=options.runs_root)


def _check_kept(options: RunOptions, tracked: bool, restarts: int) -> None:
    """Refuse options for a folder where none is kept, and torchrun's restarts where no folder is named."""
    resumes = options.resume or options.extend_to is not None
    if options.dry_run and (resumes or options.run is not None or tracked):
        raise InputError(
            "--dry-run keeps nothing, so it cannot be combined with --run, --resume, --extend-to, --track or --tensorboard",
            "leave them out",
        )
    if restarts and options.run is None and not options.dry_run:
        raise InputError(
            f"torchrun may start the processes of this run {restarts} times again, but without --run they cannot find their run",
            "add --run DIR, or leave out --max-restarts",
        )


What = Literal["start", "resume", "extend", "nothing"]

STARTED_AGAIN: dict[What, str] = {
    "start": "the run starts, because there is nothing to resume",
    "resume": "the run continues from its last checkpoint",
    "extend": "the run continues from its last checkpoint",
    "nothing": "the run has finished",
}


def _asked_for(options: RunOptions) -> What:
    """What the options do with a run."""
    return "extend" if options.extend_to is not None else "resume" if options.resume else "start"


def _after_a_restart(options: RunOptions) -> What:
    """What the options do with the run of --run if torchrun has started their processes again, because one of them died."""
    from segctl.runs import RunFolder

    if options.run is None or not options.run.exists():
        return _asked_for(options)
    folder = RunFolder(options.run)
    if options.extend_to is not None and folder.read_run().train.steps < options.extend_to:
        return "extend"
    return "nothing" if folder.finished else "resume"


def _launched(run: "TrainRun", name: str, options: RunOptions, *, resumes: bool) -> bool:
    """Whether the run is for several processes, which have then run it. resumes: they resume it although no option says so."""
    processes = options.processes or default_processes(run, name, options)
    if processes > 1:
        from segctl.runtime.launcher import launch

        launch(processes, [*out.arguments, *(["--resume"] if resumes and not options.resume else [])])
    return processes > 1


def default_processes(run: "TrainRun", name: str, options: RunOptions) -> int:
    """The number of processes without --processes: one for each visible GPU, announced, if the batch divides by it; else fewer.

    A run that goes on keeps its number where there are so many GPUs, because another would change the last digits. With --device
    cpu, or with one GPU named, it is 1.  name: of a run without --run.
    """
    from segctl.runs import RunFolder, newest_unfinished
    from segctl.runtime.device import visible_gpus
    from segctl.schema.cross_checks import group_faults

    gpus = visible_gpus() if options.device in (None, "cuda") else 0
    if gpus < 2:
        return 1
    if options.resume or options.extend_to is not None:
        folder = newest_unfinished(options.runs_root, name) if options.run is None else RunFolder(options.run)
        recorded = int(folder.read_environment().get("processes", 1))
        return recorded if recorded <= gpus else 1
    batch = run.train.batch_size
    number = next(n for n in range(gpus, 0, -1) if n == 1 or (batch % n == 0 and not group_faults(run, n)))
    out.note(
        f"{gpus} GPUs are visible: {number} {'processes share' if number > 1 else 'process takes'} the batch of {batch}"
        + ("" if number == gpus else ", which does not divide by more")
        + (" (--processes 1 uses one GPU)" if number > 1 else "")
    )
    return number
