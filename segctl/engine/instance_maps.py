"""Instance maps of a prepared dataset, where it has any."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segctl.data.packed import PackedDataset
from segctl.errors import SegctlError


def has_instances(dataset: PackedDataset, names: Sequence[str]) -> bool:
    """Whether instances can be scored on these images: classes have some, and the first image was packed with its map."""
    if not names or not any(row.has_instances for row in dataset.classes.rows):
        return False
    try:
        instance_map(dataset, names[0])
    except SegctlError:
        return False
    return True


def instance_map(dataset: PackedDataset, name: str) -> NDArray[np.uint16]:
    """uint16 (H, W): raw class id · 1000 + number, below 1000 no instance. Raises SegctlError where there is none."""
    height, width = dataset.size(name)
    return dataset.reader.read(dataset.samples[name].shard, "instances", name, (0, 0, height, width)).astype(
        np.uint16, copy=False
    )
