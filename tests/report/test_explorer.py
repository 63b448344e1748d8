"""Pictures come from the dataset, saved predictions or the network, fit the counts, and are packed without loss."""

import io
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.evaluate.draw_masks import write_index
from segctl.ignored import IGNORED
from segctl.report import write_report
from segctl.report.collect import read_run
from segctl.report.explorer.album import (
    Budget,
    choose_pictures,
    collect_album,
    jpeg,
    longest_px,
    pack_map,
    reduced_image,
    reduced_map,
    unpack_map,
)
from segctl.report.explorer.maps import NetworkTimes, UnfitMapsError, drawn_images, find_prepared, label_maps
from segctl.report.groups import comparisons_of
from segctl.runs import RunFolder
from tests.report.run_folders import CLASSES, COLORS, Making, make_run, scene


class ToyDataset:
    """What a report reads of a prepared dataset, with the scenes of the made runs."""

    fingerprint, splits = Making().fingerprint, {"val": [f"seq{index // 4:02d}/frame_{index:05d}" for index in range(6)]}

    class classes:  # noqa: N801
        names = CLASSES
        binary = False

        @staticmethod
        def palette():
            table = np.zeros((256, 3), np.uint8)
            table[: len(COLORS)] = COLORS
            return table

    def names(self, split):
        return self.splits[split]

    def label(self, name):
        return scene(self.splits["val"].index(name), Making())[0]

    def image(self, name):
        return np.repeat(self.label(name)[..., None], 3, -1)


@pytest.fixture
def toy(monkeypatch):
    found = ToyDataset()
    monkeypatch.setattr("segctl.data.shards.dataset.find_dataset", lambda root, name: found)
    return found


def saved(path, making):
    """A made run whose evaluation kept its label maps."""
    run = make_run(path, making)
    for index, name in enumerate(ToyDataset.splits["val"]):
        target = run / "eval" / "val" / "predictions" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_index(target, scene(index, making)[1])
    return read_run(RunFolder(run))


def test_a_label_map_survives_packing():
    for shape in ((1, 1), (7, 5), (64, 48)):
        ids = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        assert np.array_equal(unpack_map(pack_map(ids), *shape), ids)


def test_packing_by_hand():
    """Rows 1 2 and 1 3: the second is stored as 0 (1 xor 1) and 1 (2 xor 3)."""
    assert zlib.decompress(pack_map(np.array([[1, 2], [1, 3]], np.uint8))) == bytes([1, 2, 0, 1])


def test_pictures_shrink_to_the_budget_and_ids_are_never_mixed():
    ids = np.where(np.arange(3000) < 1500, 0, 9).astype(np.uint8)[None].repeat(1500, 0)
    small = reduced_map(ids, 512)
    assert small.shape == (256, 512)
    assert set(np.unique(small)) == {0, 9}
    assert reduced_image(np.zeros((3000, 10, 3), np.uint8), 512).shape == (512, 2, 3)
    assert reduced_map(np.zeros((5, 4), np.uint8), 512).shape == (5, 4)
    assert Image.open(io.BytesIO(jpeg(np.zeros((5, 4, 3), np.uint8)))).size == (4, 5)
    assert longest_px(40) > longest_px(500)


def test_the_largest_gains_and_losses_of_the_pair_are_kept(read):
    names = [f"i{index}" for index in range(100)]
    gains = {name: float(index if index % 2 else -index) for index, name in enumerate(names)}
    pair = (read["jml-s0"], read["none-s0"])
    scores = {"jml-s0": gains, "none-s0": dict.fromkeys(names, 0.0)}
    chosen = choose_pictures(names, scores, pair, [], Budget(10))
    assert len(chosen) == 10
    assert {"i99", "i97", "i98", "i96"} <= set(chosen)
    assert chosen == sorted(chosen, key=names.index)
    assert choose_pictures(names, scores, pair, [], Budget(None)) == names
    assert len(choose_pictures(names, {}, None, [], Budget(7))) == 7


