import contextlib
import hashlib
import io
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from bad_server import Request, serve

from segctl.data.download.catalog import RemoteFile
from segctl.data.download.http import Patience, Transfer, download, new_session
from segctl.errors import InputError, SegctlError

FAST = Patience(connect_s=2, stall_s=0.3, retries=2, back_off_s=0.001)


def make_zip(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.bin", random.Random(seed).randbytes(3 * 2**20))
    return buffer.getvalue()


ZIP = make_zip()
GOOD = RemoteFile("toy.zip", "zip", (), len(ZIP), ("md5", hashlib.md5(ZIP).hexdigest()))


def get(folder: Path, *urls: str, file: RemoteFile = GOOD, progress=lambda name, done, total: None) -> Path:
    (path,) = download([replace(file, urls=urls)], folder, Transfer(new_session(), progress, FAST))
    return path


def fails(folder: Path, *urls: str, file: RemoteFile = GOOD) -> SegctlError:
    with pytest.raises(SegctlError) as caught:
        get(folder, *urls, file=file)
    assert not (folder / file.name).exists()
    return caught.value


def host(url: str) -> str:
    return url.removeprefix("http://")


def test_a_file_is_fetched_whole_and_reported(tmp_path):
    seen: list[tuple[str, int, int]] = []
    with serve(lambda request: request.file(ZIP)) as site:
        path = get(tmp_path, f"{site.url}/toy.zip", progress=lambda *words: seen.append(words))
    assert path.read_bytes() == ZIP
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy.zip"]
    assert seen[-1] == ("toy.zip", len(ZIP), len(ZIP))


def test_a_file_that_is_here_is_not_fetched_again(tmp_path):
    with serve(lambda request: request.file(ZIP)) as site:
        get(tmp_path, site.url)
        get(tmp_path, site.url)
        assert len(site.seen) == 1


def test_a_dropped_connection_is_resumed_where_it_broke(tmp_path):
    with serve(lambda request: request.file(ZIP, upto=2**20 * request.number)) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        starts = [asked for _, _, asked in site.seen]
    assert starts[0] == ""
    assert starts[1].startswith("bytes=")
    assert len(starts) >= 3


def test_a_second_start_continues_the_first(tmp_path):
    (tmp_path / "toy.zip.part").write_bytes(ZIP[:1000])
    with serve(lambda request: request.file(ZIP)) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        assert site.seen == [("GET", "/", "bytes=1000-")]


def test_a_server_that_ignores_range_starts_anew(tmp_path):
    (tmp_path / "toy.zip.part").write_bytes(b"PK of something else")
    with serve(lambda request: request.file(ZIP, ranges=False)) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        assert len(site.seen) == 1


def test_a_complete_part_is_verified_on_416(tmp_path):
    (tmp_path / "toy.zip.part").write_bytes(ZIP)
    with serve(lambda request: request.file(ZIP)) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        assert len(site.seen) == 1


def test_a_wrong_part_is_dropped_on_416(tmp_path):
    (tmp_path / "toy.zip.part").write_bytes(bytes(len(ZIP)))
    with serve(lambda request: request.file(ZIP)) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        assert [asked for _, _, asked in site.seen] == [f"bytes={len(ZIP)}-", ""]


def test_a_resumed_file_that_turns_out_wrong_is_fetched_once_more(tmp_path):
    (tmp_path / "toy.zip.part").write_bytes(b"PK" + bytes(5000))
    with serve(lambda request: request.file(ZIP)) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        assert [asked for _, _, asked in site.seen] == ["bytes=5002-", ""]


def test_a_server_that_continues_elsewhere_is_not_believed(tmp_path):
    (tmp_path / "toy.zip.part").write_bytes(ZIP[:1000])

    def answer(request: Request) -> None:
        if request.number == 1:
            request.say(206, ZIP[500:], Content_Range=f"bytes 500-{len(ZIP) - 1}/{len(ZIP)}")
        else:
            request.file(ZIP)

    with serve(answer) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP


def test_wrong_bytes_are_never_kept(tmp_path):
    other = make_zip(1)
    assert len(other) == len(ZIP)
    with serve(lambda request: request.file(other)) as site:
        error = fails(tmp_path, site.url)
    got, wanted = hashlib.md5(other).hexdigest(), hashlib.md5(ZIP).hexdigest()
    assert error.message == f"'toy.zip' cannot be downloaded ({host(site.url)}: its md5 is {got}, wanted {wanted})"
    assert error.hint == "run the same command again later to resume, or get the file by other means and give it with --source"
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_length_is_refused_before_it_is_read(tmp_path):
    with serve(lambda request: request.file(ZIP + b"more")) as site:
        error = fails(tmp_path, site.url)
    assert f"it has {len(ZIP) + 4} bytes, wanted {len(ZIP)}" in error.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("honest", [True, False])
def test_a_page_is_never_saved_as_a_zip(tmp_path, honest):
    def answer(request: Request) -> None:
        if honest:
            request.page()
        else:
            request.say(200, b"\n<html>".ljust(len(ZIP)), Content_Type="application/zip")

    with serve(answer) as site:
        error = fails(tmp_path, site.url)
    assert error.message == f"'toy.zip' cannot be downloaded ({host(site.url)}: the server sends a page, not the file)"
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_file_is_refused_by_its_first_bytes(tmp_path):
    with serve(lambda request: request.say(200, bytes(len(ZIP)))) as site:
        assert "what the server sends is not a zip" in fails(tmp_path, site.url).message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_refusal_leads_to_the_next_url(tmp_path, code):
    def answer(request: Request) -> None:
        if request.path == "/gone":
            request.page(code)
        else:
            request.file(ZIP)

    with serve(answer) as site:
        assert get(tmp_path, f"{site.url}/gone", f"{site.url}/here").read_bytes() == ZIP
        assert [path for _, path, _ in site.seen] == ["/gone", "/here"]


def test_refusals_of_all_urls_are_listed(tmp_path):
    with serve(lambda request: request.page(403 if request.path == "/a" else 404)) as site:
        error = fails(tmp_path, f"{site.url}/a", f"{site.url}/b", "http://127.0.0.1:1/c")
    assert error.message == (
        f"'toy.zip' cannot be downloaded ({host(site.url)}: the server responds with 403; "
        f"{host(site.url)}: the server responds with 404; 127.0.0.1:1: cannot be reached, 3 times)"
    )
    assert error.exit_code == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_says_later_is_asked_again(tmp_path, code):
    def answer(request: Request) -> None:
        if request.number < 3:
            request.say(code)
        else:
            request.file(ZIP)

    with serve(answer) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP


def test_a_server_that_never_recovers_is_given_up(tmp_path):
    with serve(lambda request: request.say(503)) as site:
        assert "the server responds with 503, 3 times" in fails(tmp_path, site.url).message
        assert len(site.seen) == 3


def test_a_stall_is_noticed_and_resumed(tmp_path):
    def answer(request: Request) -> None:
        if request.number > 1:
            request.file(ZIP)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(ZIP)))
        request.end_headers()
        request.wfile.write(ZIP[: 2**21])
        request.wfile.flush()
        request.stop.wait(3)
        request.close_connection = True

    with serve(answer) as site:
        assert get(tmp_path, site.url).read_bytes() == ZIP
        assert [asked for _, _, asked in site.seen][1].startswith("bytes=")


