"""A trained network and a user's own pictures and videos -> masks and overlays.

DIR/<name>.png            class ids with the class colours as palette, or Cityscapes label ids
DIR/<name>.tif            instead, for a GeoTIFF: the same with its reference system and transform
DIR/overlays/<name>.jpg   with --overlay: the picture, half covered by the class colours
DIR/confidence/, soft/    with --confidence and --soft: how certain the network is (see data/labels/certainty.py)
DIR/<name>/000000.png     for a video: the class ids of each frame
DIR/overlays/<name>.mp4   for a video: the same video, half covered by the class colours
DIR/predict.json          the network and the settings, so that a second start knows whether the masks are the same
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from segctl.data.files.bands import shown_rgb
from segctl.data.files.windows import open_windows, size_of_picture, write_geotiff
from segctl.data.labels.certainty import CONFIDENCE, RECORD, SOFT, write_confidence, write_soft
from segctl.errors import InputError
from segctl.evaluate.draw_masks import overlay, write_index, write_index_rows
from segctl.evaluate.png_cityscapes import benchmark_of, train_to_label_ids
from segctl.files import Progress, as_record, read_json, real_path, write_json, write_whole
from segctl.inference.find_pictures import FoundPicture, find_pictures
from segctl.inference.network import PictureNetwork, open_network
from segctl.inference.predict_video import VideoOutputs, frames_promised, predict_video, read_ahead
from segctl.inference.videos import VIDEO_ENDINGS
from segctl.schema.evaluate import ProtocolChange

OTHER_FOLDER = "give another folder with -o, or remove this one"
JPEG_QUALITY = 90
LARGE_MASK_PX = 2**24
"""Masks of more pixels are written row by row."""


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
    """Which network (run: a run folder, a model file or an exported file), which pictures, where to write, and what.

    pictures: files, folders and patterns.  confidence: write how certain each pixel is.  soft: write that many of the most
    probable classes of each pixel; 0 for none.  device, precision: the best there is, and as trained, if None.  trust_program:
    whether the network may be a .pt2 or TorchScript file, which may run its code when it is read.  every: take each `every`th
    frame of a video.  frames: whether label maps of a video are written.
    """

    run: Path
    pictures: Sequence[str]
    output: Path
    data_root: Path
    overlay: bool = False
    label_ids: bool = False
    confidence: bool = False
    soft: int = 0
    device: str | None = None
    precision: str | None = None
    change: ProtocolChange = field(default_factory=ProtocolChange)
    trust_program: bool = False
    every: int = 1
    frames: bool = True


@dataclass(frozen=True)
class Predicted:
    """The number of pictures and of videos, and how many of them were done already from an earlier start.

    warnings: about videos that may be damaged, in sentences.
    """

    pictures: int
    videos: int
    done_before: int
    warnings: tuple[str, ...] = ()


class _Tally:
    """How much is done and how much there is: a picture counts as one, a video as its frames, whose number may be a guess."""

    def __init__(self, left: list[FoundPicture], every: int, done_before: int, progress: Progress) -> None:
        self._sizes = {one.path: frames_promised(one.path, every) if one.is_video else 1 for one in left}
        self._done, self._total, self._progress = done_before, done_before + sum(self._sizes.values()), progress

    def reach(self, picture: FoundPicture, done: int, of: int) -> None:
        """That many of the frames of the video at work are done."""
        self._total += of - self._sizes[picture.path]
        self._sizes[picture.path] = of
        self._progress(self._done + done, self._total)

    def finish(self, picture: FoundPicture) -> None:
        self._done += self._sizes[picture.path]
        self._progress(self._done, self._total)


def _write(
    network: PictureNetwork, request: PredictRequest, picture: FoundPicture, image: NDArray[Any] | None, tally: _Tally
) -> str:
    """Write the outputs of a picture (H, W, bands) as the network takes it, or of a file that is read in parts.

    Returns a warning, or nothing.  The mask, or a video's overlay, comes last: where it exists, the file is done.
    """
    if picture.is_video:
        frames = request.output / picture.name if request.frames else None
        outputs = VideoOutputs(_outputs(request, picture)[0], frames, request.every, request.label_ids)
        return predict_video(network, picture.path, outputs, lambda done, of: tally.reach(picture, done, of))
    if image is None:
        with open_windows(picture.path, network.pixels) as windows:
            _write_mask(network, request, picture, (windows.height, windows.width), network.id_rows(windows))
        return ""
    if request.confidence or request.soft:
        # The classes come from the same probabilities, so that a mask and its certainty cannot disagree.
        probabilities = network.class_probabilities(image[None])[0]
        ids = probabilities.argmax(0).astype(np.uint8)
        if request.confidence:
            write_confidence(request.output / CONFIDENCE / f"{picture.name}.png", probabilities)
        if request.soft:
            write_soft(request.output / SOFT / f"{picture.name}.npz", probabilities, request.soft)
    else:
        ids = network.ids(image[None])[0]
    mixed = _outputs(request, picture)[1]
    if request.overlay:
        laid_over = Image.fromarray(overlay(shown_rgb(image), ids, network.palette))
        write_whole(mixed, lambda partial: laid_over.save(partial, format="JPEG", quality=JPEG_QUALITY))
    _write_mask(network, request, picture, ids.shape, iter([ids]))
    return ""


def _write_mask(
    network: PictureNetwork,
    request: PredictRequest,
    picture: FoundPicture,
    size: tuple[int, ...],
    parts: Iterator[NDArray[np.uint8]],
) -> None:
    """Write a mask of `size` (H, W) whose ids come in parts uint8 (rows, W) from top to bottom."""
    mask = _outputs(request, picture)[0]
    palette: NDArray[np.uint8] | None = network.palette
    height, width = size
    if request.label_ids:
        table = train_to_label_ids()
        parts, palette = (table[part] for part in parts), None
    if (place := picture.place) is not None:
        write_whole(mask, lambda partial: write_geotiff(partial, parts, (height, width), place, palette))
    elif height * width > LARGE_MASK_PX:
        write_index_rows(mask, parts, (height, width), palette)
    else:
        write_index(mask, np.concatenate([*parts]), palette)


def predict_files(request: PredictRequest, progress: Progress | None = None) -> Predicted:
    """Write a mask for every picture; skip those that an earlier start has written and whose picture is older than the mask.

    Raises InputError before anything is written where the network, the pictures or the folder do not fit, and at the end where
    pictures could not be read.
    """
    network = open_network(
        request.run, request.data_root, request.device, request.precision, request.change, trust_program=request.trust_program
    )
    pictures = find_pictures(request.pictures, (*network.picture_endings, *VIDEO_ENDINGS))
    _require_apart(request, pictures)
    _judge(request, network, pictures)
    record = _record(request, network)
    _check_folder(request, record)
    left = [picture for picture in pictures if not _is_done(picture, _outputs(request, picture)[0])]
    done_before = len(pictures) - len(left)
    tally = _Tally(left, request.every, done_before, progress or (lambda done, total: None))
    doubts, unreadable = [], []
    with _started_folder(request, record, done_before) as start:
        for picture, image in _read_ahead(left, network, whole=_whole(request)):
            if isinstance(image, InputError):
                unreadable.append(image)
            else:
                try:
                    start()
                    doubts.append(_write(network, request, picture, image, tally))
                except InputError as error:
                    if image is not None:
                        raise
                    unreadable.append(error)  # it is damaged further below
            tally.finish(picture)
        if unreadable:
            more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
            raise InputError(
                f"{unreadable[0].message}{more}",
                f"the other {len(pictures) - len(unreadable)} pictures have their masks; repair or leave out the unreadable ones"
                + (f"; for the first: {unreadable[0].hint}" if unreadable[0].hint else ""),
            )
    videos = sum(picture.is_video for picture in pictures)
    return Predicted(len(pictures) - videos, videos, done_before, tuple(filter(None, doubts)))


def _read_ahead(
    pictures: list[FoundPicture], network: PictureNetwork, *, whole: tuple[str, str] | None
) -> Iterator[tuple[FoundPicture, NDArray[Any] | InputError | None]]:
    """Every picture (H, W, bands) as the network takes it, None for a file that is read in parts, or the error of reading it.

    whole: the option that needs whole pictures, and what it writes; None if none does.
    """

    def attempt(picture: FoundPicture) -> NDArray[Any] | InputError | None:
        try:
            if picture.is_video:
                return None
            size = size_of_picture(picture.path)
            if size is not None and network.windowed(size):
                if whole:
                    raise InputError(f"'{picture.path}' is too large for {whole[1]}", f"leave {whole[0]} out")
                return None
            return network.read(picture.path)
        except InputError as error:
            return error

    return read_ahead((picture, attempt(picture)) for picture in pictures)


def _outputs(request: PredictRequest, picture: FoundPicture) -> tuple[Path, Path]:
    """The paths of the mask and the overlay of a picture; of a video, twice the one that is written last."""
    if picture.is_video:
        return (overlaid := request.output / "overlays" / f"{picture.name}.mp4"), overlaid
    ending = ".png" if picture.place is None else ".tif"
    return request.output / f"{picture.name}{ending}", request.output / "overlays" / f"{picture.name}.jpg"


def _is_done(picture: FoundPicture, mask: Path) -> bool:
    """Whether a picture has its mask. A picture that was changed or replaced after its mask was written has not."""
    return mask.is_file() and picture.path.stat().st_mtime_ns <= mask.stat().st_mtime_ns


def _judge(request: PredictRequest, network: PictureNetwork, pictures: list[FoundPicture]) -> None:
    """Refuse options that do not fit the network or the files, and videos that certainly cannot be read."""
    if request.label_ids and benchmark_of(network.class_names) is None:
        raise InputError("--label-ids writes Cityscapes label ids, but this network has other classes", "leave --label-ids out")
    videos = [picture for picture in pictures if picture.is_video]
    if videos and network.pixels is not None:
        raise InputError(f"'{videos[0].path}' is a video, but this network takes chosen bands of pictures", "leave it out")
    if videos and (request.confidence or request.soft):
        option = "--confidence" if request.confidence else "--soft"
        raise InputError(f"{option} is for pictures, but '{videos[0].path}' is a video", f"leave {option} or the videos out")
    if not videos and (request.every != 1 or not request.frames):
        option = "--every" if request.every != 1 else "--no-frames"
        raise InputError(f"{option} is for videos, and there is none among the files", f"leave {option} out")


def _require_apart(request: PredictRequest, pictures: list[FoundPicture]) -> None:
    """Refuse to overwrite one of the pictures, and a mask that would lie where what is written beside masks lies."""
    beside = [folder for folder, wanted in ((CONFIDENCE, request.confidence), (SOFT, request.soft)) if wanted]
    for picture in pictures:
        if (folder := picture.name.split("/")[0]) in beside and "/" in picture.name:
            raise InputError(
                f"the mask of '{picture.path}' would lie in '{request.output / folder}', which is for --{folder}",
                "rename that folder of pictures, or predict it by itself",
            )
    inputs = {real_path(picture.path) for picture in pictures}
    for picture in pictures:
        for path in _outputs(request, picture):
            if real_path(path) in inputs:
                raise InputError(f"the mask of '{picture.path}' would overwrite '{path}'", "give another folder with -o")


def _record(request: PredictRequest, network: PictureNetwork) -> dict[str, Any]:
    return {
        "weights": str(network.path),
        "weights_sha256": network.sha256,
        "protocol": network.protocol,
        "precision": network.precision,
        "ids": "Cityscapes label ids" if request.label_ids else "train ids",
        "overlay": request.overlay,
        "classes": network.class_names,
        # Only where they are not as usual, so that folders of earlier versions can be gone on with.
        **({"every": request.every} if request.every != 1 else {}),
        **({} if request.frames else {"frames": False}),
        **({"confidence": True} if request.confidence else {}),
        **({"soft": request.soft} if request.soft else {}),
        "preset": network.preset,
    }


def _whole(request: PredictRequest) -> tuple[str, str] | None:
    """The option that needs a picture in one piece, and what it writes; None if none does."""
    if request.overlay:
        return "--overlay", "an overlay"
    if request.confidence:
        return "--confidence", "a confidence map"
    return ("--soft", "soft labels") if request.soft else None


def _check_folder(request: PredictRequest, record: dict[str, Any]) -> None:
    """Accept an empty folder, or one with masks of the same network and settings; refuse all others. Writes nothing."""
    path = request.output / RECORD
    if request.output.is_dir() and all(file == path for file in request.output.iterdir()):
        return  # a record without a mask is of a start that failed
    if path.is_file():
        as_record(there := read_json(path, OTHER_FOLDER), PredictRecord, f"'{path}'", OTHER_FOLDER)
        told = ("weights", "preset")  # they say where the masks come from, and decide nothing
        differing = [key for key in {**record, **there} if key not in told and there.get(key) != record.get(key)]
        if differing:
            raise InputError(
                f"'{request.output}' holds masks made with other settings: {differing[0]} was {there.get(differing[0])!r}, "
                f"now {record.get(differing[0])!r}",
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
    inside = [folder / name for name in ("overlays", CONFIDENCE, SOFT)]
    new = [parent for parent in (*inside, folder, *folder.parents) if not parent.exists()]
    began = False

    def start() -> None:
        nonlocal began
        if not began:
            began = True
            write_json(path, record)

    try:
        yield start
    except BaseException:
        beside = [*folder.glob("overlays/*.jpg"), *folder.glob(f"{CONFIDENCE}/*.png"), *folder.glob(f"{SOFT}/*.npz")]
        masks = {mask for ending in ("png", "tif", "mp4") for mask in folder.rglob(f"*.{ending}")} - {*beside}
        if began and not done_before and not masks:
            for file in (path, *beside):
                file.unlink(missing_ok=True)
            for parent in filter(Path.exists, new):
                with suppress(OSError):
                    parent.rmdir()
        raise
