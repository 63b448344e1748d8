"""What a run takes from its dataset: steps from epochs, and class weights from the number of pixels of each class."""

from segctl.data.advice import prepare_again
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError, did_you_mean
from segctl.losses.class_weights import CAP, balanced_weights
from segctl.metrics.scores import known_scores
from segctl.schema.run import TrainRun
from segctl.schema.terms.loss_terms import CrossEntropySpec, FocalSpec, LossTermSpec


def weighted_loss(run: TrainRun, dataset: PreparedDataset) -> tuple[LossTermSpec, ...]:
    """The task loss, with numbers for `class_weights: auto`. Raises InputError where the dataset does not say how many pixels."""
    return tuple(
        term.model_copy(update={"class_weights": class_weights_of(run, dataset)})
        if isinstance(term, CrossEntropySpec | FocalSpec) and term.class_weights == "auto"
        else term
        for term in run.loss
    )


def has_auto_weights(run: TrainRun) -> bool:
    """Whether any term of the task loss has `class_weights: auto`."""
    return any(getattr(term, "class_weights", None) == "auto" for term in run.loss)


def class_weights_of(run: TrainRun, dataset: PreparedDataset) -> tuple[float, ...]:
    """One weight for each class, from the labels of the training split."""
    counts = (dataset.label_counts or {}).get(run.data.train_split)
    if counts is None:
        raise InputError(
            f"class_weights: got 'auto', but '{dataset.name}' was prepared by an older segctl, which did not count its pixels",
            f"{prepare_again(dataset.name, dataset.folder.parent)}, or give one number for each class",
        )
    if not any(counts.classes):
        raise InputError(
            f"class_weights: got 'auto', but no label of split '{run.data.train_split}' of '{dataset.name}' shows a class",
            "look at it with `segctl data preview`",
        )
    return balanced_weights(counts.classes)


def weights_in_words(run: TrainRun, dataset: PreparedDataset) -> str:
    """The weights that `class_weights: auto` stands for, in a line."""
    weights = class_weights_of(run, dataset)
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(dataset.classes.names, weights, strict=True))
    return f"class weights, by 1/√frequency in '{run.data.train_split}', at most {CAP:g} times the smallest: {shown}"


def require_scores(run: TrainRun, dataset: PreparedDataset) -> None:
    """Raise InputError where train.select_by or train.early_stop.score names no score of the dataset's classes."""
    early_stop = run.train.early_stop
    named = {"train.select_by": run.train.select_by, "train.early_stop.score": None if early_stop is None else early_stop.score}
    known = known_scores(dataset.classes.names, binary=dataset.classes.binary)
    for path, name in named.items():
        if name is not None and name not in known:
            raise InputError(
                f"{path}: '{name}' is not a score of '{dataset.name}'{did_you_mean(name, known)}",
                "give a name in scores.json, such as mIoU_D or mIoU_C, or a class's, such as "
                f"'IoU_D.{dataset.classes.names[-1]}'",
            )
