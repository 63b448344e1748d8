"""Scoring and predicting on the pretend GPU: the CPU's numbers, and a known number of waits for an image."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import CLASSES, TwoLayers

from segctl.schema.evaluate import EvaluateSpec
from tests.device.there import run_there

WHOLE: dict[str, Any] = {"protocol": {"kind": "whole"}}
SLIDING: dict[str, Any] = {"protocol": {"kind": "sliding", "tile": [32, 40], "stride": 0.5}}
PROTOCOLS = {
    "whole": WHOLE,
    "sliding": SLIDING,
    "scales and flip": SLIDING | {"scales": [0.75, 1.0], "flip": True},
}


def counted(data: Path, protocol: dict[str, Any], batch: int, calibration: bool, device: str) -> tuple[Any, Counter[str]]:
    """The confusion matrix and bins of the toy's validation images, and the waits by their kind."""
    from segctl.data.shards.dataset import open_dataset
    from segctl.evaluate.count_images import Extras, Scoring, count_split
    from segctl.runtime.device import choose_compute
    from tests.device.pretend import LOG

    torch.manual_seed(0)
    dataset = open_dataset(data, "camvid")
    model = TwoLayers(CLASSES).to(device)
    how = Scoring(
        EvaluateSpec.model_validate(protocol), choose_compute(device, "fp32"), batch=batch, extras=Extras(calibration=calibration)
    )
    LOG.clear()
    found = count_split(model, dataset, "val", how)  # type: ignore[arg-type]
    bins = None if found.calibration is None else found.calibration.bins
    return (found.confusion, bins), Counter(what for what, _ in LOG.waits)


def both(data: Path, names: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name in names:
        for batch, calibration in ((1, False), (3, True)):
            found[f"{name} {batch}"] = [counted(data, PROTOCOLS[name], batch, calibration, device) for device in ("cpu", "cuda")]
    return found


@pytest.mark.parametrize(
    "names", [pytest.param(("whole",), id="one"), pytest.param(tuple(PROTOCOLS), id="all", marks=pytest.mark.slow)]
)
def test_protocols_count_as_on_the_cpu_and_wait_once_for_a_result(
    names: tuple[str, ...], guard: Path, toy_data: Path, tmp_path: Path
) -> None:
    for name, ((here, _), (there, waits)) in run_there(guard, tmp_path, both, toy_data, names).items():
        assert np.array_equal(here[0], there[0]), name
        images, calibration = (5, False) if name.endswith("1") else (2, True)  # five images are two batches
        if calibration:
            np.testing.assert_allclose(here[1], there[1], rtol=1e-5)
        # Each result is fetched one batch behind, while the device works on the next one.
        assert waits == {"copy to the CPU": images * (1 + calibration)}, name


def tiles_in_little_memory() -> tuple[list[int], bool]:
    """How many tiles a forward pass got, where two do not fit; and whether the result is that of tile by tile."""
    from segctl.evaluate import predictor
    from segctl.runtime.device import choose_compute

    class Small(TwoLayers):
        most = 100

        def forward(self, images: torch.Tensor) -> Any:
            seen.append(len(images))
            if len(images) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    torch.manual_seed(0)
    model, seen = Small(CLASSES).to("cuda"), []
    images = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8).to("cuda")
    spec, compute = EvaluateSpec.model_validate(SLIDING), choose_compute("cuda", "fp32")
    found = []
    for model.most in (100, 1, 1):
        found.append(predictor.predict_classes(model, images, spec, compute).cpu())  # type: ignore[arg-type]
    return seen, all(torch.equal(found[0], other) for other in found)


@pytest.mark.slow
def test_several_tiles_go_at_once_and_fewer_where_they_do_not_fit(guard: Path, tmp_path: Path) -> None:
    seen, equal = run_there(guard, tmp_path, tiles_in_little_memory)
    assert equal
    assert seen == [4, 2, 4, 2, *[1] * 6, *[1] * 6]  # six tiles; 4 and then 2 are tried in vain, once


def predicted(data: Path, teacher: Path, folder: Path) -> list[bytes]:
    """The masks of one picture, from the CPU and from the pretend GPU."""
    from PIL import Image

    from segctl.inference.predict_pictures import PredictRequest, predict_files

    picture = folder / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(picture)
    found = []
    for device in ("cpu", "cuda"):
        request = PredictRequest(teacher, [str(picture)], folder / device, data, overlay=True, device=device)
        assert predict_files(request).pictures == 1
        found.append((folder / device / "picture.png").read_bytes())
    return found


@pytest.mark.slow
def test_masks_of_pictures_are_the_cpu_s(guard: Path, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    here, there = run_there(guard, tmp_path, predicted, toy_data, toy_teacher, tmp_path)
    assert here == there


def own_loop(device: str) -> list[float]:
    from segctl import JDTLoss

    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 4, 1).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    x, label = torch.randn(2, 3, 9, 11).to(device), torch.randint(0, 4, (2, 9, 11)).to(device)
    label[0, :2] = 255
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = JDTLoss(ignore_index=255)(net(x), label)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def loops() -> list[list[float]]:
    return [own_loop(device) for device in ("cpu", "cuda")]


def test_a_loss_in_somebody_s_own_loop_is_the_cpu_s(guard: Path, tmp_path: Path) -> None:
    here, there = run_there(guard, tmp_path, loops)
    assert there == pytest.approx(here, rel=1e-5)
    assert here[-1] < here[0]
