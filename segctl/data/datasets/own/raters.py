"""Label maps of several raters of a person's own pictures: a folder, archive or pattern for each rater (--labels A --labels B).

The first rater has a label of every picture. Another rater may lack some; such pictures have fewer raters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.pairing import PairedFiles, keys_of, pair_files
from segctl.data.datasets.pairs import LabelFile, RatedLabel
from segctl.data.files.archives import File, Files
from segctl.data.findings import Finding
from segctl.errors import InputError
from segctl.files import real_path

NO_IMAGE = "but no image"
"""In the problem of a label map that belongs to no picture."""


def pair_raters(
    own: OwnFiles, pictures: Files, first: PairedFiles, labels: Sequence[Files]
) -> tuple[list[dict[str, File]], list[Finding]]:
    """The label maps of each further rater by sample, and a finding for each that belongs to no picture.

    Raises InputError for a rater whose files have the names of no picture, and for files that are given twice.
    """
    samples = {path: sample for sample, path in first.paths.items()}
    given = [str(real_path(path)) for path in (own.labels, *own.raters)]
    if len(set(given)) < len(given):
        raise InputError(f"--labels gives '{max(given, key=given.count)}' twice, wanted other files for each rater")
    found, problems = [], []
    for path, files in zip(own.raters, labels, strict=True):
        paired = pair_files(pictures, files, keys_of(replace(own, labels=path)))
        found.append({samples[paired.paths[name]]: file for name, file in paired.labels.items() if paired.paths[name] in samples})
        problems += [one for one in paired.problems if NO_IMAGE in one.problem]
    return found, problems


def with_raters(
    labels: Mapping[str, LabelFile], others: Sequence[Mapping[str, File]], label_of: Callable[[str, File], LabelFile]
) -> tuple[dict[str, LabelFile], list[str]]:
    """The labels of the first rater joined by those of the others, and a note on pictures that some rater left out."""
    joined = {
        sample: RatedLabel((label, *(label_of(sample, files[sample]) for files in others if sample in files)))
        for sample, label in labels.items()
    }
    scant = sum(len(label.files) <= len(others) for label in joined.values())
    note = f"{scant} of {len(joined)} pictures have fewer than {len(others) + 1} raters"
    return dict(joined), [note] if scant else []