def test_saved_predictions_are_shown_without_a_network(toy, tmp_path):
    run = saved(tmp_path / "runs" / "a", Making())
    maps = list(label_maps(run, run.evaluations["val"], toy, toy.names("val")))
    assert all(np.array_equal(found, scene(index, Making())[1]) for index, found in enumerate(maps))


def test_label_maps_that_were_not_scored_are_refused(toy, tmp_path):
    """Another seed's predictions in the folder: the counts tell."""
    run = saved(tmp_path / "runs" / "a", Making())
    other = saved(tmp_path / "runs" / "b", Making(seed=5))
    mixed = replace(run, folder=other.folder)
    with pytest.raises(UnfitMapsError, match="is not the one that was scored"):
        list(label_maps(mixed, run.evaluations["val"], toy, toy.names("val")))


def test_the_page_keeps_every_picture_once_and_says_what_is_missing(toy, tmp_path):
    run = saved(tmp_path / "runs" / "a", Making())
    saved(tmp_path / "runs" / "b", Making(seed=1))
    gone = tmp_path / "runs" / "c"
    make_run(gone, Making(method="kd"))  # its model.pt is not a network
    found = write_report([], tmp_path / "runs", tmp_path / "r.md", budget=Budget(None, tmp_path))
    text = found.web.read_text(encoding="utf-8")
    assert text.count('id="picture-1-') == 6
    assert "`c` has no predictions here: " in found.path.read_text(encoding="utf-8")
    first = text.split('id="picture-1-0">')[1].split("<")[0].split("|")
    assert len(first) == 2 + 3
    assert sorted(map(bool, first)) == [False, True, True, True, True]
    assert run.label in text


def test_no_pictures_and_one_picture_can_be_asked_for(toy, tmp_path):
    saved(tmp_path / "runs" / "a", Making())
    for count, wanted in ((0, 0), (1, 1)):
        web = write_report([], tmp_path / "runs", tmp_path / "r.md", budget=Budget(count, tmp_path)).web
        assert web.read_text(encoding="utf-8").count('id="picture-') == wanted


def test_without_the_dataset_worst_images_are_read_back(read):
    images, classes = drawn_images([read["none-s0"], read["jml-s0"]], "val")
    assert [name for name, _ in classes] == list(CLASSES)
    for name, found in images.items():
        index = int(name[-5:])
        assert np.array_equal(found.truth, scene(index, Making())[0])
        for label, prediction in found.predictions.items():
            skill = 0.8 if label == "jml-s0" else 0.7
            assert np.array_equal(prediction, scene(index, Making(skill=skill))[1])


def test_an_evaluation_without_colours_still_has_pictures(shelf, tmp_path):
    run = make_run(tmp_path / "runs" / "old", Making())
    path = run / "eval" / "val" / "scores.json"
    tree = json.loads(path.read_text())
    del tree["about"]["classes"]
    path.write_text(json.dumps(tree))
    images, classes = drawn_images([read_run(RunFolder(run))], "val")
    assert images
    assert all(name.startswith("colour ") for name, _ in classes)
    assert all((found.truth != IGNORED).all() for found in images.values())


def test_another_dataset_of_that_name_is_not_shown(toy, read):
    toy.fingerprint = "another"
    found = find_prepared([], read["none-s0"].evaluations["val"], "camvid")
    assert found == "the runs do not say where the dataset 'camvid' is: give --data-root"
    found = find_prepared([Path("data")], read["none-s0"].evaluations["val"], "camvid")
    assert found == "the dataset 'camvid' under 'data' is not the one that was scored"


def test_a_budget_of_pictures_holds_without_the_dataset(read):
    (found, *_) = comparisons_of([read["none-s0"], read["jml-s0"]])
    positions = {"none-s0": 0, "jml-s0": 1}
    album = collect_album(found, None, None, positions, None, Budget(2)).album
    assert album is not None
    assert len(album.pictures) == 2
    assert album.runs == (("none-s0", 0), ("jml-s0", 1))


def test_the_first_image_does_not_count_for_the_time():
    assert NetworkTimes("cpu", [900.0, 1.0, 2.0, 3.0, 4.0]).median == 2.5
    assert NetworkTimes("cpu", [900.0, 1.0]).median is None
