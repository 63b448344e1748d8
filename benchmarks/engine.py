"""What the engine costs: our loop beside the bare passes, and how soon a stopped run takes its next step.

    python benchmarks/engine.py overhead [--pairs 30] [--crop 240 320] [--batch 8] [--data-root DIR]
    python benchmarks/engine.py resume [--starts 5]

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
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
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
from segctl.train import checkpoint, loop, start
from segctl.train.loop import steps
from segctl.train.optimizer import build_optimizer
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Request, Session, prepare_session
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
    rarely = [f"loop.steps={count}", "loop.validate_every=100000", "loop.checkpoint_minutes=100000"]
    size = [f"data.crop=[{arguments.crop[0]},{arguments.crop[1]}]", f"loop.batch_size={arguments.batch}", "loop.precision=fp32"]
    changes = [*rarely, *size, f"loop.checkpoint_every={arguments.checkpoint_every}", f"model.backbone={arguments.backbone}"]
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


def measure_overhead(arguments: argparse.Namespace, place: Path) -> None:
    root = data_root(arguments, place)
    run = student(arguments, 100_000)
    session = prepare_session(Request(run, root, place, device="cpu"))
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
    show_overhead(arguments, session.workers, taken, clock, made)


def show_overhead(
    arguments: argparse.Namespace, workers: int, taken: dict[str, list[tuple[float, float]]], clock: Clock, made: list[float]
) -> None:
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {arguments.backbone}, crop {arguments.crop[0]}×"
        f"{arguments.crop[1]}, batch {arguments.batch}, {arguments.pairs} pairs, loader processes {workers}"
    )
    for index, kind in enumerate(("wall", "CPU")):
        ours, bare = (np.array([pair[index] for pair in taken[name][WARM_UP:]]) for name in ("ours", "bare"))
        low, middle, high = 100 * (np.quantile(ours / bare, (0.25, 0.5, 0.75)) - 1)
        print(
            f"  {kind:4}  ours {np.median(ours):7.3f} s   bare {np.median(bare):7.3f} s   overhead {middle:+.2f} % "
            f"(half of the pairs {low:+.1f} to {high:+.1f} %), of the fastest steps {100 * (ours.min() / bare.min() - 1):+.2f} %"
        )
    spent = clock.spent()[WARM_UP:]
    names = sorted({name for step in spent for name in step})
    means = {name: mean(step.get(name, 0.0) for step in spent) for name in names}
    whole = sum(means.values())
    around = whole - sum(means.get(name, 0.0) for name in PASSES)
    parts = "   ".join(f"{name} {1000 * means[name]:.2f} ms" for name in names if name not in PASSES)
    print(f"  around the passes, by the loop's own clock: {100 * around / whole:.2f} % of a step   ({parts})")
    print(f"  beside them the loader spends {1000 * median(made[WARM_UP:]):.0f} ms a batch, in a process of its own")


def measure_resume(arguments: argparse.Namespace, place: Path) -> None:
    root = data_root(arguments, place)
    run, folder = student(arguments, 100), RunFolder(place / "run")
    with suppress(KeyboardInterrupt):
        start.start_run(Request(run, root, place, device="cpu"), folder, Silent(last=3))
    size = folder.last.stat().st_size / 1e6
    print(f"torch {torch.__version__}; {arguments.backbone}, last.pt of {size:.0f} MB; median (fastest) of {arguments.starts}, s")
    command = [sys.executable, __file__, "resume", "--once", str(folder.path), "--data-root", str(root)]
    command += ["--crop", *map(str, arguments.crop), "--batch", str(arguments.batch), "--backbone", arguments.backbone]
    found = [start_afresh(command) for _ in range(arguments.starts)]
    for part in found[0]:
        values = [start[part] for start in found]
        print(f"  {part:52} {median(values):6.2f} ({min(values):.2f})")


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

    timed(start, "prepare_session")
    timed(start, "_load_state")
    timed(checkpoint, "read_checkpoint")
    began = time.perf_counter()
    for library in ("torch._dynamo", "timm"):
        importlib.import_module(library)
    libraries = time.perf_counter() - began
    folder = RunFolder(Path(arguments.once))
    loop.take_step = first_step
    run = folder.read_run()
    began = time.perf_counter()
    with suppress(KeyboardInterrupt):
        start.resume_run(Request(run, Path(arguments.data_root), folder.path.parent, device="cpu"), folder, Silent())
    whole, reading = took["to the first step"], took["read_checkpoint"]
    return {
        "from resume_run to the first step, beyond the file": whole - reading,
        "  opening the dataset, building network and optimiser": took["prepare_session"],
        "  putting the state into them": took["_load_state"] - reading,
        "  log, loader, first batch": whole - took["prepare_session"] - took["_load_state"],
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
    parser.add_argument("--data-root", help="where camvid is prepared; drawn if left out")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.checkpoint_every = 2 if arguments.what == "resume" else 100_000
    if arguments.once:
        print(json.dumps(resume_once(arguments)))
        return
    with tempfile.TemporaryDirectory() as place:
        (measure_overhead if arguments.what == "overhead" else measure_resume)(arguments, Path(place))


if __name__ == "__main__":
    main()
