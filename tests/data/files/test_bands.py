"""Deep and multi-band pictures become the 8-bit bands that a person asked for, and nothing else passes for them."""

import io
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segctl.data.files.archives import PlainFile
from segctl.data.files.bands import BandChoice, BandPicture, BandScaling, read_bands, read_numbers, shown_rgb
from segctl.errors import InputError


def as_file(path: Path) -> PlainFile:
    return PlainFile(path.name, path)


def numbers(bands: int = 6, seed: int = 0, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, (5, 7, bands)).astype(dtype)


def write_tiff(path: Path, values: np.ndarray, **more: object) -> Path:
    rasterio = pytest.importorskip("rasterio")
    height, width, count = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": values.dtype.name} | more
    with rasterio.open(path, "w", **profile) as file:
        file.write(values.transpose(2, 0, 1))
    return path


def scaling(
    bands: tuple[int, ...] = (4, 3, 2), of: int = 6, low: float = 100, high: float = 3000, dtype: str = "uint16"
) -> BandScaling:
    return BandScaling(bands=bands, of=of, dtype=dtype, ranges=((low, high),) * len(bands))


def test_the_ends_of_a_range_become_0_and_255_by_hand() -> None:
    values = np.array([[[0], [100], [1550], [3000], [65535]]], np.uint16)
    assert scaling((1,), 1).apply(values).ravel().tolist() == [0, 0, 128, 255, 255]  # 1550 is half way: 127.5, to even


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_scaling_is_that_of_each_number_alone(dtype: str) -> None:
    values = (numbers() % 250 if dtype == "uint8" else numbers()).astype(dtype)
    low, high = (20.0, 190.0) if dtype == "uint8" else (100.0, 3000.0)
    found = scaling(dtype=dtype, low=low, high=high).apply(values)
    assert found.dtype == np.uint8
    assert found.shape == (5, 7, 3)
    for y, x, place in np.ndindex(found.shape):
        share = (float(values[y, x, (3, 2, 1)[place]]) - low) * (255 / (high - low))
        assert found[y, x, place] == min(255, max(0, round(share)))


def test_a_pixel_without_a_number_becomes_0_and_an_infinite_one_the_end() -> None:
    values = np.array([[[math.nan], [math.inf], [-math.inf], [0.5]]], np.float32)
    assert scaling((1,), 1, 0, 1, "float32").apply(values).ravel().tolist() == [0, 255, 0, 128]


def test_eight_bit_bands_stay_as_they_are() -> None:
    values = numbers(4).astype(np.uint8)
    chosen = BandScaling(bands=(4, 1, 1), of=4, dtype="uint8", ranges=((0, 255),) * 3)
    np.testing.assert_array_equal(chosen.apply(values), values[..., [3, 0, 0]])


@pytest.mark.parametrize("kind", ["png", "grey.png", "tif", "npy", "first.npy", "grey.npy"])
def test_every_kind_of_file_gives_its_own_numbers(tmp_path: Path, kind: str) -> None:
    bands = {"png": 3, "grey.png": 1, "grey.npy": 1}.get(kind, 6)
    values, path = numbers(bands), tmp_path / f"a.{kind}"
    match kind:
        case "png" | "grey.png":
            cv2.imwrite(str(path), values[..., ::-1] if bands == 3 else values[..., 0])
        case "tif":
            write_tiff(path, values, compress="lzw")
        case "npy":
            np.save(path, values.repeat(2, axis=0))
            values = values.repeat(2, axis=0)
        case "first.npy":
            np.save(path, values.transpose(2, 0, 1))
        case "grey.npy":
            np.save(path, values[..., 0])
    found = read_numbers(as_file(path))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    chosen = BandPicture("a", as_file(path), scaling((1,), bands))
    assert chosen.size() == values.shape[:2]
    np.testing.assert_array_equal(chosen.decode().array, scaling((1,), bands).apply(values))
    assert chosen.decode().sha256 == chosen.digest()


def test_a_plain_picture_can_have_its_bands_chosen(tmp_path: Path) -> None:
    values = numbers(3).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    chosen = BandChoice.of("3,2,1", []).resolved([as_file(tmp_path / "a.png")])  # type: ignore[union-attr]
    np.testing.assert_array_equal(read_bands(as_file(tmp_path / "a.png"), chosen), values[..., ::-1])


def test_percentiles_are_those_of_all_pixels_of_small_pictures(tmp_path: Path) -> None:
    kept = [numbers(6, seed) for seed in range(3)]
    for index, values in enumerate(kept):
        np.save(tmp_path / f"{index}.npy", values.transpose(2, 0, 1))
    files = [as_file(tmp_path / f"{index}.npy") for index in range(3)]
    found = BandChoice.of("4,3,2", ["percentile"]).resolved(files)  # type: ignore[union-attr]
    for band, (low, high) in zip((4, 3, 2), found.ranges, strict=True):
        ordered = np.sort(np.concatenate([values[..., band - 1].ravel() for values in kept]).astype(float))
        for share, value in ((0.02, low), (0.98, high)):
            place = share * (len(ordered) - 1)
            below = math.floor(place)
            wanted = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
            assert value == pytest.approx(wanted)


