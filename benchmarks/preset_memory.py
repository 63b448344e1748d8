"""Writes `presets/memory.json`: GiB of GPU memory that a training step of every shipped preset needs, by precision and images.

    python benchmarks/preset_memory.py [NAME ...]     count again, only the rows of these presets if names are given
    python benchmarks/preset_memory.py --table        print the table of docs/memory.md

`segctl presets show` and docs/memory.md show this table, because counting takes seconds a row. Run it after a preset, a head, a
loss or a term has changed; a test holds the table to what it finds. All rows take half an hour of one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from segctl.schema.load import CARD_ROOM_GIB, load_preset, preset_memory, preset_names
from segctl.schema.run import TrainRun
from segctl.train.step_memory import step_memory

TABLE = Path(__file__).parent.parent / "presets" / "memory.json"
FEWEST_IMAGES = 2
"""A micro-batch of one image cannot train a head that pools to one pixel."""
COUNTED: dict[tuple[str, int, str], float] = {}


def row(name: str) -> dict[str, Any]:
    """For each precision the GiB by images of a micro-batch: the whole batch, then halves until a card of 16 GB suffices.

    `checkpointed` has the whole batch with activation checkpointing, where a card of 16 GB does not suffice without. A frozen
    backbone keeps nothing that could be computed again.
    """
    run = load_preset(name)
    sparing = None if run.model.frozen else load_preset(name, ["train.activation_checkpointing=true"])
    found: dict[str, Any] = {"batch": run.train.batch_size, "fp32": {}, "bf16": {}, "checkpointed": {}}
    for precision in ("fp32", "bf16"):
        images = run.train.batch_size
        while images >= FEWEST_IMAGES:
            found[precision][str(images)] = counted(run, images, precision)
            if found[precision][str(images)] <= CARD_ROOM_GIB:
                break
            if images == run.train.batch_size and sparing is not None:
                found["checkpointed"][precision] = counted(sparing, images, precision)
            images //= 2
    return found


def counted(run: TrainRun, images: int, precision: str) -> float:
    """GiB at most; presets that differ in nothing that a step depends on are counted once."""
    key = (what_matters(run), images, precision)
    if key not in COUNTED:
        COUNTED[key] = round(step_memory(run, images, precision).peak, 2)  # type: ignore[arg-type]
    return COUNTED[key]


def what_matters(run: TrainRun) -> str:
    tree = run.model_dump(mode="json")
    tree["model"]["weights"] = "none"
    sparing = tree["train"]["activation_checkpointing"]
    kept = {key: tree.get(key) for key in ("model", "labels", "loss", "semi", "optim", "distiller", "teacher")}
    return json.dumps(
        [kept, tree["data"]["dataset"], tree["data"]["crop"], tree["data"]["unlabelled"], sparing, tree["train"]["ema"]]
    )


def write(rows: dict[str, Any]) -> None:
    lines = [f'  "{name}": {json.dumps(rows[name])}' for name in preset_names() if name in rows]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def table() -> str:
    """The Markdown table of the docs."""
    lines = ["| preset | batch | fp32, GiB | bf16, GiB | on GPUs of 16 GB in bf16 |", "|---|---:|---:|---:|---|"]
    for name, found in preset_memory().items():
        whole = [f"{sizes[found.batch]:.1f}" for sizes in (found.fp32, found.bf16)]
        lines.append(f"| {name} | {found.batch} | {' | '.join(whole)} | {found.advice('bf16')} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}
    for name in arguments.names or preset_names():
        rows[name] = row(name)
        write(rows)


if __name__ == "__main__":
    main()
