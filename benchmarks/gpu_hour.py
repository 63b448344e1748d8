"""The first hour on a GPU: one command that checks, measures and trains, and rewrites one Markdown page after each step.

    python benchmarks/gpu_hour.py [--page gpu-hour.md] [--minutes 60] [--camvid FOLDER] [--authors FOLDER] [--only NAME ...]
    python benchmarks/gpu_hour.py --device cpu --small      # the same steps in little, to see that they run
    python benchmarks/gpu_hour.py --device pretend          # in little, with the tests' pretend GPU in the place of a real one

  tests     the tests marked `gpu`: every test of the pretend device has its twin there
  losses    time and memory beside F.cross_entropy, and the authors' code if --authors names a folder with it
  step      PSPNet-ResNet18 from DeepLabV3-ResNet101 at 512 by 1024, batch 8, with its share of what the GPU can do
  lean      the same step with the teacher's batch norms unfolded and folded, beside the student, compiled, and with CUDA graphs
  rows      CIRKD's rows of similarities by kernels that keep none of them, beside torch's own operations
  loader    a crop of Cityscapes' size on one core, and how busy the GPU was in a training run (wanted: 95 %)
  resume    a run killed and resumed with --deterministic against one that was not: the same weights, to the bit
  curves    200 steps in fp32, bf16 and fp16 against the CPU's
  exports   the exported network under onnxruntime's CUDA provider, against the run
  camvid    CamVid at full size for the rest of the time: the teacher, then a student without and with it

A step that fails or cannot run says so on the page, and the next one begins. --camvid is CamVid as published; without it that
step is left out. Needs the repository and `pip install -e ".[dev]"`. Ends with 1 if a step failed.

The pretend device (tests/device) computes on the CPU behind tensors that say `cuda:0`. It needs Linux and a C++ compiler. It has
no kernels, graphs, memory or time: the page says what is left out because of that.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
LAUNCHER = ROOT / "tests" / "device" / "launch.py"
BUSY = 95
"""Percent of a step's time that is not spent waiting for data."""


class SkippedError(Exception):
    """A step that cannot run here, and why."""


class StepFailedError(Exception):
    """What went wrong, for the page."""


