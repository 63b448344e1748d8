"""How certain a network was of the labels that it made: what `segctl predict` writes beside them, and `data prepare` reads.

DIR/predict.json            the network and the settings
DIR/confidence/<name>.png   the largest probability of each pixel in 65535ths: 16-bit grey, (H, W)
DIR/soft/<name>.npz         the most probable classes of each pixel, the most probable first: `classes` uint8 (K, H, W), and
                            `probabilities` uint16 (K, H, W) in 65535ths; compressed

Sixteen bits, because most pixels of a good network are surer than the 99.6 % that eight bits can tell from certainty, and then no
threshold could choose among them.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segctl.errors import InputError
from segctl.files import read_npz, write_npz, write_whole

RECORD = "predict.json"
CONFIDENCE, SOFT = "confidence", "soft"
LEVELS = 65535


def in_levels(probabilities: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Probabilities of any shape, 0 to 1, in 65535ths."""
    return np.asarray(np.rint(np.clip(probabilities, 0, 1) * LEVELS), np.uint16)


def most_probable(probabilities: NDArray[np.float32], k: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The k most probable classes of each pixel, and their probabilities in 65535ths, the most probable first.

    probabilities: float32 (C, H, W).  Returns uint8 and uint16 (min(k, C), H, W); of equal ones the lower class comes first.
    """
    classes = np.argsort(-probabilities, axis=0, kind="stable")[:k]
    return classes.astype(np.uint8), in_levels(np.take_along_axis(probabilities, classes, 0))


def write_confidence(path: Path, probabilities: NDArray[np.float32]) -> None:
    """Write the largest probability of each pixel of float32 (C, H, W)."""
    picture = Image.fromarray(in_levels(probabilities.max(0)))
    write_whole(path, lambda partial: picture.save(partial, "PNG"))


def write_soft(path: Path, probabilities: NDArray[np.float32], k: int) -> None:
    """Write the k most probable classes of each pixel of float32 (C, H, W)."""
    classes, levels = most_probable(probabilities, k)
    write_npz(path, {"classes": classes, "probabilities": levels}, compressed=True)


def read_soft(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Classes uint8 (K, H, W) and their probabilities float32 (K, H, W). Raises InputError for a file that `predict` did not
    write."""
    hint = "write it again with `segctl predict --soft`"
    arrays = read_npz(path, "soft labels", hint)
    if absent := [name for name in ("classes", "probabilities") if name not in arrays]:
        raise InputError(f"cannot read soft labels from '{path}': array '{absent[0]}' is missing", hint)
    probabilities: NDArray[np.float32] = np.divide(arrays["probabilities"], LEVELS, dtype=np.float32)
    return arrays["classes"], probabilities
