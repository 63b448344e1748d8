"""Warns where the images of an evaluation are less independent, or fewer, than its intervals assume."""

import re

import numpy as np

from segctl.metrics.table import CountTable

FEW_UNITS = 10
"""Below this many images or groups an interval is called rough."""


def interval_warning(table: CountTable) -> str | None:
    """Why the intervals of these images are rough or too narrow; None where no reason is known."""
    kept = [index for index, pixels in enumerate(table.valid_pixels) if pixels]
    names = [table.names[index] for index in kept]
    groups = None if table.groups is None else sorted({table.groups[index] for index in kept})
    if not names:
        return None
    narrow = "frames of one drive resemble each other, so these intervals are too narrow"
    if groups is not None and len(groups) == 1 and len(names) > 1:
        return f"all {len(names)} images are of one group, '{groups[0]}': {narrow}"
    if groups is None and _is_one_drive(names):
        return f"the {len(names)} images look like every few frames of one video, and no groups are known: {narrow}"
    units, noun = (len(names), "images") if groups is None else (len(groups), "groups")
    return f"there are only {units} {noun}: these intervals are rough" if units < FEW_UNITS else None


def _is_one_drive(names: list[str]) -> bool:
    """Whether names are one prefix and evenly spaced numbers with gaps, like every few frames of a video."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if len(found) < 3 or not all(found) or len({(match[1], match[3]) for match in found if match}) > 1:
        return False
    steps = np.diff(sorted(int(match[2]) for match in found if match))
    return bool((steps == steps[0]).all() and steps[0] > 1)
