"""A view is fixed where nothing but a flip is drawn."""

from pathlib import Path

import numpy as np
import pytest

from segctl.data.batches.fixed_views import fixed_view, require_fixed, sides
from segctl.data.batches.views import draw_view
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.schema.data import DataSpec

WHOLE = DataSpec(dataset="camvid", crop=(48, 64), scale=(1, 1), flip=0.5)


@pytest.mark.parametrize("spec", [WHOLE, WHOLE.model_copy(update={"scale": (0.5, 0.5), "padding": "end", "crop": (30, 70)})])
def test_every_view_that_is_drawn_is_one_of_the_fixed_ones(spec: DataSpec) -> None:
    fixed = [fixed_view((48, 64), spec, mirrored) for mirrored in (False, True)]
    drawn = [draw_view((48, 64), spec, np.random.default_rng(seed)) for seed in range(20)]
    assert all(view in fixed for view in drawn)
    assert all(view in drawn for view in fixed)


@pytest.mark.parametrize(("flip", "found"), [(0, (False,)), (1, (True,)), (0.3, (False, True))])
def test_a_flip_leaves_one_side_or_both(flip: float, found: tuple[bool, ...]) -> None:
    assert sides(WHOLE.model_copy(update={"flip": flip})) == found


def test_a_crop_that_cuts_is_refused_with_one_that_does_not(toy_data: Path) -> None:
    dataset = open_dataset(toy_data, "camvid")
    require_fixed(dataset, "train", WHOLE, "teacher.cache")
    require_fixed(dataset, "train", WHOLE.model_copy(update={"crop": (24, 32), "scale": (0.5, 0.5)}), "teacher.cache")
    with pytest.raises(InputError) as refused:
        require_fixed(dataset, "train", WHOLE.model_copy(update={"crop": (32, 80)}), "teacher.cache")
    assert str(refused.value) == (
        "teacher.cache: got true with data.crop [32, 80], which cuts a random part out of '0001TP_00000' of 48×64; wanted a crop "
        "that covers every image; add --set data.crop=[48,80], or --set teacher.cache=false"
    )
