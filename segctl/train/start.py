"""Start a new run. resume.py resumes a stopped one, extend.py trains one for longer, dry_run.py tries one without keeping it."""

import os
import shutil
from typing import Any

from segctl.errors import InputError
from segctl.evaluate.count_images import Scoring
from segctl.files import write_json, write_yaml
from segctl.runs import RunFolder, free_folder
from segctl.runtime.world import World
from segctl.schema.run import DistillRun, TrainRun
from segctl.teacher.load import Teacher
from segctl.teacher.trial import Trial, require_passed, try_teacher
from segctl.train.auto.by_memory import with_fitting_batch
from segctl.train.build import build_session
from segctl.train.environment import describe_environment
from segctl.train.loop import run_to_end, take_step
from segctl.train.profile.summary import plan_window
from segctl.train.run_log import RunLog, Watch
from segctl.train.session import Request, Session, one_writer
from segctl.train.trackers.tracking import require_trackers


def start_run(request: Request, folder: RunFolder, watch: Watch, *, free_name: str | None = None) -> RunFolder:
    """Train a new run from its first step to its last in a folder that does not exist yet, and return the folder.

    Everything is checked before anything is written.  free_name: the name that `folder` was derived from; if another run takes
    the folder meanwhile, this run takes the next free name.  Raises InputError, StoppedError on Ctrl-C and SIGTERM.
    """
    world = request.world
    if free_name is None:
        world.together(lambda: _require_new(folder))
    world.together(lambda: require_trackers(request.track))
    request = with_fitting_batch(request, take_step)
    session = build_session(request)
    for line in session.decisions():
        watch.note(line)
    trial = score_teacher(session, watch)
    if trial is not None and isinstance(session.teacher, Teacher):
        for member, alone in zip(session.teacher.members, trial.members, strict=True):
            require_passed(alone, member.path)
        require_passed(trial, session.teacher.path)
    window = world.together(lambda: plan_window(session.run.train.steps, session.workers)) if request.profile else None
    environment = describe_environment(session, request, trial)
    folder = world.from_main(lambda: _make_folder(folder, session.run, environment, free_name))
    with one_writer(folder, world):
        log = RunLog(folder, session.run.train.steps, watch, writes=world.is_main)
        world.together(lambda: log.track(request.track, session.run))
        for line in session.decisions():
            log.write_line(line)
        run_to_end(session, folder, log, request.runs_root, window)
    return folder


def score_teacher(session: Session, watch: Watch) -> Trial | None:
    """Score the run's teacher on a few validation images and show the result; None for a run without teacher."""
    if not isinstance(session.teacher, Teacher) or not isinstance(session.run, DistillRun):
        return None
    trial = try_teacher(
        session.teacher, session.dataset, session.run.data.val_split,
        # Processes that share a teacher's weights have to run it equally often, so each scores all the images.
        Scoring(session.run.evaluate, session.compute, world=World() if session.sharded else session.world),
        progress=lambda done, total: watch.advance("scoring the teacher", done, total),
    )  # fmt: skip
    for member, found in zip(session.teacher.members, trial.members, strict=True):
        watch.note(f"'{member.path}': {found}")
    watch.note(str(trial))
    return trial


def _require_new(folder: RunFolder) -> None:
    if folder.path.exists():
        raise InputError(f"the run folder '{folder.path}' exists", "add --resume to resume it, or give another --run")


def _make_folder(folder: RunFolder, run: TrainRun, environment: dict[str, Any], free_name: str | None) -> RunFolder:
    """Make the folder with run.yaml and environment.json in it.

    It is filled under another name and then renamed, so that a run folder which exists can always be resumed. If the name is
    taken by then, a run under a free name takes the next free one.
    """
    building = RunFolder(folder.path.with_name(f".{folder.name}.new{os.getpid()}"))
    try:
        building.path.mkdir(parents=True)
        write_json(building.environment, environment)
        write_yaml(building.run_yaml, run.model_dump(mode="json"))
        while True:
            try:
                building.path.rename(folder.path)  # fails for a folder with something in it, and so replaces none
                return folder
            except OSError:
                if free_name is None or not folder.path.exists():
                    raise
                folder = free_folder(folder.path.parent, free_name)
    except OSError as error:
        shutil.rmtree(building.path, ignore_errors=True)
        reason = "it exists by now" if folder.path.exists() else error.strerror
        raise InputError(f"cannot make the run folder '{folder.path}': {reason}", "give another --run or --runs-root") from error
