"""The loop: it learns, it logs what it summed, and it leaves a run that is whole."""

from pathlib import Path

import pytest
import torch
from toy import PRESET, STUDENT, Silent, toy_run

from segctl.data.batches.loader import Batch, training_batches
from segctl.errors import SegctlError
from segctl.files import file_sha256
from segctl.models import load, read
from segctl.runs import RunFolder
from segctl.schema.run import DistillRun
from segctl.train.build import build_session
from segctl.train.loop import fit, take_step
from segctl.train.run_log import RunLog
from segctl.train.session import Request, Session
from segctl.train.start import start_run


@pytest.fixture(scope="module")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "toy")
    run = toy_run(train={"steps": 24, "validate_every": 12, "checkpoint_every": 6, "ema": 0.9})
    start_run(Request(run, toy_data, folder.path.parent, command="segctl train"), folder, Silent())
    return folder


def test_the_loss_goes_down(trained: RunFolder) -> None:
    losses = [event["loss"] for event in trained.read_log() if event["event"] == "step"]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_the_logged_loss_is_the_sum_of_its_terms(trained: RunFolder) -> None:
    for event in trained.read_log():
        if event["event"] == "step":
            assert list(event["terms"]) == ["cross_entropy_main", "cross_entropy_aux", "jdt_main"]
            assert event["loss"] == pytest.approx(sum(event["terms"].values()))


def test_every_file_of_a_run_is_there(trained: RunFolder) -> None:
    names = {path.name for path in trained.path.iterdir()}
    assert names == {"run.yaml", "environment.json", "log.jsonl", "train.log", "last.pt", "best.pt", "model.safetensors"}


def test_every_checkpoint_loads_with_weights_only(trained: RunFolder) -> None:
    for path in (trained.last, trained.best, trained.model):
        torch.load(path, weights_only=True)


def test_validations_come_when_asked_and_at_the_end(trained: RunFolder) -> None:
    assert [event["step"] for event in trained.read_log() if event["event"] == "validation"] == [12, 24]


