import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import Picture
from segctl.errors import InputError

INDEX = np.arange(48, dtype=np.uint8).reshape(6, 8)


def label_file(path: Path, *modes: str) -> Picture:
    return Picture("street", "label", PlainFile("trainannot/street.png", path), modes or ("L",))


def image_file(path: Path) -> Picture:
    return Picture("street", "image", PlainFile("train/street.png", path), ("RGB",))


def refusal(picture: Picture) -> str:
    with pytest.raises(InputError) as caught:
        picture.decode()
    assert caught.value.exit_code == 2
    return caught.value.message


def test_a_label_keeps_its_ids_and_the_file_its_hash(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(INDEX).save(path)
    decoded = label_file(path).decode()
    assert decoded.array.tolist() == INDEX.tolist()
    assert decoded.sha256 == label_file(path).digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert decoded.content == path.read_bytes()
    assert label_file(path).size() == (6, 8)


def test_a_palette_keeps_its_indices_where_a_palette_is_meant(tmp_path):
    path = tmp_path / "a.png"
    palette = Image.fromarray(INDEX).convert("P")
    palette.putdata(INDEX.ravel().tolist())
    palette.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    palette.save(path)
    assert label_file(path, "P").decode().array.tolist() == INDEX.tolist()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("RGB", "RGB"),
        ("RGBA", "RGB with transparency"),
        ("P", "a palette picture"),
        ("LA", "grey with transparency"),
        ("1", "black and white"),
        ("I;16", "16 bits deep"),
    ],
)
def test_a_label_that_is_no_index_map_is_refused(tmp_path, mode, words):
    path = tmp_path / "a.png"
    picture = Image.fromarray(INDEX.astype(np.uint16)) if mode == "I;16" else Image.fromarray(INDEX).convert(mode)
    picture.save(path)
    wanted = "wanted an index map (8-bit grey, each value a class id)"
    assert refusal(label_file(path)) == f"the label of sample 'street' (trainannot/street.png) is {words}, {wanted}"


def test_an_image_must_be_rgb(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(INDEX).save(path)
    assert refusal(image_file(path)) == "the image of sample 'street' (train/street.png) is 8-bit grey, wanted RGB"


def test_a_truncated_picture_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    assert refusal(image_file(path)) == "the image of sample 'street' (train/street.png) cannot be read: it is cut short"


def test_a_damaged_picture_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert refusal(image_file(path)).startswith("the image of sample 'street' (train/street.png) cannot be read: it is damaged")


def test_a_text_file_is_not_a_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("<html>please log in</html>")
    message = "the label of sample 'street' (trainannot/street.png) cannot be read: it is not a picture"
    assert refusal(label_file(path)) == message
    with pytest.raises(InputError, match="it is not a picture"):
        label_file(path).size()


def test_a_missing_picture_is_named(tmp_path):
    message = "the label of sample 'street' (trainannot/street.png) cannot be read: No such file or directory"
    assert refusal(label_file(tmp_path / "a.png")) == message
    with pytest.raises(InputError, match="No such file"):
        label_file(tmp_path / "a.png").digest()


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG of any depth, which PIL cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_4_bit_grey_label_is_refused_because_its_ids_would_be_scaled(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, 4, 0, b"\0\x13"))
    with Image.open(path) as opened:
        assert np.asarray(opened).tolist() == [[17, 51]]
    wanted = "wanted an index map (8-bit grey, each value a class id)"
    assert refusal(label_file(path)) == f"the label of sample 'street' (trainannot/street.png) is 4-bit grey, {wanted}"


def test_a_16_bit_rgb_image_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + bytes(6)))
    assert refusal(image_file(path)) == "the image of sample 'street' (train/street.png) is 16-bit RGB, wanted RGB"


def test_an_instance_map_keeps_its_16_bits(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[7, 26001]], np.uint16)).save(path)
    decoded = Picture("street", "instance map", PlainFile("a.png", path), ("I;16",)).decode()
    assert (decoded.array.dtype, decoded.array.tolist()) == (np.uint16, [[7, 26001]])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_turned_picture_is_refused_and_an_upright_one_taken(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (8, 6)).save(path, exif=exif)
        if orientation == 1:
            assert image_file(path).size() == (6, 8)
    message = "the image of sample 'street' (train/street.png) is stored turned or mirrored (EXIF orientation 6)"
    assert refusal(image_file(path)) == message


def test_a_header_behind_64_kib_of_notes_is_still_read(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6)).save(path, comment=b"x" * 60000, icc_profile=b"y" * 60000)
    assert path.stat().st_size > 2**16
    assert image_file(path).size() == (6, 8)


def test_a_picture_of_absurd_size_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(100_000, 100_000, 8, 2, b""))
    assert refusal(image_file(path)).endswith("cannot be read: it is larger than 178 million pixels")
