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


@pytest.mark.parametrize(("given", "taken"), [(True, True), ("false", False), ("reduce-overhead", "reduce-overhead")])
def test_the_forms_of_compile(given: object, taken: object) -> None:
    assert TRAIN.model_validate(TRAIN.model_dump() | {"compile": given}).compile == taken


def test_another_form_of_compile_is_named() -> None:
    with pytest.raises(ValidationError, match="wanted true, false or reduce-overhead"):
        TRAIN.model_validate(TRAIN.model_dump() | {"compile": "max-autotune"})
