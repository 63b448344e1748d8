from pathlib import Path

import cityscapes_files
import numpy as np
import pytest
from archive_files import write_folder, write_zip
from cityscapes_files import FRAMES, draw_frame, png

from segctl.data.datasets import open_source
from segctl.data.datasets.cityscapes import LAYOUT, open_cityscapes
from segctl.data.datasets.cityscapes_classes import AVERAGE_INSTANCE_PX, CLASSES
from segctl.data.findings import Finding
from segctl.data.prepare import prepare_source
from segctl.data.source import Source
from segctl.errors import InputError

FRANKFURT = "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine"
TREE = cityscapes_files.images() | cityscapes_files.labels()


def opened(tmp_path: Path, tree: dict[str, bytes]) -> Source:
    return open_cityscapes([write_folder(tmp_path / "cityscapes", tree)])


def train_ids(ids: np.ndarray) -> np.ndarray:
    """The slow way: label by label."""
    out = np.full(ids.shape, 255, np.uint8)
    for row in CLASSES.rows:
        out[ids == row.raw_id] = row.train_id
    return out


def test_two_zips_give_train_ids_instances_and_cities(tmp_path):
    paths = [write_zip(tmp_path / "leftImg8bit_trainvaltest", cityscapes_files.images())]
    paths.append(write_zip(tmp_path / "gtFine_trainvaltest", cityscapes_files.labels()))
    source = open_source("cityscapes", paths)
    assert source.splits == FRAMES
    assert source.groups == {name: name.split("_")[0] for names in FRAMES.values() for name in names}
    for name in [*FRAMES["train"], *FRAMES["val"]]:
        image, ids, instance = draw_frame(name)
        sample = source.samples.read(name)
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.label, train_ids(ids))
        assert sample.source_sha256 == source.samples.digest(name)
        if name in FRAMES["val"]:
            assert np.array_equal(sample.instance, instance)
        else:
            assert sample.instance is None
    assert source.origin.startswith("archive 'leftImg8bit_trainvaltest.zip' and archive 'gtFine_trainvaltest.zip' in")


def test_zips_and_folder_give_the_same_fingerprint(tmp_path):
    paths = [write_zip(tmp_path / "a", cityscapes_files.images()), write_zip(tmp_path / "b", cityscapes_files.labels())]
    zipped = prepare_source(open_cityscapes(paths), tmp_path / "one", workers=2)
    plain = prepare_source(opened(tmp_path, TREE), tmp_path / "two", workers=0)
    assert zipped.fingerprint == plain.fingerprint
    assert np.array_equal(zipped.label(FRAMES["val"][0]), plain.label(FRAMES["val"][0]))


@pytest.mark.parametrize("deeper", ["cityscapes/", "data/cityscapes/"])
def test_folders_may_lie_deeper_or_be_given_themselves(tmp_path, deeper):
    assert opened(tmp_path, {deeper + name: content for name, content in TREE.items()}).splits == FRAMES
    top = tmp_path / "cityscapes" / deeper
    assert open_cityscapes([top / "leftImg8bit", top / "gtFine"]).splits == FRAMES


def test_labels_made_by_the_script_are_taken_where_label_ids_are_missing(tmp_path):
    ids = draw_frame(FRAMES["val"][0])[1]
    tree = {name: content for name, content in TREE.items() if name != f"{FRANKFURT}_labelIds.png"}
    tree[f"{FRANKFURT}_labelTrainIds.png"] = png(train_ids(ids))
    sample = opened(tmp_path, tree).samples.read(FRAMES["val"][0])
    assert np.array_equal(sample.label, train_ids(ids))


def test_label_ids_are_preferred(tmp_path):
    tree = TREE | {f"{FRANKFURT}_labelTrainIds.png": png(np.zeros((16, 32), np.uint8))}
    assert 255 in opened(tmp_path, tree).samples.read(FRAMES["val"][0]).label


def test_the_test_split_is_taken_and_holds_only_void(tmp_path):
    frames = FRAMES | {"test": ["berlin_000000_000019"]}
    source = opened(tmp_path, cityscapes_files.images(frames) | cityscapes_files.labels(frames))
    assert source.splits["test"] == ["berlin_000000_000019"]
    label = {
        name: content for name, content in cityscapes_files.labels(frames).items() if "berlin" in name and "labelIds" in name
    }
    assert len(label) == 1
    assert (source.samples.read("berlin_000000_000019").label == 255).all()


def test_a_test_split_without_labels_is_left_out_with_a_note(tmp_path):
    frames = FRAMES | {"test": ["berlin_000000_000019"]}
    source = opened(tmp_path, cityscapes_files.images(frames) | cityscapes_files.labels())
    assert source.splits == FRAMES
    assert source.notes == (
        "train has 2 of the official 2975 pictures",
        "val has 1 of the official 500 pictures",
        "test is left out: it has no labels",
    )