def test_the_chosen_precision_is_in_run_yaml(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    start_run(Request(toy_run(train={"precision": "auto", "steps": 1}), toy_data, tmp_path, device="cpu"), folder, Silent())
    assert folder.read_run().train.precision in ("fp32", "bf16")


def test_the_shipped_network_is_the_moving_average(trained: RunFolder) -> None:
    shipped = load(trained.path)
    last = torch.load(trained.last, weights_only=True)
    average = {name.removeprefix("module."): value for name, value in last["average"].items() if name.startswith("module.")}
    for name, value in shipped.state_dict().items():
        assert torch.equal(value, average[name])
    name, weight = next(iter(shipped.named_parameters()))
    assert not torch.equal(weight, last["task"][f"model.{name}"])


def test_environment_has_the_hash_of_the_first_weights(trained: RunFolder, toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(model={"weights": str(trained.path)}, train={"steps": 1})
    start_run(Request(run, toy_data, tmp_path, device="cpu"), folder, Silent())
    assert folder.read_environment()["initial_weights_sha256"] == file_sha256(trained.model)


def test_environment_says_where_the_run_came_from(trained: RunFolder) -> None:
    environment = trained.read_environment()
    assert environment["command"] == "segctl train"
    assert environment["method"] == "none"
    assert (environment["initial_weights"], environment["initial_weights_sha256"]) == ("none", None)
    assert environment["tf32"] == {"convolutions": False, "products": False}
    assert environment["dataset"]["name"] == "camvid"
    assert environment["finished"] is not None
    assert environment["seconds_per_step"] > 0


def test_the_best_validation_is_shipped_when_asked(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(train={"steps": 6, "validate_every": 2, "select": "best"})
    start_run(Request(run, toy_data, tmp_path), folder, Silent())
    shipped, best = read(folder.model), read(folder.best)
    assert (shipped.run, shipped.class_names) == (best.run, best.class_names)
    assert all(torch.equal(shipped.weights[name], tensor) for name, tensor in best.weights.items())


def test_every_method_starts_from_the_same_student(toy_data: Path, toy_teacher: Path) -> None:
    student = toy_run(STUDENT)
    assert isinstance(student, DistillRun)
    distilled = build_session(Request(student, toy_data, toy_data, teacher=toy_teacher))
    alone = build_session(Request(student.without_teacher(), toy_data, toy_data))
    for one, other in zip(distilled.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_distillation_step_names_every_term_and_leaves_the_teacher_alone(toy_data: Path, toy_teacher: Path) -> None:
    session = build_session(Request(toy_run(STUDENT), toy_data, toy_data, teacher=toy_teacher))
    assert session.teacher is not None
    before = {name: value.clone() for name, value in session.teacher.model.state_dict().items()}
    batch = next(iter(training_batches(
        session.dataset, "train", view=session.run.data, batch_size=4, seed=0, first_step=0, last_step=1, workers=0
    )))  # fmt: skip
    terms = take_step(session, batch).terms
    assert set(terms) == {"cross_entropy_main", "cross_entropy_aux", "jdt_main", "kd_main", "soft_kl_aux", "soft_jdt_main"}
    assert all(torch.isfinite(value) for value in terms.values())
    assert not session.teacher.model.training
    for name, value in session.teacher.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_accumulated_micro_batches_give_the_gradients_of_the_whole_batch(toy_data: Path) -> None:
    only_pixels = [{"kind": "cross_entropy", "logits": "main"}, {"kind": "cross_entropy", "logits": "aux", "weight": 0.4}]
    run = {"loss": only_pixels}
    whole = gradients(toy_data, run, 1)
    parts = gradients(toy_data, run, 4)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def gradients(toy_data: Path, blocks: dict[str, object], accumulate: int) -> dict[str, torch.Tensor]:
    """Gradients of one batch of 8, batch norm and dropout in eval so that parts do not see each other."""
    session = build_session(
        Request(toy_run(PRESET | blocks, train={"batch_size": 8, "accumulate": accumulate}), toy_data, toy_data)
    )
    batch = next(iter(training_batches(
        session.dataset, "train", view=session.run.data, batch_size=8, seed=0, first_step=0, last_step=1, workers=0
    )))  # fmt: skip
    session.task.eval()
    session.task.train = lambda mode=True: session.task  # type: ignore[method-assign]
    take_step(session, batch)
    return {name: parameter.grad for name, parameter in session.model.named_parameters() if parameter.grad is not None}


def test_a_step_in_bf16_is_finite_and_keeps_float32_weights(toy_data: Path) -> None:
    session = build_session(Request(toy_run(train={"precision": "bf16"}), toy_data, toy_data, device="cpu"))
    batch = next(iter(training_batches(
        session.dataset, "train", view=session.run.data, batch_size=2, seed=0, first_step=0, last_step=1, workers=0
    )))  # fmt: skip
    terms = take_step(session, batch).terms
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in terms.values())
    assert {parameter.dtype for parameter in session.model.parameters()} == {torch.float32}


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(optim={"lr": 1e6}, train={"steps": 8})
    with pytest.raises(SegctlError, match="is NaN or infinite"):
        start_run(Request(run, toy_data, tmp_path), folder, Silent())
    assert not folder.model.exists()
    if folder.last.exists():
        saved = torch.load(folder.last, weights_only=True)["task"]
        assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())


def test_presets_of_the_toy_are_what_the_tests_think() -> None:
    assert toy_run(PRESET).train.steps == 4


def test_the_gradient_norm_is_that_of_all_gradients_together(toy_data: Path) -> None:
    session = build_session(Request(toy_run(), toy_data, toy_data))
    norm = take_step(session, first_batch(session)).gradient_norm
    gradients = [weight.grad.flatten() for weight in session.model.parameters() if weight.grad is not None]
    assert float(norm) == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)


def test_longer_gradients_are_shortened_to_the_limit(toy_data: Path) -> None:
    session = build_session(Request(toy_run(train={"clip_norm": 0.01}), toy_data, toy_data))
    norm = take_step(session, first_batch(session)).gradient_norm
    gradients = [weight.grad.flatten() for weight in session.model.parameters() if weight.grad is not None]
    assert float(norm) > 0.01
    assert float(torch.cat(gradients).norm()) == pytest.approx(0.01, rel=1e-4)


def first_batch(session: Session) -> Batch:
    batches = training_batches(
        session.dataset, "train", view=session.run.data, batch_size=4, seed=0, first_step=0, last_step=1, workers=0
    )
    return next(iter(batches))


def test_a_checkpoint_is_written_by_time_too(toy_data: Path, tmp_path: Path) -> None:
    steps_saved = []
    folder = RunFolder(tmp_path / "run")
    run = toy_run(train={"steps": 4, "checkpoint_every": 100, "validate_every": 100, "checkpoint_minutes": 1e-9})
    session = build_session(Request(run, toy_data, tmp_path))
    folder.path.mkdir()
    log = RunLog(folder, 4, Silent())
    fit(session, folder, log, saved=lambda: steps_saved.append(session.state.step))
    assert steps_saved == [1, 2, 3, 4]
