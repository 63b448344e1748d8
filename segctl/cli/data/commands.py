"""`segctl data`: prepare datasets, check them, and look at them."""

import shlex
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from segctl.cli import completion
from segctl.cli.data.tables import megabytes, show_findings, show_info, show_prepared
from segctl.cli.help import PlainCommand, PlainGroup
from segctl.cli.options import DataRootOpt, JsonOpt
from segctl.cli.output import out
from segctl.commands import DATA_ROOT
from segctl.errors import InputError
from segctl.runtime.signals import handling

data_app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="Prepare, check and look at datasets.")

NameArg = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=completion.datasets, help="A dataset's name; `segctl data list` shows them."),
]


@data_app.command("list", cls=PlainCommand)
def data_list(data_root: DataRootOpt = DATA_ROOT, json: JsonOpt = False) -> None:
    """List the datasets: what they need, where they come from, and whether they are prepared."""
    from dataclasses import asdict

    from segctl.data.inspect.listing import list_datasets

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


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


class PrepareCommand(PlainCommand):
    """`segctl data prepare`, which knows where a path behind the name belongs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        left = super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            found = ctx.args[0]
            raise InputError(
                f"data prepare takes the dataset's name alone, and got '{found}' too",
                f"a published dataset is given by `--source {shlex.quote(found)}`, your own pictures by `--images`",
            )
        return left


@data_app.command(cls=PrepareCommand)
@handling({"SIGTERM": _end, "SIGHUP": _end})  # so that temporary files are removed, as after Ctrl-C
def prepare(
    name: NameArg,
    source: Annotated[
        list[Path] | None,
        typer.Option("--source", metavar="PATH", help="The dataset as it was published: a folder, zip or tar (repeatable)."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Your own images: a folder, zip, tar, or a pattern such as 'a/*_sat.jpg'."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            metavar="DIR",
            help="Annotations (COCO, YOLO, labelme, CVAT, Label Studio, Supervisely, VIA), or label maps named like the images. "
            "Repeat it for the label maps of several raters.",
        ),
    ] = None,
    instances: Annotated[
        Path | None,
        typer.Option(
            "--instances",
            metavar="DIR",
            help="Instance maps named like the images, for mIoU_K: one number per instance (8 or 16 bits), or COCO's RGB.",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Class table: CSV or YAML with name, id, color, ignored; or a .txt with one name per line. Optional for "
            "annotations.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="What --labels holds: masks, coco, yolo, labelme, cvat, label-studio, supervisely, via or hf; default: "
            "detected.",
        ),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            "--unlabelled",
            metavar="PATH",
            help="Pictures without labels, packed into the split 'unlabelled': a folder, zip, tar or pattern (repeatable).",
        ),
    ] = None,
    unannotated: Annotated[
        str | None,
        typer.Option(
            "--unannotated",
            metavar="WHAT",
            help="Pixels under no annotation: background (default) or ignore.",
        ),
    ] = None,
    min_confidence: Annotated[
        str | None,
        typer.Option(
            "--min-confidence",
            metavar="X",
            help="Ignore pixels of predicted --labels below this confidence: 0.9; road=0.9,sky=0.8 by class; balanced=0.5 to "
            "keep the surest half of each class; or a YAML file.",
        ),
    ] = None,
    label_suffix: Annotated[
        str | None,
        typer.Option(
            "--label-suffix",
            metavar="TEXT",
            help="What label maps add to the names of their images, such as _mask; default: detected.",
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            "--bands",
            metavar="N,N,…",
            help="Bands of multi-band images to use, in this order, counted from 1, such as 4,3,2. Any number of bands.",
        ),
    ] = None,
    range: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="LOW,HIGH",
            help="Values that become 0 and 255, for images of more than 8 bits; percentile: the 2nd and 98th; keep: all 16 "
            "bits. Give it once, or once per band.",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME=X",
            help="A split of your own data: a ratio such as val=0.2, or a list file such as val=val.txt (repeatable).",
        ),
    ] = None,
    split_seed: Annotated[
        int, typer.Option("--split-seed", metavar="N", min=0, max=2**32 - 1, help="Seed that draws the ratios of --split.")
    ] = 0,
    tile: Annotated[
        int | None,
        typer.Option(
            "--tile",
            metavar="N",
            min=32,
            max=2**14,
            help="Cut your own images and their labels into tiles of N×N pixels; large files are read in parts. All tiles of "
            "an image are in one split.",
        ),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option("--overlap", metavar="N", min=0, help="Pixels that neighbouring tiles share; default: 0.")
    ] = None,
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            metavar="CODEC",
            help="lz4: fast. zstd: half the disk space, slower. source: keeps the image files. none: uncompressed.",
        ),
    ] = "lz4",
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=0, max=1024, help="Processes; default: one per core.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", max=10**9, help="A trial: pack at most N samples per split.", show_default=False),
    ] = None,
    release: Annotated[
        str | None, typer.Option("--release", metavar="NAME", help="Release of camvid to download: 480x360 or 960x720.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check every file, list every problem and write nothing. Exit code 3 if there is a problem."
        ),
    ] = False,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Convert a dataset to checksummed shards: your own (--images), or a published one (--source, or downloaded)."""
    import time

    from segctl.cli.data.fetching import fetch_archives
    from segctl.data.datasets import open_source
    from segctl.data.datasets.own.given import own_files
    from segctl.data.datasets.own.tiling import TileChoice
    from segctl.data.datasets.unlabelled import as_asked, with_unlabelled
    from segctl.data.files.bands import BandChoice
    from segctl.data.files.remote import require_local
    from segctl.data.inspect.check_source import check_source
    from segctl.data.prepare import prepare_source
    from segctl.data.shards.dataset import find_dataset
    from segctl.data.shards.shard import parse_codec

    require_local(data_root, "data prepare")
    packing = parse_codec(codec)
    unlabelled, unannotated = as_asked(unlabelled or [], unannotated)
    how = {"format": format, "unannotated": unannotated, "label_suffix": label_suffix, "min_confidence": min_confidence}
    chosen = BandChoice.of(bands, range or [])
    tiles = TileChoice.of(tile, overlap)
    own = own_files(images, labels, classes, tuple(split or ()), split_seed, instances, chosen, tiles, **how)
    paths = source or ([] if own else fetch_archives(name, data_root, release))
    opened = with_unlabelled(open_source(name, paths, own), unlabelled, tiles)
    if check:
        for note in opened.notes:
            out.note(note)
        warnings: list[str] = []
        with out.progress(f"checking the source of {name}") as progress:
            findings = check_source(opened, progress, warnings.append)
        for text in warnings:
            out.warn(text)
        show_findings(f"the source of '{name}'", findings, json=False, hint="correct the source, then prepare it")
        out.result(f"{name}: no problems found")
        return
    before, began = find_dataset(data_root, name), time.monotonic()
    with out.progress(f"preparing {name}") as progress:
        dataset = prepare_source(opened, data_root, codec=packing, workers=workers, limit=limit, progress=progress)
    if before is not None and dataset.provenance.created == before.provenance.created:
        out.note(f"'{dataset.folder}' was made from the same bytes; nothing to do")
    else:
        out.note(f"packed in {time.monotonic() - began:.1f} s")
    show_prepared(dataset)


