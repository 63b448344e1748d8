"""What an exported file says about itself: a JSON text under the key `segctl`, wherever its format keeps such texts."""

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from segctl.errors import InputError
from segctl.files import as_record, parse_json
from segctl.pixel_types import PixelType

KEY = "segctl"
EXTRA_FILE = "segctl.json"
"""The name of the text inside .pt2 and TorchScript archives."""
EXPORT_AGAIN = "export it again with `segctl export RUN`"

ProgramOutput = Literal["labels", "logits", "probabilities"]
OUTPUTS: tuple[ProgramOutput, ...] = ("labels", "logits", "probabilities")


class DataFacts(BaseModel):
    """The prepared dataset of the run."""

    dataset: str
    fingerprint: str | None = None
    split: str | None = None


class ProgramFacts(BaseModel):
    """What an exported file says about itself.

    colors: red, green and blue of each class, 0 to 255.  input: the type of the images that the program takes.  mean, std: of
    their bands, in fractions of the largest number of that type (255 or 65535), as the program normalises them.
    size: height and width of the only images it takes, or None for any.  opset: of ONNX.  scores: of the run itself, in percent.
    weights_sha256: of the run's model file.  pixels: how the bands of picture files become those of images, by
    `data.files.bands`; None for 8-bit colour.  checksum, checked_bytes: XXH3 of the part of the file that computes, and its
    length.
    """

    segctl: str
    preset: str
    class_names: list[str] = Field(min_length=1)
    colors: list[list[int]]
    mean: list[float]
    std: list[float]
    output: ProgramOutput
    size: list[int] | None = None
    opset: int | None = None
    weights_sha256: str
    data: DataFacts
    scores: dict[str, float | None] = {}
    int8: bool = False
    fp16: bool = False
    pixels: dict[str, Any] | None = None
    input: PixelType = "uint8"
    checksum: str | None = None
    checked_bytes: int | None = None

    @property
    def bands(self) -> int:
        """How many bands the images have."""
        return len(self.mean)

    @property
    def takes(self) -> str:
        """What the program takes, in words: `RGB images uint8 (B, H, W, 3) of any size`."""
        kind = "RGB images" if self.pixels is None else "images"
        size = "any size" if self.size is None else "{}×{} pixels".format(*self.size)
        return f"{kind} {self.input} (B, H, W, {self.bands}) of {size}"

    def to_text(self) -> str:
        """The JSON text that goes into a file."""
        exclude = {key for key, usual in (("pixels", None), ("input", "uint8")) if getattr(self, key) == usual}
        return json.dumps(self.model_dump(mode="json", exclude=exclude), ensure_ascii=False)


def facts_of(text: str | None, where: str) -> ProgramFacts:
    """The facts in a file's text; None for a file without one. Raises InputError: segctl did not export it, or it is damaged."""
    if not text:
        raise InputError(f"{where} was not exported by segctl: it does not say which classes it knows", EXPORT_AGAIN)
    tree: Any = parse_json(text, where, EXPORT_AGAIN)
    return as_record(tree, ProgramFacts, where, EXPORT_AGAIN)


def torch_facts(path: Path) -> ProgramFacts:
    """The facts in a .pt2 or TorchScript archive, read without its program. Raises InputError as `facts_of`."""
    try:
        with zipfile.ZipFile(path) as archive:
            place = next((name for name in archive.namelist() if name.endswith(f"/extra/{EXTRA_FILE}")), None)
            text = None if place is None else archive.read(place).decode("utf-8")
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"cannot read '{path}': it is damaged, or not an archive of torch", EXPORT_AGAIN) from error
    return facts_of(text, f"'{path}'")
