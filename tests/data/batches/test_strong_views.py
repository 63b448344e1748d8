"""Strong views: where their pixels come from, and that neither workers nor processes nor the start change them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

from segctl.data.batches.loader import Batch, training_batches
from segctl.data.batches.strong_views import StrongViews, draw_rectangle, strong_views
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.ignored import IGNORED
from segctl.schema.data import DataSpec
from segctl.schema.semi import FixMatchSpec, SemiBase


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> PreparedDataset:
    return open_dataset(toy_data, "camvid")


def batches(dataset: PreparedDataset, semi: SemiBase, first: int = 0, last: int = 4, **how: Any) -> list[Batch]:
    view = DataSpec.model_validate(
        toy.PRESET["data"] | {"labelled": 0.5, "unlabelled": {"split": None, "per_batch": 4}, **how.pop("view", {})}
    )
    options: dict[str, Any] = {"batch_size": 4, "seed": 5, "workers": 0} | how
    return list(training_batches(dataset, "train", view=view, first_step=first, last_step=last, semi=semi, **options))


def same(first: Batch, second: Batch) -> bool:
    pairs = [(first.images, second.images)]
    for name in ("images", "real", "pasted", "others"):
        pairs.append((getattr(first.strong, name), getattr(second.strong, name)))
    return all(torch.equal(*pair) for pair in pairs)


def test_without_any_change_a_strong_view_is_the_weak_one(dataset):
    for batch in batches(dataset, FixMatchSpec(augment=(), cutmix=0)):
        assert batch.strong is not None
        assert torch.equal(batch.strong.images[:, 0], batch.images[4:])
        assert torch.equal(batch.strong.real[:, 0], batch.unlabelled[4:])
        assert batch.strong.pasted is None
        assert batch.strong.others is None


def test_a_rectangle_comes_from_the_next_picture_of_the_batch(dataset):
    for batch in batches(dataset, FixMatchSpec(augment=(), cutmix=1), view={"crop": [64, 80]}):
        weak, real, strong = batch.images[4:], batch.unlabelled[4:], batch.strong
        assert not real.all()  # the crop is larger than the pictures
        assert torch.equal(strong.others, weak.roll(-1, 0))
        pasted = strong.pasted[:, 0]
        share = pasted.flatten(1).float().mean(1)
        assert ((share > 0.015) & (share < 0.42)).all()
        assert torch.equal(strong.images[:, 0], torch.where(pasted.unsqueeze(-1), strong.others, weak))
        assert torch.equal(strong.real[:, 0], torch.where(pasted, real.roll(-1, 0), real))


def test_colours_change_and_places_stay(dataset):
    plain, semi = FixMatchSpec(augment=(), cutmix=0), FixMatchSpec(cutmix=0)
    for ours, theirs in zip(batches(dataset, semi), batches(dataset, plain), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.strong.real, theirs.strong.real)
        assert not torch.equal(ours.strong.images, theirs.strong.images)


def test_covered_pixels_do_not_count(dataset):
    semi = FixMatchSpec.model_validate({"augment": [{"kind": "cutout", "probability": 1, "size": [0.5, 0.5]}], "cutmix": 0})
    for batch in batches(dataset, semi):
        covered = batch.unlabelled[4:] & ~batch.strong.real[:, 0]
        assert (covered.flatten(1).float().mean(1) > 0.1).all()


def test_pixels_pasted_with_a_label_count_as_ones_without(dataset):
    """copy_paste brings labelled pixels into a picture without label; the teacher sees them as any other."""
    for batch in batches(dataset, FixMatchSpec(), view={"augment": [{"kind": "copy_paste", "probability": 1}]}):
        assert (batch.labels[4:] == IGNORED).all()


def test_workers_processes_and_a_late_start_change_nothing(dataset):
    semi = FixMatchSpec(cutmix=1)
    whole = batches(dataset, semi)
    assert all(map(same, batches(dataset, semi, first=2), whole[2:]))
    assert all(map(same, batches(dataset, semi, workers=2), whole))
    shares = [batches(dataset, semi, rank=rank, size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        for rank in range(2):
            for name in ("images", "real", "pasted", "others"):
                assert torch.equal(getattr(shares[rank][step].strong, name), getattr(batch.strong, name)[rank::2])
    other = batches(dataset, semi, seed=6)
    assert not any(map(same, other, whole))


def test_by_hand_two_pictures_of_four_pixels():
    """Grey levels 1 and 2; the rectangle of the first view is found by drawing it again."""
    weak = {position: (np.full((2, 2, 3), position + 1, np.uint8), np.zeros((2, 2), np.uint8)) for position in (0, 1)}
    semi = FixMatchSpec(augment=(), cutmix=1)

    def random(position: int, view: int) -> np.random.Generator:
        return np.random.default_rng(position)

    found = strong_views(semi, [0, 1], lambda position: 1 - position, weak.__getitem__, random, (0, 0, 0))
    drawn = np.random.default_rng(0)
    drawn.random()
    place = draw_rectangle((2, 2), drawn)
    wanted = np.ones((2, 2), np.uint8)
    wanted[place] = 2
    assert (found.images[0, 0].numpy() == wanted[..., None]).all()
    assert (found.pasted[0, 0].numpy() == (wanted == 2)).all()
    assert weak[0][0].max() == 1  # the weak view stays


def test_rectangles_lie_inside_whatever_the_size():
    random = np.random.default_rng(3)
    for size in ((1, 1), (1, 40), (7, 3), (360, 480)):
        for _ in range(50):
            rows, columns = draw_rectangle(size, random)
            assert 0 <= rows.start < rows.stop <= size[0]
            assert 0 <= columns.start < columns.stop <= size[1]


def test_blank_views_have_the_shapes_of_real_ones(dataset):
    for semi in (FixMatchSpec(), FixMatchSpec(cutmix=0)):
        real = batches(dataset, semi, last=1)[0].strong
        blank = StrongViews.blank(semi, 4, (32, 48), 3)
        for name in ("images", "real", "pasted", "others"):
            ours, theirs = getattr(blank, name), getattr(real, name)
            assert (ours is None) == (theirs is None)
            assert ours is None or (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
