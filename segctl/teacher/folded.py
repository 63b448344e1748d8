"""A teacher in the form that runs fastest on a GPU, see `segctl.models.folded`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from segctl.models import Segmenter
from segctl.models.averaged import AveragedNetwork
from segctl.models.external.features import FeatureNetwork
from segctl.models.folded import folded
from segctl.teacher.features import FeatureTeacher
from segctl.teacher.load import Teacher

NOISE_SIZE = (64, 96)
"""Height and width of the picture of noise that networks are tried with."""
T = TypeVar("T", Teacher, FeatureTeacher)


def with_folded_networks(teacher: T, dtype: torch.dtype) -> T:
    """The teacher with folded copies of the networks that segctl built; others, such as programs, stay as they are.

    teacher: on the CPU; an ensemble is changed in place.  dtype: that of autocast when it runs.  A note says how many batch norms
    were folded.
    """
    found, count = folded_network(teacher.model, dtype)
    changes: dict[str, Any] = {"model": found}
    if isinstance(found, AveragedNetwork) and teacher.members:
        networks: Iterable[Any] = found.members
        members = zip(teacher.members, networks, strict=True)
        changes["members"] = tuple(replace(member, model=network) for member, network in members)
    if count:
        changes["notes"] = (*teacher.notes, f"the teacher's {count} batch norms are folded into its convolutions")
    return replace(teacher, **changes)


def folded_network(network: nn.Module, dtype: torch.dtype) -> tuple[Any, int]:
    """The folded copy of a network, or an ensemble whose members are replaced by theirs; and how many batch norms were folded."""
    if isinstance(network, AveragedNetwork):
        total = 0
        for index, member in enumerate(network.members):
            network.members[index], count = folded_network(member, dtype)
            total += count
        return network, total
    return folded(network, _outputs, dtype) if isinstance(network, Segmenter | FeatureNetwork) else (network, 0)


def _outputs(network: Any) -> Sequence[Tensor]:
    """What a network returns for a picture of noise."""
    images = torch.randn(1, network.bands, *NOISE_SIZE, generator=torch.Generator().manual_seed(0))
    found = network(images)
    return [found] if isinstance(found, Tensor) else [each for each in found if each is not None]
