"""A dataset before it is prepared: its class table, its splits, and a reader that gives one sample after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from segctl.data.classes import ClassTable
from segctl.data.files.bands import BandScaling
from segctl.data.findings import Finding
from segctl.data.raters import Votes


@dataclass(frozen=True)
class RawSample:
    """One sample, read and in train ids.

    image: uint8 (H, W, 3) RGB, or uint8 or uint16 (H, W, N) of N bands.  label: uint8 (H, W) train ids, 255 ignored; None for
    a picture without label.  instance: uint16 (H, W), None if there is none.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    instance: np.ndarray | None
    source_sha256: str
    """Hash of the bytes the sample was made from, the same on any machine."""
    source_bytes: int
    """How many bytes those were."""
    unknown_pixels: int = 0
    """Pixels whose colour belongs to no class; their label is 255."""
    unknown_values: Mapping[str, int] = field(default_factory=dict)
    """Pixels of the most frequent values that the class table does not name: "255" or "255,255,255"; their label is 255."""
    remarks: Mapping[str, int] = field(default_factory=dict)
    """Oddities of the label in words, with counts: "polygons that cross themselves, filled by the even-odd rule"."""
    image_file: bytes | None = None
    """The image's file, if there is one and decoding it gives exactly `image`."""
    votes: Votes | None = None
    """What each of several raters called each pixel, whose majority `label` is; None for a single label map."""


@dataclass(frozen=True)
class PredictedLabels:
    """Labels that a network made. network: its preset or run.  weights_sha256: of its file.  min_confidence: as it was given,
    None
    for all pixels.  samples: whose labels these are; all others are a person's, or as published."""

    network: str
    weights_sha256: str
    min_confidence: str | None
    samples: tuple[str, ...]

    def in_words(self, samples: int) -> str:
        """Who made how many of the labels of that many samples, in a sentence without its full stop."""
        kept = (
            "" if self.min_confidence is None else f"; less certain pixels are ignored (--min-confidence {self.min_confidence})"
        )
        return (
            f"{len(self.samples)} of {samples} labels were made by the network '{self.network}' "
            f"(sha256 {self.weights_sha256[:12]}), not by people{kept}"
        )


class SampleReader(Protocol):
    """Reads the samples of a source. Travels to other processes."""

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of a sample, without decoding it. Raises InputError if image and label do not fit."""
        ...

    def digest(self, name: str) -> str:
        """The `source_sha256` that `read` would give."""
        ...

    def read(self, name: str) -> RawSample:
        """One sample, checked. Raises InputError that names the sample and its file."""
        ...


@dataclass(frozen=True)
class Source:
    """A dataset as it was published, opened. Opening lists files; only `samples` reads them."""

    name: str
    rule: str
    """Version of the way samples become images and labels; part of the fingerprint."""
    origin: str
    """What the samples are made from, without paths of this machine."""
    decoder: str
    """The library that decodes the pictures, with its version."""
    classes: ClassTable
    splits: dict[str, list[str]]
    """Names of the samples of each split; a sample may be in several."""
    samples: SampleReader
    groups: dict[str, str] | None = None
    """The drive or scene of each sample, if the dataset knows it."""
    notes: tuple[str, ...] = ()
    """What was left out or differs from the official dataset, in sentences."""
    label_advice: str = "correct the labels, or get them again from where they were published"
    """What to do about labels that do not fit the class table."""
    pixels: BandScaling | None = None
    """How the bands of its picture files become those of its images; None for 8-bit colour."""
    predicted: PredictedLabels | None = None
    """Which labels a network made; None if people made all of them."""
    unlabelled: frozenset[str] = frozenset()
    """The samples without a label."""
    problems: tuple[Finding, ...] = ()
    """What opening the source found wrong; `prepare` refuses a source that has any."""
