"""The first screen: who is shown, which numbers, what the gain means in words, and which picture."""

from dataclasses import replace

import pytest

from segctl.report import sections, write_report
from segctl.report.analysis import measure
from segctl.report.collect import collect, read_run
from segctl.report.explorer.maps import NetworkTimes
from segctl.report.gains import Gain, better, beyond_seeds, gain
from segctl.report.groups import comparisons_of
from segctl.report.headline import first_of, gain_in_words, sentence, tiles, trio_of
from segctl.runs import RunFolder
from tests.report.run_folders import ENSEMBLE, SHORT, TEACHER, Making, group_of, make_run, put


def trio_from(groups):
    runs = [run for group in groups for run in group.runs]
    (comparison,) = comparisons_of(runs)
    return trio_of(comparison, runs), measure(comparison)


def test_the_gain_over_seeds_is_said_with_its_noise(tmp_path):
    """Gains of 1.0, 1.1 and 0.9: mean 1, standard error 0.0577, times 4.303 is 0.25."""
    trio, measured = trio_from(group_of(tmp_path, {"none": [50.0, 51.0, 52.0], "kd": [51.0, 52.1, 52.9]}))
    assert gain_in_words(trio, measured) == (
        "+1.00 points of mIoU_D by distillation",
        "95 % interval over 3 seeds [+0.75, +1.25]: beyond the noise of seeds.",
    )


def test_noise_and_losses_are_called_so(tmp_path):
    trio, measured = trio_from(group_of(tmp_path / "a", {"none": [50.0, 60.0], "kd": [51.0, 62.0]}))
    assert "within the noise of seeds, so it shows no difference" in gain_in_words(trio, measured)[1]
    trio, measured = trio_from(group_of(tmp_path / "b", {"none": [50.0, 51.0, 52.0], "kd": [49.0, 50.1, 50.9]}))
    assert gain_in_words(trio, measured)[1].endswith("beyond the noise of seeds, and a loss.")


def test_one_seed_says_that_the_noise_of_seeds_is_unknown(tmp_path):
    trio, measured = trio_from(group_of(tmp_path, {"none": [50.0], "kd": [51.0]}))
    points, meaning = gain_in_words(trio, measured)
    assert points == "+1.00 points of mIoU_D by distillation"
    assert meaning.startswith(
        "One seed each: whether another seed would show the same is not known. Over images its 95 % interval is ["
    )


def test_the_best_of_many_is_called_flattered(tmp_path):
    trio, measured = trio_from(group_of(tmp_path, {"none": [50.0], "kd": [51.0], "jml": [54.0], "dist": [40.0]}))
    assert trio.distilled.method == "jml"
    assert "the best of 3 distilled students" in gain_in_words(trio, measured)[1]


def test_bold_needs_seeds():
    assert not beyond_seeds(Gain(9.0, None, None, (0,)))
    assert beyond_seeds(Gain(-1.0, -2.0, -0.5, (0, 1)))
    assert not better(Gain(-1.0, -2.0, -0.5, (0, 1)))
    assert not better(None)


@pytest.mark.parametrize("file", ["model.pt", "model.safetensors"])
def test_the_teacher_is_found_among_the_runs_and_on_the_disk(file, tmp_path):
    teacher = make_run(tmp_path / "t" / "teacher", Making(preset="camvid-dl101-scratch", skill=0.95))
    record = {**TEACHER, "run": str(teacher / file)}
    make_run(tmp_path / "runs" / "kd", Making(method="kd", overrides=SHORT, teacher=record))
    runs = collect([], tmp_path / "runs").runs
    (comparison,) = comparisons_of(runs)
    trio = trio_of(comparison, runs)
    assert trio.teacher is not None
    assert trio.teacher.folder.path == teacher
    assert trio.teacher_group is None  # it is not among the runs of this report
    tile = tiles(trio, measure(comparison), {run.label: 0 for run in runs}, {}).tiles[0]
    value = trio.teacher.evaluations["val"].scores["mIoU_D"]
    assert (tile.score, tile.note) == (f"{value:.2f}", "on 6 images, according to its own run")
    both = (*runs, read_run(RunFolder(teacher)))
    (comparison,) = comparisons_of(both)
    found = trio_of(comparison, both).teacher_group
    assert found is not None
    assert found.spec.name == "camvid-dl101-scratch"


def test_an_ensemble_is_no_single_run_and_its_tile_has_the_score_of_the_check(tmp_path):
    make_run(tmp_path / "runs" / "kd", Making(method="kd", overrides=SHORT, teacher=ENSEMBLE))
    runs = collect([], tmp_path / "runs").runs
    (comparison,) = comparisons_of(runs)
    trio = trio_of(comparison, runs)
    assert trio.teacher is None
    tile = tiles(trio, measure(comparison), {run.label: 0 for run in runs}, {}).tiles[0]
    assert (tile.name, tile.score) == ("a + b", "54.00")


