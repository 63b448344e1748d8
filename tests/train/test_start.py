"""What refuses to start, and what may be resumed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import CLASSES, PRESET, STUDENT, Silent, draw_camvid, toy_run

from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.errors import InputError
from segctl.models import build_model, load, read, save
from segctl.runs import RunFolder
from segctl.runtime.world import World
from segctl.schema.run import with_steps
from segctl.train.build import build_session
from segctl.train.dry_run import dry_run
from segctl.train.extend import extend_run
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run


def refusal(request: Request, folder: RunFolder) -> InputError:
    """Starting must fail before anything is written."""
    with pytest.raises(InputError) as caught:
        start_run(request, folder, Silent())
    assert not folder.path.exists()
    return caught.value


def test_a_run_folder_that_exists_is_never_written_to(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        start_run(Request(toy_run(), toy_data, tmp_path), RunFolder(tmp_path), Silent())
    assert caught.value.message == f"the run folder '{tmp_path}' exists"
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_dataset_is_refused(toy_data: Path, tmp_path: Path) -> None:
    error = refusal(Request(toy_run(train={"batch_size": 11}), toy_data, tmp_path), RunFolder(tmp_path / "run"))
    assert error.message == "train.batch_size: got 11, wanted at most 10, the images of split 'train' of 'camvid'"


def test_a_split_that_is_not_there_is_refused(toy_data: Path, tmp_path: Path) -> None:
    error = refusal(Request(toy_run(data={"val_split": "vall"}), toy_data, tmp_path), RunFolder(tmp_path / "run"))
    assert "has no split called 'vall', did you mean 'val'?" in error.message


def test_a_dataset_that_is_not_prepared_is_refused_with_the_line_that_prepares_it(toy_data: Path, tmp_path: Path) -> None:
    error = refusal(Request(toy_run(data={"dataset": "shapes"}), toy_data, tmp_path), RunFolder(tmp_path / "run"))
    assert "segctl data prepare shapes" in error.hint


def test_a_device_that_is_not_there_is_refused(toy_data: Path, tmp_path: Path) -> None:
    error = refusal(Request(toy_run(), toy_data, tmp_path, device="tpu"), RunFolder(tmp_path / "run"))
    assert error.message == "--device 'tpu' is not a device"


def test_fp16_on_a_cpu_is_refused(toy_data: Path, tmp_path: Path) -> None:
    run = toy_run(train={"precision": "fp16"})
    error = refusal(Request(run, toy_data, tmp_path, device="cpu"), RunFolder(tmp_path / "run"))
    assert error.message == "train.precision: got 'fp16' on a CPU, wanted 'auto', 'fp32' or 'bf16'"


def test_a_missing_teacher_names_the_line_that_makes_one(toy_data: Path, tmp_path: Path) -> None:
    error = refusal(Request(toy_run(STUDENT), toy_data, tmp_path), RunFolder(tmp_path / "run"))
    assert error.message == f"there is no finished run of the teacher preset 'toy' under '{tmp_path}'"
    roots = f"--data-root {toy_data} --runs-root {tmp_path}"
    assert error.hint == f"make one with `segctl train --preset toy {roots}`, or give --teacher RUN_OR_FILE"


def test_a_teacher_that_learnt_nothing_is_refused_and_a_dry_run_shows_its_score(toy_data: Path, tmp_path: Path) -> None:
    run, weights = toy_run(STUDENT), tmp_path / "model.safetensors"
    torch.manual_seed(0)
    names = ["Sky", "Building", "Pole", "Road", "Sidewalk", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"]
    save(weights, build_model(run.model, CLASSES), toy_run(), names)
    request = Request(run, toy_data, tmp_path, teacher=weights)
    error = refusal(request, RunFolder(tmp_path / "run"))
    assert f"the teacher '{weights}' has learnt too little: teacher scores" in error.message
    assert dry_run(request, Silent())["teacher_mIoU_D"] < 20


def test_a_teacher_of_other_classes_is_refused(toy_data: Path, tmp_path: Path) -> None:
    run, weights = toy_run(STUDENT), tmp_path / "model.safetensors"
    save(weights, build_model(run.model, 3), toy_run(), ["a", "b", "c"])
    error = refusal(Request(run, toy_data, tmp_path, teacher=weights), RunFolder(tmp_path / "run"))
    assert f"'{weights}' knows 3 classes (a, b, c), wanted 11 (Sky, " in error.message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_corrupt_teacher_is_refused(content: bytes, toy_data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(content)
    error = refusal(Request(toy_run(STUDENT), toy_data, tmp_path, teacher=weights), RunFolder(tmp_path / "run"))
    assert str(weights) in error.message


def test_a_foreign_checkpoint_is_refused_as_teacher(toy_data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, weights)
    error = refusal(Request(toy_run(STUDENT), toy_data, tmp_path, teacher=weights), RunFolder(tmp_path / "run"))
    assert f"'{weights}' is a PyTorch file, but not a model that segctl wrote" in error.message


def test_an_unfinished_run_is_no_teacher(toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    error = refusal(Request(toy_run(STUDENT), toy_data, tmp_path, teacher=tmp_path / "teacher"), RunFolder(tmp_path / "run"))
    assert error.message == f"--teacher '{tmp_path / 'teacher'}' is not a finished run: it has no model.safetensors"


def test_a_teacher_without_auxiliary_logits_is_refused_before_anything_is_written(
    toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    run = toy_run(PRESET | {"loss": [{"kind": "cross_entropy", "logits": "main"}]}, model={"aux": False})
    whole, network, path = load(toy_teacher), build_model(run.model, CLASSES), tmp_path / "teacher.pt"
    network.load_state_dict({name: whole.state_dict()[name] for name in network.state_dict()})
    save(path, network, run, whole.class_names)
    error = refusal(Request(toy_run(STUDENT), toy_data, tmp_path, teacher=path), RunFolder(tmp_path / "run"))
    assert error.message.startswith("distiller.terms.1 ('soft_kl') compares auxiliary logits, and the teacher")


def test_a_finished_run_has_nothing_to_resume(toy_data: Path, toy_teacher: Path) -> None:
    with pytest.raises(InputError, match="has finished: there is nothing to resume"):
        resume_run(Request(toy_run(), toy_data, toy_data), RunFolder(toy_teacher), Silent())


def test_resuming_under_other_settings_names_them(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    start_run(Request(toy_run(train={"steps": 2}), toy_data, tmp_path), folder, Silent())
    folder.model.unlink()
    with pytest.raises(InputError) as caught:
        resume_run(Request(toy_run(train={"steps": 3, "seed": 1}), toy_data, tmp_path), folder, Silent())
    assert "train.seed: 0 -> 1; train.steps: 2 -> 3" in caught.value.message


@pytest.mark.slow
def test_resuming_under_settings_that_cannot_change_a_number_gives_the_same_weights(toy_data: Path, tmp_path: Path) -> None:
    class Stopping(Silent):
        def stepped(self, report: object, steps: int) -> None:
            raise KeyboardInterrupt

    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    train = {"steps": 4, "checkpoint_every": 1, "validate_every": 4}
    start_run(Request(toy_run(train=train), toy_data, tmp_path), whole, Silent())
    with pytest.raises(KeyboardInterrupt):
        start_run(Request(toy_run(train=train), toy_data, tmp_path), stopped, Stopping())
    other = {"checkpoint_every": 3, "checkpoint_minutes": 1.0, "validate_every": 2, "activation_checkpointing": True}
    run = toy_run(train=train | other, data={"workers": 1})
    resume_run(Request(run, toy_data, tmp_path), stopped, Silent())
    mine, theirs = (read(folder.model).weights for folder in (stopped, whole))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_resuming_from_a_damaged_checkpoint_is_refused(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(train={"steps": 2})
    start_run(Request(run, toy_data, tmp_path), folder, Silent())
    folder.model.unlink()
    folder.last.write_bytes(folder.last.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot read .*last\.pt.* delete that file and resume"):
        resume_run(Request(run, toy_data, tmp_path), folder, Silent())


def test_resume_finishes_a_run_that_only_lacked_its_model_file(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(train={"steps": 2})
    start_run(Request(run, toy_data, tmp_path), folder, Silent())
    before = folder.model.read_bytes()
    folder.model.unlink()
    resume_run(Request(run, toy_data, tmp_path), folder, Silent())
    assert folder.model.read_bytes() == before


def test_a_run_folder_that_cannot_be_made_is_one_sentence(toy_data: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        start_run(Request(toy_run(), toy_data, tmp_path), RunFolder(blocked / "run"), Silent())
    assert caught.value.message == f"cannot make the run folder '{blocked / 'run'}': Not a directory"


class Rivalling(Silent):
    """A watcher that starts another run of the same name while this one is being prepared."""

    def __init__(self, rival: Callable[[], object]) -> None:
        super().__init__()
        self.rival: Callable[[], object] | None = rival

    def note(self, text: str) -> None:
        super().note(text)
        rival, self.rival = self.rival, None
        if rival is not None:
            rival()


def test_a_run_on_a_trial_of_the_data_says_so(tmp_path: Path) -> None:
    prepare_source(open_source("camvid", [draw_camvid(tmp_path / "source")]), tmp_path / "data", workers=0, limit=4)
    session = build_session(Request(toy_run(), tmp_path / "data", tmp_path))
    assert (
        "data camvid   train 4 images, val 4   loader workers 0   a trial: at most 4 samples of each split" in session.decisions()
    )


def test_a_class_that_no_label_shows_is_said_before_step_1(tmp_path: Path) -> None:
    dataset = prepare_source(open_source("camvid", [draw_camvid(tmp_path / "source")]), tmp_path / "data", workers=0)
    session = build_session(Request(toy_run(), tmp_path / "data", tmp_path))
    full = {split: replace(counts, classes=(1,) * 11, ignored=0, blank=0) for split, counts in dataset.label_counts.items()}
    counts = full | {"val": replace(full["val"], classes=(0,) + (1,) * 10)}
    session = replace(session, dataset=replace(session.dataset, label_counts=counts))
    assert "warning: no label of split 'val' shows 'Sky'" in session.decisions()


def test_two_runs_started_at_once_take_two_numbers(toy_data: Path, tmp_path: Path) -> None:
    request = Request(toy_run(train={"steps": 1, "validate_every": 1}), toy_data, tmp_path)

    def start(watch: Silent) -> RunFolder:
        return start_run(request, RunFolder(tmp_path / "toy"), watch, free_name="toy")

    assert start(Rivalling(lambda: start(Silent()))) == RunFolder(tmp_path / "toy-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy", "toy-2"]
    assert RunFolder(tmp_path / "toy").finished
    assert RunFolder(tmp_path / "toy-2").finished


def test_a_folder_that_was_named_is_not_given_another_name(toy_data: Path, tmp_path: Path) -> None:
    request = Request(toy_run(train={"steps": 1, "validate_every": 1}), toy_data, tmp_path)
    folder = RunFolder(tmp_path / "toy")
    with pytest.raises(InputError) as caught:
        start_run(request, folder, Rivalling(lambda: start_run(request, folder, Silent())))
    assert caught.value.message == f"cannot make the run folder '{folder.path}': it exists by now"
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_resuming_finds_the_teacher_that_the_run_was_started_with(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    folder, run = RunFolder(tmp_path / "run"), toy_run(STUDENT, train={"steps": 2})
    start_run(Request(run, toy_data, tmp_path, teacher=toy_teacher), folder, Silent())
    folder.model.unlink()
    resume_run(Request(run, toy_data, tmp_path), folder, Silent())
    assert folder.finished
    assert folder.read_environment()["teacher"]["run"] == str(toy_teacher / "model.safetensors")


def test_the_teacher_on_record_is_the_one_that_taught_not_the_one_the_preset_names(
    toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    folder, run = RunFolder(tmp_path / "run"), toy_run(STUDENT | {"teacher": {"preset": "another"}}, train={"steps": 1})
    start_run(Request(run, toy_data, tmp_path, teacher=toy_teacher), folder, Silent())
    assert folder.read_environment()["teacher"]["preset"] == "toy"


def test_resuming_with_another_teacher_is_refused(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    folder, run = RunFolder(tmp_path / "run"), toy_run(STUDENT, train={"steps": 2})
    start_run(Request(run, toy_data, tmp_path, teacher=toy_teacher), folder, Silent())
    folder.model.unlink()
    other = load(toy_teacher)
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    save(tmp_path / "other.pt", other, toy_run(), other.class_names)
    with pytest.raises(InputError, match="was started with another teacher's sha256"):
        resume_run(Request(run, toy_data, tmp_path, teacher=tmp_path / "other.pt"), folder, Silent())


def extended(toy_data: Path, folder: RunFolder, steps: int) -> tuple[Request, Silent]:
    run, watch = with_steps(folder.read_run(), steps), Silent()
    request = Request(run, toy_data, folder.path.parent)
    extend_run(request, folder, watch)
    return request, watch


def test_a_finished_run_goes_on_to_more_steps_and_keeps_the_shorter_ones_network(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    start_run(Request(toy_run(train={"steps": 4}), toy_data, tmp_path), folder, Silent())
    shorter = folder.model.read_bytes()
    _, watch = extended(toy_data, folder, 6)
    assert (folder.path / "model-4.safetensors").read_bytes() == shorter
    assert folder.finished
    assert folder.read_run().train.steps == 6
    events = folder.read_log()
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [event["event"] for event in events].count("end") == 1
    # poly 0.9 of 0.05: (1 - 3/4)^0.9 was the last rate, (1 - 4/6)^0.9 is the next
    said = "after step 4 the learning rate follows the schedule of 6 steps, 0.0186 instead of 0.0144"
    assert any(note.endswith(said) for note in watch.notes)
    (entry,) = folder.read_environment()["extended"]
    assert (entry["from"], entry["to"], entry["at_step"]) == (4, 6, 4)


def test_an_extended_run_ends_as_one_that_changed_its_plan_at_that_step(toy_data: Path, tmp_path: Path) -> None:
    finished, stopped = RunFolder(tmp_path / "finished"), RunFolder(tmp_path / "stopped")
    for folder in (finished, stopped):
        start_run(Request(toy_run(train={"steps": 4}), toy_data, tmp_path), folder, Silent())
    stopped.model.unlink()  # it had only its last.pt
    for folder in (finished, stopped):
        extended(toy_data, folder, 6)
    assert finished.model.read_bytes() == stopped.model.read_bytes()


@pytest.mark.parametrize("steps", [3, 4])
def test_a_run_is_not_extended_to_fewer_or_as_many_steps(steps: int, toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    start_run(Request(toy_run(train={"steps": 4}), toy_data, tmp_path), folder, Silent())
    with pytest.raises(InputError) as error:
        extended(toy_data, folder, steps)
    assert error.value.message == f"--extend-to {steps}: the run '{folder.path}' has 4 steps already"
    assert folder.finished


def test_extending_changes_nothing_but_the_steps(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    start_run(Request(toy_run(train={"steps": 4}), toy_data, tmp_path), folder, Silent())
    run = toy_run(train={"steps": 6, "seed": 1})
    with pytest.raises(InputError, match=r"train\.seed: 0 -> 1"):
        extend_run(Request(run, toy_data, tmp_path), folder, Silent())
    assert folder.finished
    assert folder.read_run().train.steps == 4


def test_a_stopped_run_takes_what_the_message_about_nan_advises_and_records_it(toy_data: Path, tmp_path: Path) -> None:
    class Stopping(Silent):
        def stepped(self, report: object, steps: int) -> None:
            raise KeyboardInterrupt

    train = {"steps": 4, "checkpoint_every": 1, "validate_every": 4}
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(Request(toy_run(train=train), toy_data, tmp_path), folder, Stopping())
    calmer = toy_run(train=train | {"clip_norm": 1.0}, optim={"lr": 0.01})
    session = build_session(Request(calmer, toy_data, tmp_path))
    resume_run(Request(calmer, toy_data, tmp_path), folder, Silent())
    (change,) = folder.read_environment()["changed"]
    assert change["from"] == {"optim.lr": 0.05, "train.clip_norm": None}
    assert change["to"] == {"optim.lr": 0.01, "train.clip_norm": 1.0}
    assert folder.read_run().optim.lr == 0.01
    groups = torch.load(folder.last, weights_only=True)["optimizer"]["param_groups"]
    assert [group["peak_lr"] for group in groups] == [group["peak_lr"] for group in session.state.optimizer.param_groups]


def test_a_run_starts_from_another_run_and_says_what_it_took(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    watch = Silent()
    run = toy_run(model={"weights": str(toy_teacher)}, train={"steps": 1, "validate_every": 1})
    start_run(Request(run, toy_data, tmp_path), RunFolder(tmp_path / "run"), watch)
    said = "the backbone, the head, the auxiliary head, 11 of 11 classes"
    assert any(note == f"weights from '{toy_teacher / 'model.safetensors'}': {said}" for note in watch.notes)


@pytest.mark.parametrize(
    ("world", "device", "given"),
    [
        (World(), torch.device("cuda", 1), "--device cuda:1"),
        (World(1, 2, 2), torch.device("cuda", 1), "--device cuda --processes 2"),  # a number would put both on one GPU
        (World(1, 4, 2), torch.device("cuda", 1), "--device cuda"),
        (World(1, 2, 2), torch.device("cpu"), "--device cpu --processes 2"),
    ],
)
def test_the_command_to_resume_gives_every_process_its_own_gpu(
    world: World, device: torch.device, given: str, toy_data: Path, tmp_path: Path
) -> None:
    session = build_session(Request(toy_run(), toy_data, tmp_path, device="cpu"))
    session.world, session.compute = world, replace(session.compute, device=device)
    line = session.resume_line(tmp_path / "run")
    assert given in line
    assert ("--processes" in line) == ("--processes" in given)
