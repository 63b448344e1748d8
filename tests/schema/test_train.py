"""The loop's settings."""

import pytest
from pydantic import ValidationError

from segctl.schema.train import TrainSpec

TRAIN = TrainSpec(steps=1, batch_size=1, validate_every=1, checkpoint_every=1)


@pytest.mark.parametrize("field", ["deterministic", "activation_checkpointing", "compile"])
def test_what_only_a_preset_can_turn_on_is_off_and_either_on_or_off(field: str) -> None:
    assert getattr(TRAIN, field) is False
    with pytest.raises(ValidationError):
        TrainSpec(steps=1, batch_size=1, validate_every=1, checkpoint_every=1, **{field: "perhaps"})
