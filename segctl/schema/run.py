"""A whole preset: one run, checked across its blocks."""

import math
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, field_validator

from segctl.schema.data import DataSpec
from segctl.schema.evaluate import EvaluateSpec
from segctl.schema.labels import HardLabels, LabelSpec
from segctl.schema.models import ModelSpec
from segctl.schema.optim import OptimSpec
from segctl.schema.pretrain import PretrainSpec
from segctl.schema.schedule import PolySpec, ScheduleSpec
from segctl.schema.semi import SemiSpec
from segctl.schema.spec import Spec
from segctl.schema.terms.loss_terms import LossTermSpec
from segctl.schema.terms.methods import DistillerSpec, TeacherSpec, method_of
from segctl.schema.train import TrainSpec

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a preset may be called."""
PRETRAIN = "pretrain"
"""What tables call the method of a run that makes a backbone."""
Recipe = Literal["jml", "cirkd", "dist", "scratch"]


class PublishedScore(Spec):
    """A published score of this student, in percent."""

    method: str
    """The method's name; `none` for the undistilled student."""
    metric: str = "mIoU_D"
    """The score's name in segctl, such as mIoU_D."""
    value: float = Field(ge=0, le=100)
    """The score, in percent."""
    source: str = Field(min_length=1)
    """Where it was published."""
    recipe: Recipe
    """The recipe of that training; scores under different recipes do not compare methods."""
    note: str = ""
    """What a reader must know before comparing."""


class TrainRun(Spec):
    """A run without a teacher."""

    name: str = Field(pattern=NAME)
    """The preset's name, which is its file's name without `.yaml`."""
    recipe: Recipe | None = None
    """The published family of optimiser, schedule and augmentation that this run follows, for tables alone; null: none."""
    data: DataSpec
    """The dataset, its splits and the augmentation."""
    model: ModelSpec
    """The network."""
    labels: LabelSpec = HardLabels()
    """Hard, smoothed or boundary-smoothed labels."""
    loss: tuple[LossTermSpec, ...] = Field(min_length=1)
    """The task loss."""
    semi: SemiSpec | None = None
    """What the network learns from pictures without labels (data.unlabelled) with no other teacher; null: nothing."""
    optim: OptimSpec
    """The optimiser."""
    schedule: ScheduleSpec = PolySpec()
    """The learning rate over the steps."""
    train: TrainSpec
    """The loop."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """The evaluation protocol."""
    published: tuple[PublishedScore, ...] = ()
    """Published scores that reports show beside ours."""

    def on_labels_alone(self) -> Self:
        """The same run without what it learns from pictures without labels."""
        return self.model_copy(update={"semi": None, "data": self.data.model_copy(update={"unlabelled": None})})

    @field_validator("schedule", mode="before")
    @classmethod
    def _poly_if_unsaid(cls, block: Any) -> Any:
        """Presets from before there were other schedules may leave out the kind."""
        return {"kind": "poly"} | block if isinstance(block, dict) and "kind" not in block else block


class DistillRun(TrainRun):
    """A run with a teacher."""

    distiller: DistillerSpec
    """What the student learns from the teacher."""
    teacher: TeacherSpec
    """Where the teacher comes from."""

    def without_teacher(self) -> TrainRun:
        """The undistilled student: the same run without distiller, teacher and what only a teacher can teach from.

        A student with `semi` is its own teacher, so it keeps its pictures without labels.
        """
        fields = {name: getattr(self, name) for name in TrainRun.model_fields}
        run = TrainRun(**fields)
        return run if self.semi is not None else run.on_labels_alone()


class PretrainRun(TrainRun):
    """A run that makes a backbone: it learns a teacher's features, and its head is only the linear probe of validations."""

    loss: tuple[LossTermSpec, ...] = Field((), max_length=0)
    """Empty: there is no task loss."""
    pretrain: PretrainSpec
    """The teacher, and how its features are matched."""


def verb_of(run: TrainRun) -> str:
    """The command that makes such a run: `train`, `distill` or `pretrain`."""
    match run:
        case DistillRun():
            return "distill"
        case PretrainRun():
            return PRETRAIN
        case _:
            return "train"


def method_in_words(run: TrainRun) -> str:
    """What a run learns from beside labels: a method's name, `custom`, `none`, a kind of `semi`, or `pretrain`."""
    if isinstance(run, PretrainRun):
        return PRETRAIN
    if run.semi is not None:
        return run.semi.kind
    return method_of(run.distiller if isinstance(run, DistillRun) else None)


R = TypeVar("R", bound=TrainRun)


def with_steps(run: R, steps: int) -> R:
    """The same run of another length."""
    return run.model_copy(update={"train": run.train.model_copy(update={"steps": steps, "epochs": None})})


def with_accumulation(run: R, accumulate: int) -> R:
    """The same run, its batches in another number of micro-batches."""
    return run.model_copy(update={"train": run.train.model_copy(update={"accumulate": accumulate})})


def with_epochs_counted(run: R, images: int) -> R:
    """The run of train.epochs over `images` training images as one of steps, rounded up; a run of train.steps as it is."""
    epochs = run.train.epochs
    return run if epochs is None else with_steps(run, math.ceil(epochs * images / run.train.batch_size))
