"""YAML file + `--set a.b=c` -> one validated run, with every fault named at once."""

import copy
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segctl.errors import Fault, InputError, PresetError, did_you_mean
from segctl.schema.run import DistillRun, TrainRun, cross_check
from segctl.schema.strict_yaml import load_yaml

Tree = dict[str, Any]


def preset_folder() -> Path:
    """The folder of shipped presets: inside an installed wheel, or beside the package in a checkout."""
    packaged = Path(str(files("segctl"))) / "presets"
    return packaged if packaged.is_dir() else packaged.parent.parent / "presets"


def preset_names() -> list[str]:
    """Names of the shipped presets, sorted."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def sibling(name: str, recipe: str) -> str | None:
    """The shipped preset of the same network and data under another recipe, or None."""
    plain = name
    for other in ("-cirkd", "-dist", "-scratch"):
        plain = plain.removesuffix(other)
    wanted = plain if recipe == "jml" else f"{plain}-{recipe}"
    return wanted if wanted in preset_names() and wanted != name else None


def find_preset(name_or_path: str) -> Path:
    """The file behind `--preset`: an existing path, or a shipped name. Raises InputError."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"no preset file at '{path}'", "see `segctl presets list` for the shipped ones")
        return path
    known = preset_names()
    if name_or_path not in known:
        raise InputError(
            f"no preset is called '{name_or_path}'{did_you_mean(name_or_path, known)}",
            "see `segctl presets list`, or give the path of a .yaml file",
        )
    return preset_folder() / f"{name_or_path}.yaml"


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> TrainRun:
    """The run that a preset describes, after `a.b=c` overrides; a DistillRun where the file has a distiller."""
    path = find_preset(name_or_path)
    tree = read_tree(path)
    for override in overrides:
        apply_override(tree, override)
    return validate_run(tree, f"preset '{path.stem}'" if path.parent == preset_folder() else f"preset '{path}'")


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML file. Raises InputError with the line where YAML stops being YAML."""
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{path}': {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"'{path}'{line} is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"'{path}' holds {type(tree).__name__}, wanted a mapping of blocks (name, data, model, ...)")
    return tree


def apply_override(tree: Tree, override: str) -> None:
    """Set one dotted path in place: `train.steps=100`, `loss.0.weight=0.5`, `data.crop=[240,320]`. Raises InputError."""
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise InputError(f"cannot read --set '{override}'", "write it as a.b=value, such as --set train.steps=100")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"cannot read the value of --set '{override}'", "quote it, or write lists as [1,2]") from error
    node: Any = tree
    for depth, key in enumerate(keys[:-1]):
        node = _child(node, key, ".".join(keys[: depth + 1]), override)
    _assign(node, keys[-1], value, override)


def _child(node: Any, key: str, path: str, override: str) -> Any:
    if isinstance(node, dict):
        child = node.setdefault(key, {})
        if child is None:
            child = node[key] = {}
        return child
    if isinstance(node, list) and key.isdigit() and int(key) < len(node):
        return node[int(key)]
    raise InputError(f"--set '{override}': there is nothing at '{path}'", "see the names with `segctl presets show PRESET`")


def _assign(node: Any, key: str, value: Any, override: str) -> None:
    if isinstance(node, dict):
        node[key] = value
    elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
        node[int(key)] = value
    else:
        raise InputError(f"--set '{override}': there is nothing at '{key}'", "see the names with `segctl presets show PRESET`")


def validate_run(tree: Tree, where: str) -> TrainRun:
    """The run in a mapping. Raises PresetError listing every fault, those between blocks included."""
    model = DistillRun if "distiller" in tree or "teacher" in tree else TrainRun
    try:
        run = model.model_validate(tree)
        faults = cross_check(run)
    except ValidationError as error:
        faults = [
            _fault(model, tree, details) for details in error.errors(include_url=False) if not _follows_from_another(details)
        ]
        faults += _cross_faults_despite(model, tree, error)
    if faults:
        raise PresetError(where, faults, "see `segctl presets show PRESET` for a complete preset")
    return run


def _cross_faults_despite(model: type[TrainRun], tree: Tree, error: ValidationError) -> list[Fault]:
    """Faults between blocks of a file whose only other faults are unknown keys."""
    unknown = [details["loc"] for details in error.errors(include_url=False) if details["type"] == "extra_forbidden"]
    pruned: Any = copy.deepcopy(tree)
    for loc in unknown:
        keys = _plain_path(tree, loc)
        node: Any = pruned
        for key in keys[:-1]:
            node = node[key]
        del node[keys[-1]]
    try:
        return cross_check(model.model_validate(pruned))
    except ValidationError:
        return []


def _follows_from_another(details: ErrorDetails) -> bool:
    """pydantic also calls a list empty when every item in it is faulty."""
    return details["type"] == "too_short" and bool(details["input"])


def _fault(model: type[TrainRun], tree: Tree, details: ErrorDetails) -> Fault:
    """One pydantic error in our words: dotted path, what was got, what was wanted."""
    keys = _plain_path(tree, details["loc"])
    path = ".".join(map(str, keys)) or "(top level)"
    match details["type"]:
        case "missing":
            return Fault(path, "is missing")
        case "extra_forbidden":
            known = _known_keys(model, tree, keys[:-1])
            return Fault(path, f"unknown key{did_you_mean(str(keys[-1]), known) or f', wanted one of {_listed(known)}'}")
        case "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in details["ctx"]["expected_tags"].split(",")]
            got = details["ctx"]["tag"]
            return Fault(f"{path}.kind", f"got '{got}', wanted one of {_listed(tags)}{did_you_mean(got, tags)}")
        case "union_tag_not_found":
            return Fault(f"{path}.kind", "is missing")
        case "too_short":
            return Fault(path, "is empty, wanted at least one item")
        case "literal_error":
            return Fault(path, f"got {details['input']!r}, wanted {details['ctx']['expected']}{_near_literal(details)}")
    return Fault(path, f"got {_short(details['input'])}, {_wanted(details)}")


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
"""Our words for pydantic's, with the bound from its context; its own message serves for what is not here."""


