"""`segctl distill`: a student's preset and a teacher in, a run folder out."""

from typing import TYPE_CHECKING, Any

from segctl.cli.help import PlainCommand
from segctl.cli.options import GivenTeachers, RunOptions, with_run_options
from segctl.cli.output import out
from segctl.cli.train import described_run, train_run
from segctl.commands import command_line
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.schema.run import DistillRun, TrainRun


class DistillCommand(PlainCommand):
    """`segctl distill`. Its help imports the list of methods only when it is printed, because the import takes 0.15 s."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from segctl.schema.terms.methods import METHODS

        *names, last = METHODS
        for option in self.params:
            if option.name == "method":
                option.help = f"A published method instead of the preset's distiller: {', '.join(names)} or {last}."  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


@with_run_options(RunOptions)
def distill(options: RunOptions) -> None:
    """Train a student on labels and on a teacher's outputs."""
    from segctl.schema.load import require_consistent
    from segctl.schema.run import DistillRun

    run, reasons = described_run(options)
    name = run.name
    if not isinstance(run, DistillRun):
        source = ["--resume", "--run", str(options.run)] if options.preset is None else ["--preset", options.preset]
        source += [] if options.data is None else ["--data", options.data]
        line = command_line("train", *source, data_root=options.data_root, runs_root=options.runs_root)
        raise InputError(f"preset '{name}' has no teacher to learn from", f"use `{line}`")
    if options.method is not None:
        run, name = _with_method(run, options.method), f"{name}-{options.method}"
    else:
        require_consistent(run, f"preset '{options.preset or options.run}'")
    if options.teacher and not isinstance(run, DistillRun):
        raise InputError("--teacher cannot be combined with --method none", "leave one of them out")
    if options.trust_program and not isinstance(run, DistillRun):
        raise InputError("--trust-program cannot be combined with --method none", "leave one of them out")
    if options.fsdp and not isinstance(run, DistillRun):
        raise InputError("--fsdp cannot be combined with --method none", "leave one of them out")
    if options.teacher_preset is not None and not options.teacher:
        raise InputError("--teacher-preset needs --teacher FILE, whose network it describes", "add --teacher FILE")
    if isinstance(run, DistillRun):
        run = _weighed(run, options)
    train_run(run, name, options, reasons)


def _weighed(run: "DistillRun", options: RunOptions) -> "DistillRun":
    """The run with the weights of --teacher as its teacher.weights."""
    weights = GivenTeachers.of(options.teacher).weights
    if weights is None:
        return run
    if run.teacher.weights not in (None, weights):
        raise InputError(
            f"--teacher gives the weights {list(weights)}, and teacher.weights is {list(run.teacher.weights or ())}",
            "give them in one place",
        )
    return run.model_copy(update={"teacher": run.teacher.model_copy(update={"weights": weights})})


def _with_method(run: "DistillRun", method: str) -> "TrainRun":
    """The run with a method's distiller; notes if the method was published with other settings."""
    from segctl.schema.load import sibling, with_method
    from segctl.schema.presets.published import published_on
    from segctl.schema.terms.methods import require_method, variant_of

    require_method(method)
    for published in published_on(run, run.data.val_split):
        if published.method == method and published.recipe != run.recipe:
            number = f"{published.value:.2f} {published.metric}"
            other = sibling(run.name, published.recipe)
            where = "" if other is None else f"; preset '{other}' has it"
            out.note(
                f"published for {method}: {number}, with the {published.recipe} recipe, not this one "
                f"({run.recipe or 'none'}){where}"
            )
    if (variant := variant_of(method, run.data.dataset, run.model.aux, run.data.labelled == 1)) is not None:
        out.note(variant.why)
    if method == "none" and run.data.unlabelled is not None:
        out.note("data.unlabelled is left out: only a teacher can teach from pictures without labels")
    return with_method(run, method)
