"""JML-KD: the teacher's probabilities as soft labels, for a pixel loss and an IoU loss.

Pixels: in a labelled picture the labelled ones, as published, or all with `pixels: all`; in a picture without label the real
ones.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from segctl.distillers.align import Pair, check_aux
from segctl.distillers.base import Term
from segctl.distillers.seen import labelled_pixels, mean_over_seen, seen_pixels
from segctl.losses.jdt import JDTLoss
from segctl.losses.kl import KLLoss
from segctl.losses.pixels import sum_dtype
from segctl.losses.sums.at_stride import SoftAtStride
from segctl.losses.sums.choose import sums_at_stride
from segctl.losses.sums.plain import Sums
from segctl.losses.teacher_calibration import calibrate
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import CalibrationSpec, Compared, SoftJDTSpec, SoftKLSpec
from segctl.schema.terms.loss_terms import Output


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


def compared_pixels(student: Outputs, label: Tensor, pixels: Compared) -> Tensor:
    """bool (B, H, W): the pixels of a label (B, H, W) over which a term counts."""
    if pixels == "all":
        seen = seen_pixels(student, label, (label.shape[-2], label.shape[-1]))
        return torch.ones_like(label, dtype=torch.bool) if seen is None else seen
    labelled = labelled_pixels(student, label)
    return labelled if student.unlabelled is None else labelled | student.unlabelled


def sums_between(
    student: Outputs,
    teacher: Outputs,
    name: Output,
    label: Tensor,
    *,
    pixels: Compared = "labelled",
    norm: int = 1,
    temperature: float = 1.0,
    with_log: bool = False,
) -> Sums | None:
    """The sums (B, C) of the student's upsampled logits and the teacher's probabilities over `pixels`, both logits / T.

    Computed at the first call and reused: sums with the logarithm serve terms without it. None where the whole maps have to be
    upsampled (see `sums_at_stride`), and where a network aligns corners.
    """
    if student.prediction.align_corners or teacher.prediction.align_corners:
        return None
    key = ("sums", teacher, name, pixels, norm, temperature)
    found = {log: student.shared.get((*key, log)) for log in (True, False)}
    sums: Sums | None = found[True] or (None if with_log else found[False])
    if sums is None:
        ours, theirs = student.at_head_stride(name), teacher.at_head_stride(name).detach()
        if temperature != 1:
            ours, theirs = ours.to(sum_dtype(ours)) / temperature, theirs.to(sum_dtype(theirs)) / temperature
        size = (label.shape[-2], label.shape[-1])
        if ("compared", pixels) not in student.shared:
            student.shared["compared", pixels] = compared_pixels(student, label, pixels)
        sums = sums_at_stride(ours, SoftAtStride(theirs), size, student.shared["compared", pixels], norm, with_log)
        student.shared[(*key, with_log)] = sums
    return sums


class SoftKL(Term[SoftKLSpec]):
    """T² times the mean over the compared pixels of KL(teacher || student), both at label size.

    Source: arXiv:2302.05666, the cross-entropy part of JML-KD in its KL form; T = 1 there.
    """

    mean_over_pixels = True

    def __init__(
        self,
        logits: Output = "main",
        temperature: float = 1.0,
        calibration: Calibration = as_they_are,
        pixels: Compared = "labelled",
    ) -> None:
        super().__init__()
        self.pixels: Compared = pixels
        if pixels == "all":
            self.mean_over_pixels = False  # parts of a batch then add up by their images
        self.logits: Output = logits
        self.loss = KLLoss(temperature)
        self.calibration = calibration

    @staticmethod
    def of(spec: SoftKLSpec, pair: Pair) -> "SoftKL":
        return SoftKL(spec.logits, spec.temperature, calibration_of(spec.calibration), spec.pixels)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, H, W) at label size, label integer (B, H, W). Returns a scalar of at least 0."""
        check_aux(teacher, self.logits, "soft_kl")
        if self.calibration is as_they_are:
            temperature = self.loss.temperature
            sums = sums_between(student, teacher, self.logits, label, pixels=self.pixels, temperature=temperature, with_log=True)
            if sums is not None:
                return self.loss.of_sums(sums, by_image=self._by_image(student))
        q = self.calibration(soft_label(teacher.upsampled(self.logits), self.loss.temperature), label)
        logits, compared = student.upsampled(self.logits), compared_pixels(student, label, self.pixels)
        if self._by_image(student):
            return mean_over_seen(self.loss.by_pixel(logits, q, compared), compared)
        loss: Tensor = self.loss(logits, q, compared)
        return loss

    def _by_image(self, student: Outputs) -> bool:
        """Whether it is the mean over images of each image's mean: parts of a batch add up by their images, whose padding may
        differ if some have no label."""
        return self.pixels == "all" and student.unlabelled is not None


class SoftJDT(Term[SoftJDTSpec]):
    """A Jaccard, Dice or Tversky metric loss against the teacher's probabilities, at label size, over the compared pixels.

    Source: arXiv:2302.05666; all classes are active there, and on the main logits only.
    """

    mean_over_pixels = False

    def __init__(
        self,
        loss: JDTLoss,
        logits: Output = "main",
        calibration: Calibration = as_they_are,
        pixels: Compared = "labelled",
    ) -> None:
        super().__init__()
        self.pixels: Compared = pixels
        self.logits: Output = logits
        self.loss = loss
        self.calibration = calibration

    @staticmethod
    def of(spec: SoftJDTSpec, pair: Pair) -> "SoftJDT":
        loss = JDTLoss.of_family(spec, active_hard="present", active_soft=spec.active)
        return SoftJDT(loss, spec.logits, calibration_of(spec.calibration), spec.pixels)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, H, W) at label size, label integer (B, H, W). Returns a scalar, from 0 to 1 with the defaults."""
        check_aux(teacher, self.logits, "soft_jdt")
        if self.calibration is as_they_are:
            sums = sums_between(student, teacher, self.logits, label, pixels=self.pixels, norm=self.loss.norm)
            if sums is not None:
                return self.loss.of_sums(sums, hard=False)
        q = self.calibration(soft_label(teacher.upsampled(self.logits)), label)
        loss: Tensor = self.loss(student.upsampled(self.logits), q, compared_pixels(student, label, self.pixels))
        return loss
