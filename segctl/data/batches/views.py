"""The random view of a training sample: scale, crop and flip. It is drawn first; then only what it shows is read and augmented.

The distribution is that of the usual pipeline (resize the whole image, pad it to the crop, cut a random crop, flip), but only
the part of the image that ends up in the crop is read and resized. It is resized and not warped, because OpenCV's resize is four
to six times as fast as its warpAffine. The resize starts at a source pixel that coincides with a scaled pixel to within a
fiftieth, so resizing the part and resizing the whole sample the same places.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import cv2
import numpy as np

from segctl.data.advice import prepare_again
from segctl.data.batches.augment import PADDING_RGB, RGB_ALONE, UINT8_ALONE, apply
from segctl.data.shards.dataset import PreparedDataset
from segctl.data.shards.tiles import Region
from segctl.errors import InputError, did_you_mean
from segctl.ignored import IGNORED
from segctl.schema.data import AugmentSpec, ClassCropSpec, CopyPasteSpec, DataSpec

SEARCH_PX = 96
"""How many scaled pixels back to search for a start at first; the search seldom has to go farther."""
NO_LABEL = 254
"""The id of a picture's real pixels in a view that has no label. It only lives until a batch is made, where they become
`Batch.unlabelled`: as an id it goes through every augmentation, so what an affine view or a cutout covers is not a real pixel."""
CLOSE_ENOUGH_PX = 1 / 48
"""Source pixels. On genuine street frames 3 pixels in 10,000, at hard edges, then differ by more than one grey level from
resizing the whole image. A smaller value costs more source pixels to read."""
ReadLabel = Callable[[str, int, int, int, int], np.ndarray]
"""(sample, top, left, height, width) -> that region of the sample's label, uint8 (height, width)."""


@dataclass(frozen=True)
class Span:
    """One axis of a view, in pixels: `source` long in the file, `scaled` long after scaling.

    The crop has `padding` pixels that lie outside of the image, then `shown` scaled pixels from `start` on, then padding again.
    """

    source: int
    scaled: int
    start: int
    shown: int
    padding: int


@dataclass(frozen=True)
class View:
    """What was drawn for one sample: the crop's (H, W), its rows and columns, and whether it is mirrored."""

    crop: tuple[int, int]
    rows: Span
    columns: Span
    flip: bool


def draw_view(size: tuple[int, int], spec: DataSpec, random: np.random.Generator) -> View:
    """Draw a view of an image of `size` (H, W): scale uniform, position uniform, flip with probability `spec.flip`.

    An image smaller than the crop is padded as `spec.padding` says: equally on both sides, with an odd pixel at the bottom and
    right; or at the bottom and right alone.
    """
    scale = _draw_scale(spec, random)
    rows = _draw_span(size[0], spec.crop[0], scale, random)
    columns = _draw_span(size[1], spec.crop[1], scale, random)
    if spec.padding == "end":
        rows, columns = replace(rows, padding=0), replace(columns, padding=0)
    return View(spec.crop, rows, columns, bool(random.random() < spec.flip))


def _draw_scale(spec: DataSpec, random: np.random.Generator) -> float:
    """Any scale in the range, or one that lies whole steps above its lower end."""
    low, high = spec.scale
    if spec.scale_step is None:
        return float(random.uniform(low, high))
    count = int((high - low) / spec.scale_step + 1e-6) + 1
    return float(low + spec.scale_step * random.integers(count))


