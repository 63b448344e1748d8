"""Ten float64 steps of every method on a toy: a change that should not move numbers leaves these curves alone.

Weights, images and labels are filled by formulas, so the curves are the same on any CPU and torch version.
"""

import pytest
import torch
from torch import Tensor, nn
from toy import CLASSES, TwoLayers

from segctl.distillers import build_distiller
from segctl.engine.tasks import DistillationTask, SupervisedTask
from segctl.schema.data import BoundaryLabels
from segctl.schema.distillers import METHODS
from segctl.schema.load import load_preset

CURVES: dict[str, list[float]] = {
    "teacher": [
        0.81122205,
        0.80317226,
        0.79365662,
        0.78864383,
        0.78687949,
        0.78521303,
        0.78154405,
        0.77665258,
        0.77196142,
        0.76837449,
    ],
    "none": [
        1.35278786,
        1.34802118,
        1.34148671,
        1.33699809,
        1.33583389,
        1.3356674,
        1.33391725,
        1.33032712,
        1.32639912,
        1.32342053,
    ],
    "kd": [
        1.46063554,
        1.44296319,
        1.42089133,
        1.39828416,
        1.38118682,
        1.37278397,
        1.36804338,
        1.36623401,
        1.36703971,
        1.36665917,
    ],
    "jml": [
        0.79617004,
        0.79171036,
        0.78344795,
        0.7721174,
        0.76015996,
        0.75097102,
        0.74481475,
        0.73894498,
        0.73010794,
        0.72267523,
    ],
}


def fill(network: nn.Module, phase: float) -> TwoLayers:
    """Every parameter from a sine of its flat index."""
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.5 * torch.sin(0.7 * index + phase)).view_as(parameter))
    assert isinstance(network, TwoLayers)
    return network


def batch() -> tuple[Tensor, Tensor]:
    index = torch.arange(2 * 16 * 20)
    images = torch.stack([(index * factor) % 256 for factor in (7, 11, 13)], dim=-1).to(torch.uint8).view(2, 16, 20, 3)
    labels = ((index // 9) % (CLASSES + 1)).to(torch.uint8).view(2, 16, 20)
    labels[labels == CLASSES] = 255
    return images, labels


def task(method: str) -> SupervisedTask:
    student, loss = fill(TwoLayers(), 0.3), load_preset("camvid-psp18").loss
    if method == "teacher":
        return SupervisedTask(student, BoundaryLabels(), load_preset("camvid-dl101").loss)
    distiller = METHODS[method]
    labels = load_preset("camvid-psp18").labels
    if distiller is None:
        return SupervisedTask(student, labels, loss)
    return DistillationTask(student, labels, loss, fill(TwoLayers(), 1.1), build_distiller(distiller))


def curve(method: str) -> list[float]:
    trained, (images, labels) = task(method), batch()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        step = trained(images, labels)
        torch.autograd.backward(step.loss)
        optimizer.step()
        losses.append(step.loss.item())
    return losses


@pytest.mark.parametrize("method", CURVES)
def test_the_curve_of_a_method_has_not_moved(method: str) -> None:
    assert curve(method) == pytest.approx(CURVES[method], abs=1e-6)


def test_every_method_has_a_curve() -> None:
    assert set(CURVES) == {"teacher", *METHODS}
