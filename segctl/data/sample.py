"""What every source gives: one sample, read and in train ids."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RawSample:
    """image uint8 (H, W, 3) RGB; label uint8 (H, W) in train ids, 255 ignored; instance uint16 (H, W) where there is one."""

    name: str
    image: np.ndarray
    label: np.ndarray
    instance: np.ndarray | None
    source_sha256: str
    """Hash of the bytes the sample was made from, the same on any machine."""
    source_bytes: int
    """How many bytes that were."""
    unknown_pixels: int = 0
    """Pixels whose colour is no class's; their label is 255."""
    image_file: bytes | None = None
    """The file the image was decoded from, where there was one and decoding it again gives exactly `image`."""
