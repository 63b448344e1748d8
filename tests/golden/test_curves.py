"""Ten float64 steps of every method on a toy: a change that should not move numbers leaves these curves alone.

Fewer for the methods with a discriminator, which is as large here as ever, and for those whose weights this learning rate is too
high for.

Weights, images and labels are filled by formulas, so the curves are the same on any CPU and torch version.
"""

import pytest
import torch
from torch import Tensor, nn
from toy import CLASSES, TwoLayers

from segctl.distillers import Distiller, build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.distillers.memory import ClassQueues
from segctl.distillers.newer.cirkd_channels import ChannelQueue
from segctl.schema.labels import BoundaryLabels
from segctl.schema.load import load_preset
from segctl.schema.terms.methods import METHODS, DistillerSpec
from segctl.train.optimizer import build_opponents
from segctl.train.tasks import DistillationTask, SupervisedTask
from tests.slow_cases import slow_where

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
    "skd": [5.57826189, 7.51824406, 7.48681973],
    "ifvd": [3.98645481, 3.66314602, 3.63798882],
    "cwd": [8.58226331, 8.39017629, 13.40969822],
    "cirkd": [
        4.89322787,
        2.64492735,
        2.81205702,
        2.56247315,
        2.40499053,
        2.43826773,
        2.35906866,
        2.25025256,
        2.25787485,
        2.14962775,
    ],
    "maskd": [
        1.45639449,
        1.44572773,
        1.4321706,
        1.41554903,
        1.39716124,
        1.38269275,
        1.37215843,
        1.36456665,
        1.36180584,
        1.36265231,
    ],
    "dist": [2.27036423, 3.24395199, 3.07750103, 2.60350652, 1.8670964, 1.70027972, 1.8977795, 1.89464209, 1.7875458, 1.77018915],
    "at": [56.31483087, 162.34043058, 162.09278644],
    "fitnet": [8.11162002, 26.1078287, 571.0170057],
    "dsd": [11.33587994, 51.9787546, 41.93373467],
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
    "dkd": [
        1.41814033,
        1.40930889,
        1.3989823,
        1.38784464,
        1.37472941,
        1.36488868,
        1.35957912,
        1.35542504,
        1.35221783,
        1.35132265,
    ],
    "lskd": [
        3.51518147,
        3.02352194,
        2.77866357,
        2.17759732,
        2.38421177,
        2.17048422,
        2.07269629,
        2.03507867,
        2.02342178,
        1.90125441,
    ],
    "mgd": [63.06428081, 11100.50791593],
    "afdcd": [14.04024611, 19.36962403, 13.78818836, 10.44043104],
    "cirkdv2": [98.01472727, 136.30177318, 69.45351659],
}


def sines(like: Tensor, phase: float) -> Tensor:
    """A sine of each flat index."""
    index = torch.arange(like.numel(), dtype=torch.float64)
    return (0.5 * torch.sin(0.7 * index + phase)).view_as(like)


def fill(network: nn.Module, phase: float) -> TwoLayers:
    """Every parameter from a sine of its flat index."""
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(sines(parameter, phase))
    assert isinstance(network, TwoLayers)
    return network


def fill_distiller(distiller: Distiller) -> Distiller:
    """The same for adapters, projectors, tokens and queues; a discriminator's weights are a tenth, a generator's a fiftieth."""
    distiller.double()
    with torch.no_grad():
        for name, parameter in distiller.named_parameters():
            smaller = 0.1 if "discriminator" in name else 0.02 if "generator" in name else 1.0
            parameter.copy_(sines(parameter, 0.5) * smaller)
        for name, buffer in distiller.named_buffers():
            if name.endswith(("tokens", "queues.pixels", "queues.regions", "queue.vectors")):
                buffer.copy_(nn.functional.normalize(sines(buffer, 0.9), dim=-1))
            if name.endswith(("_u", "_v")):  # of spectral norm
                buffer.copy_(nn.functional.normalize(sines(buffer, 0.4), dim=0))
    for part in distiller.modules():
        if isinstance(part, ClassQueues | ChannelQueue):
            part.seed = 0
    return distiller


def pair() -> Pair:
    """The student and the teacher are one kind of toy."""
    with torch.no_grad():
        shape = Shape.of(fill(TwoLayers(), 0.3)(torch.zeros(1, 3, 16, 20, dtype=torch.float64)))
    return Pair(shape, shape)


def batch() -> tuple[Tensor, Tensor]:
    index = torch.arange(2 * 16 * 20)
    images = torch.stack([(index * factor) % 256 for factor in (7, 11, 13)], dim=-1).to(torch.uint8).view(2, 16, 20, 3)
    labels = ((index // 9) % (CLASSES + 1)).to(torch.uint8).view(2, 16, 20)
    labels[labels == CLASSES] = 255
    return images, labels


def task(method: str, distiller: DistillerSpec | None) -> SupervisedTask:
    student, loss = fill(TwoLayers(), 0.3), load_preset("camvid-psp18").loss
    if method == "teacher":
        return SupervisedTask(student, BoundaryLabels(), load_preset("camvid-dl101").loss)
    labels = load_preset("camvid-psp18").labels
    if distiller is None:
        return SupervisedTask(student, labels, loss)
    return DistillationTask(student, labels, loss, fill(TwoLayers(), 1.1), fill_distiller(build_distiller(distiller, pair())))


def curve(method: str, distiller: DistillerSpec | None) -> list[float]:
    trained, (images, labels) = task(method, distiller), batch()
    torch.manual_seed(0)
    opponents = trained.distiller.opponents() if isinstance(trained, DistillationTask) else []
    apart = {id(parameter) for opponent in opponents for parameter in opponent.network.parameters()}
    optimizers = [torch.optim.SGD([x for x in trained.parameters() if id(x) not in apart], lr=0.5, momentum=0.9)]
    optimizers += [adam for adam in [build_opponents(opponents)] if adam is not None]
    losses = []
    for _ in CURVES[method]:
        trained.zero_grad()
        step = trained(images, labels)
        torch.autograd.backward(step.loss)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(step.loss.item())
    return losses


@pytest.mark.parametrize("method", slow_where(CURVES, lambda method: method in ("skd", "ifvd", "cwd")))
def test_the_curve_of_a_method_has_not_moved(method: str) -> None:
    assert curve(method, METHODS.get(method)) == pytest.approx(CURVES[method], abs=1e-6)


@pytest.mark.slow
def test_cwd_over_the_students_channels_has_the_curve_of_the_published_code_between_equal_widths() -> None:
    cwd = METHODS["cwd"]
    assert cwd is not None
    terms = [term.model_copy(update={"divide_by": "student"} if term.kind == "cwd_features" else {}) for term in cwd.terms]
    assert curve("cwd", cwd.model_copy(update={"terms": tuple(terms)})) == pytest.approx(
        [5.24424598, 3.01416598, 4.359095], abs=1e-6
    )


def test_every_method_has_a_curve() -> None:
    assert set(CURVES) == {"teacher", *METHODS}