def test_coarse_labels_make_a_split_of_their_own(tmp_path):
    extra = {"train_extra": ["augsburg_000000_000000"]}
    tree = TREE | cityscapes_files.images(extra) | cityscapes_files.labels(extra, "gtCoarse")
    tree |= cityscapes_files.labels({"train": FRAMES["train"]}, "gtCoarse")
    source = opened(tmp_path, tree)
    assert source.splits == FRAMES | extra
    assert source.samples.read("augsburg_000000_000000").instance is None


def test_val_alone_is_enough_and_said(tmp_path):
    frames = {"val": FRAMES["val"]}
    source = opened(tmp_path, cityscapes_files.images(frames) | cityscapes_files.labels())
    assert source.problems == ()
    assert source.splits == frames
    assert source.notes[0] == "train is left out: it has no pictures"


def test_pictures_without_labels_are_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        opened(tmp_path, cityscapes_files.images())
    missing = "has no labels (gtFine/SPLIT/CITY/…_gtFine_labelIds.png)"
    assert caught.value.message == f"the Cityscapes source '{tmp_path}/cityscapes' {missing}"
    assert caught.value.hint == LAYOUT


def test_labels_without_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no pictures"):
        opened(tmp_path, cityscapes_files.labels())


def test_a_split_whose_labels_are_missing_is_a_finding(tmp_path):
    source = opened(tmp_path, cityscapes_files.images() | cityscapes_files.labels({"train": FRAMES["train"]}))
    problem = f"the split 'val' of '{tmp_path}/cityscapes' has 1 pictures and no labels"
    assert source.problems == (Finding("", problem, LAYOUT),)


def test_every_unpaired_file_is_a_finding(tmp_path):
    gone = ["gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"]
    gone.append("leftImg8bit/train/bochum/bochum_000000_000313_leftImg8bit.png")
    source = opened(tmp_path, {name: content for name, content in TREE.items() if name not in gone})
    assert [finding.problem for finding in source.problems] == [
        f"sample 'aachen_000000_000019' has its image but no label: '{gone[0]}' is missing from '{tmp_path}/cityscapes'",
        f"sample 'bochum_000000_000313' has its label but no image: '{gone[1]}' is missing from '{tmp_path}/cityscapes'",
    ]
    with pytest.raises(InputError, match="and 1 more problem; `--check` lists them"):
        prepare_source(source, tmp_path / "data")


@pytest.mark.parametrize(
    ("kind", "value", "guess"),
    [
        ("labelIds", 255, "the id 255 (8 pixels), wanted 0 to 33; these look like Cityscapes train ids where labelIds are meant"),
        (
            "labelTrainIds",
            26,
            "the id 26 (8 pixels), wanted 0 to 18 or 255; these look like Cityscapes labelIds where train ids are meant",
        ),
    ],
)
def test_ids_of_the_other_kind_are_recognised(tmp_path, kind, value, guess):
    label = np.full((16, 32), 7, np.uint8)
    label[0, :8] = value
    tree = {name: content for name, content in TREE.items() if name != f"{FRANKFURT}_labelIds.png"}
    with pytest.raises(InputError) as caught:
        opened(tmp_path, tree | {f"{FRANKFURT}_{kind}.png": png(label)}).samples.read(FRAMES["val"][0])
    assert caught.value.message == f"the label of sample 'frankfurt_000000_000294' ({FRANKFURT}_{kind}.png) holds {guess}"


def test_an_instance_map_that_contradicts_the_label_is_refused(tmp_path):
    instance = draw_frame(FRAMES["val"][0])[2]
    instance[0, :3] = 26005
    with pytest.raises(InputError) as caught:
        opened(tmp_path, TREE | {f"{FRANKFURT}_instanceIds.png": png(instance)}).samples.read(FRAMES["val"][0])
    assert caught.value.message == (
        f"the instance map of sample 'frankfurt_000000_000294' ({FRANKFURT}_instanceIds.png) "
        "shows other classes than the label on 3 pixels"
    )


def test_16_bit_labels_are_refused(tmp_path):
    tree = TREE | {f"{FRANKFURT}_labelIds.png": png(draw_frame(FRAMES["val"][0])[2])}
    with pytest.raises(InputError, match="is 16 bits deep, wanted an index map"):
        opened(tmp_path, tree).samples.size(FRAMES["val"][0])


def test_the_class_table_is_the_official_one():
    assert len(CLASSES.rows) == 34
    assert [row.raw_id for row in CLASSES.rows] == list(range(34))
    assert CLASSES.names[:8] == ["road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"]
    assert CLASSES.names[8:14] == ["vegetation", "terrain", "sky", "person", "rider", "car"]
    assert CLASSES.names[14:] == ["truck", "bus", "train", "motorcycle", "bicycle"]
    assert np.flatnonzero(CLASSES.raw_to_train() != 255).tolist() == [
        7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
    ]  # fmt: skip
    assert {row.name for row in CLASSES.rows if row.has_instances} == set(AVERAGE_INSTANCE_PX)
    categories = {row.category for row in CLASSES.rows}
    assert categories == {"void", "flat", "construction", "object", "nature", "sky", "human", "vehicle"}
    assert CLASSES.palette()[13].tolist() == [0, 0, 142]
