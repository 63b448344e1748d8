"""Networks for other bands than RGB: their first layer, their file, and what they refuse."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segctl.errors import InputError
from segctl.models.build import build_model, load
from segctl.models.forward import resized_images
from segctl.models.saving import save
from segctl.models.timm_backbone import build_backbone
from segctl.schema.load import validate_run
from tests import toy


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_weights_for_rgb_are_adapted_as_timm_does(tmp_path: Path, bands: int) -> None:
    rgb = build_backbone("test_resnet", 32, "none")
    save_file({name: value.clone() for name, value in rgb.net.state_dict().items()}, tmp_path / "rgb.safetensors")
    found = build_backbone("test_resnet", 32, str(tmp_path / "rgb.safetensors"), bands=bands).net.state_dict()
    for name, value in rgb.net.state_dict().items():
        if value.ndim == 4 and value.shape[1] == 3 and found[name].shape != value.shape:
            wanted = torch.stack(
                [value.sum(1)] if bands == 1 else [value[:, band % 3] * (3 / bands) for band in range(bands)], dim=1
            )
            torch.testing.assert_close(found[name], wanted)
        else:
            assert torch.equal(found[name], value)


def test_images_of_other_bands_are_refused() -> None:
    from segctl.models.normalize import Normalizing

    network = Normalizing()
    network.remember_pixels([0.5] * 4, [0.2] * 4)
    network.require_images(4, "uint8", "it", "a")
    with pytest.raises(InputError, match="it takes images of 4 bands, but those of 'a' have 3"):
        network.require_images(3, "uint8", "it", "a")
    with pytest.raises(InputError, match="it takes uint8 images, but those of 'a' are uint16"):
        network.require_images(4, "uint16", "it", "a")


def test_a_network_of_sixteen_bits_normalises_them_by_hand_and_only_lends_its_weights(tmp_path: Path) -> None:
    run = validate_run(toy.PRESET, "toy")
    plain = build_model(run.model, 2)
    deep = build_model(run.model, 2)
    deep.pixels = {"bands": [1, 2, 3], "of": 3, "dtype": "uint16", "ranges": None}
    deep.remember_pixels([0.5, 0.25, 1.0], [0.1, 0.2, 1.0])
    pixels = torch.tensor([[[[0, 16384, 65535]]]], dtype=torch.int32).to(torch.uint16)
    found = deep.normalize(pixels).flatten().tolist()
    assert found == pytest.approx([-5.0, (16384 / 65535 - 0.25) / 0.2, 0.0], abs=1e-6)
    assert deep.blank(2, (3, 4)).dtype == torch.uint16
    save(tmp_path / "model.safetensors", deep, run, ["a", "b"])
    again = load(tmp_path / "model.safetensors")
    assert (again.pixel_type, again.pixel_mean.tolist()) == ("uint16", deep.pixel_mean.tolist())
    with pytest.raises(InputError, match="it takes uint16 images, but those of 'a' are uint8"):
        again.require_images(3, "uint8", "it", "a")
    # The statistics of 16-bit numbers would turn every 8-bit picture black.
    started = build_model(run.model.model_copy(update={"weights": str(tmp_path / "model.safetensors")}), 2, ["a", "b"])
    torch.testing.assert_close(started.pixel_mean, plain.pixel_mean)
    torch.testing.assert_close(started.backbone.state_dict(), deep.backbone.state_dict(), msg="the weights themselves are taken")


def test_views_of_sixteen_bits_keep_their_type_and_brightness() -> None:
    """257 · v is the brightness of v in 16 bits."""
    small = torch.randint(0, 256, (1, 9, 11, 4), dtype=torch.uint8)
    wide = (small.to(torch.int32) * 257).to(torch.uint16)
    for scale in (0.5, 1.7):
        found = resized_images(wide, scale)
        assert found.dtype == torch.uint16
        torch.testing.assert_close(found.float() / 257, resized_images(small, scale).float(), atol=0.51, rtol=0)
