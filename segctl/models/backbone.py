"""What a backbone is. `timm_backbone` is the only family so far; another one is a subclass and a line in `build.py`."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network cut to its feature maps."""

    channels: tuple[int, ...]
    """Channels of each map, finest map first."""
    strides: tuple[int, ...]
    """Input pixels per pixel of each map, finest map first."""
    mean: tuple[float, ...]
    """Mean of red, green and blue that its weights were trained with, for pixels in 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of red, green and blue, likewise."""
    note: str = ""
    """What was assumed about the file that its weights came from, in a sentence; empty if nothing was."""

    license: str = ""
    """The licence of its first weights as their publisher names it, such as `apache-2.0`; empty where it is not known."""

    weights_file: Path | None = None
    """The file that its first weights were read from; None for random ones."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised -> maps (B, channels[i], ⌈H/strides[i]⌉, ⌈W/strides[i]⌉), finest first, for any H and W."""

    @abstractmethod
    def load_weights(self, file: Path) -> None:
        """Take the weights of a local file. Raises InputError if it is missing, no file of weights, or of another network."""
