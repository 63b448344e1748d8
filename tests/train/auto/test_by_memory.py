"""Micro-batches that fit into memory, with a memory of known size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import PRESET, STUDENT, Silent, toy_run, write_preset

from segctl.errors import PresetError, SegctlError
from segctl.models import read
from segctl.runs import RunFolder
from segctl.schema.load import load_preset
from segctl.train import loop
from segctl.train.auto import by_memory
from segctl.train.auto.by_memory import needed_mb, smaller_batch_in_words, with_fitting_batch
from segctl.train.build import build_session
from segctl.train.loop import take_step
from segctl.train.resume import resume_run
from segctl.train.session import Request, Session
from segctl.train.start import start_run

AUTO = {"batch_size": 8, "accumulate": "auto"}


def request(data: Path, runs: Path, tree: dict[str, Any] = PRESET, **train: Any) -> Request:
    return Request(toy_run(tree, train=AUTO | train), data, runs, device="cpu")


def with_memory(monkeypatch: pytest.MonkeyPatch, mb: float) -> None:
    monkeypatch.setattr(by_memory, "free_memory_mb", lambda device: mb / by_memory.MAY_BE_USED)


def reckoned(data: Path, runs: Path) -> tuple[float, float]:
    return needed_mb(build_session(Request(toy_run(train={"batch_size": 8}), data, runs, device="cpu")))


@pytest.mark.slow
@pytest.mark.parametrize(("images", "accumulate"), [(8, 1), (7.9, 2), (4, 2), (3.9, 4), (2, 4)])
def test_a_cpu_takes_as_many_images_as_its_memory_holds(
    images: float, accumulate: int, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed, each = reckoned(toy_data, tmp_path)
    with_memory(monkeypatch, fixed + each * (images + 0.01))
    found = with_fitting_batch(request(toy_data, tmp_path), take_step)
    assert (found.run.train.batch_size, found.run.train.accumulate) == (8, accumulate)
    (reason,) = found.reasons
    assert reason.startswith(f"micro-batches of {8 // accumulate} images (train.accumulate {accumulate} of a batch of 8): ")
    assert reason.endswith("the whole batch fits into memory" if accumulate == 1 else "GB may be used")


def test_nothing_fits_is_one_sentence(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 0.1)
    with pytest.raises(SegctlError, match="out of memory with 1 image at a time: a step with 1 image at a time takes about"):
        start_run(request(toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


def test_what_is_kept_grows_with_the_crop_and_not_with_the_batch(toy_data: Path, tmp_path: Path) -> None:
    def of(**blocks: Any) -> tuple[float, float]:
        return needed_mb(build_session(Request(toy_run(**blocks), toy_data, tmp_path, device="cpu")))

    small, wide, many = of(), of(data={"crop": [32, 96]}), of(train={"batch_size": 8})
    assert small == many
    assert small[0] == wide[0]
    assert 1.8 < wide[1] / small[1] < 2.2


class Memory:
    """A device that holds at most so many images at once, and says so as torch does."""

    def __init__(self, images: int) -> None:
        self.images, self.tried = images, []

    def take_step(self, session: Session, batch: Any) -> None:
        micro = -(-len(batch.images) // session.run.train.accumulate)
        self.tried.append(micro)
        if micro > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def largest(session: Session, choices: list[int], processes: int, take_step: Any) -> tuple[int | None, str]:
        return by_memory._largest_tried(session, choices, processes, take_step)

    monkeypatch.setattr(by_memory, "_largest", largest)


@pytest.mark.slow
@pytest.mark.parametrize(("images", "accumulate", "tried"), [(8, 1, [8, 8]), (5, 2, [8, 4, 4]), (2, 4, [8, 4, 2, 2])])
def test_a_gpu_is_tried_with_fewer_images_until_two_steps_fit(
    images: int, accumulate: int, tried: list[int], as_on_a_gpu: None, toy_data: Path, tmp_path: Path
) -> None:
    memory = Memory(images)
    found = with_fitting_batch(request(toy_data, tmp_path), memory.take_step)
    assert (found.run.train.accumulate, memory.tried) == (accumulate, tried)
    if accumulate > 1:
        assert found.reasons[0].endswith(f"{16 // accumulate} images at a time do not fit into the memory of cpu")
    with pytest.raises(SegctlError, match="out of memory with 1 image at a time: the memory of cpu is too small"):
        with_fitting_batch(request(toy_data, tmp_path), Memory(0).take_step)


@pytest.mark.slow
def test_terms_that_compare_images_get_two_at_least(as_on_a_gpu: None, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    tree = STUDENT | {"distiller": {"terms": [{"kind": "dist"}]}}
    asked = Request(toy_run(tree, train=AUTO), toy_data, tmp_path, teacher=toy_teacher, device="cpu")
    assert with_fitting_batch(asked, Memory(2).take_step).run.train.accumulate == 4
    with pytest.raises(SegctlError, match="out of memory with 2 images at a time: "):
        with_fitting_batch(asked, Memory(1).take_step)


@pytest.mark.slow
def test_a_run_of_auto_is_the_run_of_its_number(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, each = reckoned(toy_data, tmp_path)
    with_memory(monkeypatch, fixed + 4.5 * each)
    watch = Silent()
    auto = start_run(request(toy_data, tmp_path), RunFolder(tmp_path / "auto"), watch)
    assert auto.read_run().train.accumulate == 2
    said = "micro-batches of 4 images (train.accumulate 2 of a batch of 8): a step with 8 images at a time takes about "
    assert any(note.startswith(said) for note in watch.notes)
    plain = start_run(request(toy_data, tmp_path, accumulate=2), RunFolder(tmp_path / "plain"), Silent())
    one, other = (read(folder.path).weights for folder in (auto, plain))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    # Resumed with the preset, it keeps its number, however much memory there is now.
    auto.model.unlink()
    with_memory(monkeypatch, 1e9)
    resume_run(request(toy_data, tmp_path), auto, Silent())
    assert auto.read_run().train.accumulate == 2


def test_a_step_that_does_not_fit_says_what_does(
    as_on_a_gpu: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(3)
    monkeypatch.setattr(loop, "take_step", memory.take_step)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("Gpu", (), {"total_memory": 8e9}))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 8e9))
    with pytest.raises(SegctlError) as error:
        start_run(request(toy_data, tmp_path, accumulate=1), RunFolder(tmp_path / "run"), Silent())
    assert error.value.message.startswith("out of memory on cpu: peak use was ")
    assert error.value.hint == "2 images at a time fit: start a new run with --set train.accumulate=4, which keeps the batch of 8"
    assert memory.tried == [8, 4, 2, 2]


def test_without_anything_smaller_the_advice_is_what_else_saves_memory(as_on_a_gpu: None, toy_data: Path, tmp_path: Path) -> None:
    session = build_session(request(toy_data, tmp_path, accumulate=4))
    assert smaller_batch_in_words(session, Memory(0).take_step).startswith("add --set train.activation_checkpointing=true")


def test_auto_in_place_of_the_batch_keeps_the_batch(tmp_path: Path) -> None:
    preset = str(write_preset(tmp_path / "toy.yaml"))
    train = load_preset(preset, ["train.batch_size=auto"]).train
    assert (train.batch_size, train.accumulate) == (4, "auto")
    path = tmp_path / "other.yaml"
    path.write_text((tmp_path / "toy.yaml").read_text().replace("batch_size: 4", "batch_size: auto"))
    with pytest.raises(
        PresetError, match=r"train\.batch_size: got 'auto', wanted the batch that the recipe is made for; train\.acc"
    ):
        load_preset(str(path))
    with pytest.raises(PresetError, match=r"train\.accumulate: got 'some', wanted a whole number"):
        load_preset(preset, ["train.accumulate=some"])
