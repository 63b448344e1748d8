"""Latency of small segmentation networks as ONNX files on a CPU, all taking turns in one run.

    python benchmarks/latency.py [--size 512x1024] [--threads 1 2] [--rounds 15] [--yolo FILE.onnx] [--save [NOTE]]

Every network has random weights and 19 classes, runs in float32 by onnxruntime, and goes from an image to its class map with the
argmax inside. The image has fixed size and the same pixels for all.
  psp18           PSPNet-ResNet18 of the preset cityscapes-psp18: 1.00 by definition
  fast, tiny      the presets cityscapes-fast and cityscapes-tiny
  lraspp          torchvision's lraspp_mobilenet_v3_large
  deeplabv3       torchvision's deeplabv3_mobilenet_v3_large
  yolo26n-sem     only with --yolo: a file that ultralytics wrote in an environment of its own. It is under the AGPL, so segctl
                  neither depends on it nor imports it, here or elsewhere:
                      python -m venv yolo && yolo/bin/pip install ultralytics onnx
                      yolo/bin/python -c "from ultralytics import YOLO; \\
                          YOLO('yolo26n-sem.yaml').export(format='onnx', imgsz=(512, 1024))"
                  It takes float32 images, already divided by 255; that division is not timed.
Prints median milliseconds, and the median over the rounds of each network's time over PSPNet's in that round.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import record
import torch
from torch import Tensor, nn

from segctl.data.datasets import class_table
from segctl.models import at_label_size, build_model
from segctl.models.deployed import predicting
from segctl.schema.load import load_preset

CLASSES = 19
WARM_UP = 2
PRESETS = {"psp18": "cityscapes-psp18", "fast": "cityscapes-fast", "tiny": "cityscapes-tiny"}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ABOUT = "Latency of ONNX files on a CPU from image to class map, each against PSPNet-ResNet18 in the same round."


class FromPixels(nn.Module):
    """Images uint8 (B, H, W, 3) -> class maps uint8 (B, H, W), by a network of normalised (B, 3, H, W) -> logits (B, C, h, w)."""

    def __init__(self, logits: Callable[[Tensor], Tensor], network: nn.Module) -> None:
        super().__init__()
        self.network, self.logits = network, logits
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std
        logits = at_label_size(self.logits(pixels), (images.shape[1], images.shape[2]))
        return logits.argmax(1).to(torch.uint8)


def networks() -> Iterator[tuple[str, FromPixels]]:
    """Name and network of each rival but ultralytics'."""
    for name, preset in PRESETS.items():
        run = load_preset(preset)
        spec = run.model.model_copy(update={"weights": "none"})
        model = predicting(build_model(spec, class_table(run.data.dataset).num_classes))
        yield name, FromPixels(lambda pixels, model=model: model(pixels).logits, model)
    from torchvision.models import segmentation

    for name, make in (
        ("lraspp", segmentation.lraspp_mobilenet_v3_large),
        ("deeplabv3", segmentation.deeplabv3_mobilenet_v3_large),
    ):
        other = make(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
        yield name, FromPixels(lambda pixels, other=other: other(pixels)["out"], other)


def exported(folder: Path, size: tuple[int, int], yolo: Path | None) -> dict[str, Path]:
    """One file for each rival, for images of this size alone."""
    files = {}
    for name, network in networks():
        files[name] = folder / f"{name}.onnx"
        example = torch.zeros(1, *size, 3, dtype=torch.uint8)
        torch.onnx.export(network.eval(), (example,), files[name], dynamo=True, external_data=False, verbose=False)
    if yolo is not None:
        files["yolo26n-sem"] = yolo
    return files


def runner(file: Path, threads: int, image: np.ndarray) -> Callable[[], Any]:
    """A call of the file on the image uint8 (1, H, W, 3)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (asked,) = session.get_inputs()
    is_ours = asked.type == "tensor(uint8)"
    fed = image if is_ours else np.ascontiguousarray(image.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    if list(asked.shape) != list(fed.shape):
        print(f"error: {file.name} takes {asked.shape}, wanted {list(fed.shape)}; export it at this --size", file=sys.stderr)
        raise SystemExit(2)
    return lambda: session.run(None, {asked.name: fed})


def measured(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    height, width = (int(side) for side in arguments.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        files = exported(Path(folder), (height, width), arguments.yolo)
        megabytes = {name: round(file.stat().st_size / 1e6, 2) for name, file in files.items()}
        for threads in arguments.threads:
            rivals = {name: runner(file, threads, image) for name, file in files.items()}
            times: dict[str, list[float]] = {name: [] for name in rivals}
            for turn in range(WARM_UP + arguments.rounds):
                for name, call in rivals.items():
                    start = time.perf_counter()
                    call()
                    if turn >= WARM_UP:
                        times[name].append(1000 * (time.perf_counter() - start))
            case = f"{height}×{width}, {threads} thread{'s' if threads > 1 else ''}"
            for name, mine in times.items():
                ratios = [one / base for one, base in zip(mine, times["psp18"], strict=True)]
                yield record.timed(case, name, mine, "ms", ratios, "this / psp18", **{"MB of file": megabytes[name]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="512x1024", metavar="HxW", help="the image")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="threads of onnxruntime")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--yolo", type=Path, metavar="FILE", help="yolo26n-sem as an .onnx file of the same size")
    record.add_options(parser)
    arguments = parser.parse_args()
    budget = record.Budget(arguments.rounds, WARM_UP, [0], "a fixed number of rounds, in which all networks take turns")
    record.run("latency", ABOUT, arguments, measured(arguments), budget)


if __name__ == "__main__":
    main()
