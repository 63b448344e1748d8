"""The total loss of a run, written out. Each spec writes its own part (`formula`)."""

from segctl.schema.run import DistillRun, PretrainRun, TrainRun


def total_loss(run: TrainRun) -> str:
    """The task loss on the first line, one line for each value of a distillation term, and what y' is if labels are soft.

    `main` and `aux` are the student's logits, at label size unless a term says `at head stride`; `y` is the label,
    `teacher` the teacher's probabilities.
    """
    if isinstance(run, PretrainRun):
        return f"L = {run.pretrain.method}(features of the backbone, features of {run.pretrain.teacher})"
    soft_label = run.labels.formula()
    label = "y'" if soft_label else "y"
    task = " + ".join(f"{term.weight:g}·{term.formula(label, bool(soft_label))}" for term in run.loss)
    lines = [f"L = {task}"]
    if isinstance(run, DistillRun):
        scaled = task if run.distiller.label_weight == 1 else f"{run.distiller.label_weight:g}·[{task}]"
        lines = [f"L = {scaled}", *(f"  + {text}" for term in run.distiller.terms for text in term.formula())]
    if run.semi is not None:
        lines += run.semi.formula()
    return "\n".join([*lines, *([f"where {soft_label}"] if soft_label else [])])
