"""What the engine costs: our loop beside the bare passes, and how soon a stopped run takes its next step.

    python benchmarks/engine.py overhead [--pairs 30] [--crop 240 320] [--batch 8] [--data-root DIR] [--save [NOTE]]
    python benchmarks/engine.py resume [--starts 5] [--save [NOTE]]

PSPNet-ResNet18 by `camvid-psp18-scratch`, trained alone, in float32 on the CPU. Pictures are drawn in CamVid's layout, or
taken from a data root where camvid is prepared.
  overhead   segctl's loop as a user runs it (batches from lz4 shards by one loader process, logging every 20 steps, gradient
             norm, signals) against zero_grad, forward, loss, backward and step on batches that lie in memory, with a network of
             its own. They take turns, one step each, and change who goes first, so that whatever else the machine does hits
             both. Not in it: validation and checkpoints. By the clock on the wall and by the main process's CPU time; then, from
             the loop's own clock, what lies outside the passes; and what the loader process spends beside them.
  resume     fresh processes go on with a stopped run: from the call of `resume_run` to the moment its first batch is there and
             the first step begins, less reading last.pt. What other people's libraries take to load is shown apart: torch,
             timm with torchvision, and torch's compiler, which every torch optimiser loads.
--save keeps the result (benchmarks/record.py), of `overhead` as engine-overhead, of `resume` as engine-resume.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import record
import torch

from segctl.data.batches.loader import Batch, training_batches
from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.models import build_model
from segctl.runs import RunFolder
from segctl.runtime.phases import Clock, hold
from segctl.schema.load import load_preset
from segctl.schema.run import DistillRun, TrainRun
from segctl.train import loop, resume, start
from segctl.train.build import build_session
from segctl.train.loop import steps
from segctl.train.optimizer import build_optimizer
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Request, Session
from segctl.train.tasks import SupervisedTask

LOADED = time.time()
PASSES = ("student", "loss", "backward", "optimiser")
WARM_UP = 2


class Silent:
    """A watcher that says nothing, and ends the run after some steps where it is told to."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def note(self, text: str) -> None:
        pass

    def stepped(self, report: StepReport, steps: int) -> None:
        if report.step == self.last:
            raise KeyboardInterrupt

    def advance(self, label: str, done: int, total: int) -> None:
        pass

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        pass


