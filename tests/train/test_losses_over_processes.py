"""Every loss over several processes against one: which keep their meaning, to rounding, and that the others are announced."""

from typing import Any

import pytest
import torch
from forked import run_in_processes
from toy import CLASSES, STUDENT, TwoLayers

from segctl.data.batches.loader import Batch
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.runtime.device import Compute
from segctl.runtime.world import World
from segctl.schema.cross_checks import local_losses
from segctl.schema.load import validate_run
from segctl.schema.run import DistillRun
from segctl.train.checkpoint import Best, State
from segctl.train.loop import take_step
from segctl.train.session import Session
from segctl.train.tasks import DistillationTask
from tests.slow_cases import slow_after

IMAGES = 8
SOFT = {"labels": {"kind": "smoothed", "epsilon": 0.1}}
JML = [{"kind": "soft_kl", "weight": 0.0625}, {"kind": "soft_kl", "logits": "aux"}, {"kind": "soft_jdt", "smooth": 1.0}]

SAME: dict[str, dict[str, Any]] = {
    "cross_entropy": {"kind": "cross_entropy"},
    "focal": {"kind": "focal"},
    "kl": {"kind": "kl"},
    "jdt D": {"kind": "jdt", "smooth": 1.0},
    "jdt I and C": {"kind": "jdt", "miou_d": 0.0, "miou_i": 0.5, "miou_c": 0.5},
    "dice, norm 2, log": {"kind": "jdt", "alpha": 0.5, "beta": 0.5, "norm": 2, "log_loss": True},
    "jdt by prediction, products": {"kind": "jdt", "active_hard": "both", "overlap": "product", "threshold": 0.2},
}
"""Losses of a preset that are those of one process with the whole batch."""

LOCAL: dict[str, dict[str, Any]] = {
    "jdt local": {"kind": "jdt", "reduce": "local"},
    "lovasz": {"kind": "lovasz"},
    "soft_jaccard": {"kind": "soft_jaccard"},
    "soft_dice": {"kind": "soft_dice"},
    "lovasz per image": {"kind": "lovasz", "per_image": True},
    "soft_jaccard per image": {"kind": "soft_jaccard", "per_image": True},
    "soft_dice per image": {"kind": "soft_dice", "per_image": True},
    "ohem": {"kind": "ohem", "threshold": 0.05, "min_share": 0.1},
}
"""Losses that take each process's own images; a run over several processes says so before step 1."""


def run_with(name: str) -> DistillRun:
    """Cross-entropy, the metric loss and JML-KD, and one more loss at weight 1."""
    terms = [
        {"kind": "cross_entropy", "logits": "aux", "weight": 0.125},
        {"kind": "jdt", "weight": 0.75, "smooth": 1.0},
        (SAME | LOCAL)[name],
    ]
    tree = STUDENT | {"loss": terms, "train": STUDENT["train"] | {"batch_size": IMAGES}}
    tree |= SOFT if name == "kl" else {}
    run = validate_run(tree | {"distiller": {"label_weight": 0.5, "terms": JML}}, "toy")
    assert isinstance(run, DistillRun)
    return run


def weights_after_a_step(world: World, name: str) -> dict[str, torch.Tensor]:
    """Networks without batch norm, in float64, after one step with this process's share of eight images."""
    run = run_with(name)
    torch.manual_seed(0)
    student, teacher = TwoLayers().double(), TwoLayers().double()
    shape = Shape.of(student(torch.zeros(1, 3, 32, 48, dtype=torch.float64)))
    task = DistillationTask(student, run.labels, run.loss, teacher, build_distiller(run.distiller, Pair(shape, shape)))
    cpu = torch.device("cpu")
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = State(cpu, task, torch.optim.SGD(task.parameters(), lr=0.1), None, scaler, None, step=0, validated=0, best=Best())
    compute = Compute(cpu, "", "fp32", "")
    wrapped = world.wrap(task, unused=False)
    take_step(Session(run, None, compute, world, 0, student, task, wrapped, None, state), batch_of(world))  # type: ignore[arg-type]
    return {name: weight.detach() for name, weight in task.named_parameters()}


def batch_of(world: World) -> Batch:
    """Classes are uneven over the images, some pixels and all of one image are ignored."""
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (IMAGES, 32, 48, 3), generator=random).to(torch.uint8)
    labels = torch.randint(0, CLASSES, (IMAGES, 32, 48), generator=random).to(torch.uint8)
    labels[::2] %= 3
    labels[:3, :10] = 255
    labels[5] = 255
    mine = slice(world.rank, None, world.size)
    return Batch(images[mine], labels[mine], [])


def take_share(rank: int, size: int) -> dict[str, dict[str, torch.Tensor]]:
    return {name: weights_after_a_step(World(rank, size), name) for name in SAME | LOCAL}


def farthest(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    return max((found[name] - weight).abs().max().item() for name, weight in wanted.items())


@pytest.fixture(scope="module", params=slow_after([2, 3], 0))
def distances(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How far the weights are from one process's after a step, by loss; the step itself moves them by about 0.01."""
    shares = run_in_processes(take_share, request.param, tmp_path_factory.mktemp("shares"))
    return {name: max(farthest(share[name], weights_after_a_step(World(), name)) for share in shares) for name in SAME | LOCAL}


@pytest.mark.parametrize("name", SAME)
def test_a_loss_keeps_its_meaning_over_processes(name: str, distances: dict[str, float]) -> None:
    assert distances[name] < 1e-12
    assert local_losses(run_with(name)) == []


@pytest.mark.parametrize("name", LOCAL)
def test_a_loss_of_each_processs_own_images_is_announced(name: str, distances: dict[str, float]) -> None:
    assert distances[name] > 1e-6
    (line,) = local_losses(run_with(name))
    assert line.startswith(f"loss.2 ('{LOCAL[name]['kind']}') takes each process's own images")
