"""The benchmarks run, and what they compare computes the same."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from segctl.losses import JDTLoss, KLLoss

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = ["--crop", "64", "96", "--batch", "2", "--backbone", "test_resnet"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> str:
    line = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["distillers", "engine", "losses", "step"])
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    assert callable(load(name).main)


def test_the_plain_losses_of_the_step_are_segctls() -> None:
    step = load("step")
    torch.manual_seed(0)
    logits, teacher = (torch.randn(2, step.CLASSES, 12, 10) * 3 for _ in range(2))
    label = torch.randint(0, 7, (2, 12, 10))  # some classes are not there
    label[:, :3] = 255
    soft, valid = teacher.softmax(1), label != 255
    jaccard = JDTLoss(ignore_index=255, smooth=1.0)
    torch.testing.assert_close(step.hard_jaccard(logits, label), jaccard(logits, label))
    torch.testing.assert_close(step.soft_jaccard(logits, teacher, label), jaccard(logits, soft, valid))
    torch.testing.assert_close(step.soft_divergence(logits, teacher, label), KLLoss()(logits, soft, valid))


@pytest.mark.slow
def test_the_overhead_counts_every_part_around_the_passes() -> None:
    shown = run("engine", "overhead", "--pairs", "2", *TINY)
    assert re.search(r"wall +ours +[\d.]+ s +bare +[\d.]+ s +overhead [+-]", shown)
    assert re.search(r"around the passes.*copy [\d.]+ ms +data [\d.]+ ms +other [\d.]+ ms +peers [\d.]+ ms", shown)


@pytest.mark.slow
def test_a_start_is_taken_apart() -> None:
    shown = run("engine", "resume", "--starts", "1", *TINY)
    parts = dict(re.findall(r"^ {2,4}(\S.*?) {2,}(-?[\d.]+) \(", shown, flags=re.MULTILINE))
    whole, *inner = (float(value) for value in list(parts.values())[:4])
    assert whole == pytest.approx(sum(inner), abs=0.03)


@pytest.mark.slow
def test_both_rivals_take_the_same_step() -> None:
    shown = run(
        "step", "--device", "cpu", "--crop", "64", "128", "--batch", "2", "--rounds", "1", "--set", "train.precision=fp32"
    )
    losses = [float(value) for value in re.findall(r"first loss ([\d.]+)", shown)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