@data_app.command("check", cls=PlainCommand)
def data_check(name: NameArg, data_root: DataRootOpt = DATA_ROOT, json: JsonOpt = False) -> None:
    """Read every sample back and compare it with its checksum and the class table. Exit code 3 if there is a problem."""
    from segctl.data.advice import prepare_again
    from segctl.data.inspect.check import check
    from segctl.data.shards.dataset import open_dataset

    warnings: list[str] = []
    with out.progress(f"checking {name}") as progress:
        findings = check(data_root, name, progress, warnings.append)
    for text in warnings:
        out.warn(text)
    show_findings(f"'{name}' in '{data_root}'", findings, json=json, hint=prepare_again(name, data_root))
    if not json:
        trial = open_dataset(data_root, name).trial
        out.result(f"{name}: every sample is as it was packed" + (f" ({trial})" if trial else ""))


@data_app.command(cls=PlainCommand)
def info(
    name: NameArg,
    split: Annotated[
        list[str] | None, typer.Option("--split", metavar="NAME", help="Count only this split (repeatable); default: all.")
    ] = None,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Count the images, sizes and classes of each split."""
    from segctl.data.inspect.info import describe_splits
    from segctl.data.shards.dataset import open_dataset

    dataset = open_dataset(data_root, name)
    with out.progress(f"counting {name}") as progress:
        splits = describe_splits(dataset, split or (), progress)
    if json:
        about: dict[str, object] = {"dataset": dataset.name, "trial": dataset.trial, "fingerprint": dataset.fingerprint}
        if dataset.pixels is not None:
            about |= {"pixel_type": dataset.pixel_type, "pixels": dataset.pixels.model_dump(mode="json")}
        notes = {"notes": dataset.provenance.notes, "unknown_pixels": dataset.unknown_pixels()}
        counts = {found.split: found.to_json(dataset.classes.names) for found in splits}
        out.json({**about, **notes, "classes": dataset.classes.names, "splits": counts})
        return
    show_info(dataset, splits)


@data_app.command(cls=PlainCommand)
def preview(
    name: NameArg,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The PNG to write; default: NAME-SPLIT.png.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="The split to show; default: the first.")] = None,
    augmented: Annotated[
        str | None,
        typer.Option(
            "--augmented",
            metavar="PRESET",
            help="Draw the augmented views that a network sees when it is trained with this preset.",
        ),
    ] = None,
    data_root: DataRootOpt = DATA_ROOT,
) -> None:
    """Draw a contact sheet: images, labels in colour, and a legend."""
    from segctl.data.fitted_preset import load_preset_for
    from segctl.data.inspect.preview import write_preview
    from segctl.data.shards.dataset import open_dataset

    dataset = open_dataset(data_root, name)
    split = split or next(iter(dataset.splits))
    path = output or Path(f"{name}-{split}.png")
    names = write_preview(dataset, split, path, load_preset_for(name, augmented, data_root).data if augmented else None)
    out.result(f"{path}: {len(names)} samples of {name} {split}")


@data_app.command("bench", cls=PlainCommand)
def data_bench(
    name: NameArg,
    source: Annotated[
        list[Path] | None,
        typer.Option("--source", metavar="PATH", help="The published dataset: decode its pictures, not PNG copies."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="The split to measure.")] = "train",
    crop: Annotated[
        tuple[int, int] | None,
        typer.Option("--crop", metavar="H W", min=1, max=8192, help="Crop in pixels; default: at most 512 512."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=1, max=10**6, help="How many samples to measure.")] = 200,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, max=1024, help="Loader processes; default: as in training.")
    ] = None,
    data_root: DataRootOpt = DATA_ROOT,
    json: JsonOpt = False,
) -> None:
    """Compare the loader with decoding picture files every time: samples per second and bytes per sample."""
    from dataclasses import asdict

    from segctl.data.datasets import open_source
    from segctl.data.inspect.bench import bench
    from segctl.data.shards.dataset import open_dataset
    from segctl.runtime.cores import default_workers

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
    rows += [[f"augmentation: {kind}", "", f"{time_ms:.2f}", ""] for kind, time_ms in found.augment_ms.items()]
    notes = [
        f"{found.codec}, crop {found.crop[0]}×{found.crop[1]}, scale 0.5 to 2, flip; medians of {found.samples}",
        f"what is decoded: {found.decoded}; shards are {found.times_faster:.1f} times as fast; first batch after "
        + ", ".join(f"{start:.2f} s ({count} workers)" for count, start in found.start_s.items()),
    ]
    out.table(f"Loading {name}", ["", "samples/s", "ms", "MB read"], rows, notes)
