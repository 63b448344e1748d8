"""The same sample, or the same image under two names, in splits that must not share any."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from segctl.data.findings import Finding
from segctl.data.splits import must_not_meet


class Pictures:
    """The images seen so far, by shape and CRC-32, which is cheap; at the end those that agree are compared by SHA-256.

    read: gives the image, uint8 (H, W, 3), of a sample.  grouped: whether samples are parts of something, such as tiles of a
    picture. Then an image of one colour does not count: many satellite pictures have the same border.
    """

    def __init__(self, splits: Mapping[str, Sequence[str]], read: Callable[[str], np.ndarray], *, grouped: bool = False) -> None:
        self._splits, self._read, self._grouped = splits, read, grouped
        self._alike: dict[tuple[tuple[int, ...], int], list[str]] = defaultdict(list)

    def add(self, name: str, shape: tuple[int, ...], crc: int) -> None:
        self._alike[shape, crc].append(name)

    def findings(self) -> list[Finding]:
        """Equal images in two splits that must not share any; each is named once, beside an earlier sample."""
        found = []
        of_sample: dict[str, list[str]] = defaultdict(list)
        for split, names in self._splits.items():
            for name in names:
                of_sample[name].append(split)
        for same in self.groups():
            for index, name in enumerate(same):
                finding = next((clash for other in same[:index] if (clash := _clash(of_sample, other, name))), None)
                found += [finding] if finding else []
        return found

    def repeated(self, unlabelled: Collection[str]) -> list[str]:
        """The unlabelled samples that show what a labelled one shows too, or an earlier unlabelled one, sorted."""
        found = []
        for same in self.groups():
            lacking = [name for name in same if name in unlabelled]
            found += lacking if len(lacking) < len(same) else lacking[1:]
        return sorted(found)

    def groups(self) -> Iterator[list[str]]:
        """The samples that show equal images, at least two of each, sorted."""
        for names in self._alike.values():
            yield from (same for same in self._same(sorted(names)) if len(same) > 1)

    def _same(self, names: list[str]) -> list[list[str]]:
        """The samples in groups of equal images."""
        if len(names) < 2:
            return []
        groups: dict[bytes, list[str]] = defaultdict(list)
        for name in names:
            image = self._read(name)
            if self._grouped and (image == image[0, 0]).all():
                continue
            groups[hashlib.sha256(np.ascontiguousarray(image).data).digest()].append(name)
        return list(groups.values())


def _clash(of_sample: Mapping[str, Sequence[str]], other: str, name: str) -> Finding | None:
    for first in of_sample[other]:
        for second in of_sample[name]:
            if must_not_meet(first, second):
                return Finding(name, f"shows the same picture as '{other}', in the splits '{second}' and '{first}'")
    return None
