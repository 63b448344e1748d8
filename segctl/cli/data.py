"""`segctl data`: prepare datasets, check them, and look at them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segctl.cli.options import DATA_ROOT, DataRootOpt, JsonOpt
from segctl.cli.output import out
from segctl.errors import CheckError

if TYPE_CHECKING:
    from segctl.data.info import SplitInfo
    from segctl.data.packed import PackedDataset

app = typer.Typer(no_args_is_help=True, help="Prepare, check and look at datasets.")

NameArg = Annotated[str, typer.Argument(metavar="NAME", help="A dataset's name; `segctl data list` shows them.")]
MAX_ROWS, MAX_SIZES = 40, 4


@app.command("list")
def list_datasets(data_root: DataRootOpt = DATA_ROOT, json: JsonOpt = False) -> None:
    """List the datasets: what they need, where they come from, whether they are here."""
    from dataclasses import asdict

    from segctl.data.listing import list_datasets

    listings = list_datasets(data_root)
    if json:
        out.json([asdict(listing) for listing in listings])
        return
    rows = []
    for listing in listings:
        ready = f"{listing.samples} samples, {megabytes(listing.bytes)}"
        here = ready if listing.state == "ready" else listing.state or "no"
        rows.append([listing.name, here, listing.needs, listing.origin])
    out.table(f"Datasets in {data_root}", ["name", "here", "needs", "comes from"], rows)


@app.command()
def prepare(
    name: NameArg,
    source: Annotated[Path | None, typer.Option("--source", metavar="PATH", help="The dataset as it was published.")] = None,
    codec: Annotated[
        str,
        typer.Option("--codec", metavar="CODEC", help="lz4 is fast, zstd half the room, source keeps the files, none is raw."),
    ] = "lz4",
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=0, help="Processes; one per core if left out.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="A trial: at most N samples of each split.", show_default=False)
    ] = None,
    release: Annotated[
        str | None, typer.Option("--release", metavar="NAME", help="Of camvid, what to download: 480x360 or 960x720.")
    ] = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Download a dataset where that is allowed, or take it from --source, and convert it to checked shards."""
    import time

    from segctl.cli.fetching import fetch_archives
    from segctl.data.prepare import created_at, prepare_source
    from segctl.data.shards import parse_codec
    from segctl.data.sources import open_source

    packing = parse_codec(codec)
    paths = [source] if source is not None else fetch_archives(name, data_root, release)
    opened = open_source(name, paths)
    before, began = created_at(data_root, name), time.monotonic()
    with out.progress(f"preparing {name}") as progress:
        dataset = prepare_source(opened, data_root, codec=packing, workers=workers, limit=limit, progress=progress)
    if dataset.provenance.created == before:
        out.note(f"'{dataset.folder}' was made from these very bytes; nothing to do")
    else:
        out.note(f"packed in {time.monotonic() - began:.1f} s")
    splits = ", ".join(f"{split} {len(names)}" for split, names in dataset.splits.items())
    sizes = f"{megabytes(dataset.shard_bytes())} of {dataset.provenance.codec} shards from {megabytes(dataset.source_bytes())}"
    out.result(f"{name}: {splits}; {sizes}; fingerprint {dataset.fingerprint[:12]}")
    if dataset.trial:
        out.warn(f"'{name}' is {dataset.trial}; prepare it without --limit to have it whole")
    out.note(f"next: segctl data info {name}")


@app.command()
def check(name: NameArg, data_root: DataRootOpt = DATA_ROOT, json: JsonOpt = False) -> None:
    """Read every sample back and compare it with its checksum and the class table; exit code 3 where anything is wrong."""
    from dataclasses import asdict

    from segctl.data.check import check
    from segctl.data.packed import open_dataset

    with out.progress(f"checking {name}") as progress:
        findings = check(data_root, name, progress)
    if json:
        out.json([asdict(finding) for finding in findings])
    elif findings:
        rows = [[finding.sample or "(all)", finding.problem] for finding in findings[:MAX_ROWS]]
        more = [f"and {len(findings) - MAX_ROWS} more; --json lists them all"] if len(findings) > MAX_ROWS else []
        out.table(f"Problems of {name}", ["sample", "problem"], rows, more)
    else:
        trial = open_dataset(data_root, name).trial
        out.result(f"{name}: every sample is as it was packed" + (f" ({trial})" if trial else ""))
    if findings:
        count = "one problem" if len(findings) == 1 else f"{len(findings)} problems"
        raise CheckError(f"'{name}' in '{data_root}' has {count}", "prepare it again")


