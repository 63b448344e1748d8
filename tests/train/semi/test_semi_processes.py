"""Two processes take the semi-supervised step that one takes, the metric loss included, whoever has CutMix's other picture."""

from functools import partial
from pathlib import Path

import pytest
import torch
import toy
from forked import run_in_processes
from torch import Tensor

from segctl.data.batches.loader import training_batches
from segctl.data.shards.dataset import open_dataset
from segctl.runtime.device import Compute
from segctl.runtime.world import World
from segctl.train.checkpoint import Best, State
from segctl.train.loop import take_step
from segctl.train.semi.task import SemiTask
from segctl.train.session import Session

SEMI = {"kind": "mean_teacher", "ema": 0.5, "cutmix": 1, "ramp_up": 0, "terms": [{"kind": "soft_kl"}, {"kind": "soft_jdt"}]}
DATA = {"labelled": 0.5, "unlabelled": {"split": None, "per_batch": 4}}


def weights_after_two_steps(world: World, root: Path) -> dict[str, Tensor]:
    """Networks without batch norm, in float64."""
    run = toy.toy_run(data=DATA, semi=SEMI)
    assert run.semi is not None
    torch.manual_seed(0)
    task = SemiTask(toy.TwoLayers().double(), run.labels, run.loss, run.semi, 4, run.train.steps)  # type: ignore[arg-type]
    cpu = torch.device("cpu")
    optimizer = torch.optim.SGD([weight for weight in task.parameters() if weight.requires_grad], lr=0.5)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = State(cpu, task, optimizer, None, scaler, None, step=0, validated=0, best=Best(), teacher=task.average)
    compute, trained = Compute(cpu, "", "fp32", ""), world.wrap(task, unused=False)
    session = Session(run, None, compute, world, 0, task.model, task, trained, None, state)  # type: ignore[arg-type]
    batches = training_batches(
        open_dataset(root, "camvid"), "train", view=run.data, batch_size=4, seed=0, first_step=0, last_step=2, workers=0,
        rank=world.rank, size=world.size, semi=run.semi,
    )  # fmt: skip
    for batch in batches:
        take_step(session, batch)
        state.step += 1
    return {name: tensor.detach().clone() for name, tensor in task.state_dict().items()}


def take_share(rank: int, size: int, root: Path) -> dict[str, Tensor]:
    return weights_after_two_steps(World(rank, size), root)


@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_takes(toy_data, tmp_path):
    whole = weights_after_two_steps(World(), toy_data)
    shares = run_in_processes(partial(take_share, root=toy_data), 2, tmp_path)
    for share in shares:
        for name, wanted in whole.items():
            torch.testing.assert_close(share[name], wanted, rtol=1e-6, atol=1e-9, msg=name)
    assert not torch.equal(whole["average.module.classifier.weight"], whole["model.classifier.weight"])
