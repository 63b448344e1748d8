"""How many operations a GPU is given for a teacher's pass: a folded teacher's takes fewer."""

import copy
from pathlib import Path

import pytest
import torch

from segctl.data.shards.dataset import open_dataset
from segctl.models.forward import forward_images
from segctl.teacher.ensemble import with_folded_networks
from segctl.teacher.load import load_teacher
from tests.device.there import run_there


def launches(data: Path, teacher: Path) -> list[int]:
    """Of a teacher's pass on the pretend GPU: in fp32 as it is and folded, in bf16 as it is and folded."""
    from tests.device.pretend import LOG

    plain = load_teacher(teacher / "model.safetensors", open_dataset(data, "camvid"))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for one in (plain, with_folded_networks(plain, dtype)):
            network = copy.deepcopy(one.model).to("cuda")
            images = torch.zeros(2, 48, 64, 3, dtype=torch.uint8).to("cuda")
            LOG.clear()
            with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16), torch.no_grad():
                forward_images(network, images)
            found.append(sum(LOG.launches.values()))
    return found


@pytest.mark.slow
def test_a_folded_teacher_takes_fewer_launches(guard: Path, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    fp32, fp32_folded, bf16, bf16_folded = found = run_there(guard, tmp_path, launches, toy_data, toy_teacher)
    assert fp32_folded <= 0.8 * fp32, found
    # Autocast casts the weights of a frozen network at every pass.
    assert bf16_folded <= 0.65 * bf16, found
