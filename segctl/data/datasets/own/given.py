"""What a person gave as their own data: folders, archives, patterns or annotation files, and how to read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segctl.data.datasets import OWN_LINE
from segctl.data.files.bands import BandChoice
from segctl.data.labels import huggingface
from segctl.errors import InputError

if TYPE_CHECKING:
    from segctl.data.datasets.own.tiling import TileChoice


@dataclass(frozen=True)
class OwnFiles:
    """What a person gave: folders, archives, patterns or annotation files, and how to read them.

    classes: a class table; annotation files can do without.  splits: texts such as "val=0.2" or "val=val.txt".  seed: for ratios.
    format: one of `labels.formats.NAMES`, None to look at the files.  unannotated: what pixels under no shape become, one of
    `annotated.UNANNOTATED` or None.  label_suffix: what follows the name of a picture in that of its label.
    instances: a folder of instance maps (see `instance_ids.py`), for the segments that mIoU_K scores.
    bands: which bands of the pictures to take and how to scale them; None for 8-bit colour or grey.
    tiles: how pictures are cut into samples; None to take them whole.
    """

    images: Path
    labels: Path
    classes: Path | None = None
    splits: tuple[str, ...] = ()
    seed: int = 0
    instances: Path | None = None
    format: str | None = None
    unannotated: str | None = None
    label_suffix: str | None = None
    bands: BandChoice | None = None
    min_confidence: str | None = None
    """Which pixels of predicted labels are certain enough, as `predicted.MinConfidence` reads it; None for all."""
    tiles: "TileChoice | None" = None
    raters: tuple[Path, ...] = ()
    """The label maps of further raters of the same pictures, beside those in `labels`."""


def own_files(
    images: Path | None,
    labels: Path | Sequence[Path] | None,
    classes: Path | None,
    splits: tuple[str, ...],
    seed: int,
    instances: Path | None = None,
    bands: BandChoice | None = None,
    tiles: "TileChoice | None" = None,
    **how: str | None,
) -> OwnFiles | None:
    """A person's own data from the options; None if none of them was given. Raises InputError if some are missing.

    labels: several are the label maps of several raters.
    how: `format`, `unannotated`, `label_suffix` and `min_confidence` of OwnFiles.
    """
    given_labels = [labels] if isinstance(labels, Path) else list(labels or ())
    labels, raters = (given_labels[0], given_labels[1:]) if given_labels else (None, [])
    if images is None and labels is None and classes is None:
        given = {"--split": splits[0] if splits else None, **{f"--{key.replace('_', '-')}": value for key, value in how.items()}}
        if option := next((option for option, value in given.items() if value is not None), None):
            what = "has its own splits" if option == "--split" else "is not read in this way"
            raise InputError(f"{option} is '{given[option]}', but a published dataset {what}", f"use it with {OWN_LINE}")
        if instances is not None:
            raise InputError(f"--instances is '{instances}', but a published dataset has its own", f"use it with {OWN_LINE}")
        if bands is not None:
            raise InputError(
                "--bands and --range are for your own images, not for a published dataset", f"use them with {OWN_LINE}"
            )
        if tiles is not None:
            raise InputError("--tile is for your own images, not for a published dataset", f"use it with {OWN_LINE}")
        return None
    if tiles is not None and instances is not None:
        raise InputError("--tile cannot be combined with --instances: an instance would be cut apart", "leave one of them out")
    if images is not None and labels is None and huggingface.is_saved(images):
        labels = images  # one folder holds both
    if raters and (
        clash := next((option for option, value in {"--instances": instances, "--tile": tiles}.items() if value), None)
    ):
        raise InputError(
            f"{clash} cannot be combined with several --labels, the label maps of several raters", f"leave {clash} out"
        )
    if images is None or labels is None:
        missing = [option for option, value in (("--images", images), ("--labels", labels)) if value is None]
        raise InputError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            "give --images DIR --labels DIR; label maps need --classes FILE too, annotation files do not",
        )
    return OwnFiles(images, labels, classes, splits, seed, instances, bands=bands, tiles=tiles, raters=tuple(raters), **how)
