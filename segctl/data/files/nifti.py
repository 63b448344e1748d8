"""NIfTI volumes of scanners, `.nii` and `.nii.gz`, read by nibabel (the extra `medical`)."""

import io
import zlib
from typing import Any

import numpy as np

from segctl.data.files.archives import VOLUME_BYTES, File
from segctl.data.files.pictures import UnfitError, named
from segctl.errors import InputError, first_line

_HEADER_BYTES = 352
_SAVE_AGAIN = "get the file again from where it was published"


def require_nibabel() -> Any:
    """The package nibabel. Raises InputError where it is not installed."""
    try:
        import nibabel
    except ImportError as error:
        raise InputError("NIfTI files need the package 'nibabel'", 'install it with `pip install "segctl[medical]"`') from error
    return nibabel


def volume_shape(file: File) -> tuple[int, ...]:
    """The sides of a volume in the order of the file, from its header. Raises InputError that names the file."""
    nibabel = require_nibabel()
    with named(file):
        start = file.read(2**16)
        if start.startswith(b"\x1f\x8b"):
            start = zlib.decompressobj(31).decompress(start, _HEADER_BYTES)
        try:
            header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(start), check=True)
        except Exception as error:  # nibabel has no common base for what its parsers raise
            raise UnfitError(f"is not a NIfTI volume: {first_line(error)}", _SAVE_AGAIN) from error
        return tuple(map(int, header.get_data_shape()))


def volume_of(file: File, content: bytes | None = None) -> np.ndarray:
    """The numbers of a volume, in the order and with the scale of its header. Raises InputError that names the file.

    content: the bytes of the file, if they are read already.
    """
    nibabel = require_nibabel()
    with named(file):
        content = file.read() if content is None else content
        try:
            content = _unpacked(content) if content.startswith(b"\x1f\x8b") else content
            return np.asarray(nibabel.Nifti1Image.from_bytes(content).dataobj)
        except UnfitError:
            raise
        except Exception as error:
            raise UnfitError(f"is not a whole NIfTI volume: {first_line(error)}", _SAVE_AGAIN) from error


def _unpacked(content: bytes) -> bytes:
    """The bytes in a gzip file. Raises UnfitError for more than any scan has, before they are unpacked."""
    unpacking = zlib.decompressobj(31)
    found = unpacking.decompress(content, VOLUME_BYTES)
    if unpacking.unconsumed_tail:
        raise UnfitError(f"unpacks to more than {VOLUME_BYTES} bytes", _SAVE_AGAIN)
    if not unpacking.eof:
        raise UnfitError("is not a whole NIfTI volume: it is cut short", _SAVE_AGAIN)
    return found
