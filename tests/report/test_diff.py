"""Two runs: by class, image, size of region and boundary, better or worse, and beyond noise or not."""

import json

import numpy as np
import pytest

from segctl.cli import main
from segctl.errors import InputError
from segctl.ignored import IGNORED
from segctl.metrics.intervals import Difference
from segctl.report import write_diff
from segctl.report.diff import BETTER, SAME, WORSE, distance_bands, region_bins, verdict
from segctl.report.explorer.album import Budget
from tests.report.run_folders import Making, make_run
from tests.report.test_explorer import saved, toy  # noqa: F401


def test_verdicts():
    assert verdict(Difference(1.0, 0.1, 2.0)) == BETTER
    assert verdict(Difference(-1.0, -2.0, -0.1)) == WORSE
    assert verdict(Difference(1.0, 0.0, 2.0)) == SAME
    assert verdict(None) == "n/a"


def test_regions_by_hand():
    """In 1,000 pixels one pixel is 0.1 % (second bin), a column of 20 is 2 %, the ignored row is not a region."""
    truth = np.zeros((20, 50), np.uint8)
    truth[3, 3], truth[:, 30], truth[-1] = 1, 2, IGNORED
    bins = region_bins(truth, 3)
    assert bins[3, 3] == 1
    assert set(bins[:-1, 30]) == {2}
    assert set(bins[-1]) == {IGNORED}
    assert bins[0, 0] == 3  # background left of the column: 60 % of the image


def test_regions_are_connected_areas_and_not_classes():
    truth = np.zeros((100, 100), np.uint8)
    truth[10:20, 10:20] = truth[50:52, 50:52] = 1
    bins = region_bins(truth, 2)
    assert bins[15, 15] == 2  # 100 of 10,000 pixels are 1 %
    assert bins[50, 50] == 0  # 4 of 10,000 pixels


def slow_bands(truth, classes, near, far):
    """Chebyshev distance to a pixel of another class, pixel by pixel; the edge of the image is not a contour."""
    height, width = truth.shape
    bands = np.full(truth.shape, IGNORED, np.uint8)
    for y in range(height):
        for x in range(width):
            if truth[y, x] >= classes:
                continue
            found = [
                max(abs(y - v), abs(x - u))
                for v in range(height)
                for u in range(width)
                if truth[v, u] < classes and truth[v, u] != truth[y, x]
            ]
            bands[y, x] = 0 if min(found) <= near else 1 if min(found) <= far else 2
    return bands


def test_bands_are_distances_from_a_contour(monkeypatch):
    monkeypatch.setattr("segctl.report.diff.boundary_distance", lambda height, width: 4)
    truth = np.zeros((18, 24), np.uint8)
    truth[:, 12:] = 1
    truth[2:4, 3:6] = IGNORED
    assert np.array_equal(distance_bands(truth, 2), slow_bands(truth, 2, 1, 4))


def test_a_better_run_is_better_everywhere_and_the_page_says_so(toy, tmp_path):  # noqa: F811
    saved(tmp_path / "runs" / "weak", Making(skill=0.5))
    saved(tmp_path / "runs" / "strong", Making(skill=0.95, overrides=("train.steps=90",)))
    runs, budget = tmp_path / "runs", Budget(None, tmp_path)
    written = write_diff(runs / "weak", runs / "strong", runs, tmp_path / "d.md", budget=budget)
    (found,) = written.diffs
    assert found.scores[0].verdict == BETTER
    assert {row.verdict for row in (*found.sizes, *found.boundary)} >= {BETTER}
    assert WORSE not in {row.verdict for row in (*found.scores, *found.classes, *found.sizes, *found.boundary)}
    assert list(found.images.values()) == sorted(found.images.values(), reverse=True)
    text = written.path.read_text(encoding="utf-8")
    for heading in ("Classes", "Sizes of regions", "Boundary", "Images", "Explorer"):
        assert f"## {heading}, camvid / val" in text
    assert "`train.steps`: " in text
    assert "**" not in text  # a single seed is never bold


def test_shares_of_right_pixels_are_those_counted_pixel_by_pixel(toy, tmp_path):  # noqa: F811
    from tests.report.run_folders import scene

    weak, strong = Making(skill=0.6), Making(skill=0.9)
    saved(tmp_path / "runs" / "weak", weak)
    saved(tmp_path / "runs" / "strong", strong)
    runs, budget = tmp_path / "runs", Budget(0, tmp_path)
    (found,) = write_diff(runs / "weak", runs / "strong", runs, tmp_path / "d.md", budget=budget).diffs
    for column, making in (("first", weak), ("second", strong)):
        right, total = np.zeros(4), np.zeros(4)
        for index in range(6):
            truth, prediction = scene(index, making)
            bins = region_bins(truth, 8)
            for number in range(4):
                right[number] += ((bins == number) & (prediction == truth)).sum()
                total[number] += (bins == number).sum()
        for row, hits, pixels in zip(found.sizes, right, total, strict=True):
            value = getattr(row, column)
            assert value is None if not pixels else value == pytest.approx(100 * hits / pixels)


def test_without_label_maps_the_counts_are_compared_and_the_rest_is_named(tmp_path):
    for name, skill in (("a", 0.5), ("b", 0.9)):
        make_run(tmp_path / "runs" / name, Making(skill=skill))
    (found,) = write_diff(tmp_path / "runs" / "a", tmp_path / "runs" / "b", tmp_path, tmp_path / "d.md").diffs
    assert found.sizes == found.boundary == ()
    assert found.classes
    assert "no scores by size of region or at the boundary: " in (tmp_path / "d.md").read_text(encoding="utf-8")


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    runs = tmp_path / "runs"
    make_run(runs / "a", Making())
    make_run(runs / "b", Making(fingerprint="other"))
    make_run(runs / "c", Making(split=None))
    for other in ("b", "c"):
        with pytest.raises(InputError, match="are not both scored on the same images"):
            write_diff(runs / "a", runs / other, runs, tmp_path / "d.md")
    with pytest.raises(InputError, match="are the same run"):
        write_diff(runs / "a", runs / "a", runs, tmp_path / "d.md")
    with pytest.raises(InputError, match="split 'vall', did you mean 'val'"):
        write_diff(runs / "a", make_run(runs / "d", Making(seed=1)), runs, tmp_path / "d.md", split="vall")
    assert not (tmp_path / "d.md").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--diff"], "error: --diff compares two runs, got 0\n"),
        (["--diff", "a", "b", "c"], "error: --diff compares two runs, got 3\n"),
        (["--pictures", "-1"], "error: --pictures '-1' is not a number of pictures\n"),
        (["--pictures", "many"], "error: --pictures 'many' is not a number of pictures\n"),
    ],
)
def test_wrong_options_are_one_sentence(arguments, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_the_command_writes_diff_md_and_tells_programs_the_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, skill in (("a", 0.5), ("b", 0.9)):
        make_run(tmp_path / "runs" / name, Making(skill=skill))
    assert main(["report", "--diff", "runs/a", "runs/b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (diff,) = found["diffs"]
    assert diff["scores"][0]["name"] == "mIoU_D"
    assert diff["scores"][0]["verdict"] == BETTER
    assert main(["report", "--diff", "runs/a", "runs/b"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["diff.md", "diff.html"]
