"""What every distillation method costs: seconds per training step beside those of the undistilled student.

    python benchmarks/distillers.py --crop 128 256 --batch 2 --rounds 5 [--save [NOTE]]

Random pictures and weights; the preset's student, and its teacher preset's network. One step is the forward passes of student
and teacher, the losses, one backward pass and every optimiser's step. The methods take turns, one step each a round, so that
whatever else the machine does hits all of them; the figures are medians, and medians of each round's ratio to `none`.
`--save` keeps the result (benchmarks/record.py).
Queues are short (2,000 pixels a class) so that they fit beside each other; their length does not change the work of a step.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import record
import torch

from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.models import Segmenter, build_model
from segctl.schema.load import load_preset
from segctl.schema.models import ModelSpec
from segctl.schema.run import DistillRun
from segctl.schema.terms.distill_terms import MemorySpec
from segctl.schema.terms.methods import METHODS, DistillerSpec, Method, published_bundle
from segctl.train.optimizer import build_opponents, build_optimizer
from segctl.train.tasks import DistillationTask, SupervisedTask

CLASSES = 19


def network(spec: ModelSpec, device: torch.device) -> Segmenter:
    torch.manual_seed(0)
    return build_model(spec.model_copy(update={"weights": "none"}), CLASSES).to(device, memory_format=torch.channels_last)


def shape(model: Segmenter, crop: tuple[int, int]) -> Shape:
    with torch.no_grad():
        images = torch.zeros((1, *crop, 3), dtype=torch.uint8, device=model.pixel_mean.device)
        return Shape.of(model.eval()(model.normalize(images)))


def short_queues(distiller: DistillerSpec) -> DistillerSpec:
    small = {"pixel_slots": 2000, "region_slots": 200}
    terms = tuple(term.model_copy(update=small) if isinstance(term, MemorySpec) else term for term in distiller.terms)
    return distiller.model_copy(update={"terms": terms})


def stepper(run: DistillRun, method: Method, teacher: Segmenter, crop: tuple[int, int], batch: int) -> Callable[[], None]:
    """A function that takes one step by a method, on the same random pictures every time."""
    device = teacher.pixel_mean.device
    student = network(run.model, device)
    bundle = published_bundle(method, run.data.dataset, run.model.aux)
    if bundle is None:
        task, opponents = SupervisedTask(student, run.labels, run.loss), []
    else:
        distiller = build_distiller(short_queues(bundle), Pair(shape(student, crop), shape(teacher, crop)))
        task, opponents = DistillationTask(student, run.labels, run.loss, teacher, distiller), distiller.opponents()
    task.to(device).train()
    apart = [parameter for opponent in opponents for parameter in opponent.network.parameters()]
    adam = build_opponents(opponents)
    optimizers = [build_optimizer(run.optim, task, student.backbone, apart), *([] if adam is None else [adam])]
    images = torch.randint(0, 256, (batch, *crop, 3), dtype=torch.uint8, device=device)
    blocks = torch.randint(0, CLASSES, (batch, crop[0] // 16, crop[1] // 16), dtype=torch.uint8, device=device)
    labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = task(images, labels).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def measure(arguments: argparse.Namespace, run: DistillRun) -> Iterator[record.Figure]:
    crop, device = tuple(arguments.crop), torch.device(arguments.device)
    teacher = network(load_preset(run.teacher.preset).model, device).eval()
    methods: list[Method] = [method for method in METHODS if method in arguments.methods.split(",")]
    steppers = {method: stepper(run, method, teacher, crop, arguments.batch) for method in methods}
    times: dict[Method, list[float]] = {method: [] for method in methods}
    for number in range(arguments.rounds + 1):
        for method in methods if number % 2 else methods[::-1]:
            began = time.perf_counter()
            steppers[method]()
            times[method].append(time.perf_counter() - began)
    taken = {method: np.array(values[1:]) for method, values in times.items()}  # the first round warms up
    case = f"{run.name}, {crop[0]}×{crop[1]}, batch {arguments.batch}, {device.type}"
    for method, values in taken.items():
        ratios = values / taken["none"] if "none" in taken else None
        yield record.timed(case, method, values, "s/step", ratios, None if ratios is None else "this / none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cityscapes-psp18", help="the student's preset")
    parser.add_argument("--crop", type=int, nargs=2, default=(128, 256), metavar=("H", "W"), help="multiples of 16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas between them")
    record.add_options(parser)
    arguments = parser.parse_args()
    run = load_preset(arguments.preset)
    assert isinstance(run, DistillRun)
    about = "A training step by each distillation method against the same step of the undistilled student."
    budget = record.Budget(arguments.rounds, 1, [0], f"{arguments.rounds} rounds, in each of which every method takes one step")
    record.run("distillers", about, arguments, measure(arguments, run), budget)


if __name__ == "__main__":
    main()
