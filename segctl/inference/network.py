"""`segctl.load`: a run, a model file or an exported file, ready for pictures. Needs torch only for those that do."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segctl.commands import DATA_ROOT, DATA_VARIABLE
from segctl.data.files.archives import PlainFile
from segctl.data.files.bands import DEEP_ENDINGS, BandScaling, read_bands, shown_rgb
from segctl.data.files.windows import Windows
from segctl.errors import ArgumentError
from segctl.evaluate.draw_masks import RGB
from segctl.files import file_sha256, parse_record
from segctl.inference.find_pictures import PICTURE_ENDINGS, read_upright
from segctl.inference.picture_labels import PictureLabels
from segctl.programs import Program, is_program, open_program
from segctl.runs import on_the_hub
from segctl.schema.evaluate import EvaluateSpec, ProtocolChange, protocol_in_words

AnyPicture = str | Path | Image.Image | NDArray[Any]
"""A file, a PIL image, or an array uint8 (H, W, 3) of red, green and blue; for a network of chosen bands, an array of the numbers
that its picture files hold, (H, W, bands)."""


class PictureNetwork(ABC):
    """A trained network that takes pictures as people have them.

    path: its file.  preset: what it was trained by.  class_names: by id.  palette: uint8 (256, 3).  protocol, precision: how it
    is applied, in words. pixels: how the bands of picture files become those of images; None for 8-bit colour.
    """

    path: Path
    preset: str = ""
    class_names: list[str]
    palette: NDArray[np.uint8]
    protocol: str
    precision: str
    pixels: BandScaling | None = None

    def windowed(self, size: tuple[int, int]) -> bool:
        """Whether a picture of that (H, W) is predicted part by part, with the same result."""
        return False

    def id_rows(self, windows: Windows) -> Iterator[NDArray[np.uint8]]:
        """The class of each pixel of an open picture in parts uint8 (rows, W) from top to bottom, where `windowed` says so."""
        raise TypeError(f"{type(self).__name__} predicts whole pictures only, as `windowed` says")

    @property
    def picture_endings(self) -> tuple[str, ...]:
        """The endings of the picture files that it takes from folders."""
        return PICTURE_ENDINGS if self.pixels is None else (*PICTURE_ENDINGS, *DEEP_ENDINGS)

    def read(self, path: Path) -> NDArray[Any]:
        """A picture file as the network takes it, (H, W, bands) of uint8 or uint16. Raises InputError that names the file."""
        return read_upright(path) if self.pixels is None else read_bands(PlainFile(str(path), path), self.pixels)

    @property
    def sha256(self) -> str:
        """The hash of its file."""
        return file_sha256(self.path)

    @overload
    def predict(self, image: AnyPicture, *, probabilities: bool = False) -> Any: ...
    @overload
    def predict(self, image: Sequence[AnyPicture], *, probabilities: bool = False) -> list[Any]: ...
    def predict(self, image: AnyPicture | Sequence[AnyPicture], *, probabilities: bool = False) -> Any:
        """The class of each pixel of a picture, uint8 (H, W), at its own size; an array that notebooks show over the picture.

        image: a path, a PIL image, or an array uint8 (H, W, 3) of red, green and blue.  A list of these, or an array
        (B, H, W, 3), gives a list.  probabilities: return a pair of the label map and the probabilities float32 (C, H, W).
        Raises InputError for a file that cannot be read, ArgumentError (a ValueError too) for anything else that is not a
        picture.
        """
        if isinstance(image, list | tuple):
            return [self._predict_one(self._pixels_of(one), probabilities) for one in image]
        if isinstance(image, np.ndarray) and image.ndim == 4:
            return [self._predict_one(self._pixels_of(one), probabilities) for one in image]
        return self._predict_one(self._pixels_of(image), probabilities)

    def _pixels_of(self, image: Any) -> NDArray[Any]:
        """A picture as the network takes it, (H, W, bands) of uint8 or uint16. Raises ArgumentError that says what was given."""
        if isinstance(image, str | Path):
            return self.read(Path(image))
        if self.pixels is None:
            return as_rgb(image)
        values = np.asarray(image)
        values = values[..., None] if values.ndim == 2 else values
        if values.ndim != 3 or 0 in values.shape or (values.shape[2], values.dtype.name) != (self.pixels.of, self.pixels.dtype):
            raise ArgumentError(
                f"got an array {values.dtype} of shape {values.shape}, wanted {self.pixels.dtype} (H, W, {self.pixels.of})",
                "give what the picture files hold; bands are chosen and scaled here",
            )
        return self.pixels.apply(values)

    def _predict_one(self, image: NDArray[Any], probabilities: bool) -> PictureLabels | tuple[PictureLabels, NDArray[np.float32]]:
        if not probabilities:
            return PictureLabels.of(self.ids(image[None])[0], shown_rgb(image), self.class_names, self.palette)
        found = self.class_probabilities(image[None])[0]
        return PictureLabels.of(found.argmax(0).astype(np.uint8), shown_rgb(image), self.class_names, self.palette), found

    @abstractmethod
    def ids(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """The class of each pixel, uint8 (B, H, W), for images (B, H, W, bands) of one size, as `read` gives them."""

    @abstractmethod
    def class_probabilities(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities float32 (B, C, H, W) for images (B, H, W, bands) of one size, as `read` gives them."""


