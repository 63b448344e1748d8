"""Validation during a run, and its best weights."""

from pathlib import Path

from segctl.evaluate.count_images import Scoring, StoppedCountingError, count_split
from segctl.evaluate.worst_images import write_strips
from segctl.metrics.scores import class_scores, foreground_scores, score, worst_images
from segctl.models import save
from segctl.runs import RunFolder
from segctl.runtime.signals import Requests
from segctl.schema.run import PretrainRun
from segctl.train.pretrain.probe import fit_probe
from segctl.train.run_log import HEADLINE_SCORES, RunLog
from segctl.train.session import Session

WORST_TRACKED = 4
"""Worst images that trackers are given after each validation."""


def validate(session: Session, folder: RunFolder, log: RunLog, requests: Requests) -> None:
    """Score the validation split under the run's protocol, and write best.pt if the score is the best so far.

    A request to stop ends the validation early and without scores; the resumed run makes up for it.
    """
    run, state, model, world = session.run, session.state, session.evaluated_model, session.world
    world.align(model)

    def advance(done: int, total: int) -> None:
        log.watch.advance(f"validating on {run.data.val_split}", done, total)
        if requests.stop is not None:
            raise StoppedCountingError

    how = Scoring(run.evaluate, session.compute, session.workers, world)
    try:
        if isinstance(run, PretrainRun) and not fit_probe(session, model, advance):
            log.note(f"no score after step {state.step}: the linear probe has no labels")
            state.validated = state.step
            return
        counted = count_split(model, session.dataset, run.data.val_split, how, advance)
    except StoppedCountingError:
        return
    binary, early_stop = session.dataset.classes.binary, run.train.early_stop
    scores = score(counted.table, binary=binary)

    def draw(place: Path) -> list[Path]:
        return write_strips(place, worst_images(counted.table, WORST_TRACKED, binary=binary), model, session.dataset, how)

    first = foreground_scores(session.dataset.classes.names) if binary else HEADLINE_SCORES
    shown = tuple(dict.fromkeys((*first, run.train.select_by, run.train.watched)))
    if not scores.keys() >= set(shown):
        of_classes = class_scores(counted.table, binary=binary)
        scores |= {name: of_classes[name] for name in shown if name not in scores}
    log.validated(state.step, scores, shown)
    state.validated = state.step
    if early_stop is not None:
        state.waiting.add(scores[run.train.watched], early_stop.min_gain)
    world.on_main(lambda: log.show_worst(state.step, draw))
    value = scores[run.train.select_by]
    if value is not None and value > state.best.score:
        state.best.score, state.best.step = value, state.step
        world.on_main(lambda: save(folder.best, model, run, session.dataset.classes.names))
