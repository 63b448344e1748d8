"""The same integers however the work is batched, shared, stopped and taken up again, and everything that is counted."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import CLASSES, TwoLayers, toy_run

from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import StoppedError
from segctl.evaluate.count_images import Extras, Scoring, count_images, count_split
from segctl.evaluate.partial_results import PartialResults
from segctl.evaluate.predictor import class_probabilities, predict_classes
from segctl.metrics.boundary import boundary_counts
from segctl.metrics.calibration import fill_bins
from segctl.metrics.counts import count
from segctl.metrics.table import merge_tables
from segctl.metrics.tally import EvaluationCounts, MapCounter
from segctl.runtime.device import choose_compute
from segctl.runtime.signals import Requests
from segctl.runtime.world import World
from segctl.schema.evaluate import EvaluateSpec

CPU = choose_compute("cpu", "fp32")
HOW = Scoring(EvaluateSpec(), CPU)


def network() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers().eval()


@pytest.fixture
def dataset(toy_data: Path) -> PreparedDataset:
    return open_dataset(toy_data, "camvid")


def test_counts_are_those_of_each_image_alone(dataset: PreparedDataset) -> None:
    model, names = network(), dataset.names("val")
    counted = count_images(model, dataset, names, HOW)
    for index, name in enumerate(names):
        prediction = predict_classes(model, torch.from_numpy(dataset.image(name))[None], EvaluateSpec(), CPU)
        alone = count(prediction.numpy(), dataset.label(name)[None], CLASSES)[0]
        assert (counted.table.counts[index] == alone).all()
    assert counted.confusion.sum() == counted.table.valid_pixels.sum()


def test_any_sharing_of_the_images_gives_the_same_integers(dataset: PreparedDataset) -> None:
    model = network()
    whole = count_split(model, dataset, "val", HOW)
    for size in (2, 3):
        parts = [count_images(model, dataset, dataset.names("val")[rank::size], HOW) for rank in range(size)]
        table = merge_tables([part.table for part in parts], order=dataset.names("val"))
        assert (table.counts == whole.table.counts).all()
        assert (sum(part.confusion for part in parts) == whole.confusion).all()


def test_scoring_puts_the_network_back_into_its_mode(dataset: PreparedDataset) -> None:
    model = network().train()
    count_split(model, dataset, "val", Scoring(toy_run().evaluate, CPU))
    assert model.training


def assert_same(one: EvaluationCounts, other: EvaluationCounts) -> None:
    assert one.table.names == other.table.names
    assert (one.table.counts == other.table.counts).all()
    assert (one.confusion == other.confusion).all()


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_any_batch_gives_the_same_integers(batch: int, dataset: PreparedDataset) -> None:
    model = network()
    assert_same(
        count_split(model, dataset, "val", Scoring(EvaluateSpec(), CPU, batch=batch)), count_split(model, dataset, "val", HOW)
    )


def test_images_bring_their_drive_along(dataset: PreparedDataset) -> None:
    assert dataset.groups is not None
    found = count_split(network(), dataset, "val", HOW).table
    assert found.groups == tuple(dataset.groups[name] for name in found.names)


def test_calibration_boundaries_and_predictions_are_those_of_each_image(dataset: PreparedDataset) -> None:
    model, saved = network(), {}
    extras = Extras(calibration=True, maps=MapCounter(CLASSES, boundary=True), save=lambda name, ids: saved.update({name: ids}))
    found = count_split(model, dataset, "val", Scoring(EvaluateSpec(), CPU, batch=2, extras=extras))
    assert found.calibration is not None
    assert found.boundary is not None
    for index, name in enumerate(found.table.names):
        image, label = torch.from_numpy(dataset.image(name))[None], dataset.label(name)
        probabilities = class_probabilities(model, image, EvaluateSpec(), CPU)
        prediction = predict_classes(model, image, EvaluateSpec(), CPU)[0].numpy()
        bins = fill_bins(probabilities, torch.from_numpy(label)[None])[0].numpy()
        np.testing.assert_allclose(found.calibration.bins[index], bins, rtol=1e-6)
        assert (found.boundary.counts[index] == boundary_counts(prediction, label, CLASSES)).all()
        assert (saved[name] == prediction).all()


class Counting(TwoLayers):
    """Knows how often it was asked, and asks to be stopped after some images."""

    def __init__(self, requests: Requests, stop_after: int) -> None:
        super().__init__()
        self.requests, self.stop_after, self.asked = requests, stop_after, 0

    def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
        self.asked += 1
        if self.asked == self.stop_after:
            self.requests.stop = signal.SIGINT
        return super().forward(images)


def counting(requests: Requests, stop_after: int = -1) -> Counting:
    torch.manual_seed(0)
    return Counting(requests, stop_after).eval()


def stop(dataset: PreparedDataset, folder: Path, after: int) -> None:
    requests = Requests()
    with pytest.raises(StoppedError) as error:
        count_split(counting(requests, after), dataset, "val", HOW, partial=PartialResults(folder, {"a": 1}, requests))
    assert error.value.exit_code == 130
    assert error.value.message == f"stopped by SIGINT after {after - 1} more images"


def test_a_stopped_evaluation_goes_on_and_counts_no_image_twice(dataset: PreparedDataset, tmp_path: Path) -> None:
    stop(dataset, tmp_path, after=3)
    stop(dataset, tmp_path, after=2)
    model = counting(Requests())
    found = count_split(model, dataset, "val", HOW, partial=PartialResults(tmp_path, {"a": 1}))
    assert model.asked == 5 - 2 - 1
    assert_same(found, count_split(network(), dataset, "val", HOW))


def test_a_fully_counted_evaluation_needs_the_network_no_more(dataset: PreparedDataset, tmp_path: Path) -> None:
    first = count_split(network(), dataset, "val", HOW, partial=PartialResults(tmp_path, {"a": 1}))
    model = counting(Requests())
    assert_same(count_split(model, dataset, "val", HOW, partial=PartialResults(tmp_path, {"a": 1})), first)
    assert model.asked == 0


def test_what_was_kept_of_other_weights_is_not_taken_up(dataset: PreparedDataset, tmp_path: Path) -> None:
    count_split(network(), dataset, "val", HOW, partial=PartialResults(tmp_path, {"weights": "old"}))
    model = counting(Requests())
    count_split(model, dataset, "val", HOW, partial=PartialResults(tmp_path, {"weights": "new"}))
    assert model.asked == 5


def test_a_killed_evaluation_has_saved_now_and_then(dataset: PreparedDataset, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        count_split(network(), dataset, "val", HOW, kill, PartialResults(tmp_path, {"a": 1}, every_s=0))
    (part,) = PartialResults(tmp_path, {"a": 1}).resume(World())
    assert len(part.table.names) == 2


def test_parts_are_gone_once_cleared(dataset: PreparedDataset, tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "parts", {})
    count_split(network(), dataset, "val", HOW, partial=partial)
    partial.clear()
    assert not (tmp_path / "parts").exists()
