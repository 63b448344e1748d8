"""What only one format has: run lengths, brushes, z_order, circles, holes, groups of classes, folders of splits."""

import base64
import io
import json

import numpy as np
import pytest
from annotation_files import (
    HEIGHT,
    WIDTH,
    coco_tree,
    cvat_text,
    label_studio_tree,
    labelme_tree,
    pack_brush,
    slow_fill,
    via_tree,
    write_pictures,
)
from PIL import Image

from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.labels.annotations import Runs, ShapeError
from segctl.data.labels.coco import unpack_counts
from segctl.data.labels.label_studio import unpack_brush

MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[5:20, 7:30] = np.random.default_rng(0).random((15, 23)) < 0.5


def opened(folder, tree, ending="json", **how):
    path = folder / f"labels.{ending}"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    images = folder / "photos" if (folder / "photos").exists() else write_pictures(folder / "photos")
    return open_own("streets", OwnFiles(images, path, splits=("val=0.3",), **how))


def label_of(source, class_name, sample="a"):
    assert source.problems == ()
    return source.samples.read(sample).label == source.classes.names.index(class_name)


def runs_by_column(mask):
    flat = np.concatenate([[False], mask.T.ravel(), [not mask[-1, -1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], ends])).tolist()


@pytest.mark.parametrize("packed", [False, True])
def test_coco_run_lengths_are_exact(tmp_path, packed):
    tree = coco_tree()
    counts = runs_by_column(MASK)
    if packed:
        mask = pytest.importorskip("pycocotools.mask")
        counts = mask.encode(np.asfortranarray(MASK.astype(np.uint8)))["counts"].decode()
    tree["annotations"] = [
        {"id": 1, "image_id": 100, "category_id": 17, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
    ]
    assert np.array_equal(label_of(opened(tmp_path, tree), "car"), MASK)


def test_packed_run_lengths_are_those_of_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for _ in range(200):
        drawn = random.random(random.integers(1, 70, 2)) < random.random()
        text = mask.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"].decode()
        assert np.array_equal(Runs(unpack_counts(text), *drawn.shape, by_column=True).mask(), drawn)
    assert unpack_counts("52X1").tolist() == [5, 2, 40]  # five, two, and 8 + 32 in two characters


@pytest.mark.parametrize("text", ["", "o", "5~", "5 ", "ooooooooo0"])
def test_damaged_run_lengths_are_refused(text):
    with pytest.raises(ShapeError, match="cut short or damaged"):
        unpack_counts(text)


def test_polygons_differ_from_those_of_pycocotools_by_a_part_of_the_outline():
    """Its own rule draws polygons five times as large and rounds twice."""
    mask = pytest.importorskip("pycocotools.mask")
    random, different, outline = np.random.default_rng(0), 0, 0.0
    for _ in range(50):
        angles, centre = np.sort(random.uniform(0, 2 * np.pi, 12)), random.uniform(12, 18, 2)
        corners = np.round(centre + np.stack([np.cos(angles), np.sin(angles)], 1) * random.uniform(4, 11, (12, 1)), 2)
        theirs = mask.decode(mask.merge(mask.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH))).astype(bool)
        different += int((theirs != slow_fill(corners.tolist())).sum())
        outline += float(np.hypot(*(corners - np.roll(corners, 1, axis=0)).T).sum())
    assert different < 0.15 * outline


def test_a_crowd_lies_under_single_things_and_boxes_and_keypoints_are_counted(tmp_path):
    tree = coco_tree()
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    large = [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]
    tree["annotations"] = [
        {"id": 1, "image_id": 100, "category_id": 17, "segmentation": large},
        {"id": 2, "image_id": 100, "category_id": 90, "segmentation": crowd, "iscrowd": 1},
        {"id": 3, "image_id": 100, "category_id": 90, "bbox": [1, 2, 3, 4]},
        {"id": 4, "image_id": 100, "category_id": 90, "keypoints": [1, 2, 3], "segmentation": []},
        {"id": 5, "image_id": 100, "category_id": 90, "segmentation": [[1, 2, 3, 4]]},
    ]
    source = opened(tmp_path, tree)
    assert label_of(source, "car").all()
    assert "not drawn: 1 boxes, 1 keypoints, 1 polygons of fewer than 3 points" in source.notes


