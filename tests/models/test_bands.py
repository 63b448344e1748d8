"""Networks for other bands than RGB: their first layer, their file, and what they refuse."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segctl.errors import InputError
from segctl.models.timm_backbone import build_backbone


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
