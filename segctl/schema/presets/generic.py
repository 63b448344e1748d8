"""A preset without a dataset, fitted to one: splits, crop, batch, steps and evaluation protocol.

The rules give the values of the shipped presets, or close ones, for the datasets that those are made for: the crop of CamVid is
its whole picture, that of Cityscapes 512×1024; CamVid's 367 images are seen 200 times, and Cityscapes has 40,000 steps.
Whatever the preset or `--set` says stays as it is.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from segctl.errors import InputError, did_you_mean
from segctl.schema.data import Size
from segctl.schema.load import find_preset, generic_names, preset_names, read_tree
from segctl.schema.messages import Tree

SHORT_SIDE, WIDEST = 512, 2
"""Pixels of the shorter side of the largest crop, and how many times as long its longer side may be."""
SMALLEST_SIDE = 64
"""Pixels of the smallest side of a crop: the coarsest feature maps are 32 times smaller."""
GRID = 32
"""Sides of crops that are not a picture's own are multiples of this, the largest stride of the networks."""
PATCH = 14
"""The output stride of plain transformers that is not a divisor of GRID; it is the side of their patches."""
EPOCHS = 200
FEWEST_STEPS, MOST_STEPS, MOST_STEPS_OF_MANY = 2_000, 40_000, 80_000
MANY_CLASSES = 100
USUAL_BATCH = 8
VALIDATIONS, CHECKPOINTS = 10, 40
"""How many a run has."""
STRIDE = 0.6667
VAL_NAMES = ("val", "valid", "validation", "dev", "eval")


@dataclass(frozen=True)
class DatasetFacts:
    """What fitting needs to know of a prepared dataset. splits: the (H, W) of every picture of each split."""

    name: str
    splits: Mapping[str, Sequence[Size]]
    classes: int


@cache
def preset_of(base: str, dataset: str) -> str:
    """The name that a generic preset has on a dataset: of the preset shipped for this dataset, else `DATASET-BASE`.

    A shipped preset of that name for other data, such as voc-dl101 on voc-sbd-wins, gives way to `DATASET-plain-BASE`.
    """
    if (shipped := shipped_for(base, dataset)) is not None:
        return shipped
    name = f"{dataset}-{base}"
    return f"{dataset}-plain-{base}" if name in preset_names() else name


@cache
def shipped_for(base: str, dataset: str) -> str | None:
    """The shipped preset of the same network and recipe that is made for this dataset: camvid-fast for fast and camvid."""
    same = [name for name in preset_names() if name.endswith(f"-{base}")]
    return next((name for name in same if read_tree(find_preset(name))["data"]["dataset"] == dataset), None)


def preset_arguments(preset: str, dataset: str) -> list[str]:
    """The options of `segctl train` that make a run of a preset: `--preset dl101 --data streets` for streets-dl101."""
    if preset not in preset_names():
        for base in generic_names():
            if preset_of(base, dataset) == preset:
                return ["--preset", base, "--data", dataset]
    return ["--preset", preset]


