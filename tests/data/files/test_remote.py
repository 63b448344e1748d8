"""A data root behind a URL: what is fetched, what stays on the disk, and what is said when it cannot be read."""

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from toy import write_preset

from segctl.cli import main
from segctl.commands import command_line
from segctl.data.files import remote
from segctl.data.files.remote import root_of
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError, SegctlError

pytest.importorskip("aiohttp", reason="reading URLs wants segctl[remote]")
SMALL_BLOCK = 4096


class Server:
    """The files of a folder over HTTP, with ranges or without; `asked` lists (path, range)."""

    def __init__(self, folder: Path, ranges: bool) -> None:
        self.asked: list[tuple[str, str]] = []
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, format: str, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                server.asked.append((self.path, wanted))
                if not (ranges and wanted):
                    super().do_GET()
                    return
                content = (folder / self.path.lstrip("/")).read_bytes()
                first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
                part = content[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                self.wfile.write(part)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def bytes_of_shards(self) -> int:
        """How many bytes of shards were asked for."""
        ranges = [wanted.removeprefix("bytes=").split("-") for path, wanted in self.asked if path.endswith(".h5")]
        return sum(int(last) - int(first) + 1 for first, last in ranges)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(toy_data: Path, cache: Path) -> Iterator[Server]:
    started = Server(toy_data, ranges=True)
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture
def plain_server(toy_data: Path, cache: Path) -> Iterator[Server]:
    started = Server(toy_data, ranges=False)
    yield started
    started.http.shutdown()
    started.http.server_close()


def test_samples_are_read_by_range_and_kept(server: Server, toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FETCH_BYTES", SMALL_BLOCK)
    here, there = open_dataset(toy_data, "camvid"), open_dataset(root_of(server.url + "/"), "camvid")
    assert there.fingerprint == here.fingerprint
    first, *others = here.names("train")
    assert np.array_equal(there.image(first), here.image(first))
    assert 0 < server.bytes_of_shards() < here.shard_bytes()
    assert there.shard_bytes() == here.shard_bytes()
    for name in others:
        assert np.array_equal(there.image(name), here.image(name))
        assert np.array_equal(there.label(name), here.label(name))
    asked = server.bytes_of_shards()
    again = open_dataset(root_of(server.url), "camvid")
    assert np.array_equal(again.label(first), here.label(first))
    assert np.array_equal(again.label(first), here.label(first))
    assert server.bytes_of_shards() <= asked + 2 * SMALL_BLOCK  # the first sample's label was not read before
    assert asked <= here.shard_bytes() + len(here.shards) * SMALL_BLOCK


def test_bytes_that_the_disk_lost_are_fetched_again(server: Server, toy_data: Path, cache: Path) -> None:
    name = open_dataset(toy_data, "camvid").names("train")[0]
    wanted = open_dataset(toy_data, "camvid").image(name)
    open_dataset(root_of(server.url), "camvid").image(name)
    kept = next(cache.rglob("parts/*/*.h5"))
    for start in (0, 4096):  # HDF5's own part of the file, and tiles
        content = kept.read_bytes()
        kept.write_bytes(content[:start] + bytes(len(content) - start))
        assert np.array_equal(open_dataset(root_of(server.url), "camvid").image(name), wanted)


def test_a_server_without_ranges_is_refused(plain_server: Server, toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FETCH_BYTES", SMALL_BLOCK)
    there = open_dataset(root_of(plain_server.url), "camvid")
    with pytest.raises(
        InputError,
        match=r"its server does not support HTTP range requests; .*copy the dataset into a folder",
    ):
        there.image(there.names("train")[0])


def test_what_is_not_there_is_said(server: Server) -> None:
    with pytest.raises(InputError, match=f"there is no dataset 'nope' at '{server.url}'; wanted {server.url}/nope/dataset.json"):
        open_dataset(root_of(server.url), "nope")
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(SegctlError, match=r"cannot be read: .*; check the address and the network"):
        open_dataset(root_of(server.url), "camvid")


@pytest.mark.parametrize("url", ["nosuchscheme://host/data", "s3://bucket/data"])
def test_what_fsspec_cannot_open_is_said(url: str, cache: Path) -> None:
    with pytest.raises(InputError, match=url.split(":")[0]):
        open_dataset(root_of(url), "camvid")


@pytest.mark.parametrize(
    ("url", "words"), [("http:///data", "has no host"), ("https://me:secret@host/data", "has a login in it")]
)
def test_urls_without_a_host_or_with_a_login_are_refused(url: str, words: str, cache: Path) -> None:
    with pytest.raises(InputError, match=words) as refused:
        root_of(url)
    assert "secret" not in str(refused.value)
    assert not list(cache.rglob("*"))


def test_commands_that_write_refuse_a_url(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["data", "prepare", "shapes"], ["data", "list"]):
        assert main([*command, "--data-root", server.url]) == 2
        assert f"--data-root is '{server.url}'" in capsys.readouterr().err


def test_printed_commands_name_the_url(cache: Path) -> None:
    root = root_of("https://example.org/data/")
    assert (
        command_line("data", "info", "camvid", data_root=root) == "segctl data info camvid --data-root https://example.org/data"
    )


@pytest.mark.slow
def test_a_run_trains_and_is_scored_from_a_url(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With loader workers, which are forked and open connections of their own."""
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 2, "validate_every": 2}, data={"workers": 2})
    roots = ["--data-root", server.url]
    run = str(tmp_path / "run")
    assert main(["train", "--preset", str(preset), "--run", run, "--device", "cpu", *roots]) == 0
    assert f"--data-root {server.url}" in capsys.readouterr().out
    assert main(["eval", run, "--device", "cpu", *roots]) == 0
    assert main(["data", "check", "camvid", *roots]) == 0
    assert main(["data", "info", "camvid", *roots]) == 0
