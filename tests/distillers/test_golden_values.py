"""Every formula against eight digits that the reference code gave for the same inputs."""

import pytest
import torch
from distillers_golden import golden_features, golden_inputs
from torch.nn import functional as F

from segctl.distillers.cirkd import cross_image_similarity
from segctl.distillers.cwd import channel_divergence
from segctl.distillers.dist import relation_distance
from segctl.distillers.ifvd import intra_class_variation
from segctl.distillers.kd import pixel_kl
from segctl.distillers.maskd import mask_overlap, masked_distance, receptive_masks
from segctl.distillers.rows.divergence import row_divergence
from segctl.distillers.skd import pairwise_similarity


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 2.31053966), (4.0, 3.98854981)])
def test_kd(temperature: float, value: float) -> None:
    student, teacher, _ = golden_inputs()
    assert pixel_kl(student, teacher, temperature).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("pool", "value"), [(2, 0.49028137), (0.5, 0.08212678)])
@pytest.mark.parametrize("norm_gradient", [True, False])
def test_skd(pool: int | float, value: float, norm_gradient: bool) -> None:
    assert pairwise_similarity(*golden_features(), pool, norm_gradient).item() == pytest.approx(value, abs=1e-6)


def test_ifvd() -> None:
    _, _, label = golden_inputs()
    assert intra_class_variation(*golden_features(), label, num_classes=5).item() == pytest.approx(0.80107592, abs=1e-5)


@pytest.mark.parametrize(("temperature", "value"), [(4.0, 4.10025435), (1.0, 2.39832238)])
def test_cwd(temperature: float, value: float) -> None:
    student, teacher, _ = golden_inputs()
    assert channel_divergence(student, teacher, temperature).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("temperature", "value"), [(0.1, 8.12072836), (1.0, 0.39933704)])
def test_cirkd_mini_batch(temperature: float, value: float) -> None:
    assert cross_image_similarity(*golden_features(), temperature).item() == pytest.approx(value, abs=1e-6)


def test_cirkd_bank() -> None:
    student, teacher = golden_features()
    _, _, label = golden_inputs()
    valid = label != 255
    rows = F.normalize(torch.cat([student, student[:, :2]], dim=1), dim=1).permute(0, 2, 3, 1)[valid]
    teacher_rows = F.normalize(teacher, dim=1).permute(0, 2, 3, 1)[valid]
    bank = F.normalize(torch.sin(0.31 * torch.arange(42, dtype=torch.float64) + 0.1).view(7, 6), dim=1).unsqueeze(0)
    assert len(rows) == 81
    assert row_divergence(rows, bank, teacher_rows, bank, 0.1).item() == pytest.approx(2.34274839, abs=1e-6)


def test_maskd() -> None:
    student, teacher, _ = golden_inputs()
    tokens = 0.5 * torch.sin(0.9 * torch.arange(15, dtype=torch.float64) + 0.2).view(3, 5)
    masks = receptive_masks(tokens, teacher)
    assert masked_distance(student, teacher, masks).item() == pytest.approx(3.10813475, abs=1e-6)
    assert mask_overlap(masks).item() == pytest.approx(0.57052084, abs=1e-6)


def test_dist() -> None:
    student, teacher, _ = golden_inputs()
    assert relation_distance(student, teacher, 1.0, 1.0).item() == pytest.approx(1.94102314, abs=1e-6)