def _draw_span(source: int, crop: int, scale: float, random: np.random.Generator) -> Span:
    scaled = max(1, round(source * scale))
    start = int(random.integers(0, max(scaled - crop, 0) + 1))
    return Span(source, scaled, start, min(scaled, crop), max(crop - scaled, 0) // 2)


def read_view(
    dataset: PreparedDataset,
    name: str,
    view: View,
    out: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    hidden: bool = False,
    votes: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The view of a sample, at the crop's size: image (h, w, bands) of its type, label uint8 (h, w) with 255 ignored.

    out: arrays of these shapes to write into.  hidden: do not look at the label; it is NO_LABEL where the picture is, and 255 at
    its padding.  votes: the numbers of the raters' ballots in place of the label.  Only the tiles that the view shows are read.
    """
    if out is None:
        out = np.empty((*view.crop, dataset.bands), dataset.pixel_type), np.empty(view.crop, np.uint8)
    image, label = out
    _place(_image_part(dataset, name, view), view, image, padding_of(dataset))
    shown = (view.rows.shown, view.columns.shown)
    part = np.full(shown, NO_LABEL, np.uint8) if hidden else _label_part(dataset.votes if votes else dataset.label, name, view)
    _place(part, view, label, IGNORED)
    return image, label


def padding_of(dataset: PreparedDataset) -> tuple[int, ...]:
    """What an image is padded with: ImageNet's mean colour for three bands of uint8, else the mean of each band."""
    rgb = dataset.bands == 3 and dataset.pixel_type == "uint8"
    return PADDING_RGB if rgb or dataset.pixels is None else dataset.pixels.padding


def _place(part: np.ndarray, view: View, out: np.ndarray, fill: int | tuple[int, ...]) -> None:
    """Write the shown part of the scaled image or label into `out` (h, w[, 3]), mirrored if the view is, and `fill` around it."""
    top, left = view.rows.padding, view.columns.padding
    bottom, right = top + view.rows.shown, left + view.columns.shown
    if view.flip:
        left, right = view.crop[1] - right, view.crop[1] - left
    out[:top], out[bottom:] = fill, fill
    out[top:bottom, :left], out[top:bottom, right:] = fill, fill
    if view.flip:
        cv2.flip(part, 1, dst=out[top:bottom, left:right])
    else:
        out[top:bottom, left:right] = part


def view_regions(view: View) -> tuple[Region, Region]:
    """The regions of image and label that a view reads, as (top, left, height, width) in source pixels."""
    (top, rows, _), (left, columns, _) = resize_from(view.rows), resize_from(view.columns)
    down, across = _nearest(view.rows), _nearest(view.columns)
    label = (int(down[0]), int(across[0]), int(down[-1] - down[0]) + 1, int(across[-1] - across[0]) + 1)
    return (top, left, rows, columns), label


def _image_part(dataset: PreparedDataset, name: str, view: View) -> np.ndarray:
    """(shown rows, shown columns, bands) of the image's type: the part of the scaled image that the view shows, bilinear."""
    top, rows, skip_rows = resize_from(view.rows)
    left, columns, skip_columns = resize_from(view.columns)
    region = dataset.image(name, top, left, rows, columns)
    if (view.rows.source, view.columns.source) != (view.rows.scaled, view.columns.scaled):
        # The scale is given instead of a size: a size would be rounded, and stretch the part a little against the whole.
        fx, fy = view.columns.scaled / view.columns.source, view.rows.scaled / view.rows.source
        region = cv2.resize(region, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
        region = region if region.ndim == 3 else region[..., None]  # OpenCV drops the axis of a single band
    part = region[skip_rows : skip_rows + view.rows.shown, skip_columns : skip_columns + view.columns.shown]
    return np.asarray(part)


def resize_from(span: Span) -> tuple[int, int, int]:
    """The source pixels whose resize contains the span's pixels: (first, how many, scaled pixels to skip in the result).

    Resizing the whole image puts scaled pixel d at source position (d + 1/2)·step - 1/2. A resize that starts at source pixel s
    samples the same positions only if s = d·step for a whole d. So the start is the last such d before the span.
    """
    step = span.source / span.scaled
    # The first scaled pixels of an enlarging resize lie before its first source pixel and repeat the border, so they must not
    # be shown.
    lead = max(0, int(np.ceil(0.5 / step - 0.5)))
    first = _last_on_a_source_pixel(max(0, span.start - lead), step)
    top = round(first * step)
    bottom = min(span.source, int(np.ceil((span.start + span.shown) * step)) + 1)
    return top, bottom - top, span.start - first


def _last_on_a_source_pixel(latest: int, step: float) -> int:
    """The last scaled pixel, at most `latest`, that starts where a source pixel does.

    Pixel 0 always does. If the step is nearly 1, no other within SEARCH_PX may, so the search then goes back to 0.
    """
    for earliest in (max(0, latest - SEARCH_PX), 0):
        places = np.arange(latest, earliest - 1, -1) * step
        fitting = np.abs(places - np.rint(places)) <= CLOSE_ENOUGH_PX
        if fitting.any():
            return latest - int(fitting.argmax())
    return 0


def _label_part(read: ReadLabel, name: str, view: View) -> np.ndarray:
    """uint8 (shown rows, shown columns): nearest-exact, each scaled pixel takes the label under its centre."""
    rows, columns = _nearest(view.rows), _nearest(view.columns)
    top, left = int(rows[0]), int(columns[0])
    region = read(name, top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1)
    if view.rows.scaled < view.rows.source:  # rows first when that leaves fewer of them to transpose
        return np.asarray(_take_columns(region.take(rows - top, axis=0), columns - left))
    return np.asarray(_take_columns(region, columns - left).take(rows - top, axis=0))


def _take_columns(label: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """label[:, columns] of uint8 (h, w). Picking rows copies long runs of memory, so transposing twice is four times as fast."""
    return np.asarray(cv2.transpose(cv2.transpose(label).take(columns, axis=0)))


def _nearest(span: Span) -> np.ndarray:
    """int (shown,): the source index under the centre of each shown pixel."""
    # (pixel + 1/2) · source / scaled in whole numbers: floating point would round some centres to a neighbour.
    pixels = np.arange(span.start, span.start + span.shown)
    return (2 * pixels + 1) * span.source // (2 * span.scaled)


@dataclass(frozen=True)
class Views:
    """The training views of a split: draws them, reads them, augments them.

    Augmentation is drawn from the same generator as the view and after it, so a run without augmentation sees the views that it
    always saw.

    unlabelled: the samples of the split that have no label, or whose label is hidden.  holders: for each class the samples whose
    labels show it.  rarity: for each class 1 / (its share of the labelled pixels), 0 for a class that no label shows. Both are
    empty where no operation looks for classes.  raters: whether labels are those of several raters.
    """

    dataset: PreparedDataset
    spec: DataSpec
    unlabelled: frozenset[str] = frozenset()
    holders: dict[int, list[str]] = field(default_factory=dict)
    rarity: dict[int, float] = field(default_factory=dict)
    raters: bool = False

    @classmethod
    def of(cls, dataset: PreparedDataset, split: str, spec: DataSpec) -> Self:
        """Raises InputError where an operation names an unknown class, or needs counts that an old dataset lacks."""
        require_known(dataset, spec.augment, "data.augment")
        seeking = [step for step in spec.augment if isinstance(step, ClassCropSpec | CopyPasteSpec)]
        unlabelled = names_without_label(dataset, split, spec.labelled)
        if (unlabelled or spec.unlabelled is not None) and dataset.classes.num_classes > NO_LABEL:
            raise InputError(
                f"'{dataset.name}' has {dataset.classes.num_classes} classes, wanted at most {NO_LABEL} for pictures "
                "without labels",
                "take data.unlabelled out, or merge classes",
            )
        if not seeking:
            return cls(dataset, spec, unlabelled)
        for index, step in enumerate(spec.augment):
            _class_ids(step, dataset, f"data.augment.{index}.classes")
        holders: dict[int, list[str]] = {}
        pixels: dict[int, int] = {}
        for name in (name for name in dataset.names(split) if name not in unlabelled):
            counts = dataset.samples[name].class_pixels
            if counts is None:
                raise InputError(
                    f"data.augment: got {seeking[0].kind}, which looks for classes, but '{dataset.folder}' does not say which "
                    "sample shows which class: an older segctl prepared it",
                    prepare_again(dataset.name, dataset.folder.parent),
                )
            for train_id, count in counts.items():
                holders.setdefault(int(train_id), []).append(name)
                pixels[int(train_id)] = pixels.get(int(train_id), 0) + count
        total = sum(pixels.values())
        return cls(dataset, spec, unlabelled, holders, {train_id: total / count for train_id, count in pixels.items()})

    def draw(self, name: str, random: np.random.Generator, *, hidden: bool = False) -> View:
        """The view of a sample, moved onto a rare class where `class_crop` says so; hidden: as for `read_marked`."""
        hidden = hidden or name in self.unlabelled
        view = draw_view(self.dataset.size(name), self.spec, random)
        for step in self.spec.augment:
            if isinstance(step, ClassCropSpec) and random.random() < step.probability and not hidden:
                shown = set(map(int, self.dataset.samples[name].class_pixels or ()))
                view = self._aimed(name, view, self._some_class(step, shown, random), random)
        return view

    def read(self, name: str, random: np.random.Generator) -> tuple[View, np.ndarray, np.ndarray]:
        """A view of a sample, drawn and augmented: the view, image (h, w, bands), label uint8 (h, w) with 255 ignored."""
        view, image, label = self.read_marked(name, random)
        if name in self.unlabelled:
            label[label == NO_LABEL] = IGNORED
        return view, image, label

    def read_marked(
        self,
        name: str,
        random: np.random.Generator,
        out: tuple[np.ndarray, np.ndarray] | None = None,
        *,
        hidden: bool = False,
    ) -> tuple[View, np.ndarray, np.ndarray]:
        """As `read`, with the label NO_LABEL at the real pixels of a picture without label, and 255 at its padding.

        out: arrays of these shapes to write into.  hidden: whether the picture's label is not to be looked at.  With `raters` the
        numbers of their ballots stand in place of the label, 255 where an operation ignores a pixel.
        """
        hidden = hidden or name in self.unlabelled
        view = self.draw(name, random, hidden=hidden)
        image, label = read_view(self.dataset, name, view, out, hidden=hidden, votes=self.raters)
        for step in self.spec.augment:
            if isinstance(step, ClassCropSpec) or random.random() >= step.probability:
                continue
            if isinstance(step, CopyPasteSpec):
                self._paste(step, image, label, random)
            else:
                apply(step, image, label, random, padding_of(self.dataset))
        return view, image, label

    def _paste(self, step: CopyPasteSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator) -> None:
        """Copy the pixels of one rare class from a view of another sample, in place."""
        chosen = self._some_class(step, self.holders, random)
        if chosen is None:
            return
        names = self.holders[chosen]
        name = names[int(random.integers(len(names)))]
        view = self._aimed(name, draw_view(self.dataset.size(name), self.spec, random), chosen, random)
        other_image, other_label = read_view(self.dataset, name, view)
        mask = (other_label == chosen).view(np.uint8)
        cv2.copyTo(other_image, mask, image)
        cv2.copyTo(other_label, mask, label)

    def _some_class(self, step: ClassCropSpec | CopyPasteSpec, among: Iterable[int], random: np.random.Generator) -> int | None:
        """One of the classes, the rarer the likelier; None if there is none."""
        wanted = _class_ids(step, self.dataset)
        classes = sorted(train_id for train_id in among if wanted is None or train_id in wanted)
        if not classes:
            return None
        weights = np.array([self.rarity[train_id] for train_id in classes])
        return int(random.choice(classes, p=weights / weights.sum()))

    def _aimed(self, name: str, view: View, train_id: int | None, random: np.random.Generator) -> View:
        """The view at another place, at which it shows a pixel of the class; the scale stays."""
        if train_id is None:
            return view
        places = np.flatnonzero(self.dataset.label(name) == train_id)
        row, column = divmod(int(random.choice(places)), view.columns.source)
        return replace(view, rows=_around(view.rows, row, random), columns=_around(view.columns, column, random))


def require_known(dataset: PreparedDataset, steps: Sequence[AugmentSpec], field: str) -> None:
    """Raise InputError for operations that are not defined for the images of a dataset.  field: the setting that has them."""
    for index, step in enumerate(steps):
        if isinstance(step, RGB_ALONE) and dataset.bands != 3:
            raise InputError(
                f"{field}.{index}: '{step.kind}' is for RGB, but images of '{dataset.name}' have {dataset.bands} bands",
                "leave it out; the others take any bands",
            )
        if isinstance(step, UINT8_ALONE) and dataset.pixel_type != "uint8":
            raise InputError(
                f"{field}.{index}: '{step.kind}' is for uint8 images, but those of '{dataset.name}' are {dataset.pixel_type}",
                "leave it out; 'data prepare --range LOW,HIGH' or '--range percentile' makes uint8 images",
            )


def unlabelled_names(names: Sequence[str], labelled: float) -> list[str]:
    """The names whose labels are hidden when only the share `labelled`, above 0 and at most 1, of the pictures has labels.

    At least one name keeps its label. Hashes of the names choose: any order of the names gives the same choice, and a smaller
    share keeps a part of what a larger one keeps.
    """
    count = max(1, round(labelled * len(names)))
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[count:]


def names_without_label(dataset: PreparedDataset, split: str, labelled: float) -> frozenset[str]:
    """The samples of a split that have no label, or whose label `unlabelled_names` hides."""
    names = dataset.names(split)
    return frozenset(unlabelled_names(names, labelled)) | {name for name in names if not dataset.has_label(name)}


@dataclass(frozen=True)
class TrainingNames:
    """The samples that a run's batches are made of.

    labelled: the stream of train.batch_size samples a step; of a training split without any label, all its samples.
    unlabelled: the stream of data.unlabelled.per_batch samples a step; empty without it.
    """

    labelled: list[str]
    unlabelled: list[str]

    @classmethod
    def of(cls, dataset: PreparedDataset, spec: DataSpec) -> Self:
        """Raises InputError for an unknown split, and for unlabelled pictures that the validation split holds too."""
        names = dataset.names(spec.train_split)
        hidden = names_without_label(dataset, spec.train_split, spec.labelled)
        labelled = [name for name in names if name not in hidden]
        if spec.unlabelled is None:
            return cls(labelled or names, [])
        pool = {*hidden, *(dataset.names(spec.unlabelled.split) if spec.unlabelled.split is not None else ())}
        if scored := sorted(pool & set(dataset.splits.get(spec.val_split, ()))):
            raise InputError(
                f"data.unlabelled.split: '{spec.unlabelled.split}' holds '{scored[0]}', which is also in data.val_split",
                "no network may learn from what scores it; take another split",
            )
        if len(pool) < spec.unlabelled.per_batch:
            raise InputError(
                f"data.unlabelled.per_batch: got {spec.unlabelled.per_batch}, wanted at most {len(pool)}, the pictures without "
                f"labels in '{dataset.name}'",
                f"add --set data.unlabelled.per_batch={len(pool)}" if pool else "prepare it with --unlabelled DIR",
            )
        return cls(labelled, sorted(pool))


def _around(span: Span, source: int, random: np.random.Generator) -> Span:
    """The span at a random place of those that show the scaled pixel of a source pixel."""
    pixel = min(span.scaled - 1, (2 * source + 1) * span.scaled // (2 * span.source))
    low, high = max(0, pixel - span.shown + 1), min(pixel, span.scaled - span.shown)
    return replace(span, start=int(random.integers(low, high + 1)))


def _class_ids(step: AugmentSpec, dataset: PreparedDataset, where: str = "") -> set[int] | None:
    """The train ids of the classes that an operation names; None for any class. Raises InputError for an unknown name."""
    names = getattr(step, "classes", None)
    if names is None:
        return None
    known = dataset.classes.names
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise InputError(
            f"{where}: got '{unknown}', wanted a class of '{dataset.name}'{did_you_mean(unknown, known)}",
            f"it has {', '.join(known)}",
        )
    return {known.index(name) for name in names}
