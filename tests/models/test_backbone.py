"""Another family of backbones needs nothing but the base class: heads and the network take it as they take timm's."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segctl.models import Segmenter
from segctl.models.backbone import Backbone
from segctl.models.heads import head_class
from segctl.models.heads.widths import reference_widths
from segctl.schema.models import HEADS, ModelSpec


class Strided(Backbone):
    """Five convolutions of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = (4, 4, 8, 8, 8), (2, 4, 8, 16, 32)
        self.mean, self.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        pairs = zip((3, *self.channels), self.channels, strict=False)
        self.steps = nn.ModuleList(nn.Conv2d(before, after, 3, 2, 1) for before, after in pairs)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for step in self.steps:
            maps.append(step(maps[-1]))
        return maps[1:]

    def load_weights(self, file: Path) -> None:
        self.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_stands_on_it(head: str) -> None:
    backbone = Strided()
    spec = ModelSpec(backbone="strided", head=head, output_stride=32, width=16, weights="none")
    made = head_class(head).of(spec, backbone, reference_widths(backbone.channels[-1]))
    model = Segmenter(backbone, made, num_classes=3, aux_width=4)
    found = model(model.normalize(torch.full((2, 70, 90, 3), 128, dtype=torch.uint8)))
    assert found.logits.shape[:2] == (2, 3)
    assert found.features is not None
    assert found.features.shape[1] == made.out_channels == {"unet": 2, "lraspp": 16 + 8, "linear": 8}.get(head, 16)


def test_pixels_are_normalised_by_its_mean_and_deviation() -> None:
    backbone = Strided()
    spec = ModelSpec(backbone="strided", head="pspnet", output_stride=32, weights="none")
    model = Segmenter(backbone, head_class("pspnet").of(spec, backbone, reference_widths(8)), 3, None)
    images = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    torch.testing.assert_close(model.normalize(images).flatten(), torch.tensor([-2.0, 2.0, (0.2 - 0.5) / 0.25]))