def test_redirects_are_followed(tmp_path):
    def answer(request: Request) -> None:
        if request.path == "/old":
            request.say(302, Location="/new")
        else:
            request.file(ZIP)

    with serve(answer) as site:
        assert get(tmp_path, f"{site.url}/old").read_bytes() == ZIP


def test_without_a_checksum_every_member_is_tested(tmp_path):
    file = RemoteFile("toy.zip", "zip", ())
    hurt = bytearray(ZIP)
    hurt[2000] ^= 1
    with serve(lambda request: request.file(bytes(hurt))) as site:
        assert "its member 'a.bin' is damaged" in fails(tmp_path, site.url, file=file).message
    with serve(lambda request: request.file(ZIP[:-30])) as site:
        assert "it is not a complete zip" in fails(tmp_path, site.url, file=file).message
    with serve(lambda request: request.file(ZIP)) as site:
        assert get(tmp_path, site.url, file=file).read_bytes() == ZIP


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(tmp_path):
    huge = replace(GOOD, byte_count=10**18)
    with serve(lambda request: request.file(ZIP)) as site:
        error = fails(tmp_path, site.url, file=huge)
        assert site.seen == []
    free = shutil.disk_usage(tmp_path).free
    start = f"downloading toy.zip needs 1000000000.0 GB in '{tmp_path}', but "
    assert error.message.startswith(start)
    assert abs(float(error.message.removeprefix(start).split()[0]) - free / 1e9) < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_fills_up_on_the_way_is_one_sentence(tmp_path):
    (tmp_path / "toy.zip.part").symlink_to("/dev/full")
    with serve(lambda request: request.file(ZIP)) as site:
        error = fails(tmp_path, site.url)
    assert str(error) == (
        f"cannot write '{tmp_path}/toy.zip.part': No space left on device; "
        "free disk space, then run the same command again to resume"
    )


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        get(tmp_path / "file" / "downloads", "http://127.0.0.1:1")
    assert caught.value.message == f"cannot write to '{tmp_path}/file/downloads': Not a directory"


