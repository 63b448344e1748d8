"""What a distillation term is, and how weighted terms make a distiller."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.outputs import Outputs
from segctl.schema.losses import Output


class NamedTerm(NamedTuple):
    """One weighted term of a distiller.

    `module` is called `module(student, teacher, label)` with two Outputs and an integer label (B, H, W), 255 ignored, and
    returns a scalar.  It never writes to the teacher's tensors and sends no gradient into them.  Its attribute
    `mean_over_pixels` says whether the scalar is a mean over the label's valid pixels.
    """

    name: str
    weight: float
    module: nn.Module


class Distiller(nn.Module):
    """The terms by which a student learns from a teacher.

    forward: student and teacher Outputs of the same images, label (B, H, W) -> each term's value by name, unweighted.
    `weights` are the terms' factors and `label_weight` is the task loss's; the caller applies both.
    Anything trainable in a term is a parameter of the distiller, and trained with the student.
    """

    def __init__(self, terms: Sequence[NamedTerm], label_weight: float = 1.0) -> None:
        super().__init__()
        self.label_weight = label_weight
        self.weights = {term.name: term.weight for term in terms}
        self.terms = nn.ModuleDict({term.name: term.module for term in terms})

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        return {name: term(student, teacher, label) for name, term in self.terms.items()}


def check_aux(teacher: Outputs, logits: Output, kind: str) -> None:
    """Refuse a term on auxiliary logits when the teacher has none. Raises InputError."""
    if logits == "aux" and teacher.prediction.aux_logits is None:
        raise InputError(
            f"the distillation term '{kind}' compares auxiliary logits, and this teacher has none",
            "use a teacher trained with model.aux true, or leave the term out of distiller.terms",
        )
