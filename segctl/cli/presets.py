"""`segctl presets`: what ships, what a preset says, whether a file is sound."""

from pathlib import Path
from typing import Annotated

import typer

from segctl.cli import completion
from segctl.cli.help import PlainCommand, PlainGroup
from segctl.cli.options import JsonOpt, SetOpt
from segctl.cli.output import out

presets_app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="List, show and check presets.")


@presets_app.command("list", cls=PlainCommand)
def list_presets(json: JsonOpt = False) -> None:
    """List the shipped presets."""
    from segctl.schema.load import load_preset, preset_costs, preset_names
    from segctl.schema.run import DistillRun

    runs = [load_preset(name) for name in preset_names()]
    if json:
        out.json([run.name for run in runs])
        return
    rows, costs = [], preset_costs()
    for run in runs:
        cost = costs[run.name]
        teacher = run.teacher.preset if isinstance(run, DistillRun) else ""
        model = f"{run.model.head} {run.model.backbone.partition('.')[0]}"  # the tag of the weights is in `presets show`
        millions, gflop, size = f"{cost.parameters / 1e6:.1f}", f"{cost.gflop:.1f}", "×".join(map(str, cost.size))
        steps, batch = f"{run.train.steps}", f"{run.train.batch_size}"
        rows.append([run.name, run.data.dataset, model, millions, gflop, size, run.recipe, steps, batch, teacher])
    out.table(
        "Presets",
        ["name", "dataset", "model", "M params", "GFLOP", "at", "recipe", "steps", "batch", "teacher"],
        rows,
        ["M params, GFLOP: of one prediction of one image of that size; multiply-adds × 2; no auxiliary classifier"],
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
    json: JsonOpt = False,
) -> None:
    """Print a preset with every default filled in, and its total loss as a formula."""
    import yaml

    from segctl.schema.formula import total_loss
    from segctl.schema.load import load_preset, preset_memory

    run = load_preset(preset, set_ or [])
    resolved = run.model_dump(mode="json")
    # What is changed here may need more or less memory; `--dry-run` counts it.
    memory = None if set_ else preset_memory().get(preset)
    if json:
        counted = None if memory is None else memory._asdict()
        out.json({"run": resolved, "total_loss": total_loss(run), "gpu_memory_gib": counted})
        return
    out.result(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120).rstrip())
    out.result("\n" + "\n".join(f"# {line}" for line in total_loss(run).splitlines()))
    if memory is not None:
        out.result(f"# GPU memory of a step of {memory.batch} images, in GiB and without CUDA's own 1:")
        for precision in ("fp32", "bf16"):
            out.result(f"#   {precision} {memory.of(precision)[memory.batch]:.1f}; GPUs of 16 GB: {memory.advice(precision)}")


@presets_app.command("check", cls=PlainCommand)
def presets_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", autocompletion=completion.presets, help="A YAML file.")],
    set_: SetOpt = None,
) -> None:
    """Check a preset file and list every fault in it."""
    from segctl.schema.load import load_preset
    from segctl.schema.run import DistillRun

    run = load_preset(str(file), set_ or [])
    out.result(f"{file}: a complete {'distillation' if isinstance(run, DistillRun) else 'training'} run called '{run.name}'")