def test_tiles_show_what_is_known_and_nothing_else(tmp_path):
    groups = group_of(tmp_path, {"none": [50.0], "kd": [51.0]})
    put(groups[1].runs[0].folder.environment, cost={"parameters": 9_500_000, "gflop": 12.34, "size": [360, 480]})
    put(groups[0].runs[0].folder.environment, cost=None)  # a run of an older version
    groups = [replace(group, runs=tuple(read_run(run.folder) for run in group.runs)) for group in groups]
    trio, measured = trio_from(groups)
    positions = {run.label: index for index, group in enumerate(groups) for run in group.runs}
    clocks = {groups[1].runs[0].label: NetworkTimes("cpu", [9.0, 2.0, 2.0, 2.0, 2.0])}
    found = tiles(trio, measured, positions, clocks).tiles
    assert [tile.role for tile in found] == ["teacher", "undistilled", "distilled"]
    assert (found[0].score, found[0].note) == ("52.31", "on 32 images, the check before training")
    assert found[0].facts == ()
    assert dict(found[1].facts) == {"parameters": "12.79 M", "file": "0.0 MB"}
    assert dict(found[2].facts) == {
        "parameters": "9.50 M", "GFLOP at 360×480": "12.3", "ms an image (cpu, here)": "2", "file": "0.0 MB",
    }  # fmt: skip


def test_a_run_alone_has_the_same_screen(read):
    runs = [read["none-s0"]]
    (comparison,) = comparisons_of(runs)
    trio = trio_of(comparison, runs)
    found = tiles(trio, measure(comparison), {"none-s0": 0}, {})
    assert [tile.role for tile in found.tiles] == ["this student"]
    assert (found.gain, found.meaning) == ("", "")


def test_what_was_done_is_one_sentence(read, shelf):
    collection = collect([shelf / "none-s0", shelf / "jml-s0"], shelf)
    trio = first_of(comparisons_of(collection.runs), collection.runs)
    assert sentence(trio, collection) == (
        "camvid-psp18-scratch (pspnet on resnet18d) was trained for 800 steps, once without a teacher and once with jml from the "
        "teacher camvid-dl101-scratch, and scored on 6 images of camvid / val."
    )
    collection = collect([shelf / "unscored"], shelf)
    assert sentence(first_of([], collection.runs), collection) == "1 run of training; no run has been evaluated yet."


@pytest.mark.parametrize("names", [("none-s0",), ("jml-s0",), ("none-s0", "jml-s1"), ("city-none", "jml-s0")])
def test_any_part_of_a_story_opens_with_a_sentence_and_tiles(names, shelf, tmp_path):
    written = write_report([shelf / name for name in names], shelf, tmp_path / "r.md")
    text = written.path.read_text(encoding="utf-8")
    assert text.index("was trained for") < text.index("| role") < text.index("\n## ")
    assert '<div class="tiles">' in written.web.read_text(encoding="utf-8")


def test_the_row_shows_the_picture_of_the_largest_gain(shelf, tmp_path, read):
    names = ("none-s0", "jml-s0")
    written = write_report([shelf / name for name in names], shelf, tmp_path / "r.md")
    text = written.path.read_text(encoding="utf-8")
    (comparison,) = written.comparisons
    found = gain(comparison.groups[1], comparison.groups)
    assert found is not None
    shared = set.intersection(*({worst.image for worst in read[name].evaluations["val"].worst} for name in names))
    scores = {name: read[name].evaluations["val"].counts for name in names}

    def miou(name, image):
        counts = scores[name].rows([image]).counts[0].astype(float)
        seen = counts[:, [0, 2]].sum(-1) > 0
        return 100 * (counts[seen, 0] / counts[seen].sum(-1)).mean()

    gains = {image: miou("jml-s0", image) - miou("none-s0", image) for image in shared}
    best = max(gains, key=gains.__getitem__)
    assert f"{best} of camvid / val: image, truth, undistilled, distilled" in text
    assert f"({gains[best]:+.2f} mIoU_I)" in text


@pytest.mark.parametrize(("points", "words"), [(0.49, "gains most over"), (-0.49, "loses least to")])
def test_a_student_that_gains_on_no_picture_loses_least_on_the_one_shown(points, words, shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "most_improved", lambda trio, album: (album.pictures[0], points))
    written = write_report([shelf / "none-s0", shelf / "jml-s0"], shelf, tmp_path / "r.md")
    wanted = f"where the distilled student {words} the undistilled one ({points:+.2f} mIoU_I)"
    assert wanted in written.path.read_text(encoding="utf-8")
