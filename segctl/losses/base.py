"""What every loss is: a module called `loss(logits, label, keep_mask=None)` that says how parts of a batch add up."""

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from segctl.schema.terms.loss_terms import LossTerm

S = TypeVar("S", bound=LossTerm)


class Averaged(Protocol):
    """What adding up micro-batches needs to know of a loss or a distillation term."""

    @property
    def mean_over_pixels(self) -> bool:
        """Whether the value is a mean over the valid pixels; if not, it is a mean over images."""

    @property
    def needs_labels(self) -> bool:
        """Whether it sees only labelled pixels, and so learns nothing from a picture without label."""


class Loss(nn.Module, ABC, Generic[S]):
    """A loss of the task, built from a spec of type S. It sees only labelled pixels."""

    needs_labels = True

    @property
    @abstractmethod
    def mean_over_pixels(self) -> bool:
        """Whether the value is a mean over the valid pixels; if not, it is a mean over images.

        Decides how the values of micro-batches add up to the batch's. A class writes `mean_over_pixels = True`.
        """

    @staticmethod
    @abstractmethod
    def of(spec: S) -> "Loss[S]":
        """The loss of a preset's term; 255 is ignored. Calls its class by name, so that mypy sees what the class lacks."""

    @abstractmethod
    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        """logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.

        Raises ArgumentError (a ValueError) for other shapes and, on the CPU, for class ids outside the classes.
        """
