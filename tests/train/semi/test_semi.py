"""Semi-supervised runs: the steps that they take, and the runs that cannot be meant."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
import yaml
from PIL import Image
from torch import Tensor

from segctl.cli import main
from segctl.data.batches.loader import Batch, training_batches
from segctl.data.datasets import open_source
from segctl.data.datasets.unlabelled import with_unlabelled
from segctl.data.prepare import prepare_source
from segctl.errors import PresetError, StoppedError
from segctl.models.forward import forward_images
from segctl.runs import RunFolder
from segctl.schema.cross_checks import group_faults
from segctl.schema.load import validate_run
from segctl.schema.run import method_in_words
from segctl.schema.same_run import without_teacher
from segctl.train.auto.by_memory import with_fitting_batch
from segctl.train.build import build_session
from segctl.train.checkpoint import read_checkpoint
from segctl.train.environment import describe_environment
from segctl.train.loop import take_step
from segctl.train.resume import resume_run
from segctl.train.semi.task import SemiTask
from segctl.train.semi.unimatch import dropped_channels
from segctl.train.session import Request, Session
from segctl.train.start import start_run
from segctl.train.step_memory import memory_of_session
from tests.slow_cases import slow_after

DATA = toy.PRESET["data"] | {"unlabelled": {"per_batch": 4}}
KINDS: dict[str, dict[str, Any]] = {
    "mean_teacher": {"kind": "mean_teacher", "terms": [{"kind": "soft_kl"}, {"kind": "soft_jdt"}, {"kind": "mse"}]},
    "unimatch": {
        "kind": "unimatch",
        "threshold": 0.0965,
        "ema": 0.9,
        "terms": [{"kind": "cross_entropy"}, {"kind": "soft_jdt"}],
        "strong_weight": 0.75,
    },
    "fixmatch": {
        "kind": "fixmatch",
        "threshold": 0.0965,
        "terms": [{"kind": "cross_entropy"}, {"kind": "soft_jdt", "weight": 0.5}],
    },
}

STILL: dict[str, dict[str, Any]] = {
    kind: block | ({"dropout": 1e-9} if kind == "unimatch" else {}) for kind, block in KINDS.items()
}
"""The same, with nothing left to chance in a network in eval mode."""


@pytest.fixture(scope="module")
def root(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy dataset with seven pictures without labels, some of them smaller than a crop."""
    folder = tmp_path_factory.mktemp("semi")
    (folder / "extra").mkdir()
    random = np.random.default_rng(9)
    for index in range(7):
        height = 48 if index % 2 else 20
        Image.fromarray(random.integers(0, 256, (height, 64, 3)).astype(np.uint8)).save(folder / "extra" / f"{index}.png")
    source = with_unlabelled(open_source("camvid", [toy_data.parent / "source"]), [folder / "extra"])
    prepare_source(source, folder / "data", workers=0)
    return folder / "data"


def asked(root: Path, kind: str, runs: Path, **blocks: Any) -> Request:
    blocks = {"data": DATA, "semi": KINDS[kind]} | blocks
    return Request(toy.toy_run(**blocks), root, runs, device="cpu")


def batches(session: Session, first: int = 0, last: int = 6, **how: int) -> list[Batch]:
    options: dict[str, Any] = {"batch_size": 4, "seed": 0, "workers": 0} | how
    run = session.run
    return list(
        training_batches(
            session.dataset, "train", view=run.data, first_step=first, last_step=last, semi=run.semi, **options
        )
    )  # fmt: skip


def state_of(session: Session) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in session.task.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


class StopAfter(toy.Silent):
    """A watcher that sends the process Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.sent = step, False

    def stepped(self, report: Any, steps: int) -> None:
        if report.step >= self.step and not self.sent:
            self.sent = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind if kind == "unimatch" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_a_stopped_run_resumes_to_the_same_bits(root, tmp_path, kind):
    """The teacher's average, its statistics and the place in the ramp come back from last.pt."""
    asking = asked(root, kind, tmp_path, train={"steps": 6, "checkpoint_every": 1, "validate_every": 6})
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    start_run(asking, whole, toy.Silent())
    with pytest.raises(StoppedError):
        start_run(asking, stopped, StopAfter(1))
    assert 1 <= read_checkpoint(stopped.last).step < 6
    resume_run(asking, stopped, toy.Silent())
    ours, theirs = read_checkpoint(whole.last), read_checkpoint(stopped.last)
    assert same(ours.task, theirs.task)
    assert any(name.startswith("average.module.") for name in ours.task) == (kind != "fixmatch")
    assert whole.model.read_bytes() == stopped.model.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_terms_are_named_after_view_and_comparison(root, tmp_path, kind):
    session = build_session(asked(root, kind, tmp_path, train={"steps": 6}))
    for batch in batches(session, last=2):
        terms = take_step(session, batch).terms
        session.state.step += 1
    wanted = {"ce_main", "ce_aux", "jdt_main"} | {f"strong_{term['kind']}" for term in KINDS[kind]["terms"]}
    wanted |= {f"features_{term['kind']}" for term in KINDS[kind]["terms"]} if kind == "unimatch" else set()
    assert {name.replace("cross_entropy_main", "ce_main").replace("cross_entropy_aux", "ce_aux") for name in terms} == wanted
    assert all(value.isfinite() for value in terms.values())
    assert terms["strong_soft_jdt"] > 0
    assert f"semi-supervised by {kind}" in "\n".join(session.decisions())


