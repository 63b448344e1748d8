"""`eval` in its three forms, through the front door: exit codes, sentences, files, gates."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import draw_camvid

from segctl.cli import main
from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source


@pytest.fixture
def run(toy_teacher: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of its own, in an empty folder."""
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_teacher, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    return tmp_path / "run"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for index in range(12):
        truth = random.integers(0, 3, (4, 5)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
        guess = np.where(random.random(truth.shape) < 0.8, truth, random.integers(0, 3, truth.shape)).astype(np.uint8)
        for side, ids in (("pred", guess), ("gt", truth)):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(ids).save(tmp_path / side / f"i{index}.png")
    return tmp_path


FILES = ["eval", "--pred", "pred", "--gt", "gt", "--num-classes", "3"]


def test_pngs_are_scored_shown_and_written(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, "-o", "tables"]) == 0
    said = capsys.readouterr()
    assert "pred, 12 images, PNGs, in percent" in said.out
    assert "from-to: 95 % percentile bootstrap over 12 images, 2,000 resamples, seed 0" in said.out
    assert "tables in tables" in said.err
    assert (folders / "tables" / "scores.json").is_file()


@pytest.mark.parametrize("width", [80, *(pytest.param(width, marks=pytest.mark.slow) for width in (60, 120))])
def test_scores_fit_the_terminal_without_a_cut_word(
    width: int, folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders / "names.txt").write_text("traffic-sign-with-a-long-name\nroad\ncar\n")
    command = ["eval", "--pred", "pred", "--gt", "gt", "--classes", "names.txt", "--boundary"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    for row in found["per_class"]:
        line = next(line for line in shown.splitlines() if line.startswith(f"{row['class']} "))
        assert {f"{row['IoU_D']:.2f}", f"{row['IoU_C']:.2f}"} <= set(line.split())
    low, high = found["intervals"]["mIoU_C_qbar"]
    assert {f"{found['mIoU_D']:.2f}", f"{found['mDice_C_qbar']:.2f}", f"{low:.1f}-{high:.1f}"} <= set(shown.split())


def test_json_is_what_scores_json_holds(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, "-o", "tables", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folders / "tables" / "scores.json").read_text(encoding="utf-8"))


def test_saved_counts_are_scored_again(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, "-o", "tables", "--json"]) == 0
    first = capsys.readouterr().out
    shutil.rmtree(folders / "pred")
    assert main(["eval", "--counts", "tables/counts.npz", "--json"]) == 0
    assert capsys.readouterr().out == first


def test_names_of_classes_come_from_a_file(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "names.txt").write_text("sky\nroad\ncar\n")
    assert main(["eval", "--pred", "pred", "--gt", "gt", "--classes", "names.txt"]) == 0
    assert "\nroad " in capsys.readouterr().out


