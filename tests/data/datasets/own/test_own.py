from pathlib import Path

import numpy as np
import pytest
from archive_files import write_zip
from own_files import color_mask, draw_ids, save, train_ids, write_own
from PIL import Image

from segctl.data.advice import prepare_line
from segctl.data.datasets import open_source
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.data.source import Source
from segctl.errors import InputError

NAMES = ["train/a", "train/b", "train/c", "val/d"]


def opened(files: tuple[Path, Path, Path], *splits: str, seed: int = 0) -> Source:
    return open_own("streets", OwnFiles(*files, splits, seed))


def refusal(files: tuple[Path, Path, Path], *splits: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_all(files, *splits)
    return caught.value


def read_all(files: tuple[Path, Path, Path], *splits: str) -> None:
    source = opened(files, *splits)
    assert source.problems == ()
    for name in source.samples.images:
        source.samples.read(name)


@pytest.mark.parametrize("kind", ["index", "palette", "mask"])
def test_labels_of_every_kind_give_the_same_train_ids(tmp_path, kind):
    source = opened(write_own(tmp_path, NAMES, kind))
    assert source.splits == {"train": ["a", "b", "c"], "val": ["d"]}
    for number, name in enumerate("abcd"):
        assert np.array_equal(source.samples.read(name).label, train_ids(draw_ids(number)))
        assert source.samples.read(name).source_sha256 == source.samples.digest(name)
    assert source.classes.names == ["road", "crack"]
    assert source.classes.palette()[1].tolist() == [255, 0, 0]


def test_it_is_packed_as_a_dataset_like_any_other(tmp_path):
    files = write_own(tmp_path, NAMES)
    prepare_source(open_source("streets", [], OwnFiles(*files)), tmp_path / "data", workers=2)
    dataset = open_dataset(tmp_path / "data", "streets")
    assert dataset.classes.names == ["road", "crack"]
    assert np.array_equal(dataset.label("c"), train_ids(draw_ids(2)))
    assert str(tmp_path) not in (tmp_path / "data" / "streets" / "dataset.json").read_text()


def test_the_class_table_is_part_of_the_fingerprint(tmp_path):
    files = write_own(tmp_path, NAMES)
    first = prepare_source(opened(files), tmp_path / "one", workers=0).fingerprint
    files[2].write_text(files[2].read_text().replace("crack", "rift"))
    assert prepare_source(opened(files), tmp_path / "two", workers=0).fingerprint != first


def test_archives_do_as_well_as_folders(tmp_path):
    files = write_own(tmp_path, NAMES)
    zips = [write_zip(tmp_path / f"{top.name}-zip", contents(top)) for top in files[:2]]
    packed, plain = opened((zips[0], zips[1], files[2])), opened(files)
    assert packed.splits == plain.splits
    assert all(packed.samples.digest(name) == plain.samples.digest(name) for name in plain.samples.images)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_labels_may_lie_flat_beside_pictures_in_folders(tmp_path):
    files = write_own(tmp_path, NAMES)
    for path in list(files[1].rglob("*.png")):
        path.rename(files[1] / path.name)
    assert opened(files).splits == {"train": ["a", "b", "c"], "val": ["d"]}


def test_names_that_repeat_in_several_folders_get_their_folder(tmp_path):
    source = opened(write_own(tmp_path, ["train/1", "train/2", "val/1"]))
    assert source.splits == {"train": ["train-1", "train-2"], "val": ["val-1"]}
    assert np.array_equal(source.samples.read("val-1").label, train_ids(draw_ids(2)))


def test_grey_pictures_become_three_equal_channels(tmp_path):
    files = write_own(tmp_path, NAMES)
    grey = np.arange(240, dtype=np.uint8).reshape(12, 20)
    (files[0] / "train" / "a.jpg").unlink()
    save(Image.fromarray(grey), files[0] / "train" / "a.png")
    sample = opened(files).samples.read("a")
    assert all(np.array_equal(sample.image[..., channel], grey) for channel in range(3))
    assert sample.image_file is None


def test_black_and_white_labels_are_the_ids_0_and_1(tmp_path):
    files = write_own(tmp_path, NAMES)
    files[2].write_text("name\nground\nthing\n")
    for path in files[1].rglob("*.png"):
        Image.fromarray(np.eye(12, 20) > 0).save(path)
    assert np.array_equal(opened(files).samples.read("a").label, np.eye(12, 20))


def test_masks_of_0_and_255_are_two_classes_where_the_table_says_so(tmp_path):
    files = write_own(tmp_path, NAMES)
    files[2].write_text("name,id\nground,0\nthing,255\n")
    for path in files[1].rglob("*.png"):
        Image.fromarray(np.eye(12, 20, dtype=np.uint8) * 255).save(path)
    assert np.array_equal(opened(files).samples.read("a").label, np.eye(12, 20))


def test_255_is_ignored_where_the_table_does_not_name_it(tmp_path):
    files = write_own(tmp_path, NAMES)
    Image.fromarray(np.full((12, 20), 255, np.uint8)).save(files[1] / "train" / "a.png")
    assert (opened(files).samples.read("a").label == 255).all()


def test_stray_colours_are_ignored_and_counted(tmp_path):
    files = write_own(tmp_path, NAMES, "mask")
    mask = color_mask(draw_ids(0))
    mask[5, :4] = (1, 2, 3)
    Image.fromarray(mask).save(files[1] / "train" / "a.png")
    sample = opened(files).samples.read("a")
    assert (sample.unknown_pixels, sample.label[5, :4].tolist()) == (4, [255] * 4)


def test_an_id_outside_the_table_is_refused(tmp_path):
    files = write_own(tmp_path, NAMES)
    Image.fromarray(np.full((12, 20), 7, np.uint8)).save(files[1] / "train" / "a.png")
    error = refusal(files)
    assert error.message == "the label of sample 'a' (train/a.png) holds the id 7 (240 pixels), wanted 1 or 3 or 9 or 255"
    assert error.hint == "correct the labels, or the table 'classes.csv'"


def test_cityscapes_label_ids_under_a_table_of_19_train_ids_are_recognised(tmp_path):
    files = write_own(tmp_path, NAMES)
    files[2].write_text("name\n" + "\n".join(f"class {index}" for index in range(19)))
    Image.fromarray(np.full((12, 20), 26, np.uint8)).save(files[1] / "train" / "a.png")
    assert refusal(files).message.endswith("wanted 0 to 18 or 255; these look like Cityscapes labelIds where train ids are meant")


@pytest.mark.parametrize(
    ("table", "kind", "words"),
    [
        ("name,id\nroad,1\n", "mask", "the label of sample 'a' (train/a.png) is RGB, wanted an index map"),
        ("name,color\nroad,#804080\n", "palette", "the mask of sample 'a' (train/a.png) has colours of no class on 100.0 %"),
        ("name,color\nroad,#804080\n", "index", "the mask of sample 'a' (train/a.png) has colours of no class on 100.0 %"),
    ],
)
def test_a_label_of_the_other_kind_than_the_table_reads_is_refused(tmp_path, table, kind, words):
    files = write_own(tmp_path, NAMES, kind)
    files[2].write_text(table)
    assert refusal(files).message.startswith(words)


def test_a_16_bit_label_and_another_size_are_refused(tmp_path):
    files = write_own(tmp_path, NAMES)
    Image.fromarray(np.ones((12, 20), np.uint16)).save(files[1] / "train" / "a.png")
    assert "is 16 bits deep, wanted an index map" in refusal(files).message
    Image.fromarray(np.ones((10, 20), np.uint8)).save(files[1] / "train" / "a.png")
    assert refusal(files).message == "the label of sample 'a' (train/a.png) is 20×10 pixels, wanted 20×12 as its image"


def test_unpaired_doubled_and_lossy_files_are_problems(tmp_path):
    files = write_own(tmp_path, NAMES)
    (files[1] / "train" / "a.png").unlink()
    save(Image.new("RGB", (20, 12)), files[0] / "train" / "b.png")
    problems = [finding.problem for finding in opened(files).problems]
    assert problems == [
        "sample 'train/b' occurs twice, as 'train/b.jpg' and 'train/b.png'",
        f"sample 'train/a' has its image but no label: '{files[1]}' holds no 'train/a.png' (or another ending)",
    ]


def test_a_label_is_judged_by_its_content_and_not_by_its_ending(tmp_path):
    files = write_own(tmp_path, NAMES)
    (files[1] / "val" / "d.png").rename(files[1] / "val" / "d.jpg")
    read_all(files)
    Image.fromarray(draw_ids(3)).save(files[1] / "val" / "d.jpg", "JPEG")
    assert refusal(files).message == "the label of sample 'd' (val/d.jpg) is a JPEG, whose values are not exact"


def test_names_that_never_match_are_said_with_examples(tmp_path):
    files = write_own(tmp_path, ["a", "b"])
    for path in list(files[1].iterdir()):
        path.rename(path.with_name(f"{path.stem}_other.png"))
    error = refusal(files, "val=0.5")
    assert error.message == (
        f"no picture of '{files[0]}' has a label of the same name in '{files[1]}': pictures have names like 'a', labels like "
        f"'a_other'"
    )


def test_an_empty_folder_is_refused(tmp_path):
    files = write_own(tmp_path, NAMES)
    (tmp_path / "empty").mkdir()
    assert (
        refusal((files[0], tmp_path / "empty", files[2])).message
        == f"'{tmp_path}/empty' holds no labels (.png, .bmp, .tif, .tiff, .gif)"
    )


@pytest.mark.parametrize(
    ("names", "there", "next_step"),
    [
        ([], "", "give the folder that holds them"),
        (
            ["a.HEIC", "b.heic", "readme"],
            " but files of other kinds: 2 .heic, 1 without an ending",
            "convert them to JPEG or PNG",
        ),
        (
            ["t/0.parquet"],
            " but files of other kinds: 1 .parquet",
            "take the pictures out; Hugging Face's `load_dataset('parquet', …)",
        ),
    ],
)
def test_a_folder_of_other_files_than_pictures_says_what_it_holds(tmp_path, names, there, next_step):
    files = write_own(tmp_path, NAMES)
    (tmp_path / "other" / "t").mkdir(parents=True)
    for name in names:
        (tmp_path / "other" / name).touch()
    for given in (tmp_path / "other", tmp_path / "other" / "**" / "*") if names else (tmp_path / "other",):
        said = refusal((given, *files[1:]))
        assert said.message == f"--images: '{given}' holds no pictures (.jpg, .jpeg, .png, .bmp, .tif, .tiff, .webp){there}"
        assert said.hint is not None
        assert said.hint.startswith(next_step)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("voc", "'voc' is the name of a dataset that segctl knows"),
        ("../evil", "a dataset cannot be called '../evil'"),
        ("downloads", "a dataset cannot be called 'downloads'"),
        ("nul", "a dataset cannot be called 'nul': Windows reserves the name"),
        ("COM1", "a dataset cannot be called 'COM1': Windows reserves the name"),
    ],
)
def test_some_names_cannot_be_taken(tmp_path, name, message):
    with pytest.raises(InputError) as caught:
        open_source(name, [], OwnFiles(*write_own(tmp_path, NAMES)))
    assert caught.value.message == message


