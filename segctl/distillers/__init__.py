"""(student, teacher, label) -> named distillation terms. One paper per file, named by its acronym."""

from typing import assert_never

from torch import nn

from segctl.distillers.base import Distiller, NamedTerm
from segctl.distillers.jml import SoftJDT, SoftKL
from segctl.distillers.kd import PixelKL
from segctl.losses import build_jdt
from segctl.schema.distillers import DistillerSpec, DistillTermSpec, PixelKLSpec, SoftJDTSpec, SoftKLSpec
from segctl.schema.losses import term_names


def build_distiller(spec: DistillerSpec) -> Distiller:
    """The distiller of a run; terms are named `<kind>_<logits>` (`soft_kl_main`), the second of a name `soft_kl_main_2`."""
    names = term_names(spec.terms)
    named = [NamedTerm(name, term.weight, build_term(term)) for name, term in zip(names, spec.terms, strict=True)]
    return Distiller(named, spec.label_weight)


def build_term(spec: DistillTermSpec) -> nn.Module:
    """The module of one term; its weight stays with the caller."""
    match spec:
        case PixelKLSpec():
            return PixelKL(spec.logits, spec.temperature)
        case SoftKLSpec():
            return SoftKL(spec.logits, spec.temperature)
        case SoftJDTSpec():
            return SoftJDT(build_jdt(spec, "present", spec.active), spec.logits)
        case _:
            assert_never(spec)