def fit_to(tree: Tree, written: Tree, facts: DatasetFacts) -> list[str]:
    """Fill in place what a generic preset leaves open, and return the reasons in sentences.

    tree: the preset with its changes.  written: the preset as its file has it.
    Raises InputError where the dataset has no splits for training and validation, or one class only.
    """
    if facts.classes < 2:
        raise InputError(
            f"dataset '{facts.name}' has a single class, so there is nothing to tell apart",
            "give the rest a class too: prepare it again with a second row, such as background, in its class table",
        )
    data, train, evaluate = (_block(tree, key) for key in ("data", "train", "evaluate"))
    reasons = []
    _name(tree, written, facts.name)
    data["dataset"] = facts.name
    reasons += _choose_splits(data, facts)
    sizes = _sizes(facts, data["train_split"])
    crop, why = crop_for(sizes)
    if patched := _block(tree, "model").get("output_stride") == PATCH:
        crop = (_up(crop[0], PATCH), _up(crop[1], PATCH))
        why += f"; its sides are multiples of {PATCH}, the side of a patch"
    if "crop" not in data:
        data["crop"] = list(crop)
        reasons.append(f"crop {_words(crop)}: {why}")
    crop = _size(data["crop"]) or crop
    if train.get("batch_size") == "auto":
        del train["batch_size"]
        train["accumulate"] = "auto"  # the batch is fitted to the images, and its parts to the memory
    if "batch_size" not in train:
        train["batch_size"] = min(USUAL_BATCH, _power_of_two(len(sizes)))
        if train["batch_size"] < USUAL_BATCH:
            reasons.append(f"batch {train['batch_size']}: '{data['train_split']}' has {_images(len(sizes))}")
    batch = _whole(train["batch_size"]) or USUAL_BATCH
    if train.get("epochs") is None and train.get("steps") is None:
        train["steps"], why = steps_for(len(sizes), batch, facts.classes)
        reasons.append(why)
    steps = _whole(train.get("steps")) or _steps_of(train.get("epochs"), len(sizes), batch)
    train.setdefault("validate_every", math.ceil(steps / VALIDATIONS))
    train.setdefault("checkpoint_every", math.ceil(steps / CHECKPOINTS))
    return reasons + _choose_protocol(evaluate, crop, _sizes(facts, data["val_split"]), patched)


def crop_for(sizes: Sequence[Size]) -> tuple[Size, str]:
    """The training crop for pictures of these (H, W), and why, in words.

    The whole picture up to 512×1024, else a piece of its shape, at most twice as long as wide; a square where some pictures are
    upright and others are not.
    """
    usual, times = Counter(sizes).most_common(1)[0]
    same = times == len(sizes)
    if same:
        height, width = usual
        what = f"every picture is {_words(usual)}"
    elif min(sum(h > w for h, w in sizes), sum(h < w for h, w in sizes)) > len(sizes) / 10:
        height = width = round(median(max(size) for size in sizes))
        what = f"some pictures are upright and others are not, and their median longer side is {height}"
    else:
        height, width = (round(median(size[axis] for size in sizes)) for axis in (0, 1))
        what = f"the median picture is {_words((height, width))}"
    short, long = min(height, width), max(height, width)
    wanted = min(short, SHORT_SIDE)
    if short <= SHORT_SIDE and long <= WIDEST * wanted:
        sides = (short, long) if same else (_up(short), _up(long))
        why = what
    else:
        sides = (wanted if same else _up(wanted), min(_up(wanted * min(long / short, WIDEST)), max(long, SMALLEST_SIDE)))
        why = f"{what}; a crop has at most {SHORT_SIDE}×{WIDEST * SHORT_SIDE} pixels and is at most twice as long as wide"
    if min(sides) < SMALLEST_SIDE:
        why += f"; no side of a crop is shorter than {SMALLEST_SIDE}"
    low, high = (max(side, SMALLEST_SIDE) for side in sides)
    return ((low, high) if height <= width else (high, low)), why


def steps_for(images: int, batch: int, classes: int) -> tuple[int, str]:
    """The steps of a run on this many images, and why, in words: 200 epochs, within bounds."""
    most = MOST_STEPS_OF_MANY if classes >= MANY_CLASSES else MOST_STEPS
    steps = math.ceil(EPOCHS * images / batch)
    bounded = min(max(steps, FEWEST_STEPS), most)
    sum_ = f"{EPOCHS} epochs × {_images(images)} / batch {batch}"
    if bounded == steps:
        return steps, f"steps {steps:,}: {sum_}"
    bound = "fewest" if bounded > steps else f"most with {classes} classes"
    return bounded, f"steps {bounded:,}, the {bound}: {sum_} would be {steps:,}"


def _block(tree: Tree, key: str) -> Tree:
    """The block of a preset to fill; one that is not a mapping stays, and the schema will refuse it."""
    if tree.get(key) is None:
        tree[key] = {}
    block: Any = tree[key]
    return block if isinstance(block, dict) else {}


