"""Datasets that lie in folders of images and folders of index maps, as their archives hold them.

A dataset's file says where both lie, its class table and its official counts; everything else is here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segctl.data.classes import ClassTable
from segctl.data.datasets.class_file import read_classes
from segctl.data.datasets.pairs import IdMap, PairReader, PictureLabel
from segctl.data.files.archives import File, Files, open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError


def class_table_of(name: str) -> ClassTable:
    """The class table in `tables/NAME.csv`, which has the columns of a person's own class table."""
    return read_classes(Path(__file__).parent / "tables" / f"{name}.csv").table


@dataclass(frozen=True)
class Published:
    """How a dataset was published.

    image, label: patterns of the ends of paths, with the groups `split` (a folder) and `name`.  splits: the split that each of
    these folders is, and how many pictures it officially has.  ids: how index maps become train ids.  layout: what to give with
    --source.
    """

    name: str
    rule: str
    image: str
    label: str
    splits: Mapping[str, tuple[str, int]]
    classes: ClassTable
    ids: IdMap
    layout: str
    image_modes: tuple[str, ...] = ("RGB", "L")
    label_modes: tuple[str, ...] = ("L", "P")

    def open(self, paths: Sequence[Path]) -> Source:
        """Pair images with labels. Raises InputError if there is no pair.

        Splits without images, or without labels, are left out with a note; a file without its partner in the other splits is a
        problem.
        """
        image, label = (re.compile(rf"(?:^|/){pattern}$") for pattern in (self.image, self.label))
        files = open_files(paths, lambda path: bool(image.search(path) or label.search(path)))
        images, labels = _Found.of(files, image), _Found.of(files, label)
        splits: dict[str, list[str]] = {}
        notes: list[str] = []
        problems = [*images.twice, *labels.twice]
        for folder, (split, official) in self.splits.items():
            pictures, maps = images.split.get(folder, {}), labels.split.get(folder, {})
            if not pictures and not maps:
                continue
            if not pictures or not maps:
                notes.append(f"{split} is left out: it has no {'label maps' if pictures else 'pictures'} in {files.names}")
                continue
            splits[split] = sorted(pictures.keys() & maps.keys())
            problems += [_alone(name, split, name in pictures, files) for name in sorted(pictures.keys() ^ maps.keys())]
            if len(splits[split]) != official:
                notes.append(f"{split} has {len(splits[split])} of the official {official} pictures")
        if not any(splits.values()):
            raise InputError(
                f"the source {files.given} has no pictures of '{self.name}' with label maps: {self._met(images, labels)}",
                self.layout,
            )
        names = {name: folder for folder, (split, _) in self.splits.items() for name in splits.get(split, ())}
        return Source(
            name=self.name,
            rule=self.rule,
            origin=f"{files.names} in the official layout",
            decoder=DECODER,
            classes=self.classes,
            splits=splits,
            samples=PairReader(
                {name: Picture(name, "image", images.split[at][name], self.image_modes) for name, at in names.items()},
                {
                    name: PictureLabel(Picture(name, "label", labels.split[at][name], self.label_modes), self.ids)
                    for name, at in names.items()
                },
            ),
            notes=(*files.notes, *notes),
            problems=tuple(problems),
        )

    def _met(self, images: "_Found", labels: "_Found") -> str:
        pictures, maps = (sum(map(len, found.split.values())) for found in (images, labels))
        return f"it has {pictures} pictures ({self.image}) and {maps} label maps ({self.label})".replace("\\", "")


@dataclass
class _Found:
    """The files of one kind: by folder and sample; and a finding for each sample that occurs twice."""

    split: dict[str, dict[str, File]] = field(default_factory=dict)
    twice: list[Finding] = field(default_factory=list)

    @classmethod
    def of(cls, files: Files, pattern: re.Pattern[str]) -> "_Found":
        found = cls()
        first: dict[str, File] = {}
        for path, file in files.members.items():
            if (match := pattern.search(path)) is None:
                continue
            name = match["name"]
            if name in first:
                problem = f"sample '{name}' occurs twice, as '{first[name].where}' and '{file.where}'"
                found.twice.append(Finding(name, problem, "keep one of them"))
            first[name] = file
            found.split.setdefault(match["split"], {})[name] = file
        return found


def _alone(name: str, split: str, is_image: bool, files: Files) -> Finding:
    there, absent = ("image", "label map") if is_image else ("label map", "image")
    problem = f"sample '{name}' of split '{split}' has its {there} but no {absent} in {files.given}"
    return Finding(name, problem, f"add the {absent}, or remove the {there}")
