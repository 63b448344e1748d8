"""The width of a head when the preset sets none: the reference's two sizes, chosen by the backbone's last map."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Widths:
    """Channels inside a head."""

    head: int
    """Every branch and the features before the classifier."""
    shortcut: int
    """DeepLabV3+'s fine map."""
    aux: int
    """The auxiliary head."""


NARROW = Widths(head=128, shortcut=12, aux=64)
WIDE = Widths(head=512, shortcut=48, aux=256)


def reference_widths(last_channels: int) -> Widths:
    """NARROW for a last map of less than 1024 channels, WIDE for others.

    The reference names families: ResNet18/34 (512 channels), MobileNet and EfficientNet (160 to 960) are narrow,
    ResNet50/101/152 and Xception65 (2048) are wide. This rule agrees with it on these, and extends it to every other backbone.
    """
    return NARROW if last_channels < 1024 else WIDE
