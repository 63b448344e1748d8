"""Running a network on uint8 images."""

import torch

from segctl.models.forward import forward_images
from segctl.models.outputs import Prediction


class Brightness(torch.nn.Module):
    """Its logits are the normalised image."""

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float() / 255

    def forward(self, images: torch.Tensor) -> Prediction:
        return Prediction(images, None, None)


def test_images_are_normalised_by_the_network_itself() -> None:
    images = torch.full((2, 4, 6, 3), 255, dtype=torch.uint8)
    prediction = forward_images(Brightness(), images)  # type: ignore[arg-type]
    assert torch.equal(prediction.logits, torch.ones(2, 3, 4, 6))
