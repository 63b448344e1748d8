"""docs/add-a-dataset.md: a dataset works after exactly these steps, and does not if one of them is left out."""

from pathlib import Path

import numpy as np
import pytest
from page_steps import Step, commands_of, copy_repository, run, steps_of
from PIL import Image

PAGE = "add-a-dataset.md"
STEPS = steps_of(PAGE)
LISTED, PREPARED, CHECKED, TESTED = commands_of(PAGE)


def draw_rooms(folder: Path) -> None:
    """The example as it would be published: three images for training, two for validation."""
    random = np.random.default_rng(0)
    for split, count in (("training", 3), ("validation", 2)):
        images, labels = folder / "images" / split, folder / "annotations" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).save(images / f"{split}{number}.jpg")
            Image.fromarray(random.integers(0, 4, (24, 32), np.uint8)).save(labels / f"{split}{number}.png")


def prepare(folder: Path, steps: list[Step]) -> None:
    """Do the steps in a copy, then list, prepare and check the dataset by the page's commands."""
    copy_repository(folder)
    draw_rooms(folder / "rooms")
    for step in steps:
        step.perform(folder)
    assert "rooms.example.org" in run(folder, LISTED)
    assert run(folder, PREPARED).startswith("rooms: train 3, val 2; ")
    assert run(folder, CHECKED) == "rooms: every sample is as it was packed\n"


def prepare_and_test(folder: Path, steps: list[Step]) -> None:
    prepare(folder, steps)
    run(folder, TESTED)


@pytest.mark.slow
def test_the_steps_make_a_dataset_that_is_prepared(tmp_path: Path) -> None:
    assert len(STEPS) == 3
    prepare(tmp_path, STEPS)


@pytest.mark.slow
def test_the_steps_make_a_dataset_that_is_tested(tmp_path: Path) -> None:
    prepare_and_test(tmp_path, STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("left_out", range(len(STEPS)))
def test_without_one_of_the_steps_there_is_no_dataset(left_out: int, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        prepare_and_test(tmp_path, [step for number, step in enumerate(STEPS) if number != left_out])
