"""Segmentation heads, one paper per file: the backbone's maps in, one map of features for the classifier out.

Every head has `out_channels` and `forward(maps, size)`. `maps` are the backbone's, (B, D, H/stride, W/stride), finest
first; `size` is the image's (H, W), which only a head that ends at full resolution needs.
"""

from segctl.models.heads.deeplabv3 import DeepLabV3Head
from segctl.models.heads.deeplabv3plus import DeepLabV3PlusHead
from segctl.models.heads.pspnet import PSPNetHead
from segctl.models.heads.unet import UNetHead

Head = PSPNetHead | DeepLabV3Head | DeepLabV3PlusHead | UNetHead

__all__ = ["DeepLabV3Head", "DeepLabV3PlusHead", "Head", "PSPNetHead", "UNetHead"]
