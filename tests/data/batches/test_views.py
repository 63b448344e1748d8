from fractions import Fraction

import cv2
import numpy as np
import pytest

from segctl.data.batches.augment import PADDING_RGB
from segctl.data.batches.views import Span, View, Views, draw_view, read_view, unlabelled_names, view_regions
from segctl.data.shards.dataset import PreparedDataset
from segctl.schema.data import DataSpec


def spec(crop: tuple[int, int], scale: tuple[float, float] = (0.5, 2.0), flip: float = 0.5) -> DataSpec:
    return DataSpec(dataset="camvid", crop=crop, scale=scale, flip=flip)


def slow_take(dataset: PreparedDataset, name: str, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The usual pipeline: resize the whole image, pad it to the crop, cut the crop, flip."""
    size = (view.columns.scaled, view.rows.scaled)
    image = cv2.resize(dataset.image(name), size, interpolation=cv2.INTER_LINEAR)
    label = dataset.label(name)[np.ix_(centres(view.rows), centres(view.columns))]
    height, width = view.crop
    down, across = max(height - size[1], 0), max(width - size[0], 0)
    pads = ((down // 2, down - down // 2), (across // 2, across - across // 2))
    image = np.stack([np.pad(image[..., c], pads, constant_values=PADDING_RGB[c]) for c in range(3)], -1)
    label = np.pad(label, pads, constant_values=255)
    here = (slice(view.rows.start, view.rows.start + height), slice(view.columns.start, view.columns.start + width))
    step = -1 if view.flip else 1
    return image[here][:, ::step], label[here][:, ::step]


def centres(span: Span) -> np.ndarray:
    """The source pixel under the centre of each scaled pixel, in exact fractions."""
    return np.array([int((Fraction(2 * pixel + 1, 2)) * Fraction(span.source, span.scaled)) for pixel in range(span.scaled)])


@pytest.mark.parametrize("crop", [(64, 96), (33, 47), (200, 200), (512, 640)])
def test_a_view_equals_the_slow_pipeline(dataset, crop):
    """Images within two grey levels and all but one pixel in a hundred within one; labels exactly.

    On genuine street frames 3 pixels in 10,000 differ by more than one level, at hard edges, by 5 at most."""
    for seed in range(24):
        name = dataset.names("train")[seed % 6]
        view = draw_view(dataset.size(name), spec(crop), np.random.default_rng(seed))
        image, label = read_view(dataset, name, view)
        wanted_image, wanted_label = slow_take(dataset, name, view)
        assert image.shape == (*crop, 3)
        assert image.dtype == label.dtype == np.uint8
        difference = np.abs(image.astype(int) - wanted_image)
        assert difference.max() <= 2
        assert (difference > 1).mean() <= 0.01
        assert np.array_equal(label, wanted_label)


def test_labels_are_opencvs_nearest_exact_but_for_its_rounding(dataset):
    for seed in range(24):
        name = dataset.names("train")[seed % 6]
        view = draw_view(dataset.size(name), spec((2000, 2000), flip=0.0), np.random.default_rng(seed))
        size = (view.columns.scaled, view.rows.scaled)
        theirs = cv2.resize(dataset.label(name), size, interpolation=cv2.INTER_NEAREST_EXACT)
        down, across = slice(view.rows.padding, -1), slice(view.columns.padding, -1)
        ours = read_view(dataset, name, view)[1][down, across][: size[1], : size[0]]
        assert (ours != theirs).mean() <= 0.02


def test_scale_one_copies_the_pixels(dataset):
    name = dataset.names("train")[0]
    view = View((100, 200), Span(300, 300, 137, 100, 0), Span(520, 520, 200, 200, 0), flip=False)
    image, label = read_view(dataset, name, view)
    assert np.array_equal(image, dataset.image(name)[137:237, 200:400])
    assert np.array_equal(label, dataset.label(name)[137:237, 200:400])


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_can_be_written_into_a_batch(dataset, flip):
    name = dataset.names("train")[1]
    view = View((150, 60), Span(120, 90, 0, 90, 30), Span(96, 72, 5, 60, 0), flip=flip)
    images, labels = np.zeros((3, 150, 60, 3), np.uint8), np.zeros((3, 150, 60), np.uint8)
    read_view(dataset, name, view, (images[1], labels[1]))
    image, label = read_view(dataset, name, view)
    assert np.array_equal(images[1], image)
    assert np.array_equal(labels[1], label)
    assert not images[[0, 2]].any()
    assert not labels[[0, 2]].any()


def test_a_flip_mirrors_image_and_label(dataset):
    name = dataset.names("train")[1]
    plain = View((150, 60), Span(120, 90, 0, 90, 30), Span(96, 72, 5, 60, 0), flip=False)
    mirrored = View(plain.crop, plain.rows, plain.columns, flip=True)
    for one, other in zip(read_view(dataset, name, plain), read_view(dataset, name, mirrored), strict=True):
        assert np.array_equal(one[:, ::-1], other)


@pytest.mark.parametrize("flip", [False, True])
def test_a_small_image_is_padded_around_its_middle(dataset, flip):
    name = dataset.names("train")[2]
    view = View((70, 91), Span(64, 64, 0, 64, 3), Span(80, 80, 0, 80, 5), flip=flip)
    image, label = read_view(dataset, name, view)
    left = 6 if flip else 5
    assert np.array_equal(label[3:67, left : left + 80], dataset.label(name)[:, :: -1 if flip else 1])
    outside = np.ones((70, 91), bool)
    outside[3:67, left : left + 80] = False
    assert (label[outside] == 255).all()
    assert (image[outside] == PADDING_RGB).all()


def test_a_nearest_label_is_the_one_under_the_pixels_centre(dataset):
    """Three pixels become two, with centres at 0.75 and 2.25; three become six, each twice."""
    name = dataset.names("train")[1]
    label = dataset.label(name)
    half = View((80, 64), Span(120, 80, 0, 80, 0), Span(96, 64, 0, 64, 0), flip=False)
    centres = np.floor((np.arange(80) + 0.5) * 1.5).astype(int), np.floor((np.arange(64) + 0.5) * 1.5).astype(int)
    assert np.array_equal(read_view(dataset, name, half)[1], label[np.ix_(*centres)])
    double = View((240, 192), Span(120, 240, 0, 240, 0), Span(96, 192, 0, 192, 0), flip=False)
    assert np.array_equal(read_view(dataset, name, double)[1], label.repeat(2, 0).repeat(2, 1))


def test_a_view_is_a_function_of_its_generator():
    one, other = (draw_view((100, 100), spec((40, 40)), np.random.default_rng([7, 1, 3])) for _ in range(2))
    assert one == other
    assert one != draw_view((100, 100), spec((40, 40)), np.random.default_rng([7, 2, 3]))


def test_scales_positions_and_flips_are_uniform():
    views = [draw_view((400, 600), spec((100, 150)), np.random.default_rng([5, seed])) for seed in range(4000)]
    scales = np.array([view.columns.scaled / 600 for view in views])
    positions = np.array([view.rows.start / max(view.rows.scaled - 100, 1) for view in views])
    for values, low, high in ((scales, 0.5, 2.0), (positions, 0.0, 1.0)):
        shares = np.histogram(values, 10, (low, high))[0] / len(views)
        assert np.abs(shares - 0.1).max() < 0.02
    assert abs(np.mean([view.flip for view in views]) - 0.5) < 0.03
    corners = [(view.rows.start == 0, view.rows.start == view.rows.scaled - 100) for view in views]
    assert np.any(corners, axis=0).all()
    starts = np.array([[view.rows.start, view.columns.start] for view in views])
    scale_free = starts / np.array([[view.rows.scaled - 100, view.columns.scaled - 150] for view in views])
    assert np.abs(np.corrcoef(np.c_[scales, scale_free].T) - np.eye(3)).max() < 0.06


def usual_view(size: tuple[int, int], crop: tuple[int, int], random: np.random.Generator) -> tuple[float, ...]:
    """As most training code draws it, written from the description: (scale, flip, and for each axis the shares of the source
    that lie before and after the crop, and of the crop that is padding on either side)."""
    scale = 0.5 + 1.5 * random.random()
    scaled = [round(side * scale) for side in size]
    padded = [max(side, wanted) for side, wanted in zip(scaled, crop, strict=True)]
    starts = [int(random.random() * (side - wanted + 1)) for side, wanted in zip(padded, crop, strict=True)]
    before = [start / side for start, side in zip(starts, scaled, strict=True)]
    padding = [(side - got) // 2 / wanted for side, got, wanted in zip(padded, scaled, crop, strict=True)]
    return scale, float(random.random() < 0.5), *before, *padding


def our_view(size: tuple[int, int], crop: tuple[int, int], random: np.random.Generator) -> tuple[float, ...]:
    view = draw_view(size, spec(crop), random)
    axes = (view.rows, view.columns)
    before = [axis.start / axis.scaled for axis in axes]
    padding = [axis.padding / wanted for axis, wanted in zip(axes, crop, strict=True)]
    return view.columns.scaled / size[1], float(view.flip), *before, *padding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((1024, 2048), (512, 1024)),
        ((375, 500), (512, 512)),
        pytest.param((2448, 2448), (512, 512), marks=pytest.mark.slow),
    ],
)
def test_what_comes_out_is_distributed_as_the_usual_pipelines(size, crop):
    """Two-sample Kolmogorov-Smirnov of scale, flip, position and padding, each alone, and the correlations of all."""
    from scipy.stats import ks_2samp  # takes half a second to import, in every process that collects the tests

    ours, usual = (
        np.array([draw(size, crop, np.random.default_rng([seed, number])) for number in range(3000)])
        for seed, draw in ((1, our_view), (2, usual_view))
    )
    for column in range(ours.shape[1]):
        assert ks_2samp(ours[:, column], usual[:, column]).pvalue > 1e-3
    alive = ours.std(0) > 0
    assert np.array_equal(alive, usual.std(0) > 0)
    assert np.abs(np.corrcoef(ours[:, alive].T) - np.corrcoef(usual[:, alive].T)).max() < 0.09


def test_the_flip_probability_is_the_specs():
    views = [draw_view((50, 50), spec((20, 20), flip=0.0), np.random.default_rng(seed)) for seed in range(50)]
    assert not any(view.flip for view in views)


def test_a_tiny_picture_keeps_a_pixel():
    view = draw_view((1, 1), spec((4, 4), scale=(0.1, 0.1)), np.random.default_rng(0))
    assert (view.rows.scaled, view.rows.shown, view.rows.padding) == (1, 1, 1)


def test_a_crop_reads_less_than_the_picture():
    """At twice the size, a crop of an eighth needs little more than an eighth of the rows and columns, and the search."""
    axis = Span(2000, 4000, 1000, 512, 0)
    (top, _, count, _), label = view_regions(View((512, 512), axis, axis, flip=False))
    assert top <= 500
    assert top + count <= 500 + 256 + 2
    assert count <= 256 + 130
    assert label == (500, 500, 256, 256)


def test_a_stepped_scale_is_one_of_the_grid_and_every_one_of_it():
    grid = spec((64, 96)).model_copy(update={"scale_step": 0.1})
    heights = {draw_view((100, 100), grid, np.random.default_rng(seed)).rows.scaled for seed in range(300)}
    assert heights == set(range(50, 201, 10))


def test_padding_at_the_end_keeps_the_picture_in_the_top_left_corner_before_the_flip(dataset):
    name = dataset.names("train")[0]
    height, width = dataset.size(name)
    at_end = spec((height + 10, width + 20), scale=(1.0, 1.0), flip=0.0).model_copy(update={"padding": "end"})
    image, label = read_view(dataset, name, draw_view((height, width), at_end, np.random.default_rng(0)))
    assert np.array_equal(image[:height, :width], dataset.image(name))
    assert np.array_equal(label[:height, :width], dataset.label(name))
    assert (label[height:] == 255).all()
    assert (label[:, width:] == 255).all()
    assert (image[height:] == PADDING_RGB).all()
    mirrored = at_end.model_copy(update={"flip": 1.0})
    image, _ = read_view(dataset, name, draw_view((height, width), mirrored, np.random.default_rng(0)))
    assert np.array_equal(image[:height, 20:], dataset.image(name)[:, ::-1])


def test_a_scale_of_nearly_one_samples_the_same_places():
    """2048 pixels become 2057: for 97 scaled pixels none starts where a source pixel does, and half a pixel aside is visible."""

    class Ramps:
        """A picture of two rows that rises and falls by 16 grey levels a column."""

        bands = 3
        pixel_type = "uint8"
        picture = np.tile(np.abs(np.arange(2048) % 30 - 15)[:, None] * 16, (2, 1, 3)).astype(np.uint8)

        def image(self, name: str, top: int = 0, left: int = 0, height: int = 2, width: int = 2048) -> np.ndarray:
            return self.picture[top : top + height, left : left + width]

        def label(self, name: str, *region: int) -> np.ndarray:
            return self.image(name, *region)[..., 0]

    whole = cv2.resize(Ramps.picture, (2057, 2), interpolation=cv2.INTER_LINEAR).astype(int)
    for start in range(0, 1034):
        image, _ = read_view(Ramps(), "", View((2, 1024), Span(2, 2, 0, 2, 0), Span(2048, 2057, start, 1024, 0), flip=False))
        assert np.abs(image - whole[:, start : start + 1024]).max() <= 1, start


def test_hidden_labels_are_chosen_by_name_and_a_smaller_share_is_part_of_a_larger_one():
    names = [f"picture-{index}" for index in range(40)]
    kept = {share: set(names) - set(unlabelled_names(names, share)) for share in (0.001, 0.125, 0.5, 1.0)}
    assert [len(each) for each in kept.values()] == [1, 5, 20, 40]
    assert kept[0.001] < kept[0.125] < kept[0.5] < kept[1.0]
    assert set(unlabelled_names(names[::-1], 0.125)) == set(names) - kept[0.125]


@pytest.mark.parametrize("augment", [(), ({"kind": "class_crop", "probability": 1}, {"kind": "copy_paste", "probability": 0})])
def test_an_unlabelled_picture_keeps_its_pixels_and_loses_its_label(dataset, augment):
    plain = DataSpec(dataset="camvid", crop=(32, 48), augment=augment)
    half = Views.of(dataset, "train", plain.model_copy(update={"labelled": 0.5}))
    names = dataset.names("train")
    assert 0 < len(half.unlabelled) < len(names)
    assert not half.unlabelled & {name for found in half.holders.values() for name in found}
    for name in names:
        _, image, label = half.read(name, np.random.default_rng(1))
        if name in half.unlabelled:
            view = draw_view(dataset.size(name), plain, np.random.default_rng(1))  # no class is looked for
            np.testing.assert_array_equal(image, read_view(dataset, name, view)[0])
            assert (label == 255).all()
        else:
            assert (label != 255).any()