def test_a_group_that_roboflow_lists_is_no_class(tmp_path):
    tree = coco_tree()
    for category in tree["categories"]:
        category["supercategory"] = "Cars"
    tree["categories"].insert(0, {"id": 0, "name": "Cars", "supercategory": "none"})
    assert opened(tmp_path, tree).classes.names == ["background", "road", "car", "person"]


def test_classes_keep_the_order_of_their_ids(tmp_path):
    tree = coco_tree()
    tree["categories"].reverse()
    assert opened(tmp_path, tree).classes.names == ["background", "road", "car", "person"]


def test_a_class_called_background_is_the_background(tmp_path):
    tree = coco_tree()
    tree["categories"][2]["name"] = "Background"
    source = opened(tmp_path, tree)
    assert source.classes.names == ["Background", "road", "car"]
    assert not source.samples.read("c").label.any()


def test_pictures_of_coco_may_lie_in_folders_that_are_splits(tmp_path):
    tree = coco_tree()
    for image, split in zip(tree["images"], ("train", "train", "val"), strict=True):
        image["file_name"] = f"{split}/{image['file_name']}"
    write_pictures(tmp_path / "flat")
    for split, names in {"train": "ab", "val": "c"}.items():
        (tmp_path / "photos" / split).mkdir(parents=True)
        for name in names:
            (tmp_path / "flat" / f"{name}.jpg").rename(tmp_path / "photos" / split / f"{name}.jpg")
    (tmp_path / "labels.json").write_text(json.dumps(tree))
    source = open_own("streets", OwnFiles(tmp_path / "photos", tmp_path / "labels.json"))
    assert source.problems == ()
    assert source.splits == {"train": ["a", "b"], "val": ["c"]}


