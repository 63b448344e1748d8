"""The total loss of a run, written out."""

from typing import assert_never

from segctl.schema.data import BoundaryLabels, HardLabels, LabelSpec, SmoothedLabels
from segctl.schema.distill_terms import (
    AdversarialSpec,
    CalibrationSpec,
    ChannelFeaturesSpec,
    ChannelSpec,
    CrossImageSpec,
    DistillTermSpec,
    IntraClassSpec,
    LogitsTermSpec,
    MaskedSpec,
    MemorySpec,
    PairwiseSpec,
    PixelKLSpec,
    RelationSpec,
    SoftJDTSpec,
    SoftKLSpec,
)
from segctl.schema.loss_formula import classes, jaccard, loss_term
from segctl.schema.run import DistillRun, TrainRun


def total_loss(run: TrainRun) -> str:
    """The task loss on the first line, one line per distillation term, and what y' is where labels are softened.

    `main` and `aux` are the student's logits, at label size unless a term says `at head stride`; `y` is the label,
    `teacher` the teacher's probabilities.
    """
    soft = not isinstance(run.labels, HardLabels)
    label = "y'" if soft else "y"
    task = " + ".join(f"{term.weight:g}·{loss_term(term, label, soft)}" for term in run.loss)
    lines = [f"L = {task}"]
    if isinstance(run, DistillRun):
        scaled = task if run.distiller.label_weight == 1 else f"{run.distiller.label_weight:g}·[{task}]"
        lines = [f"L = {scaled}", *(f"  + {text}" for term in run.distiller.terms for text in _distill_term(term))]
    return "\n".join([*lines, *_where(run.labels)])


def _where(labels: LabelSpec) -> list[str]:
    match labels:
        case HardLabels():
            return []
        case SmoothedLabels():
            return [f"where y' = {1 - labels.epsilon:g}·y + {labels.epsilon:g}/C at every valid pixel"]
        case BoundaryLabels():
            kernel = f"{labels.kernel_size}×{labels.kernel_size}"
            return [
                f"where y' = {1 - labels.epsilon:g}·y + {labels.epsilon:g}/C at pixels whose {kernel} window holds another class"
            ]
        case _:
            assert_never(labels)


def _distill_term(term: DistillTermSpec) -> list[str]:
    if isinstance(term, MemorySpec):
        memory = f"memory(τ {term.temperature:g}, features, {term.queue} queues)"
        return [f"{term.pixel_weight:g}·pixel {memory}", f"{term.region_weight:g}·region {memory}"]
    text = _on_logits(term) if isinstance(term, LogitsTermSpec) else _on_features(term)
    return [f"{term.weight:g}·{text}"]


def _on_logits(term: LogitsTermSpec) -> str:
    place = f"{term.logits} at head stride"
    match term:
        case PixelKLSpec():
            return f"KD({_temperature(term.temperature)}{place}, all pixels)"
        case AdversarialSpec():
            return f"[-mean D({place})], while D learns by {term.discriminator_weight:g}·{term.loss}"
        case ChannelSpec():
            return f"CWD({_temperature(term.temperature)}{place})"
        case MaskedSpec():
            return f"MasKD({term.tokens} masks, {place})"
        case RelationSpec():
            return f"DIST(β {term.beta:g}, γ {term.gamma:g}, {place}, groups of {term.group})"
        case SoftKLSpec():
            return f"KL({_temperature(term.temperature)}{_teacher(term.calibration)} ‖ {term.logits})"
        case SoftJDTSpec():
            return jaccard(term, term.logits, _teacher(term.calibration), classes(term.active, "all"))
        case _:
            assert_never(term)


def _on_features(term: PairwiseSpec | IntraClassSpec | ChannelFeaturesSpec | CrossImageSpec) -> str:
    match term:
        case PairwiseSpec():
            return f"pairwise similarity(features, max-pool {term.pool:g})"
        case IntraClassSpec():
            return "intra-class variation(features, y)"
        case ChannelFeaturesSpec():
            return f"CWD({_temperature(term.temperature)}features, over the number of {term.divide_by} channels)"
        case CrossImageSpec():
            return f"cross-image similarity(τ {term.temperature:g}, features, groups of {term.group})"
        case _:
            assert_never(term)


def _teacher(calibration: CalibrationSpec | None) -> str:
    if calibration is None:
        return "teacher"
    keys = f"{calibration.keys} {'balanced ' if calibration.balanced else ''}keys"
    return f"teacher calibrated(h {calibration.bandwidth:g}, {keys}, {calibration.kernel_size}×{calibration.kernel_size})"


def _temperature(temperature: float) -> str:
    return "" if temperature == 1 else f"T {temperature:g}, "
