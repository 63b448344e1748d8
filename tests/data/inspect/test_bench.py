import numpy as np
import pytest

from segctl.data.batches.views import draw_view, read_view
from segctl.data.datasets import open_source
from segctl.data.inspect.bench import Encoded, bench, bytes_read, common_pipeline, decode_encoded, encode
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.schema.data import DataSpec

SPEC = DataSpec(dataset="camvid", crop=(64, 96))


def test_what_is_measured_adds_up(dataset):
    found = bench(dataset, "train", (48, 64), samples=6, workers=1)
    assert (found.dataset, found.codec, found.crop, found.samples) == ("camvid", "lz4", (48, 64), 6)
    assert found.rates.keys() == found.start_s.keys() == {0, 1}
    assert min(*found.rates.values(), found.shards_ms, found.common_ms, found.decode_ms, found.bytes_read) > 0
    assert found.times_faster == found.common_ms / found.shards_ms
    assert found.decoded == "PNG copies in memory"


def test_the_crop_fits_the_pictures_where_none_is_given(dataset):
    assert bench(dataset, "val", None, samples=1, workers=1).crop == (120, 96)


def test_the_sources_own_pictures_are_decoded_where_it_is_given(dataset, source):
    opened = open_source("camvid", [source])
    name = dataset.names("train")[0]
    assert encode(dataset, name, opened).image == (source / "train" / f"{name}.png").read_bytes()
    assert bench(dataset, "train", (48, 64), samples=1, workers=1, source=opened).decoded.startswith("the source's pictures")


def test_encoding_and_decoding_change_nothing(dataset):
    name = dataset.names("train")[0]
    image, label = decode_encoded(encode(dataset, name, None))
    assert np.array_equal(image, dataset.image(name))
    assert np.array_equal(label, dataset.label(name))


def test_the_common_pipeline_gives_the_same_view(dataset):
    """Normalised to mean and deviation; where the crop is padded it is the mean itself and ours its nearest grey level."""
    for seed in range(12):
        name = dataset.names("train")[seed % 6]
        view = draw_view(dataset.size(name), SPEC, np.random.default_rng(seed))
        files: Encoded = encode(dataset, name, None)
        theirs, _ = common_pipeline(files, view)
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        levels = theirs.transpose(1, 2, 0) * std + mean
        difference = np.abs(levels - read_view(dataset, name, view)[0])
        assert (difference > 1.5).mean() <= 0.02


def test_the_bytes_a_view_reads_are_those_of_its_tiles(dataset):
    """A small crop of the largest picture reads less than all of it, and all of it what is stored."""
    name = max(dataset.samples, key=lambda name: dataset.size(name))
    shard = dataset.samples[name].shard
    whole = sum(dataset.reader.bytes_read(shard, group, name, (0, 0, *dataset.size(name))) for group in ("images", "labels"))
    small = DataSpec(dataset="camvid", crop=(8, 8), scale=(2.0, 2.0))
    views = [draw_view(dataset.size(name), small, np.random.default_rng(seed)) for seed in range(10)]
    assert all(0 < bytes_read(dataset, name, view) <= whole for view in views)
    assert min(bytes_read(dataset, name, view) for view in views) < whole / 2


def test_no_samples_are_refused(dataset):
    with pytest.raises(InputError) as caught:
        bench(open_dataset(dataset.folder.parent, "camvid"), "train", None, samples=0, workers=1)
    assert caught.value.message == "--samples is 0 and split 'train' has 6, wanted at least one of each"
