"""Cityscapes' class table: label id, train id, category, whether instances are annotated, colour.

Labels are read, predictions are written in label ids, and categories and instances are scored by this table alone.
The official table's "license plate" (id -1) is in no label, so it is left out.
Source: mcordts/cityscapesScripts, helpers/labels.py and evaluation/evalPixelLevelSemanticLabeling.py.
"""

from segctl.data.classes import ClassRow, ClassTable
from segctl.ignored import IGNORED

_ROWS: tuple[tuple[str, int, int, str, bool, tuple[int, int, int]], ...] = (
    ("unlabeled", 0, IGNORED, "void", False, (0, 0, 0)),
    ("ego vehicle", 1, IGNORED, "void", False, (0, 0, 0)),
    ("rectification border", 2, IGNORED, "void", False, (0, 0, 0)),
    ("out of roi", 3, IGNORED, "void", False, (0, 0, 0)),
    ("static", 4, IGNORED, "void", False, (0, 0, 0)),
    ("dynamic", 5, IGNORED, "void", False, (111, 74, 0)),
    ("ground", 6, IGNORED, "void", False, (81, 0, 81)),
    ("road", 7, 0, "flat", False, (128, 64, 128)),
    ("sidewalk", 8, 1, "flat", False, (244, 35, 232)),
    ("parking", 9, IGNORED, "flat", False, (250, 170, 160)),
    ("rail track", 10, IGNORED, "flat", False, (230, 150, 140)),
    ("building", 11, 2, "construction", False, (70, 70, 70)),
    ("wall", 12, 3, "construction", False, (102, 102, 156)),
    ("fence", 13, 4, "construction", False, (190, 153, 153)),
    ("guard rail", 14, IGNORED, "construction", False, (180, 165, 180)),
    ("bridge", 15, IGNORED, "construction", False, (150, 100, 100)),
    ("tunnel", 16, IGNORED, "construction", False, (150, 120, 90)),
    ("pole", 17, 5, "object", False, (153, 153, 153)),
    ("polegroup", 18, IGNORED, "object", False, (153, 153, 153)),
    ("traffic light", 19, 6, "object", False, (250, 170, 30)),
    ("traffic sign", 20, 7, "object", False, (220, 220, 0)),
    ("vegetation", 21, 8, "nature", False, (107, 142, 35)),
    ("terrain", 22, 9, "nature", False, (152, 251, 152)),
    ("sky", 23, 10, "sky", False, (70, 130, 180)),
    ("person", 24, 11, "human", True, (220, 20, 60)),
    ("rider", 25, 12, "human", True, (255, 0, 0)),
    ("car", 26, 13, "vehicle", True, (0, 0, 142)),
    ("truck", 27, 14, "vehicle", True, (0, 0, 70)),
    ("bus", 28, 15, "vehicle", True, (0, 60, 100)),
    ("caravan", 29, IGNORED, "vehicle", True, (0, 0, 90)),
    ("trailer", 30, IGNORED, "vehicle", True, (0, 0, 110)),
    ("train", 31, 16, "vehicle", True, (0, 80, 100)),
    ("motorcycle", 32, 17, "vehicle", True, (0, 0, 230)),
    ("bicycle", 33, 18, "vehicle", True, (119, 11, 32)),
)
CLASSES = ClassTable(
    tuple(
        ClassRow(name, raw_id, train_id, color, category, instances)
        for name, raw_id, train_id, category, instances, color in _ROWS
    )
)
AVERAGE_INSTANCE_PX = {
    "bicycle": 4672.3249222261,
    "caravan": 36771.8241758242,
    "motorcycle": 6298.7200839748,
    "rider": 3930.4788056518,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "car": 12794.0202738185,
    "person": 3462.4756337644,
    "truck": 27855.1264367816,
    "trailer": 16926.9763313609,
}
"""Pixels of an average instance of each class; the official instance-level IoU weighs instances by it."""
