"""Runs that learn from pictures without labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
import toy
import yaml
from PIL import Image
from torch import Tensor

from segctl.cli import main
from segctl.data.batches.loader import Batch, training_batches
from segctl.data.batches.micro_batches import mixed_micro_batches
from segctl.data.batches.views import TrainingNames
from segctl.data.datasets import open_source
from segctl.data.datasets.unlabelled import with_unlabelled
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError, PresetError
from segctl.ignored import IGNORED
from segctl.runs import RunFolder
from segctl.schema.data import DataSpec
from segctl.schema.load import validate_run
from segctl.train.build import build_session
from segctl.train.loop import take_step
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.slow_cases import slow_after

MIXED = {"data": toy.STUDENT["data"] | {"unlabelled": {"per_batch": 3}}}


@pytest.fixture(scope="module")
def root(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy dataset with seven pictures without labels, some of them smaller than a crop."""
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "extra").mkdir()
    random = np.random.default_rng(9)
    for index in range(7):
        height = 48 if index % 2 else 20
        Image.fromarray(random.integers(0, 256, (height, 64, 3)).astype(np.uint8)).save(folder / "extra" / f"{index}.png")
    source = with_unlabelled(open_source("camvid", [toy_data.parent / "source"]), [folder / "extra"])
    prepare_source(source, folder / "data", workers=0)
    return folder / "data"


@pytest.fixture(scope="module")
def dataset(root: Path) -> PreparedDataset:
    return open_dataset(root, "camvid")


def spec(**changes: object) -> DataSpec:
    return DataSpec.model_validate(toy.STUDENT["data"] | {"unlabelled": {"per_batch": 3}} | changes)


def batches(dataset: PreparedDataset, view: DataSpec, first: int = 0, last: int = 6, **how: int) -> list[Batch]:
    options = {"batch_size": 4, "seed": 5, "workers": 0} | how
    return list(training_batches(dataset, "train", view=view, first_step=first, last_step=last, **options))


def same(first: Batch, second: Batch) -> bool:
    assert first.unlabelled is not None
    assert second.unlabelled is not None
    pairs = ((first.images, second.images), (first.labels, second.labels), (first.unlabelled, second.unlabelled))
    return first.names == second.names and all(torch.equal(*pair) for pair in pairs)


def test_pictures_come_on_top_and_the_labelled_ones_are_as_without_them(dataset):
    plain = batches(dataset, spec(unlabelled=None))
    mixed = batches(dataset, spec())
    for ours, theirs in zip(plain, mixed, strict=True):
        assert ours.unlabelled is None
        assert theirs.names[:4] == ours.names
        assert torch.equal(theirs.images[:4], ours.images)
        assert torch.equal(theirs.labels[:4], ours.labels)
        assert all(name.startswith("unlabelled-") for name in theirs.names[4:])
        assert len(theirs.names) == 7
        assert not theirs.unlabelled[:4].any()
        assert (theirs.labels[4:] == IGNORED).all()


def test_padding_is_neither_labelled_nor_unlabelled(dataset):
    """The pictures of 20 rows are padded to a crop of 32 by at least 7 rows; a real pixel of noise is seldom the padding's."""
    for batch in batches(dataset, spec(scale=[1, 1], flip=0)):
        for name, image, real in zip(batch.names[4:], batch.images[4:], batch.unlabelled[4:], strict=True):
            rows = int(real.any(1).sum())
            assert rows == min(32, dataset.size(name)[0])
            padding = (image == torch.tensor([124, 116, 104], dtype=torch.uint8)).all(-1)
            assert padding[~real].all()
            assert padding[real].float().mean() < 0.01


def test_affine_and_cutout_take_real_pixels_away(dataset):
    augment = [{"kind": "affine", "probability": 1, "degrees": 40}, {"kind": "cutout", "probability": 1, "size": [0.5, 0.5]}]
    for batch in batches(dataset, spec(augment=augment), last=2):
        share = batch.unlabelled[4:].float().mean()
        assert 0 < share < 0.75


def test_pixels_pasted_into_a_picture_without_label_have_one(dataset):
    augment = [{"kind": "copy_paste", "probability": 1}]
    pasted = 0
    for batch in batches(dataset, spec(augment=augment)):
        labelled = batch.labels[4:] != IGNORED
        assert not (labelled & batch.unlabelled[4:]).any()
        pasted += int(labelled.sum())
    assert pasted > 0


