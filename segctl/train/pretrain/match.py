"""Two maps of features side by side: how far the student's are from the teacher's. B images, D channels, (h, w) places."""

import torch.nn.functional as F
from torch import Tensor, nn

from segctl.distillers.align import check_maps
from segctl.distillers.cwd import channel_divergence
from segctl.distillers.seen import NOWHERE, mean_over_seen, nothing_unseen
from segctl.schema.pretrain import PretrainSpec

CWD_TEMPERATURE = 4.0
"""As published (arXiv:2011.13256)."""


class Adapter(nn.Sequential):
    """(B, D, h, w) of the student -> (B, D', h, w) as the teacher has: one 1×1 convolution, or two with a GELU between them."""

    def __init__(self, student_channels: int, teacher_channels: int, kind: str) -> None:
        widest = max(student_channels, teacher_channels)
        super().__init__(
            *(
                [nn.Conv2d(student_channels, teacher_channels, 1)]
                if kind == "linear"
                else [nn.Conv2d(student_channels, widest, 1), nn.GELU(), nn.Conv2d(widest, teacher_channels, 1)]
            )
        )


def cosine_distance(student: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """1 minus the cosine of the angle between the features of a place, the mean over places and images: from 0 to 2, a scalar.

    student, teacher: (B, D, h, w).  seen: bool (B, h, w), the places that count; None for all.  Raises ArgumentError for other
    shapes.
    """
    check_maps(student, teacher)
    return mean_over_seen(1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=1), seen)


def standardised_distance(student: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """The mean squared difference, the teacher's features at each place brought to mean 0 and deviation 1 first; a scalar.

    Features of transformers have a few channels that are a hundred times as large as the others, which a plain difference would
    see alone.  student, teacher: (B, D, h, w).  seen: as for `cosine_distance`.  Raises ArgumentError for other shapes.
    """
    check_maps(student, teacher)
    wanted = F.layer_norm(teacher.detach().float().movedim(1, -1), (teacher.shape[1],)).movedim(-1, 1)
    return mean_over_seen((student.float() - wanted).square().mean(1), seen)


def distance(method: str, student: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """How far the student's features are from the teacher's by a value of `pretrain.method`: a scalar.

    student, teacher: (B, D, h, w).  seen: bool (B, h, w), the places that count; None for all.
    """
    match method:
        case "cosine":
            return cosine_distance(student, teacher, seen)
        case "mse":
            return standardised_distance(student, teacher, seen)
        case _:
            ours, theirs = (nothing_unseen(maps.float(), seen, NOWHERE) for maps in (student, teacher))
            return channel_divergence(ours, theirs, CWD_TEMPERATURE)


def adapter_in_words(spec: PretrainSpec, student_channels: int, teacher_channels: int) -> str:
    """What the adapter does, for the lines before step 1."""
    layers = "a 1×1 convolution takes" if spec.adapter == "linear" else "two 1×1 convolutions take"
    return (
        f"{layers} the student's {student_channels} channels to the teacher's {teacher_channels}, compared by {spec.method} "
        f"on the {spec.grid}'s grid"
    )
