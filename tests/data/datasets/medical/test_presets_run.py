"""The presets of medical datasets take a step on tiny files in the published layouts."""

from pathlib import Path

import pytest
from archive_files import write_folder

from segctl.cli import main
from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from tests.data.datasets.medical.test_ct import kits, lits
from tests.data.datasets.medical.test_qubiq import kidneys

CASES = {
    "qubiq-kidney-unet50": ("qubiq-kidney", kidneys),
    "lits-dl18": ("lits", lits),
    "kits-dl18": ("kits", kits),
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", CASES)
def test_a_dry_run_takes_a_step(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, draw = CASES[preset]
    source = write_folder(tmp_path / "source", draw())
    prepare_source(open_source(dataset, [source]), tmp_path / "data", workers=0)
    monkeypatch.chdir(tmp_path)
    sliding = ["--set", "evaluate.protocol.tile=[64,64]"] if dataset != "qubiq-kidney" else []
    small = ["--set", "model.weights=none", "--set", "data.crop=[64,64]", "--set", "train.batch_size=2", *sliding]
    assert main(["train", "--preset", preset, *small, "--dry-run"]) == 0
