"""Views that are the same in every epoch: one scale, a crop that covers the whole image, and at most its mirror image."""

from dataclasses import replace

import numpy as np

from segctl.data.batches.views import View, draw_view
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.schema.data import DataSpec


def sides(spec: DataSpec) -> tuple[bool, ...]:
    """Whether images are shown as they are (False), mirrored (True), or either way (both)."""
    return (False,) if spec.flip == 0 else (True,) if spec.flip == 1 else (False, True)


def fixed_view(size: tuple[int, int], spec: DataSpec, mirrored: bool) -> View:
    """The only view of an image of `size` (H, W) under a spec that `require_fixed` accepts."""
    return replace(draw_view(size, spec, np.random.default_rng(0)), flip=mirrored)


def require_fixed(dataset: PreparedDataset, split: str, spec: DataSpec, field: str) -> None:
    """Raise InputError if views differ from epoch to epoch. `field` is the setting that needs them fixed."""
    scale = spec.scale[0]
    sizes = {name: _scaled(dataset.size(name), scale) for name in dataset.names(split)}
    height, width = max(size[0] for size in sizes.values()), max(size[1] for size in sizes.values())
    larger = next((name for name, size in sizes.items() if size[0] > spec.crop[0] or size[1] > spec.crop[1]), None)
    if larger is not None:
        got, size = spec.crop, sizes[larger]
        raise InputError(
            f"{field}: got true with data.crop [{got[0]}, {got[1]}], which cuts a random part out of '{larger}' of "
            f"{size[0]}×{size[1]}; wanted a crop that covers every image",
            f"add --set data.crop=[{max(got[0], height)},{max(got[1], width)}], or --set {field}=false",
        )


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
