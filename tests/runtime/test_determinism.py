"""`train.deterministic`: every method trains under it, twice to the same bits; what cannot is said in one sentence.

A CPU adds in one order anyway, so what is tried here is that nothing is refused, that the setting reaches torch, and that it
does not outlive its run.  What torch refuses on CUDA alone, by its own list, and what segctl's parts use instead:

    AdaptiveAvgPool2d backward    PSPNet's and DeepLab's pooling    models/deterministic_resize.py and its test
    bilinear backward             logits and maps, everywhere       the same
    NLLLoss2d                     nowhere: losses/pixels.py gathers log-probabilities; gather is deterministic under the mode
    bincount with weights, histc  nowhere: bincount of ids alone, whose sums are integers
    kthvalue (before torch 2.10)  nowhere: losses/ohem.py takes topk
    cumsum of floats              nowhere: losses/lovasz.py adds integers
    scatter_add, index_add,       losses/sums/plain.py, losses/sums/fast.py, distillers/ifvd.py, distillers/memory.py,
      index_put                   metrics/: deterministic under the mode, by sorting
    max_pool2d backward           distillers/skd.py and timm's stems: deterministic always
    matrix products               CUBLAS_WORKSPACE_CONFIG, set before CUDA starts
"""

import os
from pathlib import Path

import pytest
import torch
from toy import STUDENT, Silent, toy_run

from segctl.errors import InputError, SegctlError
from segctl.models import read
from segctl.runs import RunFolder
from segctl.runtime.determinism import (
    WORKSPACE,
    any_image_size,
    determinism_in_words,
    missing_determinism_in_words,
    set_determinism,
)
from segctl.schema.load import with_method
from segctl.schema.run import DistillRun
from segctl.schema.terms.methods import METHODS, Method
from segctl.train.build import build_session
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_before() -> "object":
    """torch's own settings, which are a process's."""
    before = os.environ.pop(WORKSPACE, None)
    yield
    set_determinism(False)
    torch.backends.cudnn.benchmark = False
    os.environ.pop(WORKSPACE, None)
    if before is not None:
        os.environ[WORKSPACE] = before


FAST: tuple[Method, ...] = ("cirkd",)
"""The one with the most state between steps; the others are slow together."""


@pytest.mark.slow
@pytest.mark.parametrize("method", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name not in FAST)])
def test_every_method_trains_deterministically_and_twice_the_same(
    method: Method, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    student = toy_run(STUDENT, train={"steps": 2, "validate_every": 2, "deterministic": True})
    assert isinstance(student, DistillRun)
    run = with_method(student, method)
    teacher = toy_teacher if isinstance(run, DistillRun) else None
    for name in ("once", "again"):
        start_run(Request(run, toy_data, tmp_path / name, teacher, device="cpu"), RunFolder(tmp_path / name / "run"), Silent())
        assert torch.are_deterministic_algorithms_enabled()
    once, again = (read(tmp_path / name / "run").weights for name in ("once", "again"))
    for key, value in once.items():
        assert torch.equal(value, again[key]), key


def test_a_session_sets_torch_as_its_run_says_and_the_next_one_as_it_does(toy_data: Path, tmp_path: Path) -> None:
    wanted = build_session(Request(toy_run(train={"deterministic": True}), toy_data, tmp_path, device="cpu"))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ[WORKSPACE] == ":4096:8"
    assert (
        "deterministic algorithms only (train.deterministic): the same bits every time on the same machine" in wanted.decisions()
    )
    build_session(Request(toy_run(), toy_data, tmp_path, device="cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_a_workspace_that_serves_is_left_as_it_is_and_another_is_replaced() -> None:
    for before, after in ((":16:8", ":16:8"), (":4096:2:16:8", ":4096:8")):
        os.environ[WORKSPACE] = before
        set_determinism(True)
        assert os.environ[WORKSPACE] == after


def test_images_of_many_sizes_are_scored_without_trying_kernels() -> None:
    set_determinism(False)
    with any_image_size():
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


def test_a_gpu_says_that_last_digits_may_differ_and_a_cpu_has_nothing_to_say() -> None:
    assert determinism_in_words(False, CPU) == []
    assert determinism_in_words(False, CUDA) == [
        "cuDNN picks the fastest kernels; the last digits may differ between runs (--deterministic prevents this)"
    ]


def test_an_operation_that_has_no_deterministic_form_is_named_in_one_sentence() -> None:
    set_determinism(True)
    with pytest.raises(SegctlError) as caught, missing_determinism_in_words(CPU):
        torch.nn.functional.max_unpool2d(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64), 2)
    assert caught.value.message.startswith("train.deterministic: torch has no deterministic form of 'max_unpooling2d")
    assert caught.value.message.endswith("on cpu")
    assert caught.value.hint == "choose a backbone that does not use it, or leave out --deterministic"


def test_another_error_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape"), missing_determinism_in_words(CPU):
        torch.zeros(2) @ torch.zeros(3, 4, 5).view(7)


def test_a_run_is_deterministic_from_its_first_step_or_not_at_all(toy_data: Path, tmp_path: Path) -> None:
    class Stopping(Silent):
        def stepped(self, report: object, steps: int) -> None:
            raise KeyboardInterrupt

    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(Request(toy_run(), toy_data, tmp_path, device="cpu"), folder, Stopping())
    with pytest.raises(InputError) as caught:
        resume_run(Request(toy_run(train={"deterministic": True}), toy_data, tmp_path, device="cpu"), folder, Silent())
    assert "train.deterministic: False -> True" in caught.value.message
