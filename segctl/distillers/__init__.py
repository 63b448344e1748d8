"""(student, teacher, label) -> named distillation terms. One paper per file, named by its acronym."""

from collections.abc import Sequence
from typing import assert_never

from torch import nn

from segctl.distillers.base import Distiller, NamedTerm
from segctl.distillers.jml import SoftJDT, SoftKL
from segctl.distillers.kd import PixelKL
from segctl.losses.jdt import JDTLoss
from segctl.schema.distillers import DistillerSpec, DistillTermSpec, PixelKLSpec, SoftJDTSpec, SoftKLSpec


def build_distiller(spec: DistillerSpec) -> Distiller:
    """The distiller of a run; terms are named `<kind>_<logits>` (`soft_kl_main`), the second of a name `soft_kl_main_2`."""
    modules = [build_term(term) for term in spec.terms]
    named = [
        NamedTerm(name, term.weight, module) for name, term, module in zip(_names(spec.terms), spec.terms, modules, strict=True)
    ]
    return Distiller(named, spec.label_weight)


def build_term(spec: DistillTermSpec) -> nn.Module:
    """The module of one term; its weight stays with the caller."""
    match spec:
        case PixelKLSpec():
            return PixelKL(spec.logits, spec.temperature)
        case SoftKLSpec():
            return SoftKL(spec.logits, spec.temperature)
        case SoftJDTSpec():
            return SoftJDT(_metric_loss(spec), spec.logits)
        case _:
            assert_never(spec)


def _metric_loss(spec: SoftJDTSpec) -> JDTLoss:
    return JDTLoss(
        miou_d=spec.miou_d,
        miou_i=spec.miou_i,
        miou_c=spec.miou_c,
        alpha=spec.alpha,
        beta=spec.beta,
        gamma=spec.gamma,
        smooth=spec.smooth,
        norm=spec.norm,
        log_loss=spec.log_loss,
        threshold=spec.threshold,
        active_soft=spec.active,
    )


def _names(terms: Sequence[DistillTermSpec]) -> list[str]:
    names: list[str] = []
    for term in terms:
        name = f"{term.kind}_{term.logits}"
        repeat = 1 + sum(other == name or other.startswith(f"{name}_") for other in names)
        names.append(name if repeat == 1 else f"{name}_{repeat}")
    return names
