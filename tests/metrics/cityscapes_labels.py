"""The Cityscapes benchmark's labels as its own rules name them, written down apart from the package."""

from segctl.metrics.cityscapes_scores import Benchmark

# Raw id -> (name, category, scored, has instances), as the benchmark publishes them.
LABELS = {
    0: ("unlabeled", "void", False, False), 1: ("ego vehicle", "void", False, False),
    2: ("rectification border", "void", False, False), 3: ("out of roi", "void", False, False),
    4: ("static", "void", False, False), 5: ("dynamic", "void", False, False), 6: ("ground", "void", False, False),
    7: ("road", "flat", True, False), 8: ("sidewalk", "flat", True, False), 9: ("parking", "flat", False, False),
    10: ("rail track", "flat", False, False), 11: ("building", "construction", True, False),
    12: ("wall", "construction", True, False), 13: ("fence", "construction", True, False),
    14: ("guard rail", "construction", False, False), 15: ("bridge", "construction", False, False),
    16: ("tunnel", "construction", False, False), 17: ("pole", "object", True, False),
    18: ("polegroup", "object", False, False), 19: ("traffic light", "object", True, False),
    20: ("traffic sign", "object", True, False), 21: ("vegetation", "nature", True, False),
    22: ("terrain", "nature", True, False), 23: ("sky", "sky", True, False), 24: ("person", "human", True, True),
    25: ("rider", "human", True, True), 26: ("car", "vehicle", True, True), 27: ("truck", "vehicle", True, True),
    28: ("bus", "vehicle", True, True), 29: ("caravan", "vehicle", False, True), 30: ("trailer", "vehicle", False, True),
    31: ("train", "vehicle", True, True), 32: ("motorcycle", "vehicle", True, True), 33: ("bicycle", "vehicle", True, True),
}  # fmt: skip
NAMES = [name for name, _, scored, _ in LABELS.values() if scored]
AVERAGE_SIZE = {
    "person": 3462.4756337644, "rider": 3930.4788056518, "car": 12794.0202738185, "truck": 27855.1264367816,
    "bus": 35732.1511111111, "train": 67583.7075812274, "motorcycle": 6298.7200839748, "bicycle": 4672.3249222261,
}  # fmt: skip
CATEGORIES = {
    category: tuple(name for name, of, scored, _ in LABELS.values() if scored and of == category)
    for category in ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
}
STAND_IN = {"caravan": 200, "trailer": 201}
BENCHMARK = Benchmark(CATEGORIES, AVERAGE_SIZE, {"vehicle": tuple(STAND_IN.values())})
