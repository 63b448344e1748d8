"""From a preset's distiller to its terms between two networks."""

from importlib import import_module
from typing import Any

from segctl.distillers.align import Pair
from segctl.distillers.base import Distiller, NamedTerm, Term
from segctl.schema.terms.distill_terms import DistillTerm, DistillTermSpec, FeatureTerm, LogitsTerm, distill_names
from segctl.schema.terms.methods import DistillerSpec


def build_distiller(spec: DistillerSpec, pair: Pair) -> Distiller:
    """The distiller of a run between two networks; terms are named `<kind>_<logits>`, or `<kind>` on features.

    Raises InputError if a term compares features and a network hides them.
    """
    names = distill_names(spec.terms)
    named = [
        NamedTerm(name, term.part_weights() or term.weight, build_term(term, pair))
        for name, term in zip(names, spec.terms, strict=True)
    ]
    return Distiller(named, spec.label_weight, notes=_resizings(spec, pair))


def build_term(spec: DistillTermSpec, pair: Pair) -> Term[Any]:
    """The module of one term, without its weight. Raises InputError if it compares features and a network hides them."""
    if isinstance(spec, FeatureTerm):
        pair.channels(spec.kind)
    return term_class(type(spec)).of(spec, pair)


def term_class(spec: type[DistillTerm]) -> type[Term[Any]]:
    """The class that a spec's pointer `file.Class` or `room.file.Class` names.

    The file is imported here, because schema imports no torch and cannot import the class itself.
    """
    file, _, name = spec.term.rpartition(".")
    found: type[Term[Any]] = getattr(import_module(f"segctl.distillers.{file}"), name)
    return found


def _resizings(spec: DistillerSpec, pair: Pair) -> list[str]:
    """One line for each of the teacher's maps that is resized. Logits at label size need none: both networks' are upsampled."""
    read = [part for term in spec.terms if not _at_label_size(term) for part in term.reads]
    grids = {
        "main": ("main logits", pair.student.logits, pair.teacher.logits),
        "aux": ("aux logits", pair.student.aux, pair.teacher.aux),
        "features": ("features", pair.student.features, pair.teacher.features),
    }
    lines = []
    for name, ours, theirs in (grids[output] for output in dict.fromkeys(read)):
        if ours is not None and theirs is not None and ours != theirs:
            resized = f"are resized to the student's {ours[0]}×{ours[1]}"
            lines.append(f"the teacher's {name} of {theirs[0]}×{theirs[1]} {resized}")
    return lines


def _at_label_size(term: DistillTerm) -> bool:
    return isinstance(term, LogitsTerm) and term.at_label_size
