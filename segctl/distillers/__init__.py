"""(student, teacher, label) -> named distillation terms. One paper per file, named by its acronym."""

from functools import partial
from typing import assert_never

from torch import nn

from segctl.distillers.align import Pair
from segctl.distillers.base import Distiller, NamedTerm
from segctl.distillers.cirkd import CrossImage
from segctl.distillers.cwd import ChannelFeatures, ChannelLogits
from segctl.distillers.discriminator import Adversarial
from segctl.distillers.dist import Relation
from segctl.distillers.ifvd import IntraClass
from segctl.distillers.jml import Calibration, SoftJDT, SoftKL, as_they_are
from segctl.distillers.kd import PixelKL
from segctl.distillers.maskd import MaskedLogits, MaskStage
from segctl.distillers.memory import ClassQueues, Memory
from segctl.distillers.skd import Pairwise
from segctl.errors import InputError
from segctl.losses import build_jdt
from segctl.losses.teacher_calibration import calibrate
from segctl.schema.distill_terms import (
    AdversarialSpec,
    CalibrationSpec,
    ChannelFeaturesSpec,
    ChannelSpec,
    CrossImageSpec,
    DistillTermSpec,
    FeatureTermSpec,
    IntraClassSpec,
    LogitsTermSpec,
    MaskedSpec,
    MemorySpec,
    PairwiseSpec,
    PixelKLSpec,
    RelationSpec,
    SoftJDTSpec,
    SoftKLSpec,
    distill_names,
    reads,
)
from segctl.schema.methods import DistillerSpec


def build_distiller(spec: DistillerSpec, pair: Pair) -> Distiller:
    """The distiller of a run between two networks; terms are named `<kind>_<logits>`, or `<kind>` on features."""
    names = distill_names(spec.terms)
    named = [NamedTerm(name, _weight(term), build_term(term, pair)) for name, term in zip(names, spec.terms, strict=True)]
    return Distiller(named, spec.label_weight, notes=_resizings(spec, pair))


def build_term(spec: DistillTermSpec, pair: Pair) -> nn.Module:
    """The module of one term; its weight stays with the caller."""
    return _on_logits(spec, pair) if isinstance(spec, LogitsTermSpec) else _on_features(spec, pair)


def _on_logits(spec: LogitsTermSpec, pair: Pair) -> nn.Module:
    match spec:
        case PixelKLSpec():
            return PixelKL(spec.logits, spec.temperature)
        case AdversarialSpec():
            grid = pair.student.of_logits(spec.logits) or pair.student.logits
            seen = (pair.student.classes, grid)
            return Adversarial(spec.logits, seen, spec.loss, spec.gradient_penalty, (spec.lr, spec.betas))
        case ChannelSpec():
            return ChannelLogits(spec.logits, spec.temperature)
        case MaskedSpec():
            return MaskedLogits(MaskStage(spec.tokens, pair.student.classes, spec.stage), spec.logits)
        case RelationSpec():
            return Relation(spec.logits, spec.beta, spec.gamma, spec.group)
        case SoftKLSpec():
            return SoftKL(spec.logits, spec.temperature, _calibration(spec.calibration))
        case SoftJDTSpec():
            return SoftJDT(build_jdt(spec, "present", spec.active), spec.logits, _calibration(spec.calibration))
        case _:
            assert_never(spec)


def _calibration(spec: CalibrationSpec | None) -> Calibration:
    if spec is None:
        return as_they_are
    return partial(calibrate, keys=spec.keys, bandwidth=spec.bandwidth, balanced=spec.balanced, kernel_size=spec.kernel_size)


def _on_features(spec: FeatureTermSpec, pair: Pair) -> nn.Module:
    channels = _channels(spec, pair)
    match spec:
        case PairwiseSpec():
            return Pairwise(spec.pool, spec.norm_gradient)
        case IntraClassSpec():
            return IntraClass(pair.student.classes)
        case ChannelFeaturesSpec():
            return ChannelFeatures(*channels, spec.temperature, spec.divide_by)
        case CrossImageSpec():
            return CrossImage(spec.temperature, spec.group)
        case MemorySpec():
            slots = (spec.pixel_slots, spec.region_slots)
            queues = ClassQueues(pair.student.classes, channels[1], slots, spec.pixels_each, spec.queue)
            return Memory(queues, channels[0], (spec.pixel_samples, spec.region_samples), spec.temperature)
        case _:
            assert_never(spec)


def _channels(spec: FeatureTermSpec, pair: Pair) -> tuple[int, int]:
    """Of the student's and the teacher's features. Raises InputError where a network hides them."""
    if pair.student.channels is None or pair.teacher.channels is None:
        raise InputError(
            f"the distillation term '{spec.kind}' compares features, and this teacher gives none",
            "use terms on logits alone, such as --method kd, dist or jml, or a teacher that segctl trained",
        )
    return pair.student.channels, pair.teacher.channels


def _weight(spec: DistillTermSpec) -> float | dict[str, float]:
    match spec:
        case AdversarialSpec():
            return {"generator": spec.weight, "discriminator": spec.discriminator_weight}
        case MemorySpec():
            return {"pixel": spec.pixel_weight, "region": spec.region_weight}
        case _:
            return spec.weight


def _resizings(spec: DistillerSpec, pair: Pair) -> list[str]:
    """Which of the teacher's maps are resized, one line each."""
    compared = {reads(term) or "features": None for term in spec.terms if not isinstance(term, SoftKLSpec | SoftJDTSpec)}
    grids = {
        "main": (pair.student.logits, pair.teacher.logits),
        "aux": (pair.student.aux, pair.teacher.aux),
        "features": (pair.student.features, pair.teacher.features),
    }
    return [
        f"the teacher's {'features' if name == 'features' else f'{name} logits'} of {theirs[0]}×{theirs[1]} are resized "
        f"to the student's {ours[0]}×{ours[1]}"
        for name in compared
        for ours, theirs in [grids[name]]
        if ours is not None and theirs is not None and ours != theirs
    ]
