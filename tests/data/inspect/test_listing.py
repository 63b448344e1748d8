import shutil

from segctl.data.datasets import KNOWN
from segctl.data.inspect.listing import list_datasets
from segctl.data.prepare import staging_folder


def states(root) -> dict[str, str]:
    """The states of the datasets that are here in some state."""
    return {listing.name: listing.state for listing in list_datasets(root) if listing.state}


def test_nothing_is_here_at_first(tmp_path):
    assert states(tmp_path / "no-folder-yet") == {}
    listings = {listing.name: listing for listing in list_datasets(tmp_path)}
    assert list(listings) == sorted(KNOWN)
    assert all(listing.needs and listing.origin for listing in listings.values())
    assert listings["shapes"].needs == "nothing"


def test_a_prepared_dataset_is_ready(packed_root, dataset):
    camvid = next(listing for listing in list_datasets(packed_root) if listing.name == "camvid")
    assert (camvid.name, camvid.state, camvid.samples) == ("camvid", "ready", 8)
    assert camvid.bytes == dataset.shard_bytes() > 10_000


def test_an_interrupted_one_and_one_with_a_lost_shard_are_incomplete(packed_root, tmp_path):
    staging_folder(tmp_path, "shapes").mkdir()
    shutil.copytree(packed_root / "camvid", tmp_path / "camvid")
    (tmp_path / "camvid" / "camvid-00000-of-00001.h5").unlink()
    assert states(tmp_path) == {"camvid": "incomplete", "shapes": "incomplete"}


def test_a_dataset_of_ones_own_is_listed_too(packed_root, tmp_path):
    shutil.copytree(packed_root / "camvid", tmp_path / "mine")
    assert states(tmp_path) == {"mine": "ready"}
    assert [listing.name for listing in list_datasets(tmp_path)] == sorted([*KNOWN, "mine"])