def draw_camvid(folder: Path, count: int = 24) -> Path:
    """Smooth coloured areas of 480×360 with their labels, in the published layout."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        images, labels = folder / split, folder / f"{split}annot"
        images.mkdir(parents=True)
        labels.mkdir()
        for index in range(count if split == "train" else 2):
            label = cv2.resize(random.integers(0, 11, (9, 12)).astype(np.uint8), (480, 360), interpolation=cv2.INTER_NEAREST)
            noise = random.normal(0, 6, (360, 480, 3))
            image = np.clip(label[..., None] * (20, 9, 15) + 30 + noise, 0, 255).astype(np.uint8)
            name = f"{'0001TP' if split == 'train' else '0016E5'}_{index:05d}.png"
            cv2.imwrite(str(images / name), image)
            cv2.imwrite(str(labels / name), label)
    return folder


def data_root(arguments: argparse.Namespace, place: Path) -> Path:
    if arguments.data_root is not None:
        return Path(arguments.data_root)
    prepare_source(open_source("camvid", [draw_camvid(place / "source")]), place / "data", workers=0)
    return place / "data"


def student(arguments: argparse.Namespace, count: int) -> TrainRun:
    """The run, in so many steps, without validations and checkpoints between them."""
    rarely = [f"train.steps={count}", "train.validate_every=100000", "train.checkpoint_minutes=100000"]
    size = [f"data.crop=[{arguments.crop[0]},{arguments.crop[1]}]", f"train.batch_size={arguments.batch}", "train.precision=fp32"]
    changes = [*rarely, *size, f"train.checkpoint_every={arguments.checkpoint_every}", f"model.backbone={arguments.backbone}"]
    run = load_preset("camvid-psp18-scratch", changes)
    assert isinstance(run, DistillRun)
    return run.without_teacher()


def bare_stepper(run: TrainRun, root: Path) -> Callable[[], None]:
    """A function that takes one step on batches that lie in memory, with nothing around it."""
    dataset = open_dataset(root, "camvid")
    torch.manual_seed(run.train.seed)
    model = build_model(run.model, dataset.classes.num_classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = SupervisedTask(model, run.labels, run.loss).train()
    optimizer = build_optimizer(run.optim, task, model.backbone)
    batches = list(training_batches(
        dataset, "train", view=run.data, batch_size=run.train.batch_size, seed=1, first_step=0, last_step=4, workers=0
    ))  # fmt: skip
    turn = 0

    def step() -> None:
        nonlocal turn
        batch, turn = batches[turn % len(batches)], turn + 1
        optimizer.zero_grad(set_to_none=True)
        task(batch.images, batch.labels).loss.backward()
        optimizer.step()

    return step


def both_clocks(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock on the wall, and of this process's CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_overhead(arguments: argparse.Namespace, place: Path) -> Iterator[record.Figure]:
    root = data_root(arguments, place)
    run = student(arguments, 100_000)
    session = build_session(Request(run, root, place, device="cpu"))
    bare, folder = bare_stepper(run, root), RunFolder(place / "run")
    folder.path.mkdir()
    made: list[float] = []
    loop = steps(session, folder, RunLog(folder, run.train.steps, Silent()))

    def ours() -> None:
        batch: Batch = next(loop)
        made.append(batch.made_s)

    taken: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
    clock = Clock(torch.device("cpu"))
    for number in range(WARM_UP + arguments.pairs):
        for name, work in (("ours", ours), ("bare", bare))[:: 1 if number % 2 else -1]:
            if name == "ours":
                clock.turn("other")
                hold(clock)
            taken[name].append(both_clocks(work))
            if name == "ours":
                clock.next_step()
                hold(None)
                clock.turn("between")
    loop.close()
    yield from overhead_figures(arguments, session.workers, taken, clock, made)


def overhead_figures(
    arguments: argparse.Namespace, workers: int, taken: dict[str, list[tuple[float, float]]], clock: Clock, made: list[float]
) -> Iterator[record.Figure]:
    case = f"{arguments.backbone}, {arguments.crop[0]}×{arguments.crop[1]}, batch {arguments.batch}"
    for index, kind in enumerate(("s", "s of CPU")):
        times = {name: np.array([pair[index] for pair in taken[name][WARM_UP:]]) for name in taken}
        for name, values in times.items():
            fastest = float(values.min() / times["bare"].min())
            more = {"of the fastest steps": fastest}
            yield record.timed(case, name, values, kind, values / times["bare"], "this / bare", **more)
    spent = clock.spent()[WARM_UP:]
    names = sorted({name for step in spent for name in step})
    means = {name: 1000 * mean(step.get(name, 0.0) for step in spent) for name in names}
    whole = sum(means.values())
    for name in (name for name in names if name not in PASSES):
        more = {"% of a step": 100 * means[name] / whole}
        yield record.Figure("around the passes, the loop's clock", name, means[name], "ms", "mean", more=more)
    yield record.timed(f"beside them, {workers} processes", "loader", [1000 * one for one in made[WARM_UP:]], "ms a batch")


def measure_resume(arguments: argparse.Namespace, place: Path) -> Iterator[record.Figure]:
    root = data_root(arguments, place)
    run, folder = student(arguments, 100), RunFolder(place / "run")
    with suppress(KeyboardInterrupt):
        start.start_run(Request(run, root, place, device="cpu"), folder, Silent(last=3))
    size = folder.last.stat().st_size / 1e6
    command = [sys.executable, __file__, "resume", "--once", str(folder.path), "--data-root", str(root)]
    command += ["--crop", *map(str, arguments.crop), "--batch", str(arguments.batch), "--backbone", arguments.backbone]
    found = [start_afresh(command) for _ in range(arguments.starts)]
    for part in found[0]:
        values = [start[part] for start in found]
        yield record.timed(f"{arguments.backbone}, last.pt of {size:.0f} MB", part, values, "s", fastest=min(values))


def start_afresh(command: list[str]) -> dict[str, float]:
    begun = [*command, "--started", str(time.time())]
    found: dict[str, float] = json.loads(subprocess.run(begun, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def resume_once(arguments: argparse.Namespace) -> dict[str, float]:
    """The parts of one start, in a fresh process."""
    took: dict[str, float] = {}

    def timed(module: Any, name: str) -> None:
        work = getattr(module, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                took[name] = time.perf_counter() - began

        setattr(module, name, wrapped)

    def first_step(session: Session, batch: Batch) -> None:
        took["to the first step"] = time.perf_counter() - began
        raise KeyboardInterrupt

    timed(resume, "build_session")
    timed(resume, "_load_checkpoint")
    timed(resume, "read_checkpoint")
    began = time.perf_counter()
    for library in ("torch._dynamo", "timm"):
        importlib.import_module(library)
    libraries = time.perf_counter() - began
    folder = RunFolder(Path(arguments.once))
    loop.take_step = first_step
    run = folder.read_run()
    began = time.perf_counter()
    with suppress(KeyboardInterrupt):
        resume.resume_run(Request(run, Path(arguments.data_root), folder.path.parent, device="cpu"), folder, Silent())
    whole, reading = took["to the first step"], took["read_checkpoint"]
    return {
        "from resume_run to the first step, beyond the file": whole - reading,
        "of which opening the dataset, building network and optimiser": took["build_session"],
        "of which putting the state into them": took["_load_checkpoint"],
        "of which log, loader, first batch": whole - reading - took["build_session"] - took["_load_checkpoint"],
        "reading last.pt": reading,
        "before: Python, torch and segctl": LOADED - arguments.started,
        "before: timm, torchvision and torch's compiler": libraries,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "resume"))
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--crop", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--backbone", default="resnet18d")
    parser.add_argument("--data-root", type=Path, help="where camvid is prepared; drawn if left out")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    record.add_options(parser)
    arguments = parser.parse_args()
    arguments.checkpoint_every = 2 if arguments.what == "resume" else 100_000
    if arguments.once:
        print(json.dumps(resume_once(arguments)))
        return
    with tempfile.TemporaryDirectory() as place:
        if arguments.what == "overhead":
            about = "The training loop as a user runs it against the bare passes on batches in memory."
            budget = record.Budget(arguments.pairs, WARM_UP, [1], f"{arguments.pairs} pairs of steps")
            record.run("engine-overhead", about, arguments, measure_overhead(arguments, Path(place)), budget)
        else:
            about = "What a stopped run needs from the call of resume_run to its next step, by parts."
            budget = record.Budget(arguments.starts, 0, [1], f"{arguments.starts} starts, each in a fresh process")
            record.run("engine-resume", about, arguments, measure_resume(arguments, Path(place)), budget)


if __name__ == "__main__":
    main()
