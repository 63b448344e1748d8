"""The plan of a benchmark of distillation: a YAML file, written before the first run, and the runs that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segctl.errors import InputError
from segctl.files import content_key
from segctl.runs import RunFolder
from segctl.schema.load import read_preset, read_tree, with_method
from segctl.schema.run import DistillRun, TrainRun
from segctl.schema.terms.methods import Method, require_method

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
PLANS = tuple(HERE / f"{name}.yaml" for name in ("few-labels", "plan", "settings", "longer"))


class Part(BaseModel):
    """The base of the blocks of a plan: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(Part):
    """What may be spent, fixed before the first run: CPU hours = hours times cores."""

    hours: float = Field(gt=0)
    cores: int = Field(ge=1)


class TeacherPlan(Part):
    """The teacher: `steps` are the lengths to which it is extended, one after the other.

    It stops at the first extension that gains less than `least_gain` points of mIoU_D on the validation split, or at the end.
    """

    preset: str
    changes: tuple[str, ...] = ()
    steps: tuple[int, ...] = Field(min_length=1)
    least_gain: float


class StudentPlan(Part):
    """A student's preset and what is changed in it."""

    preset: str
    changes: tuple[str, ...] = ()
    exported: Method = "jml"
    """The method whose run of seed 0 is exported, quantised and timed."""


class LongerPlan(Part):
    """Runs that show how far from converged the others are."""

    factor: float = Field(gt=1)
    methods: tuple[Method, ...]
    seeds: int = Field(ge=1)


class LossPlan(Part):
    """Undistilled runs that compare losses: every loss with every kind of labels, but for the pairs of `without`."""

    student: str
    seeds: int = Field(ge=1)
    losses: dict[str, list[dict[str, Any]]]
    labels: dict[str, dict[str, Any]]
    without: tuple[tuple[str, str], ...] = ()


class VariantPlan(Part):
    """Undistilled runs that each change some settings. They are compared with the method `none`, or with the first of them where
    the plan has no methods."""

    student: str
    seeds: int = Field(ge=1)
    presets: dict[str, str] = {}
    """Variants that have another preset than their student."""
    changes: dict[str, tuple[str, ...]] = Field(min_length=2)
    ceiling: str | None = None
    """The variant that has what the others lack: the page says which share of the way there each run goes."""


class PseudoPlan(Part):
    """A dataset of the name that variants train on: labels for the share `labelled`, the teacher's predictions for the others."""

    name: str
    labelled: float = Field(gt=0, lt=1)
    min_confidence: str


class Plan(Part):
    """The whole plan. `methods` gives each method its number of seeds, from seed 0 on."""

    name: str = Field(pattern="^[a-z0-9-]+$")
    """The name of the folder of results, too."""
    title: str
    """The heading on the page."""
    budget: Budget
    parallel: int = Field(ge=1)
    """Runs at once, each on one thread."""
    split: str
    rules: tuple[str, ...]
    """What was decided before the first run, in sentences for the page."""
    changes: tuple[str, ...] = ()
    """Changes of every run, the teacher's too."""
    teacher: TeacherPlan | None = None
    """null: every run is undistilled."""
    students: dict[str, StudentPlan]
    steps: int = Field(ge=1)
    methods: dict[Method, int] = {}
    longer: LongerPlan | None = None
    losses: LossPlan | None = None
    variants: VariantPlan | None = None
    pseudo: PseudoPlan | None = None
    smallest_classes: tuple[str, ...] = ()
    """The classes with the fewest pixels of the training split, as `segctl data info` counts them; they are shown one by one."""


@dataclass(frozen=True)
class Planned:
    """One run of the plan: which table it is for, what distinguishes it there, and the arguments after `segctl distill`.

    table: methods, longer, losses or variants.  weights: the file of initial weights, None for random ones.
    command: of segctl.  needs_teacher: to learn from, or for the labels of its dataset.
    """

    table: str
    student: str
    method: Method
    loss: str | None
    labels: str | None
    variant: str | None
    seed: int
    preset: str
    changes: tuple[str, ...]
    run: TrainRun
    folder: RunFolder
    weights: Path | None
    command: Literal["distill", "train"]
    needs_teacher: bool

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def key(self) -> str:
        """What makes two runs of one name the same: the settings that are not their defaults, without the paths of the weights.

        A setting that a later version brings is no change while it has its default.
        """
        settings = self.run.model_dump(mode="json", exclude_defaults=True)
        settings["model"]["weights"] = None if self.weights is None else self.weights.name
        return content_key(settings)


