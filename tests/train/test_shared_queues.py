"""CIRKD's queues over several processes are those of one process with the whole batch, on every one of them."""

from pathlib import Path

import pytest
import torch
from forked import run_in_processes
from torch import Tensor

from segctl.distillers.memory import ClassQueues, Memory, Queue
from segctl.models import Outputs, Prediction
from segctl.runtime.world import World

IMAGES, STEPS, CLASSES = 7, 4, 4
"""Seven, so that the processes have different numbers of images."""
QUEUES: tuple[Queue, ...] = ("faithful", "fixed")


def memory(queue: Queue, world: World) -> Memory:
    torch.manual_seed(3)
    term = Memory(ClassQueues(CLASSES, 6, (11, 3), 4, queue), 5, samples=(20, 8)).double().eval()  # batch norm as it is
    term.queues.join(world)
    return term


def step_of(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """A global batch: student's features, teacher's, and labels, of which one image has none."""
    random = torch.Generator().manual_seed(number)
    student, teacher = (torch.randn(IMAGES, channels, 4, 5, generator=random, dtype=torch.float64) for channels in (5, 6))
    label = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (IMAGES, 4, 5), generator=random)]
    label[2] = 255
    return student, teacher, label


def learn(queue: Queue, world: World) -> dict[str, Tensor]:
    """The queues after some steps, and each step's two values, summed over the processes by their valid pixels."""
    term, values = memory(queue, world), []
    for number in range(STEPS):
        valid = int((step_of(number)[2] != 255).sum())
        student, teacher, label = (part[world.rank :: world.size] for part in step_of(number))
        outputs = (Outputs(Prediction(x, None, x), (4, 5)) for x in (student, teacher))
        found = term(*outputs, label)
        mine = torch.stack([found["pixel"], found["region"]]).detach() * int((label != 255).sum()) / valid
        values.append(world.total(mine))
    return term.queues.state_dict() | {"values": torch.stack(values)}


def take_part(rank: int, size: int) -> dict[Queue, dict[str, Tensor]]:
    return {queue: learn(queue, World(rank, size)) for queue in QUEUES}


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_process_has_the_queues_of_one_with_the_whole_batch(size: int, tmp_path: Path) -> None:
    alone = {queue: learn(queue, World()) for queue in QUEUES}
    for rank, together in enumerate(run_in_processes(take_part, size, tmp_path)):
        for queue, found in together.items():
            for name, value in alone[queue].items():
                if name == "values":
                    torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
                else:
                    assert torch.equal(found[name], value), (queue, name, rank)
