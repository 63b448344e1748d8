"""The benchmarks run, what they compare computes the same, and their results are kept whole."""

import importlib.util
import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from segctl.losses import JDTLoss, KLLoss

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
RESULTS = sorted((FOLDER / "results").glob("*.json"))
TINY = ["--crop", "64", "96", "--batch", "2", "--backbone", "test_resnet"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark imports `record`, which lies beside it, as it does when it is run as a script."""
    monkeypatch.syspath_prepend(str(FOLDER))


def call(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FOLDER / f"{name}.py"), *arguments], capture_output=True, text=True, check=False)


def saved(place: Path, name: str, *arguments: str) -> dict[str, Any]:
    """The one result that a benchmark saves."""
    done = call(name, *arguments, "--save", "tiny", "--results", str(place))
    assert done.returncode == 0, done.stderr
    (path,) = place.iterdir()
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert re.fullmatch(rf"{result['benchmark']}-\d{{4}}-\d\d-\d\d-tiny\.json", path.name)
    return result


@pytest.mark.parametrize("name", ["distillers", "engine", "gpu_hour", "latency", "loader", "losses", "metrics", "rows", "step"])
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    assert callable(load(name).main)


def test_what_a_cpu_cannot_run_is_named_with_its_reason() -> None:
    step, rows, record = load("step"), load("rows"), load("record")
    reasons = [step.why_not(form, "cpu") for form in step.FORMS]
    assert [reason is None for reason in reasons] == [True, True, False, False, False]
    assert "CUDA graphs" in reasons[-1]
    assert not any(step.why_not(form, "cuda") for form in step.FORMS)
    arguments = Namespace(grid=(2, 2), batch=2, width=4, rounds=1, device="cpu")
    lines = [record.line(figure) for figure in rows.measure(arguments)]
    assert torch.get_float32_matmul_precision() == "highest"  # what it changes, it restores
    missing = [line for line in lines if " kernels " in line]
    assert len(lines) == 2 * len(missing) == 12  # three cases with and without TF32, plain beside each
    assert all(line.endswith("left out they need a GPU") for line in missing)


@pytest.mark.slow
def test_a_saved_result_has_every_field_and_names_no_folder(tmp_path: Path) -> None:
    record = load("record")
    pictures = tmp_path / "own pictures"
    pictures.mkdir()
    result = saved(
        tmp_path / "results", "loader", "--shapes", "voc", "--codecs", "lz4", "none", "--samples", "2", "--repeats", "1",
        f"--pictures={pictures}",
    )  # fmt: skip
    (one,) = record.read_results(tmp_path / "results")  # it checks the fields
    assert (one["benchmark"], one["note"], one["budget"]["rounds"]) == ("loader", "tiny", 2)
    assert "--pictures=PATH" in one["command"]
    assert one["settings"]["pictures"] == "PATH"
    assert str(tmp_path) not in json.dumps(result)
    assert [figure["rival"] for figure in one["figures"]] == ["lz4", "none", "common", "decode"]
    for figure in one["figures"]:
        assert figure["spread"][0] <= figure["value"] <= figure["spread"][1]
        assert figure["ratio_spread"][0] <= figure["ratio"] <= figure["ratio_spread"][1]
    assert one["commit"]["id"] is None or re.fullmatch("[0-9a-f]{40}", one["commit"]["id"])
    assert one["versions"]["torch"] == torch.__version__
    assert one["machine"]["cores"] >= 1


def test_a_saved_result_is_never_overwritten(tmp_path: Path) -> None:
    record = load("record")
    parser = record.argparse.ArgumentParser()
    record.add_options(parser)
    arguments = parser.parse_args(["--save", "--results", str(tmp_path)])
    figure = record.timed("case", "ours", [3.0, 1.0, 2.0], "ms", [0.5, 0.25, 0.75], "this / other")
    assert (figure.value, figure.spread, figure.ratio) == (2.0, (1.5, 2.5), 0.5)
    record.run("toy", "A toy.", arguments, iter([figure]), record.Budget(3, 0, [0], "3 rounds"))
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()

    def never() -> Any:
        raise AssertionError("measured although the name is taken")
        yield

    with pytest.raises(SystemExit) as stopped:
        record.run("toy", "A toy.", arguments, never(), record.Budget(3, 0, [0], "3 rounds"))
    assert stopped.value.code == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize("note", ["../elsewhere", "Two words"])
def test_a_note_is_a_part_of_a_file_name(
    tmp_path: Path, note: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["losses.py", "--save", note, "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        load("losses").main()
    assert stopped.value.code == 2
    assert f"--save {note}: a note has lower-case letters, digits and hyphens" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_a_kept_result_has_every_field_and_lists_what_is_unknown(path: Path) -> None:
    record = load("record")
    result = {found["file"]: found for found in record.read_results()}[path.name]
    note = f"-{result['note']}" if result["note"] else ""
    assert path.name == f"{result['benchmark']}-{result['date']}{note}.json"
    nulls = {f"{group}.{name}" for group, names in record.FIELDS.items() for name in names if result[group][name] is None} | {
        name for name, names in record.FIELDS.items() if not names and result[name] is None
    }
    assert nulls - {"note", "machine.gpu"} == set(result["unknown"])  # null there: without a note, without a GPU
    assert result["figures"]


def test_a_result_without_a_field_is_named(tmp_path: Path) -> None:
    result = json.loads(RESULTS[0].read_text(encoding="utf-8"))
    del result["commit"]["dirty"], result["figures"][1]["unit"]
    (tmp_path / "odd.json").write_text(json.dumps(result), encoding="utf-8")
    done = call("record", "--table", "--results", str(tmp_path))
    assert done.returncode == 2
    assert "odd.json lacks commit.dirty, figures[1].unit" in done.stderr


def test_the_newest_result_of_each_benchmark_is_shown() -> None:
    record = load("record")
    dates = [("a", None, "2026-01-02"), ("a", None, "2026-01-10"), ("a", "load", "2025-01-01"), ("b", None, "2024-01-01")]
    results = [{"benchmark": name, "note": note, "date": date} for name, note, date in dates]
    assert [result["date"] for result in record.newest(results)] == ["2026-01-10", "2025-01-01", "2024-01-01"]


def test_the_pages_show_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    shown = page.split("<!-- python benchmarks/record.py --table -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == call("record", "--table").stdout.strip()
    camvid = call("record", "--table", "camvid").stdout
    assert camvid in (ROOT / "docs" / "camvid-benchmark.md").read_text(encoding="utf-8")


def test_a_result_that_the_text_names_is_there() -> None:
    texts = [*(ROOT / "segctl").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    named = {
        name for path in texts for name in re.findall(r"benchmarks/results/(\w[\w-]*\.json)", path.read_text(encoding="utf-8"))
    }
    assert named - {"loader-2026-11-23-quiet.json"} <= {path.name for path in RESULTS}  # the page says how a note is added


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
def test_the_overhead_counts_every_part_around_the_passes(tmp_path: Path) -> None:
    figures = saved(tmp_path, "engine", "overhead", "--pairs", "2", *TINY)["figures"]
    assert [(figure["rival"], figure["unit"]) for figure in figures[:4]] == [
        ("ours", "s"), ("bare", "s"), ("ours", "s of CPU"), ("bare", "s of CPU")
    ]  # fmt: skip
    assert {"copy", "data", "other", "peers"} <= {figure["rival"] for figure in figures[4:]}


@pytest.mark.slow
def test_a_start_is_taken_apart(tmp_path: Path) -> None:
    figures = saved(tmp_path, "engine", "resume", "--starts", "1", *TINY)["figures"]
    whole, *inner = (figure["value"] for figure in figures[:4])
    assert whole == pytest.approx(sum(inner), abs=0.01)


@pytest.mark.slow
def test_both_rivals_take_the_same_step(tmp_path: Path) -> None:
    tiny = ["--device", "cpu", "--crop", "64", "128", "--batch", "2", "--rounds", "1", "--set", "train.precision=fp32"]
    first, second = (figure["more"]["first loss"] for figure in saved(tmp_path, "step", *tiny)["figures"])
    assert first == pytest.approx(second, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("distillers", ["--crop", "64", "128", "--rounds", "1", "--methods", "none,kd", "--device", "cpu"]),
        ("latency", ["--size", "64x96", "--threads", "1", "--rounds", "2"]),
        ("step", ["--forms", "--device", "cpu", "--crop", "64", "64", "--batch", "2", "--rounds", "1"]),
        ("losses", ["--classes", "3", "--size", "64", "--rounds", "1"]),
        ("metrics", ["--pairs", "20", "--rounds", "1"]),
    ],
)
def test_a_tiny_run_is_saved(tmp_path: Path, name: str, arguments: list[str]) -> None:
    assert saved(tmp_path, name, *arguments)["figures"]
