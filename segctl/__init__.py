"""Train, distil and evaluate semantic-segmentation models.

    segctl.load("runs/camvid-psp18")            a trained network; .predict("a.jpg") gives the class of each pixel
    segctl.load("model.onnx")                   the same for an exported file, without torch
    segctl.JDTLoss(miou_d=1.0)                  the Jaccard / Dice / Tversky metric loss; the other losses beside it
    segctl.evaluate_files("pred/", "gt/", 19)   the scores of anybody's label maps, without torch

Every name, and every room of the package (`segctl.models`, `segctl.metrics` …), is imported when it is first used, so
`import segctl` is instant and loads neither torch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segctl.evaluate.png_folders import evaluate_files
    from segctl.inference.network import load
    from segctl.losses.cross_entropy import CrossEntropyLoss
    from segctl.losses.focal import FocalLoss
    from segctl.losses.jdt import JDTLoss
    from segctl.losses.kl import KLLoss
    from segctl.losses.lovasz import LovaszSoftmaxLoss
    from segctl.losses.ohem import HardPixelLoss
    from segctl.losses.soft_overlap import SoftDiceLoss, SoftJaccardLoss

__version__ = "0.2.0"

__all__ = [
    "CrossEntropyLoss",
    "FocalLoss",
    "HardPixelLoss",
    "JDTLoss",
    "KLLoss",
    "LovaszSoftmaxLoss",
    "SoftDiceLoss",
    "SoftJaccardLoss",
    "__version__",
    "evaluate_files",
    "load",
]

_HOMES = {"load": "segctl.inference.network", "evaluate_files": "segctl.evaluate.png_folders"}
_ROOMS = {
    "bench", "cli", "commands", "data", "distillers", "errors", "evaluate", "export",
    "files", "ignored", "inference", "losses", "metrics", "models", "pixel_types",
    "programs", "report", "runs", "runtime", "schema", "teacher", "train",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"segctl.{name}")
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "segctl.losses")), name)
    raise AttributeError(f"module 'segctl' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_ROOMS])
