import os
import shutil
import signal
from itertools import islice

import numpy as np
import pytest
import torch

from segctl.data.batches.loader import Batch, evaluation_samples, rank_share, training_batches
from segctl.data.batches.views import draw_view, read_view
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError, SegctlError
from segctl.schema.data import DataSpec

VIEW = DataSpec(dataset="camvid", crop=(48, 64))


def batches(dataset, first=0, last=5, workers=0, **others) -> list[Batch]:
    stream = {"view": VIEW, "batch_size": 4, "seed": 3} | others
    return list(training_batches(dataset, "train", first_step=first, last_step=last, workers=workers, **stream))


def same(one: list[Batch], other: list[Batch]) -> bool:
    assert [batch.names for batch in one] == [batch.names for batch in other]
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


@pytest.fixture(scope="module")
def wanted(packed_root):
    return batches(open_dataset(packed_root, "camvid"))


def test_batches_are_uint8_in_the_crops_size(wanted):
    assert wanted[0].images.shape == (4, 48, 64, 3)
    assert wanted[0].labels.shape == (4, 48, 64)
    assert wanted[0].images.dtype == wanted[0].labels.dtype == torch.uint8


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("workers", "method"),
    [
        (1, "fork"),
        (2, "fork"),
        (4, "fork"),
        pytest.param(1, "spawn", marks=pytest.mark.slow),
        pytest.param(2, "forkserver", marks=pytest.mark.slow),
        pytest.param(4, "spawn", marks=pytest.mark.slow),
    ],
)
def test_any_number_of_workers_gives_the_same_batches(dataset, wanted, workers, method):
    dataset.image(dataset.names("train")[0])  # the shard is open here before the workers start
    assert same(batches(dataset, workers=workers, start_method=method), wanted)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_share_each_global_batch(dataset, wanted, size):
    shares = [batches(dataset, rank=rank, size=size) for rank in range(size)]
    for step, batch in enumerate(wanted):
        for rank in range(size):
            assert shares[rank][step].names == batch.names[rank::size]
            assert torch.equal(shares[rank][step].images, batch.images[rank::size])


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_later_gives_the_tail(dataset, wanted, workers):
    assert same(batches(dataset, first=3, workers=workers), wanted[3:])


def test_starting_late_is_instant(dataset):
    assert len(batches(dataset, first=10**9, last=10**9 + 1)[0].names) == 4


def test_every_epoch_shows_every_sample_once(dataset):
    names = [name for batch in batches(dataset, last=6) for name in batch.names]
    train = dataset.names("train")
    epochs = [names[start : start + len(train)] for start in range(0, len(names), len(train))]
    assert all(sorted(epoch) == sorted(train) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_sample_is_seen_differently_in_each_epoch(dataset):
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in batches(dataset, last=3):
        for name, image in zip(batch.names, batch.images, strict=True):
            seen.setdefault(name, []).append(image)
    assert all(not torch.equal(views[0], views[1]) for views in seen.values())


def test_a_seed_changes_order_and_views(dataset, wanted):
    other = batches(dataset, seed=4)
    assert [batch.names for batch in other] != [batch.names for batch in wanted]


def test_a_sample_depends_on_seed_epoch_and_index_alone(dataset, wanted):
    train, order = dataset.names("train"), np.random.default_rng([3, 0]).permutation(6)
    index = int(order[2])
    view = draw_view(dataset.size(train[index]), VIEW, np.random.default_rng([3, 0, index]))
    image, label = read_view(dataset, train[index], view)
    assert wanted[0].names[2] == train[index]
    assert np.array_equal(wanted[0].images[2].numpy(), image)
    assert np.array_equal(wanted[0].labels[2].numpy(), label)


def test_loading_leaves_torchs_randomness_alone(dataset):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    batches(dataset, last=1, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_larger_than_the_split_is_refused(dataset):
    with pytest.raises(InputError) as caught:
        batches(dataset, batch_size=7)
    sentence = "train.batch_size: got 7, wanted at most 6, the images of split 'train' of 'camvid'"
    assert str(caught.value) == f"{sentence}; add --set train.batch_size=6"


def test_a_batch_smaller_than_the_processes_is_refused(dataset):
    with pytest.raises(InputError) as caught:
        batches(dataset, batch_size=2, size=3)
    assert (
        str(caught.value)
        == "train.batch_size: got 2, wanted at least 3, one image for each process; add --set train.batch_size=3"
    )


def test_refusals_come_before_the_first_batch_is_asked_for(dataset):
    with pytest.raises(InputError):
        training_batches(dataset, "train", view=VIEW, batch_size=99, seed=0, first_step=0, last_step=1, workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_whole_samples_in_order(dataset, workers):
    names = dataset.names("train")
    samples = list(evaluation_samples(dataset, names, workers=workers))
    assert [sample.name for sample in samples] == names
    for sample in samples:
        assert np.array_equal(sample.image.numpy(), dataset.image(sample.name))
        assert np.array_equal(sample.label.numpy(), dataset.label(sample.name))


def test_ranks_evaluate_each_name_once():
    names = [f"{number}" for number in range(7)]
    shares = [rank_share(names, rank, 3) for rank in range(3)]
    assert shares == [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    assert rank_share(names, 0, 1) == names


def test_signals_for_the_run_do_not_stop_a_worker(dataset, wanted):
    stream = training_batches(dataset, "train", view=VIEW, batch_size=4, seed=3, first_step=0, last_step=10**6, workers=1)
    received = [next(stream)]
    for process in torch.multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(process.pid, number)
    received += islice(stream, 4)
    assert same(received, wanted)


def test_a_killed_worker_is_one_sentence(dataset):
    stream = training_batches(dataset, "train", view=VIEW, batch_size=4, seed=0, first_step=0, last_step=10**6, workers=1)
    next(stream)
    for process in torch.multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(SegctlError) as caught:
        list(islice(stream, 100))
    assert caught.value.exit_code == 1
    assert caught.value.message.startswith("a loader process died (")
    assert "set data.workers to 0" in caught.value.hint


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_named_by_its_own_sentence(packed_root, tmp_path, workers):
    shutil.copytree(packed_root / "camvid", tmp_path / "camvid")
    damaged = open_dataset(tmp_path, "camvid")
    shard = tmp_path / "camvid" / damaged.shards[0]
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(SegctlError) as caught:
        batches(damaged, workers=workers)
    assert caught.value.message.endswith(f"cannot be read from '{shard}': the file is damaged")
