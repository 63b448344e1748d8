"""Video files as frames, and frames as a video file: by OpenCV's FFmpeg. Needs no torch.

OpenCV gives a damaged video as if it were a shorter one. So the sizes that a file's own headers give are compared with the file
before it is read, and the number of frames that it promises with those that came.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError, SegctlError
from segctl.files import FREE_SPACE, write_whole

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".wmv")
"""The endings of the videos that are taken from folders and patterns; a file that is named itself may have any."""
CODEC = "mp4v"
"""MPEG-4 Part 2: the one codec that OpenCV's packages write on every system. Its encoder halves colour, so sides must be even."""
USUAL_FPS = 25.0
"""For a video that does not say how many frames a second it shows."""
_STARTS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"0&\xb2u", b"FLV\x01", b"OggS")
"""First bytes of Matroska (WebM too), MPEG programs, ASF (WMV), Flash and Ogg."""
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""The kinds of box that an MP4 or QuickTime file begins with, at its fifth byte."""
_PACKET = 188
"""Bytes of a packet of an MPEG transport stream; each begins with a G."""
_STILL_BRANDS = (b"heic", b"heix", b"avif", b"mif1", b"msf1")
"""HEIC and AVIF are pictures in the boxes of MP4."""
_MAKE_WHOLE = "copy the file again from where it came, or repair it (`ffmpeg -i FILE -c copy whole.mp4`)"
_MISSING_FRAMES = 0.05
"""Warn when at least this fraction of the frames that a file promises is not in it. Several formats give only an estimate."""


def is_video(path: Path) -> bool:
    """Whether a file begins as a video does. Its ending does not matter."""
    with path.open("rb") as file:
        head = file.read(_PACKET + 1)
    if head[4:8] in _BOXES:
        return head[8:12] not in _STILL_BRANDS
    packets = head[:1] == head[_PACKET:] == b"G"
    return packets or head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


@dataclass
class Video:
    """An open video. height, width: of a frame, turned upright.  fps: frames a second.  promised: how many frames its headers
    say that it has, an estimate in several formats, 0 if they do not say."""

    path: Path
    height: int
    width: int
    fps: float
    promised: int
    _capture: Any
    found: int = 0
    """How many frames there were, once `frames` has come to its end."""

    def frames(self, every: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The number, from 0, and the RGB pixels uint8 (H, W, 3) of each `every`th frame.

        Raises InputError that names the file where a frame has another size, or where there is no frame at all.
        """
        number = 0
        while self._capture.grab():
            if number % every == 0:
                whole, frame = self._capture.retrieve()
                if not whole or frame.shape != (self.height, self.width, 3):
                    got = "cannot be decoded" if not whole else f"is {frame.shape[1]}×{frame.shape[0]} pixels"
                    raise InputError(
                        f"frame {number} of '{self.path}' {got}, wanted {self.width}×{self.height} as its header says",
                        _MAKE_WHOLE,
                    )
                yield number, np.ascontiguousarray(frame[..., ::-1])
            number += 1
        if not number:
            raise InputError(f"cannot read '{self.path}': it has no frame that can be decoded", _MAKE_WHOLE)
        self.found = number

    def doubt(self) -> str:
        """Why the video may be damaged, once all frames were read; empty if nothing says so."""
        if self.promised - self.found <= max(1, _MISSING_FRAMES * self.promised):
            return ""
        return f"'{self.path}' promises {self.promised} frames, but only {self.found} could be read: it may be damaged"


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """A video to read frames of. Raises InputError that names the file if it is none, is empty or is cut short."""
    _judge(path)
    import cv2

    # FFmpeg writes what it meets to stderr, where only segctl's own sentence belongs. It reads this once, at the first video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        width, height = (int(capture.get(what)) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if not capture.isOpened() or min(width, height) < 1:
            raise InputError(f"cannot read '{path}': it is a damaged video, or of a codec that OpenCV does not know", _MAKE_WHOLE)
        fps = capture.get(cv2.CAP_PROP_FPS)
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        yield Video(
            path,
            height,
            width,
            fps if np.isfinite(fps) and 0 < fps <= 1000 else USUAL_FPS,
            int(promised) if np.isfinite(promised) and 0 < promised < 2**40 else 0,
            capture,
        )
    finally:
        capture.release()


def _judge(path: Path) -> None:
    """Raise InputError for a file that is not a video, or that its own headers say to be longer."""
    size = path.stat().st_size
    if not size:
        raise InputError(f"cannot read '{path}': it is empty", "copy the file again from where it came")
    if not is_video(path):
        raise InputError(f"cannot read '{path}': it is not a video", f"give files such as {', '.join(VIDEO_ENDINGS[:4])}")
    with path.open("rb") as file:
        head = file.read(12)
        end, kinds = 0, set()
        if head[:4] == b"RIFF":
            (length,) = struct.unpack("<I", head[4:8])
            end, kinds = (0 if length in (0, 2**32 - 1) else 8 + length), {b"moov"}
        elif head[4:8] in _BOXES:
            for kind, end in _boxes(file, size):  # noqa: B007 - the last one counts
                kinds.add(kind)
        else:
            return
    if end > size or b"moov" not in kinds:
        raise InputError(f"cannot read '{path}': it is cut short", _MAKE_WHOLE)


def _boxes(file: Any, size: int) -> Iterator[tuple[bytes, int]]:
    """The kind of each outermost box of an MP4, and where the box ends, as far as the file goes."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length == 0:  # it goes on to the end of the file
            length = size - start
        if length < 8 or not kind.isascii():
            return  # bytes behind the last box, which players ignore
        start += length
        yield kind, start


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], size: tuple[int, int], fps: float) -> None:
    """Write RGB frames uint8 (H, W, 3) as an MP4, whole: nothing is at `path` before the last frame.

    size: (H, W). An odd side loses its last row or column, which the codec cannot hold.
    Raises SegctlError where the video cannot be written, and whatever `frames` raises.
    """
    import cv2

    even = max(2, size[0] & ~1), max(2, size[1] & ~1)

    def write(partial: Path) -> None:
        # OpenCV takes the container from the ending.
        named = partial.with_name(f"{partial.name}.mp4")
        writer = cv2.VideoWriter(str(named), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), fps, (even[1], even[0]))
        count = 0
        try:
            if not writer.isOpened():
                raise SegctlError(f"cannot write '{path}': OpenCV cannot encode a video of {even[1]}×{even[0]} pixels")
            for frame in frames:
                shown = frame[: even[0], : even[1]]
                if shown.shape[:2] != even:  # a video of a single row or column
                    shown = np.pad(shown, ((0, even[0] - shown.shape[0]), (0, even[1] - shown.shape[1]), (0, 0)), "edge")
                writer.write(np.ascontiguousarray(shown[..., ::-1]))
                count += 1
            writer.release()
            # A full disk is not an error to OpenCV.
            _require_written(named, path, count)
            named.replace(partial)
        finally:
            writer.release()
            named.unlink(missing_ok=True)

    write_whole(path, write)


def _require_written(named: Path, path: Path, count: int) -> None:
    """Raise SegctlError if a written video is not whole."""
    try:
        with open_video(named) as written:
            if written.promised == count:
                return
    except InputError:
        pass
    raise SegctlError(f"cannot write '{path}': the disk is full or does not take more data", FREE_SPACE)
