"""What would keep a source from being packed, all of it: `prepare` itself stops at the first."""

import zlib
from collections.abc import Callable

from segctl.data.datasets import Source
from segctl.data.findings import Finding
from segctl.data.inspect.duplicates import Pictures
from segctl.errors import InputError


def check_source(source: Source, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Finding]:
    """Every unpaired file, every sample that cannot be read or does not fit its class table, every picture in two splits."""
    findings = list(source.problems)
    names = sorted({name for names in source.splits.values() for name in names})
    pictures = Pictures(source.splits, lambda name: source.read(name).image)
    for done, name in enumerate(names, start=1):
        try:
            sample = source.read(name)
            pictures.add(name, sample.image.shape, zlib.crc32(sample.image.data))
        except InputError as error:
            findings.append(Finding(name, error.message, error.hint))
        progress(done, len(names))
    return [*findings, *pictures.overlaps(), *pictures.findings()]
