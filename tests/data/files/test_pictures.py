import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import Picture, read_image, read_label
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


@pytest.mark.parametrize(("depth", "packed", "ids"), [(4, 0x13, [1, 3]), (2, 0b01_11_0000, [1, 3]), (1, 0b01_000000, [0, 1])])
def test_shallow_grey_gives_its_ids_unscaled(tmp_path, depth, packed, ids):
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, depth, 0, bytes([0, packed])))
    assert label_file(path, "L", "1").decode().array.tolist() == [ids]
    assert read_label(PlainFile("a.png", path)).tolist() == [ids]


@pytest.mark.parametrize("bits", [2, 4])
def test_a_shallow_grey_tiff_gives_its_ids_unscaled(tmp_path, bits):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(2, 1, [(258, bits), (262, 1), (277, 1)], bytes([0x13 if bits == 4 else 0b01_11_0000])))
    assert read_label(PlainFile("a.tif", path)).tolist() == [[1, 3]]


def tiff(width: int, height: int, tags: list[tuple[int, int]], pixels: bytes) -> bytes:
    """A TIFF of one uncompressed strip with those SHORT tags."""
    entries = sorted([(256, width), (257, height), (259, 1), (278, height), (279, len(pixels)), *tags])
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    entries = sorted([*entries, (273, start)])
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries) + bytes(4) + pixels


def test_a_tiff_that_stores_0_for_white_is_refused_as_a_label(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(2, 1, [(258, 8), (262, 0), (277, 1)], b"\0\1"))
    with pytest.raises(InputError, match="stores 0 for white"):
        read_label(PlainFile("a.tif", path))


def test_bands_are_counted(tmp_path):
    for bands in (2, 4, 8):
        path = tmp_path / f"{bands}.tif"
        path.write_bytes(tiff(2, 1, [(258, 8), (262, 1), (277, bands)], bytes(2 * bands)))
        assert refusal(image_file(path)).endswith(f"has {bands} bands, wanted 3 (RGB) or 1 (grey)")


@pytest.mark.parametrize("suffix", ["tif", "gif", "png"])
def test_several_pages_or_frames_are_refused_with_their_number(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    pages = [Image.fromarray(np.full((6, 8), shade, np.uint8)) for shade in (0, 1, 2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    what = "pages" if suffix == "tif" else "frames"
    with pytest.raises(InputError, match=f"'a' holds 3 {what}, wanted one"):
        read_label(PlainFile("a", path))
    with pytest.raises(InputError, match=f"'a' holds 3 {what}, wanted one"):
        read_image(PlainFile("a", path))


def test_an_overview_of_a_tiff_is_no_page(tmp_path):
    path = tmp_path / "a.tif"
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[254] = 1
    small = Image.new("L", (4, 3), 7)
    small.encoderinfo = {"tiffinfo": info}
    Image.new("L", (8, 6), 7).save(path, save_all=True, append_images=[small])
    assert (read_label(PlainFile("a", path)) == 7).all()


@pytest.mark.parametrize(("form", "words"), [("JPEG", "a JPEG"), ("WEBP", "a lossy WebP")])
def test_lossy_labels_are_refused_under_any_name(tmp_path, form, words):
    path = tmp_path / "a.png"
    Image.fromarray(INDEX).convert("L" if form == "JPEG" else "RGB").save(path, form)
    assert f"is {words}, whose values are not exact" in refusal(label_file(path, "L", "RGB"))


def test_a_jpeg_with_previews_behind_it_is_one_picture(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6)).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 3))])
    assert read_image(PlainFile("a", path)).shape == (6, 8, 3)


def deep_pictures() -> dict[str, bytes]:
    """One pixel of 16-bit RGB in each container."""
    return {
        "png": png(1, 1, 16, 2, b"\0" + bytes(6)),
        "tif": tiff(1, 1, [(258, 16), (262, 2), (277, 3)], bytes(6)),
        "ppm": b"P6 1 1 65535\n" + bytes(6),
    }


