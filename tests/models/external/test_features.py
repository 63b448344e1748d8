"""Frozen backbones that give features alone: of timm, and of transformers with tiny random configurations."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from segctl.errors import InputError
from segctl.models.external.features import license_of_card, load_features

PROCESSOR = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.25]}


def test_a_network_of_timm_gives_its_last_map_and_never_trains() -> None:
    found = load_features("timm:test_vit", "none", 3).train()
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    images = torch.randint(0, 256, (2, 33, 50, 3), dtype=torch.uint8)
    assert found(found.normalize(images)).shape == (2, found.channels, -(-33 // found.stride), -(-50 // found.stride))
    assert f"{found.channels} channels at stride {found.stride}" in found.notes[0]


def test_random_weights_are_the_same_each_time_and_the_random_state_stays() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    hashes = {load_features("timm:test_resnet", "none", 3).sha256() for _ in range(2)}
    assert len(hashes) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_other_bands_suit_timm() -> None:
    found = load_features("timm:test_resnet", "none", 5)
    assert found(found.normalize(torch.zeros(1, 32, 32, 5, dtype=torch.uint8))).shape[1] == found.channels


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("timm:vit_smal_patch16_dinov3", "--teacher: timm knows no network 'vit_smal_patch16_dinov3', did you mean"),
        ("timm:hiera_tiny_224", "--teacher: 'hiera_tiny_224' takes only images of certain sizes"),
        ("no-such-folder", "--teacher 'no-such-folder' is not a frozen backbone: there is no such folder"),
    ],
)
def test_a_teacher_that_is_none_is_refused(source: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        load_features(source, "none", 3)


def saved(folder: Path, kind: str, processor: dict[str, Any] | None = PROCESSOR, **config: Any) -> Path:
    """A tiny random network of transformers."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config)).save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
KINDS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "vit": ("ViT", SMALL | {"image_size": 32, "patch_size": 8}, 8, 1),
    "dinov2": ("Dinov2", SMALL | {"image_size": 28, "patch_size": 14}, 14, 1),
    "registers": ("Dinov2WithRegisters", SMALL | {"image_size": 28, "patch_size": 14, "num_register_tokens": 4}, 14, 5),
    "swin": (
        "Swin",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2},
        4,
        0,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_tokens_of_transformers_are_put_on_their_grid(name: str, tmp_path: Path) -> None:
    kind, config, stride, prefix = KINDS[name]
    found = load_features(str(saved(tmp_path / name, kind, **config)), "timm", 3)
    assert (found.stride, found.prefix) == (stride, prefix)
    assert found.channels == 16
    images = torch.randint(0, 256, (1, 45, 61, 3), dtype=torch.uint8)
    assert found(found.normalize(images)).shape == (1, 16, -(-45 // stride), -(-61 // stride))
    torch.testing.assert_close(found.pixel_mean.flatten(), torch.tensor([0.5, 0.4, 0.3]) * 255)


def test_a_place_of_the_grid_is_the_token_of_its_patch(tmp_path: Path) -> None:
    """One layer without attention to others: a changed patch changes its own place most, whatever the order of tokens."""
    kind, config, stride, _ = KINDS["dinov2"]
    found = load_features(str(saved(tmp_path / "net", kind, **config)), "timm", 3)
    images = torch.zeros(1, 3, 3 * stride, 4 * stride)
    changed = images.clone()
    changed[:, :, stride : 2 * stride, 2 * stride : 3 * stride] = 5
    difference = (found(changed) - found(images)).abs().sum(1)[0]
    assert divmod(int(difference.argmax()), 4) == (1, 2)


def test_a_folder_that_does_not_say_how_pixels_are_normalised_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "net", "ViT", None, **KINDS["vit"][1])
    with pytest.raises(InputError, match=r"has no preprocessor_config\.json, so the normalisation of its images is not known"):
        load_features(str(folder), "timm", 3)


def test_a_run_and_a_plain_folder_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_features(str(tmp_path), "timm", 3)
    (tmp_path / "run.yaml").touch()
    with pytest.raises(InputError, match="is a run of segctl, wanted a frozen backbone"):
        load_features(str(tmp_path), "timm", 3)


def test_the_licence_is_that_of_the_card(tmp_path: Path) -> None:
    assert license_of_card(tmp_path) == ""
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\ntags: [a]\n---\nlicense: mit\n")
    assert license_of_card(tmp_path) == "dinov3-license"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert license_of_card(tmp_path) == "apache-2.0"
