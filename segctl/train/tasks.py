"""What one micro-batch teaches: images and labels in, a loss and its named parts out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segctl.distillers.base import Distiller
from segctl.losses import Averaged, build_labels, build_losses
from segctl.losses.pixels import IGNORE_INDEX
from segctl.models import Segmenter
from segctl.models.external.foreign import Network
from segctl.models.outputs import Outputs, Prediction
from segctl.runtime.phases import phase
from segctl.schema.labels import LabelSpec
from segctl.schema.loss_terms import LossTermSpec

Answer = Callable[[Network, Tensor], Prediction]
"""A network and images uint8 (B, H, W, 3) -> what the network says of them."""


@dataclass(frozen=True)
class Step:
    """A micro-batch's part of the batch's loss: `loss` = sum of `terms`, each weighted and named."""

    loss: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """What a micro-batch is of its whole batch: by valid pixels (for pixel means) and by images (for everything else)."""

    pixels: float
    images: float

    def of(self, module: Averaged) -> float:
        return self.pixels if module.mean_over_pixels else self.images


WHOLE = Share(1.0, 1.0)


class SupervisedTask(nn.Module):
    """A network and its task loss.

    forward: images uint8 (B, H, W, 3), label uint8 (B, H, W) with 255 ignored -> Step.
    """

    def __init__(self, model: Segmenter, labels: LabelSpec, loss: Sequence[LossTermSpec]) -> None:
        super().__init__()
        self.model = model
        self.soften: Callable[[Tensor], Tensor] = build_labels(labels, model.num_classes)
        self.losses = build_losses(loss, model.num_classes)

        self._student: Answer = _answer
        self.compiled: list[str] = []

    def compile_networks(self) -> None:
        """Let torch.compile make one program each of normalising and the networks; `compiled` says of which.

        For crops alone: scoring calls the networks themselves, at whatever sizes images have.  Losses stay as they are, because
        theirs are fused by hand.  The networks' weights keep their names.
        """
        self._student = torch.compile(_answer, dynamic=False)
        self.compiled = ["student"]

    def forward(self, images: Tensor, label: Tensor, share: Share = WHOLE) -> Step:
        with phase("student"):
            outputs = _outputs(self._student(self.model, images), label)
        with phase("loss"):
            return _step(self.task_terms(outputs, label, share))

    def task_terms(self, outputs: Outputs, label: Tensor, share: Share, factor: float = 1.0) -> dict[str, Tensor]:
        """The weighted terms of the task loss."""
        values = self.losses(outputs.upsampled, self.soften(label), label != IGNORE_INDEX)
        return {term.name: factor * term.weight * share.of(term.module) * values[term.name] for term in self.losses.terms}


class DistillationTask(SupervisedTask):
    """A student, its task loss, and what it learns from a teacher that never changes.

    The teacher is not a submodule: it is not trained, not saved with the student, not wrapped, and stays in eval
    whatever mode the task is set to.
    """

    def __init__(
        self, model: Segmenter, labels: LabelSpec, loss: Sequence[LossTermSpec], teacher: Network, distiller: Distiller
    ) -> None:
        super().__init__(model, labels, loss)
        self.distiller = distiller
        self._teacher = (teacher.eval().requires_grad_(False),)
        self._teachers: Answer = _answer

    @property
    def teacher(self) -> Network:
        return self._teacher[0]

    def compile_networks(self) -> None:
        """The teacher too, if segctl built it: another one may be a program, or do what the compiler cannot follow."""
        super().compile_networks()
        if isinstance(self.teacher, Segmenter):
            self._teachers = torch.compile(_answer, dynamic=False)
            self.compiled.append("teacher")

    def forward(self, images: Tensor, label: Tensor, share: Share = WHOLE, answers: Mapping[str, Tensor] | None = None) -> Step:
        with phase("student"):
            student = _outputs(self._student(self.model, images), label)
        if answers is not None:
            teacher = kept_outputs(answers, label)
        else:
            with phase("teacher"), torch.inference_mode():
                teacher = _outputs(self._teachers(self.teacher, images), label)
        with phase("loss"):
            terms = self.task_terms(student, label, share, self.distiller.label_weight)
            for name, value in self.distiller(student, teacher, label).items():
                terms[name] = self.distiller.weights[name] * share.of(self.distiller.term_of(name)) * value
            return _step(terms)


def kept_outputs(answers: Mapping[str, Tensor], label: Tensor) -> Outputs:
    """The teacher's outputs as it gave them before, by part."""
    return _outputs(Prediction(answers["main"], answers.get("aux"), answers.get("features")), label)


def _answer(model: Network, images: Tensor) -> Prediction:
    prediction: Prediction = model(model.normalize(images))
    return prediction


def _outputs(prediction: Prediction, label: Tensor) -> Outputs:
    return Outputs(prediction, (label.shape[-2], label.shape[-1]))


def _step(terms: dict[str, Tensor]) -> Step:
    return Step(torch.stack(list(terms.values())).sum(), {name: value.detach() for name, value in terms.items()})
