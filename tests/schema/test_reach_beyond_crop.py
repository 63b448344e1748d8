"""Atrous branches that see padding alone while they learn, and pixels when the network is judged."""

import pytest

from segctl.schema.cross_checks import reach_beyond_crop
from segctl.schema.load import load_preset, read_preset

PICTURE = (360, 480)
OLD_RATES = "model.rates=[12,24,36]"
SMALL = "data.crop=[192,256]"


@pytest.mark.parametrize(
    ("changes", "reach"),
    [
        ([], None),  # 6, 12, 18 at stride 16: at most 288 pixels, within the crop of 360×480
        ([OLD_RATES], None),  # 384 and 576 are beyond the crop, but the picture is no larger than the crop
        ([SMALL], 288),
        ([SMALL, OLD_RATES], 384),  # 576 is beyond the picture too, so that branch never sees a pixel
        ([SMALL, "model.rates=[1,2,3]"], None),
        ([SMALL, "evaluate.protocol={kind: sliding, tile: [192,256]}"], None),
        ([SMALL, "evaluate.scales=[0.5]"], None),  # pictures of 180×240
        ([SMALL, "model.head=lraspp", "model.rates=null"], None),
    ],
)
def test_a_branch_that_learns_from_padding_is_named(changes: list[str], reach: int | None) -> None:
    run = read_preset("camvid-fast", tuple(changes))
    found = reach_beyond_crop(run, run.evaluate, PICTURE)
    assert found == "" if reach is None else f"reaches {reach} pixels, beyond crops of 192×256" in found


def test_shipped_presets_of_stride_16_have_the_rates_of_stride_16() -> None:
    for dataset in ("camvid", "cityscapes", "voc", "deepglobe"):
        assert load_preset(f"{dataset}-fast").model.rates == (6, 12, 18)
