"""What a distillation term is, and how weighted terms make a distiller."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.outputs import Outputs
from segctl.schema.loss_terms import Output


class NamedTerm(NamedTuple):
    """One weighted term of a distiller.

    `module` is called `module(student, teacher, label)` with two Outputs and an integer label (B, H, W), 255 ignored, and
    returns a scalar, or several by name.  It never writes to the teacher's tensors and sends no gradient into them.  Its
    attribute `mean_over_pixels` says whether the scalar is a mean over the label's valid pixels.
    `weight` is one number, or one for each name.
    """

    name: str
    weight: float | Mapping[str, float]
    module: nn.Module

    def weights(self) -> dict[str, float]:
        """Factor of each of its values, by the value's full name."""
        if isinstance(self.weight, Mapping):
            return {f"{self.name}_{part}": weight for part, weight in self.weight.items()}
        return {self.name: self.weight}


class Opponent(NamedTuple):
    """A network that learns against the student: trained by an Adam of its own, one step with each of the student's."""

    network: nn.Module
    lr: float
    betas: tuple[float, float]


@runtime_checkable
class Opposed(Protocol):
    """A term with an opponent. The opponent's loss is one of the term's values, and reaches nothing but the opponent."""

    opponent: Opponent


@runtime_checkable
class Staged(Protocol):
    """A term that wants something learnt before the student's first step: `stage`, which `receive` takes over."""

    stage: nn.Module

    def receive(self, stage: nn.Module) -> None: ...


class Peers(Protocol):
    """The processes of a run, as a term sees them: `rank` of `size`."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Everybody's rows (R, D), of which each may have another number, in rank order, on every rank."""


@runtime_checkable
class Joined(Protocol):
    """A part with a memory that all processes of a run keep alike."""

    def join(self, peers: Peers) -> None: ...


@runtime_checkable
class Announced(Protocol):
    """A part that was made to fit these two networks, and says so before step 1."""

    announcement: str


class Distiller(nn.Module):
    """The terms by which a student learns from a teacher.

    forward: student and teacher Outputs of the same images, label (B, H, W) -> each value by name, unweighted.
    `weights` are the values' factors and `label_weight` is the task loss's; the caller applies both.
    Anything trainable in a term is a parameter of the distiller and trained with the student, except for opponents.
    All of it computes in float32 whatever the networks computed in, and is left behind when the student is shipped.
    """

    def __init__(self, terms: Sequence[NamedTerm], label_weight: float = 1.0, notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.label_weight = label_weight
        self.terms = nn.ModuleDict({term.name: term.module for term in terms})
        self.weights = {name: weight for term in terms for name, weight in term.weights().items()}
        self._owners = {name: term.name for term in terms for name in term.weights()}
        self._notes = list(notes)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        with torch.autocast(label.device.type, enabled=False):
            for name, term in self.terms.items():
                found = term(student, teacher, label)
                values |= {name: found} if isinstance(found, Tensor) else {f"{name}_{part}": x for part, x in found.items()}
        return values

    def term_of(self, value: str) -> nn.Module:
        """The term that a value comes from."""
        return self.terms[self._owners[value]]

    def opponents(self) -> list[Opponent]:
        """The networks that learn against the student, in the order of the terms."""
        return [term.opponent for term in self.terms.values() if isinstance(term, Opposed)]

    def staged(self) -> dict[str, Staged]:
        """The terms that want a stage before step 1, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, Staged)}

    def meet(self, peers: Peers) -> None:
        """Let the parts that remember do so together with the other processes' ones."""
        for part in self.modules():
            if isinstance(part, Joined):
                part.join(peers)

    def announcements(self) -> list[str]:
        """What was made or resized so that these two networks can be compared, one line each."""
        return [*self._notes, *(part.announcement for part in self.modules() if isinstance(part, Announced))]


def check_aux(teacher: Outputs, logits: Output, kind: str) -> None:
    """Refuse a term on auxiliary logits when the teacher has none. Raises InputError."""
    if logits == "aux" and teacher.prediction.aux_logits is None:
        raise InputError(
            f"the distillation term '{kind}' compares auxiliary logits, and this teacher has none",
            "use a teacher trained with model.aux true, or leave the term out of distiller.terms",
        )
