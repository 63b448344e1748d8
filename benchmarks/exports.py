"""What exported files keep of a run and what they cost, for four heads and every format: parity with the run, and latency.

    python benchmarks/exports.py --weights FILE [--data-root data] [--steps 150] [--threads 1] [--save [NOTE]]

Each network is EfficientNet-Lite0 with another head, trained on CamVid for a fixed number of steps, so that its logits are those
of a real network; FILE holds the ImageNet weights of the backbone with timm's names. Every file is scored on the whole validation
split beside the network. Then torch and all files of a run take turns on a random picture of 360×480.
Prints median milliseconds, the median over the rounds of each time over torch's in that round, the share of pixels with another
class, and mIoU_D of the file and of the run. The runs stay in --runs-root; a second call trains and exports what is missing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import record

from segctl.bench.measure import ROUNDS, WARM_UP_RUNS
from segctl.errors import SegctlError
from segctl.files import read_json, write_json
from segctl.runs import RunFolder

HEADS = {
    "deeplabv3plus": "{head: deeplabv3plus, output_stride: 16, stages: 4, width: 48, rates: [6, 12, 18]}",
    "lraspp": "{head: lraspp, output_stride: 16, stages: 4, width: 128, aux: false}",
    "segformer": "{head: segformer, output_stride: 32, width: 64}",
    "pspnet": "{head: pspnet, output_stride: 16, stages: 4, width: 64}",
}
"""The heads, with the output stride and width that suit a small network."""
FORMS: dict[str, tuple[str, ...]] = {
    "onnx": ("--format", "onnx"),
    "int8": ("--format", "onnx", "--int8"),
    "torch": ("--format", "torch"),
    "torchscript": ("--format", "torchscript"),
    "openvino": ("--format", "openvino"),
}
CROP = "[192,256]"
ABOUT = "Exported files of four networks on EfficientNet-Lite0 beside the network in torch: classes, scores and latency on a CPU."


def segctl(*words: object) -> Any:
    """What a command prints as JSON; None if a file failed the comparison with its run. Raises SegctlError for other failures."""
    done = subprocess.run(
        [sys.executable, "-m", "segctl", *map(str, words), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 3):
        raise SegctlError(f"`segctl {words[0]}` ended with exit code {done.returncode}", "see its message above")
    return json.loads(done.stdout) if done.returncode == 0 else None


def train(head: str, arguments: argparse.Namespace) -> RunFolder:
    """The finished run of a head."""
    folder = RunFolder(arguments.runs_root / head)
    if folder.finished:
        return folder
    model = f"{{backbone: tf_efficientnet_lite0, weights: '{arguments.weights}', {HEADS[head][1:]}"
    changes = [f"model={model}", f"data.crop={CROP}", "data.scale=[0.5,1.5]", "optim.lr=1e-3", "optim.head_lr_factor=4"]
    if "aux: false" in model:
        changes.append("loss=[{kind: cross_entropy, logits: main, weight: 0.25}, {kind: jdt, logits: main, weight: 0.75}]")
    changes += [f"train.steps={arguments.steps}", f"train.validate_every={arguments.steps}", "data.workers=0"]
    words = ["train", "--preset", "camvid-fast", *(word for change in changes for word in ("--set", change))]
    words += ["--resume"] if folder.path.exists() else []
    command = [sys.executable, "-m", "segctl", *words, "--run", str(folder.path), "--data-root", str(arguments.data_root)]
    subprocess.run(command, check=True)
    return folder


def parity(folder: RunFolder, form: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """File size and comparison of one export. Empty for one that failed it."""
    kept: Path = arguments.runs_root / f"{folder.name}-{form}.json"
    if not kept.is_file():
        made = segctl("export", folder.path, *FORMS[form], "--data-root", arguments.data_root)
        write_json(kept, {} if made is None else {"file": Path(made["file"]).name, "bytes": made["bytes"], **made["parity"]})
    found: dict[str, Any] = read_json(kept)
    return found


def measured(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    for head in HEADS:
        folder = train(head, arguments)
        made = {form: parity(folder, form, arguments) for form in FORMS}
        words = ["--size", "360x480", "--threads", arguments.threads, "--no-compile", "--trust-program"]
        timed = segctl("bench", folder.path, *words, "--data-root", arguments.data_root)
        by_file = {found["file"]: form for form, found in made.items() if found}
        for row in timed["rows"]:
            name = None if row["file"] is None else Path(row["file"]).name
            own = name in (None, folder.model.name)
            form = "eager torch" if own else by_file.get(name, f"{name}, which failed the comparison")
            found = made.get(form, {})
            more = {
                "rounds": row["rounds"],
                "pixels that differ, %": found.get("percent_of_pixels"),
                "mIoU_D of the file": found.get("mIoU_D"),
                "mIoU_D of the run": found.get("mIoU_D_of_run"),
                "MB of file": row["file_mb"],
            }
            yield record.Figure(head, form, row["median_ms"], "ms", ratio=row["ratio"], ratio_of="this / eager torch", more=more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--runs-root", type=Path, default=Path("runs/exports"))
    parser.add_argument("--steps", type=int, default=150, help="training steps of each network")
    parser.add_argument("--threads", type=int, default=1)
    record.add_options(parser)
    arguments = parser.parse_args()
    stopping = f"{arguments.steps} training steps; rounds in which torch and all files take turns, fewer where they last too long"
    record.run("exports", ABOUT, arguments, measured(arguments), record.Budget(ROUNDS[1], WARM_UP_RUNS, [0], stopping))


if __name__ == "__main__":
    main()
