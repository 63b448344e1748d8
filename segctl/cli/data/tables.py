"""Tables of the data commands: problems, counts and classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segctl.cli.output import out
from segctl.commands import command_line
from segctl.errors import CheckError

if TYPE_CHECKING:
    from segctl.data.findings import Finding
    from segctl.data.inspect.info import SplitInfo
    from segctl.data.shards.dataset import PreparedDataset

MAX_ROWS, MAX_SIZES, FULL_SPLITS = 40, 4, 3


def show_findings(what: str, findings: "Sequence[Finding]", *, json: bool, hint: str) -> None:
    """Show the findings, and how many there are of each kind. Raises CheckError if there is any."""
    from dataclasses import asdict

    from segctl.data.findings import summarise

    if json:
        out.json([asdict(finding) for finding in findings])
    elif findings:
        rows = [[finding.sample or "(all)", finding.problem] for finding in findings[:MAX_ROWS]]
        more = [f"and {len(findings) - MAX_ROWS} more; --json lists them all"] if len(findings) > MAX_ROWS else []
        out.table(f"Problems of {what}", ["sample", "problem"], rows, more)
        kinds = [[kind.pattern, f"{kind.count}", kind.example or "(all)", kind.hint] for kind in summarise(findings)]
        out.result("")
        out.table("By kind", ["problem", "count", "for example", "what to do"], kinds)
    if findings:
        count = "one problem" if len(findings) == 1 else f"{len(findings)} problems"
        raise CheckError(f"{what} has {count}", hint)


def show_prepared(dataset: "PreparedDataset") -> None:
    """Show the splits and sizes of a prepared dataset, its notes, and the next command."""
    splits = ", ".join(f"{split} {len(names)}" for split, names in dataset.splits.items())
    sizes = f"{megabytes(dataset.shard_bytes())} of {dataset.provenance.codec} shards from {megabytes(dataset.source_bytes())}"
    out.result(f"{dataset.name}: {splits}; {sizes}; fingerprint {dataset.fingerprint[:12]}")
    for remark in remarks(dataset):
        out.note(remark)
    for text in dataset.judged_labels().warnings:
        out.warn(text)
    if dataset.trial:
        out.warn(f"'{dataset.name}' is {dataset.trial}; prepare it without --limit to pack all samples")
    out.note(f"next: {command_line('data', 'info', dataset.name, data_root=dataset.folder.parent)}")


def remarks(dataset: "PreparedDataset") -> list[str]:
    """Notes on what was left out, the statistics of chosen bands, several raters, and pixels whose colour belongs to no class."""
    unknown = dataset.unknown_pixels()
    stray = (
        [f"{sum(unknown.values())} pixels in {len(unknown)} samples have a colour that belongs to no class and are ignored"]
        if unknown
        else []
    )
    statistics = dataset.pixels.statistics_in_words() if dataset.pixels is not None else ""
    most = dataset.most_raters
    raters = f"up to {most} raters labelled each picture; the counts are those of their majority" if most else ""
    return [*dataset.provenance.notes, *filter(None, (statistics, raters)), *stray]


def show_info(dataset: "PreparedDataset", splits: "Sequence[SplitInfo]") -> None:
    """Show images, sizes and groups of each split, then the classes."""
    rows = [[split.split, f"{split.count}", _sizes(split), _groups(split), _ignored(split)] for split in splits]
    trial = f" ({dataset.trial})" if dataset.trial else ""
    title = f"{dataset.name}, {len(dataset.samples)} samples{trial}"
    out.table(title, ["split", "images", "sizes", "groups", "ignored %"], rows, remarks(dataset))
    splits = [split for split in splits if split.unlabelled < split.count]  # a split without labels shows no classes
    if not splits:
        return
    full = len(splits) <= FULL_SPLITS
    columns = ["class"] + [
        f"{split.split} {what}" for split in splits for what in (("pixels", "%", "images") if full else ("%",))
    ]
    rows = [
        [name, *(cell for split in splits for cell in _cells(split, index, full=full))]
        for index, name in enumerate(dataset.classes.names)
    ]
    notes = ["%: share of the pixels that are not ignored; images: how many show the class"]
    out.result("")
    drop = [f"{split.split} {what}" for what in ("pixels", "images") for split in splits]
    notes = notes if full else ["%: share of the pixels that are not ignored; --split shows one split in full"]
    out.table("Classes", columns, rows, notes, drop=drop)


def _cells(split: "SplitInfo", index: int, *, full: bool) -> list[str]:
    share = f"{split.shares[index]:.3f}"
    return [f"{split.pixels[index]}", share, f"{split.images[index]}"] if full else [share]


def _ignored(split: "SplitInfo") -> str:
    """The percentage of ignored pixels, and how many images have no label."""
    if split.unlabelled == split.count:
        return "no labels"
    return f"{split.ignored_share:.3f}" + (f", {split.unlabelled} without label" if split.unlabelled else "")


def _sizes(split: "SplitInfo") -> str:
    """The most frequent sizes; if there are many, also their number and the shortest and longest side."""
    shown = ", ".join(f"{size} ({count})" for size, count in list(split.sizes.items())[:MAX_SIZES])
    if len(split.sizes) <= MAX_SIZES:
        return shown
    shortest, longest = split.sides
    return f"{shown}, {len(split.sizes) - MAX_SIZES} other sizes; sides of {shortest} to {longest}"


def _groups(split: "SplitInfo") -> str:
    shown = ", ".join(f"{group} {count}" for group, count in list(split.groups.items())[:MAX_SIZES])
    return shown + (f", {len(split.groups) - MAX_SIZES} others" if len(split.groups) > MAX_SIZES else "")


def megabytes(count: int) -> str:
    """A number of bytes in megabytes."""
    return f"{count / 1e6:.1f} MB"
