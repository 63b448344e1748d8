"""(student, teacher, label) -> named distillation terms. One paper per file, named by its acronym.

docs/add-a-term.md says how to add one.
"""

from segctl.distillers.align import Pair, Shape
from segctl.distillers.base import Distiller, NamedTerm, Term
from segctl.distillers.build import build_distiller, build_term, term_class

__all__ = ["Distiller", "NamedTerm", "Pair", "Shape", "Term", "build_distiller", "build_term", "term_class"]
