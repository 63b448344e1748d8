"""A distillation step by segctl against the same step written plainly: images a second, peak memory, share of the arithmetic.

    python benchmarks/step.py [--preset cityscapes-psp18] [--crop 512 1024] [--batch 8] [--rounds 20] [--device cuda]
                              [--forms] [--save [NOTE]]

The preset's student and its teacher preset's network, random pictures and weights, the same in both.
  segctl   `take_step` as a run calls it: copy, bf16 where the device has it, channels-last, losses by one reading of the logits
  plain    float32 with torch's own settings for TF32 (printed), contiguous, every loss from whole softmaxes and one-hot labels
Each alone first, for its peak memory (on a GPU; what torch's allocator handed out) and its loss on the first batch; then in
turns, one step each, for the time. Floating-point operations are counted in the plain step, two for a multiply-add, and held
against --peak-tflops, which a large bf16 matrix product reaches (790 on an H200).

--forms compares forms of segctl's own step instead: the teacher with its batch norms unfolded and folded, beside the student, and
the networks compiled, without and with CUDA graphs. A form that cannot run on the device has a line that says why. --save keeps
the result (benchmarks/record.py).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import record
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from segctl.data.batches.loader import Batch
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.models import Segmenter, build_model
from segctl.models.folded import folded_network
from segctl.runtime.device import choose_compute
from segctl.runtime.world import World
from segctl.schema.load import load_preset
from segctl.schema.models import ModelSpec
from segctl.schema.run import DistillRun
from segctl.train.checkpoint import Best, State
from segctl.train.loop import take_step
from segctl.train.optimizer import build_optimizer
from segctl.train.session import Session
from segctl.train.tasks import DistillationTask

CLASSES = 19


@dataclass(frozen=True)
class Form:
    """How segctl takes its step. folded: whether the teacher's batch norms are; None: on a GPU, as in a run."""

    name: str
    folded: bool | None = None
    overlap: bool = False
    compile: bool | str = False


FORMS = (
    Form("teacher not folded", folded=False),
    Form("teacher folded", folded=True),
    Form("teacher beside the student", overlap=True),
    Form("compiled", compile=True),
    Form("compiled, with CUDA graphs", compile="reduce-overhead"),
)


def why_not(form: Form, device: str) -> str | None:
    """Why a form is not measured on a device; None if it is."""
    if device == "cpu" and form.compile == "reduce-overhead":
        return "a CPU has no CUDA graphs"
    if device == "cpu" and form.compile:
        return "compiling for a CPU takes minutes, and says nothing of a GPU"
    if device == "cpu" and form.overlap:
        return "a CPU has no second stream"
    if form.compile and record.on_pretend_device():
        return "the pretend device has no compiler and no graphs"
    return None


@dataclass(frozen=True)
class Rival:
    """Takes one step and gives back its loss, which waits for the device."""

    name: str
    step: Callable[[], float]


def network(spec: ModelSpec, seed: int) -> Segmenter:
    torch.manual_seed(seed)
    return build_model(spec.model_copy(update={"weights": "none"}), CLASSES)