@dataclass
class Hour:
    """What all steps share. Commands run in `work`, where they leave data and runs."""

    device: str
    small: bool
    work: Path
    camvid: Path | None
    authors: Path | None
    ends: float
    """time.monotonic() at which the last step has to be done."""
    guard: Path | None = None
    """The pretend device's library, if that takes the place of a GPU."""

    @property
    def left_s(self) -> float:
        return max(1.0, self.ends - time.monotonic())

    def python(self, *arguments: str, on_device: bool = True) -> dict[str, Any]:
        """How `subprocess` starts Python in `work`; on_device: with the pretend device, if there is one."""
        launcher = [str(LAUNCHER), str(self.guard)] if self.guard is not None and on_device else []
        command = [sys.executable, *launcher, *arguments]
        return {"args": command, "cwd": self.work, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}

    def run(self, *arguments: str, may_fail: bool = False, on_device: bool = True) -> str:
        """What Python prints, given such arguments. Raises StepFailedError with its last lines."""
        typed = " ".join(["python", *arguments]).replace(f"{ROOT}/", "")
        process = self.python(*arguments, on_device=on_device)
        try:
            done = subprocess.run(**process, capture_output=True, text=True, timeout=self.left_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise StepFailedError(f"`{typed}` did not end within {error.timeout:.0f} s") from error
        if done.returncode and not may_fail:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
            raise StepFailedError(f"`{typed}` ended with {done.returncode}:\n\n{code(last)}")
        return done.stdout if not may_fail else done.stdout + done.stderr

    def segctl(self, *arguments: str, on_device: bool = True) -> str:
        return self.run("-m", "segctl", *arguments, on_device=on_device)

    def train(self, folder: str, *arguments: str) -> list[dict[str, Any]]:
        """The log of a finished run in runs/FOLDER; it is started unless it is there."""
        if not (self.work / "runs" / folder / "model.safetensors").is_file():
            self.segctl(*arguments, "--run", f"runs/{folder}")
        return log_of(self.work / "runs" / folder)


def code(text: str) -> str:
    return f"```\n{text.strip()}\n```"


def rows(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def machine(hour: Hour) -> str:
    asked = (
        "import torch, os; d = torch.cuda; print('torch', torch.__version__, '| cores', os.cpu_count()); "
        "print(*(f'{d.get_device_name(i)}, {d.get_device_properties(i).total_memory / 2**30:.1f} GiB, compute capability '"
        " f'{d.get_device_capability(i)}, CUDA {torch.version.cuda}' for i in range(d.device_count())), sep='\\n')"
    )
    return code(hour.run("-c", asked))


def tests(hour: Hour) -> str:
    folder, mark, chosen, note = ROOT / "tests", "gpu", "", ""
    places = [str(folder)]
    if hour.device == "cpu":  # their twins on the pretend device
        names, mark = ["test_pretend.py", "test_scoring.py"], "not gpu and not slow"
        places = [str(folder / "device" / name) for name in names[: 1 if hour.small else 2]]
    elif hour.guard is not None:
        places = [str(folder / "device" / "test_real.py")]
        chosen = "not compiled and not does_not_wait and (not a_method_takes or jml)"
        note = (
            "\n\nLeft out: tests of kernels and compiled networks, which the pretend device cannot run; those in which torch "
            "refuses waits, which the pretend device counts; and every method but jml, which tests/device/test_training.py tries."
        )
    found = hour.run(
        "-m", "pytest", "-q", "-n", "0", "-m", mark, "-k", chosen, f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"),
        "--durations=5", f"--basetemp={hour.work / 'tests'}", "-p", "no:cacheprovider", *places, may_fail=True,
    )  # fmt: skip
    last = found.strip().splitlines()
    if " failed" in last[-1] or " error" in last[-1]:
        raise StepFailedError(code("\n".join(last[-40:])))
    return code("\n".join(last[-12:])) + note


def losses(hour: Hour) -> str:
    size, rounds = ("64", "1") if hour.small else ("512", "9")
    text = code(hour.run(
        str(BENCHMARKS / "losses.py"), "--device", hour.device, "--classes", "19", "--size", size,
        "--rounds", rounds,
    ))  # fmt: skip
    if hour.guard is not None:
        return text
    if hour.authors is None:
        return text + "\n\nThe authors' code was not measured: --authors names no folder with it."
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        theirs, ours, cross = pool.submit(time_authors, hour.authors, hour.device, int(size), int(rounds)).result()
    return f"{text}\n\n" + rows(
        ["forward and backward, ms", "median"],
        [["authors' hard Jaccard", f"{theirs:.2f}"], ["segctl's", f"{ours:.2f}"], ["F.cross_entropy", f"{cross:.2f}"]],
    )


def time_authors(folder: Path, device: str, size: int, rounds: int) -> tuple[float, float, float]:
    """Median milliseconds of the authors' hard Jaccard loss, segctl's and cross-entropy: batch 4, 19 classes."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from segctl.losses import JDTLoss

    names = ("jdt_loss.py", "jaccard_metric_losses.py", "jaccard_metric_loss.py")
    path = next((found for name in names for found in sorted(folder.rglob(name))), None)
    if path is None:
        raise StepFailedError(f"{folder} holds none of {', '.join(names)}")
    spec = importlib.util.spec_from_file_location("authors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    kind = next(getattr(module, name) for name in ("JDTLoss", "JML1", "JaccardMetricLoss") if hasattr(module, name))
    torch.manual_seed(0)
    logits = torch.randn(4, 19, size, size, device=device, requires_grad=True)
    label = torch.randint(0, 19, (4, size, size), device=device)
    rivals = [kind(), JDTLoss(), F.cross_entropy]
    times: list[list[float]] = [[], [], []]
    for _ in range(rounds + 1):
        for rival, taken in zip(rivals, times, strict=True):
            began = time.perf_counter()
            torch.autograd.backward(rival(logits, label))
            if device != "cpu":
                torch.cuda.synchronize()
            taken.append(1000 * (time.perf_counter() - began))
    theirs, ours, cross = (float(np.median(taken[1:])) for taken in times)
    return theirs, ours, cross


def step(hour: Hour) -> str:
    changes = ["--crop", "64", "128", "--batch", "2", "--rounds", "1"] if hour.small else []
    return code(hour.run(str(BENCHMARKS / "step.py"), "--device", hour.device, *changes))


def lean(hour: Hour) -> str:
    changes = ["--crop", "64", "128", "--batch", "2", "--rounds", "1"] if hour.small else ["--rounds", "10"]
    return code(hour.run(str(BENCHMARKS / "step.py"), "--forms", "--device", hour.device, *changes))


TINY = ("model.backbone=test_resnet", "model.width=8", "data.crop=[32,48]", "train.batch_size=2", "data.workers=0")
"""What makes a run of --small a matter of seconds."""


def shapes(hour: Hour, device: str | None = None) -> tuple[str, ...]:
    """Makes the dataset that segctl draws itself; the options that all its runs have."""
    if not (hour.work / "data" / "shapes").is_dir():
        hour.segctl("data", "prepare", "shapes", on_device=False)
    tiny = [word for setting in TINY for word in ("--set", setting)] if hour.small else []
    return ("--device", device or hour.device, *tiny)


def similarities(hour: Hour) -> str:
    changes = ["--grid", "16", "32", "--width", "32", "--batch", "2", "--rounds", "1"] if hour.small else []
    return code(hour.run(str(BENCHMARKS / "rows.py"), "--device", hour.device, *changes))


def loader(hour: Hour) -> str:
    samples = "2" if hour.small else "60"
    text = code(hour.run(
        str(BENCHMARKS / "loader.py"), "--shapes", "cityscapes", "--codecs", "lz4", "--samples", samples,
        "--repeats", "1",
    ))  # fmt: skip
    found = hour.train(
        "loader", "train", "--preset", "shapes-teacher", "--steps", "6" if hour.small else "300", *shapes(hour),
        *(("--set", "data.workers=1") if hour.small else ()),
    )  # fmt: skip
    if hour.guard is not None:
        return f"{text}\n\nA run on shapes ended well. How busy the device was is left out: it knows no time."
    reports = [event for event in found if event["event"] == "step" and event.get("step_s")][1:]
    busy = 100 * (1 - sum(event["data_s"] for event in reports) / sum(event["step_s"] for event in reports)) if reports else None
    if busy is None:
        return f"{text}\n\nThe run was too short to tell how busy the device was."
    return f"{text}\n\nTraining on shapes: the device waited for no data in {busy:.1f} % of the time, wanted {BUSY} %."


def resume(hour: Hour) -> str:
    steps, every = ("6", "2") if hour.small else ("60", "10")
    command = (
        "train", "--preset", "shapes-teacher", "--deterministic", "--steps", steps, "--set", f"train.checkpoint_every={every}",
        *shapes(hour),
    )  # fmt: skip
    hour.train("whole", *command)
    run = hour.work / "runs" / "killed"
    process = subprocess.Popen(
        **hour.python("-m", "segctl", *command, "--run", str(run)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not (run / "last.pt").is_file():
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its loader's processes too
    process.wait()
    if (run / "model.safetensors").is_file():
        raise StepFailedError("the run ended before it could be killed")
    hour.segctl("train", "--resume", "--run", str(run), "--device", hour.device)
    compared = (
        "import sys, torch; from safetensors.torch import load_file; a, b = map(load_file, sys.argv[1:]); "
        "print(max(float((a[k].double() - b[k].double()).abs().max()) for k in a))"
    )
    files = [str(hour.work / "runs" / name / "model.safetensors") for name in ("whole", "killed")]
    difference = float(hour.run("-c", compared, *files))
    if difference:
        raise StepFailedError(f"the resumed run's weights differ by up to {difference:.3g}")
    return f"Killed by SIGKILL after its first checkpoint, of {every} steps, and resumed to {steps}: the same weights to the bit."


def curves(hour: Hour) -> str:
    steps = 6 if hour.small else 200
    lines = []
    for device, precision in (("cpu", "fp32"), (hour.device, "fp32"), (hour.device, "bf16"), (hour.device, "fp16")):
        name = f"curve-{device.replace(':', '')}-{precision}"
        if device == "cpu" and precision == "fp16":  # segctl refuses it
            lines.append([device, precision, "a CPU has no fp16", ""])
            continue
        found = hour.train(
            name, "train", "--preset", "shapes-teacher", "--steps", str(steps), "--set", f"train.precision={precision}",
            *shapes(hour, device),
        )  # fmt: skip
        totals = [
            sum(event["terms"].values()) for event in found if event["event"] == "step" and None not in event["terms"].values()
        ]
        parts = [totals[index * (len(totals) - 1) // 4] for index in range(5)]
        scores = [event["scores"]["mIoU_D"] for event in found if event["event"] == "validation" or "scores" in event]
        lines.append([device, precision, ", ".join(f"{part:.4f}" for part in parts), f"{scores[-1]:.2f}" if scores else "–"])
    return rows(["device", "precision", "loss at 0, 25, 50, 75, 100 % of the steps", "mIoU_D in percent"], lines)


def exports(hour: Hour) -> str:
    hour.train(
        "curve-cpu-fp32", "train", "--preset", "shapes-teacher", "--steps", "6" if hour.small else "200", *shapes(hour, "cpu")
    )
    images = "4" if hour.small else "60"
    said = hour.segctl("export", "runs/curve-cpu-fp32", "--parity", images)
    device = hour.device.partition(":")[0]
    available = hour.run("-c", "import onnxruntime; print(*onnxruntime.get_available_providers())").split()
    if hour.guard is not None:
        device = "cpu"
    elif device == "cuda" and "CUDAExecutionProvider" not in available:
        raise SkippedError(f"this onnxruntime has {', '.join(available)}: pip install onnxruntime-gpu\n\n{code(said)}")
    scored = hour.segctl(
        "eval", "runs/curve-cpu-fp32", "--model", "runs/curve-cpu-fp32/export/model.onnx", "--device", device, "--json"
    )  # fmt: skip
    network = hour.segctl("eval", "runs/curve-cpu-fp32", "--device", hour.device, "--json")
    found = [json.loads(text[text.index("{") :]) for text in (network, scored)]
    both = [scores_of(each) for each in found]
    if abs(both[0] - both[1]) > 0.1:
        raise StepFailedError(f"mIoU_D of the network {both[0]:.3f}, of the file {both[1]:.3f}")
    note = " The pretend device ran the network; the file ran on the CPU, because onnxruntime has no such device."
    end = note if hour.guard is not None else ""
    return f"{code(said)}\n\nOn {device}: mIoU_D of the network {both[0]:.3f}, of the ONNX file {both[1]:.3f}.{end}"


def scores_of(tree: Any) -> float:
    """The first mIoU_D in what `segctl eval --json` prints."""
    if isinstance(tree, dict):
        if isinstance(tree.get("mIoU_D"), float):
            return float(tree["mIoU_D"])
        tree = list(tree.values())
    for branch in tree if isinstance(tree, list) else []:
        with contextlib.suppress(LookupError):
            return scores_of(branch)
    raise LookupError("no mIoU_D")


def camvid(hour: Hour) -> str:
    if hour.camvid is None:
        raise SkippedError("--camvid names no folder of CamVid as published")
    if not (hour.work / "data" / "camvid").is_dir():
        hour.segctl("data", "prepare", "camvid", "--source", str(hour.camvid))
    kind = "-scratch"  # nothing is downloaded
    teacher, student = f"camvid-dl101{kind}", f"camvid-psp18{kind}"
    small = [word for setting in (*TINY, "data.crop=[64,96]") for word in ("--set", setting)] if hour.small else []
    lines = []
    for index, (name, command) in enumerate({
        "teacher": ("train", "--preset", teacher),
        "student": ("train", "--preset", student),
        "student-jml": ("distill", "--preset", student, "--method", "jml", "--teacher", "runs/teacher"),
    }.items()):  # fmt: skip
        share = hour.left_s / (3 - index)
        began = time.monotonic()
        if hour.small:
            steps = 150 if name == "teacher" else 2  # one that has learnt nothing is refused
        else:
            trial = hour.train(f"{name}-trial", *command, "--steps", "60", "--device", hour.device)
            per_step = sorted(event["step_s"] for event in trial if event["event"] == "step" and event.get("step_s"))
            left = share - (time.monotonic() - began) - 60  # a minute for the start and the scores
            steps = max(100, int(left / per_step[len(per_step) // 2]))
        found = hour.train(name, *command, "--steps", str(steps), "--device", hour.device, *small)
        scores = [event["scores"] for event in found if "scores" in event]
        figures = [f"{scores[-1][key]:.2f}" for key in ("mIoU_D", "mIoU_I")] if scores else ["–", "–"]
        lines.append([name, str(steps), *figures, f"{(time.monotonic() - began) / 60:.1f}"])
    return rows(["run", "steps", "mIoU_D", "mIoU_I", "minutes"], lines)


STEPS: dict[str, Callable[[Hour], str]] = {
    "machine": machine, "tests": tests, "losses": losses, "step": step, "lean": lean, "rows": similarities, "loader": loader,
    "resume": resume, "curves": curves, "exports": exports, "camvid": camvid,
}  # fmt: skip


def attempt(name: str, hour: Hour) -> tuple[str, bool]:
    """A step's part of the page, and whether it did not fail."""
    began = time.monotonic()
    fine, state = True, "done"
    try:
        text = STEPS[name](hour)
    except SkippedError as reason:
        text, state = str(reason), "left out"
    except Exception as error:  # whatever it is, the other steps still tell something
        text, state, fine = str(error) or repr(error), "FAILED", False
    return f"## {name}: {state} in {time.monotonic() - began:.0f} s\n\n{text}\n", fine


def pretend_device(folder: Path) -> Path:
    """The library of the tests' pretend device, built in a folder. Ends the program with 2 where it cannot be built."""
    sys.path.insert(0, str(ROOT))
    from tests.device.there import build_guard

    built = build_guard(folder)
    if isinstance(built, str):
        print(f"error: --device pretend {built}", file=sys.stderr)
        raise SystemExit(2)
    return built


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu, or pretend, which implies --small")
    parser.add_argument("--page", type=Path, default=Path("gpu-hour.md"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--work", type=Path, default=Path("gpu-hour"), help="folder for data and runs; finished runs in it are kept"
    )
    parser.add_argument("--camvid", type=Path, metavar="FOLDER")
    parser.add_argument("--authors", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="NAME")
    parser.add_argument("--small", action="store_true", help="a few steps of small images, to see that everything runs")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    places = {name: path and path.resolve() for name, path in (("camvid", arguments.camvid), ("authors", arguments.authors))}
    work, pretends = arguments.work.resolve(), arguments.device == "pretend"
    guard = pretend_device(work) if pretends else None
    device, small = ("cuda", True) if pretends else (arguments.device, arguments.small)
    hour = Hour(device, small, work, ends=time.monotonic() + 60 * arguments.minutes, guard=guard, **places)
    title = "the pretend device" if pretends else arguments.device
    parts, fine = [f"# {arguments.minutes:.0f} minutes on {title}{' (small)' if small else ''}\n"], True
    for name in arguments.only:
        print(f"{name} …", flush=True)
        text, good = attempt(name, hour)
        print(text.splitlines()[0].removeprefix("## "), flush=True)
        parts.append(text)
        fine = fine and good
        arguments.page.write_text("\n".join(parts), encoding="utf-8")
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
