"""The CamVid benchmark: its plan, what it refuses, its tables; and all of it on the toy."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import toy
import yaml

from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.schema.terms.methods import METHODS

FOLDER = Path(__file__).parent.parent / "benchmarks" / "camvid"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of the benchmark as it is imported where it lies."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in ("plan", "run", "table"):
        sys.modules.pop(name, None)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with a file for the only backbone whose weights the shipped plan wants from students."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "tf_efficientnet_lite0.pth").touch()
    return folder


def test_the_shipped_plan_has_every_method_and_the_seeds_that_it_promises(script: Any, weights: Path, tmp_path: Path) -> None:
    plan = script("plan")
    read = plan.read_plan(FOLDER / "plan.yaml")
    runs = plan.planned_runs(read, tmp_path, weights)
    assert len({run.name for run in runs}) == len(runs)
    assert set(read.methods) == {"none", "kd", "skd", "ifvd", "cwd", "cirkd", "maskd", "dist", "jml"} <= set(METHODS)
    count = {
        (student, method): sum((run.table, run.student, run.method) == ("methods", student, method) for run in runs)
        for student in read.students
        for method in read.methods
    }
    assert count == {(student, method): 5 if method in ("none", "kd", "jml") else 3 for student, method in count}
    assert sum(run.table == "longer" for run in runs) == 4
    assert sum(run.table == "losses" for run in runs) == 3 * (7 * 3 - 2)
    order = [(run.table, run.student, run.seed) for run in runs]
    assert set(order[:27]) == {("methods", "fast", seed) for seed in range(3)}  # first a whole table
    assert {run.method for run in runs[:9]} == {"none", "kd", "jml"}
    for run in runs:
        steps = round(1.5 * read.steps) if run.table == "longer" else read.steps
        assert run.run.train.steps == steps
        assert run.run.data.val_split == read.split == "val"
        assert run.run.model.weights == ("none" if run.student == "tiny" else str(weights / "tf_efficientnet_lite0.pth"))


def test_a_loss_is_the_plan_s(script: Any, weights: Path, tmp_path: Path) -> None:
    plan = script("plan")
    runs = plan.planned_runs(plan.read_plan(FOLDER / "plan.yaml"), tmp_path, weights)
    (run,) = [run for run in runs if run.name == "fast-loss-jdt-ic-boundary-seed1"]
    assert [(term.kind, term.weight) for term in run.run.loss] == [
        ("cross_entropy", 0.125),
        ("cross_entropy", 0.125),
        ("jdt", 0.75),
    ]
    assert (run.run.loss[2].miou_d, run.run.loss[2].miou_i, run.run.loss[2].miou_c) == (0, 0.5, 0.5)
    assert run.run.labels.kind == "boundary"


def test_a_plan_of_settings_has_undistilled_runs_that_change_nothing_else(script: Any, weights: Path, tmp_path: Path) -> None:
    plan = script("plan")
    read = plan.read_plan(FOLDER / "settings.yaml")
    runs = plan.planned_runs(read, tmp_path, weights)
    assert [run.name for run in runs[:4]] == [
        "fast-plain-seed0", "fast-augmented-seed0", "fast-class-crop-seed0", "fast-early-stop-seed0",
    ]  # fmt: skip
    assert len(runs) == 12
    assert {(run.table, run.method) for run in runs} == {("variants", "none")}
    plain, augmented, _, stopped = (run.run for run in runs[:4])
    assert augmented == plain.model_copy(update={"data": augmented.data})
    assert [step.kind for step in augmented.data.augment] == ["color", "blur", "affine"]
    assert (stopped.train.early_stop.patience, stopped.train.steps) == (2, plain.train.steps)


def test_missing_weights_and_a_faulty_plan_are_refused(script: Any, tmp_path: Path) -> None:
    plan = script("plan")
    read = plan.read_plan(FOLDER / "plan.yaml")
    with pytest.raises(InputError, match=r"has no tf_efficientnet_lite0.pth"):
        plan.planned_runs(read, tmp_path, tmp_path)
    tree = yaml.safe_load((FOLDER / "plan.yaml").read_text(encoding="utf-8"))
    for change, words in (
        ({"seeds": 3}, "seeds: Extra inputs"),
        ({"steps": 0}, "steps: "),
        ({"methods": {"kdd": 3}}, "'kdd' is not known"),
        ({"teacher": None}, "the methods need a teacher"),
        ({"variants": {"student": "big", "seeds": 1, "changes": {"a": [], "b": []}}}, "'big' is not in students"),
    ):
        (tmp_path / "odd.yaml").write_text(yaml.safe_dump(tree | change), encoding="utf-8")
        with pytest.raises(InputError, match=words):
            plan.read_plan(tmp_path / "odd.yaml")


def test_a_share_of_the_way_is_of_the_seeds_that_all_have(script: Any) -> None:
    """From 40 to 50 by two seeds: a mean of 47.5 is three quarters of the way."""
    table = script("table")
    base, ceiling = ([result("", seed, score + seed) for seed in range(3)] for score in (40.0, 50.0))
    mine = [result("kd", 0, 47.0), result("kd", 1, 49.0)]
    value = table._score("mIoU_D")
    assert table._share(mine, base, ceiling, value) == "75"
    assert table._share(mine, base, [], value) == "–"
    assert table._share(mine, base, base, value) == "–"


def result(method: str, seed: int, score: float | None) -> dict[str, Any]:
    return {"method": method, "seed": seed, "scores": {"mIoU_D": score}}


def test_a_difference_is_paired_by_seed_and_bold_beyond_noise(script: Any) -> None:
    """Differences 2, 3, 4: mean 3, standard deviation 1, and 4.303 / sqrt(3) = 2.484 either way (Student)."""
    table = script("table")
    base = [result("none", seed, 40.0 + seed) for seed in range(5)]
    mine = [result("kd", seed, 42.0 + 2 * seed) for seed in range(3)]
    value = table._score("mIoU_D")
    assert table._difference(mine, base, value) == "**+3.00 [+0.52, +5.48]**"
    assert table._difference([result("kd", 0, 50.0), result("kd", 1, 41.0)], base, value) == "+5.00 [-58.53, +68.53]"
    assert table._difference(mine[:1], base, value) == "+2.00"  # one seed has no interval, so it is never bold
    assert table._difference([result("kd", 9, 50.0), result("kd", 0, None)], base, value) == "–"


def test_the_page_shows_what_the_command_prints() -> None:
    done = subprocess.run([sys.executable, str(FOLDER / "table.py"), "--print"], capture_output=True, text=True, check=True)
    page = (FOLDER.parent.parent / "docs" / "camvid-benchmark.md").read_text(encoding="utf-8")
    assert done.stdout in page


@pytest.mark.slow
def test_the_whole_benchmark_on_the_toy_resumes_and_fills_what_is_missing(toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(toy.toy_run().model_dump(mode="json")), encoding="utf-8")
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(toy.toy_run(toy.STUDENT).model_dump(mode="json")), encoding="utf-8")
    hard = [{"kind": "cross_entropy"}]
    plan = {
        "name": "toy", "title": "Toy", "budget": {"hours": 1, "cores": 1}, "parallel": 2, "split": "val", "rules": ["None."],
        "teacher": {"preset": str(tmp_path / "teacher.yaml"), "steps": [40, 60], "least_gain": 100},
        "students": {"small": {"preset": str(tmp_path / "student.yaml")}},
        "changes": ["train.checkpoint_every=4", "model.weights=none"], "steps": 4, "methods": {"none": 2, "jml": 2},
        "longer": {"factor": 1.5, "methods": ["none"], "seeds": 1},
        "losses": {"student": "small", "seeds": 1, "losses": {"ce": hard}, "labels": {"hard": {"kind": "hard"}}},
        "variants": {
            "student": "small", "seeds": 1, "presets": {"plain": str(tmp_path / "teacher.yaml")}, "ceiling": "plain",
            "changes": {"plain": [], "pseudo-labels": ["data.dataset=pseudo"]},
        },
        "pseudo": {"name": "pseudo", "labelled": 0.5, "min_confidence": "balanced=0.5"},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    results = tmp_path / "results" / "toy"
    data = shutil.copytree(toy_data, tmp_path / "data")
    common = ["--plan", str(tmp_path / "plan.yaml")]
    command = [
        sys.executable,
        str(FOLDER / "run.py"),
        *common,
        "--results",
        str(results),
        "--data-root",
        str(data),
        "--runs-root",
        str(tmp_path / "runs"),
    ]
    subprocess.run([*command, "--undistilled"], check=True)
    assert not (tmp_path / "runs" / "teacher").exists()
    subprocess.run(command, check=True)
    names = {path.stem for path in results.glob("*.json")}
    assert names == {
        "teacher", "small-none-seed0", "small-none-seed1", "small-jml-seed0", "small-jml-seed1", "small-none-longer-seed0",
        "small-loss-ce-hard-seed0", "small-plain-seed0", "small-pseudo-labels-seed0", "export-small",
    }  # fmt: skip
    before = {path.stem: path.read_bytes() for path in results.glob("*.json")}
    teacher = json.loads(before["teacher"])
    assert [steps for steps, _ in teacher["history"]] == [40, 60]
    assert str(tmp_path) not in "".join(content.decode() for content in before.values())
    (results / "small-jml-seed1.json").unlink()
    subprocess.run(command, check=True)
    assert {path.stem: path.read_bytes() for path in results.glob("*.json")} == before
    shown = subprocess.run([*command, "--list"], check=True, capture_output=True, text=True).stdout
    assert "8 of 8 runs done" in shown
    made = open_dataset(tmp_path / "data", "pseudo")
    assert len(made.provenance.predicted.samples) == len(made.names("train")) // 2
    text = subprocess.run(
        [sys.executable, str(FOLDER / "table.py"), *common, "--results", str(results.parent), "--print"],
        check=True,
        capture_output=True,
        text=True,
    )
    for words in (
        "### Student small",
        "| jml | 2 |",
        "| ce | hard | 1 |",
        "int8",
        "Gain over `none`",
        "Share of the way from `none` to `plain`",
    ):
        assert words in text.stdout
    plan["steps"] = 5
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "has other settings than the plan: train.steps" in refused.stderr
