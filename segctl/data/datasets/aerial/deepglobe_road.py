"""DeepGlobe Road Extraction 2018: road or not, satellite pictures of 1024×1024.

    train/ID_sat.jpg  train/ID_mask.png      or the same files in any folders, such as images/ and masks/

Masks are RGB, white on roads. Values may lie between black and white; as for land cover, a channel is on from 128 upwards.
Pixels whose channels differ after that are ignored and counted; a mask with many of them is refused. Only the 6,226 pictures of
the training set have public masks; `valid` and `test` are left out. The splits are those of `deepglobe`: `all`, and five folds
of 1,245 each. The set is scored on roads alone.
Source: the challenge's data page; folds and scores as in zifuwanggg/JDTLosses, datas/datasets/deepglobe_road.py and test.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.aerial.deepglobe import THRESHOLD, find_pairs, folds_of
from segctl.data.datasets.pairs import MAX_UNKNOWN, PairReader, PictureLabel, Unknown
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

CLASSES = ClassTable((ClassRow("background", None, 0, (0, 0, 0)), ClassRow("road", None, 1, (255, 255, 255))), binary=True)
LAYOUT = "give the folder or the archive that holds train/ (ID_sat.jpg, ID_mask.png) of the road challenge with --source"
_OFFICIAL_COUNT, _OFFICIAL_FIRST = 6226, "100034"


@dataclass(frozen=True)
class RoadRule:
    """Masks that are white on roads and black elsewhere."""

    def train_ids(self, what: object, values: np.ndarray) -> tuple[np.ndarray, Unknown]:
        """Mask uint8 (H, W, 3), or (H, W) if it is grey -> train ids uint8 (H, W), and the number of pixels that are coloured.

        Raises InputError for a mask with many of these: it is another challenge's.
        """
        on = values.reshape(*values.shape[:2], -1) >= THRESHOLD
        road = on.all(2)
        coloured = on.any(2) != road
        if coloured.mean() > MAX_UNKNOWN:
            raise InputError(f"{what} is coloured on {100 * coloured.mean():.1f} % of its pixels, wanted black and white", LAYOUT)
        return np.where(coloured, IGNORED, road).astype(np.uint8), Unknown(int(np.count_nonzero(coloured)))


def open_deepglobe_road(paths: Sequence[Path]) -> Source:
    """Pair images with masks. Raises InputError if there are no masks."""
    found = find_pairs(paths, LAYOUT)
    names = found.names
    notes = list(found.notes)
    if (len(names), names[:1]) != (_OFFICIAL_COUNT, [_OFFICIAL_FIRST]):
        notes.append(f"these are {len(names)} pictures, not the official {_OFFICIAL_COUNT}: the folds are cut by the same rule")
    rule = RoadRule()
    return Source(
        name="deepglobe-road",
        rule="deepglobe-road-threshold-128/1",
        origin=f"{found.files.names} in the official layout",
        decoder=DECODER,
        classes=CLASSES,
        splits={"all": names, **folds_of(names)},
        samples=PairReader(
            images={name: Picture(name, "image", found.pictures[name], ("RGB",)) for name in names},
            labels={name: PictureLabel(Picture(name, "mask", found.masks[name], ("RGB", "L")), rule) for name in names},
        ),
        notes=(*found.files.notes, *notes),
        problems=found.problems,
    )
