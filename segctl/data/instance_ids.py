"""Instance maps of any dataset -> the one code that segctl counts by.

Read are maps of one number per pixel (8 or 16 bits: VOC's SegmentationObject, most tools) and RGB maps whose number is
R + 256 G + 65536 B (COCO panoptic). 0 stands for no instance, and so does 255 of 8 bits (VOC's border). The class is that of the
label.
"""

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.metrics.instances import FIRST_INSTANCE

MOST_INSTANCES = 65535 - FIRST_INSTANCE + 1


def numbered_instances(values: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Values uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB -> uint16 (H, W): 0 for no instance, else 1000, 1001 ... by rank.

    Raises ArgumentError for more than MOST_INSTANCES instances.
    """
    none = [0, IGNORED] if values.ndim == 2 and values.dtype == np.uint8 else [0]
    wide = values.astype(np.int64)
    ids = wide if wide.ndim == 2 else wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
    found, which = np.unique(ids, return_inverse=True)
    there = ~np.isin(found, none)
    if there.sum() > MOST_INSTANCES:
        raise ArgumentError(f"got {there.sum()} instances in one map, wanted at most {MOST_INSTANCES}")
    codes: NDArray[np.uint16] = np.where(there, FIRST_INSTANCE - 1 + np.cumsum(there), 0).astype(np.uint16)
    mapped: NDArray[np.uint16] = codes[which.reshape(ids.shape)]
    return mapped