class ExportedNetwork(PictureNetwork):
    """An exported file. It sees every picture in one piece and once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.path, self.class_names = program.path, list(program.class_names)
        self.preset = program.facts.preset
        self.palette = np.zeros((256, 3), np.uint8)
        self.palette[: len(self.class_names)] = program.facts.colors
        self.pixels = scaling_of(program.facts.pixels, self.path)
        self.protocol = protocol_in_words(EvaluateSpec())
        self.precision = "int8" if program.facts.int8 else "fp16" if program.facts.fp16 else "fp32"

    def ids(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """(B, H, W, bands) -> uint8 (B, H, W)."""
        return self.program.labels(images)

    def class_probabilities(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """(B, H, W, bands) -> float32 (B, C, H, W). Raises InputError for a file that returns labels."""
        return self.program.probabilities(images)

    def __repr__(self) -> str:
        return f"<{self.program.kind} of {self.program.facts.preset}: {len(self.class_names)} classes, '{self.path}'>"


def load(path: str | Path, device: str | None = None, *, trust_program: bool = False) -> PictureNetwork:
    """A trained network for pictures: `segctl.load("runs/x").predict("a.jpg")`.

    path: a run's folder, its model file, a file that `segctl export` wrote, or `hf:ORG/NAME` that `segctl push` wrote.
    device: `cpu`, `cuda`, `cuda:0`, `mps`; the best there is if None.  trust_program: whether a .pt2 or TorchScript file may be
    read, which may run its code.
    Raises InputError for a path that is none of these, or is damaged.
    """
    root = Path(os.environ.get(DATA_VARIABLE) or DATA_ROOT)
    return open_network(Path(path), root, device, trust_program=trust_program)


def open_network(
    path: Path,
    data_root: Path,
    device: str | None = None,
    precision: str | None = None,
    change: ProtocolChange | None = None,
    *,
    trust_program: bool = False,
) -> PictureNetwork:
    """`load`, with changes of how a run's network is applied. data_root: where the dataset may lie, for its class colours."""
    if is_program(path):
        if precision not in (None, "auto", "fp32") or change not in (None, ProtocolChange()):
            raise ArgumentError(
                f"'{path}' is an exported file, which sees each picture in one piece and once, in its own precision",
                "leave --protocol, --tile, --stride, --scales, --flip and --precision out, or give the run",
            )
        return ExportedNetwork(open_program(path, device, trusted=trust_program))
    # Here, because both load torch.
    from segctl.inference.run_network import RunNetwork

    if on_the_hub(path):
        from segctl.models.external.hub import pushed_run

        path = pushed_run(str(path))
    return RunNetwork.open(path, data_root, device, precision, change or ProtocolChange())


def scaling_of(about: dict[str, Any] | None, path: Path) -> BandScaling | None:
    """How the bands of picture files become those of images, from what a network's file says. InputError if it is damaged."""
    if about is None:
        return None
    return parse_record(json.dumps(about), BandScaling, f"the scaling of bands in '{path}'", "train or export it again")


def as_rgb(image: Any) -> RGB:
    """A picture as uint8 (H, W, 3). Raises ArgumentError that says what was given."""
    if isinstance(image, str | Path):
        return read_upright(Path(image))
    if isinstance(image, Image.Image):
        turned = ImageOps.exif_transpose(image)
        return np.array((turned or image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise ArgumentError(f"got a {type(image).__name__}, wanted a path, a PIL image or an array", "for example 'a.jpg'")
    got = f"got an array {image.dtype} of shape {image.shape}"
    if image.dtype != np.uint8:
        raise ArgumentError(f"{got}, wanted uint8 from 0 to 255", "for values from 0 to 1: (255 * image).round().astype('uint8')")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        hint = (
            "move the channels last: image.transpose(1, 2, 0)"
            if image.ndim == 3 and image.shape[0] == 3
            else (
                "repeat the grey values: np.stack([image] * 3, axis=-1)"
                if image.ndim == 2
                else "drop other channels: image[..., :3]"
            )
        )
        raise ArgumentError(f"{got}, wanted (H, W, 3) of red, green and blue", hint)
    return np.ascontiguousarray(image)
