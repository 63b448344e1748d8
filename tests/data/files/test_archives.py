import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from archive_files import ARCHIVES, WRITERS, write_folder, write_tar, write_tgz, write_txz, write_zip

from segctl.data.files import archives
from segctl.data.files.archives import Files, PlainFile, UnreadableError, open_files, read_lines
from segctl.errors import InputError

TREE = {"top/a/one.png": b"one" * 100, "top/a/two.png": b"two", "top/list.txt": b"one\ntwo\n", "readme.md": b"hello"}
Write = Callable[[Path, dict[str, bytes]], Path]


def everything(name: str) -> bool:
    return True


def refusal(*paths: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_files(paths, everything)
    return caught.value.message


@pytest.mark.parametrize("write", WRITERS)
def test_every_container_gives_the_same_files(tmp_path, write: Write):
    files = open_files([write(tmp_path / "data", TREE)], everything)
    assert {name: file.read() for name, file in files.members.items()} == TREE
    assert list(files.members) == sorted(TREE)
    assert files.members["top/a/one.png"].read(4) == b"oneo"


@pytest.mark.parametrize("write", WRITERS)
def test_files_travel_to_other_processes(tmp_path, write: Write):
    files = open_files([write(tmp_path / "data", TREE)], everything)
    travelled = pickle.loads(pickle.dumps(files))
    assert travelled == files
    assert {name: file.read() for name, file in travelled.members.items()} == TREE


@pytest.mark.parametrize(
    "write", [write if write is write_zip else pytest.param(write, marks=pytest.mark.slow) for write in WRITERS]
)
def test_many_processes_may_read_at_once(tmp_path, write: Write):
    files = open_files([write(tmp_path / "data", {f"{n:03d}.png": bytes([n]) * 999 for n in range(60)})], everything)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        contents = pool.map(read_one, files.members.values())
        assert list(contents) == [bytes([n]) * 999 for n in range(60)]


def read_one(file: PlainFile) -> bytes:
    return file.read()


def test_only_what_is_wanted_is_listed(tmp_path):
    files = open_files([write_tgz(tmp_path / "data", TREE)], lambda name: name.endswith(".png"))
    assert list(files.members) == ["top/a/one.png", "top/a/two.png"]


def test_several_sources_are_one(tmp_path):
    images = write_zip(tmp_path / "images", {"README": b"1", "left/a.png": b"a"})
    labels = write_zip(tmp_path / "labels", {"README": b"2", "right/a.png": b"b"})
    files = open_files([images, labels], everything)
    assert {name: file.read() for name, file in files.members.items()} == {
        "README": b"1",
        "left/a.png": b"a",
        "right/a.png": b"b",
    }
    assert files.given == f"'{images}' and '{labels}'"
    assert files.names == "archive 'images.zip' and archive 'labels.zip'"


def test_a_file_in_two_sources_is_refused(tmp_path):
    first, second = write_zip(tmp_path / "a", {"left/a.png": b"a"}), write_folder(tmp_path / "b", {"left/a.png": b"b"})
    assert refusal(first, second) == f"'left/a.png' is in more than one of '{first}' and '{second}'"


@pytest.mark.parametrize("depth", ["", "outer/", "outer/inner/"])
def test_a_dataset_may_lie_deeper(tmp_path, depth):
    files = open_files([write_zip(tmp_path / "data", {f"{depth}left/x/a.png": b"a"})], everything)
    assert files.folder("left") == depth.rstrip("/")
    assert list(files.under(f"{depth}left")) == ["x/a.png"]


def test_a_parent_of_the_same_name_does_not_mislead(tmp_path):
    files = open_files([write_folder(tmp_path / "train", {"train/train/a.png": b"a"})], everything)
    assert files.folder("train") == ""
    assert files.folder("valid") is None


def test_a_folder_that_is_there_twice_is_refused(tmp_path):
    files = open_files([write_folder(tmp_path / "d", {"v1/left/a.png": b"a", "v2/left/a.png": b"a"})], everything)
    with pytest.raises(InputError) as caught:
        files.folder("left")
    assert caught.value.message == f"'{tmp_path}/d' holds 'left' twice, as 'v1/left' and 'v2/left'"


def test_the_folder_itself_may_be_given(tmp_path):
    write_folder(tmp_path, {"left/x/a.png": b"a"})
    files = open_files([tmp_path / "left"], everything, own_names=("left",))
    assert files.folder("left") == ""
    assert list(files.under("left")) == ["x/a.png"]


def test_links_in_a_folder_are_followed_but_not_in_a_circle(tmp_path):
    write_folder(tmp_path / "real", {"a.png": b"a"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "again").symlink_to(tmp_path / "data")
    assert list(open_files([tmp_path / "data"], everything).members) == ["linked/a.png"]


@pytest.mark.parametrize("write", [*ARCHIVES, write_folder])
def test_what_other_systems_leave_is_skipped(tmp_path, write: Write):
    litter = {"__MACOSX/top/._one.png": b"x", "top/._one.png": b"x", "top/.DS_Store": b"x", "Thumbs.db": b"x"}
    files = open_files([write(tmp_path / "data", TREE | litter)], everything)
    assert files.members.keys() == TREE.keys()
    assert files.notes == ()


@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png"])
def test_a_name_that_leads_outside_is_refused(tmp_path, write: Write, name):
    path = write(tmp_path / "data", {"good.png": b"1", name: b"2"})
    assert refusal(path) == f"the archive '{path}' holds {name!r}, a name that leads outside the archive"


@pytest.mark.parametrize("write", ARCHIVES)
def test_a_name_with_control_characters_is_refused(tmp_path, write: Write):
    path = write(tmp_path / "data", {"a\nb.png": b"2"})
    assert refusal(path) == f"the archive '{path}' holds 'a\\nb.png', a name with characters that no file of a dataset has"


def test_windows_separators_are_understood(tmp_path):
    path = write_zip(tmp_path / "data", {"left\\a.png": b"1"})
    assert list(open_files([path], everything).members) == ["left/a.png"]


@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path, write: Write):
    path = write(tmp_path / "data", {"./a.png": b"1", "a.png": b"2"})
    assert refusal(path) == f"the archive '{path}' holds 'a.png' twice"


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tgz", "w:gz")])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_skipped_with_a_sentence(tmp_path, suffix, mode, kind):
    path = tmp_path / f"data{suffix}"
    with tarfile.open(path, mode) as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    files = open_files([path], everything)
    assert files.members == {}
    sentence = f"'data{suffix}': 1 link or device was skipped, 'link.png' first; only plain files are read"
    assert files.notes == (sentence,)


def test_links_of_a_zip_are_skipped_with_a_sentence(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("link.png", "other.png"):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    files = open_files([path], everything)
    assert files.members == {}
    assert files.notes == ("'data.zip': 2 links and devices were skipped, 'link.png' first; only plain files are read",)


def test_an_encrypted_member_is_refused(tmp_path):
    path = write_zip(tmp_path / "data", {"a.png": b"1"})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert refusal(path) == f"the archive '{path}' holds 'a.png' encrypted"


def test_an_unusual_packing_is_refused(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", b"1")
    assert refusal(path) == f"the archive '{path}' holds 'a.png' packed by method 12, wanted 0 (stored) or 8 (deflated)"


def test_a_bomb_that_says_so_is_refused(tmp_path):
    path = write_zip(tmp_path / "data", {"a.png": b"1"})
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\1\2")
    content[start + 24 : start + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    message = f"the archive '{path}' declares 2147483648 bytes for 'a.png', more than any picture of a dataset takes"
    assert refusal(path) == message


def test_a_bomb_that_lies_is_stopped_at_the_size_it_declares(tmp_path):
    path = write_zip(tmp_path / "data", {"a.png": bytes(50_000_000)})
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\1\2")
    content[start + 24 : start + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        open_files([path], everything).members["a.png"].read()
    assert str(caught.value) == "it holds more than the 1000 bytes that 'data.zip' declares"


def test_a_compressed_tar_that_unpacks_to_far_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    path = write_tgz(tmp_path / "data", {f"{n}.txt": bytes(10_000_000) for n in range(4)})
    assert refusal(path) == f"the archive '{path}' unpacks to more than 200 times its size"


def test_a_damaged_member_does_not_pass(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"1" * 100)
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"does not match its checksum in 'data\.zip'"):
        open_files([path], everything).members["a.png"].read()


@pytest.mark.parametrize("write", [*ARCHIVES, write_txz])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, write: Write):
    path = write(tmp_path / "data", {f"{n}.png": bytes(range(256)) * 40 for n in range(20)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path).startswith(f"the archive '{path}' is cut short")


def test_a_log_in_page_is_recognised(tmp_path):
    path = tmp_path / "gtFine.zip"
    path.write_text("<!DOCTYPE html><title>Login</title>")
    assert refusal(path) == f"the source '{path}' is an HTML page, perhaps of a log-in"


def test_any_other_file_is_no_source(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert refusal(path) == f"the source '{path}' is neither a folder nor a zip or tar archive"


def test_what_is_not_there_is_said(tmp_path):
    assert refusal(tmp_path / "no") == f"the source '{tmp_path}/no' does not exist"


def test_the_copy_of_a_refused_compressed_tar_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    path = write_tgz(tmp_path / "data", {"good.png": b"1", "../evil.png": b"2"})
    refusal(path)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_list_is_read_as_lines(tmp_path):
    files: Files = open_files(
        [write_zip(tmp_path / "d", {"l.txt": b"\xef\xbb\xbfone\r\n\r\n two \r\n", "b.txt": b"\x89PNG\r\n\x1a\n\0\0"})], everything
    )
    assert read_lines(files.members["l.txt"]) == ["one", "two"]
    with pytest.raises(InputError, match=r"'b\.txt in 'd\.zip'' is not a list of names: it cannot be read as text"):
        read_lines(files.members["b.txt"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_list_may_be_in_the_encodings_of_other_systems(tmp_path, encoding):
    path = tmp_path / "l.txt"
    path.write_bytes("chaise\r\nch\u00e2teau\r\n".encode(encoding))
    assert read_lines(PlainFile("l.txt", path)) == ["chaise", "ch\u00e2teau"]


@pytest.mark.parametrize("write", [write_folder, write_zip, write_tar])
def test_names_are_composed_and_a_name_in_both_forms_is_refused(tmp_path, write):
    composed, split = "caf\u00e9.png", "cafe\u0301.png"
    assert list(open_files([write(tmp_path / "one", {split: b"1"})], everything).members) == [composed]
    with pytest.raises(InputError, match="twice"):
        open_files([write(tmp_path / "both", {split: b"1", composed: b"2"})], everything)


def test_a_mac_zip_without_the_flag_for_utf_8_keeps_its_names(tmp_path):
    path = write_zip(tmp_path / "mac", {"caf\u00e9.png": b"1"})
    content = bytearray(path.read_bytes())
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(start) + flags + 1] &= 0xF7
    path.write_bytes(content)
    assert list(open_files([path], everything).members) == ["caf\u00e9.png"]


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png"])
def test_a_name_that_is_not_utf_8_or_has_control_characters_is_refused(tmp_path, name):
    (tmp_path / "d").mkdir()
    with open(bytes(tmp_path / "d") + b"/" + name, "wb") as handle:  # noqa: PTH123 - a Path takes no bytes
        handle.write(b"1")
    with pytest.raises(InputError, match="a file whose name"):
        open_files([tmp_path / "d"], everything)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (6, b"\xff\xff", "needs a newer reader"),  # the version that is needed
        (8, b"\x20\x00", "as a patch of another file"),
        (8, b"\x41\x00", "encrypted"),
        (10, b"\x62\x00", "packed by method 98"),
        (10, b"\x5d\x00", "packed by method 93"),
    ],
)
def test_what_a_zip_may_not_hold_is_a_sentence(tmp_path, place, value, words):
    path = write_zip(tmp_path / "d", {"a.png": b"1"})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + place : entry + place + 2] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_files([path], everything)


def test_a_flag_that_lies_about_utf_8_is_a_sentence(tmp_path):
    path = write_zip(tmp_path / "d", {"\u00e9.png": b"1"})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xe9\xe9"))
    with pytest.raises(InputError, match="is cut short or damaged"):
        open_files([path], everything)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_special_file_as_source_is_refused_and_never_read(tmp_path, kind):
    path = tmp_path / "source.zip"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"it is a (named pipe|device), not a file"):
        open_files([path], everything)