def test_yolo_as_roboflow_lays_it_out(tmp_path):
    flat, top = write_pictures(tmp_path / "flat"), tmp_path / "export"
    for split, names in {"train": "ab", "valid": "ac"}.items():
        for folder in ("images", "labels"):
            (top / split / folder).mkdir(parents=True)
        for name in names:
            (top / split / "images" / f"{name}.jpg").write_bytes((flat / f"{name}.jpg").read_bytes())
            rows = f"{int(split == 'valid')} 0 0 0.5 0 0.5 0.5 0 0.5\n0 .5 .5 .1 .1\n"
            (top / split / "labels" / f"{name}.txt").write_text(rows)
    (top / "data.yaml").write_text("names: ['road', 'car']\nnc: 2\ntrain: ../train/images\nval: ../valid/images\n")
    (top / "README.roboflow.txt").write_text("Annotated with care\n")
    for labels in (top, top / "data.yaml"):
        source = open_own("streets", OwnFiles(top, labels))
        assert source.problems == ()
        assert source.splits == {"train": ["train-a", "train-b"], "valid": ["valid-a", "valid-c"]}
        assert label_of(source, "road", "train-a")[: HEIGHT // 2, : WIDTH // 2].all()
        assert label_of(source, "car", "valid-a")[: HEIGHT // 2, : WIDTH // 2].all()
        assert "not drawn: 4 boxes" in source.notes


def test_every_shape_of_labelme_is_drawn(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(MASK[5:20, 7:30]).save(stream, "PNG")
    png = base64.b64encode(stream.getvalue()).decode()
    shapes = [
        {"label": "box", "points": [[20, 3], [4, 10]], "shape_type": "rectangle"},
        {"label": "disc", "points": [[30, 20], [34, 23]], "shape_type": "circle"},
        {"label": "line", "points": [[2, 20], [12, 20], [12, 25]], "shape_type": "linestrip"},
        {"label": "dot", "points": [[2, 2]], "shape_type": "point"},
        {"label": "brush", "points": [[7, 5], [29, 19]], "shape_type": "mask", "mask": png},
        {"label": "__ignore__", "points": [[36, 0], [40, 0], [40, 4], [36, 4]], "shape_type": "polygon"},
    ]
    write_pictures(tmp_path / "photos")
    for name in "bc":
        (tmp_path / "photos" / f"{name}.jpg").unlink()
    (tmp_path / "photos" / "other.jpg").write_bytes((tmp_path / "photos" / "a.jpg").read_bytes())
    labels = tmp_path / "labels"
    labels.mkdir()
    for name, listed in {"a": shapes[:4] + shapes[5:], "other": shapes[4:5]}.items():
        tree = {**labelme_tree(name, []), "shapes": listed, "flags": {"blurred": True}}
        (labels / f"{name}.json").write_text(json.dumps(tree))
    source = open_own("streets", OwnFiles(tmp_path / "photos", labels, splits=("val=0.5",)))
    assert source.classes.names == ["background", "box", "brush", "disc", "line"]
    box = np.zeros_like(MASK)
    box[3:10, 4:20] = True
    assert np.array_equal(label_of(source, "box"), box)
    assert abs(int(label_of(source, "disc").sum()) - np.pi * 25) < 4
    assert label_of(source, "line")[15:25, 2:12].all()
    assert (source.samples.read("a").label[:4, 36:] == 255).all()
    assert np.array_equal(label_of(source, "brush", "other"), MASK)
    assert "lines are drawn 10 pixels wide" in source.notes
    assert "not drawn: 2 files with flags set (the flags are not used), 1 points" in source.notes


def test_labelme_finds_its_picture_by_the_path_in_it_or_by_its_own_name(tmp_path):
    write_pictures(tmp_path / "photos")
    labels = tmp_path / "labels"
    labels.mkdir()
    regions = [("car", [(1, 1), (9, 1), (9, 9)])]
    (labels / "one.json").write_text(json.dumps(labelme_tree("a", regions)))
    (labels / "b.json").write_text(json.dumps(labelme_tree("old name", regions)))
    (labels / "c.json").write_text(json.dumps({**labelme_tree("c", regions), "imagePath": "/home/me/photos/c.jpg"}))
    source = open_own("streets", OwnFiles(tmp_path / "photos", labels, splits=("val=0.3",)))
    assert all(label_of(source, "car", name).any() for name in "abc")


def test_cvat_draws_by_z_order_and_reads_masks_boxes_and_ellipses(tmp_path):
    rows = np.diff(
        np.concatenate([[0], np.flatnonzero(np.diff(np.concatenate([[False], MASK[5:20, 7:30].ravel(), [False]]).astype(int)))])
    )
    rows = [*rows.tolist(), 15 * 23 - int(rows.sum())]
    shapes = (
        '<box label="car" xtl="0" ytl="0" xbr="40" ybr="30" z_order="1"/>'
        '<polygon label="road" points="2,2;6,2;6,6;2,6" z_order="0"/>'
        '<polygon label="road" points="12,2;16,2;16,6;12,6" z_order="2"/>'
        '<points label="person" points="3,3" z_order="0"/><tag label="person"/>'
    )
    text = cvat_text({"a": [], "b": [], "c": []})
    text = text.replace('height="30"></image>', f'height="30">{shapes}</image>', 1)
    mask = f'<mask label="person" rle="{", ".join(map(str, rows))}" left="7" top="5" width="23" height="15" z_order="0"/>'
    text = text.replace('height="30"></image>', f'height="30">{mask}</image>', 1)
    turned = (
        '<box label="car" xtl="10" ytl="10" xbr="30" ybr="14" rotation="90"/><ellipse label="road" cx="5" cy="5" rx="4" ry="2"/>'
    )
    text = text.replace('height="30"></image>', f'height="30">{turned}</image>', 1)
    source = opened(tmp_path, text, "xml")
    road = np.zeros_like(MASK)
    road[2:6, 12:16] = True
    assert np.array_equal(label_of(source, "road"), road)
    assert np.array_equal(label_of(source, "car"), ~road)
    assert np.array_equal(label_of(source, "person", "b"), MASK)
    upright = np.zeros_like(MASK)
    upright[2:22, 18:22] = True
    assert np.array_equal(label_of(source, "car", "c"), upright)
    assert abs(int(label_of(source, "road", "c").sum()) - np.pi * 8) < 4
    assert any(note.startswith("shapes are drawn by z_order") for note in source.notes)
    assert "not drawn: 1 points, 1 tags" in source.notes
    assert source.classes.rows[2].color == (0x02, 0, 0)


def test_a_brush_of_label_studio_is_exact(tmp_path):
    tree = label_studio_tree()
    packed = pack_brush(np.repeat(MASK.ravel().astype(np.uint8) * 255, 4))
    about = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    tree[0]["annotations"][0]["result"] = [
        {"type": "brushlabels", **about, "value": {"format": "rle", "rle": packed, "brushlabels": ["road"]}},
        {"type": "rectanglelabels", **about, "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["car"]}},
        {"type": "choices", "value": {"choices": ["x"]}},
    ]
    source = opened(tmp_path, tree)
    assert np.array_equal(label_of(source, "road"), MASK)
    assert "not drawn: 1 'choices', 1 boxes" in source.notes


def test_packed_values_are_those_that_were_packed():
    values = np.array([7, 7, 7, 7, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    packed = pack_brush(values)
    assert np.array_equal(unpack_brush(packed, 20), values)
    for damaged, words in (
        (packed[:-2], "is cut short"),
        (packed[:3], "is cut short"),
        ([300], "not a list of bytes"),
        ("x", "no list"),
    ):
        with pytest.raises(ShapeError, match=words):
            unpack_brush(damaged, 20)
    with pytest.raises(ShapeError, match="a brush of 20 values, wanted 24"):
        unpack_brush(packed, 24)


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0a1b2c3d-a.jpg",
        "/data/local-files/?d=photos/a.jpg",
        "s3://bucket/photos/a.jpg",
        "https://host/x/a.jpg?key=1",
        "a.jpg",
    ],
)
def test_the_picture_of_a_task_is_found_however_it_was_given(tmp_path, image):
    tree = label_studio_tree()
    tree[0]["data"] = {"image": image, "note": "seen"}
    source = opened(tmp_path, tree)
    assert source.problems == ()
    assert source.samples.read("a").label.any()


def test_one_of_several_annotations_of_a_task_is_taken_and_told(tmp_path):
    tree = label_studio_tree()
    tree[0]["annotations"] = [{"result": []}, {"result": [], "was_cancelled": True}, tree[0]["annotations"][0]]
    source = opened(tmp_path, tree)
    assert source.samples.read("a").label.any()
    assert any(note.startswith("1 tasks have several annotations") for note in source.notes)
    tree[0]["annotations"][0]["ground_truth"] = True
    assert not opened(tmp_path, tree).samples.read("a").label.any()


def test_a_polygon_of_supervisely_has_holes(tmp_path):
    write_pictures(tmp_path / "photos")
    points = {"exterior": [[2, 2], [12, 2], [12, 12], [2, 12]], "interior": [[[5, 5], [8, 5], [8, 8], [5, 8]]]}
    tree = {
        "size": {"height": HEIGHT, "width": WIDTH},
        "objects": [{"classTitle": "car", "geometryType": "polygon", "points": points}],
    }
    (tmp_path / "ann").mkdir()
    for name in "abc":
        (tmp_path / "ann" / f"{name}.jpg.json").write_text(json.dumps(tree))
    source = open_own("streets", OwnFiles(tmp_path / "photos", tmp_path / "ann", splits=("val=0.3",)))
    car = label_of(source, "car")
    assert car.sum() == 10 * 10 - 3 * 3
    assert car[3, 3]
    assert not car[6, 6]


def test_the_attribute_that_is_the_class_must_be_sure(tmp_path):
    tree = via_tree()
    first = tree["a.jpg123"]["regions"][0]["region_attributes"]
    first["occluded"] = "yes"
    assert label_of(opened(tmp_path, tree), "car").any()
    first["type"] = "big"
    (problem,) = opened(tmp_path, tree).problems
    assert "have the attributes 'class', 'occluded', 'type', and none of them is sure to be the class" in problem.problem
    for entry in tree.values():
        entry["regions"] = {str(number): {**region, "region_attributes": {}} for number, region in enumerate(entry["regions"])}
    source = opened(tmp_path, {"_via_img_metadata": tree, "_via_settings": {}})
    assert source.classes.names == ["background", "object"]
