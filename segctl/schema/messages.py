"""Pydantic's errors in our words: dotted path, what was found, what was wanted."""

import copy
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segctl.errors import Fault, did_you_mean
from segctl.schema.cross_checks import cross_check
from segctl.schema.run import TrainRun

Tree = dict[str, Any]

WANTED = {
    "greater_than_equal": "wanted at least {ge:g}",
    "greater_than": "wanted more than {gt:g}",
    "less_than_equal": "wanted at most {le:g}",
    "less_than": "wanted less than {lt:g}",
    "int_type": "wanted a whole number",
    "int_parsing": "wanted a whole number",
    "int_from_float": "wanted a whole number",
    "float_type": "wanted a number",
    "float_parsing": "wanted a number",
    "finite_number": "wanted a finite number",
    "bool_type": "wanted true or false",
    "bool_parsing": "wanted true or false",
    "string_type": "wanted text",
    "model_type": "wanted a block of keys",
    "model_attributes_type": "wanted a block of keys",
    "tuple_type": "wanted a list",
}
"""Our words for pydantic's error types, with the bound from the error's context; other types keep pydantic's own message."""


def faults_of(model: type[TrainRun], tree: Tree, error: ValidationError) -> list[Fault]:
    """Every fault behind a ValidationError of `model.model_validate(tree)`, those between blocks included."""
    details = error.errors(include_url=False)
    # Pydantic also calls a list too short when every item in it is faulty; the items' own faults are enough.
    inside = {one["loc"][:length] for one in details for length in range(len(one["loc"]))}
    own = [_fault(model, tree, one) for one in details if not (one["type"] == "too_short" and one["loc"] in inside)]
    return own + _faults_between_blocks(model, tree, details)


def _faults_between_blocks(model: type[TrainRun], tree: Tree, details: list[ErrorDetails]) -> list[Fault]:
    """Faults between blocks, where unknown keys are the file's only other faults: the file without them can be checked."""
    pruned: Any = copy.deepcopy(tree)
    for one in details:
        if one["type"] == "extra_forbidden":
            *parents, last = _plain_path(tree, one["loc"])
            node: Any = pruned
            for key in parents:
                node = node[key]
            del node[last]
    try:
        return cross_check(model.model_validate(pruned))
    except ValidationError:
        return []


def _fault(model: type[TrainRun], tree: Tree, details: ErrorDetails) -> Fault:
    keys = _plain_path(tree, details["loc"], missing=details["type"] == "missing")
    path = ".".join(map(str, keys)) or "(top level)"
    match details["type"]:
        case "missing":
            return Fault(path, "is missing")
        case "extra_forbidden":
            return Fault(path, _unknown_key(model, tree, keys))
        case "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in details["ctx"]["expected_tags"].split(",")]
            got = details["ctx"]["tag"]
            return Fault(f"{path}.kind", f"got '{got}', wanted one of {', '.join(tags)}{did_you_mean(got, tags)}")
        case "union_tag_not_found":
            return Fault(f"{path}.kind", "is missing")
        case "too_short" if not details["input"]:
            return Fault(path, "is empty, wanted at least one item")
        case "too_short":
            return Fault(path, f"got {details['ctx']['actual_length']} items, wanted at least {details['ctx']['min_length']}")
        case "tuple_type" if (length := _length_at(model, tree, keys)) is not None:
            example = f", such as [{', '.join([str(details['input'])] * length)}]" if isinstance(details["input"], int) else ""
            return Fault(path, f"got {details['input']!r}, wanted a list of {length}{example}")
        case "too_long":
            return Fault(path, f"got {details['ctx']['actual_length']} items, wanted {details['ctx']['max_length']}")
        case "literal_error":
            expected = details["ctx"]["expected"]
            words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
            got = str(details["input"]).replace("+", "plus")
            return Fault(path, f"got {details['input']!r}, wanted {expected}{did_you_mean(got, words)}")
    text = repr(details["input"])
    return Fault(path, f"got {text if len(text) <= 60 else f'{text[:57]}...'}, {_wanted(details)}")


def _wanted(details: ErrorDetails) -> str:
    template = WANTED.get(details["type"])
    message = details["msg"]
    return template.format(**details.get("ctx", {})) if template else message[0].lower() + message[1:]


def _unknown_key(model: type[TrainRun], tree: Tree, keys: list[int | str]) -> str:
    """What to do about a key that its block does not have: another kind of the block has it, or another key is near."""
    key, block = str(keys[-1]), ".".join(map(str, keys[:-1]))
    annotation, node = _annotation_at(model, tree, keys[:-1])
    others = {choice.model_fields["kind"].default: choice for choice in blocks_in(annotation) if key in choice.model_fields}
    if others and isinstance(node, dict) and "kind" in node:
        kind, choice = next(iter(others.items()))
        whole = {"kind": kind} | {name: value for name, value in node.items() if name != "kind" and name in choice.model_fields}
        example = yaml.safe_dump(whole, default_flow_style=True, sort_keys=False, width=1000).strip()
        wanted = " or ".join(map(repr, others))
        return f"'{node['kind']}' has no such key, wanted {block}.kind {wanted}; give the block whole: --set '{block}={example}'"
    known = list(_block(annotation, node).model_fields)
    return "unknown key" + (did_you_mean(key, known) or f", wanted one of {', '.join(known)}")


def _length_at(model: type[TrainRun], tree: Tree, keys: list[int | str]) -> int | None:
    """How many items the list at `keys` must have; None where any number will do."""
    annotation, node = _annotation_at(model, tree, keys[:-1])
    block = _block(annotation, node)
    field = block.model_fields.get(str(keys[-1])) if isinstance(block, type) and issubclass(block, BaseModel) else None
    parts = () if field is None or get_origin(field.annotation) is not tuple else get_args(field.annotation)
    return len(parts) if parts and parts[-1] is not Ellipsis else None


def _plain_path(tree: Tree, loc: tuple[int | str, ...], *, missing: bool = False) -> list[int | str]:
    """Pydantic's location without the union tags in it: keys that are not in the file are tags, except a last missing one."""
    keys: list[int | str] = []
    node: Any = tree
    for position, key in enumerate(loc):
        inside = (isinstance(node, dict) and key in node) or (isinstance(node, list) and isinstance(key, int) and key < len(node))
        if inside:
            node = node[key]
        elif position < len(loc) - 1 or not missing:
            continue
        keys.append(key)
    return keys


def _annotation_at(model: type[BaseModel], tree: Tree, keys: list[int | str]) -> tuple[Any, Any]:
    """The annotation of the block at `keys`, every union but the last one resolved, and the block as the file has it."""
    annotation: Any = model
    node: Any = tree
    for key in keys:
        annotation = _block(annotation, node)
        node = node[key]
        if isinstance(key, str):
            annotation = annotation.model_fields[key].annotation
    return annotation, node


def _block(annotation: Any, node: Any) -> Any:
    """The Spec class that `node` is read as; a list keeps its annotation, because each item has a class of its own."""
    choices = blocks_in(annotation)
    if len(choices) == 1 or not isinstance(node, dict):
        return annotation if len(choices) != 1 or isinstance(node, list) else choices[0]
    # A block without a kind is of the first one: only `schedule` may leave it out.
    return next((choice for choice in choices if choice.model_fields["kind"].default == node.get("kind")), choices[0])


def blocks_in(annotation: Any) -> list[type[BaseModel]]:
    """The Spec classes in an annotation: looks through lists, optionals and tagged unions."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in get_args(annotation) for found in blocks_in(part)]
