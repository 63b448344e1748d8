"""The tests of the pretend device on a real GPU: every one of them has its twin here.

`python -m pytest -n 0 -m gpu tests/device/test_real.py`; benchmarks/gpu_hour.py does it too.
"""

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import write_preset

from segctl.schema.terms.methods import METHODS
from tests.device.test_pretend import gradients
from tests.device.test_scoring import PROTOCOLS, both, loops, predicted
from tests.device.test_streams import unlike
from tests.device.test_training import both as both_runs
from tests.device.test_training import cases
from tests.device.test_waits import CASES
from tests.device.training import events_of, run_of, waits_between_reports

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA GPU"),
]

FIRST_STEP = {"fp32": 2e-3, "bf16": 0.1, "fp16": 0.1}
"""Relative difference of a term of the first step to the CPU's. Later steps start from weights that differ in rounding."""


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """Inside, torch raises an error where the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_gradients_are_near_the_cpu_s() -> None:
    here, there = gradients()
    for mine, other in zip(here, there, strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-3, atol=1e-4)


def test_devices_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda") + torch.ones(3)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_takes_the_cpu_s_first_step_and_finishes(method: str, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    for index, case in enumerate(case for case in cases() if case.method == method):
        here, there = both_runs(case, toy_data, toy_teacher, tmp_path / str(index))
        assert [event.get("step") for event in here] == [event.get("step") for event in there], case
        for mine, other in zip(here, there, strict=True):
            for term, value in mine.get("terms", {}).items():
                if case.precision != "fp16":
                    assert math.isfinite(other["terms"][term]), (case, term)
                if mine["step"] == 1:
                    tolerance = FIRST_STEP[case.precision]
                    assert other["terms"][term] == pytest.approx(value, rel=tolerance, abs=tolerance), (case, term)


def test_the_first_try_compares_the_two_streams() -> None:
    right, other, broken = unlike()
    assert right == ""
    assert other == "its numbers on a second stream differ by 1 of 1"
    assert broken == "it does not run on a second stream (CUDA out of memory)"


def test_a_teacher_beside_the_student_teaches_the_same_first_step(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    found = []
    for overlap in (False, True):
        train = {"steps": 2, "validate_every": 2, "checkpoint_every": 2, "precision": "fp32"}
        run = run_of("cirkd", train=train, teacher={"preset": "toy", "overlap": overlap})
        found.append(events_of(run, set(), toy_data, toy_teacher, tmp_path / str(overlap), "cuda")[0]["terms"])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("form", [True, "reduce-overhead"])
def test_compiled_networks_take_the_same_first_step(form: object, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    found = []
    for compiled in (False, form):
        train = {
            "steps": 4,
            "validate_every": 4,
            "checkpoint_every": 4,
            "precision": "fp32",
            "accumulate": 2,
            "compile": compiled,
        }
        events = events_of(run_of("kd", train=train), set(), toy_data, toy_teacher, tmp_path / str(compiled), "cuda")
        assert all(math.isfinite(value) for event in events for value in event.get("terms", {}).values())
        found.append(events[0]["terms"])
    assert found[1] == pytest.approx(found[0], rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("name", [name for name, (_, _, waits) in CASES.items() if waits == 0])
def test_a_step_does_not_wait(name: str, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    method, settings, _ = CASES[name]
    blocks = {key: value for key, value in settings.items() if key in ("loss", "labels", "optim", "terms")}
    train = {key: value for key, value in settings.items() if key not in blocks}
    endless = {"steps": 300, "validate_every": 300, "checkpoint_every": 300, "precision": "bf16"}
    run = run_of(method, train=endless | train, **blocks)
    waits_between_reports(run, toy_data, toy_teacher, tmp_path / "run", waits_are_errors())


def test_protocols_count_as_on_the_cpu(toy_data: Path) -> None:
    for name, ((here, _), (there, _)) in both(toy_data, tuple(PROTOCOLS)).items():
        # A pixel whose two best classes are nearly equal may fall either way.
        assert np.abs(here[0] - there[0]).sum() <= 0.002 * here[0].sum(), name


def test_masks_of_pictures_are_nearly_the_cpu_s(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    here, there = predicted(toy_data, toy_teacher, tmp_path)
    masks = [np.array(Image.open(io.BytesIO(content))) for content in (here, there)]
    assert (masks[0] != masks[1]).mean() <= 0.002


def test_a_loss_in_somebody_s_own_loop_is_near_the_cpu_s() -> None:
    here, there = loops()
    assert there == pytest.approx(here, rel=1e-3)
    assert here[-1] < here[0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="wants two GPUs")
def test_two_gpus_train_through_nccl(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml")
    command = ["train", "--preset", str(preset), "--data-root", str(toy_data), "--run", str(tmp_path / "run"), "--processes", "2"]
    done = subprocess.run([sys.executable, "-m", "segctl", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