def test_a_gate_on_no_score_is_refused_before_anything_is_scored(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = ["--min", "mIoU_D=0", "--min", "mIou_D=9"]
    assert main(["eval", "--pred", "pred", "--gt", "gt", "--num-classes", "3", *gates]) == 2
    shown, said = capsys.readouterr()
    assert shown == ""
    assert said.startswith("error: --min mIou_D: there is no such score, did you mean 'mIoU_D'?")


def test_a_gate_on_a_score_that_was_not_asked_for_is_refused(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--pred", "pred", "--gt", "gt", "--num-classes", "3", "--min", "mBIoU_D=1"]) == 2
    assert "error: --min mBIoU_D: there is no such score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gates", "code", "message"),
    [
        (["mIoU_D=0"], 0, ""),
        (["mIoU_D=0", "mIoU_I=99.5", "Acc=100"], 3, "error: mIoU_I is "),
        (["mIoU=50"], 2, "error: --min mIoU: there is no such score, did you mean 'mIoU_D'?"),
        (["mIoU_D"], 2, "error: cannot read --min 'mIoU_D'"),
        (["mIoU_D=high"], 2, "error: cannot read --min 'mIoU_D=high'"),
    ],
)
def test_gates_end_with_their_code(
    gates: list[str], code: int, message: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FILES, *(part for gate in gates for part in ("--min", gate))]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_every_failed_gate_is_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*FILES, "--min", "Acc=100", "--min", "mIoU_C=99"])
    said = capsys.readouterr().err
    assert ", wanted at least 100; mIoU_C is " in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is nothing to score"),
        (["--pred", "pred"], "--pred is given without --gt"),
        (["--gt", "gt"], "--gt is given without --pred"),
        (["--pred", "pred", "--gt", "gt"], "the number of classes is unknown"),
        (["run", "--pred", "pred", "--gt", "gt"], "RUN cannot be combined with scoring --pred against --gt"),
        (["--pred", "pred", "--gt", "gt", "--calibration"], "--calibration cannot be combined with scoring --pred against --gt"),
        (["--pred", "pred", "--gt", "gt", "--no-flip"], "--flip cannot be combined with scoring --pred against --gt"),
        (["run", "--label-ids"], "--label-ids cannot be combined with scoring a run"),
        (["run", "-o", "x"], "--output cannot be combined with scoring a run"),
        (["--counts", "c.npz", "--boundary"], "--boundary cannot be combined with scoring --counts"),
        (["--pred", "pred", "--gt", "gt", "--num-classes", "3", "--resize", "bilinear"], "--resize 'bilinear' is not known"),
    ],
)
def test_forms_do_not_mix(options: list[str], message: str, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *options]) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_a_warning_does_not_spoil_json(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((20, 25), 9, np.uint8)).save(folders / "pred" / "i3.png")
    assert main([*FILES, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["about"]["outside_predictions"] == 500
    assert "% of the pixels are predicted as none of the 3 classes" in said.err


def scores(folder: Path) -> dict[str, object]:
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def test_a_run_is_scored_with_all_that_can_be_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--boundary", "--calibration", "--save-predictions", "--batch", "2"]) == 0
    said = capsys.readouterr()
    assert "Boundary IoU: mBIoU_D " in said.out
    assert "Calibration errors: ECE_D " in said.out
    assert "warning: all 5 images are of one group, '0016E5': frames of one drive resemble each other" in said.err
    folder = run / "eval" / "val"
    assert {path.name for path in folder.iterdir()} == {
        "scores.json", "per_image.csv", "per_class.csv", "counts.npz", "confusion.npz", "boundary.npz", "calibration.npz",
        "predictions", "worst",
    }  # fmt: skip
    assert len(list((folder / "predictions").glob("*.png"))) == 5


def test_saved_predictions_score_the_same_as_files(run: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from segctl.data.shards.dataset import open_dataset

    assert main(["eval", "run", "--save-predictions"]) == 0
    dataset = open_dataset(toy_data, "camvid")
    Path("gt").mkdir()
    for name in dataset.names("val"):
        Image.fromarray(dataset.label(name)).save(f"gt/{name}.png")
    capsys.readouterr()
    assert main(["eval", "--pred", "run/eval/val/predictions", "--gt", "gt", "--num-classes", "11", "--json"]) == 0
    found, wanted = json.loads(capsys.readouterr().out), scores(run / "eval" / "val")
    for name in ("Acc", "mIoU_D", "mIoU_I", "mIoU_C", "mDice_C_qbar"):
        assert found[name] == wanted[name]


def test_a_score_on_a_trial_never_passes_for_the_datasets(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_source(open_source("camvid", [draw_camvid(Path("source"))]), Path("trial"), workers=0, limit=3)
    assert main(["eval", "run", "--data-root", "trial"]) == 0
    words = "a trial: at most 3 samples of each split"
    assert f"warning: scored on {words}; these are not scores of 'camvid'" in capsys.readouterr().err
    assert scores(run / "eval" / "val")["about"]["trial"] == words
    assert main(["report", "run", "-o", "report.md"]) == 0
    assert f"## camvid / val ({words})" in Path("report.md").read_text(encoding="utf-8")
    assert main(["eval", "run"]) == 0
    assert scores(run / "eval" / "val")["about"]["trial"] == ""


def test_another_protocol_keeps_its_own_tables(run: Path) -> None:
    assert main(["eval", "run"]) == 0
    assert main(["eval", "run", "--flip", "--scales", "0.5,1", "--protocol", "sliding", "--tile", "32x32"]) == 0
    assert sorted(path.name for path in (run / "eval").iterdir()) == ["val", "val@sliding-32x32-0.6667+scales-0.5-1+flip"]
    about = scores(run / "eval" / "val@sliding-32x32-0.6667+scales-0.5-1+flip")["about"]
    assert about["protocol"] == "sliding 32×32 tiles, stride 0.6667 of a tile, scales 0.5, 1, with flip"
    assert main(["report", "run", "-o", "report.md"]) == 0


def test_precision_can_be_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--precision", "bf16"]) == 0
    assert scores(run / "eval" / "val")["about"]["precision"] == "bf16"
    assert main(["eval", "run", "--precision", "fp8"]) == 2
    assert main(["eval", "run", "--precision", "fp16", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "error: --precision 'fp8' is not known" in said
    assert "error: --precision fp16 does not work on a CPU" in said


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_counted_and_a_second_start_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scales = ",".join(f"{1 + index / 100:g}" for index in range(80))  # slow enough to be caught in the middle
    command = ["eval", "run", "--save-predictions", "--scales", scales]

    def masks() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (run / "eval").glob("*/predictions/*.png")}

    def interrupt() -> None:
        while not masks():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    assert main(command) == 130
    watcher.join()
    said = capsys.readouterr().err
    first = masks()
    assert 0 < len(first) < 5
    assert f"error: stopped by SIGINT after {len(first)} more images" in said
    assert "next:  run the same command again to resume" in said
    assert main(command) == 0
    assert len(masks()) == 5
    assert {name: masks()[name] for name in first} == first
    assert not list((run / "eval").glob("*/.parts"))


def test_a_worst_case_beside_its_interval_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve classes, each worst in another of twelve images: hardly a resample holds them all."""
    monkeypatch.chdir(tmp_path)
    truth = np.arange(12, dtype=np.uint8)[:, None].repeat(10, 1)
    for index in range(12):
        guess = truth.copy()
        guess[index, :5] = 12  # outside the classes
        for side, ids in (("pred", guess), ("gt", truth)):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(ids).save(tmp_path / side / f"i{index}.png")
    assert main(["eval", "--pred", "pred", "--gt", "gt", "--num-classes", "12"]) == 0
    assert "a score is outside its from-to, because few resamples are as bad as the worst image" in capsys.readouterr().out
    assert main(["eval", "--pred", "pred", "--gt", "gt", "--num-classes", "12", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["mIoU_C_q5"] == 50 < content["intervals"]["mIoU_C_q5"][0]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "100.1", "1e400"])
def test_a_gate_that_is_no_score_is_refused(value: str, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, "--min", f"mIoU_D={value}"]) == 2
    shown, said = capsys.readouterr()
    assert shown == ""
    assert said.startswith(f"error: --min 'mIoU_D={value}': wanted a score from 0 to 100, in percent")


def test_a_gate_that_looks_like_a_fraction_is_warned_of(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, "--min", "mIoU_D=0.7"]) == 0
    assert "warning: --min mIoU_D=0.7: scores are in percent, so this is less than 1 percent" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--split", "--protocol", "--precision", "--device"])
def test_an_empty_text_is_no_default(option: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), option, ""]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option} is empty\n")


def test_the_ignored_id_is_said_and_belongs_to_files(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, "--ignore", "0", "-o", "tables"]) == 0
    assert "\nignored: id 0 of the ground truth, 3" in capsys.readouterr().out
    assert main(["eval", "--counts", "tables"]) == 0
    assert "\nignored: id 0 of the ground truth, 3" in capsys.readouterr().out
    assert main(["eval", "--counts", "tables", "--ignore", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --ignore cannot be combined with scoring --counts")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[]", "it holds a list, wanted an object with fields"),
        ('{"about": 3}', "about is 3, wanted"),
        ('{"about": {"dataset": 5}}', "about.dataset is 5, wanted a valid string"),
        ('{"about": {"ignored_ids": "no"}}', "about.ignored_ids is 'no', wanted"),
        ("[" * 20000, "it is nested too deeply"),
        ('{"about": ' + "9" * 5000 + "}", "it is not valid JSON"),
    ],
)
def test_a_foreign_scores_file_beside_counts_is_a_sentence(
    content: str, fault: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FILES, "-o", "tables"]) == 0
    (folders / "tables" / "scores.json").write_text(content)
    capsys.readouterr()
    assert main(["eval", "--counts", "tables"]) == 2
    said = capsys.readouterr().err
    assert "'tables/scores.json'" in said
    assert fault in said


def test_a_table_over_a_file_is_a_sentence(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "out").write_text("mine")
    assert main([*FILES, "-o", "out"]) == 2
    assert "error: cannot write 'out/per_image.csv': " in capsys.readouterr().err
    assert (folders / "out").read_text() == "mine"
