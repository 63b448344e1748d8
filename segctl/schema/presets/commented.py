"""A run as a preset file for people: every setting in force, each with what it means."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from segctl.schema.run import TrainRun, verb_of
from segctl.schema.terms.formula import total_loss

LINE_LENGTH = 120


def commented(run: TrainRun, like: str, reasons: Sequence[str]) -> str:
    """The text of a preset file that `load_preset` reads as `run`.

    like: the preset that it began as.  reasons: why its values were chosen, in sentences.
    """
    head = [f"Like '{like}', on the dataset '{run.data.dataset}'.", f"Command:  segctl {verb_of(run)} --preset {run.name}.yaml"]
    head += [*(["Chosen by segctl from the dataset:"] if reasons else []), *(f"  {reason}" for reason in reasons)]
    head += ["The loss:", *(f"  {line}" for line in total_loss(run).splitlines())]
    return "\n".join([*(f"# {line}" for line in head), *_block(run, ""), ""])


def _block(block: BaseModel, indent: str) -> Iterator[str]:
    values = block.model_dump(mode="json")
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        if name == "published" and not value:
            continue  # there are no published scores of a person's own preset
        if not indent:
            yield ""
        text = " ".join((field.description or "").split())
        yield from textwrap.wrap(text, LINE_LENGTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if isinstance(value, BaseModel) and not indent:
            yield f"{name}:"
            yield from _block(value, "  ")
        else:
            yield from (f"{indent}{line}" for line in _yaml(name, values[name]).splitlines())


def _yaml(name: str, value: Any) -> str:
    """`name: value`; a list of blocks has one line an item, everything else one line."""
    if not (isinstance(value, list) and value and isinstance(value[0], dict)):
        return f"{name}: {_flow(value)}"
    return "\n".join([f"{name}:", *(f"- {_flow(item)}" for item in value)])


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
