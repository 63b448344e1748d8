"""SBD's labels: MATLAB files that only scipy reads."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np

from segctl.data.datasets.label_files import IdMap, Label, check_ids
from segctl.data.files.entries import File, UnreadableError
from segctl.errors import InputError

IDS = IdMap(bytes([*range(21), *[255] * 235]), bytes([*[1] * 21, *[0] * 235]), "get SBD's benchmark.tgz again")


@dataclass(frozen=True)
class SbdLabel:
    """`GTcls.Segmentation` of one `cls/NAME.mat`: uint8 (H, W), 0 to 20, never 255."""

    sample: str
    file: File

    def __str__(self) -> str:
        return f"the label of sample '{self.sample}' ({self.file.where})"

    def size(self) -> None:
        """Only reading the whole file tells."""
        return

    def digest(self) -> str:
        return hashlib.sha256(self._content()).hexdigest()

    def decode(self) -> Label:
        content = self._content()
        array = self._segmentation(content)
        check_ids(str(self), array, IDS)
        return Label(array, hashlib.sha256(content).hexdigest(), len(content))

    def _content(self) -> bytes:
        try:
            return self.file.read()
        except (OSError, UnreadableError) as error:
            raise self._unreadable(str(error)) from error

    def _segmentation(self, content: bytes) -> np.ndarray:
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise InputError(
                "SBD's .mat files cannot be read without scipy",
                "pip install scipy, or give a folder SegmentationClassAug instead",
            ) from error
        try:
            array = np.asarray(loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0])
        except Exception as error:  # whatever scipy stumbles over in a damaged file
            raise self._unreadable("it is no MATLAB file of SBD") from error
        if array.dtype != np.uint8 or array.ndim != 2:
            raise self._unreadable(f"it holds {array.dtype} of {array.ndim} dimensions, wanted uint8 of 2")
        return np.ascontiguousarray(array)  # MATLAB's order is by columns

    def _unreadable(self, reason: str) -> InputError:
        return InputError(f"{self} cannot be read: {reason}", "get SBD's benchmark.tgz again")