def read_plan(path: Path) -> Plan:
    """Raises InputError for a file that is not a plan."""
    try:
        plan = Plan.model_validate(read_tree(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"'{path}' is not a plan: {faults}", "benchmarks/camvid/plan.yaml is one") from None
    for method in {*plan.methods, *(plan.longer.methods if plan.longer else ())}:
        require_method(method, f"{path}: methods:")
    if plan.teacher is None and {*plan.methods, *(plan.longer.methods if plan.longer else ())} - {"none"}:
        raise InputError(
            f"{path}: the methods need a teacher, and the plan has none", "give it one, or leave only the method none"
        )
    for name, part in (("losses", plan.losses), ("variants", plan.variants)):
        if part is not None and part.student not in plan.students:
            raise InputError(f"{path}: {name}.student: '{part.student}' is not in students", "name one of the plan's students")
    if (variants := plan.variants) is not None:
        unknown = {*variants.presets, *([variants.ceiling] if variants.ceiling else [])} - {*variants.changes}
        if unknown:
            raise InputError(f"{path}: variants: '{min(unknown)}' is not in variants.changes", "name one of its keys")
    return plan


def preset_of(name: str) -> str:
    """A file beside the plan's code, or the name of a shipped preset."""
    beside = HERE / name
    return str(beside) if beside.is_file() else name


def with_weights(preset: str, changes: tuple[str, ...], weights: Path | None) -> tuple[tuple[str, ...], Path | None]:
    """The changes, with `model.weights` the file in the folder `weights` that is named after the backbone; and that file.

    A plan that sets model.weights itself is left as it is. Raises InputError where the file is missing.
    """
    if any(change.startswith("model.weights=") for change in changes):
        return changes, None
    backbone = read_preset(preset, changes).model.backbone.partition(".")[0]
    if weights is None:
        return changes, None  # timm's own, by their name
    file = weights / f"{backbone}.pth"
    if not file.is_file():
        raise InputError(f"'{weights}' has no {file.name}", "put the ImageNet weights of that backbone there")
    return (*changes, f"model.backbone={backbone}", f"model.weights={file}"), file


def planned_runs(plan: Plan, runs_root: Path, weights: Path | None) -> list[Planned]:
    """The students' runs in the order in which they are trained, so that a benchmark that is stopped has whole tables.

    First the seeds that all methods have, student by student, the methods of most seeds before the others; then the losses, the
    variants, the longer runs, and the seeds that only some methods have.
    Raises PresetError or InputError for settings that do not fit each other.
    """
    shared, most = min(plan.methods.values(), default=0), max(plan.methods.values(), default=0)
    found = [
        _planned(plan, "methods", student, method, seed, runs_root, weights)
        for student in plan.students
        for favoured in (True, False)
        for seed in range(shared)
        for method, seeds in plan.methods.items()
        if (seeds == most) is favoured
    ]
    more = [
        _planned(plan, "methods", student, method, seed, runs_root, weights)
        for student in plan.students
        for seed in range(shared, most)
        for method in plan.methods
        if seed < plan.methods[method]
    ]
    longer, losses, variants = [], [], []
    if plan.longer is not None:
        longer = [
            _planned(plan, "longer", student, method, seed, runs_root, weights)
            for student in plan.students
            for seed in range(plan.longer.seeds)
            for method in plan.longer.methods
        ]
    if plan.losses is not None:
        losses = [
            _planned(plan, "losses", plan.losses.student, "none", seed, runs_root, weights, loss, labels)
            for seed in range(plan.losses.seeds)
            for labels in plan.losses.labels
            for loss in plan.losses.losses
            if (loss, labels) not in plan.losses.without
        ]
    if plan.variants is not None:
        variants = [
            _planned(plan, "variants", plan.variants.student, "none", seed, runs_root, weights, variant=variant)
            for seed in range(plan.variants.seeds)
            for variant in plan.variants.changes
        ]
    return [*found, *losses, *variants, *longer, *more]


def _planned(  # noqa: PLR0913 - what tells one run from another
    plan: Plan, table: str, student: str, method: Method, seed: int, runs_root: Path, weights: Path | None,
    loss: str | None = None, labels: str | None = None, variant: str | None = None,
) -> Planned:  # fmt: skip
    described = plan.students[student]
    other = plan.variants.presets.get(variant) if variant is not None and plan.variants is not None else None
    preset = preset_of(other or described.preset)
    changes, file = with_weights(preset, (*plan.changes, *described.changes), weights)
    steps = plan.steps
    if table == "longer":
        assert plan.longer is not None
        steps = round(plan.longer.factor * steps)
    changes = (*changes, f"train.steps={steps}", f"train.validate_every={steps}", f"train.seed={seed}")
    if loss is not None and labels is not None and plan.losses is not None:
        changes = (*changes, f"loss={_flow(plan.losses.losses[loss])}", f"labels={_flow(plan.losses.labels[labels])}")
    if variant is not None and plan.variants is not None:
        changes = (*changes, *plan.variants.changes[variant])
    run = read_preset(preset, changes)
    if not isinstance(run, DistillRun) and other is None:
        raise InputError(f"students.{student}: '{described.preset}' has no teacher", "give a student's preset")
    told = {
        "methods": [method],
        "longer": [method, "longer"],
        "losses": ["loss", str(loss), str(labels)],
        "variants": [str(variant)],
    }
    folder = RunFolder(runs_root / "-".join([student, *told[table], f"seed{seed}"]))
    pseudo = plan.pseudo is not None and run.data.dataset == plan.pseudo.name
    command: Literal["distill", "train"] = "train"
    if isinstance(run, DistillRun):
        command, run = "distill", with_method(run, method)
    return Planned(
        table,
        student,
        method,
        loss,
        labels,
        variant,
        seed,
        preset,
        changes,
        run,
        folder,
        file,
        command,
        pseudo or method != "none",
    )


def _flow(value: list[dict[str, Any]] | Mapping[str, Any]) -> str:
    """A value as `--set` reads it: YAML in one line."""
    if isinstance(value, list):
        return f"[{', '.join(_flow(each) for each in value)}]"
    return "{" + ", ".join(f"{name}: {inner}" for name, inner in value.items()) + "}"