def still(model: Segmenter) -> Segmenter:
    """Without dropout, so that both rivals see the same network."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    return model


def make_batch(crop: tuple[int, int], count: int, pinned: bool) -> Batch:
    """Noise, labels in areas of 16 by 16, a fiftieth of the rows ignored."""
    torch.manual_seed(1)
    images = torch.randint(0, 256, (count, *crop, 3), dtype=torch.uint8)
    areas = torch.randint(0, CLASSES, (count, -(-crop[0] // 16), -(-crop[1] // 16)), dtype=torch.uint8)
    labels = areas.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, : crop[0], : crop[1]].contiguous()
    labels[:, : max(1, crop[0] // 50)] = 255
    batch = Batch(images, labels, [str(index) for index in range(count)])
    return batch.pin_memory() if pinned else batch


def segctl_rival(run: DistillRun, batch: Batch, device: str, form: Form = Form("segctl")) -> Rival:
    compute = choose_compute(device, run.train.precision)
    student, teacher = still(network(run.model, 0)), network(load_preset(run.teacher.preset).model, 1).eval()
    shapes = Pair(shape_of(student), shape_of(teacher))
    if form.folded or (form.folded is None and device != "cpu"):
        teacher, _ = folded_network(teacher, compute.dtype)
    for model in (student, teacher):
        model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    distiller = build_distiller(run.distiller, shapes)
    task = DistillationTask(student.train(), run.labels, run.loss, teacher, distiller).to(compute.device)
    task.overlap = form.overlap
    if form.compile:
        task.compile_networks(None if form.compile is True else str(form.compile))
    optimizer = build_optimizer(run.optim, task, student.backbone)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"]
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
    state = State(compute.device, task, optimizer, None, scaler, None, step=0, validated=0, best=Best())
    session = Session(run, None, compute, World(), 0, student, task, task, None, state)  # type: ignore[arg-type]
    return Rival(
        f"{form.name}, {compute.precision}, channels-last",
        lambda: float(torch.stack(list(take_step(session, batch).terms.values())).sum()),
    )


@torch.no_grad()
def shape_of(model: Segmenter) -> Shape:
    was = model.training
    images = torch.zeros((1, 64, 64, 3), dtype=torch.uint8, device=model.pixel_mean.device)
    found = Shape.of(model.eval()(model.normalize(images)))
    model.train(was)
    return found


def plain_rival(run: DistillRun, batch: Batch, device: str) -> Rival:
    student = still(network(run.model, 0)).to(device).train()
    teacher = network(load_preset(run.teacher.preset).model, 1).to(device).eval().requires_grad_(False)
    optimizer = build_optimizer(run.optim, student, student.backbone)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"]

    def step() -> float:
        pixels = batch.images.to(device).permute(0, 3, 1, 2).float().contiguous()
        label = batch.labels.to(device).long()
        ours = student((pixels - student.pixel_mean) / student.pixel_std)
        with torch.no_grad():
            theirs = teacher((pixels - teacher.pixel_mean) / teacher.pixel_std)
        main, aux, teacher_main, teacher_aux = (
            F.interpolate(logits, size=label.shape[-2:], mode="bilinear", align_corners=False)
            for logits in (ours.logits, ours.aux_logits, theirs.logits, theirs.aux_logits)
        )
        loss = 0.5 * (0.125 * hard_entropy(main, label) + 0.125 * hard_entropy(aux, label) + 0.75 * hard_jaccard(main, label))
        loss = loss + 0.0625 * soft_divergence(main, teacher_main, label) + 0.0625 * soft_divergence(aux, teacher_aux, label)
        loss = loss + 0.375 * soft_jaccard(main, teacher_main, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return Rival("plain, fp32, contiguous", step)


def hard_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label, ignore_index=255)


def soft_divergence(logits: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    pixels = F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)
    valid = label != 255
    return (pixels * valid).sum() / valid.sum()


def hard_jaccard(logits: Tensor, label: Tensor) -> Tensor:
    """arXiv:2302.05666, summed over the batch, over the classes that are present."""
    one_hot = F.one_hot(label.masked_fill(label == 255, 0), CLASSES).permute(0, 3, 1, 2).float()
    terms = jaccard_terms(logits.softmax(1), one_hot, label != 255)
    present = (one_hot * (label != 255)[:, None]).amax((0, 2, 3)) > 0
    return terms[present].mean()


def soft_jaccard(logits: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    return jaccard_terms(logits.softmax(1), teacher.softmax(1), label != 255).mean()


def jaccard_terms(p: Tensor, y: Tensor, valid: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (I + s) / (U + s) by class, with I = (|p| + |y| - |p - y|) / 2 and U = |p| + |y| - I in sums over the batch."""
    p, y = p * valid[:, None], y * valid[:, None]
    both, apart = (p + y).sum((0, 2, 3)), (p - y).abs().sum((0, 2, 3))
    shared = (both - apart) / 2
    return 1 - (shared + smooth) / (both - shared + smooth)


