"""`segctl export`: a finished run -> one file that runs anywhere, kept under its name only if it predicts as the run does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from segctl import __version__
from segctl.data.shards.dataset import PreparedDataset, find_dataset, open_dataset
from segctl.errors import CheckError, InputError
from segctl.evaluate.draw_masks import class_colors
from segctl.evaluate.scores_record import read_scores
from segctl.export.formats import OPSET, ExportFormat, require_format
from segctl.export.half import halved
from segctl.export.parity import Parity, Tolerance, compare_with_run, spread_evenly
from segctl.export.quantize import calibration_crops, quantised
from segctl.files import Progress, file_sha256, move_whole, write_whole
from segctl.models import SavedModel, Segmenter, read, restore
from segctl.pixel_types import LARGEST
from segctl.programs import ProgramFacts, bytes_of, open_program, program_facts
from segctl.programs.facts import DataFacts, ProgramOutput
from segctl.programs.onnx_file import with_facts
from segctl.programs.open import FAILED
from segctl.programs.openvino_file import require_openvino
from segctl.runs import RunFolder
from segctl.runtime.signals import ending_in_order
from segctl.schema.run import TrainRun

TOLD_SCORES = ("Acc", "mIoU_D", "mIoU_I", "mIoU_C")
"""Scores of the run that a file repeats."""


@dataclass(frozen=True)
class ExportRequest:
    """Which run to export, and how.

    size: height and width of the only images that the file takes; any size if None.  parity: how many images of the validation
    split the file is compared on; all if None, 0 for no comparison.  int8: quantise the ONNX file, with ranges of maps measured
    on `calibration_images` training crops drawn by `seed`.  fp16: convert it to float16.
    """

    run: RunFolder
    data_root: Path
    format: str = "onnx"
    output: ProgramOutput = "labels"
    size: tuple[int, int] | None = None
    parity: int | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    int8: bool = False
    calibration_images: int = 64
    seed: int = 0
    fp16: bool = False


@dataclass(frozen=True)
class Exported:
    """A file that was written. parity: None if it was not compared."""

    path: Path
    facts: ProgramFacts
    parity: Parity | None

    @property
    def bytes(self) -> int:
        """Size of the file, with the weights beside it."""
        return bytes_of(self.path)


def export_run(request: ExportRequest, progress: Progress | None = None) -> Exported:
    """Write the run's network into RUN/export/, after comparing the file with the run.

    Raises InputError before anything is written where the run, the format or the data do not fit, or where the file exists; and
    CheckError where the file differs too much: then it stays under a name that says so.
    """
    form = _require_options(request)
    request.run.require_finished(request.data_root)
    spec = request.run.read_run()
    path = request.run.exports / f"{file_stem(request)}{form.ending}"
    failed = path.with_name(f"{file_stem(request)}{FAILED}{form.ending}")
    if path.exists():
        raise InputError(f"'{path}' exists already", "delete it, or move it to another folder")
    compared = request.parity != 0
    find = open_dataset if compared or request.int8 else find_dataset
    dataset = find(request.data_root, spec.data.dataset)
    saved = read(request.run.model)
    network = restore(saved, class_names=dataset.classes.names if dataset and compared else None)
    names = spread_evenly(dataset.names(spec.data.val_split), request.parity) if dataset and compared else []
    facts = _facts(request, spec, saved, network, dataset)
    new = not request.run.exports.exists()
    request.run.exports.mkdir(exist_ok=True)
    try:
        # Not under its own name before it is known to be right. The folder is inside, so that moving a file is one step.
        with (
            ending_in_order("the export was stopped; nothing is left of it"),
            TemporaryDirectory(prefix=".export.part", dir=request.run.exports) as folder,
        ):
            trial = Path(folder) / path.name
            form.write(trial, network, facts)
            if request.fp16:
                _replace(trial, facts, halved(_body(trial)))

            def compared_with_run() -> Parity | None:
                program = open_program(trial, trusted=True)
                return compare_with_run(network, program, dataset, names, progress) if dataset and compared else None

            if request.int8 and dataset:
                parity = _quantise(request, trial, facts, spec, dataset, compared_with_run)
            else:
                parity = compared_with_run()
            passed = parity is None or parity.within(request.tolerance)
            target = path if passed else failed
            for part in sorted(Path(folder).iterdir()):  # OpenVINO's .bin before its .xml, which makes the pair whole
                move_whole(part, target.with_suffix(".bin") if part.suffix == ".bin" else target)
    except BaseException:
        if new and not any(request.run.exports.iterdir()):
            request.run.exports.rmdir()
        raise
    if parity is not None and not passed:
        allowed = request.tolerance
        raise CheckError(
            f"the exported file differs from the run: {parity.in_words()}; allowed are {allowed.pixels:g} % and "
            f"{allowed.miou_d:g} points. It is kept as '{failed}'",
            "try another --format, or allow more with --tolerance",
        )
    return Exported(path, facts, parity)


def _require_options(request: ExportRequest) -> ExportFormat:
    """The format, which fits the other options and whose package is installed. Raises InputError."""
    form = require_format(request.format)
    smaller = "--int8" if request.int8 else "--fp16" if request.fp16 else ""
    if smaller and request.format != "onnx":
        raise InputError(f"{smaller} cannot be combined with --format {request.format}", "leave --format out: it is for ONNX")
    if request.int8 and request.fp16:
        raise InputError("--int8 cannot be combined with --fp16", "make one file after the other")
    if request.format == "openvino":
        require_openvino()
    return form


def _quantise(
    request: ExportRequest,
    file: Path,
    facts: ProgramFacts,
    spec: TrainRun,
    dataset: PreparedDataset,
    compared: Callable[[], Parity | None],
) -> Parity | None:
    """Quantise a new .onnx file in place; if it differs too much, again with the first layer and the classifier in float32.

    Returns the comparison of the file that stays.
    """
    body = _body(file)
    crop = request.size or spec.data.crop
    crops = list(calibration_crops(dataset, spec.data.train_split, crop, request.calibration_images, request.seed))
    parity = None
    for spare_ends in (False, True):
        _replace(file, facts, quantised(body, crops, spare_ends=spare_ends))
        parity = compared()
        if parity is None or parity.within(request.tolerance):
            break
    return parity


def _body(file: Path) -> bytes:
    """The ONNX model in a new .onnx file, without its facts."""
    return file.read_bytes()[: program_facts(file).checked_bytes]


def _replace(file: Path, facts: ProgramFacts, body: bytes) -> None:
    """Write another model into an .onnx file, under the same facts."""
    content = with_facts(body, facts)

    def write(partial: Path) -> None:
        partial.write_bytes(content)

    write_whole(file, write)


def file_stem(request: ExportRequest) -> str:
    """The name of an exported file without its ending: `model`, with what is not the default, such as `model-logits-512x1024`."""
    parts: list[str] = ["model"]
    if request.output != "labels":
        parts.append(request.output)
    if request.size is not None:
        parts.append(f"{request.size[0]}x{request.size[1]}")
    if request.int8:
        parts.append("int8")
    if request.fp16:
        parts.append("fp16")
    return "-".join(parts)


def _facts(
    request: ExportRequest, spec: TrainRun, saved: SavedModel, network: Segmenter, dataset: PreparedDataset | None
) -> ProgramFacts:
    known = dataset is not None and dataset.classes.names == saved.class_names
    palette = dataset.classes.palette() if dataset is not None and known else class_colors(len(saved.class_names))
    sha256 = file_sha256(saved.path)
    return ProgramFacts(
        segctl=__version__,
        preset=spec.name,
        class_names=saved.class_names,
        colors=palette[: len(saved.class_names)].tolist(),
        mean=(network.pixel_mean.flatten() / LARGEST[network.pixel_type]).tolist(),
        std=(network.pixel_std.flatten() / LARGEST[network.pixel_type]).tolist(),
        output=request.output,
        size=None if request.size is None else list(request.size),
        int8=request.int8,
        fp16=request.fp16,
        opset=OPSET if request.format in ("onnx", "openvino") else None,
        weights_sha256=sha256,
        data=DataFacts(
            dataset=spec.data.dataset,
            fingerprint=dataset.fingerprint if dataset is not None and known else None,
            split=spec.data.val_split,
        ),
        scores=_scores(request.run, spec.data.val_split, sha256),
        pixels=saved.pixels,
        input=network.pixel_type,
    )


def _scores(run: RunFolder, split: str, sha256: str) -> dict[str, float | None]:
    """The main scores of the run's own evaluation; empty if it has none of these weights."""
    path = run.evaluation(split) / "scores.json"
    if not path.is_file():
        return {}
    scores = read_scores(path)
    if scores.get("about", {}).get("weights_sha256") != sha256:
        return {}
    return {name: scores[name] for name in TOLD_SCORES if isinstance(scores.get(name), float | int)}
