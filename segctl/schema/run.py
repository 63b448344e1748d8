"""A whole preset: one run, checked across its blocks."""

from typing import Literal

from pydantic import Field

from segctl.errors import Fault, PresetError
from segctl.schema.data import DataSpec
from segctl.schema.distill_terms import CrossImageSpec, RelationSpec, reads
from segctl.schema.evaluate import EvaluateSpec
from segctl.schema.labels import BoundaryLabels, HardLabels, LabelSpec
from segctl.schema.loss_terms import JaccardFamily, KLSpec, LossTermSpec, LovaszSpec
from segctl.schema.methods import DistillerSpec, Method, TeacherSpec, published_bundle
from segctl.schema.models import ModelSpec
from segctl.schema.optim import OptimSpec, PolySpec, TrainSpec
from segctl.schema.spec import Spec

Recipe = Literal["jml", "cirkd", "dist", "scratch"]


class PublishedScore(Spec):
    """A number somebody published for this student, in percent."""

    method: str
    """The method's name; `none` for the undistilled student."""
    metric: str = "mIoU_D"
    """The score's name as segctl spells it."""
    value: float = Field(ge=0, le=100)
    """The score, in percent."""
    source: str = Field(min_length=1)
    """Where it is printed."""
    recipe: Recipe
    """The recipe it was made under; numbers of different recipes do not compare methods."""
    note: str = ""
    """What a reader must know before comparing."""


class TrainRun(Spec):
    """A run without a teacher."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The preset's name, which is its file's name without `.yaml`."""
    recipe: Recipe
    """The family of optimiser, schedule and augmentation that this run follows; only used in tables."""
    data: DataSpec
    """What is read."""
    model: ModelSpec
    """The network."""
    labels: LabelSpec = HardLabels()
    """Hard, smoothed or boundary-smoothed labels."""
    loss: tuple[LossTermSpec, ...] = Field(min_length=1)
    """The task loss."""
    optim: OptimSpec
    """The optimiser."""
    schedule: PolySpec = PolySpec()
    """The learning rate over the steps."""
    train: TrainSpec
    """The loop."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """The evaluation protocol."""
    published: tuple[PublishedScore, ...] = ()
    """Numbers that reports set beside ours."""


class DistillRun(TrainRun):
    """A run with a teacher."""

    distiller: DistillerSpec
    """What the student learns from the teacher."""
    teacher: TeacherSpec
    """Who the teacher is."""

    def without_teacher(self) -> TrainRun:
        """The undistilled student: the same run, distiller and teacher left out."""
        return TrainRun(**{name: getattr(self, name) for name in TrainRun.model_fields})


def with_steps(run: TrainRun, steps: int) -> TrainRun:
    """The same run of another length."""
    return run.model_copy(update={"train": run.train.model_copy(update={"steps": steps})})


def with_method(run: DistillRun, method: Method) -> TrainRun:
    """The run with a method's published bundle as its distiller, and nothing else changed; `none` leaves out the teacher.

    Raises PresetError where the bundle does not fit the run, such as a term on auxiliary logits that the student lacks.
    """
    bundle = published_bundle(method, run.data.dataset, run.model.aux)
    changed = run.without_teacher() if bundle is None else run.model_copy(update={"distiller": bundle})
    if faults := cross_check(changed):
        raise PresetError(f"preset '{run.name}' with method {method}", faults)
    return changed


def cross_check(run: TrainRun) -> list[Fault]:
    """Faults that only show between blocks, each with the dotted path of the field to change."""
    return [
        *_data_faults(run),
        *_loss_faults(run),
        *_label_faults(run),
        *_metric_faults(run),
        *_teacher_faults(run),
        *_loop_faults(run),
        *group_faults(run),
    ]


def _data_faults(run: TrainRun) -> list[Fault]:
    faults = []
    low, high = run.data.scale
    if low > high:
        faults.append(Fault("data.scale", f"got [{low}, {high}], wanted the smaller number first"))
    if run.data.train_split == run.data.val_split:
        faults.append(
            Fault("data.val_split", f"got '{run.data.val_split}', which is also data.train_split; wanted another split")
        )
    if isinstance(run.labels, BoundaryLabels) and run.labels.kernel_size % 2 == 0:
        faults.append(Fault("labels.kernel_size", f"got {run.labels.kernel_size}, wanted an odd number"))
    if run.model.head == "unet" and run.model.output_stride != 32:
        faults.append(Fault("model.output_stride", f"got {run.model.output_stride}, wanted 32 for model.head 'unet'"))
    return faults


def _loss_faults(run: TrainRun) -> list[Fault]:
    faults = []
    terms: list[tuple[str, str | None]] = [(f"loss.{index}", term.logits) for index, term in enumerate(run.loss)]
    if isinstance(run, DistillRun):
        terms += [(f"distiller.terms.{index}", reads(term)) for index, term in enumerate(run.distiller.terms)]
    for path, output in terms:
        if output == "aux" and not run.model.aux:
            faults.append(Fault(f"{path}.logits", "got 'aux', wanted 'main', because model.aux is false"))
    if isinstance(run, DistillRun) and all(term.weight == 0 for term in run.distiller.terms):
        faults.append(Fault("distiller.terms", "every weight is 0, wanted at least one above 0"))
    if all(term.weight == 0 for term in run.loss) and not isinstance(run, DistillRun):
        faults.append(Fault("loss", "every weight is 0, wanted at least one above 0"))
    return faults


def _label_faults(run: TrainRun) -> list[Fault]:
    """Losses that do not take the run's form of labels."""
    faults = []
    for index, term in enumerate(run.loss):
        if isinstance(term, KLSpec) and isinstance(run.labels, HardLabels):
            faults.append(
                Fault(f"loss.{index}.kind", "got 'kl' with hard labels, wanted 'cross_entropy' or soft labels (labels.kind)")
            )
        if isinstance(term, LovaszSpec) and not isinstance(run.labels, HardLabels):
            faults.append(Fault(f"loss.{index}.kind", "got 'lovasz' with soft labels, wanted 'jdt' or labels.kind 'hard'"))
    return faults