def test_grey_becomes_rgb_and_three_bands_stay_if_nothing_is_chosen(tmp_path: Path) -> None:
    for count, wanted in ((1, (1, 1, 1)), (3, (1, 2, 3))):
        np.save(tmp_path / "a.npy", numbers(count))
        assert BandChoice.of(None, ["0,4000"]).resolved([as_file(tmp_path / "a.npy")]).bands == wanted  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("bands", "ranges", "said"),
    [
        ("0,1", [], "--bands is '0,1', wanted numbers from 1"),
        ("4;3", [], "--bands is '4;3'"),
        ("", [], "--bands is ''"),
        ("7,1,1", ["0,1"], "--bands names band 7, but 'a.npy' has 6 bands"),
        (None, ["0,1"], "'a.npy' has 6 bands, and nothing says which of them are meant"),
        ("1,2,3", [], "'a.npy' holds numbers of uint16, and nothing says which of them is black"),
        ("1,2,3", ["5,5"], "--range is '5,5', wanted the smaller number first"),
        ("1,2,3", ["nan,5"], "--range is 'nan,5', wanted the smaller number first"),
        ("1,2,3", ["5"], "--range is '5', wanted LOW,HIGH, percentile or keep"),
        ("1,2,3", ["0,5", "0,6"], "--range is given 2 times for 3 bands"),
        ("1,2,3", ["percentile", "0,6"], "--range percentile cannot be combined with another --range"),
        ("1,2,3", ["0,6", "Keep"], "--range keep cannot be combined with another --range"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, bands: str | None, ranges: list[str], said: str) -> None:
    np.save(tmp_path / "a.npy", numbers().transpose(2, 0, 1))
    with pytest.raises(InputError) as refused:
        BandChoice.of(bands, ranges).resolved([as_file(tmp_path / "a.npy")])  # type: ignore[union-attr]
    assert said in refused.value.message


@pytest.mark.parametrize("dtype", ["uint16", ">u2"])
def test_sixteen_bits_can_be_kept_whatever_their_byte_order(tmp_path: Path, dtype: str) -> None:
    values = numbers(dtype="uint16").repeat(2, axis=0)
    np.save(tmp_path / "a.npy", values.astype(dtype))
    kept = BandChoice.of("4,3,4", ["keep"]).resolved([as_file(tmp_path / "a.npy")])  # type: ignore[union-attr]
    found = BandPicture("a", as_file(tmp_path / "a.npy"), kept).decode().array
    assert (kept.pixel_type, found.dtype.str) == ("uint16", np.dtype(np.uint16).str)
    np.testing.assert_array_equal(found, values[..., [3, 2, 3]])
    assert kept.rule == "bands 4,3,4 of 6 uint16 kept"


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float32"])
def test_other_numbers_are_not_kept(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", numbers(3, dtype=dtype))
    with pytest.raises(InputError, match=rf"--range is keep, but 'a.npy' holds numbers of {dtype}, wanted uint8 or uint16"):
        BandChoice.of(None, ["keep"]).resolved([as_file(tmp_path / "a.npy")])  # type: ignore[union-attr]


def test_eight_bits_are_kept_as_without_a_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (numbers(3) % 250).astype(np.uint8))
    kept, usual = (BandChoice.of("3,1", words).resolved([as_file(tmp_path / "a.npy")]) for words in (["keep"], []))  # type: ignore[union-attr]
    assert kept == usual
    assert kept.pixel_type == "uint8"


def test_a_band_of_one_number_has_no_percentiles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((9, 9), 7, np.uint16))
    with pytest.raises(InputError, match="band 1 holds 7 nearly everywhere"):
        BandChoice.of("1", ["percentile"]).resolved([as_file(tmp_path / "a.npy")])  # type: ignore[union-attr]


@pytest.mark.parametrize("values", [numbers(5), numbers(6, dtype="int32")])
def test_a_file_of_another_kind_than_the_first_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "b.npy", values.repeat(2, axis=0))
    with pytest.raises(InputError, match=r"'b.npy' has . bands of \w+, wanted 6 bands of uint16"):
        read_bands(as_file(tmp_path / "b.npy"), scaling())


def test_damaged_files_and_arrays_of_other_things_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.zeros((4, 4, 2), complex))
    np.save(tmp_path / "square.npy", np.zeros((4, 5, 4)))
    whole = io.BytesIO()
    np.save(whole, numbers())
    (tmp_path / "cut.npy").write_bytes(whole.getvalue()[:-20])
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects", "complex", "square", "cut", "text"):
        with pytest.raises(InputError, match=f"'{name}.npy'"):
            read_numbers(as_file(tmp_path / f"{name}.npy"))


def test_tiffs_that_are_turned_paged_or_cut_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", numbers())
    (tmp_path / "cut.tif").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cannot read 'cut.tif'"):
        read_numbers(as_file(tmp_path / "cut.tif"))
    pages = [Image.fromarray(numbers(1)[..., 0].astype(np.uint8)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"'pages.tif' holds 2 pages, wanted one"):
        read_numbers(as_file(tmp_path / "pages.tif"))
    pages[0].save(tmp_path / "turned.tif", tiffinfo={274: 6})
    with pytest.raises(InputError, match=r"'turned.tif' is stored turned or mirrored \(orientation 6\)"):
        read_numbers(as_file(tmp_path / "turned.tif"))


def test_a_screen_shows_the_first_three_bands_or_grey() -> None:
    image = numbers(5).astype(np.uint8)
    np.testing.assert_array_equal(shown_rgb(image), image[..., :3])
    np.testing.assert_array_equal(shown_rgb(image[..., 1:3]), image[..., [1, 1, 1]])


def test_a_screen_shows_sixteen_bits_from_the_second_to_the_last_but_second_percentile() -> None:
    ramp = np.arange(101, dtype=np.uint16).reshape(1, 101, 1) + np.uint16(60000)
    shown = shown_rgb(ramp)[0, :, 0]
    assert (shown[:3].tolist(), shown[50], shown[98:].tolist()) == ([0, 0, 0], 128, [255, 255, 255])  # 127.5, to even
    assert shown_rgb(np.full((4, 4, 3), 7, np.uint16)).tolist() == np.zeros((4, 4, 3), int).tolist()
