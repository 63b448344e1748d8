"""A network's classes -> those of another dataset, so that the network can be scored on it.

Without a file, classes of one name are the same (letter case, spaces and punctuation do not matter). A file maps them by hand:
a YAML mapping of the network's classes to the dataset's, `truck: car` or `sky: null`; several may become one. A prediction of a
class that becomes none is a miss and no class's false positive, as predictions outside the classes are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segctl.errors import InputError, did_you_mean
from segctl.ignored import IGNORED
from segctl.models.external.foreign import plain_name
from segctl.schema.load import read_tree

UNMAPPED = IGNORED
"""The id of predictions of none of the dataset's classes; a prediction of 255 is outside the classes of any dataset."""
FORM = "write a YAML mapping of the network's classes to the dataset's, such as `truck: car` or `sky: null`"


@dataclass(frozen=True)
class ClassMap:
    """For each class of the network, in its order, the id of the dataset's class, or UNMAPPED; and the names of both."""

    ids: tuple[int, ...]
    ours: tuple[str, ...]
    theirs: tuple[str, ...]

    @property
    def is_identity(self) -> bool:
        return self.ids == tuple(range(len(self.theirs)))

    @property
    def is_one_to_one(self) -> bool:
        """Whether each class of the dataset is one class of the network, and the reverse, so that probabilities can be kept."""
        return sorted(self.ids) == list(range(len(self.theirs)))

    def of_predictions(self, prediction: Tensor) -> Tensor:
        """Class maps uint8 (B, H, W) of the network's ids -> of the dataset's."""
        table = torch.tensor(self.ids, dtype=torch.uint8, device=prediction.device)
        return table[prediction.long()]

    def of_probabilities(self, probabilities: Tensor) -> Tensor:
        """(B, C, H, W) in the network's order of classes -> in the dataset's. Only for a map that is one to one."""
        return probabilities[:, np.argsort(self.ids).tolist()]

    def by_name(self) -> dict[str, str | None]:
        """What scores.json says: each class of the network, and the class of the dataset that it counts as."""
        return {name: None if index == UNMAPPED else self.theirs[index] for name, index in zip(self.ours, self.ids, strict=True)}

    def warnings(self) -> list[str]:
        """What is allowed but costs points: network classes that map to none, and dataset classes that none maps to."""
        none = [name for name, index in zip(self.ours, self.ids, strict=True) if index == UNMAPPED]
        absent = [name for index, name in enumerate(self.theirs) if index not in self.ids]
        found = []
        if none:
            found.append(f"predictions of {', '.join(none)} count as misses: the dataset has no such class")
        if absent:
            found.append(f"the network never predicts {', '.join(absent)}, so their IoU is 0 wherever they occur")
        return found


def map_classes(ours: Sequence[str], theirs: Sequence[str], file: Path | None, dataset: str) -> ClassMap:
    """The map from a network's classes to a dataset's, by a file or by name.

    Raises InputError where a class of the dataset has no namesake and no file is given, and for a file that leaves out a class of
    the network or names one that neither has.
    """
    if file is not None:
        return _from_file(ours, theirs, file, dataset)
    places = {plain_name(name): index for index, name in enumerate(theirs)}
    ids = tuple(places.get(plain_name(name), UNMAPPED) for name in ours)
    if missing := [name for index, name in enumerate(theirs) if index not in ids]:
        raise InputError(
            f"the network knows no class called {', '.join(missing)}, which '{dataset}' has; it knows {', '.join(ours)}",
            f"give --class-map FILE: {FORM}",
        )
    return ClassMap(ids, tuple(ours), tuple(theirs))


def _from_file(ours: Sequence[str], theirs: Sequence[str], file: Path, dataset: str) -> ClassMap:
    tree = read_tree(file)
    for name, target in tree.items():
        if name not in ours:
            raise InputError(f"'{file}': the network has no class '{name}'{did_you_mean(str(name), list(ours))}", FORM)
        if target is not None and target not in theirs:
            raise InputError(f"'{file}': '{dataset}' has no class '{target}'{did_you_mean(str(target), list(theirs))}", FORM)
    if left := [name for name in ours if name not in tree]:
        raise InputError(
            f"'{file}' says nothing about the network's {', '.join(left)}", "map each class; `null` maps it to no class"
        )
    places = {name: index for index, name in enumerate(theirs)}
    return ClassMap(tuple(UNMAPPED if tree[name] is None else places[tree[name]] for name in ours), tuple(ours), tuple(theirs))