def breaks_off(request: Request, then: str) -> None:
    """The first 200 kB of the file; a request for the rest gets an answer that is of no use."""
    asked = request.headers.get("Range")
    if asked is None:
        request.file(ZIP, upto=200_000)
    elif then == "416":
        request.say(416, Content_Range="bytes */3")
    elif then == "elsewhere":
        request.say(206, ZIP[7:200_000], Content_Range=f"bytes 7-{len(ZIP) - 1}/{len(ZIP)}")
    else:
        request.say(206, ZIP[7:200_000], Content_Range=then)


@pytest.mark.parametrize("then", ["416", "elsewhere", "bytes " + "9" * 5000 + "-", "bytes ²-3/4", "bytes x-", "bytes -3/4", ""])
def test_a_server_that_breaks_off_and_cannot_continue_is_given_up(tmp_path, then):
    """It gives bytes at every second request, but the file never becomes longer."""
    with serve(lambda request: breaks_off(request, then)) as site:
        error = fails(tmp_path, site.url)
        assert len(site.seen) <= 2 * FAST.retries + 4
    assert "times" in error.message


def test_tries_are_bounded_in_all(tmp_path):
    """Each gives one more piece, and all of them together would take weeks."""
    with serve(lambda request: request.file(ZIP, upto=2**16 * request.number)) as site:
        with pytest.raises(SegctlError, match="the file is not complete after 5 requests"):
            download(
                [replace(GOOD, urls=(site.url,))],
                tmp_path,
                Transfer(new_session(), lambda *words: None, replace(FAST, requests=5)),
            )
        assert len(site.seen) == 5
        assert get(tmp_path, site.url).read_bytes() == ZIP


@pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1e9", ""])
def test_a_length_that_is_no_number_is_not_believed(tmp_path, length):
    def answer(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(ZIP)
        request.close_connection = True

    with serve(answer) as site, contextlib.suppress(SegctlError):  # requests itself refuses some of these
        assert get(tmp_path, site.url).read_bytes() == ZIP


@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_that_was_damaged_under_its_final_name_is_fetched_again(tmp_path, checksum):
    file = GOOD if checksum else replace(GOOD, checksum=None)
    damaged = bytearray(ZIP)
    damaged[len(ZIP) // 2] ^= 1
    (tmp_path / "toy.zip").write_bytes(damaged)
    with serve(lambda request: request.file(ZIP)) as site:
        assert get(tmp_path, site.url, file=file).read_bytes() == ZIP
        assert len(site.seen) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy.zip"]


def test_a_first_download_that_fails_leaves_no_folder(tmp_path):
    with serve(lambda request: request.say(404)) as site:
        fails(tmp_path / "data" / "downloads", site.url)
    assert list(tmp_path.iterdir()) == []
