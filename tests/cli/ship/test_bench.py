"""`segctl bench` as a person and as a program see it."""

import json
from pathlib import Path

import pytest

from segctl.bench import measure
from segctl.cli import main
from tests.bench.onnx_files import write_onnx


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROUNDS", (2, 2))


@pytest.mark.slow
def test_a_table_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(write_onnx(tmp_path / name)) for name in ("first.onnx", "second.onnx")]
    assert main(["bench", *paths, "--size", "32x48", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "One image of 32×48 on 1 thread" in shown
    assert "multiply-adds × 2" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(tuple(paths))]
    assert [row[:4] for row in rows] == [[path, "onnx", "0.00", "n/a"] for path in paths]
    assert rows[0][-1] == "1.00"


def test_json_has_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_onnx(tmp_path / "toy.onnx")
    assert main(["bench", str(path), "--size", "32x48", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["size"], found["threads"], found["device"]) == ([32, 48], 1, "cpu")
    (row,) = found["rows"]
    assert row["parameters"] == 15
    assert row["file_mb"] == path.stat().st_size / 1e6
    assert row["median_ms"] > 0
    assert row["images_per_s"] == pytest.approx(1000 / row["median_ms"])
    assert row["peak_mb"] > 20
    assert (row["ratio"], row["failure"]) == (1, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no preset is called 'nothing'"),
        (["missing.onnx"], "no file at 'missing.onnx'"),
        (["camvid-tiny", "--size", "0x5"], "cannot read --size '0x5'"),
        (["camvid-tiny", "--device", "cuda:7"], "--device 'cuda:7' does not exist"),
        (["."], "holds no model"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_compiled_form_is_measured_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "camvid-tiny", "--size", "32x48", "--threads", "1", "--json"]) == 0
    plain, compiled = json.loads(capsys.readouterr().out)["rows"]
    assert compiled["form"] == "torch compiled"
    assert compiled["failure"] or compiled["median_ms"] > 0
    assert plain["peak_mb"] > 100