def _wanted(details: ErrorDetails) -> str:
    template = WANTED.get(details["type"])
    message = details["msg"]
    return template.format(**details.get("ctx", {})) if template else message[0].lower() + message[1:]


def _near_literal(details: ErrorDetails) -> str:
    words = details["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return did_you_mean(str(details["input"]), [word.strip("'") for word in words])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(words: list[str]) -> str:
    return ", ".join(words)


def _plain_path(tree: Tree, loc: tuple[int | str, ...]) -> list[int | str]:
    """pydantic's location without the union tags it slips in: keys that are not in the file, except a last missing one."""
    keys: list[int | str] = []
    node: Any = tree
    for position, key in enumerate(loc):
        inside = (isinstance(node, dict) and key in node) or (isinstance(node, list) and isinstance(key, int))
        if inside:
            node = node[key]
        elif position < len(loc) - 1:
            continue
        keys.append(key)
    return keys


def _known_keys(model: type[BaseModel], tree: Tree, keys: list[int | str]) -> list[str]:
    """The keys allowed in the block at `keys`."""
    annotation: Any = model
    node: Any = tree
    for key in keys:
        node = node[key]
        if isinstance(key, str):
            annotation = annotation.model_fields[key].annotation
        annotation = _block(annotation, node)
    return list(annotation.model_fields)


def _block(annotation: Any, node: Any) -> Any:
    """The Spec class that `node` is read as: looks through lists, optionals and tagged unions."""
    choices = [choice for choice in _classes(annotation) if isinstance(choice, type) and issubclass(choice, BaseModel)]
    if len(choices) == 1 or not isinstance(node, dict):
        return annotation if len(choices) != 1 or isinstance(node, list) else choices[0]
    return next(choice for choice in choices if choice.model_fields["kind"].default == node.get("kind"))


def _classes(annotation: Any) -> list[Any]:
    if get_origin(annotation) is None and not get_args(annotation):
        return [annotation]
    inner = get_args(annotation)
    return [found for part in inner for found in _classes(part)] if inner or get_origin(annotation) is Union else [annotation]
