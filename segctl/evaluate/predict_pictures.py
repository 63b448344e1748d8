"""A trained network and a user's own pictures -> masks and overlays.

DIR/<name>.png            class ids with the class colours as palette, or Cityscapes label ids
DIR/overlays/<name>.jpg   with --overlay: the picture, half covered by the class colours
DIR/predict.json          the network and the settings, so that a second start knows whether the masks are the same
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.evaluate.draw_masks import RGB, overlay, write_index
from segctl.evaluate.find_pictures import FoundPicture, find_pictures, read_upright
from segctl.evaluate.png_cityscapes import benchmark_of, train_to_label_ids
from segctl.evaluate.predictor import predict_classes, protocol_in_words
from segctl.files import Progress, as_record, file_sha256, read_json, real_path, write_json, write_whole
from segctl.models import SavedModel, Segmenter, read, restore
from segctl.runtime.device import Compute, choose_scoring_compute
from segctl.runtime.memory import out_of_memory_in_words
from segctl.runtime.upload import upload
from segctl.schema.evaluate import EvaluateSpec, ProtocolChange
from segctl.schema.load import validate_run
from segctl.schema.run import TrainRun

RECORD = "predict.json"
OTHER_FOLDER = "give another folder with -o, or remove this one"
PREDICT_WITH_LESS = "predict in tiles (--protocol sliding --tile 512x512), or with --device cpu"
JPEG_QUALITY = 90


class PredictRecord(BaseModel):
    """The fields of predict.json that decide whether two starts make the same masks."""

    weights_sha256: str
    protocol: str
    precision: str
    ids: str
    overlay: bool
    classes: list[str]


@dataclass(frozen=True)
class PredictRequest:
    """Which network (run: a run folder or a model file), which pictures, where to write, and what.

    pictures: files, folders and patterns.  device, precision: the best there is, and as trained, if None.
    """

    run: Path
    pictures: Sequence[str]
    output: Path
    data_root: Path
    overlay: bool = False
    label_ids: bool = False
    device: str | None = None
    precision: str | None = None
    change: ProtocolChange = field(default_factory=ProtocolChange)


@dataclass(frozen=True)
class Predicted:
    """The number of pictures, and how many of them had their mask already from an earlier start."""

    pictures: int
    done_before: int


@dataclass(frozen=True)
class _Session:
    """The network and how it is applied. palette: uint8 (256, 3), the class colours."""

    model: Segmenter
    protocol: EvaluateSpec
    compute: Compute
    palette: NDArray[np.uint8]
    request: PredictRequest

    def write(self, picture: FoundPicture, image: RGB) -> None:
        """Write the outputs of a picture uint8 (H, W, 3). The mask comes last: where it exists, the picture is done."""
        batch = upload(torch.from_numpy(image)[None], self.compute.device)
        ids: NDArray[np.uint8] = predict_classes(self.model, batch, self.protocol, self.compute)[0].cpu().numpy()
        mask, mixed = _outputs(self.request, picture)
        if self.request.overlay:
            laid_over = Image.fromarray(overlay(image, ids, self.palette))
            write_whole(mixed, lambda partial: laid_over.save(partial, format="JPEG", quality=JPEG_QUALITY))
        if self.request.label_ids:
            write_index(mask, train_to_label_ids()[ids])
        else:
            write_index(mask, ids, self.palette)


def predict_files(request: PredictRequest, progress: Progress | None = None) -> Predicted:
    """Write a mask for every picture; skip those that an earlier start has written.

    Raises InputError before anything is written where the network, the pictures or the folder do not fit, and at the end where
    pictures could not be read.
    """
    saved = read(request.run)
    spec = validate_run(saved.run, f"'{saved.path}'")
    pictures = find_pictures(request.pictures)
    _require_apart(request, pictures)
    if request.label_ids and benchmark_of(saved.class_names) is None:
        raise InputError("--label-ids writes Cityscapes label ids, but this network has other classes", "leave --label-ids out")
    protocol = request.change.apply(spec.evaluate, spec.data.crop)
    compute = choose_scoring_compute(request.device, spec.train.precision, request.precision)
    record = _record(request, saved, protocol, compute)
    _check_folder(request, record)
    left = [picture for picture in pictures if not _outputs(request, picture)[0].is_file()]
    done_before = len(pictures) - len(left)
    model = restore(saved).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    session = _Session(model, protocol, compute, _palette(request, spec, saved.class_names), request)
    unreadable = []
    with _started_folder(request, record, done_before) as start, out_of_memory_in_words(compute.device, PREDICT_WITH_LESS):
        for done, (picture, image) in enumerate(_read_ahead(left), start=1):
            if isinstance(image, InputError):
                unreadable.append(image)
            else:
                start()
                session.write(picture, image)
            if progress is not None:
                progress(done_before + done, len(pictures))
    if unreadable:
        more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        raise InputError(
            f"{unreadable[0].message}{more}",
            f"the other {len(pictures) - len(unreadable)} pictures have their masks; repair or leave out the unreadable ones",
        )
    return Predicted(len(pictures), done_before)


def _read_ahead(pictures: list[FoundPicture]) -> Iterator[tuple[FoundPicture, RGB | InputError]]:
    """Every picture uint8 (H, W, 3), or the error of reading it. A thread decodes the next one while the network works."""

    def attempt(picture: FoundPicture) -> RGB | InputError:
        try:
            return read_upright(picture.path)
        except InputError as error:
            return error

    with ThreadPoolExecutor(1) as reader:
        coming = None
        for picture in [*pictures, None]:
            future = None if picture is None else reader.submit(attempt, picture)
            if coming is not None:
                yield coming[0], coming[1].result()
            coming = None if picture is None or future is None else (picture, future)


def _outputs(request: PredictRequest, picture: FoundPicture) -> tuple[Path, Path]:
    """The paths of the mask and the overlay of a picture."""
    return request.output / f"{picture.name}.png", request.output / "overlays" / f"{picture.name}.jpg"


def _require_apart(request: PredictRequest, pictures: list[FoundPicture]) -> None:
    """Refuse to overwrite one of the pictures."""
    inputs = {real_path(picture.path) for picture in pictures}
    for picture in pictures:
        for path in _outputs(request, picture):
            if real_path(path) in inputs:
                raise InputError(f"the mask of '{picture.path}' would overwrite '{path}'", "give another folder with -o")


def _record(request: PredictRequest, saved: SavedModel, protocol: EvaluateSpec, compute: Compute) -> dict[str, Any]:
    return {
        "weights": str(saved.path),
        "weights_sha256": file_sha256(saved.path),
        "protocol": protocol_in_words(protocol),
        "precision": compute.precision,
        "ids": "Cityscapes label ids" if request.label_ids else "train ids",
        "overlay": request.overlay,
        "classes": saved.class_names,
    }


def _check_folder(request: PredictRequest, record: dict[str, Any]) -> None:
    """Accept an empty folder, or one with masks of the same network and settings; refuse all others. Writes nothing."""
    path = request.output / RECORD
    if request.output.is_dir() and all(file == path for file in request.output.iterdir()):
        return  # a record without a mask is of a start that failed
    if path.is_file():
        as_record(there := read_json(path, OTHER_FOLDER), PredictRecord, f"'{path}'", OTHER_FOLDER)
        differing = [key for key in record if key != "weights" and there.get(key) != record[key]]
        if differing:
            raise InputError(
                f"'{request.output}' holds masks made with other settings: {differing[0]} was {there.get(differing[0])!r}, "
                f"now {record[differing[0]]!r}",
                OTHER_FOLDER,
            )
    elif request.output.exists():
        raise InputError(f"'{request.output}' is not empty, and `segctl predict` did not write it", "give another folder with -o")


@contextmanager
def _started_folder(request: PredictRequest, record: dict[str, Any], done_before: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call before a mask is written, which writes the record once.

    A start that fails before its first mask removes the record and the folders that it made: they would be in the way of the next
    start with other settings.
    """
    folder, path = request.output, request.output / RECORD
    new = [parent for parent in (folder / "overlays", folder, *folder.parents) if not parent.exists()]
    began = False

    def start() -> None:
        nonlocal began
        if not began:
            began = True
            write_json(path, record)

    try:
        yield start
    except BaseException:
        if began and not done_before and not any(folder.rglob("*.png")):
            for file in (path, *folder.glob("overlays/*.jpg")):
                file.unlink(missing_ok=True)
            for parent in new:
                with suppress(OSError):
                    parent.rmdir()
        raise


def _palette(request: PredictRequest, spec: TrainRun, class_names: list[str]) -> NDArray[np.uint8]:
    """uint8 (256, 3): the colours of the dataset if it is prepared here, else twelve hues in three shades."""
    try:
        classes = open_dataset(request.data_root, spec.data.dataset).classes
        if classes.names == class_names:
            return classes.palette()
    except InputError:
        pass  # predicting needs no dataset, only its colours would be nicer
    palette = np.zeros((256, 3), np.uint8)
    for index in range(len(class_names)):
        hue, shade = index * 7 % 12 / 12, (1.0, 0.7, 0.45)[index // 12 % 3]
        wheel = [abs((hue * 6 + offset) % 6 - 3) - 1 for offset in (0, 4, 2)]
        palette[index] = [round(255 * shade * min(1.0, max(0.0, value))) for value in wheel]
    return palette
