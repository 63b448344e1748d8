"""Writes `presets/costs.json`: parameters and GFLOP of every shipped preset's network on an image of its dataset.

`segctl presets list` shows this table, because counting needs torch and seconds. Run it after a preset or a head has changed; a
test holds the table to what it finds.
"""

import json
from pathlib import Path
from typing import Any

from segctl.data.datasets import KNOWN, class_table
from segctl.models.cost import cost_of
from segctl.schema.load import GENERIC_CLASSES, GENERIC_SIZE, all_names, generic_names, load_preset, network_of
from segctl.schema.models import ModelSpec

TABLE = Path(__file__).parent.parent / "presets" / "costs.json"


def cost(name: str) -> dict[str, Any]:
    """A row of the table. Raises ValueError for a dataset whose images' size is not known."""
    if name in generic_names():
        return _row(network_of(name), GENERIC_CLASSES, GENERIC_SIZE)
    run = load_preset(name)
    size = KNOWN[run.data.dataset].image_size
    if size is None:
        raise ValueError(f"the dataset '{run.data.dataset}' has no image_size in segctl/data/datasets")
    return _row(run.model, class_table(run.data.dataset).num_classes, size)


def _row(model: ModelSpec, classes: int, size: tuple[int, int]) -> dict[str, Any]:
    found = cost_of(model, classes, size)
    return {"parameters": found.parameters, "gflop": round(found.gflop, 2), "size": list(size)}


def main() -> None:
    rows = [f'  "{name}": {json.dumps(cost(name))}' for name in all_names()]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