def test_workers_processes_and_a_late_start_change_nothing(dataset):
    whole = batches(dataset, spec())
    assert all(map(same, batches(dataset, spec(), first=3), whole[3:]))
    assert all(map(same, batches(dataset, spec(), workers=2), whole))
    shares = [batches(dataset, spec(), rank=rank, size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert sorted(shares[0][step].names + shares[1][step].names) == sorted(batch.names)
        assert shares[0][step].names == batch.names[0:4:2] + batch.names[4::2]
    other = batches(dataset, spec(), seed=6)
    assert [batch.names for batch in other] != [batch.names for batch in whole]


def test_every_picture_of_the_pool_is_seen_once_an_epoch(dataset):
    names = [name for batch in batches(dataset, spec(), last=7) for name in batch.names[4:]]
    assert sorted(names) == sorted(dataset.names("unlabelled") * 3)


def test_the_hidden_part_of_data_labelled_is_of_the_same_kind(dataset):
    """Without data.unlabelled hidden pictures stand among the others; with it they join the pool."""
    hidden = set(TrainingNames.of(dataset, spec(labelled=0.5)).unlabelled) - set(dataset.names("unlabelled"))
    assert len(hidden) == 5
    for batch in batches(dataset, spec(labelled=0.5, unlabelled=None)):
        for name, label, real in zip(batch.names, batch.labels, batch.unlabelled, strict=True):
            assert bool(real.any()) == (name in hidden)
            assert (label[real] == IGNORED).all()
    mixed = batches(dataset, spec(labelled=0.5, unlabelled={"split": None, "per_batch": 2}))
    for batch in mixed:
        assert not hidden & set(batch.names[:4])
        assert set(batch.names[4:]) <= hidden


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unlabelled": {"split": "nowhere", "per_batch": 1}}, "has no split called 'nowhere'"),
        ({"unlabelled": {"per_batch": 8}}, "data.unlabelled.per_batch: got 8, wanted at most 7"),
        (
            {"val_split": "train", "train_split": "val", "unlabelled": {"split": "train", "per_batch": 1}},
            "also in data.val_split",
        ),
    ],
)
def test_pools_that_cannot_be_used_are_refused(dataset, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        TrainingNames.of(dataset, spec(**changes))


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        (toy.PRESET | MIXED, "data.unlabelled"),
        (toy.STUDENT | {"data": MIXED["data"] | {"unlabelled": {"split": "val", "per_batch": 1}}}, "data.unlabelled.split"),
        (toy.STUDENT | {"data": MIXED["data"] | {"unlabelled": {"split": None, "per_batch": 1}}}, "data.unlabelled.split"),
        (toy.STUDENT | {"data": MIXED["data"] | {"unlabelled": {"per_batch": 0}}}, "data.unlabelled.per_batch"),
        (toy.STUDENT | {"data": MIXED["data"] | {"unlabelled": {"per_batch": 1, "ratio": 2}}}, "data.unlabelled.ratio"),
        (
            toy.STUDENT | MIXED | {"data": MIXED["data"] | {"scale": [1, 1]}, "teacher": {"preset": "toy", "cache": True}},
            "teacher.cache",
        ),
    ],
)
def test_presets_that_cannot_be_meant_are_refused(tree, field):
    with pytest.raises(PresetError) as caught:
        validate_run(tree, "toy")
    assert field in str(caught.value)


def test_micro_batches_have_their_part_of_both():
    assert mixed_micro_batches(4, 4, 2, 1, 3) == [[range(2), range(4, 5)], [range(2, 4), range(5, 7)]]
    assert mixed_micro_batches(4, 4, 1, 1, 0) == [[range(4), range(4, 4)]]


def request(root: Path, teacher: Path, tmp_path: Path, **blocks: object) -> Request:
    return Request(toy.toy_run(toy.STUDENT, **blocks), root, tmp_path / "runs", teacher=teacher, device="cpu")  # type: ignore[arg-type]


def terms_of(asked: Request) -> dict[str, Tensor]:
    """The terms of one step, and the weights after it, without dropout and with fixed statistics."""
    session = build_session(asked)
    session.trained.eval()
    session.trained.train = lambda mode=True: session.trained  # type: ignore[method-assign, assignment, misc]
    batch = next(iter(batches(session.dataset, session.run.data, last=1)))
    found = take_step(session, batch).terms
    return found | {name: weight.detach().clone() for name, weight in session.model.named_parameters()}


def test_micro_batches_add_up_to_the_step_of_the_whole_batch(root, toy_teacher, tmp_path):
    distiller = {
        "terms": [{"kind": "kd"}, {"kind": "cwd"}, {"kind": "soft_kl"}, {"kind": "soft_kl", "pixels": "all"}, {"kind": "ifvd"}]
    }
    loss = [{"kind": "cross_entropy"}]
    steps = []
    for accumulate in (1, 2, 4):
        run = toy.toy_run(toy.STUDENT | MIXED | {"loss": loss, "distiller": distiller}, train={"accumulate": accumulate})
        steps.append(terms_of(Request(run, root, tmp_path / "runs", teacher=toy_teacher, device="cpu")))
    assert steps[0]["kd_main"] > 0
    for other in steps[1:]:
        for name, wanted in steps[0].items():
            torch.testing.assert_close(other[name], wanted, rtol=1e-4, atol=1e-6, msg=name)


