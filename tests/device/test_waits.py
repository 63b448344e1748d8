"""How often the host waits for the GPU in a training step between two reports of the log: a number for everything that trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from segctl.schema.terms.methods import METHODS
from tests.device.there import run_there

STEPS = 2
"""Steps between the reports of a run of 300."""
HARD = [
    {"kind": "lovasz", "logits": "main"},
    {"kind": "lovasz", "logits": "aux", "per_image": True},
    {"kind": "ohem", "logits": "main"},
]
CALIBRATION = {"keys": 20, "bandwidth": 0.1}

Case = tuple[str, dict[str, Any], int]

CASES: dict[str, Case] = {
    **{method: (method, {"ema": 0.9, "clip_norm": 1.0}, 0) for method in METHODS},
    "fp16": ("skd", {"precision": "fp16", "ema": 0.9}, 0),
    "accumulate": ("cirkd", {"accumulate": 2, "precision": "fp32"}, 0),
    "deterministic": ("ifvd", {"deterministic": True, "activation_checkpointing": True}, 0),
    "adamw": ("none", {"optim": {"kind": "adamw", "lr": 1e-3}, "precision": "fp16"}, 0),
    "hard losses": ("none", {"loss": HARD}, 0),
    "soft labels": ("none", {"labels": {"kind": "boundary"}}, 0),
    "penalty": ("skd", {"terms": [{"kind": "adversarial", "loss": "wgan_gp"}]}, 0),
    # The host must know how many pixels are replaced: to compute all of them would cost more than to ask once.
    "calibration": ("jml", {"terms": [{"kind": "soft_kl", "calibration": CALIBRATION}]}, 1),
}
"""By name: the method, settings, and waits in a step."""


def waits_of(
    cases: Mapping[str, tuple[str, dict[str, Any], int]], data: Path, teacher: Path, folder: Path
) -> dict[str, list[Any]]:
    from tests.device.training import run_of, waits_between_reports

    found = {}
    for name, (method, settings, _) in cases.items():
        blocks = {key: value for key, value in settings.items() if key in ("loss", "labels", "optim", "terms")}
        train = {key: value for key, value in settings.items() if key not in blocks}
        endless = {"steps": 300, "validate_every": 300, "checkpoint_every": 300, "precision": "bf16"}
        found[name] = waits_between_reports(run_of(method, train=endless | train, **blocks), data, teacher, folder / name)
    return found


def check(names: tuple[str, ...], guard: Path, data: Path, teacher: Path, folder: Path) -> None:
    cases = {name: CASES[name] for name in names}
    found = run_there(guard, folder, waits_of, cases, data, teacher, folder)
    expected = {name: STEPS * waits for name, (_, _, waits) in cases.items()}
    assert {name: len(waits) for name, waits in found.items()} == expected, found


@pytest.mark.slow
def test_a_step_of_one_method_does_not_wait(guard: Path, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    check(("cirkd",), guard, toy_data, toy_teacher, tmp_path)


@pytest.mark.slow
def test_no_step_waits(guard: Path, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    check(tuple(CASES), guard, toy_data, toy_teacher, tmp_path)