@app.command()
def info(name: NameArg, data_root: DataRootOpt = DATA_ROOT, json: JsonOpt = False) -> None:
    """Count images, sizes and classes, per split."""
    from segctl.data.info import describe
    from segctl.data.packed import open_dataset

    dataset = open_dataset(data_root, name)
    with out.progress(f"counting {name}") as progress:
        splits = describe(dataset, progress)
    if json:
        about = {"dataset": dataset.name, "trial": dataset.trial, "fingerprint": dataset.fingerprint}
        about_classes = {"classes": dataset.classes.names}
        out.json({**about, **about_classes, "splits": {split.split: split.to_json(dataset.classes.names) for split in splits}})
        return
    _show_info(dataset, splits)


def _show_info(dataset: "PackedDataset", splits: "list[SplitInfo]") -> None:
    rows = []
    for split in splits:
        sizes = ", ".join(f"{size} ({count})" for size, count in list(split.sizes.items())[:MAX_SIZES])
        sizes += f", {len(split.sizes) - MAX_SIZES} other sizes" if len(split.sizes) > MAX_SIZES else ""
        groups = ", ".join(f"{group} {count}" for group, count in split.groups.items())
        rows.append([split.split, f"{split.count}", sizes, groups, f"{split.ignored_share:.3f}"])
    trial = f" ({dataset.trial})" if dataset.trial else ""
    out.table(f"{dataset.name}, {len(dataset.samples)} samples{trial}", ["split", "images", "sizes", "groups", "ignored %"], rows)
    columns = ["class"] + [f"{split.split} {what}" for split in splits for what in ("pixels", "%", "images")]
    rows = []
    for index, name in enumerate(dataset.classes.names):
        cells = [
            cell
            for split in splits
            for cell in (f"{split.pixels[index]}", f"{split.shares[index]:.3f}", f"{split.images[index]}")
        ]
        rows.append([name, *cells])
    out.result("")
    out.table("Classes", columns, rows, ["% is of the pixels that are not ignored; images is how many show the class"])


@app.command()
def preview(
    name: NameArg,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The PNG; NAME-SPLIT.png if left out.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="The split to show; the first one if left out.")] = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Draw a contact sheet: pictures, labels in colour, and a legend."""
    from segctl.data.packed import open_dataset
    from segctl.data.preview import write_preview

    dataset = open_dataset(data_root, name)
    split = split or next(iter(dataset.splits))
    path = output or Path(f"{name}-{split}.png")
    names = write_preview(dataset, split, path)
    out.result(f"{path}: {len(names)} samples of {name} {split}")


@app.command()
def bench(
    name: NameArg,
    source: Annotated[
        list[Path] | None, typer.Option("--source", metavar="PATH", help="What it was made from: decode that, not PNG copies.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="The split whose samples are taken.")] = "train",
    crop: Annotated[
        tuple[int, int] | None, typer.Option("--crop", metavar="H W", min=1, help="Pixels; 512 512 at most if left out.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", help="How many are taken.")] = 200,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N", min=1, help="As in training if left out.")] = None,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Measure the loader: samples a second, bytes read a sample, against decoding picture files each time."""
    from dataclasses import asdict

    from segctl.data.bench import bench
    from segctl.data.loader import default_workers
    from segctl.data.packed import open_dataset
    from segctl.data.sources import open_source

    dataset = open_dataset(data_root, name)
    opened = open_source(name, source) if source else None
    found = bench(dataset, split, crop, samples=samples, workers=workers or default_workers(), source=opened)
    if json:
        out.json({**asdict(found), "times_faster": found.times_faster})
        return
    rows = [[f"shards, {count or 'no'} workers", f"{rate:.1f}", "", ""] for count, rate in found.rates.items()]
    for what, time_ms, read in (
        ("shards, alone", found.shards_ms, found.bytes_read),
        ("decode, resize, crop", found.common_ms, found.bytes_encoded),
        ("decode alone", found.decode_ms, found.bytes_encoded),
    ):
        rows.append([what, f"{1000 / time_ms:.1f}", f"{time_ms:.2f}", f"{read / 1e6:.2f}"])
    notes = [
        f"{found.codec}, crop {found.crop[0]}×{found.crop[1]}, scale 0.5 to 2, flip; medians of {found.samples}, alone on one core",
        f"decoding is of {found.decoded}; shards are {found.times_faster:.1f} times as fast; first batch after "
        + ", ".join(f"{start:.2f} s ({count} workers)" for count, start in found.start_s.items()),
    ]
    out.table(f"Loading {name}", ["", "samples/s", "ms", "MB read"], rows, notes)


def megabytes(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 1e6:.1f} MB"
