"""What a prediction costs: parameters and floating-point operations of a network, found without weights or memory."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from segctl.models.build import build_model
from segctl.models.deployed import predicting
from segctl.schema.models import ModelSpec


@dataclass(frozen=True)
class Cost:
    """The cost of segmenting one image of `size` (height, width) in one forward pass.

    parameters, gflop: of the network as it predicts: without the auxiliary classifier, which only training needs, and with
    re-parameterised blocks fused. gflop counts multiply-adds × 2, in 10⁹, of convolutions, matrix products and attention;
    norms, activations and resizing are left out.
    """

    parameters: int
    gflop: float
    size: tuple[int, int]


def cost_of(spec: ModelSpec, num_classes: int, size: tuple[int, int]) -> Cost:
    """The cost of a preset's network on an image of `size` (height, width). Takes a second or two and no memory.

    Raises InputError for a network that cannot be built.
    """
    return _count(spec.model_copy(update={"weights": "none", "aux": False}).model_dump_json(), num_classes, size)


@lru_cache(maxsize=256)  # many runs of one process have the same network
def _count(spec: str, num_classes: int, size: tuple[int, int]) -> Cost:
    with torch.device("meta"), torch.no_grad():
        model = predicting(build_model(ModelSpec.model_validate_json(spec), num_classes))
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *size))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 1e9, size)
