"""Videos through the front door: a label map of each frame, a video laid over, resumed, stopped and refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import segctl
from segctl.cli import main
from segctl.errors import InputError
from segctl.evaluate.draw_masks import overlay
from segctl.evaluate.png_pairs import read_ids
from segctl.inference import predict_pictures, videos
from segctl.inference.network import PictureNetwork
from segctl.inference.videos import open_video, write_video


def draw_video(path: Path, frames: int = 6, size: tuple[int, int] = (32, 48), fps: float = 12.5, codec: str = "mp4v") -> Path:
    """A video of `frames` frames of `size` (H, W), each of one grey: 20 times its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((*size, 3), 20 * number % 256, np.uint8))
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with open_video(path) as video:
        return [image for _, image in video.frames()]


@pytest.fixture
def here(toy_teacher: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with `run`, and a video `drive.mp4`."""
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_teacher, tmp_path / "run")
    draw_video(tmp_path / "drive.mp4")
    return tmp_path


class OneClass(PictureNetwork):
    """A network that finds one class everywhere, and is stopped by Ctrl-C at the frame `stop`, from 1."""

    path, class_names, palette = Path(__file__), ["a", "b"], np.full((256, 3), 255, np.uint8)
    protocol = precision = "none"

    def __init__(self, stop: int = 0) -> None:
        self.seen, self.stop = 0, stop

    def ids(self, images: np.ndarray) -> np.ndarray:
        self.seen += 1
        if self.seen == self.stop:
            raise KeyboardInterrupt
        return np.zeros(images.shape[:3], np.uint8)

    def class_probabilities(self, images: np.ndarray) -> np.ndarray:
        raise AssertionError("label maps need no probabilities")


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a video `drive.mp4`; whatever network is named, `OneClass` is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict_pictures, "open_network", lambda *args, **more: OneClass())
    draw_video(tmp_path / "drive.mp4")
    return tmp_path


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_frame_gets_a_label_map_and_the_video_its_colours(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(here / "a.png")
    assert main(["predict", "run", "drive.mp4", "a.png", "-o", "out"]) == 0
    assert capsys.readouterr().out == "1 masks and 1 video in out\n"
    frames = [f"drive/{number:06d}.png" for number in range(6)]
    assert below(here / "out") == ["a.png", *frames, "overlays/drive.mp4", "predict.json"]
    with open_video(here / "out/overlays/drive.mp4") as overlaid:
        assert (overlaid.height, overlaid.width, overlaid.fps, overlaid.promised) == (32, 48, 12.5, 6)
    # A label map is that of the frame as a picture, and the colours lie over the grey of the frame, whatever the codec loses.
    network, laid_over = segctl.load(here / "run"), frames_of(here / "out/overlays/drive.mp4")
    for number, image in enumerate(frames_of(here / "drive.mp4")):
        ids = network.predict(image)
        np.testing.assert_array_equal(ids, read_ids(here / "out" / frames[number]))
        assert np.abs(overlay(image, ids, network.palette).astype(int) - laid_over[number]).mean() < 12


def test_every_nth_frame_keeps_its_number_and_the_pace(here: Path) -> None:
    assert main(["predict", "run", "drive.mp4", "-o", "out", "--every", "4"]) == 0
    assert below(here / "out") == ["drive/000000.png", "drive/000004.png", "overlays/drive.mp4", "predict.json"]
    with open_video(here / "out/overlays/drive.mp4") as overlaid:
        assert (overlaid.fps, overlaid.promised) == (12.5 / 4, 2)
    assert main(["predict", "run", "drive.mp4", "-o", "out"]) == 2  # the frames would be mixed
    assert main(["predict", "run", "drive.mp4", "-o", "alone", "--no-frames"]) == 0
    assert below(here / "alone") == ["overlays/drive.mp4", "predict.json"]


def test_a_stop_leaves_whole_frames_and_no_video_and_goes_on_there(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = OneClass(stop=4)
    monkeypatch.setattr(predict_pictures, "open_network", lambda *args, **more: network)
    told: list[tuple[int, int]] = []
    request = predict_pictures.PredictRequest(Path("run"), ["drive.mp4"], Path("out"), Path("data"))
    with pytest.raises(KeyboardInterrupt):
        predict_pictures.predict_files(request, lambda done, total: told.append((done, total)))
    assert below(quick / "out") == ["drive/000000.png", "drive/000001.png", "drive/000002.png", "predict.json"]
    assert told == [(1, 6), (2, 6), (3, 6)][: len(told)]
    found = predict_pictures.predict_files(request, lambda done, total: told.append((done, total)))
    assert (network.seen, found.videos, found.done_before) == (4 + 3, 1, 0)  # three of six frames were there
    assert told[-1] == (6, 6)
    assert len(frames_of(quick / "out/overlays/drive.mp4")) == 6
    assert predict_pictures.predict_files(request).done_before == 1
    later = (quick / "out/overlays/drive.mp4").stat().st_mtime_ns + 1
    os.utime(quick / "drive.mp4", ns=(later, later))  # another video of the same name: nothing of the earlier one is of use
    assert predict_pictures.predict_files(request).done_before == 0
    assert network.seen == 7 + 6


def _cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def _cut_behind_index(path: Path) -> None:
    """The frames are cut short, although the file begins with its index, as videos for the web do."""
    content = path.read_bytes()
    start, boxes = 0, {}
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        boxes[content[start + 4 : start + 8]] = content[start : start + length]
        start += length
    path.write_bytes((boxes[b"ftyp"] + boxes[b"moov"] + boxes[b"mdat"])[:-100])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"#EXTM3U\nhttp://localhost/a.ts\n"), "it is not a video"),
        (lambda path: path.write_bytes(b"ffconcat version 1.0\nfile 'x.mp4'\n"), "it is not a video"),
        (lambda path: Image.new("RGB", (8, 8)).save(path, format="PNG"), "it is not a video"),
        (lambda path: _cut(path, 500), "it is cut short"),
        (lambda path: _cut(path, 10), "it is cut short"),
        (_cut_behind_index, "it is cut short"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"zzzz")),
            "it is a damaged video, or of a codec",
        ),
        (lambda path: draw_video(path, frames=0), "it is"),
    ],
)
def test_what_is_no_whole_video_is_one_sentence(damage, problem: str, quick: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage(quick / "drive.mp4")
    assert main(["predict", "run", "drive.mp4", "-o", "out"]) == 2
    said = capfd.readouterr().err
    assert f"error: cannot read 'drive.mp4': {problem}" in said
    assert "moov" not in said  # FFmpeg keeps silent
    assert not (quick / "out").exists()


def test_a_damaged_video_does_not_keep_the_others_from_being_done(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_video(quick / "in/whole.avi", codec="MJPG")
    draw_video(quick / "in/broken.avi", frames=30, codec="MJPG")
    _cut(quick / "in/broken.avi", 6000)
    assert main(["predict", "run", "in", "-o", "out"]) == 2
    assert "cannot read 'in/broken.avi': it is cut short" in capsys.readouterr().err
    assert "overlays/whole.mp4" in below(quick / "out")
    assert not [name for name in below(quick / "out") if "broken" in name or "part" in name]


def test_fewer_frames_than_promised_are_warned_of(quick: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    real = videos.Video

    def promising(*args: object) -> videos.Video:
        video = real(*args)  # type: ignore[arg-type]
        video.promised = 40
        return video

    monkeypatch.setattr(videos, "Video", promising)
    monkeypatch.setattr(videos, "_require_written", lambda *args: None)
    assert main(["predict", "run", "drive.mp4", "-o", "out"]) == 0
    assert "'drive.mp4' promises 40 frames, but only 6 could be read: it may be damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--every", "2"], "--every is for videos, and there is none among the files"),
        (["a.png", "--no-frames"], "--no-frames is for videos, and there is none among the files"),
        (["drive.mp4", "other/drive.mp4"], "'drive.mp4' and 'other/drive.mp4' would both become 'drive/'"),
        (["drive.mp4", "deep"], "the masks of 'deep/drive/000000.png' would lie among the frames of 'drive.mp4', in 'drive/'"),
    ],
)
def test_options_and_names_that_do_not_fit_write_nothing(
    arguments: Sequence[str], message: str, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "deep/drive/000000.png"):
        (quick / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(quick / name)
    draw_video(quick / "other/drive.mp4")
    assert main(["predict", "run", *arguments, "-o", "out"]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (quick / "out").exists()


def test_a_video_is_known_by_its_content_and_a_folder_takes_those_with_endings(quick: Path) -> None:
    (quick / "in").mkdir()
    draw_video(quick / "in/b.avi", codec="MJPG")
    draw_video(quick / "in/c.mkv", codec="MJPG")
    (quick / "drive.mp4").rename(quick / "in/recording")
    assert main(["predict", "run", "in", "in/recording", "-o", "out", "--no-frames"]) == 0
    assert below(quick / "out") == ["overlays/b.mp4", "overlays/c.mp4", "overlays/recording.mp4", "predict.json"]


@pytest.mark.parametrize("size", [(33, 47), (2, 2), (1, 5)])
def test_a_written_video_has_even_sides_and_its_frames(size: tuple[int, int], tmp_path: Path) -> None:
    frames = [np.full((*size, 3), (200, 100, value), np.uint8) for value in (0, 250)]
    write_video(tmp_path / "a.mp4", frames, size, 29.97)
    found = frames_of(tmp_path / "a.mp4")
    assert [image.shape for image in found] == [(max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2), 3)] * 2
    assert np.abs(found[1].astype(int) - (200, 100, 250)).max() < 12  # red is red


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        write_video(tmp_path / "a.mp4", [], (4, 4), 25)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.slow
def test_an_exported_file_takes_videos_without_torch(here: Path, toy_export: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from segctl.cli import main\n"
        f"sys.exit(main(['predict', {str(toy_export / 'export' / 'model.onnx')!r}, 'drive.mp4', '-o', 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(below(here / "out")) == 6 + 2
    assert json.loads((here / "out/predict.json").read_text(encoding="utf-8"))["precision"] == "fp32"
