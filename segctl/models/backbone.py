"""The only file that knows timm: a model name -> a list of feature maps."""

from typing import Any

from torch import Tensor, nn

from segctl.errors import InputError, did_you_mean


class Backbone(nn.Module):
    """A timm network cut to its feature maps.

    (B, 3, H, W) -> maps (B, channels[i], H/strides[i], W/strides[i]), finest first.
    """

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        info: Any = net.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.net(images)
        return maps


def build_backbone(name: str, output_stride: int, weights: str) -> Backbone:
    """A timm network whose last map has `output_stride`; weights is `timm`, `none` or a path. Raises InputError."""
    import timm

    if not timm.is_model(name):
        raise InputError(
            f"model.backbone: timm has no network '{name}'{did_you_mean(name, timm.list_models())}",
            "see `python -c \"import timm; print(timm.list_models('resnet*'))\"`",
        )
    net = timm.create_model(name, pretrained=weights == "timm", features_only=True, output_stride=output_stride)
    config: Any = timm.get_pretrained_cfg(name)
    return Backbone(net, tuple(config.mean), tuple(config.std))
