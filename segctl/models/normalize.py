"""From the pixels of a picture to the numbers a network was trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.pixel_types import LARGEST, PixelType, require_type


class Normalizing(nn.Module):
    """A network that takes normalised pictures and knows how to normalise them.

    Mean and standard deviation of the pixels, (1, N, 1, 1) for N bands in the numbers of `pixel_type`, are persistent buffers: a
    weights file keeps the ones it was trained with, whatever a later timm says of the same backbone.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @property
    def pixel_type(self) -> PixelType:
        """The type of the images that it takes."""
        return "uint8"

    def remember_pixels(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """mean, std: of red, green and blue, or of each band, in fractions of the largest number of `pixel_type`."""
        largest = LARGEST[self.pixel_type]
        self.register_buffer("pixel_mean", torch.tensor(mean).mul(largest).view(1, -1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).mul(largest).view(1, -1, 1, 1))

    @property
    def bands(self) -> int:
        """How many bands the pictures have that the network takes."""
        return self.pixel_mean.shape[1]

    def blank(self, images: int, size: tuple[int, int]) -> Tensor:
        """Black images (B, H, W, N) of the type and on the device of the network, for a trial of its shapes."""
        shape = (images, *size, self.bands)
        return torch.zeros(shape, dtype=getattr(torch, self.pixel_type), device=self.pixel_mean.device)

    def require_images(self, wanted: int, pixel_type: PixelType, who: str, dataset: str) -> None:
        """Raise InputError that names the network, `who`, if the images of a dataset have other bands or another type than it
        takes."""
        if self.bands != wanted:
            raise InputError(
                f"{who} takes images of {self.bands} bands, but those of '{dataset}' have {wanted}",
                "prepare the dataset with the --bands that the network was trained on",
            )
        require_type(self.pixel_type, pixel_type, who, f"'{dataset}'")

    def normalize(self, images: Tensor) -> Tensor:
        """(B, H, W, N) of `pixel_type` -> float32 (B, N, H, W) in channels_last memory."""
        # copy=True, because the subtraction below is in place; channels_last, because that is how the bytes already lie.
        channels_first = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last, copy=True)
        return channels_first.sub_(self.pixel_mean).div_(self.pixel_std)
