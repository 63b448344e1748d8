"""`--fsdp`: a run whose teacher's weights are spread over its processes, and when that is refused."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from forked import run_in_processes
from safetensors.torch import load_file
from toy import STUDENT, Silent, toy_run

from segctl.errors import InputError
from segctl.runs import RunFolder
from segctl.runtime.device import choose_compute
from segctl.runtime.world import World
from segctl.schema.load import with_method
from segctl.schema.run import DistillRun
from segctl.teacher.load import load_teacher
from segctl.train.build import _move_teacher, build_session
from segctl.train.session import Request
from segctl.train.start import start_run


def request_of(data: Path, teacher: Path, runs: Path, **train: object) -> Request:
    run = with_method(toy_run(STUDENT, train={"steps": 2, "batch_size": 4, "validate_every": 2} | train), "jml")
    return Request(run, data, runs, teacher, device="cpu", fsdp=True)


def train_both(rank: int, size: int, data: Path, teacher: Path, runs: Path) -> None:
    """Two runs, one with a whole teacher and one with a sharded one."""
    for name, fsdp in (("whole", False), ("sharded", True)):
        request = replace(request_of(data, teacher, runs), fsdp=fsdp, world=World(rank, size, size))
        start_run(request, RunFolder(runs / name), Silent())


@pytest.mark.slow
def test_a_sharded_teacher_teaches_the_same(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    work = partial(train_both, data=toy_data, teacher=toy_teacher, runs=tmp_path)
    run_in_processes(work, 2, tmp_path)
    whole, sharded = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "sharded"))
    for name, weights in whole.items():
        # A whole teacher lies in memory channel by channel last, so its last digits can differ.
        assert torch.allclose(weights, sharded[name], atol=1e-6), name


def test_one_process_has_nothing_to_share(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--fsdp spreads the teacher over several processes, and this run has one"):
        build_session(request_of(toy_data, toy_teacher, tmp_path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"preset": "export"}, "is a program, whose weights are part of its code"),
        ({"cache": True}, "cannot be combined with teacher.cache"),
        ({"compile": True}, "cannot be combined with train.compile"),
        ({"accumulate": "auto"}, "cannot be combined with train.accumulate=auto"),
        ({"overlap": True}, "cannot be combined with teacher.overlap"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    change: dict[str, object], sentence: str, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    from segctl.data.shards.dataset import open_dataset

    settings = {name: value for name, value in change.items() if name in ("compile", "accumulate")}
    request = replace(request_of(toy_data, toy_teacher, tmp_path, **settings), world=World(0, 2, 2))
    assert isinstance(request.run, DistillRun)
    run = request.run
    if named := {name: value for name, value in change.items() if name in ("cache", "overlap")}:
        run = run.model_copy(update={"teacher": run.teacher.model_copy(update=named)})
    teacher = load_teacher(toy_teacher / "model.safetensors", open_dataset(toy_data, "camvid"))
    teacher = replace(teacher, preset=str(change.get("preset", teacher.preset)))
    with pytest.raises(InputError, match=sentence):
        _move_teacher(teacher, run, request, choose_compute("cpu"))
