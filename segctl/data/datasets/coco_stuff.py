"""COCO-Stuff 164k: 171 classes, 80 things and 91 stuff, on the pictures of COCO 2017.

    train2017/NAME.jpg  val2017/NAME.jpg      train2017/NAME.png  val2017/NAME.png, in any folders above, such as annotations/

Index maps (stuffthingmaps_trainval2017.zip): value v is label v + 1 of the official list, 255 is unlabelled. Eleven labels of
the list were removed from COCO and occur nowhere, so 171 of 182 are trained and scored. A mean over 182 classes, which
winycg/CIRKD takes, is lower by a factor of 171/182. 118,287 pictures train and 5,000 validate. Some pictures are grey. Colours
are segctl's own: VOC's palette at the label's number.
Source: nightrome/cocostuff at 876a7db, labels.txt, labels.md and README.md.
"""

from collections.abc import Sequence
from pathlib import Path

from segctl.data.datasets.pairs import IdMap
from segctl.data.datasets.published import Published, class_table_of
from segctl.data.source import Source
from segctl.ignored import IGNORED

CLASSES = class_table_of("coco_stuff")
LAYOUT = (
    "give train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip, each with --source, or the folder that they were "
    "unpacked to"
)
_COCO_STUFF = Published(
    name="coco-stuff",
    rule="coco-stuff-171-classes/1",
    image=r"(?P<split>train2017|val2017)/(?P<name>[^/]+)\.jpg",
    label=r"(?P<split>train2017|val2017)/(?P<name>\d+)\.png",
    splits={"train2017": ("train", 118_287), "val2017": ("val", 5_000)},
    classes=CLASSES,
    ids=IdMap.of(CLASSES, "use the maps of stuffthingmaps_trainval2017.zip as they are", ignored=(IGNORED,)),
    layout=LAYOUT,
)


def open_coco_stuff(paths: Sequence[Path]) -> Source:
    """Pair images with stuff-and-thing maps. Raises InputError if there is no pair."""
    return _COCO_STUFF.open(paths)
