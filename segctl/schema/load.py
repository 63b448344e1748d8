"""YAML file + `--set a.b=c` -> one validated run, with every fault named at once."""

import itertools
import json
import re
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from segctl.commands import command_line
from segctl.errors import InputError, PresetError, did_you_mean
from segctl.schema.cross_checks import cross_check
from segctl.schema.messages import Tree, faults_of
from segctl.schema.models import ModelSpec
from segctl.schema.run import DistillRun, PretrainRun, TrainRun
from segctl.schema.terms.methods import Method, published_bundle
from segctl.schema.yaml import load_yaml

ALTERNATIVES = {"train.steps": "epochs", "train.epochs": "steps"}
"""Setting the first by `--set` removes the second, which says the same in another way."""

DEEPEST = 20
"""Levels of names that `--set` takes: a preset has far fewer, and thousands would exhaust the stack."""


GENERIC = "generic"
"""The folder, inside that of the presets, of those without a dataset."""

GENERIC_CLASSES, GENERIC_SIZE = 19, (512, 1024)
"""Classes and image size that the cost of a preset without a dataset is given for."""


def preset_folder() -> Path:
    """The folder of shipped presets: inside an installed wheel, or beside the package in a checkout."""
    packaged = Path(str(files("segctl"))) / "presets"
    return packaged if packaged.is_dir() else packaged.parent.parent / "presets"


def preset_names() -> list[str]:
    """Names of the shipped presets, sorted."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def generic_names() -> list[str]:
    """Names of the shipped presets without a dataset, sorted."""
    return sorted(path.stem for path in (preset_folder() / GENERIC).glob("*.yaml"))


def all_names() -> list[str]:
    """Names of all shipped presets: first those without a dataset."""
    return [*generic_names(), *preset_names()]


def network_of(name_or_path: str) -> ModelSpec:
    """The network of a preset, whether it names a dataset or not. Raises InputError for a file that is not a preset."""
    tree = read_tree(find_preset(name_or_path))
    if not is_generic(tree):
        return load_preset(name_or_path).model
    try:
        parse_run(tree, where_of(name_or_path))
    except PresetError as error:  # the faults of a preset without a dataset, and perhaps more
        if faults := [fault for fault in error.faults if fault.path.partition(".")[0] == "model"]:
            raise PresetError(where_of(name_or_path), faults) from error
    return ModelSpec.model_validate(tree["model"])


class PresetCost(NamedTuple):
    """What one prediction of a shipped preset's network costs on an image of its dataset: see `segctl.models.cost.Cost`."""

    parameters: int
    gflop: float
    size: tuple[int, int]


def preset_costs() -> dict[str, PresetCost]:
    """The cost of each shipped preset, from the table `costs.json` beside them; benchmarks/preset_costs.py writes it."""
    table: dict[str, Any] = json.loads((preset_folder() / "costs.json").read_text(encoding="utf-8"))
    return {name: PresetCost(row["parameters"], row["gflop"], (row["size"][0], row["size"][1])) for name, row in table.items()}


CARD_ROOM_GIB = 14.0
"""What a GPU sold as 16 GB has for tensors: CUDA itself, cuDNN's workspaces and gaps between tensors take about 1 GiB."""


