"""JML-KD: the teacher's probabilities as soft labels, for a pixel loss and an IoU loss."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from segctl.distillers.align import Pair, check_aux
from segctl.distillers.base import Term
from segctl.ignored import IGNORED
from segctl.losses.jdt import JDTLoss
from segctl.losses.kl import KLLoss
from segctl.losses.pixels import sum_dtype
from segctl.losses.teacher_calibration import calibrate
from segctl.models.outputs import Outputs
from segctl.schema.distill_terms import CalibrationSpec, SoftJDTSpec, SoftKLSpec
from segctl.schema.loss_terms import Output


def soft_label(teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax(teacher / T): logits (B, C, H, W) -> probabilities (B, C, H, W) in at least float32, without gradient."""
    return (teacher.detach().to(sum_dtype(teacher)) / temperature).softmax(1)


Calibration = Callable[[Tensor, Tensor], Tensor]
"""From the teacher's probabilities (B, C, H, W) and the label (B, H, W) to better probabilities."""


def as_they_are(probabilities: Tensor, label: Tensor) -> Tensor:
    """No calibration: (B, C, H, W) and (B, H, W) -> the same probabilities."""
    return probabilities


def calibration_of(spec: CalibrationSpec | None) -> Calibration:
    """The calibration of a spec."""
    if spec is None:
        return as_they_are
    return partial(calibrate, keys=spec.keys, bandwidth=spec.bandwidth, balanced=spec.balanced, kernel_size=spec.kernel_size)


class SoftKL(Term[SoftKLSpec]):
    """T² times the mean over the valid pixels of KL(teacher || student), both at label size.

    Source: arXiv:2302.05666, the cross-entropy part of JML-KD in its KL form; T = 1 there.
    """

    mean_over_pixels = True

    def __init__(self, logits: Output = "main", temperature: float = 1.0, calibration: Calibration = as_they_are) -> None:
        super().__init__()
        self.logits: Output = logits
        self.loss = KLLoss(temperature)
        self.calibration = calibration

    @staticmethod
    def of(spec: SoftKLSpec, pair: Pair) -> "SoftKL":
        return SoftKL(spec.logits, spec.temperature, calibration_of(spec.calibration))

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, H, W) at label size, label integer (B, H, W). Returns a scalar of at least 0."""
        check_aux(teacher, self.logits, "soft_kl")
        q = self.calibration(soft_label(teacher.upsampled(self.logits), self.loss.temperature), label)
        loss: Tensor = self.loss(student.upsampled(self.logits), q, label != IGNORED)
        return loss


class SoftJDT(Term[SoftJDTSpec]):
    """A Jaccard, Dice or Tversky metric loss against the teacher's probabilities, at label size, over the valid pixels.

    Source: arXiv:2302.05666; all classes are active there, and on the main logits only.
    """

    mean_over_pixels = False

    def __init__(self, loss: JDTLoss, logits: Output = "main", calibration: Calibration = as_they_are) -> None:
        super().__init__()
        self.logits: Output = logits
        self.loss = loss
        self.calibration = calibration

    @staticmethod
    def of(spec: SoftJDTSpec, pair: Pair) -> "SoftJDT":
        loss = JDTLoss.of_family(spec, active_hard="present", active_soft=spec.active)
        return SoftJDT(loss, spec.logits, calibration_of(spec.calibration))

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, H, W) at label size, label integer (B, H, W). Returns a scalar, from 0 to 1 with the defaults."""
        check_aux(teacher, self.logits, "soft_jdt")
        q = self.calibration(soft_label(teacher.upsampled(self.logits)), label)
        loss: Tensor = self.loss(student.upsampled(self.logits), q, label != IGNORED)
        return loss
