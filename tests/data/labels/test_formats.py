"""Every annotation format gives the same label maps, pixel for pixel as a slow rasteriser draws them."""

import json

import numpy as np
import pytest
from annotation_files import REGIONS, WRITERS, coco_tree, slow_label, write_coco, write_labelme, write_pictures, write_yolo
from own_files import save
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.inspect.check_source import check_source
from segctl.data.prepare import prepare_source
from segctl.errors import InputError


def opened(images, labels, **how):
    return open_own("streets", OwnFiles(images, labels, splits=("val=0.3",), **how))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_label_maps_of_a_slow_rasteriser(tmp_path, kind):
    source = opened(write_pictures(tmp_path / "photos"), WRITERS[kind](tmp_path))
    assert source.problems == ()
    assert sorted(source.classes.names) == ["background", "car", "person", "road"]
    ours = {name: number for number, name in enumerate(source.classes.names)}
    order = np.array([ours[name] for name in ("background", "road", "car", "person")], np.uint8)
    for name, regions in REGIONS.items():
        assert np.array_equal(source.samples.read(name).label, order[slow_label(regions)]), name
    assert check_source(source) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_the_format_that_was_taken_is_told(tmp_path, kind, capsys):
    images, labels = write_pictures(tmp_path / "photos"), WRITERS[kind](tmp_path)
    words = ["data", "prepare", "streets", "--images", images, "--labels", labels, "--split", "val=0.3", "--workers", 0]
    assert main([str(word) for word in [*words, "--data-root", tmp_path / "data"]]) == 0
    out, err = capsys.readouterr()
    titles = {"coco": "COCO", "yolo": "YOLO", "labelme": "labelme", "cvat": "CVAT for images 1.1", "via": "VGG Image Annotator"}
    title = titles.get(kind, kind.replace("-", " ").title())
    assert f"labels are {title} annotations" in err
    assert "5 shapes on" in err
    assert "larger shapes are drawn first" in err
    assert out.startswith("streets: train 2, val 1; ")


def test_a_prepared_dataset_holds_what_was_drawn(tmp_path):
    source = opened(write_pictures(tmp_path / "photos"), write_coco(tmp_path))
    dataset = prepare_source(source, tmp_path / "data", workers=2)
    for name, regions in REGIONS.items():
        assert np.array_equal(dataset.label(name), slow_label(regions))
    again = prepare_source(opened(tmp_path / "photos", tmp_path / "annotations.json"), tmp_path / "data", workers=0)
    assert again.provenance.created == dataset.provenance.created
    tree = coco_tree()
    tree["annotations"][0]["segmentation"][0][0] += 5
    (tmp_path / "annotations.json").write_text(json.dumps(tree))
    changed = prepare_source(opened(tmp_path / "photos", tmp_path / "annotations.json"), tmp_path / "data", workers=0)
    assert changed.fingerprint != dataset.fingerprint


def test_pixels_under_no_shape_may_be_ignored(tmp_path):
    images = write_pictures(tmp_path / "photos")
    (images / "c.jpg").unlink()
    tree = coco_tree()
    tree["images"].pop()
    (tmp_path / "annotations.json").write_text(json.dumps(tree))
    source = opened(images, tmp_path / "annotations.json", unannotated="ignore")
    assert source.classes.names == ["road", "car", "person"]
    wanted = slow_label(REGIONS["a"]) - 1  # 0 becomes 255
    assert np.array_equal(source.samples.read("a").label, wanted)
    with pytest.raises(InputError, match="--unannotated is 'ignored', wanted background or ignore"):
        opened(images, tmp_path / "annotations.json", unannotated="ignored")


def test_a_picture_without_annotation_is_background_or_refused(tmp_path):
    images, labels = write_pictures(tmp_path / "photos"), write_coco(tmp_path)
    save(Image.new("RGB", (40, 30)), images / "new.jpg")
    (problem,) = opened(images, labels).problems
    assert problem.problem == "no annotation file says what the picture 'new.jpg' shows"
    assert "--unannotated background" in problem.hint
    source = opened(images, labels, unannotated="background")
    assert source.problems == ()
    assert not source.samples.read("new").label.any()
    assert "2 pictures have no shape and show background alone" in source.notes
    both = [found.problem for found in opened(images, labels, unannotated="ignore").problems]
    assert both == [
        f"the picture '{name}.jpg' has no annotation, so `--unannotated ignore` leaves nothing of it" for name in ("c", "new")
    ]


