"""Which published scores of a preset belong beside a run's own: those of its dataset and split."""

from functools import cache

from segctl.schema.load import load_preset, preset_names
from segctl.schema.run import PublishedScore, TrainRun


def published_on(run: TrainRun, split: str) -> tuple[PublishedScore, ...]:
    """The published scores of this run's student on the split of the run's dataset.

    A score in a shipped preset is of that preset's dataset and validation split, whatever run or file it was copied to; a score
    that only a person's own preset has is of the dataset and validation split which stand beside it.
    """
    place = (run.data.dataset, split)
    own = {(run.data.dataset, run.data.val_split)}
    return tuple(score for score in run.published if place in (_shipped_places().get(_of(score)) or own))


@cache
def _shipped_places() -> dict[tuple[object, ...], set[tuple[str, str]]]:
    """The datasets and splits that shipped presets give each published score for."""
    places: dict[tuple[object, ...], set[tuple[str, str]]] = {}
    for run in map(load_preset, preset_names()):
        for score in run.published:
            places.setdefault(_of(score), set()).add((run.data.dataset, run.data.val_split))
    return places


def _of(score: PublishedScore) -> tuple[object, ...]:
    """What a copied score keeps; a later segctl may say more in its note."""
    return score.method, score.metric, score.value, score.source