def alone(
    build: Callable[[DistillRun, Batch, str], Rival], run: DistillRun, batch: Batch, device: str
) -> tuple[float, float | None]:
    """Loss of the first step, and GB at most in the second; None on a CPU; a GPU is empty again afterwards."""
    rival = build(run, batch, device)
    loss = rival.step()
    if device == "cpu":
        return loss, None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    rival.step()
    peak = torch.cuda.max_memory_allocated() / 1e9
    del rival
    torch.cuda.empty_cache()
    return loss, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cityscapes-psp18", help="of the JML recipe, whose losses `plain` has")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak-tflops", type=float, default=790.0)
    parser.add_argument("--forms", action="store_true", help="compare forms of segctl's own step")
    record.add_options(parser)
    arguments = parser.parse_args()
    # A preset of a published run says fp32; what a person asks is how fast the device can take the step.
    run = load_preset(arguments.preset, [f"train.batch_size={arguments.batch}", "train.precision=auto", *arguments.set])
    assert isinstance(run, DistillRun)
    about = "A distillation step by segctl against the same step written plainly in float32."
    budget = record.Budget(arguments.rounds, 2, [0, 1], f"{arguments.rounds} rounds, in each of which both take one step")
    record.run("step", about, arguments, (measure_forms if arguments.forms else measure)(arguments, run), budget)


def measure_forms(arguments: argparse.Namespace, run: DistillRun) -> Iterator[record.Figure]:
    """Each form by itself, for its peak memory, and then in turns; ratios to the first form."""
    on_gpu = arguments.device != "cpu"
    torch.backends.cudnn.benchmark = True
    batch = make_batch(tuple(arguments.crop), arguments.batch, on_gpu)
    missing = {form.name: reason for form in FORMS if (reason := why_not(form, arguments.device)) is not None}
    builders = {form.name: partial(segctl_rival, form=form) for form in FORMS if form.name not in missing}
    found = {name: alone(build, run, batch, arguments.device) for name, build in builders.items()}
    rivals = {name: build(run, batch, arguments.device) for name, build in builders.items()}
    taken = in_turns(rivals, arguments.rounds)
    for name, rival in rivals.items():
        loss, peak = found[name]
        ratios, more = taken[FORMS[0].name] / taken[name], {"peak GB": peak, "first loss": loss}
        yield record.timed(case_of(arguments, run), rival.name, 1000 * taken[name], "ms", ratios, "not folded / this", **more)
    for name, reason in missing.items():
        yield record.left_out(case_of(arguments, run), name, "ms", reason)


def in_turns(rivals: dict[str, Rival], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each rival's steps, two of which come before and do not count."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 2):
        for name in list(rivals)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            rivals[name].step()  # gives back a number, so the device has done it
            times[name].append(time.perf_counter() - began)
    return {name: np.array(values[2:]) for name, values in times.items()}


def case_of(arguments: argparse.Namespace, run: DistillRun) -> str:
    return f"{run.name}, {arguments.crop[0]}×{arguments.crop[1]}, batch {arguments.batch}, {arguments.device}"


def measure(arguments: argparse.Namespace, run: DistillRun) -> Iterator[record.Figure]:
    on_gpu = arguments.device != "cpu"
    torch.backends.cudnn.benchmark = True  # as segctl has it: crops are of one size
    batch = make_batch(tuple(arguments.crop), arguments.batch, on_gpu)
    builders = {"segctl": segctl_rival, "plain": plain_rival}
    found = {name: alone(build, run, batch, arguments.device) for name, build in builders.items()}
    rivals = {name: build(run, batch, arguments.device) for name, build in builders.items()}
    with FlopCounterMode(display=False) as counter:
        rivals["plain"].step()
    tflop = counter.get_total_flops() / 1e12
    taken = in_turns(rivals, arguments.rounds)
    case = case_of(arguments, run)
    for name, rival in rivals.items():
        (loss, peak), middle = found[name], float(np.median(taken[name]))
        more = {
            "images/s": arguments.batch / middle,
            "peak GB": peak,
            "TFLOP a step": tflop,
            "TFLOP/s": tflop / middle,
            "% of the peak": 100 * tflop / middle / arguments.peak_tflops if on_gpu else None,
            "first loss": loss,
            "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
            "TF32 in products": torch.backends.cuda.matmul.allow_tf32,
        }
        yield record.timed(case, rival.name, 1000 * taken[name], "ms", taken["plain"] / taken[name], "plain / this", **more)


if __name__ == "__main__":
    main()