def test_a_picture_without_a_text_file_is_background_for_yolo(tmp_path):
    source = opened(write_pictures(tmp_path / "photos"), write_yolo(tmp_path))
    assert source.problems == ()
    assert not source.samples.read("c").label.any()


def test_two_possible_formats_are_refused_until_one_is_chosen(tmp_path):
    images, labels = write_pictures(tmp_path / "photos"), write_labelme(tmp_path)
    for name in REGIONS:
        save(Image.fromarray(np.zeros((30, 40), np.uint8)), labels / f"{name}.png")
    with pytest.raises(InputError, match=r"can be read in 2 ways: labelme \('c.json'\), 3 label pictures") as caught:
        opened(images, labels)
    assert caught.value.hint == "add --format labelme or --format masks"
    assert opened(images, labels, format="labelme").samples.read("a").label.any()
    with pytest.raises(InputError, match="--classes is missing"):
        opened(images, labels, format="masks")
    (tmp_path / "names.txt").write_text("background\nroad\n")
    assert not opened(images, labels, format="masks", classes=tmp_path / "names.txt").samples.read("a").label.any()
    with pytest.raises(InputError, match="holds no annotations in the format COCO"):
        opened(images, labels, format="coco")
    with pytest.raises(InputError, match="--format is 'coc', did you mean 'coco'"):
        opened(images, labels, format="coc")


def test_a_legend_beside_annotations_is_no_mask(tmp_path):
    images, labels = write_pictures(tmp_path / "photos"), write_labelme(tmp_path)
    save(Image.new("RGB", (9, 9)), labels / "legend.png")
    assert opened(images, labels).problems == ()


def test_a_class_table_orders_ignores_and_refuses(tmp_path):
    images, labels = write_pictures(tmp_path / "photos"), write_coco(tmp_path)
    table = tmp_path / "classes.csv"
    table.write_text("name,ignored\nbackground,\nCar,\nroad,\nperson,yes\n")
    source = opened(images, labels, classes=table)
    assert source.classes.names == ["background", "Car", "road"]
    wanted = np.array([0, 2, 1, 255], np.uint8)[slow_label(REGIONS["a"])]
    assert np.array_equal(source.samples.read("a").label, wanted)
    table.write_text("name\nbackground\nroad\ncar\n")
    assert [found.problem for found in opened(images, labels, classes=table).problems] == [
        "the annotations hold 1 shapes of 'person', which the class table does not name"
    ]
    table.write_text("name\nroad\ncar\nperson\n")
    with pytest.raises(InputError, match="the class table has no row 'background'"):
        opened(images, labels, classes=table)


def test_annotations_may_lie_in_an_archive_and_in_the_folder_of_the_pictures(tmp_path):
    import zipfile

    images = write_pictures(tmp_path / "photos")
    write_coco(tmp_path)
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
        archive.write(tmp_path / "annotations.json", "annotations/instances.json")
    assert opened(images, tmp_path / "labels.zip").samples.read("a").label.any()
    write_coco(images)
    assert opened(images, images).samples.read("a").label.any()


def test_options_that_do_not_fit_are_refused(tmp_path):
    images, labels = write_pictures(tmp_path / "photos"), write_coco(tmp_path)
    with pytest.raises(InputError, match=r"--label-suffix is '_mask', but '.*' holds COCO annotations"):
        opened(images, labels, label_suffix="_mask")
    (tmp_path / "names.txt").write_text("background\nroad\n")
    for name in REGIONS:
        save(Image.fromarray(np.zeros((30, 40), np.uint8)), tmp_path / "masks" / f"{name}.png")
    with pytest.raises(InputError, match=r"--unannotated is 'ignore', but '.*' holds label maps"):
        opened(images, tmp_path / "masks", unannotated="ignore", classes=tmp_path / "names.txt")


def test_files_of_no_format_beside_label_maps_are_not_read_to_the_last(tmp_path):
    from segctl.data.files.archives import PlainFile
    from segctl.data.labels.formats import read_annotations

    write_labelme(tmp_path)
    others = {}
    for number in range(5):
        path = tmp_path / f"0{number}_polygons.json"
        path.write_text('{"imgHeight": 1, "objects": []}')
        others[path.name] = PlainFile(path.name, path)
    last = {"z.json": PlainFile("z.json", tmp_path / "labels" / "a.json")}
    assert list(read_annotations({**others, **last}, patience=6).sets) == ["labelme"]
    assert list(read_annotations({**others, **last}).sets) == ["labelme"]
    assert read_annotations({**others, **last}, patience=5).sets == {}
