"""The one table of settings that cannot change a run's numbers, and the questions that it answers.

Four readers ask whether two descriptions mean the same run: resuming, `segctl compare` over folders that exist, the report's
groups of seeds, and its notes on what was changed in a preset. For all of them, every setting outside the table changes numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from segctl.schema.run import DistillRun, TrainRun

Effect = Literal["no number", "last digits", "device", "seed"]
"""What a setting can do at most.

no number     every weight and every score stays bit-identical
last digits   other rounding
device        another name for the value in force: the device decides
seed          another sample of the same experiment
"""


@dataclass(frozen=True)
class Setting:
    """A setting that does not make two runs different, and why."""

    path: str
    effect: Effect
    why: str
    within_a_run: bool = True
    """Whether a stopped run may be resumed with another value."""
    when: Callable[[TrainRun, TrainRun], bool] | None = None
    """Which pairs of runs the row holds for; None for all."""


def _take_no_notice_of_validations(first: TrainRun, second: TrainRun) -> bool:
    return all(run.train.select == "last" and run.train.early_stop is None for run in (first, second))


def _leave_micro_batches_to_the_device(first: TrainRun, second: TrainRun) -> bool:
    said: tuple[object, ...] = (first.train.accumulate, second.train.accumulate)
    return "auto" in said


def _leave_precision_to_the_device(first: TrainRun, second: TrainRun) -> bool:
    return "auto" in (first.train.precision, second.train.precision)


TABLE = (
    Setting(
        "data.workers", "no number", "a sample's random view depends on the seed and its place in the order, not on a process"
    ),
    Setting("teacher.cache", "no number", "the stored outputs are what the teacher gives for the same view"),
    Setting("teacher.overlap", "no number", "the same operations run, at another time"),
    Setting("train.activation_checkpointing", "no number", "the backward pass computes the same activations again"),
    Setting("train.checkpoint_every", "no number", "a checkpoint only reads the state"),
    Setting("train.checkpoint_minutes", "no number", "a checkpoint only reads the state"),
    Setting(
        "train.validate_every",
        "no number",
        "a validation only chooses weights where train.select is best, and only ends a run with train.early_stop",
        when=_take_no_notice_of_validations,
    ),
    Setting("train.select_by", "no number", "nothing is selected", when=_take_no_notice_of_validations),
    Setting("published", "no number", "only tables show it"),
    Setting("train.compile", "last digits", "fused kernels round in another order"),
    Setting(
        "train.deterministic",
        "last digits",
        "other kernels are chosen; a run promises the same bits from its first step or not at all",
        within_a_run=False,
    ),
    Setting(
        "train.precision",
        "device",
        "a preset says auto, and a run stores what its device made of it",
        when=_leave_precision_to_the_device,
    ),
    Setting(
        "train.accumulate",
        "device",
        "a preset may say auto, and a run stores what fitted into memory",
        when=_leave_micro_batches_to_the_device,
    ),
    Setting("train.seed", "seed", "the report takes means over it", within_a_run=False),
)
"""Every setting that can differ between two descriptions of the same run."""


STEERED = ("optim.lr", "train.clip_norm", "train.precision")
"""Settings that change numbers, but that a person may change when resuming a stopped run, because the message about a NaN loss
advises it. The run's folder records the change."""


class Change(NamedTuple):
    """A setting that differs between two runs; a value is None where that run does not have the setting."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.before!r} -> {self.after!r}"


def settings(run: TrainRun) -> dict[str, Any]:
    """Every setting by its dotted path, such as `train.steps`; a list of blocks is one value, because its items have no names."""
    return _flat(run.model_dump(mode="json"), "")


def changes(before: TrainRun, after: TrainRun) -> list[Change]:
    """Every setting that differs, in the order of the preset."""
    first, second = settings(before), settings(after)
    paths = dict.fromkeys([*first, *second])
    return [Change(path, first.get(path), second.get(path)) for path in paths if first.get(path) != second.get(path)]


def conflicts(stored: TrainRun, asked: TrainRun) -> list[Change]:
    """The changes that make a stored run another run than the requested one; resuming and `segctl compare` refuse them."""
    found = [(change, _row(change, stored, asked)) for change in changes(stored, asked)]
    return [change for change, row in found if row is None or not row.within_a_run]


def steering_changes(stored: TrainRun, asked: TrainRun) -> list[Change]:
    """The conflicts that a stopped run may be resumed with, if it records them; precision may only become finer."""
    return [
        change
        for change in conflicts(stored, asked)
        if change.path in STEERED and (change.path != "train.precision" or change.after == "fp32")
    ]


def rounding_changes(stored: TrainRun, asked: TrainRun) -> list[Change]:
    """The changes that make a resumed run differ in its last digits from one that was never stopped."""
    found = [(change, _row(change, stored, asked)) for change in changes(stored, asked)]
    return [change for change, row in found if row is not None and row.within_a_run and row.effect == "last digits"]


def changes_of_preset(preset: TrainRun, run: TrainRun) -> list[Change]:
    """What a run changed in its preset that can change a number by more than the seed does."""
    return [change for change in changes(preset, run) if _row(change, preset, run) is None]


def group_settings(run: TrainRun) -> dict[str, Any]:
    """The settings that runs of one group share: equal for runs that differ in the seed and in what cannot change a number.

    Precision stays, because a finished run stores the precision that it had and two of them give two networks.
    """
    left_out = {row.path for row in TABLE if row.effect != "device" and (row.when is None or row.when(run, run))}
    return {path: value for path, value in settings(run).items() if path not in left_out}


def without_teacher(run: TrainRun) -> TrainRun:
    """The student of a run on labels alone, which is the run itself where nothing else teaches it."""
    student = run.without_teacher() if isinstance(run, DistillRun) else run
    return student if student.semi is None else student.on_labels_alone()


def _row(change: Change, first: TrainRun, second: TrainRun) -> Setting | None:
    """The table's row for a change between these two runs."""
    return next((row for row in TABLE if row.path == change.path and (row.when is None or row.when(first, second))), None)


def _flat(tree: Any, path: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{path}.{key}" if path else str(key))
    return found
