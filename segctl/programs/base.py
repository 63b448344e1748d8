"""An exported file, opened: one interface for every format."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError, SegctlError, first_line
from segctl.programs.facts import ProgramFacts

UInt8 = NDArray[np.uint8]
Images = NDArray[Any]
"""(B, H, W, N) of the type that the file takes, uint8 or uint16."""


class Program(ABC):
    """A network in an exported file: its classes, its output, and how to run it."""

    kind: str
    """The format, such as `onnx`."""

    def __init__(self, path: Path, facts: ProgramFacts) -> None:
        self.path = path
        self.facts = facts

    @property
    def class_names(self) -> list[str]:
        return self.facts.class_names

    def run(self, images: Images) -> NDArray[Any]:
        """What the file returns for images (B, H, W, N) of one size: labels uint8 (B, H, W), or float32 (B, C, H, W).

        Raises InputError for images of another type, other bands or another size than the file takes, SegctlError where the
        library that runs it fails.
        """
        if images.dtype.name != self.facts.input or images.shape[3] != self.facts.bands:
            raise InputError(
                f"'{self.path}' takes {self.facts.takes}, got {images.dtype.name} of {images.shape[3]} bands",
                "give pictures of the kind that the network was trained on",
            )
        if self.facts.size is not None and list(images.shape[1:3]) != self.facts.size:
            height, width = self.facts.size
            raise InputError(
                f"'{self.path}' takes only images of {height}×{width} pixels, got {images.shape[1]}×{images.shape[2]}",
                "resize the pictures, or export the run without --size",
            )
        try:
            return self._run(np.ascontiguousarray(images))
        except SegctlError:
            raise
        except Exception as error:  # each library raises kinds of its own
            raise SegctlError(
                f"'{self.path}' fails on images of {images.shape[1]}×{images.shape[2]} pixels: {first_line(error)}",
                "free memory, or try a smaller picture",
            ) from error

    def labels(self, images: Images) -> UInt8:
        """The class of each pixel, uint8 (B, H, W), for images (B, H, W, N)."""
        found = self.run(images)
        return found if self.facts.output == "labels" else found.argmax(1).astype(np.uint8)

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Probabilities float32 (B, C, H, W) for images (B, H, W, N). Raises InputError for a file that returns labels."""
        if self.facts.output == "labels":
            raise InputError(
                f"'{self.path}' returns only labels, wanted probabilities", "export the run with --output probabilities"
            )
        found: NDArray[np.float32] = self.run(images)
        if self.facts.output == "logits":
            powers = np.exp(found - found.max(1, keepdims=True))
            found = powers / powers.sum(1, keepdims=True)
        return found

    @abstractmethod
    def _run(self, images: Images) -> NDArray[Any]:
        """`run` without its checks, for images that lie in memory row by row."""
