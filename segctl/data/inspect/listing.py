"""The datasets that segctl can prepare, and those in the data root."""

from dataclasses import dataclass
from pathlib import Path

from segctl.data.datasets import KNOWN
from segctl.data.files.remote import require_local
from segctl.data.prepare import staging_folder
from segctl.data.shards.dataset import INDEX_NAME, find_dataset


@dataclass(frozen=True)
class Listing:
    """A dataset: what preparing it needs, where it comes from, and how much of it is in the data root.

    state: "ready", "incomplete", or "" for a dataset that is not in the data root.  samples, bytes: 0 unless it is ready.
    """

    name: str
    needs: str
    origin: str
    state: str
    samples: int
    bytes: int


def list_datasets(data_root: Path) -> list[Listing]:
    """Every dataset that segctl can prepare, and any other that is prepared in the data root."""
    require_local(data_root, "data list")
    here = {path.parent.name for path in data_root.glob(f"*/{INDEX_NAME}")} if data_root.is_dir() else set()
    listings = []
    for name in sorted(KNOWN.keys() | here):
        needs, origin = (KNOWN[name].needs, KNOWN[name].origin) if name in KNOWN else ("", "")
        listings.append(_look(data_root, name, needs, origin))
    return listings


def _look(data_root: Path, name: str, needs: str, origin: str) -> Listing:
    folder = data_root / name
    dataset = find_dataset(data_root, name)
    if dataset is None:
        interrupted = staging_folder(data_root, name).exists() or (folder / INDEX_NAME).exists()
        return Listing(name, needs, origin, "incomplete" if interrupted else "", 0, 0)
    shards = [folder / shard for shard in dataset.shards]
    if not all(shard.is_file() for shard in shards):
        return Listing(name, needs, origin, "incomplete", 0, 0)
    return Listing(name, needs, origin, "ready", len(dataset.samples), sum(shard.stat().st_size for shard in shards))
