"""`segctl pretrain`: a run without labels that resumes exactly, and whose backbone starts later runs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import run_in_processes
from PIL import Image
from toy import PRESET, Silent, draw_camvid, write_preset

from segctl.cli import main
from segctl.data.datasets import open_source
from segctl.data.datasets.unlabelled import with_unlabelled
from segctl.data.prepare import prepare_source
from segctl.errors import InputError, PresetError
from segctl.models import read
from segctl.runs import RunFolder
from segctl.runtime.world import World
from segctl.schema.load import validate_run
from segctl.schema.run import PretrainRun, TrainRun
from segctl.train.build import build_session
from segctl.train.dry_run import dry_run
from segctl.train.extend import extend_run
from segctl.train.loop import take_step
from segctl.train.resume import resume_run
from segctl.train.session import Request, Session
from segctl.train.start import start_run

TREE: dict[str, Any] = {
    "name": "toy-pretrain",
    "data": PRESET["data"],
    "model": {"backbone": "test_resnet", "head": "linear", "aux": False, "weights": "none"},
    "optim": {"kind": "adamw", "lr": 5e-3},
    "schedule": {"kind": "constant"},
    "train": PRESET["train"] | {"steps": 6, "validate_every": 3},
    "pretrain": {"teacher": "timm:test_vit", "weights": "none"},
}


def run_of(**pretrain: Any) -> TrainRun:
    return validate_run(TREE | {"pretrain": TREE["pretrain"] | pretrain}, "toy")


def steps_of(session: Session, count: int) -> list[float]:
    from segctl.train.loop import _batches

    batches = _batches(session)
    return [float(sum(take_step(session, next(batches)).terms.values())) for _ in range(count)]


@pytest.mark.parametrize(
    "how",
    [{}, pytest.param({"method": "mse", "adapter": "mlp"}, marks=pytest.mark.slow), {"method": "cwd", "grid": "student"}],
    ids=str,
)
def test_the_student_comes_closer_to_the_teacher(how: dict[str, Any], toy_data: Path, tmp_path: Path) -> None:
    run = run_of(**how)
    run = run.model_copy(update={"train": run.train.model_copy(update={"steps": 40})})
    losses = steps_of(build_session(Request(run, toy_data, tmp_path, device="cpu")), 20)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_backbone_and_the_adapter_learn_and_nothing_else(toy_data: Path, tmp_path: Path) -> None:
    session = build_session(Request(run_of(), toy_data, tmp_path, device="cpu"))
    teacher = session.teacher.model.sha256()
    before = {name: tensor.clone() for name, tensor in session.task.state_dict().items()}
    steps_of(session, 2)
    changed = {name for name, tensor in session.task.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {".".join(name.split(".")[:2]) if name.startswith("model") else "adapter" for name in changed} == {
        "model.backbone",
        "adapter",
    }
    assert session.teacher.model.sha256() == teacher


@pytest.fixture(scope="module")
def finished(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("pretrained")
    start_run(Request(run_of(), toy_data, runs, device="cpu"), RunFolder(runs / "whole"), Silent())
    return runs / "whole"


def test_the_run_reports_its_loss_and_the_scores_of_the_probe(finished: Path) -> None:
    events = RunFolder(finished).read_log()
    assert [event["step"] for event in events if event["event"] == "validation"] == [3, 6]
    assert all(0 < event["scores"]["mIoU_D"] <= 100 for event in events if event["event"] == "validation")
    assert set(next(event for event in events if event["event"] == "step")["terms"]) == {"cosine"}
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["method"] == "pretrain"
    assert environment["teacher"]["run"] == "timm:test_vit"
    assert isinstance(RunFolder(finished).read_run(), PretrainRun)


def test_labels_change_no_weight(finished: Path, toy_data: Path, tmp_path: Path) -> None:
    """Without a probe no label is read, and the backbone is the same to the bit."""
    start_run(Request(run_of(probe_images=0), toy_data, tmp_path, device="cpu"), RunFolder(tmp_path / "blind"), Silent())
    assert not [event for event in RunFolder(tmp_path / "blind").read_log() if event["event"] == "validation"]
    one, other = read(finished).weights, read(tmp_path / "blind").weights
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items() if name.startswith("backbone."))


class StoppingError(Exception):
    """Stands for a kill."""


def test_a_stopped_run_resumes_exactly(finished: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segctl.train import loop

    taken: list[int] = []

    def stopping(session: Session, batch: Any) -> Any:
        if len(taken) == 4:
            raise StoppingError
        taken.append(1)
        return take_step(session, batch)

    request, folder = Request(run_of(), toy_data, tmp_path, device="cpu"), RunFolder(tmp_path / "stopped")
    monkeypatch.setattr(loop, "take_step", stopping)
    with pytest.raises(StoppingError):
        start_run(request, folder, Silent())
    monkeypatch.undo()
    resume_run(request, folder, Silent())
    one, other = read(finished).weights, read(folder.path).weights
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_no_label_is_read_in_training(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segctl.data.shards.dataset import PreparedDataset
    from segctl.train.loop import _batches

    session = build_session(Request(run_of(), toy_data, tmp_path, device="cpu"))
    monkeypatch.setattr(PreparedDataset, "label", None)
    batch = next(_batches(session))
    assert bool((batch.labels == 255).all())
    assert batch.unlabelled is not None
    assert 0 < float(batch.unlabelled.float().mean()) <= 1
    take_step(session, batch)


@pytest.mark.slow
def test_a_split_without_labels_teaches_and_the_probe_reads_another(tmp_path: Path) -> None:
    pictures = tmp_path / "more"
    pictures.mkdir()
    random = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(pictures / f"{index}.png")
    source = with_unlabelled(open_source("camvid", [draw_camvid(tmp_path / "source")]), [pictures])
    prepare_source(source, tmp_path / "data", workers=0)
    tree = TREE | {"data": TREE["data"] | {"train_split": "unlabelled"}}
    request, folder = Request(validate_run(tree, "toy"), tmp_path / "data", tmp_path, device="cpu"), RunFolder(tmp_path / "run")
    start_run(request, folder, Silent())
    assert [event["step"] for event in folder.read_log() if event["event"] == "validation"] == [3, 6]
    blind = tree | {"pretrain": TREE["pretrain"] | {"probe_split": "unlabelled"}}
    request, folder = (
        Request(validate_run(blind, "toy"), tmp_path / "data", tmp_path, device="cpu"),
        RunFolder(tmp_path / "blind"),
    )
    start_run(request, folder, Silent())
    assert not [event for event in folder.read_log() if event["event"] == "validation"]
    assert "no score after step 6: the linear probe has no labels" in folder.train_log.read_text(encoding="utf-8")
    stopping = blind | {"train": TREE["train"] | {"early_stop": {"patience": 1}}}
    with pytest.raises(InputError, match="it needs the scores of the linear probe"):
        build_session(Request(validate_run(stopping, "toy"), tmp_path / "data", tmp_path, device="cpu"))


def test_a_finished_run_is_extended(toy_data: Path, tmp_path: Path) -> None:
    request, folder = Request(run_of(), toy_data, tmp_path, device="cpu"), RunFolder(tmp_path / "short")
    start_run(request, folder, Silent())
    longer = request.run.model_copy(update={"train": request.run.train.model_copy(update={"steps": 8})})
    extend_run(Request(longer, toy_data, tmp_path, device="cpu"), folder, Silent())
    assert folder.read_run().train.steps == 8


def test_a_dry_run_keeps_nothing(toy_data: Path, tmp_path: Path) -> None:
    found = dry_run(Request(run_of(), toy_data, tmp_path, device="cpu"), Silent())
    assert found["loss"] > 0
    assert "validation_mIoU_D" in found
    assert list(tmp_path.iterdir()) == []


def test_its_backbone_starts_another_run(finished: Path, toy_data: Path, tmp_path: Path) -> None:
    environment = json.loads((finished / "environment.json").read_text())
    environment["teacher"]["license"] = "dinov3-license"
    (finished / "environment.json").write_text(json.dumps(environment))
    preset = write_preset(tmp_path / "toy.yaml", PRESET | {"model": PRESET["model"] | {"weights": str(finished)}})
    roots = ["--data-root", str(toy_data), "--runs-root", str(tmp_path)]
    assert (
        main(["train", "--preset", str(preset), "--steps", "1", "--run", str(tmp_path / "next"), "--device", "cpu", *roots]) == 0
    )
    recorded = json.loads((tmp_path / "next" / "environment.json").read_text())
    assert recorded["initial_weights"] == str(finished)
    assert recorded["initial_weights_license"] == "learnt from 'timm:test_vit': dinov3-license"
    session = build_session(Request(RunFolder(tmp_path / "next").read_run(), toy_data, tmp_path, device="cpu"))
    weights = read(finished).weights
    state = session.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items() if name.startswith("backbone."))
    assert "the backbone; new, with random weights: the head" in session.model.weights_note


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "RUN"],
        ["predict", "RUN", "PICTURES", "-o", "OUT"],
        ["export", "RUN"],
        ["push", "RUN", "hf:me/net", "--dry-run", "OUT"],
    ],
    ids=lambda command: command[0],
)
def test_where_a_network_is_wanted_it_is_refused_in_a_sentence(
    command: list[str], finished: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(finished), "PICTURES": str(toy_data.parent / "source" / "val"), "OUT": str(tmp_path / "out")}
    data = [] if command[0] == "push" else ["--data-root", str(toy_data)]
    assert main([places.get(part, part) for part in command] + data) == 2
    said = capsys.readouterr().err
    assert "holds a pretrained backbone without a trained head, so it can neither predict nor teach" in said
    assert f"--set model.weights={finished}" in said
    assert not (tmp_path / "out").exists()


def test_it_does_not_teach_by_distill(finished: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from toy import STUDENT

    preset = write_preset(tmp_path / "student.yaml", STUDENT)
    roots = ["--data-root", str(toy_data), "--runs-root", str(tmp_path / "runs")]
    assert main(["distill", "--preset", str(preset), "--teacher", str(finished), *roots]) == 2
    assert "can neither predict nor teach" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_another_backbone_does_not_start_from_it(
    finished: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(
        tmp_path / "toy.yaml", PRESET | {"model": PRESET["model"] | {"weights": str(finished), "backbone": "test_resnet"}}
    )
    other = ["--set", "model.backbone=resnet18d", "--run", str(tmp_path / "next"), "--data-root", str(toy_data)]
    assert main(["train", "--preset", str(preset), *other]) == 2
    assert "(test_resnet) does not fit" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


def test_a_report_says_what_it_is(finished: Path, tmp_path: Path) -> None:
    assert main(["report", str(finished), "-o", str(tmp_path / "r.md")]) == 0
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "pretrained a backbone: its curves are those of the linear probe, and it is not evaluated" in text
    assert "| pretrain |" in text


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model": TREE["model"] | {"frozen": True}}, "model.frozen"),
        ({"model": TREE["model"] | {"head": "pspnet"}}, "model.head"),
        ({"data": TREE["data"] | {"augment": [{"kind": "class_crop"}]}}, "data.augment.0.kind"),
        ({"pretrain": {"teacher": "hf:me/net", "weights": "none"}}, "pretrain.weights"),
        ({"loss": PRESET["loss"]}, "loss"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_meaning_without_labels_is_refused(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(PresetError) as caught:
        validate_run(TREE | changes, "toy")
    assert [fault.path for fault in caught.value.faults] == [path]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "PRESET"], "no teacher is given"),
        (
            ["--preset", "PRESET", "--teacher", "timm:test_vit", "--method", "cosin"],
            "--method 'cosin' is not known, did you mean",
        ),
        (["--preset", "PRESET", "--teacher", "timm:test_vitt"], "timm knows no network 'test_vitt'"),
        (["--preset", "PRESET", "--teacher", "timm:test_vit", "--split", "unlabeled"], "has no split called 'unlabeled'"),
        (
            ["--preset", "PRESET", "--teacher", "timm:test_vit", "--set", "semi.kind=fixmatch"],
            "--set semi.kind changes nothing in a pretraining run",
        ),
        (
            ["--preset", "PRESET", "--teacher", "timm:test_vit", "--set", "data.labelled=0.5"],
            "--set data.labelled changes nothing in a pretraining run",
        ),
        (
            ["--preset", "PRESET", "--teacher", "timm:test_vit", "--set", "pretrain.weights=no.pt"],
            "pretrain.weights: no file at 'no.pt'",
        ),
        (["--teacher", "timm:test_vit"], "--teacher needs --preset"),
        (["--resume", "--run", "RUN"], "is not a run of `segctl pretrain`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_commands_are_refused(
    options: list[str], said: str, toy_data: Path, toy_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"PRESET": str(write_preset(tmp_path / "toy.yaml")), "RUN": str(toy_teacher)}
    roots = ["--data-root", str(toy_data), "--runs-root", str(tmp_path / "runs")]
    assert main(["pretrain", *(places.get(part, part) for part in options), *roots]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_command_takes_a_students_preset(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from toy import STUDENT

    preset = write_preset(tmp_path / "student.yaml", STUDENT)
    line = ["pretrain", "--preset", str(preset), "--teacher", "timm:test_vit", "--set", "pretrain.weights=none"]
    line += ["--set", "optim.lr=0.001", "--set", "pretrain.adapter=mlp", "--method", "mse", "--steps", "2", "--device", "cpu"]
    assert main([*line, "--data-root", str(toy_data), "--runs-root", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert f"next: segctl train --preset {preset} --set model.weights=" in shown.out
    assert "warning: the teacher has random weights" in shown.err
    run = RunFolder(tmp_path / "toy-student-pretrain").read_run()
    assert isinstance(run, PretrainRun)
    assert (run.optim.kind, run.optim.lr, run.schedule.kind) == ("adamw", 0.001, "cosine")
    assert (run.pretrain.method, run.pretrain.adapter) == ("mse", "mlp")


@pytest.mark.slow
def test_two_processes_learn_what_one_does(toy_data: Path, tmp_path: Path) -> None:
    """A student without batch norm: the weights agree, the probe's too."""
    tree = TREE | {
        "model": TREE["model"] | {"backbone": "test_convnext", "output_stride": 32},
        "optim": {"kind": "sgd", "lr": 1e-3},
    }
    preset = write_preset(tmp_path / "toy-pretrain.yaml", tree)
    found = []
    for count in (1, 2):
        run = tmp_path / f"of-{count}"
        line = ["pretrain", "--preset", str(preset), "--run", str(run), "--processes", str(count), "--device", "cpu"]
        assert main([*line, "--data-root", str(toy_data)]) == 0
        scores = [event["scores"]["mIoU_D"] for event in RunFolder(run).read_log() if event["event"] == "validation"]
        found.append((read(run).weights, scores))
    (one, scores), (two, same) = found
    assert len(scores) == len(same) == 2
    for name, tensor in one.items():
        # The probe solves equations of 65 unknowns from 40 places, which makes rounding larger.
        close = 5e-2 if name.startswith(("head.", "classifier.")) else 1e-4
        torch.testing.assert_close(two[name], tensor, atol=close, rtol=close)


