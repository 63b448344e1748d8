"""Run folders become records, and what cannot be read is named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from segctl.errors import InputError
from segctl.report.collect import TILES, collect, read_evaluation, read_run
from segctl.runs import RunFolder
from tests.report.run_folders import CLASSES, COLORS, TEACHER, Making, evaluate, make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "one", Making(overrides=("train.steps=100",), images=3))


def scores_path(run: Path) -> Path:
    return run / "eval" / "val" / "scores.json"


def change(path: Path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_run_is_read_whole(read):
    run = read["jml-s1"]
    assert (run.label, run.method, run.seed) == ("jml-s1", "jml", 1)
    assert run.teacher == TEACHER
    found = run.evaluations["val"]
    assert 0 < found.scores["mIoU_D"] < 100
    assert [row["class"] for row in found.per_class] == list(CLASSES)
    assert found.colors == dict(zip(CLASSES, COLORS, strict=True))
    assert [image.miou_i for image in found.worst] == sorted(image.miou_i for image in found.worst)
    assert all(path.is_file() for image in found.worst for path in image.tiles.values())
    assert set(found.worst[0].tiles) == set(TILES)


def test_curves_come_from_the_log(read):
    curves = read["none-s0"].curves
    assert curves.last_step == 800
    assert curves.miou_d[-1][0] == 800
    assert len(curves.loss) > 50
    assert curves.weights_of == "step 800"


def test_an_unfinished_run_has_curves_and_no_end(read):
    run = read["stopped"]
    assert not run.folder.finished
    assert (run.curves.last_step, run.curves.weights_of, run.evaluations) == (266, None, {})


def test_an_undistilled_run_has_no_teacher(read):
    assert (read["none-s0"].method, read["none-s0"].teacher) == ("none", {})


def test_without_names_every_run_is_taken(shelf):
    found = collect([], shelf)
    assert {run.label for run in found.runs} == {path.name for path in shelf.iterdir()}
    assert found.unreadable == ()


def test_named_runs_alone_are_taken_and_each_once(shelf):
    found = collect([shelf / "none-s1", shelf / "jml-s0", shelf / ".." / "runs" / "none-s1"], shelf)
    assert [run.label for run in found.runs] == ["none-s1", "jml-s0"]


def test_runs_of_one_name_are_told_apart_by_their_parent(tmp_path):
    making = Making(overrides=("train.steps=100",), split=None)
    paths = [make_run(tmp_path / parent / "one", making) for parent in ("a", "b")]
    assert [run.label for run in collect(paths, tmp_path).runs] == ["a/one", "b/one"]


def test_undefined_scores_are_none(run):
    change(scores_path(run), mIoU_D=None, mIoU_I=float("nan"))
    scores = read_evaluation(run / "eval" / "val").scores
    assert (scores["mIoU_D"], scores["mIoU_I"]) == (None, None)


def test_a_diverged_loss_is_no_point_of_the_curve(run):
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "step": 101, "loss": NaN}\n')
    curves = read_run(RunFolder(run)).curves
    assert curves.last_step == 101
    assert all(step != 101 for step, _ in curves.loss)


def test_a_log_line_cut_short_is_left_out(run):
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "st')
    assert read_run(RunFolder(run)).curves.last_step == 100


def test_missing_worst_images_are_no_fault(run):
    (run / "eval" / "val" / "worst" / "worst.json").unlink()
    assert read_evaluation(run / "eval" / "val").worst == ()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[1, 2]", "it holds a list, wanted an object"),
        ("{}", "it has none of the scores Acc, mAcc_D, mIoU_D, ..."),
        ('{"mIoU_D": "high"}', "mIoU_D is 'high', wanted a number or null"),
        ('{"mIoU_D": 1, "per_class": 3}', "per_class is not a list of rows with a class"),
        ('{"mIoU_D": 1, "about": []}', "it holds a list, wanted an object"),
    ],
)
def test_scores_that_are_none_are_refused(run, content, fault):
    scores_path(run).write_text(content)
    with pytest.raises(InputError) as error:
        read_run(RunFolder(run))
    assert error.value.message == f"'{scores_path(run)}' is not a file that segctl wrote: {fault}"
    assert error.value.hint == "run `segctl eval` on that run again"


def test_scores_cut_short_name_the_file(run):
    scores_path(run).write_text('{"mIoU_D": 4')
    with pytest.raises(InputError) as error:
        collect([run], run.parent)
    assert error.value.message.startswith(f"cannot read '{scores_path(run)}': ")


def test_a_worst_list_without_its_files_is_refused(run):
    path = run / "eval" / "val" / "worst" / "worst.json"
    path.write_text('[{"image": "a", "mIoU_I": 3.0}]')
    with pytest.raises(InputError) as error:
        read_run(RunFolder(run))
    assert error.value.message == f"'{path}' is not a file that segctl wrote: an entry has no 'files'"


def test_a_broken_run_under_the_root_does_not_hide_the_others(run, tmp_path):
    other = make_run(tmp_path / "runs" / "two", Making(overrides=("train.steps=100",), split=None))
    scores_path(run).write_text("[]")
    found = collect([], tmp_path / "runs")
    assert [kept.label for kept in found.runs] == [other.name]
    assert found.unreadable == (
        f"'{scores_path(run)}' is not a file that segctl wrote: it holds a list, wanted an object; "
        "run `segctl eval` on that run again",
    )


def test_when_every_run_is_broken_the_first_fault_is_raised(run):
    scores_path(run).write_text("[]")
    with pytest.raises(InputError, match="is not a file that segctl wrote"):
        collect([], run.parent)


def test_no_runs_at_all(tmp_path):
    with pytest.raises(InputError) as error:
        collect([], tmp_path / "runs")
    assert error.value.message == f"there are no runs under '{tmp_path / 'runs'}'"
    assert error.value.hint == f"train one with `segctl train --preset NAME --runs-root {tmp_path / 'runs'}`, or give --runs-root"


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError) as error:
        collect([tmp_path / "photos"], tmp_path)
    assert error.value.message == f"'{tmp_path / 'photos'}' is not a run: it has no run.yaml"


def test_a_misspelt_run_gets_a_suggestion(shelf):
    with pytest.raises(InputError) as error:
        collect([shelf / "unscord"], shelf)
    assert error.value.message == f"there is no run at '{shelf / 'unscord'}', did you mean 'unscored'?"


def test_a_run_without_environment_is_read(run):
    (run / "environment.json").unlink()
    assert read_run(RunFolder(run)).environment == {}


def test_two_splits_are_read(tmp_path):
    making = Making(overrides=("train.steps=100",), images=2)
    path = make_run(tmp_path / "one", making)
    evaluate(path, replace(making, split="test"), "camvid")
    assert sorted(read_run(RunFolder(path)).evaluations) == ["test", "val"]


def as_bytes(path):
    path.write_bytes(b"\xff\xfe" + path.read_bytes())


def of_other_classes(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"class_names": np.array([f"c{index}" for index in range(len(arrays["class_names"]))])}))


BROKEN = [
    ("log.jsonl", as_bytes),
    ("log.jsonl", lambda path: path.write_text("[1]\n" + path.read_text())),
    ("log.jsonl", lambda path: path.write_text('{"event": "validation", "step": 1, "scores": 3}\n')),
    ("log.jsonl", lambda path: path.write_text('{"event": "step", "step": "x", "loss": 1}\n')),
    ("run.yaml", lambda path: path.write_text("name: 2024-02-30\n")),
    ("run.yaml", lambda path: path.write_text("? [a]\n: 1\n")),
    ("run.yaml", as_bytes),
    ("environment.json", lambda path: path.write_text("[]")),
    ("environment.json", lambda path: path.write_text('{"parameters": "many"}')),
    ("environment.json", lambda path: path.write_text('{"dataset": []}')),
    ("eval/val/scores.json", lambda path: path.write_text("[]")),
    ("eval/val/scores.json", lambda path: path.write_text("[" * 20000)),
    ("eval/val/scores.json", lambda path: path.write_text('{"mIoU_D": 1, "about": {"images": "six"}}')),
    ("eval/val/scores.json", lambda path: path.write_text('{"mIoU_D": 1, "about": {"classes": [{"name": "a", "color": [1]}]}}')),
    ("eval/val/scores.json", lambda path: path.write_text('{"mIoU_D": 1, "per_class": [{"class": ["a"]}]}')),
    ("eval/val/counts.npz", lambda path: path.write_bytes(path.read_bytes()[:-40])),
    ("eval/val/counts.npz", of_other_classes),
    ("eval/val/confusion.npz", lambda path: path.write_bytes(b"")),
    ("eval/val/worst/worst.json", lambda path: path.write_text('{"image": 1}')),
    ("eval/val/worst/worst.json", lambda path: path.write_text("[3]")),
    ("eval/val/worst/00_truth.png", lambda path: path.write_bytes(path.read_bytes()[:60])),
    ("eval/val/worst/00_error.png", Path.unlink),
]


@pytest.mark.parametrize(("name", "damage"), BROKEN)
def test_any_malformed_file_leaves_its_run_out_and_is_named(run, tmp_path, name, damage):
    other = make_run(tmp_path / "runs" / "two", Making(overrides=("train.steps=100",), split=None))
    path = next(run.glob(name.replace("00_", "*_")))
    damage(path)
    found = collect([], tmp_path / "runs")
    assert [kept.label for kept in found.runs] == [other.name]
    (sentence,) = found.unreadable
    assert str(path) in sentence
    named = collect([run, other], tmp_path / "runs")
    assert (named.runs, named.unreadable) == (found.runs, found.unreadable)


def test_counts_of_other_images_than_those_of_another_run_are_left_out(run, tmp_path):
    other = make_run(tmp_path / "runs" / "two", Making(seed=1, overrides=("train.steps=100",)))
    path = other / "eval" / "val" / "counts.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"names": np.array([f"x{index}" for index in range(len(arrays["names"]))])}))
    found = collect([], tmp_path / "runs")
    assert [kept.folder.path for kept in found.runs] == [run]
    assert f"'{path}' is not a file that segctl wrote: its classes, images or labels differ from those of" in found.unreadable[0]


def test_labels_are_one_line_and_never_the_same(tmp_path):
    short = ("train.steps=100",)
    places = [tmp_path / "x" / "runs" / "a\n\n`b`", tmp_path / "y" / "runs" / "a\n\n`b`"]
    for place in places:
        make_run(place, Making(overrides=short, split=None))
    labels = [run.label for run in collect(places, tmp_path).runs]
    assert [label.endswith(r"a\n\n'b'") for label in labels] == [True, True]
    assert len(set(labels)) == 2


def test_a_run_with_another_run_s_network_is_left_out_and_named(run, tmp_path):
    other = make_run(tmp_path / "runs" / "other", Making(seed=1, overrides=("train.steps=100",), images=3))
    about = {"run": RunFolder(other).read_run().model_dump(mode="json"), "class_names": list(CLASSES), "checksum": ""}
    for folder in (run, other):
        save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors", {"segctl": json.dumps(about)})
    found = collect([], tmp_path / "runs")
    assert [each.folder.path for each in found.runs] == [other]
    assert found.unreadable[0].startswith(f"'{run / 'model.safetensors'}' is of another run than '{run / 'run.yaml'}': its ")
