"""Resume a stopped run from last.pt, exactly as if it had never stopped."""

import json
from dataclasses import replace
from pathlib import Path

from segctl.errors import InputError
from segctl.files import sweep_partial, write_json, write_yaml
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.schema.same_run import Change, conflicts, rounding_changes, steering_changes
from segctl.train.build import build_session
from segctl.train.environment import now
from segctl.train.loop import run_to_end
from segctl.train.profile.summary import Window, plan_window
from segctl.train.run_log import RunLog
from segctl.train.session import Request, Session
from segctl.train.trackers import require_tensorboard
from segctl.train.watch import Watch


def resume_run(request: Request, folder: RunFolder, watch: Watch) -> None:
    """Train a stopped run from its last checkpoint to its last step; one without checkpoint starts again at step 1.

    Raises InputError if the run has finished, or if its settings, data or teacher are not those that it was started with.
    """
    stored = request.world.together(lambda: _read_unfinished(folder))
    session, log = reopen(request, folder, watch, stored)
    continue_run(request, session, folder, log)


def reopen(request: Request, folder: RunFolder, watch: Watch, stored: TrainRun, *options: str) -> tuple[Session, RunLog]:
    """The session of a run that was started before, its checkpoint loaded, and its logs cut back to that checkpoint.

    stored: what `request.run` must agree with in everything that can change a number.  options: of the command that resumes the
    run, for the error message if it does not agree.
    """
    world = request.world
    tensorboard = request.tensorboard or folder.tensorboard.is_dir()
    if tensorboard:
        world.together(require_tensorboard)
    teacher = folder.read_environment().get("teacher")
    if request.teacher is None and teacher is not None:
        request = replace(request, teacher=Path(teacher["run"]), teacher_preset=teacher.get("given_preset"))
    session = build_session(request, fresh=not folder.last.is_file())
    line = session.resume_line(folder.path, *options)
    world.together(lambda: _require_same(stored, session.run, folder, line))
    steered = steering_changes(stored, session.run)
    for path, before, after in steered:
        watch.note(
            f"resuming with {path}={json.dumps(after)} instead of {json.dumps(before)}; environment.json records the change"
        )
    for path, before, after in rounding_changes(stored, session.run):
        watch.note(
            f"resuming with {path}={json.dumps(after)}, but the run was started with {path}={json.dumps(before)}: results stay "
            "correct but are not bit-identical"
        )
    if folder.last.is_file():
        world.together(lambda: _load_checkpoint(session, folder.last, watch))
    world.on_main(lambda: sweep_partial(folder.path))
    if steered:
        world.on_main(lambda: _record_changes(folder, session, steered))
        world.wait()
    log = RunLog(folder, session.run.train.steps, watch, writes=world.is_main)
    log.continue_from(session.state.step)
    if tensorboard:
        log.open_tensorboard(session.state.step)
    return session, log


def continue_run(request: Request, session: Session, folder: RunFolder, log: RunLog) -> None:
    """Train a reopened run to its last step."""
    log.note(f"resuming '{folder.path}' after step {session.state.step} of {session.run.train.steps}")
    window = _profile_window(session, log) if request.profile else None
    run_to_end(session, folder, log, request.runs_root, window)


def _read_unfinished(folder: RunFolder) -> TrainRun:
    stored = folder.read_run()
    if folder.finished:
        raise InputError(
            f"the run '{folder.path}' has finished: there is nothing to resume",
            "start a new run without --resume, or train this one for longer with --extend-to STEPS",
        )
    return stored


def _require_same(stored: TrainRun, wanted: TrainRun, folder: RunFolder, line: str) -> None:
    """Raise InputError if the settings differ in anything that changes what the run computes."""
    allowed = steering_changes(stored, wanted)
    if found := sorted(str(change) for change in conflicts(stored, wanted) if change not in allowed):
        raise InputError(
            f"the run '{folder.path}' was started with other settings: {'; '.join(found)}",
            f"resume it with `{line}` alone, or start a new run",
        )


def _record_changes(folder: RunFolder, session: Session, steered: list[Change]) -> None:
    """Write the new settings into run.yaml, and the old ones and the step at which they changed into environment.json."""
    environment = folder.read_environment()
    change = {
        "at_step": session.state.step,
        "when": now(),
        "from": {each.path: each.before for each in steered},
        "to": {each.path: each.after for each in steered},
    }
    write_json(folder.environment, environment | {"changed": [*environment.get("changed", []), change]})
    write_yaml(folder.run_yaml, session.run.model_dump(mode="json"))


def _load_checkpoint(session: Session, path: Path, watch: Watch) -> None:
    rates = [group["peak_lr"] for group in session.state.optimizer.param_groups]
    about = session.state.load(path, session.world)
    # The checkpoint brings its own rates; those of the settings hold, which are the same unless the resumed run changes them.
    for group, rate in zip(session.state.optimizer.param_groups, rates, strict=True):
        group["peak_lr"] = rate
    wanted = session.owner()
    for key, what in (("run", "preset"), ("dataset", "dataset fingerprint"), ("teacher", "teacher's sha256")):
        if about[key] != wanted[key]:
            raise InputError(
                f"'{path}' belongs to another {what}: got {about[key]}, wanted {wanted[key]}",
                "resume with the data and teacher that the run was started with",
            )
    if (before := about["processes"]) != session.world.size:
        watch.note(
            f"resuming with --processes {session.world.size}, but the run was stopped with --processes {before}: results stay "
            "correct but are not bit-identical"
        )


def _profile_window(session: Session, log: RunLog) -> Window | None:
    """The steps to profile in the rest of the run. Too few steps are no reason to refuse to resume, so they are only noted."""
    try:
        return plan_window(session.run.train.steps - session.state.step, session.workers)
    except InputError as error:
        log.note(f"no profile: {error.message}")
        return None
