"""Two networks side by side: the shapes of their outputs, and bringing one's outputs to the other's grid."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.errors import ArgumentError, InputError
from segctl.ignored import IGNORED
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs, Prediction, upsample
from segctl.schema.terms.loss_terms import Output

GridSize = tuple[int, int]
"""Height and width of a map, in its own pixels."""


@dataclass(frozen=True)
class Shape:
    """The shapes of a network's outputs for one training crop: classes, channels of its features, and its grids (h, w).

    A foreign teacher may hide its features: then it has neither channels nor a grid for them.
    """

    classes: int
    channels: int | None
    features: GridSize | None
    logits: GridSize
    aux: GridSize | None

    @classmethod
    def of(cls, prediction: Prediction) -> "Shape":
        """logits (B, C, h, w), aux_logits (B, C, h', w') or None, features (B, D, h, w) or None."""
        aux, features = prediction.aux_logits, prediction.features
        return cls(
            classes=prediction.logits.shape[1],
            channels=None if features is None else features.shape[1],
            features=None if features is None else grid_of(features),
            logits=grid_of(prediction.logits),
            aux=None if aux is None else grid_of(aux),
        )

    def of_logits(self, name: Output) -> GridSize | None:
        """The grid of the main or of the auxiliary logits; None for a network without auxiliary logits."""
        return self.logits if name == "main" else self.aux


@dataclass(frozen=True)
class Pair:
    """The two networks a term is built for."""

    student: Shape
    teacher: Shape

    def channels(self, kind: str) -> tuple[int, int]:
        """Channels of the student's and of the teacher's features. Raises InputError if a network hides its features."""
        if self.student.channels is None or self.teacher.channels is None:
            raise InputError(
                f"the distillation term '{kind}' compares features, and this teacher gives none",
                "use terms that compare only logits, such as --method kd, dist or jml, or a teacher that segctl trained",
            )
        return self.student.channels, self.teacher.channels


def paired_logits(student: Outputs, teacher: Outputs, name: Output, kind: str) -> tuple[Tensor, Tensor]:
    """Both logits (B, C, h, w) at the student's head stride, in at least float32, the teacher's without gradient.

    Raises InputError if `name` is "aux" and the teacher has no auxiliary logits.
    """
    check_aux(teacher, name, kind)
    return _on_one_grid(student.at_head_stride(name), teacher.at_head_stride(name))


def paired_features(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Features (B, D, h, w) and (B, D', h, w) on the student's grid, in at least float32, the teacher's without gradient."""
    return _on_one_grid(student.features, teacher.features)


def _on_one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(B, D, h, w) and (B, D', h', w') -> both on (h, w)."""
    ours = student.to(sum_dtype(student))
    theirs = upsample(teacher.detach().to(ours.dtype), grid_of(student))
    return ours, theirs.clone() if theirs.is_inference() else theirs  # autograd cannot save tensors of inference mode


def check_aux(teacher: Outputs, logits: Output, kind: str) -> None:
    """Refuse a term on auxiliary logits if the teacher has none. Raises InputError."""
    if logits == "aux" and teacher.prediction.aux_logits is None:
        raise InputError(
            f"the distillation term '{kind}' compares auxiliary logits, and this teacher has none",
            "use a teacher trained with model.aux true, or leave the term out of distiller.terms",
        )


def check_maps(student: Tensor, teacher: Tensor, temperature: float = 1.0, same_channels: bool = True) -> None:
    """Refuse maps whose shapes do not fit each other: student (B, D, h, w) and teacher (B, D', h, w).

    same_channels: D and D' must be equal. temperature must be above 0. Raises ArgumentError.
    """
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    wanted = ours if same_channels else (*ours[:1], *theirs[1:2], *ours[2:])
    if student.ndim != 4 or theirs != wanted:
        rule = "of the same shape" if same_channels else "that differ only in their channels"
        raise ArgumentError(f"got maps of student {ours} and teacher {theirs}, wanted two (B, D, h, w) {rule}")
    if not temperature > 0:
        raise ArgumentError(f"got temperature {temperature}, wanted above 0")


def label_on_grid(label: Tensor, grid: GridSize) -> Tensor:
    """The label (B, H, W) of any integer type at (h, w) by nearest neighbour: int64 (B, h, w), 255 still ignored."""
    # Through float, because torch resizes no integers; class ids up to 2**24 come back exactly.
    nearest = F.interpolate(label.unsqueeze(1).float(), size=grid, mode="nearest")
    return nearest.squeeze(1).long()


def groups_of(images: int, size: int) -> Iterator[slice]:
    """Slices that cut a batch into groups of `size` images; the rest joins the last group, so no image is left alone."""
    count = max(1, images // size)
    for index in range(count):
        yield slice(index * size, images if index == count - 1 else (index + 1) * size)


def class_slots(label: Tensor, num_classes: int) -> Tensor:
    """(B, h, w) -> (B·h·w,): the number of each pixel's slot, one slot for each image and class, image by image.

    Each image has num_classes + 1 slots; its last one is for ignored pixels.
    """
    known = label.masked_fill((label == IGNORED) | (label >= num_classes), num_classes).flatten(1)
    images = torch.arange(len(known), device=known.device).unsqueeze(1)
    return (images * (num_classes + 1) + known).flatten()


def grid_of(maps: Tensor) -> GridSize:
    """(B, D, h, w) -> (h, w)."""
    return maps.shape[-2], maps.shape[-1]