def test_a_run_resumes_exactly_and_says_what_it_mixes_in(root, toy_teacher, tmp_path):
    lines: list[str] = []

    class Watch(toy.Silent):
        def note(self, text: str) -> None:
            lines.append(text)

    weights = []
    for stop in (None, 3):
        asked = request(root, toy_teacher, tmp_path, data={"unlabelled": {"per_batch": 3}}, train={"steps": 6})
        session = build_session(asked)
        if stop is None:
            stream = batches(session.dataset, session.run.data, last=6)
        else:
            stream = batches(session.dataset, session.run.data, last=3) + batches(
                session.dataset, session.run.data, first=3, last=6
            )
        for batch in stream:
            take_step(session, batch)
        weights.append([weight.detach().clone() for weight in session.model.parameters()])
    assert all(map(torch.equal, *weights))
    assert "7 without labels, 3 of them in each batch beside the 4" in "\n".join(session.decisions())


def test_a_student_learns_from_unlabelled_pictures_alone_and_terms_by_class_are_refused(root, toy_teacher, tmp_path):
    data = {"train_split": "unlabelled"}
    runs = tmp_path / "runs"
    asked = request(root, toy_teacher, tmp_path, data=data, train={"steps": 2, "validate_every": 2, "checkpoint_every": 2})
    start_run(asked, RunFolder(runs / "alone"), toy.Silent())
    assert (runs / "alone" / "model.safetensors").is_file()
    for index, kind in enumerate(("ifvd", "cirkd_memory")):
        terms = [{"kind": "kd"}] * (index + 1) + [{"kind": kind}]
        refused = request(root, toy_teacher, tmp_path, data=data, distiller={"terms": terms})
        with pytest.raises(InputError, match=f"distiller.terms.{index + 1}: '{kind}' compares by class, so it needs labels"):
            build_session(refused)
    supervised = Request(toy.toy_run(data=data), root, runs, device="cpu")
    with pytest.raises(InputError, match=r"data\.train_split: got 'unlabelled' of dataset 'camvid', but none of its pictures"):
        build_session(supervised)
    scored = Request(toy.toy_run(data={"val_split": "unlabelled"}), root, runs, device="cpu")
    with pytest.raises(InputError, match=r"data\.val_split: got 'unlabelled'"):
        build_session(scored)


@pytest.mark.parametrize(
    "method",
    slow_after(["maskd", "cirkd", "ifvd", "kd", "cwd", "dist", "jml", "skd"], 2),
)
def test_every_method_takes_mixed_batches(root, toy_teacher, tmp_path, method, capsys):
    (tmp_path / "toy-student.yaml").write_text(yaml.safe_dump(toy.STUDENT))
    changes = ["train.steps=2", "train.validate_every=2", "train.checkpoint_every=2", "data.unlabelled.per_batch=2"]
    options = [word for change in changes for word in ("--set", change)]
    roots = ("--data-root", str(root), "--runs-root", str(tmp_path / "runs"), "--device", "cpu")
    start = ("distill", "--preset", str(tmp_path / "toy-student.yaml"), "--method", method, "--teacher", str(toy_teacher))
    code = main([*start, *options, *roots])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", [["train"], ["distill", "--method", "none"]])
def test_a_run_without_teacher_says_that_it_leaves_them_out(root, tmp_path, capsys, command):
    (tmp_path / "toy-student.yaml").write_text(yaml.safe_dump(toy.STUDENT))
    changes = ["train.steps=1", "train.validate_every=1", "train.checkpoint_every=1", "data.unlabelled.per_batch=2"]
    options = [word for change in changes for word in ("--set", change)]
    roots = ("--data-root", str(root), "--run", str(tmp_path / "run"), "--device", "cpu")
    assert main([*command, "--preset", str(tmp_path / "toy-student.yaml"), *options, *roots]) == 0
    assert "data.unlabelled is left out" in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["data"]["unlabelled"] is None


def test_eval_of_a_split_without_labels_is_refused(root, toy_teacher, capsys):
    code = main(["eval", str(toy_teacher), "--split", "unlabelled", "--data-root", str(root)])
    assert code == 2
    assert "--split: got 'unlabelled' of dataset 'camvid', but none of its pictures has a label" in " ".join(
        capsys.readouterr().err.split()
    )
