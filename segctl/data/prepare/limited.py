"""A trial: a source of which only a few samples of each split are packed."""

from dataclasses import dataclass

from segctl.data.classes import ClassTable
from segctl.data.datasets import Source
from segctl.data.findings import Finding
from segctl.data.sample import RawSample
from segctl.errors import InputError


@dataclass(frozen=True)
class Limited:
    """A source with fewer names in its splits; everything else is the source's own."""

    whole: Source
    splits: dict[str, list[str]]

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def rule(self) -> str:
        return self.whole.rule

    @property
    def origin(self) -> str:
        return self.whole.origin

    @property
    def decoder(self) -> str:
        return self.whole.decoder

    @property
    def classes(self) -> ClassTable:
        return self.whole.classes

    @property
    def groups(self) -> dict[str, str] | None:
        groups = self.whole.groups
        kept = {name for names in self.splits.values() for name in names}
        return None if groups is None else {name: group for name, group in groups.items() if name in kept}

    @property
    def notes(self) -> tuple[str, ...]:
        return self.whole.notes

    @property
    def problems(self) -> tuple[Finding, ...]:
        return self.whole.problems

    def size(self, name: str) -> tuple[int, int]:
        return self.whole.size(name)

    def digest(self, name: str) -> str:
        return self.whole.digest(name)

    def read(self, name: str) -> RawSample:
        return self.whole.read(name)


def limited(source: Source, limit: int) -> Limited:
    """At most `limit` samples of each split, evenly spread over it. Raises InputError for less than one."""
    if limit < 1:
        raise InputError(f"--limit is {limit}, wanted at least 1", "leave it out to pack the whole dataset")
    splits = {}
    for split, names in source.splits.items():
        count = min(limit, len(names))
        splits[split] = [names[index * len(names) // count] for index in range(count)]
    return Limited(source, splits)
