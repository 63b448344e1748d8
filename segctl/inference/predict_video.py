"""A trained network and a video -> a label map of each frame, and the video with the class colours over it."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import read_label
from segctl.errors import InputError
from segctl.evaluate.draw_masks import overlay, write_index
from segctl.evaluate.png_cityscapes import train_to_label_ids
from segctl.inference.network import PictureNetwork
from segctl.inference.videos import open_video, write_video

Item = TypeVar("Item")


@dataclass(frozen=True)
class VideoOutputs:
    """What to write of a video, and where.

    overlaid: the MP4.  frames: the folder of the label maps, `000000.png` for the first frame; None for no label maps.
    every: take each `every`th frame only; the MP4 shows correspondingly fewer a second.  label_ids: write Cityscapes label ids.
    """

    overlaid: Path
    frames: Path | None
    every: int = 1
    label_ids: bool = False


def predict_video(network: PictureNetwork, path: Path, outputs: VideoOutputs, done: Callable[[int, int], None]) -> str:
    """Write the outputs of a video. The MP4 comes last: where it exists, the video is done.

    A frame whose label map is there from an earlier start, and is newer than the video, is not predicted again.
    done: called after each frame with how many are done and how many there are, as far as it is known.
    Returns why the video may be damaged, or nothing.
    Raises InputError that names the file where it cannot be read, and before anything is written if that shows at once.
    """
    # Closed before the video is, so that no thread reads on in it.
    with open_video(path) as video, closing(read_ahead(video.frames(outputs.every))) as coming:
        first = next(coming)  # raises for a video without a frame, before a file is begun
        count = 0

        def overlaid() -> Iterator[NDArray[np.uint8]]:
            nonlocal count
            for number, image in chain([first], coming):
                ids = _ids(network, path, outputs, number, image)
                count += 1
                yield overlay(image, ids, network.palette)
                done(count, max(count, -(-video.promised // outputs.every)))

        write_video(outputs.overlaid, overlaid(), (video.height, video.width), video.fps / outputs.every)
        return video.doubt()


def frames_promised(path: Path, every: int) -> int:
    """How many frames a video says that it gives, at least one; a guess for the length of a progress bar."""
    try:
        with open_video(path) as video:
            return max(1, -(-video.promised // every))
    except InputError:
        return 1


def _ids(network: PictureNetwork, path: Path, outputs: VideoOutputs, number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class of each pixel of a frame, uint8 (H, W), which is written if it was not yet."""
    if outputs.frames is None:
        return np.asarray(network.ids(image[None])[0])
    file = outputs.frames / f"{number:06d}.png"
    if not outputs.label_ids and file.is_file() and path.stat().st_mtime_ns <= file.stat().st_mtime_ns:
        there = read_label(PlainFile(str(file), file))
        if there.shape == image.shape[:2]:
            return there.astype(np.uint8)
    ids = np.asarray(network.ids(image[None])[0])
    if outputs.label_ids:
        write_index(file, train_to_label_ids()[ids])
    else:
        write_index(file, ids, network.palette)
    return ids


def read_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The same items; a thread makes the next one while the caller works on the last."""
    end = object()
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, items, end)
            yield item  # type: ignore[misc]
