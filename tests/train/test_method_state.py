"""What methods bring beside the student: in the right optimiser, in every checkpoint, in no shipped file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import STUDENT, Silent, toy_run

from segctl.models import read
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.train.build import build_session
from segctl.train.dry_run import dry_run
from segctl.train.resume import resume_run
from segctl.train.run_log import StepReport
from segctl.train.session import Request, Session
from segctl.train.start import start_run

TERMS = [
    {"kind": "kd"},
    {"kind": "cwd_features"},
    {"kind": "adversarial"},
    {"kind": "cirkd"},
    {"kind": "cirkd_memory", "pixel_slots": 50, "region_slots": 9, "pixel_samples": 60, "region_samples": 40},
    {"kind": "maskd", "tokens": 3, "stage": {"steps": 3}},
    {"kind": "soft_jdt", "smooth": 1.0},
]
"""Terms of many methods side by side, with all that a term may bring."""


def everything(**train: Any) -> TrainRun:
    settings = {"steps": 4, "checkpoint_every": 2, "validate_every": 4} | train
    return toy_run(STUDENT | {"distiller": {"terms": TERMS}}, model={"width": 4}, train=settings)


def request(toy_data: Path, teacher: Path, runs: Path) -> Request:
    return Request(everything(), toy_data, runs, teacher=teacher, device="cpu")


class Interrupting(Silent):
    """A watcher that falls over after some steps, of the run or of its stage."""

    def __init__(self, step: int = 10**6, stage_step: int = 10**6) -> None:
        super().__init__()
        self.step, self.stage_step = step, stage_step

    def stepped(self, report: object, steps: int) -> None:
        assert isinstance(report, StepReport)
        if report.step >= self.step:
            raise KeyboardInterrupt

    def advance(self, label: str, done: int, total: int) -> None:
        if label == "learning masks" and done >= self.stage_step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(toy_data: Path, toy_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("undisturbed")
    start_run(request(toy_data, toy_teacher, runs), RunFolder(runs / "run"), Silent())
    return RunFolder(runs / "run")


def tensors(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Every tensor in a checkpoint, by its place."""
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {name: tensor for key, value in items for name, tensor in tensors(value, f"{path}/{key}").items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "watch",
    [
        pytest.param(Interrupting(step=3), id="in step 3", marks=pytest.mark.slow),
        pytest.param(Interrupting(stage_step=2), id="in the stage"),
    ],
)
def test_an_interrupted_run_ends_bit_for_bit_like_one_that_was_not(
    watch: Interrupting, undisturbed: RunFolder, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, toy_teacher, tmp_path), folder, watch)
    assert not folder.finished
    resume_run(request(toy_data, toy_teacher, tmp_path), folder, Silent())
    mine, theirs = (tensors(torch.load(run.last, weights_only=True)) for run in (folder, undisturbed))
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(mine[name], tensor), name


def test_a_checkpoint_holds_adapters_opponent_queues_and_tokens(undisturbed: RunFolder) -> None:
    content = torch.load(undisturbed.last, weights_only=True)
    names = {name.removeprefix("distiller.terms.") for name in content["task"] if name.startswith("distiller.")}
    assert {"cwd_features.adapter.weight", "cirkd_memory.queues.pixels", "cirkd_memory.projector.0.weight"} <= names
    assert {"maskd_main.tokens", "adversarial_main.discriminator.7.weight"} <= names
    assert content["opponents"]["state"]


def test_the_shipped_file_holds_the_student_alone(undisturbed: RunFolder) -> None:
    assert not [name for name in read(undisturbed.path).weights if "distiller" in name or "discriminator" in name]


def test_every_value_is_logged_by_name(undisturbed: RunFolder) -> None:
    terms = next(event["terms"] for event in undisturbed.read_log() if event["event"] == "step")
    assert list(terms)[3:] == [
        "kd_main", "cwd_features", "adversarial_main_generator", "adversarial_main_discriminator", "cirkd",
        "cirkd_memory_pixel", "cirkd_memory_region", "maskd_main", "soft_jdt_main",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def session(toy_data: Path, toy_teacher: Path) -> Session:
    return build_session(request(toy_data, toy_teacher, toy_data))


def owned(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def test_adapters_learn_with_the_student_and_the_discriminator_apart(session: Session) -> None:
    named = dict(session.task.named_parameters())
    apart = {id(weight) for name, weight in named.items() if "discriminator" in name}
    assert session.state.opponents is not None
    assert owned(session.state.opponents) == apart
    assert owned(session.state.optimizer) == {id(weight) for weight in named.values()} - apart
    assert {(group["lr"], group["betas"]) for group in session.state.opponents.param_groups} == {(4e-4, (0.9, 0.99))}


def test_what_was_made_to_fit_is_said_before_step_1(session: Session) -> None:
    said = session.decisions()
    assert "cwd_features: a 1×1 convolution takes the student's 4 channels to the teacher's 8" in said
    assert (
        "adversarial_main: a discriminator of 3,183,513 parameters with an Adam of its own; "
        "logit maps of 4×6 are upsampled to 64×96 for it" in said
    )
    assert any(
        line.startswith("cirkd_memory: a projector takes the student's 4 channels to the teacher's 8; queues") for line in said
    )


def test_a_second_run_finds_the_masks_of_the_first(undisturbed: RunFolder, toy_data: Path, toy_teacher: Path) -> None:
    runs, watch = undisturbed.path.parent, Silent()
    kept = sorted((runs / ".stages").iterdir())
    start_run(Request(everything(seed=1, steps=1), toy_data, runs, teacher=toy_teacher), RunFolder(runs / "another"), watch)
    assert sorted((runs / ".stages").iterdir()) == kept
    assert [path.suffixes for path in kept] == [[".pt"]]
    assert f"maskd_main: masks read from '{kept[0]}'" in watch.notes


def test_a_dry_run_tries_the_stage_and_keeps_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    found = dry_run(request(toy_data, toy_teacher, tmp_path), Silent())
    assert found["loss"] > 0
    assert list(tmp_path.iterdir()) == []
