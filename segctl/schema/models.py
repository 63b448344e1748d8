"""The network of a run."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from segctl.schema.spec import Spec

HEADS = {
    "pspnet": "pspnet.PSPNetHead",
    "deeplabv3": "deeplabv3.DeepLabV3Head",
    "deeplabv3plus": "deeplabv3plus.DeepLabV3PlusHead",
    "unet": "unet.UNetHead",
    "lraspp": "lraspp.LRASPPHead",
    "segformer": "segformer.SegFormerHead",
    "fpn": "fpn.FPNHead",
    "upernet": "upernet.UPerNetHead",
    "linear": "linear.LinearHead",
}
"""Every head by its name in presets, as `file.Class` under segctl/models/heads. Pointers instead of classes, because presets are
read without importing torch; `segctl.models.heads.head_class` follows them."""

ATROUS_HEADS = ("deeplabv3", "deeplabv3plus")
RATES = (12, 24, 36)
"""Dilations of the three atrous branches in the papers' networks of stride 8."""

if TYPE_CHECKING:
    HeadName = str  # mypy takes no Literal that is made from a table
else:
    HeadName = Literal[tuple(HEADS)]


Rate = Annotated[int, Field(ge=1, le=1024)]


class ModelSpec(Spec):
    """Backbone, head and where the backbone's weights come from."""

    family: Literal["timm", "cirkd"] = "timm"
    """`timm`: backbones as timm builds them. `cirkd`: the networks of winycg/CIRKD, on which most distillers were published; it
    has resnet18, resnet50, resnet101 and mobilenetv2_100 under pspnet and deeplabv3."""
    backbone: str = Field(min_length=1)
    """A timm model name that gives feature maps, such as `resnet18d`."""
    head: HeadName
    """The segmentation head."""
    output_stride: Literal[8, 14, 16, 32] = 8
    """Input pixels per pixel of the backbone's last map. `unet` wants 32. 16 and 32 suit `lraspp`; 32 suits `segformer`, `fpn`
    and `upernet`, which read all maps from stride 4 on. A plain transformer has the side of its patches: 14 or 16."""
    stages: int | None = Field(None, ge=1, le=64)
    """How many of the backbone's maps are kept, finest first; layers behind the last one are cut off. null keeps all."""
    width: int | None = Field(None, ge=1, le=65_536)
    """Channels of the features before the classifier; `unet` ends with an eighth of them, and `lraspp` adds those of the map of
    stride 8. null takes the reference's: 128 for ResNet18/34 and mobile backbones, 512 for wider ones; 256 for `segformer`, 128
    for `lraspp` and `fpn`; `linear` has no width of its own."""
    rates: tuple[Rate, Rate, Rate] | None = None
    """Dilations of the atrous branches of `deeplabv3` and `deeplabv3plus`. null takes 12, 24, 36, the papers' at output stride 8;
    at stride 16 theirs are 6, 12, 18."""
    aux: bool = True
    """Whether an auxiliary classifier reads the last-but-one map (training only)."""
    weights: str = Field("timm", min_length=1)
    """`timm` downloads ImageNet weights, `none` starts from random ones, anything else is local: a file of backbone weights, or
    a run's folder, whose head and classes are taken too where they fit."""
    frozen: bool = False
    """Whether the backbone keeps its first weights: it takes no gradient, and stays in eval mode while the head learns. For
    foundation models, whose features are good as they are."""
    final_norm: bool = False
    """Whether a plain transformer's last norm is applied to its maps, as linear heads on DINOv2 and DINOv3 want it."""
