"""`segctl presets`: what ships, what a preset says, whether a file is sound, and a new file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segctl.cli import completion
from segctl.cli.help import PlainCommand, PlainGroup
from segctl.cli.options import DataOpt, DataRootOpt, JsonOpt, SetOpt
from segctl.cli.output import out
from segctl.commands import DATA_ROOT
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.data.fitted_preset import OpenedPreset

presets_app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="List, show, check and create presets.")


@presets_app.command("list", cls=PlainCommand)
def list_presets(json: JsonOpt = False) -> None:
    """List the shipped presets."""
    from segctl.schema.load import GENERIC_CLASSES, all_names, find_preset, is_generic, preset_costs, read_tree

    if json:
        out.json(sorted(all_names()))
        return
    rows, costs = [], preset_costs()
    for name in all_names():
        tree, cost = read_tree(find_preset(name)), costs[name]
        teacher = tree.get("teacher", {}).get("preset", "")
        # The tag of the weights is in `presets show`.
        model = f"{tree['model']['head']} {tree['model']['backbone'].partition('.')[0]}"
        millions, gflop, size = f"{cost.parameters / 1e6:.1f}", f"{cost.gflop:.1f}", "×".join(map(str, cost.size))
        train = {"steps": "fitted", "batch_size": "fitted"} if is_generic(tree) else tree["train"]
        steps = str(train["steps"]) if train.get("epochs") is None else f"{train['epochs']:g} epochs"
        dataset = tree["data"].get("dataset", "any")
        rows.append(
            [name, dataset, model, millions, gflop, size, tree.get("recipe") or "", steps, str(train["batch_size"]), teacher]
        )
    out.table(
        "Presets",
        ["name", "dataset", "model", "M params", "GFLOP", "at", "recipe", "steps", "batch", "teacher"],
        rows,
        [
            "M params, GFLOP: of one prediction of one image of that size; multiply-adds × 2; no auxiliary classifier",
            f"any: for the dataset that --data names, which decides crop, batch and steps; costs with {GENERIC_CLASSES} classes",
        ],
        drop=("batch", "steps", "dataset", "recipe", "at", "teacher"),
    )


@presets_app.command(cls=PlainCommand)
def show(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE", autocompletion=completion.presets, help="A shipped preset's name, or a YAML file."
        ),
    ],
    set_: SetOpt = None,
    data: DataOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Print a preset with every default filled in, and its total loss as a formula."""
    import yaml

    from segctl.schema.load import preset_memory, remarks_of
    from segctl.schema.terms.formula import total_loss

    run, reasons = _opened(preset, set_, data, data_root)
    resolved = run.model_dump(mode="json")
    remarks = {word: text for word, text in remarks_of(preset).items() if word in ("Expected", "Needs", "Differs")}
    # What is changed here may need more or less memory; `--dry-run` counts it.
    memory = None if set_ else preset_memory().get(preset)
    if json:
        counted = None if memory is None else memory._asdict()
        out.json({"run": resolved, "total_loss": total_loss(run), "gpu_memory_gib": counted, "remarks": remarks})
        return
    out.result(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120).rstrip())
    out.result("\n" + "\n".join(f"# {line}" for line in [*total_loss(run).splitlines(), *reasons]))
    for word, text in remarks.items():
        out.result(f"# {word}: {text}" if word != "Differs" else f"# Differs from the published run: {text}")
    if memory is not None:
        out.result(f"# GPU memory of a step of {memory.batch} images, in GiB and without CUDA's own 1:")
        for precision in ("fp32", "bf16"):
            out.result(f"#   {precision} {memory.of(precision)[memory.batch]:.1f}; GPUs of 16 GB: {memory.advice(precision)}")


@presets_app.command("check", cls=PlainCommand)
def presets_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", autocompletion=completion.presets, help="A YAML file.")],
    set_: SetOpt = None,
    data: DataOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Check a preset file and list every fault in it."""
    from segctl.schema.run import verb_of

    run, _ = _opened(str(file), set_, data, data_root)
    kind = {"train": "training", "distill": "distillation", "pretrain": "pretraining"}[verb_of(run)]
    out.result(f"{file}: a complete {kind} run called '{run.name}'")


@presets_app.command("new", cls=PlainCommand)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new preset's name; save it as NAME.yaml.")],
    like: Annotated[
        str,
        typer.Option(
            "--like", metavar="NAME_OR_FILE", autocompletion=completion.presets, help="The preset to start from, such as fast."
        ),
    ],
    data: DataOpt = None,
    set_: SetOpt = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Print a new preset with comments, to save as your own: `segctl presets new mine --like fast --data streets > mine.yaml`."""
    from segctl.schema.load import all_names
    from segctl.schema.presets.commented import commented
    from segctl.schema.run import NAME

    if name in all_names() or not re.fullmatch(NAME, name):
        taken = "a preset of that name ships with segctl" if name in all_names() else "wanted letters, digits, '.', '_' and '-'"
        raise InputError(f"a new preset cannot be called '{name}': {taken}", "for example my-fast")
    run, reasons = _opened(like, set_, data, data_root)
    out.result(commented(run.model_copy(update={"name": name}), like, reasons).rstrip("\n"))


def _opened(preset: str, set_: list[str] | None, data: str | None, data_root: Path) -> "OpenedPreset":
    """The preset, judged as a whole."""
    from segctl.data.fitted_preset import open_preset
    from segctl.schema.load import require_consistent, where_of

    opened = open_preset(preset, set_ or [], data, data_root)
    require_consistent(opened.run, where_of(preset))
    return opened