def _metric_faults(run: TrainRun) -> list[Fault]:
    """Metric losses without a value: no mean at all, or the logarithm of 0."""
    terms: list[tuple[str, object]] = [(f"loss.{index}", term) for index, term in enumerate(run.loss)]
    if isinstance(run, DistillRun):
        terms += [(f"distiller.terms.{index}", term) for index, term in enumerate(run.distiller.terms)]
    metric = [(path, term) for path, term in terms if isinstance(term, JaccardFamily)]
    faults = []
    for path, term in metric:
        if term.miou_d == term.miou_i == term.miou_c == 0:
            faults.append(Fault(f"{path}.miou_d", "got 0 for miou_d, miou_i and miou_c, wanted at least one above 0"))
        if term.log_loss and term.smooth == 0:
            faults.append(Fault(f"{path}.smooth", "got 0 with log_loss true, wanted above 0"))
    return faults


def _teacher_faults(run: TrainRun) -> list[Fault]:
    """A cache of answers to views that change from epoch to epoch; whether the crop holds every picture only the data tell."""
    low, high = run.data.scale
    if isinstance(run, DistillRun) and run.teacher.cache and low != high:
        return [Fault("teacher.cache", f"got true with data.scale [{low}, {high}], wanted one scale, such as data.scale [1, 1]")]
    return []


def _loop_faults(run: TrainRun) -> list[Fault]:
    train = run.train
    faults = []
    if train.batch_size % train.accumulate:
        faults.append(
            Fault("train.accumulate", f"got {train.accumulate}, wanted a divisor of train.batch_size ({train.batch_size})")
        )
    if run.schedule.floor_lr > run.optim.lr:
        faults.append(Fault("schedule.floor_lr", f"got {run.schedule.floor_lr}, wanted at most optim.lr ({run.optim.lr})"))
    return faults


def group_faults(run: TrainRun, processes: int = 1) -> list[Fault]:
    """Terms that compare images with each other, where a process sees one image at a time."""
    terms = run.distiller.terms if isinstance(run, DistillRun) else ()
    alone = run.train.batch_size // processes < 2 * run.train.accumulate
    shared = f", {processes} processes" if processes > 1 else ""
    return [
        Fault(
            f"distiller.terms.{index}",
            f"'{term.kind}' compares images with each other, got one image at a time (train.batch_size "
            f"{run.train.batch_size}, train.accumulate {run.train.accumulate}{shared}), wanted at least two",
        )
        for index, term in enumerate(terms)
        if alone and isinstance(term, CrossImageSpec | RelationSpec)
    ]
