"""Resume a stopped run from last.pt, exactly as if it had never stopped."""

import json
from dataclasses import replace
from pathlib import Path

from segctl.errors import InputError
from segctl.files import sweep_partial, write_json, write_yaml
from segctl.runs import Environment, RunFolder
from segctl.schema.load import validate_run
from segctl.schema.run import TrainRun, with_accumulation
from segctl.schema.same_run import Change, conflicts, rounding_changes, steering_changes
from segctl.train.build import build_session
from segctl.train.checkpoint import Checkpoint, read_checkpoint
from segctl.train.environment import now
from segctl.train.loop import run_to_end
from segctl.train.profile.summary import Window, plan_window
from segctl.train.run_log import RunLog, Watch
from segctl.train.session import Request, Session, one_writer
from segctl.train.trackers.tracking import require_trackers, trackers_of


def resume_run(request: Request, folder: RunFolder, watch: Watch) -> None:
    """Train a stopped run from its last checkpoint to its last step; one without checkpoint starts again at step 1.

    Raises InputError if the run has finished, or if its settings, data or teacher are not those that it was started with, and
    SegctlError if another process trains it.
    """
    request.world.together(folder.read_run)  # for its message where the folder is not a run
    with one_writer(folder, request.world):
        stored = request.world.together(lambda: _read_unfinished(folder))
        session, log = reopen(request, folder, watch, stored)
        continue_run(request, session, folder, log)


def reopen(request: Request, folder: RunFolder, watch: Watch, stored: TrainRun, *options: str) -> tuple[Session, RunLog]:
    """The session of a run that was started before, its checkpoint loaded, and its logs cut back to that checkpoint.

    stored: what `request.run` must agree with in everything that can change a number.  options: of the command that resumes the
    run, for the error message if it does not agree.
    """
    world = request.world
    track = world.together(lambda: trackers_of(folder, request.track))
    world.together(lambda: require_trackers(track))
    if request.run.train.accumulate == "auto":  # type: ignore[comparison-overlap]
        # What fitted as the run started holds to its end; other micro-batches would be another run.
        request = replace(request, run=with_accumulation(request.run, stored.train.accumulate))
    environment = world.together(folder.require_environment)
    teacher = environment.teacher
    if request.teacher is None and teacher is not None:
        first, *others = [Path(each.run) for each in teacher.members or [teacher]]
        request = replace(request, teacher=first, further_teachers=tuple(others), teacher_preset=teacher.given_preset)
    checkpoint = world.together(lambda: read_checkpoint(folder.last)) if folder.last.is_file() else None
    if checkpoint is not None:
        world.together(lambda: _require_unedited(folder, checkpoint, environment))
    session = build_session(request, fresh=checkpoint is None)
    line = session.resume_line(folder.path, *options)
    world.together(lambda: _require_same(stored, session.run, folder, line))
    world.together(lambda: _require_recorded(session, environment, folder))
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
    if checkpoint is not None:
        world.together(lambda: _load_checkpoint(session, checkpoint, folder.last, watch))
        if any(each.at_step >= checkpoint.step for each in environment.extended):
            session.state.waiting.validations = 0  # the checkpoint is of the shorter run
    world.on_main(lambda: sweep_partial(folder.path))
    if steered:
        world.on_main(lambda: _record_changes(folder, session, steered))
        world.wait()
    log = RunLog(folder, session.run.train.steps, watch, writes=world.is_main)
    log.continue_from(session.state.step)
    world.together(lambda: log.track(track, session.run, session.state.step))
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


def _require_unedited(folder: RunFolder, checkpoint: Checkpoint, environment: Environment) -> None:
    """Raise InputError if run.yaml no longer describes the run that wrote the checkpoint.

    Without this check a changed learning rate would be printed, stored and reported, and never used: the optimiser's state brings
    the old one. Checkpoints of earlier versions do not hold the run.
    """
    if checkpoint.about.settings is None:
        return
    stored = folder.read_run()
    began = validate_run(checkpoint.about.settings, f"'{folder.last}'")
    # A change that segctl made and recorded reaches run.yaml before the first checkpoint that holds it.
    recorded = [(each.at_step, "train.steps", each.to) for each in environment.extended]
    recorded += [(each.at_step, path, value) for each in environment.changed for path, value in each.to.items()]
    known = [(path, value) for step, path, value in recorded if step >= checkpoint.step]
    if found := sorted(str(change) for change in conflicts(began, stored) if (change.path, change.after) not in known):
        raise InputError(
            f"'{folder.run_yaml}' was changed after the run was started: {'; '.join(found)}",
            "put the first value of each back; to train with other settings, start a new run",
        )


def _require_recorded(session: Session, environment: Environment, folder: RunFolder) -> None:
    """Raise InputError if the dataset or the teacher is not the one that environment.json says the run was started with."""
    recorded = environment.dataset
    _require_equal("dataset fingerprint", None if recorded is None else recorded.fingerprint, session.dataset.fingerprint, folder)
    before, now = environment.teacher, session.teacher
    if (before is None) != (now is None):
        raise InputError(
            f"'{folder.environment}' and '{folder.run_yaml}' disagree: one of them names a teacher, the other none",
            "put back the file that was changed, or start a new run",
        )
    _require_equal("teacher's sha256", None if before is None else before.sha256, None if now is None else now.sha256, folder)


def _require_equal(what: str, recorded: str | None, got: str | None, folder: RunFolder) -> None:
    """Raise InputError if environment.json recorded another value; it records none in runs of early versions."""
    if recorded is not None and recorded != got:
        raise InputError(
            f"the run '{folder.path}' was started with another {what}: '{folder.environment}' says {recorded}, got {got}",
            "resume with the data and teacher that the run was started with",
        )


def _load_checkpoint(session: Session, checkpoint: Checkpoint, path: Path, watch: Watch) -> None:
    about, wanted = checkpoint.about, session.owner()
    for key, what in (("run", "preset"), ("dataset", "dataset fingerprint"), ("teacher", "teacher's sha256")):
        if getattr(about, key) != wanted[key]:
            raise InputError(
                f"'{path}' belongs to another {what}: got {getattr(about, key)}, wanted {wanted[key]}",
                "resume with the data and teacher that the run was started with",
            )
    rates = [group["peak_lr"] for group in session.state.optimizer.param_groups]
    session.state.load(checkpoint, path, session.world)
    # The checkpoint brings its own rates; those of the settings hold, which are the same unless the resumed run changes them.
    for group, rate in zip(session.state.optimizer.param_groups, rates, strict=True):
        group["peak_lr"] = rate
    if (before := len(checkpoint.rng)) != session.world.size:
        watch.note(
            f"resuming with --processes {session.world.size}, but the run was stopped with --processes {before}: results stay "
            "correct but are not bit-identical"
        )


def _profile_window(session: Session, log: RunLog) -> Window | None:
    """The steps to profile in the rest of the run. If there are too few, the run still resumes, and a note says so."""
    try:
        return plan_window(session.run.train.steps - session.state.step, session.workers)
    except InputError as error:
        log.note(f"no profile: {error.message}")
        return None
