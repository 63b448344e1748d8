"""The source that most datasets come down to: a picture file and a label file for every sample."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from segctl.data.classes import ClassTable
from segctl.data.datasets.label_files import LabelFile
from segctl.data.files.entries import File, read_lines
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.sample import RawSample
from segctl.errors import InputError


@dataclass(frozen=True)
class Pairs:
    """Samples of pictures and labels; `problems` is what opening the source found, for `prepare` to refuse."""

    name: str
    rule: str
    origin: str
    classes: ClassTable
    splits: dict[str, list[str]]
    images: dict[str, Picture]
    labels: dict[str, LabelFile]
    instances: dict[str, "InstanceMap"]
    groups: dict[str, str] | None
    notes: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()
    decoder: str = DECODER

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) from the headers, image, label and instance map compared."""
        image, wanted = self.images[name], self.images[name].size()
        others: list[tuple[object, tuple[int, int] | None]] = [(_picture(self.labels[name]), self.labels[name].size())]
        if name in self.instances:
            others.append((self.instances[name].picture, self.instances[name].picture.size()))
        for what, got in others:
            _compare(what, got, wanted, image)
        return wanted

    def digest(self, name: str) -> str:
        parts = [self.images[name].digest(), self.labels[name].digest()]
        return _joint_sha256(parts + [self.instances[name].picture.digest() for _ in range(name in self.instances)])

    def read(self, name: str) -> RawSample:
        self.size(name)
        image, label = self.images[name].decode(), self.labels[name].decode()
        height, width = image.array.shape[:2]
        _compare(_picture(self.labels[name]), label.array.shape[:2], (height, width), self.images[name])
        grey = image.array.ndim == 2
        digests, count = [image.sha256, label.sha256], len(image.content) + label.byte_count
        instance = None
        if name in self.instances:
            decoded = self.instances[name].picture.decode()
            instance = self.instances[name].check(decoded.array, label.array)
            digests, count = [*digests, decoded.sha256], count + len(decoded.content)
        return RawSample(
            name=name,
            image=np.repeat(image.array[..., None], 3, axis=2) if grey else image.array,
            label=label.array,
            instance=instance,
            source_sha256=_joint_sha256(digests),
            source_bytes=count,
            unknown_pixels=label.unknown_pixels,
            image_file=None if grey else image.content,
        )


@dataclass(frozen=True)
class InstanceMap:
    """A 16-bit map whose values below 1000 are raw ids, and above `raw id · 1000 + number`; `train` maps raw to train ids."""

    picture: Picture
    train: bytes

    def check(self, instance: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The map, uint16 (H, W), once it agrees with the label everywhere."""
        raw = np.where(instance < 1000, instance, instance // 1000)
        other = int(np.count_nonzero(np.frombuffer(self.train, np.uint8)[np.minimum(raw, 255)] != label))
        if other:
            raise InputError(f"{self.picture} shows other classes than the label on {other} pixels", "get both files again")
        return instance


def _compare(what: object, got: tuple[int, int] | None, wanted: tuple[int, int], image: Picture) -> None:
    if got is not None and got != wanted:
        raise InputError(
            f"{what} is {got[1]}×{got[0]} pixels, wanted {wanted[1]}×{wanted[0]} as its image", "replace the one that was resized"
        )


def _picture(label: LabelFile) -> object:
    """What a label is called in a sentence."""
    return getattr(label, "picture", label)


def _joint_sha256(digests: list[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def unpaired(images: Iterable[str], labels: Iterable[str], missing: Callable[[str, str], str]) -> list[Finding]:
    """A finding for every name in only one of both; `missing(role, name)` says which file is wanted, and where."""
    found = []
    pictures = set(images)
    for name in sorted(pictures ^ set(labels)):
        there, absent = ("image", "label") if name in pictures else ("label", "image")
        found.append(
            Finding(
                name,
                f"sample '{name}' has its {there} but no {absent}: {missing(absent, name)}",
                f"add the {absent}, or remove the {there}",
            )
        )
    return found


def read_list(file: File, stem: Callable[[str], str]) -> tuple[list[str], list[Finding]]:
    """The names in a list file, in its order, each once; and a finding for each that is repeated."""
    names: dict[str, None] = {}
    repeated = []
    for line in read_lines(file):
        name = stem(line)
        if name in names:
            repeated.append(Finding(name, f"'{file.where}' lists '{name}' more than once", "remove the repeated line"))
        names[name] = None
    return list(names), repeated