def _name(tree: Tree, written: Tree, dataset: str) -> None:
    """Write the dataset into the run, and ask for a teacher on it."""
    base = written.get("name")
    if isinstance(base, str) and tree.get("name") == base:
        tree["name"] = preset_of(base, dataset)
    teacher, before = tree.get("teacher"), written.get("teacher")
    if not isinstance(teacher, dict):
        return
    preset = teacher.get("preset")
    as_written = isinstance(before, dict) and before.get("preset") == preset
    if isinstance(preset, str) and (as_written or preset in generic_names()):
        teacher["preset"] = preset_of(preset, dataset)


def _choose_splits(data: Tree, facts: DatasetFacts) -> list[str]:
    """Fill train_split and val_split; sentences where they are not called train and val."""
    reasons = []
    if "train_split" not in data:
        found = [name for name in facts.splits if name.startswith("train")]
        data["train_split"] = "train" if "train" in found or not found else found[0]
        if data["train_split"] != "train":
            reasons.append(f"training split '{data['train_split']}' of {', '.join(found)}")
    _sizes(facts, data["train_split"])
    if "val_split" not in data:
        same_fold = str(data["train_split"]).removeprefix("train")
        names = [*VAL_NAMES, *(name for name in facts.splits if name.startswith("val"))]
        found = [name for name in (f"val{same_fold}", *names) if name in facts.splits]
        if not found:
            raise InputError(
                f"dataset '{facts.name}' has no split for validation: it has {', '.join(facts.splits)}",
                "prepare it again with --split val=0.2, or add --set data.val_split=NAME",
            )
        data["val_split"] = found[0]
        if found[0] != "val":
            reasons.append(f"validation split '{found[0]}'")
    return reasons


def _choose_protocol(evaluate: Tree, crop: Size, sizes: Sequence[Size], patched: bool) -> list[str]:
    """Fill the evaluation protocol: whole pictures where each fits into the crop, else tiles of the crop's size.

    patched: whether the network cuts pictures into patches of PATCH pixels. It takes tiles, because their sides are multiples.
    """
    protocol = evaluate.get("protocol")
    if isinstance(protocol, dict) and protocol.get("kind") == "sliding":
        protocol.setdefault("tile", list(crop))
    if protocol is not None:
        return []
    if not patched and all(height <= crop[0] and width <= crop[1] for height, width in sizes):
        evaluate["protocol"] = {"kind": "whole"}
        return ["evaluation of whole pictures: each fits into the crop"]
    evaluate["protocol"] = {"kind": "sliding", "tile": list(crop), "stride": STRIDE}
    largest = max(sizes, key=lambda size: size[0] * size[1])
    return [f"evaluation by sliding tiles of {_words(crop)}: pictures are up to {_words(largest)}"]


def _sizes(facts: DatasetFacts, split: Any) -> Sequence[Size]:
    """The sizes of a split's pictures. Raises InputError for a split that does not exist or is empty."""
    known = list(facts.splits)
    if split not in known:
        near = did_you_mean(str(split), known)
        raise InputError(f"dataset '{facts.name}' has no split called '{split}'{near}", f"it has {', '.join(known)}")
    if not facts.splits[split]:
        raise InputError(f"split '{split}' of dataset '{facts.name}' is empty", "prepare it again, or name another split")
    return facts.splits[split]


def _steps_of(epochs: Any, images: int, batch: int) -> int:
    number = isinstance(epochs, int | float) and not isinstance(epochs, bool) and 0 < epochs < math.inf
    return max(1, math.ceil(epochs * images / batch)) if number else FEWEST_STEPS


def _whole(value: Any) -> int | None:
    """The number itself if it is one to count with; the schema refuses others."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _size(value: Any) -> Size | None:
    sides = [_whole(side) for side in value] if isinstance(value, list) else []
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] and sides[1] else None


def _power_of_two(images: int) -> int:
    return 1 << (images.bit_length() - 1)


def _up(side: float, grid: int = GRID) -> int:
    return math.ceil(side / grid) * grid


def _words(size: Size) -> str:
    return f"{size[0]}×{size[1]}"


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
