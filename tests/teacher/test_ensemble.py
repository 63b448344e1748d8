"""Several teachers as one, and a teacher at several scales: what is refused, recorded, cached and resumed."""

import json
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import STUDENT, Silent, toy_run, write_preset

from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError, PresetError, StoppedError
from segctl.models import load, save
from segctl.models.averaged import AveragedNetwork
from segctl.models.forward import forward_images
from segctl.models.outputs import CornerAlignedPrediction
from segctl.runs import RunFolder
from segctl.schema.load import require_consistent
from segctl.schema.run import DistillRun
from segctl.teacher.cache import teacher_maps
from segctl.teacher.ensemble import _require_fitting, averaged, open_teacher
from segctl.teacher.load import Teacher, load_teacher
from segctl.train.build import build_session
from segctl.train.dry_run import dry_run
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from segctl.train.step_memory import memory_of_session

VIEW = {"crop": [48, 64], "scale": [1, 1]}


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> PreparedDataset:
    return open_dataset(toy_data, "camvid")


@pytest.fixture(scope="module")
def other(toy_teacher: Path, dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another teacher that knows as much: the toy one with a little more of its first class."""
    network = load(toy_teacher)
    with torch.no_grad():
        network.classifier.bias[0] += 0.3
    path = tmp_path_factory.mktemp("other") / "other.pt"
    save(path, network, toy_run(), dataset.classes.names)
    return path


def student(teacher: dict[str, Any] | None = None, terms: list[dict[str, Any]] | None = None, **train: Any) -> DistillRun:
    tree = STUDENT | {"distiller": {"terms": terms or [{"kind": "kd"}, {"kind": "soft_kl", "logits": "aux"}]}}
    settings = {"steps": 6, "checkpoint_every": 2, "validate_every": 6} | train
    run = toy_run(tree, teacher={"preset": "toy"} | (teacher or {}), data=VIEW, train=settings)
    assert isinstance(run, DistillRun)
    return run


def request(run: DistillRun, data: Path, root: Path, *teachers: Path, **more: Any) -> Request:
    first, *others = teachers
    return Request(run, data, root, teacher=first, further_teachers=tuple(others), device="cpu", **more)


def opened(run: DistillRun, dataset: PreparedDataset, root: Path, *teachers: Path) -> Teacher:
    return open_teacher(run, teachers, dataset, root)


def test_one_teacher_at_one_scale_is_the_network_itself(dataset: PreparedDataset, toy_teacher: Path, tmp_path: Path) -> None:
    found = opened(student(), dataset, tmp_path, toy_teacher)
    assert not isinstance(found.model, AveragedNetwork)
    assert (found.sha256, found.members, found.networks) == (load_teacher(found.path, dataset).sha256, (), (found,))


def test_two_teachers_give_the_weighted_mean_of_their_probabilities(
    dataset: PreparedDataset, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    found = opened(student({"weights": [1.0, 3.0]}), dataset, tmp_path, toy_teacher, other)
    images = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        alone = [forward_images(member.model, images).logits.softmax(1) for member in found.members]
        together = forward_images(found.model, images).logits.softmax(1)
    torch.testing.assert_close(together, (alone[0] + 3 * alone[1]) / 4)
    assert found.notes[:2] == (f"25% of the teacher is '{found.members[0].path}'", f"75% of the teacher is '{other}'")
    assert found.preset == "toy + toy"


def test_the_hash_of_an_ensemble_depends_on_its_members_and_their_shares_alone(
    dataset: PreparedDataset, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    def key(*weights: float) -> str:
        return opened(student({"weights": list(weights)} if weights else {}), dataset, tmp_path, toy_teacher, other).sha256

    assert key() == key(2.0, 2.0)
    assert len({key(), key(1.0, 2.0), load_teacher(other, dataset).sha256}) == 3


def test_the_same_network_twice_is_refused(dataset: PreparedDataset, toy_teacher: Path, other: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(other.read_bytes())
    with pytest.raises(
        InputError, match=r"the teachers '.*other.pt' and '.*copy.pt' are the same network \(sha256 [0-9a-f]{12}\)"
    ):
        opened(student(), dataset, tmp_path, toy_teacher, other, copy)


def test_as_many_weights_as_teachers_are_wanted(dataset: PreparedDataset, toy_teacher: Path, other: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher\.weights has 3 values, and 2 teachers are given"):
        opened(student({"weights": [1.0, 1.0, 1.0]}), dataset, tmp_path, toy_teacher, other)
    with pytest.raises(InputError, match=r"teacher\.weights has 2 values, and 1 teacher is given"):
        opened(student({"weights": [1.0, 1.0]}), dataset, tmp_path, toy_teacher)


@pytest.mark.parametrize("weights", [[0.0, 1.0], [-1.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0], [1.0]])
def test_weights_that_are_not_positive_are_refused(weights: list[float]) -> None:
    with pytest.raises(PresetError, match=r"teacher\.weights"):
        student({"weights": weights})


@pytest.mark.parametrize("scales", [[0.75, 1.25], [1.0, 1.0], []])
def test_scales_without_one_or_twice_the_same_are_refused(scales: list[float]) -> None:
    with pytest.raises(PresetError, match=r"teacher\.scales"):
        require_consistent(student({"scales": scales}), "toy")


def test_a_teacher_of_other_classes_is_refused_by_name(dataset: PreparedDataset, toy_teacher: Path, tmp_path: Path) -> None:
    names = [*dataset.classes.names[:-1], "unicorn"]
    save(tmp_path / "unicorn.pt", load(toy_teacher), toy_run(), names)
    with pytest.raises(InputError, match=r"unicorn\.pt"):
        opened(student(), dataset, tmp_path, toy_teacher, tmp_path / "unicorn.pt")


def test_a_mixture_of_aligned_corners_is_refused(
    dataset: PreparedDataset, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    first, second = (load_teacher(path, dataset) for path in (toy_teacher / "model.safetensors", other))
    second.model.returns = CornerAlignedPrediction
    with pytest.raises(InputError, match=r"the teacher '.*other.pt' was trained with logits resized on aligned corners"):
        _require_fitting([first, second], student().teacher)


def test_a_term_on_features_is_refused_by_name_unless_one_teacher_alone_gives_features(
    toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    run = student(terms=[{"kind": "kd"}, {"kind": "skd"}])
    with pytest.raises(InputError) as error:
        build_session(request(run, toy_data, tmp_path, toy_teacher, other))
    assert error.value.message == (
        "distiller.terms.1 ('skd') compares features, and 2 of the 2 teachers give features, wanted exactly one"
    )
    program = tmp_path / "alone.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about tracing
        torch.jit.trace(Logits(load(other)), torch.zeros(1, 3, 48, 64)).save(str(program))  # type: ignore[no-untyped-call]
    session = build_session(request(run, toy_data, tmp_path, toy_teacher, program, trust_program=True))
    assert session.teacher is not None
    images = torch.zeros(1, 48, 64, 3, dtype=torch.uint8)
    with torch.no_grad():
        found, first = (teacher_maps(each, images, session.compute) for each in (session.teacher, session.teacher.members[0]))
    assert torch.equal(found["features"], first["features"])
    assert "--trust-program" in session.resume_line(tmp_path / "run")


class Logits(torch.nn.Module):
    """A network whose features are hidden."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised float (B, 3, H, W) -> logits (B, C, h, w)."""
        logits: torch.Tensor = self.network(images).logits
        return logits


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="one view", marks=pytest.mark.slow),
        pytest.param({"scales": [1.0, 0.75], "flip": True}, id="four views"),
    ],
)
def test_a_run_records_every_teacher_resumes_exactly_and_reads_the_same_from_a_cache(
    how: dict[str, Any], toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    run = student({"weights": [1.0, 2.0], **how})
    whole = RunFolder(tmp_path / "a" / "whole")
    start_run(request(run, toy_data, whole.path.parent, toy_teacher, other), whole, Silent())
    record = whole.read_environment()["teacher"]
    assert [member["weight"] for member in record["members"]] == [1.0, 2.0]
    assert [Path(member["run"]).name for member in record["members"]] == ["model.safetensors", "other.pt"]
    assert all(len(member["sha256"]) == 64 and member["scores"]["mIoU_D"] > 0 for member in record["members"])
    assert record["images"] == 5
    assert record["run"] == " + ".join(member["run"] for member in record["members"])

    stopped = RunFolder(tmp_path / "b" / "stopped")
    with pytest.raises(StoppedError):
        start_run(request(run, toy_data, stopped.path.parent, toy_teacher, other), stopped, Stopping())
    resume_run(Request(stopped.read_run(), toy_data, stopped.path.parent, device="cpu"), stopped, Silent())  # type: ignore[arg-type]
    cached = RunFolder(tmp_path / "c" / "cached")
    kept = run.model_copy(update={"teacher": run.teacher.model_copy(update={"cache": True})})
    start_run(request(kept, toy_data, cached.path.parent, toy_teacher, other), cached, Silent())
    wanted = torch.load(whole.last, weights_only=True)["task"]
    for found in (stopped, cached):
        weights = torch.load(found.last, weights_only=True)["task"]
        assert [name for name in wanted if not torch.equal(wanted[name], weights[name])] == []


class Stopping(Silent):
    """Sends SIGTERM after the third step."""

    def stepped(self, report: object, steps: int) -> None:
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_other_views_and_other_weights_have_a_cache_of_their_own(
    toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    keys = set()
    for how in ({}, {"flip": True}, {"scales": [1.0, 1.5]}, {"weights": [1.0, 2.0]}):
        session = build_session(request(student({"cache": True, **how}), toy_data, tmp_path, toy_teacher, other))
        assert session.teacher_outputs is not None
        keys.add(session.teacher_outputs.folder.name)
    assert len(keys) == 4


def test_another_teacher_is_refused_on_a_resume(toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(StoppedError):
        start_run(request(student(), toy_data, tmp_path, toy_teacher, other), folder, Stopping())
    run = folder.read_run()
    assert isinstance(run, DistillRun)
    with pytest.raises(InputError, match="was started with another teacher's sha256"):
        resume_run(request(run, toy_data, tmp_path, other), folder, Silent())


def test_a_teacher_at_several_scales_keeps_its_own_hash_and_says_how_it_sees(
    toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    folder, watch = RunFolder(tmp_path / "run"), Silent()
    run = student({"scales": [0.75, 1.0], "flip": True}, terms=[{"kind": "skd"}], steps=1, validate_every=1)
    start_run(request(run, toy_data, tmp_path, toy_teacher), folder, watch)
    record = folder.read_environment()["teacher"]
    assert "members" not in record
    assert "the teacher's probabilities are the mean over 4 views of an image: scales 0.75, 1, each also mirrored" in watch.notes


def test_a_member_that_has_learnt_nothing_is_refused_though_the_mean_is_good(
    dataset: PreparedDataset, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    network = load(toy_teacher)
    with torch.no_grad():
        network.classifier.weight.zero_()
    save(tmp_path / "empty.pt", network, toy_run(), dataset.classes.names)
    with pytest.raises(InputError, match=r"the teacher '.*empty.pt' has learnt too little"):
        start_run(request(student(), toy_data, tmp_path, toy_teacher, tmp_path / "empty.pt"), RunFolder(tmp_path / "r"), Silent())
    watch = Silent()
    dry_run(request(student(), toy_data, tmp_path, toy_teacher, tmp_path / "empty.pt"), watch)
    assert sum("mIoU_D on 5 validation images" in note for note in watch.notes) == 3


@pytest.mark.slow
def test_a_preset_describes_the_member_that_is_plain_weights_and_no_other(
    dataset: PreparedDataset, toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    preset = write_preset(tmp_path / "toy.yaml")
    torch.save(load(other).state_dict(), tmp_path / "plain.pt")
    given = (toy_teacher, tmp_path / "plain.pt")
    found = open_teacher(student(), given, dataset, tmp_path, preset=str(preset))
    assert [member.given_preset for member in found.members] == [None, str(preset)]
    assert found.given_preset == str(preset)
    with pytest.raises(InputError, match="describes no teacher: each of them says which network it is"):
        open_teacher(student(), (toy_teacher, other), dataset, tmp_path, preset=str(preset))
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(StoppedError):
        start_run(request(student(), toy_data, tmp_path, *given, teacher_preset=str(preset)), folder, Stopping())
    resume_run(Request(folder.read_run(), toy_data, tmp_path, device="cpu"), folder, Silent())
    assert folder.finished


@pytest.mark.slow
def test_the_memory_of_a_step_counts_every_teacher_and_view(
    toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    def peak(how: dict[str, Any], *teachers: Path) -> tuple[float, float]:
        found = memory_of_session(build_session(request(student(how), toy_data, tmp_path, *teachers)), "fp32")
        assert found is not None
        return found.kept, found.peak

    alone, both, scaled = peak({}, toy_teacher), peak({}, toy_teacher, other), peak({"scales": [1.0, 4.0]}, toy_teacher)
    weights = sum(tensor.nbytes for tensor in load(toy_teacher).state_dict().values()) / 2**30
    assert both[0] - alone[0] == pytest.approx(weights, rel=0.05)
    assert both[1] > alone[1]
    assert scaled[1] > alone[1]
    assert scaled[0] == pytest.approx(alone[0], rel=1e-3)


def test_the_average_takes_no_random_number_and_a_record_of_an_older_run_still_reads(
    dataset: PreparedDataset, toy_teacher: Path, other: Path, tmp_path: Path
) -> None:
    members = [load_teacher(path, dataset) for path in (toy_teacher / "model.safetensors", other)]
    before = torch.get_rng_state()
    averaged(members, student().teacher)
    assert torch.equal(torch.get_rng_state(), before)
    folder = RunFolder(tmp_path)
    folder.environment.write_text(json.dumps({"teacher": {"run": "somewhere", "sha256": "0" * 64, "preset": "toy"}}))
    record = folder.require_environment().teacher
    assert record is not None
    assert (record.members, record.is_program) == ([], False)


def test_an_ensemble_has_the_licences_of_all_its_members(tmp_path: Path) -> None:
    members = []
    for name, text in (("a", "apache-2.0"), ("b", "dinov3-license"), ("c", "apache-2.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "environment.json").write_text(json.dumps({"initial_weights_license": text}), encoding="utf-8")
        members.append(Teacher(None, tmp_path / name, "toy", name))  # type: ignore[arg-type]
    both = replace(members[0], members=tuple(members))
    assert both.license == "apache-2.0; dinov3-license"
