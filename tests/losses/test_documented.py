"""docs/losses.md and the room's own table name every loss there is."""

from pathlib import Path
from typing import get_args

import pytest

import segctl.losses
from segctl.losses import build_loss, loss_class
from segctl.schema.terms.loss_terms import LossTermSpec

PAGE = Path(__file__).parent.parent.parent / "docs" / "losses.md"
SPECS = get_args(get_args(LossTermSpec)[0])


@pytest.mark.parametrize("spec", SPECS)
def test_every_kind_stands_in_the_table_beside_its_loss(spec: type) -> None:
    made = spec()
    row = f"| `{type(build_loss(made)).__name__}`, `{made.kind}` |"
    assert row in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("spec", SPECS)
def test_every_loss_stands_in_the_table_of_the_room_and_at_its_door(spec: type) -> None:
    kind = loss_class(spec)
    assert f"    {kind.__name__} " in (segctl.losses.__doc__ or "")
    assert getattr(segctl.losses, kind.__name__) is kind
