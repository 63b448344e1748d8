"""From a preset's model block, or a model file, to a network."""

from collections.abc import Sequence
from pathlib import Path

import torch

from segctl.errors import InputError
from segctl.models.external.cirkd import build_cirkd
from segctl.models.external.foreign import plain_name
from segctl.models.external.weights import first_misfit
from segctl.models.heads import head_class
from segctl.models.heads.blocks import silence_unseen_taps
from segctl.models.heads.widths import reference_widths
from segctl.models.saving import SavedModel, fill, read, read_if_saved
from segctl.models.segmenter import Segmenter
from segctl.models.timm_backbone import build_backbone
from segctl.runs import RunFolder
from segctl.schema.models import ModelSpec


def build_model(
    spec: ModelSpec,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    *,
    bands: int = 3,
    crop: tuple[int, int] | None = None,
) -> Segmenter:
    """The network of a preset. The same torch seed gives the same weights. Raises InputError.

    class_names: of its classes. If model.weights is a run, its classes of the same names are taken too.
    bands: how many its images have.
    crop: (height, width) that it will learn on. New weights that reach beyond it are zero.
    """
    start = _run_to_start_from(spec.weights)
    model = _build(spec if start is None else spec.model_copy(update={"weights": "none"}), num_classes, bands)
    if crop is not None:
        silence_unseen_taps(model.head, spec.output_stride, crop)
    if start is not None:
        model.weights_note = _take_from(model, start, class_names)
        model.backbone.weights_file = start.path
        model.backbone.license = RunFolder(start.path.parent).license
    if spec.frozen:
        model.freeze_backbone()
    return model


def _build(spec: ModelSpec, num_classes: int, bands: int) -> Segmenter:
    if spec.family == "cirkd":
        if spec.final_norm:
            raise InputError("model.final_norm: got true with family 'cirkd', whose backbones are not transformers")
        if bands != 3:
            raise InputError(f"model.family: 'cirkd' takes only RGB images, got {bands} bands", "leave model.family out")
        return build_cirkd(spec, num_classes)
    backbone = build_backbone(
        spec.backbone, spec.output_stride, spec.weights, spec.stages, bands=bands, final_norm=spec.final_norm
    )
    widths = reference_widths(backbone.channels[-1])
    head = head_class(spec.head).of(spec, backbone, widths)
    if spec.aux and len(backbone.channels) < 2:
        raise InputError(f"model.aux: '{spec.backbone}' gives one map, wanted two", "use `--set model.aux=false`")
    return Segmenter(backbone, head, num_classes, aux_width=widths.aux if spec.aux else None)


def _run_to_start_from(weights: str) -> SavedModel | None:
    """The run that model.weights names, as a folder or as its model file; None for anything else."""
    path = Path(weights).expanduser()
    if weights in ("timm", "none") or not path.exists():
        return None
    return read(path) if path.is_dir() else read_if_saved(path)


def _take_from(model: Segmenter, saved: SavedModel, class_names: Sequence[str] | None) -> str:
    """Put a run's weights into a new network: the backbone, each head that fits, and the classes of the same names.

    Returns what was taken and what was left, in a sentence. Raises InputError if the backbone does not fit.
    """
    state = model.state_dict()
    own = {part: {name for name in state if name.startswith(f"{part}.")} for part in ("backbone", "head", "aux")}
    problem = first_misfit(
        {name: state[name] for name in own["backbone"]},
        {name: value for name, value in saved.weights.items() if name.startswith("backbone.")},
    )
    if problem:
        raise InputError(
            f"model.weights: the backbone in '{saved.path}' ({saved.model.backbone}) does not fit: {problem}",
            f"set model.backbone to '{saved.model.backbone}', or give another run",
        )
    # Statistics of 16-bit numbers say nothing of 8-bit ones. Of a dataset with bands, `train` puts in its own in any case.
    chosen = own["backbone"] | ({"pixel_mean", "pixel_std"} if saved.pixel_type == "uint8" else set())
    taken = ["the backbone"]
    left: list[str] = []
    places = {plain_name(name): index for index, name in enumerate(saved.class_names)}
    rows = [(index, places[plain_name(name)]) for index, name in enumerate(class_names or []) if plain_name(name) in places]
    weights = {name: tensor.clone() for name, tensor in state.items()}
    for part, title, classifier in (("head", "the head", "classifier"), ("aux", "the auxiliary head", "aux.classifier")):
        if saved.is_backbone:
            left.append(title)
            continue
        layers = {name for name in own[part] if not name.startswith(f"{classifier}.")}
        if not any(name.startswith(f"{part}.") for name in (*state, *saved.weights)):
            continue
        fits = layers and all(name in saved.weights and saved.weights[name].shape == state[name].shape for name in layers)
        (taken if fits else left).append(title)
        if not fits:
            continue
        chosen |= layers
        for name in (f"{classifier}.weight", f"{classifier}.bias"):
            for mine, theirs in rows:
                weights[name][mine] = saved.weights[name][theirs]
    weights |= {name: saved.weights[name] for name in chosen}
    model.load_state_dict(weights)
    if "the head" in taken and rows:
        taken.append(f"{len(rows)} of {model.num_classes} classes")
    new = [] if class_names is None else [name for name in class_names if plain_name(name) not in places]
    if "the head" not in taken or not rows:
        left.append("all classes of the main classifier")
    elif new:
        left.append(f"the classes {', '.join(new)}")
    start = f"weights from '{saved.path}': {', '.join(taken)}"
    return start + (f"; new, with random weights: {', '.join(left)}" if left else "")


def load(path: Path | str, device: torch.device | str = "cpu", class_names: Sequence[str] | None = None) -> Segmenter:
    """The trained network in a run folder or model file, in eval mode on `device`; never downloads.

    With class_names, a network of other classes is refused. The random state does not change, so loading a teacher does not
    change a student's first weights. Raises InputError.
    """
    return restore(read(Path(path)), device, class_names)


def restore(saved: SavedModel, device: torch.device | str = "cpu", class_names: Sequence[str] | None = None) -> Segmenter:
    """`load` for a model file that has been read."""
    saved.require_head()
    if class_names is not None and list(class_names) != saved.class_names:
        raise InputError(
            f"'{saved.path}' knows {len(saved.class_names)} classes ({', '.join(saved.class_names)}), "
            f"wanted {len(class_names)} ({', '.join(class_names)})",
            "give a network trained on the same dataset",
        )
    with torch.random.fork_rng(devices=[]):
        spec = saved.model.model_copy(update={"weights": "none"})
        model = build_model(spec, len(saved.class_names), bands=saved.bands)
    fill(model, saved)
    model.class_names, model.pixels = list(saved.class_names), saved.pixels
    return model.to(device).eval()
