"""Train a run, finished or not, for more steps than it was started with."""

from segctl.errors import InputError
from segctl.files import write_json, write_yaml
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun, with_steps
from segctl.train.environment import now
from segctl.train.optimizer import learning_rate
from segctl.train.resume import continue_run, reopen
from segctl.train.run_log import Watch
from segctl.train.session import Request, Session, one_writer


def extend_run(request: Request, folder: RunFolder, watch: Watch) -> None:
    """Resume the run in `folder` with `request.run`, which is the same run with more steps.

    The schedule is the longer run's from here on, so the learning rate rises again; a note gives both rates. The network's
    file of the shorter run becomes model-<steps>.safetensors.  Raises InputError if the run is not shorter or has no checkpoint.
    """
    request.world.together(folder.read_run)  # for its message where the folder is not a run
    with one_writer(folder, request.world):
        stored = request.world.together(lambda: _read_shorter(folder, request.run))
        steps = request.run.train.steps
        session, log = reopen(request, folder, watch, with_steps(stored, steps), "--extend-to", str(steps))
        if session.stopped_early:
            log.note(f"the run was stopped early after step {session.state.step}; early stopping counts again from here")
        session.state.waiting.validations = 0
        session.world.on_main(lambda: _write_extension(folder, session, stored.train.steps))
        session.world.wait()
        log.note(_rates_in_words(folder, session, stored))
        continue_run(request, session, folder, log)


def _read_shorter(folder: RunFolder, longer: TrainRun) -> TrainRun:
    stored = folder.read_run()
    if longer.train.steps <= stored.train.steps:
        raise InputError(
            f"--extend-to {longer.train.steps}: the run '{folder.path}' has {stored.train.steps} steps already",
            f"give more than {stored.train.steps}",
        )
    if not folder.last.is_file():
        raise InputError(
            f"the run '{folder.path}' has no last.pt to extend",
            f"start a new run, from its weights with --set model.weights={folder.model}"
            if folder.finished
            else "start a new run",
        )
    return stored


def _write_extension(folder: RunFolder, session: Session, before: int) -> None:
    """Write the new number of steps into run.yaml and environment.json, and rename the shorter run's model file."""
    environment, after = folder.read_environment(), session.run.train.steps
    extension = {"from": before, "to": after, "at_step": session.state.step, "when": now()}
    extended = [*environment.get("extended", []), extension]
    write_json(folder.environment, environment | {"steps": after, "finished": None, "extended": extended})
    write_yaml(folder.run_yaml, session.run.model_dump(mode="json"))
    if folder.finished:
        # Fewer than `before` steps if it was stopped early.
        folder.model.rename(folder.path / f"model-{session.state.step}{folder.model.suffix}")


def _rates_in_words(folder: RunFolder, session: Session, stored: TrainRun) -> str:
    run, step, before = session.run, session.state.step, stored.train.steps
    scheduled = session.state.scheduled
    was = learning_rate(run.schedule, run.optim.lr, max(0, scheduled - 1), before)
    will_be = learning_rate(run.schedule, run.optim.lr, scheduled, run.train.steps)
    return (
        f"extending '{folder.path}' from {before} to {run.train.steps} steps: after step {step} the learning rate follows the "
        f"schedule of {run.train.steps} steps, {will_be:.3g} instead of {was:.3g}"
    )
