"""The base of every block of a preset."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A closed, frozen block: unknown keys are refused, and the text under a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
