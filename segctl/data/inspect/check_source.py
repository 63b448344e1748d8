"""All problems of a source that `prepare` would refuse; `prepare` itself stops at the first."""

import zlib
from collections.abc import Callable

from segctl.data.classes import LabelCounts, counts_of_splits, judge_labels
from segctl.data.findings import Finding
from segctl.data.inspect.duplicates import Pictures
from segctl.data.source import Source
from segctl.data.splits import overlaps
from segctl.errors import InputError


def check_source(
    source: Source,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """Every file without partner, every sample that cannot be read or does not fit its class table, every image in two splits.

    warn: gets a sentence for what is likely a problem and not certain, such as a class that no label shows.
    """
    findings = list(source.problems)
    names = sorted({name for listed in source.splits.values() for name in listed})
    labels: dict[str, LabelCounts] = {}
    pictures = Pictures(source.splits, lambda name: source.samples.read(name).image, grouped=source.groups is not None)
    for done, name in enumerate(names, start=1):
        try:
            # A resized label is the wrong size before it holds wrong ids, so the size comes first, as in `prepare`.
            source.samples.size(name)
            sample = source.samples.read(name)
            pictures.add(name, sample.image.shape, zlib.crc32(sample.image.data))
            if sample.label is not None:
                labels[name] = LabelCounts.of(sample.label, source.classes.num_classes, sample.unknown_values, sample.remarks)
        except InputError as error:
            findings.append(Finding(name, error.message, error.hint))
        progress(done, len(names))
    if repeated := pictures.repeated(source.unlabelled):
        what = "1 unlabelled picture shows" if len(repeated) == 1 else f"{len(repeated)} unlabelled pictures show"
        warn(f"{what} what another sample shows too, such as '{repeated[0]}'; `prepare` leaves them out")
    judged = judge_labels(counts_of_splits(source.splits, labels), source.classes, source.label_advice)
    for text in judged.warnings:
        warn(text)
    findings += judged.certain
    return [*findings, *overlaps(source.splits), *pictures.findings()]
