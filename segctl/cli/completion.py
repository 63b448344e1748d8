"""What the shell completes: presets, methods, datasets, run folders and the dotted paths of `--set`. Imports no torch.

Each function takes what has been typed so far and returns what could complete it; Typer finds it by `autocompletion=`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def presets(incomplete: str) -> list[str]:
    """Shipped presets, and YAML files under the path that has been typed."""
    from segctl.schema.load import all_names

    return [name for name in all_names() if name.startswith(incomplete)] + list(_paths(incomplete, (".yaml", ".yml")))


def methods(incomplete: str) -> list[str]:
    """Distillation methods; after a comma the next one."""
    from segctl.schema.terms.methods import METHODS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in METHODS if name.startswith(last)]


def datasets(incomplete: str) -> list[str]:
    """Datasets that segctl knows, and those that are prepared under the data root."""
    from segctl.data.datasets import KNOWN

    root = Path(os.environ.get("SEGCTL_DATA", "data"))
    prepared = [path.parent.name for path in root.glob("*/dataset.json")]
    return [name for name in dict.fromkeys([*KNOWN, *sorted(prepared)]) if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Run folders under the runs root, and folders under the path that has been typed."""
    root = Path(os.environ.get("SEGCTL_RUNS", "runs"))
    found = [str(path.parent) for path in sorted(root.glob("*/run.yaml"))]
    return list(dict.fromkeys([*(path for path in found if path.startswith(incomplete)), *_paths(incomplete, ())]))


def measurable(incomplete: str) -> list[str]:
    """What `segctl bench` takes: presets, runs, and files under the path that has been typed."""
    files = _paths(incomplete, (".onnx", ".pt2", ".xml", ".pt", ".safetensors"))
    return list(dict.fromkeys([*presets(incomplete), *runs(incomplete), *files]))


def preset_settings(incomplete: str) -> list[str]:
    """`a.b.c=` for every setting of a preset; a list is completed by its index 0."""
    from segctl.schema.run import DistillRun

    paths = sorted(set(_settings(DistillRun, "")))
    return [f"{path}=" for path in paths if path.startswith(incomplete)]


def _settings(model: Any, path: str) -> Iterator[str]:
    from segctl.schema.messages import blocks_in

    for name, field in model.model_fields.items():
        inner = blocks_in(field.annotation)
        here = f"{path}{name}" + (".0" if str(field.annotation).startswith("tuple") and inner else "")
        if not inner:
            yield here
        for block in inner:
            yield from _settings(block, f"{here}.")


def _paths(incomplete: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Folders, and files of these endings, whose path begins with what has been typed."""
    typed = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    try:
        entries = sorted(typed.iterdir())
    except OSError:
        return
    for entry in entries:
        text = str(entry)
        if text.startswith(incomplete) and not entry.name.startswith("."):
            if entry.is_dir():
                yield f"{text}/"
            elif entry.suffix in endings:
                yield text