@pytest.mark.parametrize("suffix", deep_pictures())
def test_16_bit_rgb_is_refused_in_every_container(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(deep_pictures()[suffix])
    assert "is 16-bit RGB, wanted RGB" in refusal(image_file(path))
    with pytest.raises(InputError, match="'a' is 16-bit RGB, wanted 8-bit colour or grey"):
        read_image(PlainFile("a", path))


@pytest.mark.parametrize(("dtype", "words"), [("int32", "grey of signed or 32-bit integers"), ("float32", "floating-point grey")])
def test_a_deep_grey_picture_is_not_called_rgb(tmp_path, dtype, words):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((3, 4), dtype)).save(path)
    assert f"is {words}, wanted " in refusal(label_file(path))
    assert f"is {words}, wanted RGB" in refusal(image_file(path))


def test_transparency_that_is_used_is_refused_and_other_is_dropped(tmp_path):
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(path)
    assert np.array_equal(image_file(path).decode().array, pixels[..., :3])
    pixels[0, :3, 3] = 0
    Image.fromarray(pixels).save(path)
    assert "has 3 transparent pixels" in refusal(image_file(path))


TURNED = np.arange(48, dtype=np.uint8).reshape(6, 8)
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def exif_block() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def turned_file(path: Path, place: str) -> None:
    """A picture that says in one of many places that it must be turned by 90 degrees clockwise."""
    picture, info = Image.fromarray(TURNED).convert("RGB"), PngInfo()
    match place:
        case "exif.png" | "exif.webp" | "exif.tif":
            picture.save(path, exif=exif_block(), **({"lossless": True} if path.suffix == ".webp" else {}))
        case "text.png":
            block = exif_block()
            info.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()}\n", zip=True)
            picture.save(path, pnginfo=info)
        case "xmp.png":
            info.add_itxt("XML:com.adobe.xmp", XMP)
            picture.save(path, pnginfo=info)
        case "xmp.webp":
            picture.save(path, lossless=True, xmp=XMP.encode())
        case "late.png":
            picture.save(path)
            content, chunk = path.read_bytes(), exif_block().removeprefix(b"Exif\0\0")
            late = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
            path.write_bytes(content[:-12] + late + content[-12:])


@pytest.mark.parametrize("place", ["exif.png", "exif.webp", "exif.tif", "text.png", "xmp.png", "xmp.webp", "late.png"])
def test_orientation_is_found_in_every_place(tmp_path, place):
    path = tmp_path / place
    turned_file(path, place)
    assert "is stored turned or mirrored (EXIF orientation 6)" in refusal(image_file(path))
    assert np.array_equal(read_image(PlainFile(place, path))[..., 0], np.rot90(TURNED, -1))
    Image.fromarray(TURNED)
    with pytest.raises(InputError):
        read_label(PlainFile(place, path))


def test_orientation_in_the_xmp_of_a_jpeg_is_found(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6)).save(path, xmp=XMP.encode())
    assert "EXIF orientation 6" in refusal(image_file(path))
    assert read_image(PlainFile("a.jpg", path)).shape == (8, 6, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("block", [b"Exif\0\0garbage and more", b"Exif\0\0II*\0\xff\xff\xff\x7f", exif_block()[:20]])
def test_a_damaged_exif_block_is_a_sentence(tmp_path, suffix, block):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (8, 6)).save(path, exif=block)
    assert "its EXIF block is damaged" in refusal(image_file(path))
    with pytest.raises(InputError, match="its EXIF block is damaged"):
        read_image(PlainFile("a", path))


def test_values_beyond_16_bits_are_no_ids(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((6, 8), 70000, np.int32)).save(path)
    with pytest.raises(InputError, match="holds the value 70000, wanted 0 to 65535"):
        read_label(PlainFile("a", path))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_special_file_is_refused_and_never_read(tmp_path, kind):
    path = tmp_path / "a.png"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"it is a (named pipe|device), not a file"):
        read_label(PlainFile("a", path))
    assert "not a file" in refusal(image_file(path))


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
    Image.new("RGB", (8, 6)).save(path)
    note = b"\xff\xfe" + (60_002).to_bytes(2, "big") + b"x" * 60_000
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8", b"\xff\xd8" + 2 * note, 1))
    assert path.stat().st_size > 2**16
    assert image_file(path).size() == (6, 8)


def test_a_picture_of_absurd_size_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(100_000, 100_000, 8, 2, b""))
    assert refusal(image_file(path)).endswith("is larger than 178 million pixels")
