"""A preset as a command names it, with its changes; one without a dataset is fitted to the dataset that is named."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError
from segctl.schema.load import (
    apply_override,
    find_preset,
    generic_names,
    is_generic,
    parse_run,
    read_preset,
    read_tree,
    require_consistent,
    where_of,
    without_dataset,
)
from segctl.schema.presets.generic import DatasetFacts, fit_to, shipped_for
from segctl.schema.run import TrainRun


class OpenedPreset(NamedTuple):
    """A run whose blocks are not judged together yet, and why its values were chosen, in sentences."""

    run: TrainRun
    reasons: tuple[str, ...] = ()


def open_preset(name_or_path: str, overrides: Sequence[str], data: str | None, data_root: Path) -> OpenedPreset:
    """The run that a preset describes, after `a.b=c` overrides; see `segctl.schema.load.read_preset`.

    data: the dataset to fit a preset to that has none; None takes that of `data.dataset=NAME` among the overrides.  A dataset
    for which segctl ships a preset of the same network and recipe takes that one.
    Raises InputError if no dataset is named, if it is not prepared, or if the preset is made for another.
    """
    tree = read_tree(find_preset(name_or_path))
    if not is_generic(tree):
        run = read_preset(name_or_path, overrides)
        if data is not None and data != run.data.dataset:
            raise _made_for_another(name_or_path, run, data)
        return OpenedPreset(run)
    written = copy.deepcopy(tree)
    for override in overrides:
        apply_override(tree, override)
    block = tree.get("data")
    by_set = block.get("dataset") if isinstance(block, dict) else None
    if data is not None and by_set is not None and data != by_set:
        raise InputError(f"--data '{data}' and --set data.dataset={by_set} name two datasets", "leave one of them out")
    name = by_set if data is None else data
    if name is None:
        raise without_dataset(name_or_path, tree)
    if name_or_path in generic_names() and (shipped := shipped_for(name_or_path, str(name))) is not None:
        return OpenedPreset(
            read_preset(shipped, overrides), (f"preset '{shipped}', which is '{name_or_path}' made for '{name}'",)
        )
    reasons = fit_to(tree, written, dataset_facts(open_dataset(data_root, str(name))))
    return OpenedPreset(parse_run(tree, where_of(name_or_path)), tuple(reasons))


def dataset_facts(dataset: PreparedDataset) -> DatasetFacts:
    """What fitting a preset needs to know of a dataset."""
    splits = {split: [dataset.size(name) for name in names] for split, names in dataset.splits.items()}
    return DatasetFacts(dataset.name, splits, dataset.classes.num_classes)


def _made_for_another(preset: str, run: TrainRun, data: str) -> InputError:
    base = next((name for name in generic_names() if run.name.endswith(f"-{name}")), None)
    keep = f"--set data.dataset={data} keeps this preset's settings"
    hint = f"`--preset {base} --data {data}` fits its settings to the dataset; {keep}" if base else keep
    return InputError(f"preset '{preset}' is made for the dataset '{run.data.dataset}', but --data is '{data}'", hint)


def load_preset_for(dataset: str, name_or_path: str, data_root: Path) -> TrainRun:
    """A preset whose own dataset is kept, however it is used on this one; one that has none is fitted to this one."""
    generic = is_generic(read_tree(find_preset(name_or_path)))
    run = open_preset(name_or_path, (), dataset if generic else None, data_root).run
    require_consistent(run, where_of(name_or_path))
    return run
