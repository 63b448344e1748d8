"""Nighttime Driving and Dark Zurich: 50 pictures at night each, to test networks that were trained on Cityscapes by day.

    NighttimeDrivingTest/leftImg8bit/test/night/NAME_leftImg8bit.png    …/gtCoarse_daytime_trainvaltest/test/night/
                                                                            NAME_gtCoarse_labelTrainIds.png
    rgb_anon/val/night/GOPR0356/NAME_rgb_anon.png                       gt/val/night/GOPR0356/NAME_gt_labelTrainIds.png

Index maps hold Cityscapes' 19 train ids; 255 is ignored. There is no training split: score a Cityscapes run with
`segctl eval RUN --dataset nighttime-driving --split test` or `--dataset dark-zurich --split val`. Dark Zurich's pictures by day
(rgb_anon/val_ref) have no labels and are left out; so are its maps of other kinds (labelColor, invGray).
Source: zifuwanggg/JDTLosses, DATA.md and datas/datasets/{nighttime_driving,dark_zurich}.py; open-mmlab/mmsegmentation,
docs/en/user_guides/2_dataset_prepare.md.
"""

from collections.abc import Sequence
from pathlib import Path

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.cityscapes_classes import CLASSES as CITYSCAPES
from segctl.data.datasets.pairs import IdMap
from segctl.data.datasets.published import Published
from segctl.data.source import Source
from segctl.ignored import IGNORED

CLASSES = ClassTable(
    tuple(
        ClassRow(row.name, row.train_id, row.train_id, row.color, row.category, row.has_instances)
        for row in sorted(CITYSCAPES.rows, key=lambda row: row.train_id)
        if row.train_id != IGNORED
    )
)
"""Cityscapes' classes; the raw ids are its train ids."""
LAYOUT = (
    "give NighttimeDrivingTest.zip or Dark_Zurich_val_anon.zip, or the folder that one of them was unpacked to, with --source"
)
_IDS = IdMap.of(CLASSES, "use the labelTrainIds of the archive as they are", ignored=(IGNORED,))
_NIGHTTIME = Published(
    name="nighttime-driving",
    rule="nighttime-driving-19-classes/1",
    image=r"leftImg8bit/(?P<split>test)/(?:.+/)?(?P<name>[^/]+)_leftImg8bit\.png",
    label=r"gtCoarse_daytime_trainvaltest/(?P<split>test)/(?:.+/)?(?P<name>[^/]+)_gtCoarse_labelTrainIds\.png",
    splits={"test": ("test", 50)},
    classes=CLASSES,
    ids=_IDS,
    layout=LAYOUT,
)
_DARK_ZURICH = Published(
    name="dark-zurich",
    rule="dark-zurich-19-classes/1",
    image=r"rgb_anon/(?P<split>val)/(?:.+/)?(?P<name>[^/]+)_rgb_anon\.png",
    label=r"gt/(?P<split>val)/(?:.+/)?(?P<name>[^/]+)_gt_labelTrainIds\.png",
    splits={"val": ("val", 50)},
    classes=CLASSES,
    ids=_IDS,
    layout=LAYOUT,
)


def open_nighttime_driving(paths: Sequence[Path]) -> Source:
    """Pair images with labels. Raises InputError if there is no pair."""
    return _NIGHTTIME.open(paths)


def open_dark_zurich(paths: Sequence[Path]) -> Source:
    """Pair images with labels. Raises InputError if there is no pair."""
    return _DARK_ZURICH.open(paths)
