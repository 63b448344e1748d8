"""Class maps at the label's size under every protocol."""

import numpy as np
import pytest
import torch
from toy import CLASSES, TwoLayers

from segctl.evaluate.predictor import best_classes, class_probabilities, predict_classes, tile_starts
from segctl.models import Prediction, upsample
from segctl.models.normalize import Normalizing
from segctl.runtime.device import choose_compute
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol, protocol_in_words, protocol_slug

CPU = choose_compute("cpu", "fp32")


def images(height: int = 20, width: int = 31, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (number, height, width, 3), generator=generator, dtype=torch.uint8)


def network() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers().eval()


class Sixteen(Normalizing):
    """Three bands of uint16; keeps what it saw, normalised, and calls every pixel class 0."""

    pixel_type = "uint16"
    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.remember_pixels([0.5] * 3, [0.25] * 3)

    def forward(self, images: torch.Tensor) -> Prediction:
        self.seen = images
        return Prediction(torch.stack([images[:, 0], images[:, 0] - 1], 1), None, None)


def test_small_images_of_sixteen_bits_are_padded_with_the_mean_of_their_bands() -> None:
    """ImageNet's colour is that of 8 bits: in 16 bits it would be black."""
    sixteen, black = Sixteen(), torch.zeros(1, 2, 2, 3, dtype=torch.uint16)
    protocol = EvaluateSpec(protocol=SlidingProtocol(tile=(4, 4)))
    assert predict_classes(sixteen, black, protocol, CPU).shape == (1, 2, 2)
    wanted = torch.zeros(1, 3, 4, 4)
    wanted[:, :, 1:3, 1:3] = -2  # (0 - 0.5) / 0.25
    torch.testing.assert_close(sixteen.seen, wanted, atol=1e-4, rtol=0)


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
    assert torch.equal(predict_classes(model, pictures, EvaluateSpec(), CPU), wanted.to(torch.uint8))


def test_one_tile_as_large_as_the_image_is_the_whole_protocol() -> None:
    sliding = EvaluateSpec(protocol=SlidingProtocol(tile=(20, 31)))
    assert torch.equal(
        predict_classes(network(), images(), sliding, CPU), predict_classes(network(), images(), EvaluateSpec(), CPU)
    )


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
    found = predict_classes(model, pictures, EvaluateSpec(protocol=SlidingProtocol(tile=(16, 16))), CPU)
    assert torch.equal(found, wanted.to(torch.uint8))


def test_an_image_smaller_than_a_tile_is_centred_on_mean_colour() -> None:
    model, pictures = network(), images(20, 31)
    padded = torch.tensor([124, 116, 104], dtype=torch.uint8).expand(2, 64, 64, 3).clone()
    padded[:, 22:42, 16:47] = pictures
    with torch.no_grad():
        logits = upsample(model(model.normalize(padded)).logits, (64, 64))
    found = predict_classes(model, pictures, EvaluateSpec(protocol=SlidingProtocol(tile=(64, 64))), CPU)
    assert torch.equal(found, logits[:, :, 22:42, 16:47].argmax(1).to(torch.uint8))


def test_flip_makes_the_prediction_of_a_mirrored_image_the_mirrored_prediction() -> None:
    both = EvaluateSpec(flip=True)
    model, pictures = network(), images(24, 32)
    assert torch.equal(predict_classes(model, pictures.flip(2), both, CPU), predict_classes(model, pictures, both, CPU).flip(2))


def test_several_scales_give_a_prediction_at_the_image_size() -> None:
    assert predict_classes(network(), images(), EvaluateSpec(scales=(0.5, 1.0, 1.75)), CPU).shape == (2, 20, 31)


@pytest.mark.parametrize("spec", [EvaluateSpec(), EvaluateSpec(flip=True, scales=(0.5, 1.0))])
def test_probabilities_add_up_to_one_and_their_argmax_is_the_prediction(spec: EvaluateSpec) -> None:
    model, pictures = network(), images()
    found = class_probabilities(model, pictures, spec, CPU)
    assert found.shape == (2, CLASSES, 20, 31)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 20, 31))
    assert torch.equal(found.argmax(1).to(torch.uint8), predict_classes(model, pictures, spec, CPU))


def test_probabilities_of_several_views_are_their_mean() -> None:
    model, pictures = network(), images(24, 32)
    both = class_probabilities(model, pictures, EvaluateSpec(flip=True), CPU)
    plain = class_probabilities(model, pictures, EvaluateSpec(), CPU)
    mirrored = class_probabilities(model, pictures.flip(2), EvaluateSpec(), CPU).flip(3)
    torch.testing.assert_close(both, (plain + mirrored) / 2)


@pytest.mark.parametrize(
    ("spec", "words", "slug"),
    [
        (EvaluateSpec(), "whole image, single scale, no flip", "whole"),
        (EvaluateSpec(flip=True, scales=(0.5, 1.0)), "whole image, scales 0.5, 1, with flip", "whole+scales-0.5-1+flip"),
        (EvaluateSpec(protocol=SlidingProtocol(tile=(512, 1024), stride=0.5)),
         "sliding 512×1024 tiles, stride 0.5 of a tile, single scale, no flip", "sliding-512x1024-0.5"),
    ],
)  # fmt: skip
def test_a_protocol_is_named_in_words_and_in_folders(spec: EvaluateSpec, words: str, slug: str) -> None:
    assert (protocol_in_words(spec), protocol_slug(spec)) == (words, slug)


def test_a_protocol_of_many_scales_still_names_a_folder() -> None:
    many = tuple(1 + index / 100 for index in range(80))
    slugs = {protocol_slug(EvaluateSpec(scales=scales)) for scales in (many, many[1:])}
    assert len(slugs) == 2
    assert all(len(slug) <= 80 and slug.startswith("whole+") for slug in slugs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_best_class_is_argmax_s_where_several_are_equal(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 3, (2, 7, 9, 11), generator=generator).to(dtype)
    scores[0, :, 0, 0] = -torch.inf
    scores[1, [2, 5], 0, 0] = torch.nan
    for given in (scores, scores.to(memory_format=torch.channels_last)):
        assert torch.equal(best_classes(given), given.argmax(1).to(torch.uint8))
    assert best_classes(torch.tensor([[[[1.0]], [[4.0]], [[4.0]]]])).tolist() == [[[1]]]
