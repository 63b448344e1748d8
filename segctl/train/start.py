"""Start a run, or take one up again; dry_run.py tries one without keeping anything."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from segctl.errors import InputError
from segctl.evaluate.count_images import Scoring
from segctl.files import sweep_partial, write_json, write_yaml
from segctl.runs import RunFolder, free_folder
from segctl.runtime.device import peak_memory_mb
from segctl.runtime.launcher import resume_with
from segctl.schema.run import DistillRun, TrainRun, with_steps
from segctl.schema.same_run import conflicts, rounding_changes
from segctl.teacher.load import Trial, require_passed, try_teacher
from segctl.train.environment import describe, now
from segctl.train.fill_teacher_cache import ask_ahead
from segctl.train.loop import fit
from segctl.train.mask_stage import Place, learn_stages
from segctl.train.optimizer import learning_rate
from segctl.train.profile.profiler import profiler_of_run
from segctl.train.profile.summary import Window, plan
from segctl.train.run_log import RunLog, Watch
from segctl.train.session import Request, Session, prepare_session
from segctl.train.trackers import require_tensorboard
from segctl.train.validate import finish


def start_run(request: Request, folder: RunFolder, watch: Watch, *, free_name: str | None = None) -> RunFolder:
    """Take a new run to its end in a folder that does not exist yet, and return it. Nothing is written before all is checked.

    free_name: the name that `folder` is a free sibling of; where another run takes it meanwhile, this one takes the next.
    """
    world = request.world
    if free_name is None:
        world.together(lambda: _require_new(folder))
    if request.tensorboard:
        world.together(require_tensorboard)
    session = prepare_session(request)
    for line in session.decisions():
        watch.note(line)
    trial = try_teacher_of(session, watch)
    if trial is not None and session.teacher is not None:
        require_passed(trial, session.teacher.path)
    window = world.together(lambda: plan(session.run.train.steps, session.workers)) if request.profile else None
    environment = describe(session, request, trial)
    made = world.together(lambda: world.on_main(lambda: _make_folder(folder, session.run, environment, free_name)))
    folder = world.share(made) or folder
    log = RunLog(folder, session.run.train.steps, watch, keeps=world.is_main)
    if request.tensorboard:
        log.draw()
    for line in session.decisions():
        log.quietly(line)
    _run(session, folder, log, request.runs_root, window)
    return folder


def resume_run(request: Request, folder: RunFolder, watch: Watch, *, extend: bool = False) -> None:
    """Go on from last.pt as if the run had never stopped. Raises InputError where the run, data or teacher is not the same.

    extend: `request.run` is the run, finished or not, with more steps than it was planned for. The schedule is that of the longer
    run from here on, so the learning rate rises again; both are said. A model.pt that is there stays, as model-<steps>.pt.
    """
    world = request.world
    drawn = request.tensorboard or folder.tensorboard.is_dir()
    if drawn:
        world.together(require_tensorboard)
    stored = world.together(lambda: _read_shorter(folder, request.run) if extend else _read_unfinished(folder))
    teacher = folder.read_environment().get("teacher")
    if request.teacher is None and teacher is not None:
        request = replace(request, teacher=Path(teacher["run"]), teacher_preset=teacher.get("given_preset"))
    session = prepare_session(request, fresh=not folder.last.is_file())
    line = session.resume_line(folder.path, *(("--extend-to", str(session.run.train.steps)) if extend else ()))
    wanted = with_steps(stored, session.run.train.steps) if extend else stored
    world.together(lambda: _require_same(wanted, session.run, folder, line))
    _say_rounding(stored, session.run, watch)
    if folder.last.is_file():
        world.together(lambda: _load_state(session, folder.last, watch))
    world.on_main(lambda: sweep_partial(folder.path))
    log = RunLog(folder, session.run.train.steps, watch, keeps=world.is_main)
    log.continue_from(session.state.step)
    if drawn:
        log.draw(session.state.step)
    if extend:
        log.note(_extend(session, stored, folder))
    log.note(f"resuming '{folder.path}' after step {session.state.step} of {session.run.train.steps}")
    _run(session, folder, log, request.runs_root, _plan_of_rest(session, log) if request.profile else None)


def _extend(session: Session, stored: TrainRun, folder: RunFolder) -> str:
    """Write down that the run is longer now, keep the shorter one's model.pt under another name, and say what becomes of the
    learning rate."""
    run, step = session.run, session.state.step
    before, after = stored.train.steps, run.train.steps
    was = learning_rate(run.schedule, run.optim.lr, max(0, step - 1), before)
    will_be = learning_rate(run.schedule, run.optim.lr, step, after)
    session.world.on_main(lambda: _write_extension(folder, run, before, step))
    session.world.wait()
    return (
        f"extending '{folder.path}' from {before} to {after} steps: after step {step} the learning rate goes on as if {after} "
        f"had been planned, at {will_be:.3g} where it was {was:.3g}"
    )


def _write_extension(folder: RunFolder, run: TrainRun, before: int, step: int) -> None:
    environment, after = folder.read_environment(), run.train.steps
    extended = [*environment.get("extended", []), {"from": before, "to": after, "at_step": step, "when": now()}]
    write_json(folder.environment, environment | {"steps": after, "finished": None, "extended": extended})
    write_yaml(folder.run_yaml, run.model_dump(mode="json"))
    if folder.finished:
        folder.model.rename(folder.path / f"model-{before}.pt")


def _plan_of_rest(session: Session, log: RunLog) -> Window | None:
    """The steps to look at in a run that goes on; a run that is almost over is not stopped for want of steps."""
    try:
        return plan(session.run.train.steps - session.state.step, session.workers)
    except InputError as error:
        log.note(f"no profile: {error.message}")
        return None


def _run(session: Session, folder: RunFolder, log: RunLog, runs_root: Path, window: Window | None) -> None:
    """Learn what must be learnt first, fit, keep the time it took in environment.json with every checkpoint, and finish."""
    line = session.resume_line(folder.path)
    session.world.on_main(lambda: resume_with(line))
    ask_ahead(session, log, line)
    if session.state.step == 0:
        place = Place(runs_root, log.note, stage_progress(log.watch), line)
        session.world.main_first(lambda: learn_stages(session, place))
    environment = folder.read_environment()
    earlier, began = environment["seconds"], time.perf_counter()
    earlier_peak = environment.get("peak_memory_mb") or 0.0

    def keep_time() -> None:
        environment["seconds"] = earlier + time.perf_counter() - began
        environment["seconds_per_step"] = _median_step_s(folder)
        environment["peak_memory_mb"] = max(earlier_peak, peak_memory_mb(session.compute.device))
        environment["finished"] = now() if session.state.step == session.run.train.steps else None
        write_json(folder.environment, environment)

    profiler = profiler_of_run(session, window, folder, log)
    fit(session, folder, log, saved=lambda: session.world.on_main(keep_time), profiler=profiler)
    session.world.on_main(keep_time)
    finish(session, folder, log)


def stage_progress(watch: Watch) -> Callable[[int, int], None]:
    """Shows how far the masks are."""
    return lambda done, total: watch.advance("learning masks", done, total)


def _median_step_s(folder: RunFolder) -> float | None:
    """Median time of a step in seconds over the reports in the log, so that start-up and interruptions weigh little."""
    times = sorted(event["step_s"] for event in folder.read_log() if event["event"] == "step")
    return float(times[len(times) // 2]) if times else None


def try_teacher_of(session: Session, watch: Watch) -> Trial | None:
    """Score the run's teacher, where it has one, and say how it does."""
    if session.teacher is None or not isinstance(session.run, DistillRun):
        return None
    trial = try_teacher(
        session.teacher, session.dataset, session.run.data.val_split,
        Scoring(session.run.evaluate, session.compute, world=session.world),
        progress=lambda done, total: watch.advance("scoring the teacher", done, total),
    )  # fmt: skip
    watch.note(str(trial))
    return trial


