"""The reference's two sizes of head."""

import pytest

from segctl.models.heads.widths import NARROW, WIDE, reference_widths

LAST_MAPS = {
    "resnet18d": 512, "resnet34d": 512, "mobilenetv2_100": 320, "mobilenetv3_large_100": 960, "efficientnet_b0": 320,
    "efficientnet_b7": 640, "resnet50d": 2048, "resnet101d": 2048, "resnet152d": 2048, "xception65": 2048,
}  # fmt: skip


@pytest.mark.parametrize(("backbone", "channels"), LAST_MAPS.items())
def test_named_families_get_the_width_the_design_names(backbone, channels):
    wide = backbone.startswith(("resnet50", "resnet101", "resnet152", "xception65"))
    assert reference_widths(channels) is (WIDE if wide else NARROW)


def test_widths_are_the_design_s():
    assert (NARROW.head, NARROW.shortcut, NARROW.aux) == (128, 12, 64)
    assert (WIDE.head, WIDE.shortcut, WIDE.aux) == (512, 48, 256)
