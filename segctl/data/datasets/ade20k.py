"""ADE20K as the scene parsing challenge of 2016 published it: 150 classes, pictures of any size.

    ADEChallengeData2016/images/{training,validation}/NAME.jpg      …/annotations/{training,validation}/NAME.png

Index maps: 1 to 150 are the classes, 0 is everything else and becomes 255. 20,210 pictures train and 2,000 validate. The full
ADE20K (`…_seg.png`, thousands of classes) is another dataset and is refused. Road and skyscraper
share a colour; skyscraper's is one step of blue away here.
Source: CSAILVision/semantic-segmentation-pytorch at 8f27c9b, data/object150_info.csv (order) and data/color150.mat; names and
counts as in zifuwanggg/JDTLosses at 68ce8ac, datas/datasets/ade20k.py, whose names are the first words of the other file's.
"""

from collections.abc import Sequence
from pathlib import Path

from segctl.data.datasets.pairs import IdMap
from segctl.data.datasets.published import Published, class_table_of
from segctl.data.source import Source

CLASSES = class_table_of("ade20k")
LAYOUT = "give ADEChallengeData2016.zip, or the folder that holds its images/ and annotations/, with --source"
_ADE20K = Published(
    name="ade20k",
    rule="ade20k-zero-ignored-150-classes/1",
    image=r"images/(?P<split>training|validation)/(?P<name>[^/]+)\.jpg",
    label=r"annotations/(?P<split>training|validation)/(?P<name>[^/]+)\.png",
    splits={"training": ("train", 20_210), "validation": ("val", 2_000)},
    classes=CLASSES,
    ids=IdMap.of(CLASSES, "use the annotations of ADEChallengeData2016.zip as they are, without subtracting 1"),
    layout=LAYOUT,
)


def open_ade20k(paths: Sequence[Path]) -> Source:
    """Pair images with annotations. Raises InputError if there is no pair."""
    return _ADE20K.open(paths)
