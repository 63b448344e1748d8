"""The loss of one micro-batch: images and labels in, a loss and its named terms out."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segctl.data.batches.ratings import Ratings
from segctl.data.batches.strong_views import StrongViews
from segctl.distillers.base import Distiller
from segctl.distillers.seen import labelled_pixels
from segctl.losses import Averaged, build_labels, build_losses
from segctl.losses.soft_labels import average_raters
from segctl.models import Segmenter
from segctl.models.averaged import AveragedNetwork
from segctl.models.external.foreign import ForeignNetwork, Network
from segctl.models.forward import forward_images
from segctl.models.outputs import Outputs, Prediction
from segctl.runtime.phases import measuring, phase
from segctl.runtime.side_stream import SideStream
from segctl.schema.labels import LabelSpec, RaterLabels
from segctl.schema.terms.loss_terms import LossTermSpec

Forward = Callable[[Network, Tensor], Prediction]
"""`forward_images`, or a compiled form of it."""


@dataclass(frozen=True)
class Step:
    """A micro-batch's part of the batch's loss: scalar `loss` = sum of `terms`, weighted scalars by name."""

    loss: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """Which fraction of the global batch a micro-batch is, from 0 to 1.

    pixels: counted in labelled pixels, for terms that average over pixels.  images: counted in images, for all other terms.
    seen, labelled: for batches that hold pictures without label; None: as `pixels` and `images`. seen counts labelled pixels and
    the real pixels of pictures without label, for terms that average over pixels and need no labels. labelled counts only images
    with a label, for terms that average over images and need labels.
    """

    pixels: float
    images: float
    seen: float | None = None
    labelled: float | None = None

    def of(self, module: Averaged) -> float:
        if module.mean_over_pixels:
            return self.pixels if self.seen is None or module.needs_labels else self.seen
        return self.images if self.labelled is None or not module.needs_labels else self.labelled


WHOLE = Share(1.0, 1.0)


@dataclass(frozen=True)
class Extra:
    """What some tasks read of a micro-batch beside its images and labels; the training loop need not know which task it has.

    teacher_outputs: the teacher's maps (B, D, h, w) by name; None: the teacher runs.  unlabelled: bool (B, H, W), the pixels of
    pictures without a label that are not padding; None where every picture has a label.  strong: the strong views of the last M
    pictures, which have no labels; None without `semi`.  ratings: what several raters said, whose majority the labels are.
    """

    teacher_outputs: Mapping[str, Tensor] | None = None
    unlabelled: Tensor | None = None
    strong: StrongViews | None = None
    ratings: Ratings | None = None


NO_EXTRA = Extra()


class SupervisedTask(nn.Module):
    """A network and its task loss.

    forward: images uint8 (B, H, W, 3), label uint8 (B, H, W) with 255 ignored -> Step.  `extra` is for the other tasks.
    """

    reads_labels = True
    reads_statistics = False
    """Whether a training step reads batch norm's running statistics, which must then be the same in all processes."""

    def __init__(self, model: Segmenter, labels: LabelSpec, loss: Sequence[LossTermSpec]) -> None:
        super().__init__()
        self.model = model
        self.soften: Callable[[Tensor], Tensor] = build_labels(labels, model.num_classes)
        self._weighted = isinstance(labels, RaterLabels) and labels.mean == "weighted"
        self.losses = build_losses(loss, model.num_classes)

        self._student: Forward = forward_images
        self.compiled: list[str] = []
        self._recorded = False

    def begin_step(self, step: int) -> None:
        """Called before every step, counted from 0; for a task whose weights change during a run."""
        if self._recorded:
            # What CUDA graphs gave in the last step may be written over. Torch's own guess would do so at each micro-batch,
            # while the gradients of the ones before are kept.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def compile_networks(self, mode: str | None = None) -> None:
        """Compile normalisation and network together; `compiled` lists the networks that are compiled. mode: torch.compile's.

        Only training uses the compiled form: its crops have one size, and images to score have many.  Losses are not compiled:
        their sums are fused by hand.  The networks' weights keep their names.
        """
        self._student = torch.compile(forward_images, dynamic=False, mode=mode)
        self.compiled, self._recorded = ["student"], mode is not None

    def forward(self, images: Tensor, label: Tensor, share: Share = WHOLE, extra: Extra = NO_EXTRA) -> Step:
        with phase("student"):
            outputs = _outputs(self._student(self.model, images), label)
        with phase("loss"):
            return step_of(self.task_terms(outputs, label, share, ratings=extra.ratings))

    def task_terms(
        self, outputs: Outputs, label: Tensor, share: Share, factor: float = 1.0, ratings: Ratings | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms of the task loss, scalars by name; `factor` multiplies all of them."""
        target = self.soften(label) if ratings is None else self._mean_of(ratings)
        at_head_stride = None if outputs.prediction.align_corners else outputs.at_head_stride
        values = self.losses(outputs.upsampled, target, labelled_pixels(outputs, label), at_head_stride)
        return {term.name: factor * term.weight * share.of(term.module) * values[term.name] for term in self.losses.terms}

    def _mean_of(self, ratings: Ratings) -> Tensor:
        """The raters' mean as probabilities float32 (B, C, H, W)."""
        weights = ratings.weights if self._weighted else None
        return average_raters(ratings.labels, self.model.num_classes, weights=weights)[0]


class DistillationTask(SupervisedTask):
    """A student, its task loss, and the distillation terms that compare it with a teacher.

    forward: as SupervisedTask's.  Maps (B, D, h, w) in `extra.teacher_outputs` stand for the teacher's pass, and the pixels of
    `extra.unlabelled` (B, H, W) learn from the teacher alone.
    """

    teacher: Network

    def __init__(
        self, model: Segmenter, labels: LabelSpec, loss: Sequence[LossTermSpec], teacher: Network, distiller: Distiller
    ) -> None:
        super().__init__(model, labels, loss)
        self.distiller = distiller
        # Plain assignment would make the teacher a submodule: trained, saved with the student, wrapped, and put into train mode.
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False))
        self._teacher_forward: Forward = forward_images
        self.overlap = False
        """Whether the teacher runs on a stream of its own, beside the student's forward pass. Only on a GPU."""
        self._beside: SideStream | None = None

    def compile_networks(self, mode: str | None = None) -> None:
        """Compile the teacher too if segctl built it. Another one may be a program, or do what the compiler cannot follow."""
        super().compile_networks(mode)
        if isinstance(self.teacher, Segmenter):
            self._teacher_forward = torch.compile(forward_images, dynamic=False, mode=mode)
            self.compiled.append("teacher")

    def forward(self, images: Tensor, label: Tensor, share: Share = WHOLE, extra: Extra = NO_EXTRA) -> Step:
        # The clock gives each moment to one phase, so nothing overlaps while phases are measured.
        overlaps = self.overlap and extra.teacher_outputs is None and not measuring()
        queued = self._queue_teacher(images) if overlaps else None
        with phase("student"):
            student = _outputs(self._student(self.model, images), label, extra.unlabelled)
        if extra.teacher_outputs is not None:
            teacher = cached_outputs(extra.teacher_outputs, label, returned_by(self.teacher))
        else:
            with phase("teacher"):
                teacher = _outputs(self._ask_teacher(images) if queued is None else queued(), label)
        with phase("loss"):
            terms = self.task_terms(student, label, share, self.distiller.label_weight, extra.ratings)
            for name, value in self.distiller(student, teacher, label).items():
                terms[name] = self.distiller.weights[name] * share.of(self.distiller.term_of(name)) * value
            return step_of(terms)

    @torch.inference_mode()
    def _ask_teacher(self, images: Tensor) -> Prediction:
        return self._teacher_forward(self.teacher, images)

    def _queue_teacher(self, images: Tensor) -> Callable[[], Prediction] | None:
        """Let the teacher run on its own stream; what is returned gives its prediction. None if the first try went wrong."""
        if self._beside is None:
            self._beside = SideStream(images.device)
            if reason := self._beside.fault_of(lambda: self._ask_teacher(images), [images]):
                self.overlap = False
                warnings.warn(
                    f"teacher.overlap: {reason}; the teacher runs before the losses, not beside the student", stacklevel=2
                )
                return None
        return self._beside.queue(lambda: self._ask_teacher(images), [images])


def cached_outputs(maps: Mapping[str, Tensor], label: Tensor, returns: type[Prediction] = Prediction) -> Outputs:
    """The teacher's Outputs for a label (B, H, W), from its cached maps (B, D, h, w) by name.

    returns: the kind of prediction that the teacher itself returns.
    """
    return _outputs(returns(maps["main"], maps.get("aux"), maps.get("features")), label)


def returned_by(network: nn.Module) -> type[Prediction]:
    """The kind of prediction that a network returns."""
    return network.returns if isinstance(network, Segmenter | ForeignNetwork | AveragedNetwork) else Prediction


def _outputs(prediction: Prediction, label: Tensor, unlabelled: Tensor | None = None) -> Outputs:
    """Outputs for a label (B, H, W); prediction has logits (B, C, h, w); unlabelled: as in Extra."""
    return Outputs(prediction, (label.shape[-2], label.shape[-1]), unlabelled)


def step_of(terms: dict[str, Tensor]) -> Step:
    """The part of the loss that weighted terms, scalars by name, make."""
    return Step(torch.stack(list(terms.values())).sum(), {name: value.detach() for name, value in terms.items()})
