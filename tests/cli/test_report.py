"""`segctl report` through the door."""

import json
import shutil

import pytest

from segctl.cli import main
from tests.report.run_folders import Making, make_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        make_run(root / f"s{seed}", Making(seed=seed, images=2, overrides=("train.steps=100",)))
    return root


def test_without_names_all_runs_are_reported(root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--runs-root", str(root)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "camvid / val, in percent"
    assert "camvid-psp18-scratch · none (n = 2)" in said.out
    assert said.out.splitlines()[-2:] == ["report.md", "report.html"]
    assert said.err == ""
    assert (tmp_path / "report.md").is_file()
    assert (tmp_path / "report_files").is_dir()


def test_named_runs_go_where_asked(root, tmp_path, capsys):
    assert main(["report", str(root / "s0"), "-o", str(tmp_path / "one.md"), "--split", "val"]) == 0
    assert "(n = 2)" not in capsys.readouterr().out
    assert "`s1`" not in (tmp_path / "one.md").read_text()


@pytest.mark.parametrize("width", [80, *(pytest.param(width, marks=pytest.mark.slow) for width in (60, 120))])
def test_scores_fit_the_terminal_without_a_cut_word(width, root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(root / "s0"), "-o", "r.md", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["results"][0]["groups"]
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["report", str(root / "s0"), "-o", "r.md"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    line = next(line for line in shown.splitlines() if line.startswith(group["label"]))
    assert line.split()[-3:] == [f"{group['scores'][name]['mean']:.2f}" for name in ("mIoU_D", "mIoU_I", "mIoU_C")]


def test_json_has_means_spreads_and_where_they_come_from(root, tmp_path, capsys):
    assert main(["report", "--runs-root", str(root), "-o", str(tmp_path / "r.md"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(tmp_path / "r.md")
    (result,) = found["results"]
    assert (result["dataset"], result["split"]) == ("camvid", "val")
    (group,) = result["groups"]
    assert group["runs"] == [str(root / "s0"), str(root / "s1")]
    assert group["scores"]["mIoU_D"]["n"] == 2
    assert group["scores"]["mIoU_D"]["std"] > 0


def test_a_broken_run_is_a_warning_when_others_can_be_read(root, tmp_path, capsys):
    shutil.copytree(root / "s0", tmp_path / "runs" / "good")
    shutil.copytree(root / "s1", tmp_path / "runs" / "bad")
    (tmp_path / "runs" / "bad" / "eval" / "val" / "scores.json").write_text("{")
    assert main(["report", "--runs-root", str(tmp_path / "runs"), "-o", str(tmp_path / "r.md")]) == 0
    assert "warning: left out: cannot read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "error: there is no run at 'nowhere'\nnext:  run `segctl report` without a name to report every run\n"),
        (
            ["--runs-root", "empty"],
            "error: there are no runs under 'empty'\n"
            "next:  train one with `segctl train --preset NAME --runs-root empty`, or give --runs-root\n",
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_2(arguments, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert capsys.readouterr().err == sentence


def test_a_folder_that_is_no_run_is_exit_2(tmp_path, capsys):
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.md")]) == 2
    assert capsys.readouterr().err.startswith(f"error: '{tmp_path}' is not a run: it has no run.yaml\n")


def test_a_place_that_cannot_be_written_is_exit_2(root, tmp_path, capsys):
    assert main(["report", str(root / "s0"), "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot write the report to '{tmp_path}': it is a folder\nnext:  give a file, such as -o report.md\n"
    )


def test_a_lost_log_is_a_warning(root, tmp_path, capsys):
    shutil.copytree(root / "s0", tmp_path / "runs" / "s0")
    (tmp_path / "runs" / "s0" / "log.jsonl").unlink()
    assert main(["report", "--runs-root", str(tmp_path / "runs"), "-o", str(tmp_path / "r.md")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: s0: '" in said
    assert "log.jsonl' is missing, so its training curves, its last step and the step of its weights are not shown" in said
