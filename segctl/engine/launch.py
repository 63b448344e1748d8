"""Start a run, take one up again, or try one without keeping anything."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from segctl.data.loader import training_batches
from segctl.engine.checkpoint import State
from segctl.engine.device import peak_memory_mb
from segctl.engine.evaluate import Scoring, count_images
from segctl.engine.provenance import describe, now
from segctl.engine.setup import Request, Session, prepare_session
from segctl.engine.teacher import Trial, require_passed, try_teacher
from segctl.engine.train import fit, take_step
from segctl.engine.watch import RunLog, Watch
from segctl.errors import InputError
from segctl.metrics.scores import score
from segctl.runs import RunFolder, write_json, write_yaml
from segctl.schema.run import DistillRun, TrainRun


def start_run(request: Request, folder: RunFolder, watch: Watch) -> None:
    """Take a new run to its end in a folder that does not exist yet. Nothing is written before everything is checked."""
    if folder.path.exists():
        raise InputError(f"the run folder '{folder.path}' exists", "add --resume to go on with it, or give another --run")
    session = prepare_session(request)
    for line in session.decisions():
        watch.note(line)
    trial = _try_teacher(session, watch)
    if trial is not None and session.teacher is not None:
        require_passed(trial, session.teacher.path)
    _make_folder(folder)
    write_json(folder.environment, describe(session, request, trial))
    write_yaml(folder.run_yaml, session.run.model_dump(mode="json"))  # last, because it makes the folder a run
    log = RunLog(folder, session.run.train.steps, watch)
    for line in session.decisions():
        log.quietly(line)
    _run(session, folder, log)


def resume_run(request: Request, folder: RunFolder, watch: Watch) -> None:
    """Go on from last.pt as if the run had never stopped. Raises InputError where the run, data or teacher is not the same."""
    if folder.finished:
        raise InputError(f"the run '{folder.path}' has finished: there is nothing to resume", "start a new run without --resume")
    teacher = folder.read_environment().get("teacher")
    if request.teacher is None and teacher is not None:
        request = replace(request, teacher=Path(teacher["run"]))
    session = prepare_session(request)
    _require_same(folder.read_run(), session.run, folder)
    log = RunLog(folder, session.run.train.steps, watch)
    if folder.last.is_file():
        _load_state(session, folder.last)
    log.continue_from(session.state.step)
    log.note(f"resuming '{folder.path}' after step {session.state.step} of {session.run.train.steps}")
    _run(session, folder, log)


def _run(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Fit, and add the time it took to environment.json, also when it was stopped."""
    environment = folder.read_environment()
    began, first_step = time.perf_counter(), session.state.step
    try:
        fit(session, folder, log)
    finally:
        environment["seconds"] += time.perf_counter() - began
        if session.state.step > first_step:
            environment["seconds_per_step"] = _median_step_s(folder)
        if folder.finished:
            environment["finished"] = now()
        write_json(folder.environment, environment)


def _median_step_s(folder: RunFolder) -> float | None:
    """Median time of a step in seconds over the reports in the log, so that start-up and interruptions weigh little."""
    times = sorted(event["step_s"] for event in folder.read_log() if event["event"] == "step")
    return float(times[len(times) // 2]) if times else None


def dry_run(request: Request, watch: Watch) -> dict[str, float]:
    """One training step, one validation image, one checkpoint round trip; nothing is kept.

    Returns loss, mIoU_D of that image, seconds of the step, MB of peak memory and, with a teacher, its mIoU_D.
    """
    session = prepare_session(request)
    for line in session.decisions():
        watch.note(line)
    trial = _try_teacher(session, watch)
    run, found = session.run, {}
    if trial is not None:
        found["teacher_mIoU_D"] = trial.scores["mIoU_D"] or 0.0
    batches = training_batches(
        session.dataset, run.data.train_split, view=run.data, batch_size=run.train.batch_size,
        seed=run.train.seed, first_step=0, last_step=1, workers=session.workers,
    )  # fmt: skip
    batch = next(iter(batches))
    began = time.perf_counter()
    terms = take_step(session, batch)
    found["loss"] = float(sum(float(value) for value in terms.values()))
    found["step_s"] = time.perf_counter() - began
    names = session.dataset.names(run.data.val_split)[:1]
    counted = count_images(session.evaluated_model, session.dataset, names, Scoring(run.evaluate, session.compute))
    found["validation_mIoU_D"] = score(counted.table, binary=session.dataset.classes.binary)["mIoU_D"] or 0.0
    found["checkpoint_mb"] = _round_trip(session)
    found["peak_memory_mb"] = peak_memory_mb(session.compute.device)
    return found


def _round_trip(session: Session) -> float:
    """Save the state, load it back, and make sure that every weight came back; the file's size in MB."""
    before = {name: tensor.clone() for name, tensor in session.task.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        session.state.save(path, session.owner())
        size = path.stat().st_size / 1e6
        session.state.load(path)
    same = all(torch.equal(tensor, before[name]) for name, tensor in session.task.state_dict().items())
    assert same, "a checkpoint did not give back the weights it was given"
    return size


def _try_teacher(session: Session, watch: Watch) -> Trial | None:
    if session.teacher is None or not isinstance(session.run, DistillRun):
        return None
    trial = try_teacher(
        session.teacher, session.dataset, session.run, session.compute,
        progress=lambda done, total: watch.advance("scoring the teacher", done, total),
    )  # fmt: skip
    watch.note(str(trial))
    return trial


def _load_state(session: Session, path: Path) -> State:
    about = session.state.load(path)
    wanted = session.owner()
    for key, what in (("run", "preset"), ("dataset", "dataset fingerprint"), ("teacher", "teacher's sha256")):
        if about[key] != wanted[key]:
            raise InputError(
                f"'{path}' belongs to another {what}: got {about[key]}, wanted {wanted[key]}",
                "resume with the data and teacher that the run was started with",
            )
    return session.state


def _require_same(stored: TrainRun, asked: TrainRun, folder: RunFolder) -> None:
    """Refuse to resume under other settings; the way a run is watched may change, what it computes may not."""
    differing = sorted(_differences(stored.model_dump(mode="json"), asked.model_dump(mode="json")))
    harmless = {"data.workers"}
    if found := [path for path in differing if path.split(":")[0] not in harmless]:
        raise InputError(
            f"the run '{folder.path}' was started with other settings: {'; '.join(found)}",
            "resume it with `segctl train --resume --run DIR` alone, or start a new run",
        )


def _differences(stored: object, asked: object, path: str = "") -> list[str]:
    """`a.b: stored -> asked` for every leaf that differs."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = [*stored, *(key for key in asked if key not in stored)]
        return [
            line for key in keys for line in _differences(stored.get(key), asked.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if stored == asked else [f"{path}: {stored!r} -> {asked!r}"]


def _make_folder(folder: RunFolder) -> None:
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot make the run folder '{folder.path}': {error.strerror}", "give another --run or --runs-root"
        ) from error
