"""The base of every block of a preset."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Spec(BaseModel):
    """A closed, frozen block: unknown keys are refused, and the text under a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, block: Any) -> Any:
        """Refuse true and false where a number is wanted: pydantic would take them for 1 and 0."""
        if not isinstance(block, dict):
            return block
        wrong = [
            InitErrorDetails(type=PydanticCustomError("bool_for_number", "wanted a number"), loc=(name,), input=block[name])
            for name, field in cls.model_fields.items()
            if _holds_bool(block.get(name)) and bool not in _types(field.annotation)
        ]
        if wrong:  # pydantic puts the place of the block before each place
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return block


def auto_or_value(value: Any) -> str:
    """The tag of a union of `auto` and a value. All but `auto` is judged as a value, so that each fault is reported once."""
    return "auto" if value == "auto" else "value"


def _holds_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(item, bool) for item in value))


def _types(annotation: Any) -> set[Any]:
    """The plain types inside an annotation: {int, NoneType} of `int | None`."""
    inner = [found for part in get_args(annotation) for found in _types(part)]
    return {annotation} if not inner and isinstance(annotation, type) else set(inner)
