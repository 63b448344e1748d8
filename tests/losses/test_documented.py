"""docs/losses.md and the room's own table name every loss there is."""

from pathlib import Path
from typing import get_args

import pytest

import segctl.losses
from segctl.losses import Loss, build_loss
from segctl.schema.loss_terms import LossTermSpec

PAGE = Path(__file__).parent.parent.parent / "docs" / "losses.md"
SPECS = get_args(get_args(LossTermSpec)[0])


@pytest.mark.parametrize("spec", SPECS)
def test_every_kind_stands_in_the_table_beside_its_loss(spec: type) -> None:
    made = spec()
    row = f"| `{type(build_loss(made)).__name__}`, `{made.kind}` |"
    assert row in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [kind for family in get_args(Loss) for kind in get_args(family) or (family,)])
def test_every_loss_stands_in_the_table_of_the_room(kind: type) -> None:
    assert f"    {kind.__name__} " in (segctl.losses.__doc__ or "")
