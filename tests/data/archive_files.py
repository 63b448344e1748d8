"""The same tree of files as a folder, a zip and tars."""

import io
import tarfile
import zipfile
from pathlib import Path


def write_folder(path: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, tree: dict[str, bytes]) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, tree: dict[str, bytes], suffix: str = ".tar", mode: str = "w") -> Path:
    path = path.with_suffix(suffix)
    with tarfile.open(path, mode) as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_tgz(path: Path, tree: dict[str, bytes]) -> Path:
    return write_tar(path, tree, ".tgz", "w:gz")


def write_txz(path: Path, tree: dict[str, bytes]) -> Path:
    return write_tar(path, tree, ".txz", "w:xz")


WRITERS = [write_folder, write_zip, write_tar, write_tgz, write_txz]
ARCHIVES = [write_zip, write_tar, write_tgz]
