"""Mapillary Vistas with the labels of version 1.2: 65 classes, street pictures of many sizes, some above 20 megapixels.

    {training,validation}/images/NAME.jpg    {training,validation}/v1.2/labels/NAME.png    or …/labels/NAME.png (archive of 1.2)

Index maps with a palette: 0 to 64 are the classes, 65 is unlabelled and becomes 255. 18,000 pictures train and 2,000 validate;
`testing` has no labels. The labels of version 2.0 (124 ids) lie beside them in v2.0/ and are not read; a folder `labels` that
holds them is refused by its ids above 65. Free registration; CC BY-NC-SA 4.0.
Source: zifuwanggg/JDTLosses at 68ce8ac, DATA.md and datas/datasets/mapillary_vistas.py (layout, names, colours, counts).
"""

from collections.abc import Sequence
from pathlib import Path

from segctl.data.datasets.pairs import IdMap
from segctl.data.datasets.published import Published, class_table_of
from segctl.data.source import Source

CLASSES = class_table_of("mapillary_vistas")
LAYOUT = "give the dataset's zip, or the folder that holds training/ and validation/, with --source"
_MAPILLARY = Published(
    name="mapillary-vistas",
    rule="mapillary-vistas-1.2-65-classes/1",
    image=r"(?P<split>training|validation)/images/(?P<name>[^/]+)\.jpg",
    label=r"(?P<split>training|validation)/(?:v1\.2/)?labels/(?P<name>[^/]+)\.png",
    splits={"training": ("train", 18_000), "validation": ("val", 2_000)},
    classes=CLASSES,
    ids=IdMap.of(CLASSES, "use the labels of version 1.2"),
    layout=LAYOUT,
)


def open_mapillary_vistas(paths: Sequence[Path]) -> Source:
    """Pair images with the labels of version 1.2. Raises InputError if there is no pair."""
    return _MAPILLARY.open(paths)