def test_a_backbone_of_timm_is_no_teacher_for_distill(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from toy import STUDENT

    preset = write_preset(tmp_path / "student.yaml", STUDENT)
    assert main(["distill", "--preset", str(preset), "--teacher", "timm:test_vit", "--data-root", str(toy_data)]) == 2
    said = capsys.readouterr().err
    assert "'timm:test_vit' is a backbone without a head" in said
    assert "segctl pretrain" in said


def test_a_teacher_can_be_spread_over_processes_but_not_over_one(toy_data: Path, tmp_path: Path) -> None:
    request = Request(run_of(), toy_data, tmp_path, device="cpu", fsdp=True)
    with pytest.raises(InputError, match="--fsdp spreads the teacher over several processes, and this run has one"):
        build_session(request)


def losses_over(rank: int, size: int, data: Path, folder: Path) -> None:
    """The losses of two steps with a whole and with a spread teacher, in a file."""
    found = []
    for fsdp in (False, True):
        request = Request(run_of(), data, folder, device="cpu", fsdp=fsdp, world=World(rank, size, size))
        found.append(steps_of(build_session(request), 2))
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_a_spread_teacher_teaches_the_same(toy_data: Path, tmp_path: Path) -> None:
    run_in_processes(partial(losses_over, data=toy_data, folder=tmp_path), 2, tmp_path)
    for rank in range(2):
        whole, spread = json.loads((tmp_path / f"{rank}.json").read_text())
        assert spread == pytest.approx(whole, abs=1e-6)
