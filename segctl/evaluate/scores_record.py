"""The fields of scores.json that commands read back. Needs no torch."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from segctl.files import as_record, read_json
from segctl.runs import Count

Score = float | None
EVALUATE_AGAIN = "run `segctl eval` on that run again"


class ClassColor(BaseModel):
    """A class as the worst images show it. color: red, green and blue, 0 to 255."""

    name: str
    color: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] | None = None


class About(BaseModel):
    """What was scored, and how. Which fields there are depends on the form of `segctl eval`."""

    dataset: str | None = None
    trial: str | None = None
    split: str | None = None
    step: Count | None = None
    fingerprint: str | None = None
    rule: str | None = None
    trained_on: str | None = None
    class_map: dict[str, str | None] | None = None
    protocol: str | None = None
    precision: str | None = None
    weights: str | None = None
    program: str | None = None
    predictions: str | None = None
    truth: str | None = None
    binary: bool = False
    images: Count | None = None
    ignored_images: Count | None = None
    outside_predictions: Count | None = None
    ignored_ids: list[int] | None = None
    ignored_percent: float | None = None
    classes: list[ClassColor] | None = None


class ScoresRecord(BaseModel):
    """scores.json."""

    about: About = About()
    per_class: list[dict[str, Any]] = []


def read_scores(path: Path) -> dict[str, Any]:
    """The content of a scores.json. Raises InputError that names the field which is not what `segctl eval` writes."""
    tree: dict[str, Any] = read_json(path, EVALUATE_AGAIN)
    as_record(tree, ScoresRecord, f"'{path}'", EVALUATE_AGAIN)
    return tree


def read_about(path: Path) -> dict[str, Any]:
    """What a scores.json says about its evaluation. Raises InputError as `read_scores`."""
    return dict(read_scores(path).get("about", {}))
