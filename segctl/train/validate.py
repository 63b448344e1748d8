"""Which weights a run keeps: validation, the best of them, and what model.pt holds in the end."""

import shutil
from pathlib import Path

from segctl.evaluate.count_images import Scoring, StoppedCountingError, count_split
from segctl.files import write_whole
from segctl.metrics.scores import score
from segctl.models import save
from segctl.runs import RunFolder
from segctl.runtime.signals import Requests
from segctl.train.run_log import RunLog
from segctl.train.session import Session


def validate(session: Session, folder: RunFolder, log: RunLog, requests: Requests) -> None:
    """Score the validation split under the run's protocol, and keep the best weights; a request to stop ends it early."""
    run, state, model, world = session.run, session.state, session.evaluated_model, session.world
    world.align(model)

    def advance(done: int, total: int) -> None:
        log.watch.advance(f"validating on {run.data.val_split}", done, total)
        if requests.stop is not None:
            raise StoppedCountingError

    how = Scoring(run.evaluate, session.compute, session.workers, world)
    try:
        counted = count_split(model, session.dataset, run.data.val_split, how, advance)
    except StoppedCountingError:
        return  # made up for when the run goes on
    scores = score(counted.table, binary=session.dataset.classes.binary)
    log.validated(state.step, scores)
    state.validated = state.step
    value = scores["mIoU_D"]
    if value is not None and value > state.best.score:
        state.best.score, state.best.step = value, state.step
        world.on_main(lambda: save(folder.best, model, run, session.dataset.classes.names))


def finish(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Write model.pt, which marks the run as finished and so comes last of all."""
    session.world.align(session.evaluated_model)
    session.world.on_main(lambda: _write_model(session, folder, log))


def _write_model(session: Session, folder: RunFolder, log: RunLog) -> None:
    """The weights that the run ships: those of its best validation, or its last."""
    run, state = session.run, session.state
    best = run.train.select == "best" and folder.best.is_file()
    step = state.best.step if best else state.step
    chosen = f"the best validation, after step {step} ({state.best.score:.2f} mIoU_D)" if best else f"step {step}"
    log.event("end", {"step": state.step, "weights_step": step, "weights_of": chosen})
    log.note(f"finished after {state.step} steps; model.pt holds the weights of {chosen}")
    if best:
        write_whole(folder.model, lambda partial: _copy(folder.best, partial))
    else:
        save(folder.model, session.evaluated_model, run, session.dataset.classes.names)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