def _require_new(folder: RunFolder) -> None:
    if folder.path.exists():
        raise InputError(f"the run folder '{folder.path}' exists", "add --resume to go on with it, or give another --run")


def _read_unfinished(folder: RunFolder) -> TrainRun:
    stored = folder.read_run()
    if folder.finished:
        raise InputError(f"the run '{folder.path}' has finished: there is nothing to resume", "start a new run without --resume")
    return stored


def _read_shorter(folder: RunFolder, longer: TrainRun) -> TrainRun:
    stored = folder.read_run()
    if longer.train.steps <= stored.train.steps:
        raise InputError(
            f"--extend-to {longer.train.steps}: the run '{folder.path}' has {stored.train.steps} steps already",
            f"give more than {stored.train.steps}",
        )
    if not folder.last.is_file():
        raise InputError(
            f"the run '{folder.path}' holds no last.pt to go on from",
            "start a new run, or one from its weights with model.weights",
        )
    return stored


def _load_state(session: Session, path: Path, watch: Watch) -> None:
    about = session.state.load(path, session.world)
    wanted = session.owner()
    for key, what in (("run", "preset"), ("dataset", "dataset fingerprint"), ("teacher", "teacher's sha256")):
        if about[key] != wanted[key]:
            raise InputError(
                f"'{path}' belongs to another {what}: got {about[key]}, wanted {wanted[key]}",
                "resume with the data and teacher that the run was started with",
            )
    if (before := about["processes"]) != session.world.size:
        watch.note(f"the run was on {before} processes and goes on with {session.world.size}: rightly, but not bit for bit")


def _require_same(stored: TrainRun, asked: TrainRun, folder: RunFolder, line: str) -> None:
    """Refuse to resume under settings that change what the run computes."""
    if found := sorted(map(str, conflicts(stored, asked))):
        raise InputError(
            f"the run '{folder.path}' was started with other settings: {'; '.join(found)}",
            f"go on with `{line}` alone, or start a new run",
        )


def _say_rounding(stored: TrainRun, asked: TrainRun, watch: Watch) -> None:
    for path, before, after in rounding_changes(stored, asked):
        watch.note(
            f"resuming with {path}={json.dumps(after)}, but the run was started with {path}={json.dumps(before)}: results stay "
            "correct but are not bit-identical"
        )


def _make_folder(folder: RunFolder, run: TrainRun, environment: dict[str, Any], free_name: str | None) -> RunFolder:
    """Make the folder with its run.yaml and environment.json in it, at once: a run folder that exists can be resumed.

    Where it exists by now, a run under a free name takes the next free one.
    """
    building = RunFolder(folder.path.with_name(f".{folder.name}.new{os.getpid()}"))
    try:
        building.path.mkdir(parents=True)
        write_json(building.environment, environment)
        write_yaml(building.run_yaml, run.model_dump(mode="json"))
        return _move(building, folder, free_name)
    except OSError as error:
        shutil.rmtree(building.path, ignore_errors=True)
        reason = "it exists by now" if folder.path.exists() else error.strerror
        raise InputError(f"cannot make the run folder '{folder.path}': {reason}", "give another --run or --runs-root") from error


def _move(building: RunFolder, folder: RunFolder, free_name: str | None) -> RunFolder:
    """Give a folder its name, or the next free one; a folder with something in it is never replaced."""
    while True:
        try:
            building.path.rename(folder.path)
            return folder
        except OSError:
            if free_name is None or not folder.path.exists():
                raise
            folder = free_folder(folder.path.parent, free_name)