class PresetMemory(NamedTuple):
    """GPU memory in GiB that a training step of a shipped preset needs: see `segctl.train.step_memory`.

    batch: its train.batch_size.  fp32, bf16: GiB by the images in a micro-batch, from the whole batch downwards.  checkpointed:
    GiB by precision of the whole batch with train.activation_checkpointing, where it does not fit a GPU of 16 GB without.
    """

    batch: int
    fp32: dict[int, float]
    bf16: dict[int, float]
    checkpointed: dict[str, float]

    def of(self, precision: str) -> dict[int, float]:
        """GiB by the images in a micro-batch; fp16 needs what bf16 needs."""
        return self.fp32 if precision == "fp32" else self.bf16

    def advice(self, precision: str) -> str:
        """How a step fits GPUs of 16 GB."""
        sizes = self.of(precision)
        parts = next((self.batch // images for images, gib in sizes.items() if gib <= CARD_ROOM_GIB), None)
        if parts == 1:
            return "one"
        ways = []
        if self.checkpointed.get("fp32" if precision == "fp32" else "bf16", CARD_ROOM_GIB + 1) <= CARD_ROOM_GIB:
            ways.append("one with train.activation_checkpointing=true")
        if parts is not None:
            ways += [f"{parts} GPUs", f"one with train.accumulate={parts}"]
        return ", or ".join(ways) or "no way found"


def preset_memory() -> dict[str, PresetMemory]:
    """The memory of each shipped preset, from the table `memory.json` beside them; benchmarks/preset_memory.py writes it."""
    table: dict[str, Any] = json.loads((preset_folder() / "memory.json").read_text(encoding="utf-8"))
    found = {}
    for name, row in table.items():
        fp32, bf16 = ({int(images): gib for images, gib in row[precision].items()} for precision in ("fp32", "bf16"))
        found[name] = PresetMemory(row["batch"], fp32, bf16, row["checkpointed"])
    return found


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
    known = all_names()
    if name_or_path not in known:
        raise InputError(
            f"no preset is called '{name_or_path}'{did_you_mean(name_or_path, known)}",
            "see `segctl presets list`, or give the path of a .yaml file",
        )
    folder = preset_folder() / GENERIC if name_or_path in generic_names() else preset_folder()
    return folder / f"{name_or_path}.yaml"


def remarks_of(name_or_path: str) -> dict[str, str]:
    """What the comments at the top of a preset's file say, by their first word: Expected, Needs, Differs and others.

    A preset of somebody's own may have none. Raises InputError if there is no such preset.
    """
    text = find_preset(name_or_path).read_text(encoding="utf-8")
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    found = (re.fullmatch(r"# ([A-Z][a-z]+): +(.+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> TrainRun:
    """The run that a preset describes, after `a.b=c` overrides; a DistillRun where the file has a distiller."""
    run = read_preset(name_or_path, overrides)
    require_consistent(run, where_of(name_or_path))
    return run


def read_preset(name_or_path: str, overrides: Sequence[str] = ()) -> TrainRun:
    """`load_preset` without the checks between blocks, for a run that will lose or change its distiller before it is judged.

    Then call `with_method` or `require_consistent`.  Raises PresetError for values that no run accepts, and InputError for a
    preset without a dataset: `segctl.data.fitted_preset.open_preset` fits it to one.
    """
    tree = read_tree(find_preset(name_or_path))
    if is_generic(tree):
        raise without_dataset(name_or_path, tree)
    for override in overrides:
        apply_override(tree, override)
    return parse_run(tree, where_of(name_or_path))


def where_of(name_or_path: str) -> str:
    """A preset in messages about its content."""
    path = find_preset(name_or_path)
    return f"preset '{path.stem if preset_folder() in path.parents else path}'"


def is_generic(tree: Tree) -> bool:
    """Whether a preset's file describes a network without saying on which dataset it is trained."""
    data = tree.get("data") or {}
    return "model" in tree and isinstance(data, dict) and data.get("dataset") is None


def without_dataset(name_or_path: str, tree: Tree) -> InputError:
    """The error for a preset without a dataset where no dataset is given."""
    line = command_line("distill" if "distiller" in tree else "train", "--preset", name_or_path, "--data", "NAME")
    return InputError(
        f"preset '{name_or_path}' is for any dataset, and none is named",
        f"for example `{line}`; `segctl data list` shows the names",
    )


_tree_of = lru_cache(maxsize=256)(load_yaml)
"""PyYAML takes 5 ms for a preset, and the commands that show presets read each of them several times."""


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML file. Raises InputError with the line where YAML stops being YAML."""
    try:
        tree = deepcopy(_tree_of(path.read_text(encoding="utf-8")))
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
    if len(keys) > DEEPEST:
        raise InputError(f"--set '{path[:40]}...' has {len(keys)} levels", f"a preset has fewer than {DEEPEST} levels")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"cannot read the value of --set '{override}'", "quote it, or write lists as [1,2]") from error
    node: Any = tree
    for depth, key in enumerate(keys[:-1]):
        node = _child(node, key, ".".join(keys[: depth + 1]), override)
    if keys == ["train", "batch_size"] and value == "auto" and isinstance(node, dict) and isinstance(node.get("batch_size"), int):
        node["accumulate"] = "auto"  # the batch stays what the recipe is made for
        return
    _assign(node, keys[-1], value, override)
    if value is not None and isinstance(node, dict) and (other := ALTERNATIVES.get(".".join(keys))):
        node.pop(other, None)


def _child(node: Any, key: str, path: str, override: str) -> Any:
    if isinstance(node, dict):
        if node.get(key) is None:
            node[key] = {}
        return node[key]
    if isinstance(node, list) and (index := _index(key, node)) is not None:
        return node[index]
    raise InputError(f"--set '{override}': there is nothing at '{path}'", "see the names with `segctl presets show PRESET`")


def _assign(node: Any, key: str, value: Any, override: str) -> None:
    if isinstance(node, dict):
        node[key] = value
    elif isinstance(node, list) and (index := _index(key, node)) is not None:
        node[index] = value
    else:
        raise InputError(f"--set '{override}': there is nothing at '{key}'", "see the names with `segctl presets show PRESET`")


def _index(key: str, items: list[Any]) -> int | None:
    """The item that `key` names, or None. A digit such as '²' is none."""
    return int(key) if key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < len(items) else None


def validate_run(tree: Tree, where: str) -> TrainRun:
    """The run in a mapping. Raises PresetError listing every fault, those between blocks included."""
    run = parse_run(tree, where)
    require_consistent(run, where)
    return run


def parse_run(tree: Tree, where: str) -> TrainRun:
    """The run in a mapping, its blocks not judged together. Raises PresetError that lists every other fault."""
    model: type[TrainRun] = DistillRun if "distiller" in tree or "teacher" in tree else TrainRun
    model = PretrainRun if "pretrain" in tree else model
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise PresetError(
            where, faults_of(model, tree, error), "see `segctl presets show PRESET` for a complete preset"
        ) from error


def require_consistent(run: TrainRun, where: str) -> None:
    """Raise PresetError listing every fault between a run's blocks."""
    if faults := cross_check(run):
        raise PresetError(where, faults, "see `segctl presets show PRESET` for a complete preset")


def with_method(run: DistillRun, method: Method) -> TrainRun:
    """The run with a method's published bundle as its distiller, and nothing else changed; `none` leaves out the teacher.

    Raises PresetError where the bundle does not fit the run, such as a term on auxiliary logits that the student lacks.
    """
    bundle = published_bundle(method, run.data.dataset, run.model.aux, run.data.labelled == 1)
    changed = run.without_teacher() if bundle is None else run.model_copy(update={"distiller": bundle})
    # A student that is its own teacher has no method, not even `none`: cross_check says so of a run with a teacher.
    if faults := cross_check(changed if run.semi is None else run):
        raise PresetError(f"preset '{run.name}' with method {method}", faults)
    return changed
