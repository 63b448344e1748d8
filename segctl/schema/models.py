"""The network of a run."""

from typing import Literal

from pydantic import Field

from segctl.schema.spec import Spec

HeadName = Literal["pspnet", "deeplabv3", "deeplabv3plus", "unet"]


class ModelSpec(Spec):
    """Backbone, head and where the backbone's weights come from."""

    backbone: str = Field(min_length=1)
    """A timm model name that gives feature maps, such as `resnet18d`."""
    head: HeadName
    """The segmentation head."""
    output_stride: Literal[8, 16, 32] = 8
    """Input pixels per pixel of the backbone's last map; `unet` wants 32."""
    width: int | None = Field(None, ge=1)
    """Channels inside the head; null takes the reference's: 128 for ResNet18/34 and mobile backbones, 512 for wider ones."""
    aux: bool = True
    """Whether an auxiliary classifier sits on the last-but-one map (training only)."""
    weights: str = Field("timm", min_length=1)
    """`timm` downloads ImageNet weights, `none` starts from random ones, anything else is a local file of backbone weights."""
