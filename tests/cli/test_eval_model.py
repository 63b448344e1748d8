"""`eval RUN --model FILE`: the whole evaluation of an exported file, and its place beside the run."""

import json
import shutil
from pathlib import Path

import pytest

from segctl.cli import main
from segctl.metrics.scores import SCORE_NAMES


@pytest.fixture
def here(toy_export: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_export, tmp_path / "run")
    return tmp_path


ONNX = ["eval", "run", "--model", "run/export/model.onnx"]


def scores(folder: str) -> dict:
    return json.loads(Path("run/eval", folder, "scores.json").read_text())


def test_an_exported_file_scores_as_its_run_and_stands_beside_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run"]) == 0
    assert main([*ONNX, "--boundary", "--save-predictions"]) == 0
    mine, run = scores("val@model.onnx"), scores("val")
    for name in SCORE_NAMES:
        assert mine[name] == pytest.approx(run[name], abs=0.05)
    assert mine["about"]["program"] == mine["about"]["weights"] == "model.onnx"
    assert mine["about"]["weights_sha256"] != run["about"]["weights_sha256"]
    assert len(list(Path("run/eval/val@model.onnx/predictions").rglob("*.png"))) == 5
    capsys.readouterr()
    assert main(["report", "run"]) == 0
    said = capsys.readouterr().out
    assert said.count("camvid / val, in percent") == 1
    assert "toy · none (run as model.onnx)" in said
    assert "toy · none (run)" in said


@pytest.mark.slow
def test_logits_are_averaged_over_tiles_and_views_as_those_of_the_run(here: Path) -> None:
    assert main(["export", "run", "--format", "torchscript", "--output", "logits"]) == 0
    views = ["--protocol", "sliding", "--tile", "32x32", "--flip", "--calibration"]
    assert main(["eval", "run", *views]) == 0
    assert main(["eval", "run", "--model", "run/export/model-logits.torchscript.pt", "--trust-program", *views]) == 0
    (run,) = (path.name for path in Path("run/eval").iterdir() if "torchscript" not in path.name)
    (file,) = (path.name for path in Path("run/eval").iterdir() if "torchscript" in path.name)
    assert file == run.replace("@", "@model-logits.torchscript.pt+")
    for name in ("mIoU_D", "mIoU_I", "ECE_D"):
        assert scores(file)[name] == pytest.approx(scores(run)[name], abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*ONNX, "--flip"], "returns only labels, but the protocol averages tiles or views"),
        ([*ONNX, "--calibration"], "returns only labels, but --calibration wants probabilities"),
        ([*ONNX, "--precision", "bf16"], "--precision cannot be combined with --model"),
        ([*ONNX, "--device", "mps"], "--device 'mps': this onnxruntime runs on"),
        (["eval", "run", "--model", "run/nothing.onnx"], "no exported file at 'run/nothing.onnx'"),
        (["eval", "run", "--model", "run/run.yaml"], "'run/run.yaml' is not an exported file"),
        (["eval", "--model", "run/export/model.onnx"], "there is nothing to score"),
        (["eval", "--pred", "a", "--gt", "b", "--model", "c"], "--model cannot be combined with scoring --pred"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (here / "run" / "eval").exists()


def test_a_file_of_other_weights_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from segctl.models.saving import read, write_saved

    saved = read(Path("run"))
    saved.weights["classifier.bias"] += 1
    write_saved(Path("run/model.safetensors"), saved.run, saved.class_names, saved.weights, saved.pixels)
    assert main(ONNX) == 2
    assert "was exported from other weights than this run's" in " ".join(capsys.readouterr().err.split())
