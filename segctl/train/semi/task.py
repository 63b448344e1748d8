"""The loss of one micro-batch of a semi-supervised run: the task loss of labelled pictures, and the consistency of the others."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from segctl.losses.jdt import JDTLoss
from segctl.models import Segmenter
from segctl.models.forward import forward_images
from segctl.models.moving_average import MovingAverage
from segctl.models.outputs import Outputs, Prediction, at_label_size
from segctl.runtime.phases import phase
from segctl.schema.labels import LabelSpec
from segctl.schema.semi import ConsistencyJDTSpec, ConsistencyTerm, SemiBase, UniMatchSpec
from segctl.schema.terms.loss_terms import LossTermSpec
from segctl.train.semi.fixmatch import pseudo_label_loss
from segctl.train.semi.mean_teacher import divergence, ramp, squared_difference
from segctl.train.semi.pseudo_labels import Target, target_of, with_pasted
from segctl.train.semi.unimatch import dropped_channels
from segctl.train.tasks import NO_EXTRA, WHOLE, Extra, Share, Step, SupervisedTask, step_of

Consistency = Callable[[Tensor, Target], Tensor]
"""From the student's logits (B, C, H, W) at label size, in float32, and the teacher's answer to a scalar."""
PLAIN: dict[str, Consistency] = {"cross_entropy": pseudo_label_loss, "soft_kl": divergence, "mse": squared_difference}


def consistency_of(spec: ConsistencyTerm) -> Consistency:
    """The function of a term, without its weight."""
    if not isinstance(spec, ConsistencyJDTSpec):
        return PLAIN[spec.kind]
    loss = JDTLoss.of_family(spec, active_hard="present", active_soft=spec.active)

    def soft_jdt(logits: Tensor, target: Target) -> Tensor:
        value: Tensor = loss(logits, target.probabilities, target.counted)
        return value

    return soft_jdt


class SemiTask(SupervisedTask):
    """A student that teaches itself beside its task loss.

    forward: images uint8 (B, H, W, bands) and label uint8 (B, H, W) as SupervisedTask's, with `extra.strong` and
    `extra.unlabelled`.  The teacher sees the last M images as they are: the weak views.  One forward pass of the student holds
    labelled images and strong views together.
    """

    reads_statistics = True
    average: MovingAverage | None
    dropout: float | None
    """Share of the channels that the weak views lose on their way to the head; None where no term looks at that."""

    def __init__(
        self, model: Segmenter, labels: LabelSpec, loss: Sequence[LossTermSpec], semi: SemiBase, per_batch: int, steps: int
    ) -> None:
        """per_batch: pictures without labels in the global batch.  steps: of the run."""
        super().__init__(model, labels, loss)
        self.semi, self.per_batch, self.steps = semi, per_batch, steps
        # A submodule, so that a checkpoint of the task holds it.
        self.average = None if semi.ema is None else MovingAverage(model, semi.ema, from_mean=True).requires_grad_(False).eval()
        self.consistencies = [(term.kind, term.weight, consistency_of(term)) for term in semi.terms]
        self.ramp = 1.0
        self.strong_weight, self.feature_weight, self.dropout = 1.0, 0.0, None
        if isinstance(semi, UniMatchSpec):
            self.strong_weight, self.feature_weight = semi.strong_weight, semi.feature_weight
            self.dropout = semi.dropout if semi.feature_weight else None

    def train(self, mode: bool = True) -> "SemiTask":
        """As for any module, but the average stays in eval mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def begin_step(self, step: int) -> None:
        super().begin_step(step)
        self.ramp = ramp(step, self.steps, self.semi.ramp_up)

    def forward(self, images: Tensor, label: Tensor, share: Share = WHOLE, extra: Extra = NO_EXTRA) -> Step:
        strong = extra.strong
        assert strong is not None
        mixed_in, views = strong.images.shape[:2]
        labelled = len(images) - mixed_in
        size = (label.shape[-2], label.shape[-1])
        with phase("teacher"):
            own, others = self._teacher(images[labelled:], strong.others, size)
        # View by view: all first strong views, then all second ones.
        shown = torch.cat([images[:labelled], strong.images.transpose(0, 1).flatten(0, 1)])
        with phase("student"):
            if self.dropout is None:
                prediction = self._student(self.model, shown)
            else:
                with dropped_channels(self.model, mixed_in, self.dropout):
                    prediction = self._student(self.model, torch.cat([shown, images[labelled:]]))
        with phase("loss"):
            terms = self.task_terms(Outputs(_rows(prediction, 0, labelled), size), label[:labelled], share)
            factor = self.semi.weight * self.ramp * mixed_in / self.per_batch
            with torch.autocast(label.device.type, enabled=False):
                for view in range(views):
                    pasted = None if strong.pasted is None else strong.pasted[:, view]
                    target = target_of(with_pasted(own, others, pasted), strong.real[:, view], self.semi.threshold)
                    logits = _upsampled(prediction, labelled + view * mixed_in, mixed_in, size)
                    self._add(terms, logits, target, factor * self.strong_weight / views, "strong")
                if self.dropout is not None:
                    assert extra.unlabelled is not None
                    target = target_of(own, extra.unlabelled[labelled:], self.semi.threshold)
                    logits = _upsampled(prediction, labelled + views * mixed_in, mixed_in, size)
                    self._add(terms, logits, target, factor * self.feature_weight, "features")
            return step_of(terms)

    def _add(self, terms: dict[str, Tensor], logits: Tensor, target: Target, factor: float, view: str) -> None:
        """Add the weighted consistency terms of logits (B, C, H, W) of one kind of view to `terms`."""
        for kind, weight, consistency in self.consistencies:
            name, value = f"{view}_{kind}", factor * weight * consistency(logits, target)
            terms[name] = terms[name] + value if name in terms else value

    def _teacher(self, weak: Tensor, others: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """The teacher's probabilities (M, C, *size) on weak views uint8 (M, H, W, bands), and on the other pictures of CutMix."""
        network = self.model if self.average is None else cast("Segmenter", self.average.module)
        device, was_training = weak.device.type, network.training
        # Autocast must keep none of the weights that it casts here: they have no gradient, and the student's pass would use them.
        autocast = torch.autocast(
            device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device), cache_enabled=False
        )
        network.eval()
        with torch.no_grad(), autocast:
            prediction = forward_images(network, weak if others is None else torch.cat([weak, others]))
        network.train(was_training)
        probabilities = at_label_size(prediction.logits, size, prediction.align_corners).softmax(1)
        return (probabilities, None) if others is None else (probabilities[: len(weak)], probabilities[len(weak) :])


def _upsampled(prediction: Prediction, first: int, count: int, size: tuple[int, int]) -> Tensor:
    """The main logits (count, C, *size) of `count` images of a batch, from number `first` on."""
    return at_label_size(prediction.logits[first : first + count], size, prediction.align_corners)


def _rows(prediction: Prediction, first: int, stop: int) -> Prediction:
    """The prediction of some images of a batch."""
    return type(prediction)(*(None if maps is None else maps[first:stop] for maps in prediction))  # type: ignore[arg-type]
