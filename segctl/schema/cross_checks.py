"""Faults that only show when several blocks of a preset are compared."""

from segctl.errors import Fault
from segctl.schema.data import CopyPasteSpec
from segctl.schema.evaluate import EvaluateSpec, WholeProtocol
from segctl.schema.labels import BoundaryLabels, HardLabels, RaterLabels
from segctl.schema.models import ATROUS_HEADS, RATES
from segctl.schema.pretrain import TIMM
from segctl.schema.run import DistillRun, PretrainRun, TrainRun
from segctl.schema.schedule import ConstantSpec
from segctl.schema.semi import ConsistencyTerm, UniMatchSpec
from segctl.schema.terms.distill_terms import DistillTerm, SoftJDTSpec, SoftKLSpec
from segctl.schema.terms.loss_terms import JaccardFamily, KLSpec, LossTerm, LovaszSpec, OhemSpec, OverlapTerm


def cross_check(run: TrainRun) -> list[Fault]:
    """Faults that only show between blocks, each with the dotted path of the field to change."""
    return [
        *_data_faults(run),
        *_model_faults(run),
        *_loss_faults(run),
        *_label_faults(run),
        *_metric_faults(run),
        *_teacher_faults(run),
        *_unlabelled_faults(run),
        *_semi_faults(run),
        *_pretrain_faults(run),
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
    if isinstance(run.labels, RaterLabels):
        faults += [
            Fault(f"data.augment.{index}.kind", "got 'copy_paste' with labels.kind 'raters', wanted another operation")
            for index, step in enumerate(run.data.augment)
            if isinstance(step, CopyPasteSpec)  # pictures' ballots have numbers of their own, so pixels cannot change pictures
        ]
        if run.semi is not None:
            faults.append(Fault("labels.kind", "got 'raters' with a semi block, wanted 'hard', the majority of the raters"))
    if isinstance(run.labels, BoundaryLabels) and run.labels.kernel_size % 2 == 0:
        faults.append(Fault("labels.kernel_size", f"got {run.labels.kernel_size}, wanted an odd number"))
    return faults


def _model_faults(run: TrainRun) -> list[Fault]:
    faults = []
    if run.model.head == "unet" and run.model.output_stride != 32:
        faults.append(Fault("model.output_stride", f"got {run.model.output_stride}, wanted 32 for model.head 'unet'"))
    if run.model.head == "linear" and run.model.width is not None:
        faults.append(Fault("model.width", f"got {run.model.width}, wanted null for model.head 'linear', which keeps the map's"))
    if run.model.rates is not None and (run.model.head not in ATROUS_HEADS or run.model.family != "timm"):
        what = run.model.head if run.model.head not in ATROUS_HEADS else f"family {run.model.family}"
        faults.append(Fault("model.rates", f"got {list(run.model.rates)}, wanted null for {what}, which has no choice of them"))
    if run.model.frozen and run.train.activation_checkpointing:
        faults.append(
            Fault(
                "train.activation_checkpointing",
                "got true with model.frozen, whose backbone stores nothing for the backward pass, wanted false",
            )
        )
    if run.model.frozen and run.optim.layer_decay is not None:
        faults.append(
            Fault(
                "optim.layer_decay", f"got {run.optim.layer_decay:g} with model.frozen, whose backbone never learns, wanted null"
            )
        )
    return faults


def _loss_faults(run: TrainRun) -> list[Fault]:
    faults = []
    terms: list[tuple[str, str | None]] = [(f"loss.{index}", term.logits) for index, term in enumerate(run.loss)]
    if isinstance(run, DistillRun):
        terms += [(f"distiller.terms.{index}", part) for index, term in enumerate(run.distiller.terms) for part in term.reads]
    for path, output in terms:
        if output == "aux" and not run.model.aux:
            faults.append(Fault(f"{path}.logits", "got 'aux', wanted 'main', because model.aux is false"))
    if isinstance(run, DistillRun) and all(term.weight == 0 for term in run.distiller.terms):
        faults.append(Fault("distiller.terms", "every weight is 0, wanted at least one above 0"))
    if all(term.weight == 0 for term in run.loss) and not isinstance(run, DistillRun | PretrainRun):
        faults.append(Fault("loss", "every weight is 0, wanted at least one above 0"))
    return faults


def _label_faults(run: TrainRun) -> list[Fault]:
    """Losses that do not accept the run's kind of labels."""
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
    """Metric losses without a value: every mean has weight 0, or the logarithm of 0 can occur."""
    terms: list[tuple[str, object]] = [(f"loss.{index}", term) for index, term in enumerate(run.loss)]
    if isinstance(run, DistillRun):
        terms += [(f"distiller.terms.{index}", term) for index, term in enumerate(run.distiller.terms)]
    if run.semi is not None:
        terms += [(f"semi.terms.{index}", term) for index, term in enumerate(run.semi.terms)]
    metric = [(path, term) for path, term in terms if isinstance(term, JaccardFamily)]
    faults = []
    for path, term in metric:
        if term.miou_d == term.miou_i == term.miou_c == 0:
            faults.append(Fault(f"{path}.miou_d", "got 0 for miou_d, miou_i and miou_c, wanted at least one above 0"))
        if term.log_loss and term.smooth == 0:
            faults.append(Fault(f"{path}.smooth", "got 0 with log_loss true, wanted above 0"))
    return faults


def _teacher_faults(run: TrainRun) -> list[Fault]:
    """A teacher cache needs the same view of an image in every epoch. Only the data tell whether the crop covers every image."""
    if not isinstance(run, DistillRun):
        return []
    (low, high), scales, faults = run.data.scale, run.teacher.scales, []
    if 1 not in scales or len(set(scales)) < len(scales):
        # Grid and features of the outputs are those of scale 1.
        faults.append(Fault("teacher.scales", f"got {list(scales)}, wanted different scales with 1 among them"))
    if run.teacher.cache and run.data.unlabelled is not None:
        faults.append(Fault("teacher.cache", "got true with data.unlabelled, whose pictures it does not hold, wanted false"))
    elif run.teacher.cache and run.data.augment:
        faults.append(Fault("teacher.cache", "got true with data.augment, which changes every view, wanted data.augment []"))
    elif run.teacher.cache and low != high:
        wanted = "wanted one scale, such as data.scale [1, 1]"
        faults.append(Fault("teacher.cache", f"got true with data.scale [{low}, {high}], {wanted}"))
    if run.teacher.overlap and run.train.compile == "reduce-overhead":
        shared = "whose CUDA graphs share their memory and so cannot run at once"
        faults.append(Fault("teacher.overlap", f"got true with train.compile 'reduce-overhead', {shared}, wanted false"))
    return faults


def _unlabelled_faults(run: TrainRun) -> list[Fault]:
    """A calibration corrects the teacher where the label says that it is wrong, so it needs a label at every pixel."""
    terms = run.distiller.terms if isinstance(run, DistillRun) else ()
    faults = []
    if run.data.unlabelled is not None and not isinstance(run, DistillRun) and run.semi is None:
        faults.append(
            Fault(
                "data.unlabelled", "got pictures without labels, which only a teacher or a semi block can teach from, wanted null"
            )
        )
    if run.data.unlabelled is not None and run.data.unlabelled.split == run.data.val_split:
        faults.append(
            Fault("data.unlabelled.split", f"got '{run.data.val_split}', which is also data.val_split; wanted another split")
        )
    if run.data.unlabelled is not None and run.data.unlabelled.split is None and run.data.labelled == 1:
        faults.append(Fault("data.unlabelled.split", "got null with data.labelled 1, which hides no label; wanted a split"))
    return faults + [
        Fault(
            f"distiller.terms.{index}.calibration",
            "got a calibration with pixels 'all', wanted pixels 'labelled' or no calibration",
        )
        for index, term in enumerate(terms)
        if isinstance(term, SoftKLSpec | SoftJDTSpec) and term.pixels == "all" and term.calibration is not None
    ]


def _semi_faults(run: TrainRun) -> list[Fault]:
    """What a run that is its own teacher needs, and what it cannot have."""
    if run.semi is None:
        return []
    kind, faults = f"got '{run.semi.kind}'", []
    if isinstance(run, DistillRun):
        faults.append(Fault("semi", f"{kind} with a separate teacher, wanted null, or the command `segctl train`"))
    if isinstance(run, PretrainRun):
        faults.append(Fault("semi", f"{kind} with pretraining, which has no classes to predict, wanted null"))
    if run.data.unlabelled is None:
        faults.append(
            Fault(
                "data.unlabelled",
                f"is missing, wanted pictures without labels for semi.kind '{run.semi.kind}', such as "
                "data.unlabelled.per_batch 8",
            )
        )
    elif run.semi.cutmix and run.data.unlabelled.per_batch < 2:
        faults.append(
            Fault(
                "data.unlabelled.per_batch",
                f"got {run.data.unlabelled.per_batch} with semi.cutmix {run.semi.cutmix:g}, which "
                "mixes two pictures, wanted at least 2, or semi.cutmix 0",
            )
        )
    if isinstance(run.semi, UniMatchSpec) and run.semi.strong_weight == run.semi.feature_weight == 0:
        faults.append(Fault("semi.strong_weight", "got 0 with semi.feature_weight 0, wanted one of them above 0"))
    if isinstance(run.semi, UniMatchSpec) and run.semi.feature_weight and run.train.compile:
        faults.append(
            Fault(
                "train.compile",
                "got true with semi.feature_weight, whose dropped channels the compiler does not see, wanted false",
            )
        )
    if all(term.weight == 0 for term in run.semi.terms):
        faults.append(Fault("semi.terms", "every weight is 0, wanted at least one above 0"))
    return faults


def _pretrain_faults(run: TrainRun) -> list[Fault]:
    """What a run without labels cannot have."""
    if not isinstance(run, PretrainRun):
        return []
    faults = [
        Fault(f"data.augment.{index}.kind", f"got '{step.kind}', which places views by their labels, wanted none such")
        for index, step in enumerate(run.data.augment)
        if step.kind in ("class_crop", "copy_paste")
    ]
    if run.data.unlabelled is not None:
        faults.append(Fault("data.unlabelled", "wanted null: no label is read, so data.train_split names all pictures"))
    if run.model.frozen:
        faults.append(Fault("model.frozen", "got true, wanted false, because the backbone is what learns"))
    if run.model.head != "linear" or run.model.aux:
        got = f"got '{run.model.head}'" + (" with model.aux" if run.model.aux else "")
        faults.append(Fault("model.head", f"{got}, wanted 'linear' without model.aux, which is the probe of validations"))
    if run.model.family != "timm":
        faults.append(Fault("model.family", f"got '{run.model.family}', wanted 'timm'"))
    if not run.pretrain.teacher.startswith(TIMM) and run.pretrain.weights != "timm":
        faults.append(
            Fault("pretrain.weights", f"got '{run.pretrain.weights}', wanted 'timm': only a teacher of timm has others")
        )
    return faults


def _loop_faults(run: TrainRun) -> list[Fault]:
    train = run.train
    faults = []
    if train.steps is None and train.epochs is None:
        faults.append(Fault("train.steps", "is missing, wanted train.steps or train.epochs"))
    if train.steps is not None and train.epochs is not None:
        faults.append(Fault("train.epochs", f"got {train.epochs:g} with train.steps {train.steps}, wanted only one of them"))
    if train.accumulate != "auto" and train.batch_size % train.accumulate:  # type: ignore[comparison-overlap]
        faults.append(
            Fault("train.accumulate", f"got {train.accumulate}, wanted a divisor of train.batch_size ({train.batch_size})")
        )
    if train.compile == "reduce-overhead" and train.activation_checkpointing:
        got = "got 'reduce-overhead' with train.activation_checkpointing, whose saved memory the graphs would take"
        faults.append(Fault("train.compile", f"{got}, wanted true or false"))
    if not isinstance(run.schedule, ConstantSpec) and run.schedule.floor_lr > run.optim.lr:
        faults.append(Fault("schedule.floor_lr", f"got {run.schedule.floor_lr}, wanted at most optim.lr ({run.optim.lr})"))
    return faults


def reach_beyond_crop(run: TrainRun, evaluate: EvaluateSpec, picture: tuple[int, int]) -> str:
    """A sentence about an atrous branch that reaches beyond the crop, if pictures (height, width) are scored whole; else empty.

    Such a branch sees nothing but padding while it learns, and could see pixels when it is scored.
    """
    model, (height, width) = run.model, run.data.crop
    if model.head not in ATROUS_HEADS or model.family != "timm" or not isinstance(evaluate.protocol, WholeProtocol):
        return ""
    reaches = [rate * model.output_stride for rate in model.rates or RATES]
    largest = max(evaluate.scales)
    sides = zip(run.data.crop, picture, strict=True)
    beyond = [reach for seen, side in sides for reach in reaches if seen <= reach < largest * side]
    return f"an atrous branch of {model.head} reaches {max(beyond)} pixels, beyond crops of {height}×{width}" if beyond else ""


def local_losses(run: TrainRun) -> list[str]:
    """Terms that each process computes over its own images, one line each: over several processes they are another loss.

    A term per image differs too: its mean is over the images of a process that have an active class, and processes have unequal
    numbers of these. OHEM chooses its hard pixels among a process's own.
    """
    terms: list[tuple[str, LossTerm | DistillTerm | ConsistencyTerm]] = [
        (f"loss.{index}", term) for index, term in enumerate(run.loss)
    ]
    if isinstance(run, DistillRun):
        terms += [(f"distiller.terms.{index}", term) for index, term in enumerate(run.distiller.terms)]
    if run.semi is not None:
        terms += [(f"semi.terms.{index}", term) for index, term in enumerate(run.semi.terms)]
    return [
        f"{path} ('{term.kind}') takes each process's own images, so it is not the loss of one process with the whole batch"
        for path, term in terms
        if (isinstance(term, JaccardFamily) and term.reduce == "local") or isinstance(term, OverlapTerm | OhemSpec)
    ]


def group_faults(run: TrainRun, processes: int = 1) -> list[Fault]:
    """Terms that compare images with each other need two images in each micro-batch of each process, and a run that is its own
    teacher needs one without label."""
    terms = run.distiller.terms if isinstance(run, DistillRun) else ()
    accumulate = 1 if run.train.accumulate == "auto" else run.train.accumulate  # type: ignore[comparison-overlap]
    alone = run.train.batch_size // processes < 2 * accumulate
    shared = f", {processes} processes" if processes > 1 else ""
    faults, mixed = [], run.data.unlabelled
    if run.semi is not None and mixed is not None and mixed.per_batch < processes * accumulate:
        among = f"train.accumulate {accumulate}{shared}"
        faults.append(
            Fault(
                "data.unlabelled.per_batch",
                f"got {mixed.per_batch} with semi ({among}), wanted at least one for each micro-batch",
            )
        )
    return faults + [
        Fault(
            f"distiller.terms.{index}",
            f"'{term.kind}' compares images with each other, got one image at a time (train.batch_size "
            f"{run.train.batch_size}, train.accumulate {accumulate}{shared}), wanted at least two",
        )
        for index, term in enumerate(terms)
        if alone and term.compares_images
    ]
