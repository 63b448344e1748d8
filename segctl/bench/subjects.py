"""What `segctl bench` measures: runs, presets, model files and exported files, each as a function that segments one image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from segctl.bench.exported_file import Conditions, Image, ImageSize, Segment, file_form, only_size, segment_by_file
from segctl.data.datasets import KNOWN, class_table
from segctl.data.shards.dataset import find_dataset, open_dataset
from segctl.errors import InputError, first_line
from segctl.models import Segmenter, build_model, read, restore
from segctl.models.cost import cost_of
from segctl.models.deployed import DeployedNetwork
from segctl.models.saving import SavedModel
from segctl.programs import exports_of
from segctl.runs import RunFolder
from segctl.schema.load import GENERIC_CLASSES, GENERIC_SIZE, find_preset, is_generic, load_preset, network_of, read_tree
from segctl.schema.models import ModelSpec


@dataclass(frozen=True)
class Subject:
    """One row of the table.

    target: what the person named.  form: `torch`, `torch compiled`, or the format of an exported file.  file: what holds the
    weights, None for a preset's random ones, which cost the same.  parameters, gflop: of one prediction; None where they are
    not known.
    """

    target: str
    form: str
    file: Path | None
    data_root: Path
    parameters: int | None = None
    gflop: float | None = None

    @property
    def is_exported(self) -> bool:
        """Whether it is a file that runs without its network's code."""
        return not self.form.startswith("torch") or self.form == "torchscript"

    @property
    def name(self) -> str:
        """The target, and the exported file if it is one of a run's."""
        return self.target if self.file is None or not self.is_exported or str(self.file) == self.target else self.file.name

    def segment(self, conditions: Conditions) -> Segment:
        """Load it. Raises InputError if it cannot run under the conditions."""
        if self.is_exported:
            assert self.file is not None
            return segment_by_file(self.file, conditions)
        return _torch(_network(self.target, self.data_root), conditions, compiled=self.form == "torch compiled")


def usual_size(target: str, data_root: Path, *, trusted: bool = False) -> ImageSize:
    """The image size that a target is measured at if nobody names one: that of most images of its dataset.

    Raises InputError for a target that cannot be measured.
    """
    if _exported(target):
        return only_size(Path(target), trusted=trusted) or (512, 1024)
    if _is_generic(target):
        return GENERIC_SIZE
    dataset, crop = _data_of(target)
    known = KNOWN[dataset].image_size if dataset in KNOWN else None
    if known is not None:
        return known
    prepared = find_dataset(data_root, dataset)
    return crop if prepared is None else prepared.usual_size(next(reversed(prepared.splits)))


def subjects_of(target: str, size: ImageSize, data_root: Path, *, compiled: bool) -> Iterator[Subject]:
    """A run or preset as torch runs it and compiled, then the run's exported files; or the one file that is named.

    Raises InputError for anything else.
    """
    if form := _exported(target):
        yield Subject(target, form, Path(target), data_root, _stored_numbers(Path(target)) if form == "onnx" else None)
        return
    saved = _saved(target)
    if saved is None:
        spec, classes, file = network_of(target), _classes_of_preset(target, data_root), None
    else:
        spec, classes, file = saved.model, len(saved.class_names), saved.path
    cost = cost_of(spec, classes, size)
    for form in ("torch", *(["torch compiled"] if compiled else [])):
        yield Subject(target, form, file, data_root, cost.parameters, cost.gflop)
    for path in exports_of(RunFolder(Path(target))):
        yield Subject(target, str(file_form(path)), path, data_root, cost.parameters, cost.gflop)


def _exported(target: str) -> str | None:
    """The form of an exported file; None for a run, a preset or a model file. Raises InputError for a file that is not there."""
    if Path(target).suffix in (".onnx", ".pt2", ".xml") and not Path(target).is_file():
        raise InputError(f"no file at '{target}'", "`segctl export RUN` writes one")
    return file_form(Path(target)) if Path(target).is_file() else None


def _saved(target: str) -> SavedModel | None:
    """The model of a run or of a model file; None for a preset. Raises InputError for another file."""
    path = Path(target)
    if path.is_dir():
        return read(path)
    if path.suffix in (".pt", ".safetensors"):
        return read(path)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"cannot measure '{target}': it is not a run, preset, model file or exported file",
            "for example `segctl bench cityscapes-fast`",
        )
    return None


def _data_of(target: str) -> tuple[str, ImageSize]:
    """The name of the dataset and the training crop of a run, model file or preset."""
    saved = _saved(target)
    if saved is None:
        run = load_preset(target)
        return run.data.dataset, run.data.crop
    if Path(target).is_dir():
        run = RunFolder(Path(target)).read_run()
        return run.data.dataset, run.data.crop
    data = saved.run["data"]
    return str(data["dataset"]), (int(data["crop"][0]), int(data["crop"][1]))


def _is_generic(target: str) -> bool:
    """Whether this is a preset without a dataset, and nothing else that can be measured."""
    return _saved(target) is None and is_generic(read_tree(find_preset(target)))


def _classes_of_preset(target: str, data_root: Path) -> int:
    if _is_generic(target):
        return GENERIC_CLASSES
    dataset = load_preset(target).data.dataset
    return (class_table(dataset) if dataset in KNOWN else open_dataset(data_root, dataset).classes).num_classes


def _network(target: str, data_root: Path) -> Segmenter:
    saved = _saved(target)
    if saved is not None:
        network = restore(saved)
        network.require_images(3, "uint8", f"the network of '{target}'", "segctl bench")
        return network
    spec: ModelSpec = network_of(target).model_copy(update={"weights": "none"})
    return build_model(spec, _classes_of_preset(target, data_root))


def _torch(network: Segmenter, conditions: Conditions, *, compiled: bool) -> Segment:
    torch.set_num_threads(conditions.threads)
    module: Callable[[Tensor], Tensor] = DeployedNetwork(network).to(conditions.device)
    if compiled:
        module = torch.compile(module)

    def segment(image: Image) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(image).to(conditions.device)).cpu()

    return segment


def _stored_numbers(file: Path) -> int | None:
    """How many weights a file holds, without the whole numbers that are sizes and indices; None if `onnx` is not installed."""
    try:
        import onnx
    except ImportError:
        return None
    kinds = onnx.TensorProto
    weights = (kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.INT8, kinds.UINT8)
    try:
        stored = onnx.load(str(file), load_external_data=False).graph.initializer
    except Exception as error:  # protobuf's own kinds
        raise InputError(f"cannot read '{file}': {first_line(error)}", "export it again") from error
    return sum(int(prod(tensor.dims)) for tensor in stored if tensor.data_type in weights)
