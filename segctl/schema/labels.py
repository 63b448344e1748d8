"""What the task loss is given as label: class ids, or probabilities made from them."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.spec import Spec


class LabelForm(Spec):
    """The base of every form of labels."""

    kind: str

    @abstractmethod
    def formula(self) -> str:
        """What y' is in the total loss, as one line; empty where labels are class ids."""


class HardLabels(LabelForm):
    """Labels as they are."""

    kind: Literal["hard"] = "hard"

    def formula(self) -> str:
        return ""


class SmoothedLabels(LabelForm):
    """(1 - epsilon) on the true class plus epsilon spread evenly over all classes, at every valid pixel."""

    kind: Literal["smoothed"] = "smoothed"
    epsilon: float = Field(0.1, gt=0, lt=1)
    """Probability mass that is spread."""

    def formula(self) -> str:
        return f"y' = {1 - self.epsilon:g}·y + {self.epsilon:g}/C at every valid pixel"


class BoundaryLabels(LabelForm):
    """Label smoothing on boundary pixels only (arXiv:2302.05666)."""

    kind: Literal["boundary"] = "boundary"
    epsilon: float = Field(0.5, gt=0, lt=1)
    """Probability mass that is spread at a boundary pixel."""
    kernel_size: int = Field(3, ge=3)
    """Odd window, in pixels: a pixel is on a boundary where its window holds another class."""

    def formula(self) -> str:
        kernel = f"{self.kernel_size}×{self.kernel_size}"
        return f"y' = {1 - self.epsilon:g}·y + {self.epsilon:g}/C at pixels whose {kernel} window holds another class"


class RaterLabels(LabelForm):
    """The mean of several raters' labels; for their majority, take hard labels (arXiv:2302.05666, 2303.16296)."""

    kind: Literal["raters"] = "raters"
    mean: Literal["uniform", "weighted"] = "weighted"
    """uniform: all raters count equally. weighted: each by the Dice score of its whole label map against the majority."""

    def formula(self) -> str:
        raters = "raters" if self.mean == "uniform" else "raters, each weighted by its Dice score against their majority"
        return f"y' = mean of the {raters}"


LabelSpec = Annotated[HardLabels | SmoothedLabels | BoundaryLabels | RaterLabels, Field(discriminator="kind")]
