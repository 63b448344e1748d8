"""Class maps at the label's size under every protocol, and the same integers however the work is shared."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import CLASSES, TwoLayers, toy_run

from segctl.data.packed import open_dataset
from segctl.engine.device import choose_compute
from segctl.engine.evaluate import Scoring, count_images, count_split, predict, tile_starts
from segctl.metrics.counts import count
from segctl.metrics.table import merge
from segctl.models import upsample
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol

CPU = choose_compute("cpu", "fp32")


def images(height: int = 20, width: int = 31, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (number, height, width, 3), generator=generator, dtype=torch.uint8)


def network() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers().eval()


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 31, 48, 100])
def test_tiles_cover_a_side_and_stay_inside(length: int) -> None:
    starts = tile_starts(max(length, 16), 16, 2 / 3)
    covered = np.zeros(max(length, 16), bool)
    for start in starts:
        assert 0 <= start <= max(length, 16) - 16
        covered[start : start + 16] = True
    assert covered.all()


def test_the_tiles_of_a_cityscapes_frame_are_those_of_the_recipe() -> None:
    assert tile_starts(1024, 512, 0.6667) == [0, 342, 512]
    assert tile_starts(2048, 1024, 0.6667) == [0, 683, 1024]


def test_whole_protocol_is_the_argmax_of_the_upsampled_logits() -> None:
    model, pictures = network(), images()
    with torch.no_grad():
        wanted = upsample(model(model.normalize(pictures)).logits, (20, 31)).argmax(1)
    assert torch.equal(predict(model, pictures, EvaluateSpec(), CPU), wanted.to(torch.uint8))


def test_one_tile_as_large_as_the_image_is_the_whole_protocol() -> None:
    sliding = EvaluateSpec(protocol=SlidingProtocol(tile=(20, 31)))
    assert torch.equal(predict(network(), images(), sliding, CPU), predict(network(), images(), EvaluateSpec(), CPU))


def test_sliding_averages_the_logits_of_all_tiles_over_a_pixel() -> None:
    model, pictures = network(), images(24, 32, 1)
    total, hits = torch.zeros(1, CLASSES, 24, 32), torch.zeros(24, 32)
    with torch.no_grad():
        for y in (0, 8):
            for x in (0, 11, 16):
                tile = pictures[:, y : y + 16, x : x + 16]
                total[:, :, y : y + 16, x : x + 16] += upsample(model(model.normalize(tile)).logits, (16, 16))
                hits[y : y + 16, x : x + 16] += 1
    wanted = (total / hits).argmax(1)
    found = predict(model, pictures, EvaluateSpec(protocol=SlidingProtocol(tile=(16, 16))), CPU)
    assert torch.equal(found, wanted.to(torch.uint8))


def test_an_image_smaller_than_a_tile_is_centred_on_mean_colour() -> None:
    model, pictures = network(), images(20, 31)
    padded = torch.tensor([124, 116, 104], dtype=torch.uint8).expand(2, 64, 64, 3).clone()
    padded[:, 22:42, 16:47] = pictures
    with torch.no_grad():
        logits = upsample(model(model.normalize(padded)).logits, (64, 64))
    found = predict(model, pictures, EvaluateSpec(protocol=SlidingProtocol(tile=(64, 64))), CPU)
    assert torch.equal(found, logits[:, :, 22:42, 16:47].argmax(1).to(torch.uint8))


def test_flip_makes_the_prediction_of_a_mirrored_image_the_mirrored_prediction() -> None:
    both = EvaluateSpec(flip=True)
    model, pictures = network(), images(24, 32)
    assert torch.equal(predict(model, pictures.flip(2), both, CPU), predict(model, pictures, both, CPU).flip(2))


def test_several_scales_give_a_prediction_at_the_image_size() -> None:
    assert predict(network(), images(), EvaluateSpec(scales=(0.5, 1.0, 1.75)), CPU).shape == (2, 20, 31)


def test_counts_are_those_of_each_image_alone(toy_data: Path) -> None:
    dataset, model = open_dataset(toy_data, "camvid"), network()
    names = dataset.names("val")
    counted = count_images(model, dataset, names, Scoring(EvaluateSpec(), CPU))
    for index, name in enumerate(names):
        prediction = predict(model, torch.from_numpy(dataset.image(name))[None], EvaluateSpec(), CPU)
        alone = count(prediction.numpy(), dataset.label(name)[None], CLASSES)[0]
        assert (counted.table.counts[index] == alone).all()
    assert counted.confusion.sum() == counted.table.valid_pixels.sum()


def test_any_sharing_of_the_images_gives_the_same_integers(toy_data: Path) -> None:
    dataset, model = open_dataset(toy_data, "camvid"), network()
    how = Scoring(EvaluateSpec(), CPU)
    whole = count_split(model, dataset, "val", how)
    for size in (2, 3):
        parts = [count_images(model, dataset, dataset.names("val")[rank::size], how) for rank in range(size)]
        table = merge([part.table for part in parts], order=dataset.names("val"))
        assert (table.counts == whole.table.counts).all()
        assert (sum(part.confusion for part in parts) == whole.confusion).all()


def test_scoring_puts_the_network_back_into_its_mode(toy_data: Path) -> None:
    model = network().train()
    count_split(model, open_dataset(toy_data, "camvid"), "val", Scoring(toy_run().evaluate, CPU))
    assert model.training
