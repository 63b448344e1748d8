"""`segctl pretrain`: a student's preset and a frozen foundation model in, a run folder with a backbone out."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segctl.cli.options import PretrainOptions, with_run_options
from segctl.cli.output import out
from segctl.cli.train import described_run, train_run
from segctl.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from segctl.schema.run import PretrainRun, TrainRun

OWN_BLOCKS = ("optim.", "schedule.", "pretrain.")
"""Settings of the pretraining itself, which `--set` changes after the preset has been read."""
UNUSED = (
    "labels", "loss", "distiller", "teacher", "semi", "published", "recipe",
    "data.unlabelled", "data.labelled", "model.head", "model.width", "model.aux",
)  # fmt: skip
"""What a preset has for a task: pretraining learns features from all pictures, and its head is a linear probe."""
PRETRAINING: dict[str, Any] = {
    "optim": {"kind": "adamw", "lr": 5e-4, "head_lr_factor": 1, "weight_decay": 0.05, "decay_norm_and_bias": False},
    "schedule": {"kind": "cosine", "warmup_fraction": 0.05, "warmup_factor": 0.0},
}
"""Matching features wants a higher rate than the fine-tuning that the presets describe."""


@with_run_options(PretrainOptions, without=("teacher_preset", "trust_program"))
def pretrain(options: PretrainOptions) -> None:
    """Train a student's backbone on the features of a frozen foundation model; labels are not read."""
    from segctl.schema.load import require_consistent
    from segctl.schema.run import PretrainRun

    own = [change for change in options.set_ or [] if change.startswith(OWN_BLOCKS)]
    if options.preset is None:
        given = {"--teacher": options.teacher, "--method": options.method, "--split": options.split}
        if named := [name for name, value in given.items() if value]:
            raise InputError(f"{named[0]} needs --preset; a run that is resumed has its own", f"leave {named[0]} out")
        run, reasons = described_run(options)
    else:
        others = [change for change in options.set_ or [] if not change.startswith(OWN_BLOCKS)]
        for path in (change.partition("=")[0] for change in others):
            if f"{path}.".startswith(tuple(f"{name}." for name in UNUSED)):
                raise InputError(
                    f"--set {path} changes nothing in a pretraining run, which learns features alone", "leave it out"
                )
        split = [] if options.split is None else [f"data.train_split={options.split}"]
        run, reasons = described_run(replace(options, set_=[*split, *others]))
        if not isinstance(run, PretrainRun):
            run = _pretraining(run, options, own)
    if not isinstance(run, PretrainRun):
        raise InputError(f"'{options.run}' is not a run of `segctl pretrain`", "resume it with the command that started it")
    require_consistent(run, f"preset '{options.preset or options.run}'")
    if options.preset is not None:
        out.note(f"optimiser {run.optim.kind}, peak rate {run.optim.lr:g}, schedule {run.schedule.kind}: pretraining's own")
    train_run(run, run.name, options, reasons)


def _pretraining(preset: "TrainRun", options: PretrainOptions, own: list[str]) -> "PretrainRun":
    """The preset's backbone and data, with the recipe of pretraining and the changes of `--set`."""
    from segctl.schema.load import apply_override, parse_run
    from segctl.schema.pretrain import MATCHES
    from segctl.schema.run import PretrainRun

    if not options.teacher:
        raise InputError("no teacher is given", "for example `--teacher timm:vit_small_patch16_dinov3`")
    if len(options.teacher) > 1:
        raise InputError(f"--teacher is given {len(options.teacher)} times, but a backbone learns from one", "give one of them")
    if options.method is not None and options.method not in MATCHES:
        near = did_you_mean(options.method, list(MATCHES))
        raise InputError(f"--method '{options.method}' is not known{near}", f"use {', '.join(MATCHES[:-1])} or {MATCHES[-1]}")
    tree = preset.model_dump(mode="json", include={"data", "model", "train", "evaluate"})
    tree["data"] |= {"unlabelled": None, "labelled": 1.0}  # pictures serve with or without labels
    tree["model"] |= {"head": "linear", "width": None, "aux": False}
    tree |= PRETRAINING | {
        "name": f"{preset.name}-pretrain",
        "pretrain": {"teacher": str(options.teacher[0])} | ({} if options.method is None else {"method": options.method}),
    }
    for change in own:
        apply_override(tree, change)
    run = parse_run(tree, f"preset '{options.preset}'")
    assert isinstance(run, PretrainRun)
    return run