def test_source_and_own_folders_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="--images, --labels and --classes are given too"):
        open_source("streets", [tmp_path], OwnFiles(*write_own(tmp_path, NAMES)))


def test_the_line_that_prepares_own_data_is_known():
    assert prepare_line("streets") == "segctl data prepare streets --images DIR --labels DIR --classes FILE"


GREY = "name,color\nground,0 0 0\nthing,255 255 255\n"
BINARY = np.eye(12, 20, dtype=np.uint8)


def own_of(tmp_path: Path, table: str, label: Image.Image, suffix: str = "png") -> tuple[Path, Path, Path]:
    """Own data whose every label is that picture."""
    files = write_own(tmp_path, NAMES)
    files[2].write_text(table)
    for path in files[1].rglob("*.png"):
        path.unlink()
        label.save(path.with_suffix(f".{suffix}"))
    return files


def with_palette(values: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(values, "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([channel for color in colors for channel in color])
    return image


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


@pytest.mark.parametrize(
    "label",
    [
        Image.fromarray(BINARY * 255),
        Image.fromarray(BINARY > 0),
        with_palette(BINARY, BLACK, WHITE),
        with_palette(1 - BINARY, WHITE, BLACK),
    ],
    ids=["grey", "1 bit", "palette", "turned palette"],
)
def test_a_table_of_colours_alone_reads_grey_and_palettes_by_their_colours(tmp_path, label):
    assert np.array_equal(opened(own_of(tmp_path, GREY, label)).samples.read("a").label, BINARY)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_black_and_white_may_stand_for_the_ids_0_and_255(tmp_path, suffix):
    table = "name,id\nground,0\nthing,255\n"
    for number, label in enumerate((Image.fromarray(BINARY > 0), with_palette(BINARY, BLACK, WHITE))):
        files = own_of(tmp_path / f"{number}", table, label, suffix)
        assert np.array_equal(opened(files).samples.read("a").label, BINARY)


TWO = "name,id,color\nground,0,0 0 0\nthing,1,255 0 0\nother,2,255 255 255\n"


def test_a_palette_in_its_own_order_is_read_by_colour(tmp_path):
    files = own_of(tmp_path, TWO, with_palette(BINARY * 7, BLACK, *[WHITE] * 6, RED))
    assert np.array_equal(opened(files).samples.read("a").label, BINARY)


def test_a_palette_that_agrees_or_says_nothing_is_read_by_id(tmp_path):
    for number, colors in enumerate(([BLACK, RED], [(9, 9, 9), (1, 2, 3)])):
        files = own_of(tmp_path / f"{number}", TWO, with_palette(BINARY, *colors))
        assert np.array_equal(opened(files).samples.read("a").label, BINARY)


def test_a_palette_of_other_classes_colours_is_refused(tmp_path):
    error = refusal(own_of(tmp_path, TWO, with_palette(BINARY, BLACK, WHITE)))
    assert "can be read in two ways: its value 1 is the id of one class, and its colour 255,255,255 is another's" in error.message


def test_two_pictures_never_share_a_sample_name(tmp_path):
    source = opened(write_own(tmp_path, ["x/1", "x-1", "y/1"]), "val=0.5")
    assert sorted(source.samples.images) == ["x--1", "x-1", "y--1"]
    for number, name in enumerate(["x--1", "x-1", "y--1"]):
        assert np.array_equal(source.samples.read(name).label, train_ids(draw_ids(number)))


def test_names_pair_in_composed_form(tmp_path):
    files = write_own(tmp_path, ["caf\u00e9", "b"])
    (files[0] / "caf\u00e9.jpg").rename(files[0] / "cafe\u0301.jpg")
    assert sorted(opened(files, "val=0.5").samples.images) == ["b", "caf\u00e9"]


@pytest.mark.parametrize(
    ("image", "label"),
    [("{}_leftImg8bit", "{}_gtFine_labelIds"), ("{}", "{}_mask"), ("{}", "{}_L"), ("{}_sat", "{}_mask")],
)
def test_labels_may_have_a_suffix(tmp_path, image, label):
    files = write_own(tmp_path, NAMES)
    for top, form, suffix in ((files[0], image, ".jpg"), (files[1], label, ".png")):
        for path in list(top.rglob(f"*{suffix}")):
            path.rename(path.with_name(form.format(path.stem) + suffix))
    source = opened(files)
    assert source.splits == {"train": ["a", "b", "c"], "val": ["d"]}
    assert np.array_equal(source.samples.read("c").label, train_ids(draw_ids(2)))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{split}/images/{name}.png", "{split}/masks/{name}.png"),
        ("images/{split}/{name}.png", "labels/{split}/{name}.png"),
        ("{split}/{name}.png", "{split}/{name}_mask.png"),
        ("{split}/{name}.jpg", "{split}/{name}.png"),
    ],
)
def test_pictures_and_labels_in_one_folder_are_told_apart(tmp_path, image, label):
    files = write_own(tmp_path / "once", NAMES)
    for number, path in enumerate(NAMES):
        split, name = path.split("/")
        save(Image.new("RGB", (20, 12)), tmp_path / "all" / image.format(split=split, name=name))
        save(Image.fromarray(draw_ids(number)), tmp_path / "all" / label.format(split=split, name=name))
    source = opened((tmp_path / "all", tmp_path / "all", files[2]))
    assert source.splits == {"train": ["a", "b", "c"], "val": ["d"]}
    assert np.array_equal(source.samples.read("c").label, train_ids(draw_ids(2)))


def test_a_folder_inside_the_other_is_no_part_of_it(tmp_path):
    files = write_own(tmp_path, ["a", "b"])
    files[1].rename(files[0] / "labels")
    source = opened((files[0], files[0] / "labels", files[2]), "val=0.5")
    assert sorted(source.samples.images) == ["a", "b"]


def test_pictures_that_are_taken_for_their_own_labels_are_said(tmp_path):
    files = write_own(tmp_path, NAMES)
    error = refusal((files[1], files[1], files[2]))
    assert "so 'train/a.png' was taken for its own label" in error.message
    assert "--images" in error.hint


def test_a_mask_of_255_without_a_row_for_it_is_refused(tmp_path):
    files = own_of(tmp_path, "name,id\nground,0\ncrack,1\n", Image.fromarray(BINARY * 255))
    with pytest.raises(InputError) as caught:
        prepare_source(opened(files), tmp_path / "data", workers=0)
    assert caught.value.message == (
        "no label shows 'crack'; the labels hold 255 (5.0 % of the pixels), which the class table does not name"
    )
    assert caught.value.hint == "give 'crack' the id 255 in the class table, or list 255 there as ignored"
    assert not (tmp_path / "data").exists()
