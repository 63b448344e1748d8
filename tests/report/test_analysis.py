"""What counts say of groups, held against the scores' own functions."""

from dataclasses import replace

import numpy as np
import pytest

from segctl.metrics.scores import per_image, score
from segctl.report.analysis import compared, confusion_table, difference_table, image_table, interval_text, measure
from segctl.report.groups import comparisons_of


@pytest.fixture(scope="module")
def camvid(read):
    runs = [read[name] for name in ("none-s0", "none-s1", "jml-s0", "jml-s1")]
    (found,) = comparisons_of(runs)
    return found


@pytest.fixture(scope="module")
def measured(camvid):
    return measure(camvid)


def text(cell):
    return cell.text


def test_an_interval_holds_the_score_it_is_of(camvid, measured):
    for each in measured:
        for name in ("mIoU_D", "mIoU_I", "mIoU_C"):
            found = each.intervals.scores[name]
            assert found.low <= each.group.score(name).mean <= found.high


def test_a_distilled_group_is_compared_with_its_undistilled_student(measured):
    ((label, groups),) = compared(measured)
    assert label == "camvid-psp18-scratch · none"
    assert [each.group.method for each in groups] == ["jml"]


def test_a_difference_is_that_of_the_means_over_seeds(measured):
    none, jml = (each.group for each in measured)
    first = difference_table([measured[1]]).rows[0]
    gain = jml.score("mIoU_D").mean - none.score("mIoU_D").mean
    assert text(first[0]) == "mIoU_D"
    assert text(first[1]).startswith(f"{gain:+.2f} [")


def test_a_difference_to_itself_is_zero_without_a_minus_sign(camvid):
    none = camvid.groups[0]
    twin = replace(none, label="twin")
    _, each = measure(replace(camvid, groups=(none, twin)))
    assert {text(row[1]) for row in difference_table([each]).rows} <= {"+0.00 [+0.00, +0.00]", "n/a"}


def test_images_show_the_mean_over_seeds(camvid, measured):
    found = image_table(measured)
    tables = camvid.groups[0].counts
    rows = [per_image(table)[2] for table in tables]
    assert found.images[2] == rows[0]["image"]
    assert found.columns[0].miou_i[2] == pytest.approx(np.mean([row["mIoU_I"] for row in rows]))
    assert found.columns[0].iou[2][0] == pytest.approx(np.mean([row[f"IoU.{found.classes[0]}"] for row in rows]))


def test_a_mix_up_costs_what_correcting_it_brings(camvid, measured):
    run = camvid.groups[1].runs[0].evaluations["val"]
    alone = replace(measured[1], group=replace(camvid.groups[1], runs=(camvid.groups[1].runs[0],)), tables=(run.counts,))
    (name, cost), *_ = [tuple(map(text, row)) for row in confusion_table([alone]).rows]
    truth, prediction = name.split(" → ")
    classes = run.counts.class_names
    pixels = run.confusion[classes.index(truth), classes.index(prediction)]
    counts = run.counts.counts.copy()
    counts[0, classes.index(truth)] += (pixels, 0, -pixels)  # in any image: D is over all of them
    counts[0, classes.index(prediction)] -= (0, pixels, 0)
    after = score(replace(run.counts, counts=counts))["mIoU_D"]
    assert float(cost) == pytest.approx(after - run.scores["mIoU_D"], abs=0.005)


def test_every_group_shows_the_cost_of_a_mix_up_that_is_dear_to_one(measured):
    both, second = confusion_table(measured), confusion_table([measured[1]])
    alone = {text(row[0]): text(row[1]) for row in second.rows}
    shared = [row for row in both.rows if text(row[0]) in alone]
    assert shared
    for row in shared:
        assert text(row[2]) == alone[text(row[0])]


def test_runs_without_counts_are_left_out(camvid):
    bare = [replace(run, evaluations={"val": replace(run.evaluations["val"], counts=None)}) for run in camvid.groups[1].runs]
    found = replace(camvid, groups=(camvid.groups[0], replace(camvid.groups[1], runs=tuple(bare))))
    (only,) = measure(found)
    assert only.group.method == "none"
    assert interval_text([only], found.groups[1]) == "n/a"