def test_the_teacher_is_the_average_of_equation_1_which_begins_as_the_mean(root, tmp_path):
    semi = {"kind": "mean_teacher", "ema": 0.75}
    session = build_session(asked(root, "mean_teacher", tmp_path, semi=semi))
    task = session.task
    assert isinstance(task, SemiTask)
    assert task.average is not None
    steps = []
    for batch in batches(session, last=6):
        take_step(session, batch)
        steps.append([weight.detach().clone() for weight in session.model.parameters()])
    wanted = [sum(first) / 4 for first in zip(*steps[:4], strict=True)]
    for weights in steps[4:]:
        wanted = [0.75 * old + 0.25 * new for old, new in zip(wanted, weights, strict=True)]
    for ours, theirs in zip(task.average.module.parameters(), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad
    assert not task.average.training
    assert not any(module.training for module in task.average.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_the_slow_way(root, tmp_path, kind):
    """The total loss of one batch, computed picture by picture from the views and the networks' outputs."""
    session = build_session(asked(root, kind, tmp_path, semi=STILL[kind] | {"cutmix": 1, "weight": 3, "ramp_up": 0.5}))
    task = session.task
    assert isinstance(task, SemiTask)
    session.trained.eval()
    session.trained.train = lambda mode=True: session.trained  # type: ignore[method-assign, assignment, misc]
    batch = batches(session, last=1)[0]
    strong = batch.strong
    assert strong is not None
    q, other = (probabilities(session, images) for images in (batch.images[4:], strong.others))
    wanted: dict[str, float] = {}
    weight = 3 * np.exp(-5)  # the first step of the ramp
    for view in range(task.semi.views):
        mixed = torch.where(strong.pasted[:, view].unsqueeze(1), other, q)
        p = probabilities(session, strong.images[:, view])
        values = slow(p, mixed, strong.real[:, view], task.semi.threshold)
        for term in task.semi.terms:
            factor = term.weight * (0.75 / 2 if kind == "unimatch" else 1)
            wanted[f"strong_{term.kind}"] = wanted.get(f"strong_{term.kind}", 0) + weight * factor * values[term.kind]
    if kind == "unimatch":
        values = slow(q, q, batch.unlabelled[4:], task.semi.threshold)
        wanted |= {f"features_{term.kind}": weight * 0.5 * values[term.kind] for term in task.semi.terms}
    found = take_step(session, batch).terms
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, rel=3e-4, abs=1e-7), name
        assert value > 0 or name == "features_soft_jdt"  # which compares the weak view with itself
    assert set(wanted) == {name for name in found if name.startswith(("strong", "features"))}


def probabilities(session: Session, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits = forward_images(session.model, images).logits
    return torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear").softmax(1)


def slow(p: Tensor, q: Tensor, real: Tensor, threshold: float) -> dict[str, float]:
    """Every comparison of the student's p with the teacher's q, (4, C, 32, 48), pixel by pixel; real bool (4, 32, 48)."""
    sums: dict[str, float] = dict.fromkeys(("cross_entropy", "soft_kl", "mse"), 0.0)
    for m in range(4):
        pixels = int(real[m].sum())
        for y in range(32):
            for x in range(48):
                theirs, ours = q[m, :, y, x], p[m, :, y, x]
                if real[m, y, x] and theirs.max() >= threshold:
                    sums["cross_entropy"] -= float(ours[theirs.argmax()].log()) / pixels / 4
                    sums["soft_kl"] += float((theirs * (theirs.log() - ours.log())).sum()) / pixels / 4
                    sums["mse"] += float(((theirs - ours) ** 2).mean()) / pixels / 4
    keep = (real & (q.amax(1) >= threshold)).unsqueeze(1)
    common = (torch.minimum(p, q) * keep).sum((0, 2, 3))
    union = ((p + q) * keep).sum((0, 2, 3)) - common
    sums["soft_jdt"] = float((1 - (common + 1e-3) / (union + 1e-3)).mean())
    return sums


@pytest.mark.parametrize("kind", slow_after(KINDS))
def test_micro_batches_add_up_to_the_whole_batch(root, tmp_path, kind):
    """Without batch norm's statistics, dropout, and the metric loss, whose ratio is per micro-batch."""
    terms = [term for term in KINDS[kind]["terms"] if term["kind"] != "soft_jdt"]
    found = []
    for accumulate in (1, 2, 4):
        blocks = {"semi": STILL[kind] | {"terms": terms, "cutmix": 1}, "train": {"accumulate": accumulate}}
        run = toy.toy_run(toy.PRESET | {"loss": [{"kind": "cross_entropy"}]}, data=DATA, **blocks)
        session = build_session(Request(run, root, tmp_path, device="cpu"))
        session.trained.eval()
        session.trained.train = lambda mode=True, trained=session.trained: trained  # type: ignore[method-assign, assignment, misc]
        values = take_step(session, batches(session, last=1)[0]).terms
        found.append(values | {name: weight.detach() for name, weight in session.model.named_parameters()})
    assert found[0][f"strong_{terms[0]['kind']}"] > 0
    for other in found[1:]:
        for name, wanted in found[0].items():
            torch.testing.assert_close(other[name], wanted, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_gives_the_student_its_gradients(root, tmp_path, kind):
    """The teacher's pass casts the same weights without gradient: autocast must not hand those casts to the student."""
    norms = []
    for precision in ("fp32", "bf16"):
        semi = STILL[kind] | {"weight": 20, "ramp_up": 0}
        session = build_session(asked(root, kind, tmp_path, semi=semi, train={"precision": precision}))
        session.trained.eval()
        session.trained.train = lambda mode=True, trained=session.trained: trained  # type: ignore[method-assign, assignment, misc]
        norms.append(float(take_step(session, batches(session, last=1)[0]).gradient_norm))
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


@pytest.mark.parametrize("kind", ["unimatch"])
@pytest.mark.slow
def test_costs_count_the_strong_views_and_the_teacher(root, tmp_path, kind):
    plain = Request(toy.toy_run(data={"crop": [64, 64]}), root, tmp_path, device="cpu")
    mixed = asked(root, kind, tmp_path, data=DATA | {"crop": [64, 64]})
    ours, theirs = (memory_of_session(build_session(each), "fp32") for each in (mixed, plain))
    assert ours is not None
    assert theirs is not None
    assert ours.peak > 1.5 * theirs.peak
    auto = replace(mixed, run=toy.toy_run(data=DATA, semi=KINDS[kind], train={"accumulate": "auto"}))
    assert with_fitting_batch(auto, take_step).run.train.accumulate == 1


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ({"data": {}}, "data.unlabelled: is missing"),
        (
            {"data": {"unlabelled": {"per_batch": 1}}, "semi": {"kind": "fixmatch"}},
            "data.unlabelled.per_batch: got 1 with semi.cut",
        ),
        ({"semi": {"kind": "fixmatch", "threshold": 1}}, "semi.threshold: got 1, wanted less than 1"),
        ({"semi": {"kind": "fixmatch", "threshold": -0.1}}, "semi.threshold: got -0.1, wanted at least 0"),
        ({"semi": {"kind": "mean_teacher", "ema": 1}}, "semi.ema: got 1, wanted less than 1"),
        ({"semi": {"kind": "mean_teacher", "ema": None}}, "semi.ema"),
        ({"semi": {"kind": "noisy"}}, "wanted one of mean_teacher, fixmatch, unimatch"),
        ({"semi": {"kind": "unimatch", "strong_weight": 0, "feature_weight": 0}}, "semi.strong_weight: got 0 with semi.feature"),
        ({"semi": {"kind": "unimatch", "dropout": 0}}, "semi.dropout: got 0, wanted more than 0"),
        ({"semi": {"kind": "unimatch"}, "train": {"compile": True}}, "train.compile: got true with semi.feature_weight"),
        ({"semi": {"kind": "fixmatch", "dropout": 0.5}}, "'fixmatch' has no such key"),
        ({"semi": {"kind": "fixmatch", "weight": 0}}, "semi.weight: got 0, wanted more than 0"),
        ({"semi": {"kind": "fixmatch", "terms": []}}, "semi.terms: is empty"),
        ({"semi": {"kind": "fixmatch", "terms": [{"kind": "mse", "weight": 0}]}}, "semi.terms: every weight is 0"),
        ({"semi": {"kind": "fixmatch", "terms": [{"kind": "soft_jdt", "miou_d": 0}]}}, "semi.terms.0.miou_d"),
        ({"semi": {"kind": "fixmatch", "augment": [{"kind": "affine"}]}}, "'affine', wanted one of color, blur"),
        ({"semi": {"kind": "fixmatch", "ramp_up": 1}}, "semi.ramp_up: got 1, wanted less than 1"),
        ({"data": {"unlabelled": {"per_batch": 2}}, "train": {"accumulate": 4}}, "data.unlabelled.per_batch: got 2 with semi"),
        (
            {"distiller": toy.STUDENT["distiller"], "teacher": {"preset": "toy"}},
            "semi: got 'mean_teacher' with a separate teacher",
        ),
        (
            {"distiller": toy.STUDENT["distiller"], "teacher": {"preset": "toy", "cache": True}},
            "semi: got 'mean_teacher' with a separate teacher",
        ),
    ],
)
def test_runs_that_cannot_be_meant_are_refused(blocks, sentence):
    tree = toy.PRESET | {"semi": {"kind": "mean_teacher"}} | blocks
    tree["data"] = (DATA if "data" not in blocks else toy.PRESET["data"]) | blocks.get("data", {})
    tree["train"] = toy.PRESET["train"] | blocks.get("train", {})
    with pytest.raises(PresetError) as caught:
        validate_run(tree, "toy")
    assert sentence in str(caught.value)


def test_too_many_processes_are_refused(root, tmp_path):
    run = asked(root, "mean_teacher", tmp_path, data=DATA | {"unlabelled": {"per_batch": 2}}).run
    assert not group_faults(run, 2)
    assert [str(fault) for fault in group_faults(run, 4)] == [
        "data.unlabelled.per_batch: got 2 with semi (train.accumulate 1, 4 processes), wanted at least one for each micro-batch"
    ]


def test_train_takes_a_students_preset_and_leaves_its_teacher_out(root, tmp_path, capsys):
    """The commands that a person types: a preset with a teacher, and a block by --set; distill refuses the same."""
    (tmp_path / "toy-student.yaml").write_text(yaml.safe_dump(toy.STUDENT))
    changes = ["train.steps=2", "train.validate_every=2", "train.checkpoint_every=2", "data.unlabelled.per_batch=2"]
    changes += ["semi.kind=mean_teacher"]
    options = [word for change in changes for word in ("--set", change)]
    preset = ["--preset", str(tmp_path / "toy-student.yaml"), *options]
    roots = ["--data-root", str(root), "--runs-root", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(["train", *preset, *roots]) == 0
    stored = yaml.safe_load((tmp_path / "runs" / "toy-student-mean_teacher" / "run.yaml").read_text())
    assert stored["data"]["unlabelled"]["per_batch"] == 2
    assert "distiller" not in stored
    capsys.readouterr()
    for method in ([], ["--method", "kd"], ["--method", "none"]):
        assert main(["distill", *preset, *method, *roots]) == 2
        assert "semi: got 'mean_teacher' with a separate teacher" in " ".join(capsys.readouterr().err.split())
    assert main(["train", *preset, "--dry-run", *roots]) == 0


def test_the_student_on_labels_alone_is_what_a_gain_is_measured_from(root, tmp_path):
    """The same labels in the same batches, and nothing else: its environment counts no picture without label."""
    few = toy.toy_run(
        data=toy.PRESET["data"] | {"labelled": 0.5, "unlabelled": {"split": None, "per_batch": 2}}, semi=KINDS["fixmatch"]
    )
    alone = without_teacher(few)
    assert (alone.semi, alone.data.unlabelled, alone.data.labelled) == (None, None, 0.5)
    assert (method_in_words(few), method_in_words(alone)) == ("fixmatch", "none")
    counts = []
    for run in (few, alone):
        request = Request(run, root, tmp_path, device="cpu")
        counts.append(describe_environment(build_session(request), request, None)["dataset"].get("unlabelled_images"))
    assert counts == [5, None]


def test_only_the_last_pictures_lose_channels(root, tmp_path):
    """About half of the channels that the head reads are 0, the others twice as large; the labelled pictures keep theirs."""
    session = build_session(asked(root, "unimatch", tmp_path))
    network = session.model.eval()
    seen: list[list[Tensor]] = []
    network.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
    images = torch.randint(0, 256, (5, 32, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        plain = forward_images(network, images)
        with dropped_channels(network, 2, 0.5):
            disturbed = forward_images(network, images)
        again = forward_images(network, images)
    before, _, _ = seen  # the hook of this test was there first, so it sees the maps before the other one
    assert torch.equal(plain.logits, again.logits)
    torch.testing.assert_close(plain.logits[:3], disturbed.logits[:3])
    assert not torch.allclose(plain.logits[3:], disturbed.logits[3:])
    with dropped_channels(network, 2, 0.5):
        network.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))  # it sees what the head gets
        with torch.no_grad():
            forward_images(network, images)
    ratio = seen[-1][0][3:] / before[0][3:]
    assert {round(float(value), 3) for value in ratio[ratio.isfinite()].flatten()} <= {0.0, 2.0}
    assert 0.2 < float((ratio == 0).float().mean()) < 0.8
    assert torch.equal(seen[-1][0][:3], before[0][:3])
