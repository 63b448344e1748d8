"""What a distillation term is, and how weighted terms make a distiller."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from segctl.distillers.align import Pair
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import DistillTerm

S = TypeVar("S", bound=DistillTerm)


class Term(nn.Module, ABC, Generic[S]):
    """One distillation term, built from a spec of type S.

    A term never writes to the teacher's tensors and sends no gradient into them. Its trainable parts are trained with the
    student, except for an opponent.

    In a labelled picture, a term sees the pixels that its paper says. In a picture without label, it sees every real pixel and no
    padding (see `segctl.distillers.seen`), or nothing if it needs labels.
    """

    needs_labels: bool = False
    """Whether it compares by the label's classes, and so learns nothing from a picture without label."""

    @property
    @abstractmethod
    def mean_over_pixels(self) -> bool:
        """Whether its value is a mean over the pixels that it sees, except for ignored and padded ones; if not, it is a mean over
        images.

        Decides how the values of micro-batches add up to the batch's. A class writes `mean_over_pixels = False`.
        """

    @staticmethod
    @abstractmethod
    def of(spec: S, pair: Pair) -> "Term[S]":
        """The term of a spec between two networks. Calls its class by name, so that mypy sees what the class lacks."""

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor | dict[str, Tensor]:
        """Outputs of both networks for the same images; label integer (B, H, W), 255 ignored; `student.unlabelled` marks the real
        pixels of pictures without label.

        Returns a scalar, or scalars by the names of the spec's `part_weights`.
        """


class NamedTerm(NamedTuple):
    """One weighted term of a distiller; `weight` is one number, or one for each of the term's values by name."""

    name: str
    weight: float | Mapping[str, float]
    module: Term[Any]

    def weights(self) -> dict[str, float]:
        """The factor of each of its values, by the value's full name."""
        if isinstance(self.weight, Mapping):
            return {f"{self.name}_{part}": weight for part, weight in self.weight.items()}
        return {self.name: self.weight}


class Opponent(NamedTuple):
    """A network that learns against the student: an Adam of its own takes one step with each of the student's."""

    network: nn.Module
    lr: float
    betas: tuple[float, float]


@runtime_checkable
class Opposed(Protocol):
    """A term with an opponent. The opponent's loss is one of the term's values and trains nothing but the opponent."""

    opponent: Opponent


@runtime_checkable
class Staged(Protocol):
    """A term with a part that is trained before the student's first step: `stage`, whose result `receive` takes over."""

    stage: nn.Module

    def receive(self, stage: nn.Module) -> None: ...


class Peers(Protocol):
    """The processes of a run, as a term sees them: `rank` of `size`."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Every rank's rows (R, D) in rank order, on every rank; R may differ between ranks."""


@runtime_checkable
class Joined(Protocol):
    """A part with a memory that must be equal in all processes of a run."""

    def join(self, peers: Peers) -> None: ...


@runtime_checkable
class Announced(Protocol):
    """A part that was made to fit these two networks; its sentence is printed before step 1."""

    announcement: str


class Distiller(nn.Module):
    """The terms by which a student learns from a teacher.

    forward: student and teacher Outputs of the same images, label integer (B, H, W) with 255 ignored -> each value by name, a
    scalar in at least float32, unweighted. `weights` holds the values' factors and `label_weight` the task loss's; the caller
    multiplies by both. The distiller is not part of the shipped student.
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
        with torch.autocast(label.device.type, enabled=False):  # terms compute in float32, also if the networks did not
            for name, term in self.terms.items():
                found = term(student, teacher, label)
                values |= {name: found} if isinstance(found, Tensor) else {f"{name}_{part}": x for part, x in found.items()}
        return values

    def term_of(self, value: str) -> Term[Any]:
        """The term that computes the value of this name."""
        term = self.terms[self._owners[value]]
        assert isinstance(term, Term)  # a ModuleDict forgets the type of what it holds
        return term

    def opponents(self) -> list[Opponent]:
        """The networks that learn against the student, in the order of the terms."""
        return [term.opponent for term in self.terms.values() if isinstance(term, Opposed)]

    def staged(self) -> dict[str, Staged]:
        """The terms with a stage before step 1, by name."""
        return {name: term for name, term in self.terms.items() if isinstance(term, Staged)}

    def meet(self, peers: Peers) -> None:
        """Connect the parts with a memory to those of the other processes."""
        for part in self.modules():
            if isinstance(part, Joined):
                part.join(peers)

    def announcements(self) -> list[str]:
        """One line for each thing that was made or resized so that these two networks can be compared."""
        return [*self._notes, *(part.announcement for part in self.modules() if isinstance(part, Announced))]
