"""Two networks side by side: what their answers measure, and how one is brought onto the other's grid."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.base import check_aux
from segctl.losses.pixels import IGNORE_INDEX, sum_dtype
from segctl.models.outputs import Outputs, Prediction, upsample
from segctl.schema.loss_terms import Output

Grid = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """What a network answers for one training crop: classes, channels of its features, and its grids (h, w).

    A foreign teacher may hide its features: no channels and no grid.
    """

    classes: int
    channels: int | None
    features: Grid | None
    logits: Grid
    aux: Grid | None

    @classmethod
    def of(cls, prediction: Prediction) -> "Shape":
        aux, features = prediction.aux_logits, prediction.features
        return cls(
            classes=prediction.logits.shape[1],
            channels=None if features is None else features.shape[1],
            features=None if features is None else _grid(features),
            logits=_grid(prediction.logits),
            aux=None if aux is None else _grid(aux),
        )

    def of_logits(self, name: Output) -> Grid | None:
        return self.logits if name == "main" else self.aux


@dataclass(frozen=True)
class Pair:
    """What a distiller is built from."""

    student: Shape
    teacher: Shape


def paired_logits(student: Outputs, teacher: Outputs, name: Output, kind: str) -> tuple[Tensor, Tensor]:
    """Both logits (B, C, h, w) at the student's head stride, in at least float32, the teacher's without gradient."""
    check_aux(teacher, name, kind)
    return _on_one_grid(student.at_head_stride(name), teacher.at_head_stride(name))


def paired_features(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Features (B, D, h, w) and (B, D', h, w) on the student's grid, in at least float32, the teacher's without gradient."""
    return _on_one_grid(student.features, teacher.features)


def _on_one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    height, width = student.shape[-2:]
    ours = student.to(sum_dtype(student))
    theirs = upsample(teacher.detach().to(ours.dtype), (height, width))
    return ours, theirs.clone() if theirs.is_inference() else theirs  # autograd keeps no tensors of inference mode


def label_on_grid(label: Tensor, grid: Grid) -> Tensor:
    """The label (B, H, W) at (h, w) by nearest neighbour, int64, 255 still ignored."""
    nearest = F.interpolate(label.unsqueeze(1).float(), size=grid, mode="nearest")
    return nearest.squeeze(1).long()


def groups_of(images: int, size: int) -> Iterator[slice]:
    """The batch in groups of `size`; images left over join the last group, so that none of several stands alone."""
    count = max(1, images // size)
    for index in range(count):
        yield slice(index * size, images if index == count - 1 else (index + 1) * size)


def class_slots(label: Tensor, num_classes: int) -> Tensor:
    """(B, h, w) -> (B·h·w,): one slot for each image and class, image by image; the last of each image for ignored pixels."""
    known = label.masked_fill((label == IGNORE_INDEX) | (label >= num_classes), num_classes).flatten(1)
    images = known.new_tensor(range(len(known))).unsqueeze(1)
    return (images * (num_classes + 1) + known).flatten()


def _grid(maps: Tensor) -> Grid:
    return maps.shape[-2], maps.shape[-1]
