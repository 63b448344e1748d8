"""Annotations that cannot be right: one sentence, exit code 2, nothing written; and `--check` lists all of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import annotation_files as files
import pytest

from segctl.cli import main
from segctl.data.labels.draw import BEYOND, CROSSES

BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
STAR = [(20.0, 2.0), (28.0, 27.0), (5.0, 11.0), (35.0, 11.0), (12.0, 27.0)]


def prepare(capsys, folder: Path, labels: Path, *more: str) -> tuple[int, str, str]:
    images = folder / "photos" if (folder / "photos").exists() else files.write_pictures(folder / "photos")
    words = ["data", "prepare", "streets", "--images", images, "--labels", labels, "--split", "val=0.3", "--workers", 0, *more]
    code = main([str(word) for word in [*words, "--data-root", folder / "data"]])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, folder: Path, labels: Path, sentence: str, *more: str) -> None:
    code, out, err = prepare(capsys, folder, labels, *more)
    assert (code, out) == (2, ""), err
    assert sentence in err, err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert len(err) < 1000
    assert not (folder / "data").exists()


def coco(folder: Path, change: Callable[[dict], object]) -> Path:
    tree = files.coco_tree()
    change(tree)
    (folder / "a.json").write_text(json.dumps(tree))
    return folder / "a.json"


def first(**values: object) -> Callable[[dict], object]:
    return lambda tree: tree["annotations"][0].update(values)


COCO = {
    "no categories": (lambda tree: tree.pop("categories"), "has no list of categories"),
    "panoptic": (first(segments_info=[]), "is a COCO panoptic file"),
    "category id": (first(category_id=4), "annotation 0 of 'a.jpg' in 'a.json' has the category 4, which the file does not list"),
    "image id": (first(image_id=7), "annotation 0 in 'a.json' is of the image 7, which the file does not list"),
    "picture": (lambda tree: tree["images"][0].update(file_name="z.jpg"), "annotates the picture 'z.jpg', which is not there"),
    "path up": (lambda tree: tree["images"][0].update(file_name="../photos/a.jpg"), "leads outside the folder of the images"),
    "root path": (lambda tree: tree["images"][0].update(file_name="/etc/a.jpg"), "leads outside the folder of the images"),
    "windows path": (lambda tree: tree["images"][0].update(file_name="C:\\x\\a.jpg"), "leads outside the folder of the images"),
    "another size": (lambda tree: tree["images"][0].update(height=40, width=30), "was drawn on 30×40 (it was turned)"),
    "size": (lambda tree: tree["images"][0].update(height=0), "is 40×0 pixels, wanted whole numbers above 0"),
    "ids twice": (lambda tree: tree["images"][0].update(id=101), "has the image id 101 twice"),
    "names twice": (lambda tree: tree["images"][0].update(file_name="b.jpg"), "sample 'b' is annotated twice"),
    "case": (lambda tree: tree["categories"][0].update(name="Car"), "the classes 'Car', 'car' differ only in capital letters"),
    "same name": (lambda tree: tree["categories"][0].update(name="car"), "has two categories called 'car'"),
    "no name": (lambda tree: tree["categories"][0].update(name=7), "the category 3 in 'a.json' has 7 for its class"),
    "odd": (first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 0 of 'a.jpg' in 'a.json' has an odd number of coordinates"),
    "words": (first(segmentation=[["x", 2, 3, 4, 5, 6]]), "has points that are not pairs of numbers"),
    "far": (first(segmentation=[[1e300, 2, 3, 4, 5, 6]]), "has a coordinate that is no pixel of any picture"),
    "outside": (first(segmentation=[[50, 2, 60, 4, 55, 26]]), "'road' in 'a.json' lies outside the image of sample 'a'"),
    "points": (first(segmentation=[[1] * 2_000_002]), "has 1000001 points, wanted at most 1000000"),
    "runs": (first(segmentation={"size": [30, 40], "counts": [5, 5]}), "has runs of 10 pixels in all, wanted 1200 (40×30)"),
    "packed": (first(segmentation={"size": [30, 40], "counts": "oo"}), "has packed run lengths that are cut short or damaged"),
    "mask": (first(segmentation={"size": [3e9, 4], "counts": [1]}), "for the size of its mask, wanted [height, width]"),
    "huge mask": (first(segmentation={"size": [2**30, 4], "counts": [2**32]}), "has a mask of 4×1073741824 pixels"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), COCO.values(), ids=COCO)
def test_coco_that_cannot_be_right_is_refused(capsys, tmp_path, change, sentence):
    refused(capsys, tmp_path, coco(tmp_path, change), sentence)


@pytest.mark.parametrize("kind", files.WRITERS)
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(capsys, tmp_path, kind, keep):
    labels = files.WRITERS[kind](tmp_path)
    path = labels if labels.is_file() else sorted(labels.rglob("a.*"))[0]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    words = {"cvat": "is not valid XML: ", "yolo": " of 'a' in 'a.txt' has 12 numbers"}.get(
        kind, "is not valid JSON: it is cut short"
    )
    if kind == "yolo":  # a line of text that lacks a whole point is a polygon like any other
        path.write_bytes(content + b" 0.5")
    refused(capsys, tmp_path, labels, words)


def replaced(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_wrong_versions_and_kinds_are_refused(capsys, tmp_path):
    refused(capsys, tmp_path, replaced(files.write_cvat(tmp_path), "1.1<", "1.0<"), "has the CVAT version '1.0', wanted 1.1")
    refused(capsys, tmp_path, replaced(files.write_cvat(tmp_path), "<image ", "<track/><image "), "is a CVAT file of a video")
    (tmp_path / "v.json").write_text(json.dumps({"project": {}, "metadata": {}, "view": {}}))
    refused(capsys, tmp_path, tmp_path / "v.json", "is a project of VIA 3, wanted version 2")
    (tmp_path / "v.json").write_text(json.dumps([{"image": "a.jpg", "annotator": 1}]))
    refused(capsys, tmp_path, tmp_path / "v.json", "is Label Studio's short form (JSON-MIN)")
    (tmp_path / "v.json").write_text("{}")
    refused(capsys, tmp_path, tmp_path / "v.json", "holds neither label pictures nor annotations of a known format")


def test_traps_in_xml_and_json_are_refused(capsys, tmp_path):
    refused(
        capsys,
        tmp_path,
        replaced(files.write_cvat(tmp_path), "<annotations>", f"{BOMB}<annotations>"),
        "declares a document type or entities",
    )
    system = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations>'
    refused(
        capsys, tmp_path, replaced(files.write_cvat(tmp_path), "<annotations>", system), "declares a document type or entities"
    )
    (tmp_path / "deep.xml").write_text("<annotations>" + "<a>" * 500 + "</a>" * 500 + "</annotations>")
    refused(capsys, tmp_path, tmp_path / "deep.xml", "is nested too deeply")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    refused(capsys, tmp_path, tmp_path / "deep.json", "is nested too deeply")
    (tmp_path / "n.json").write_text('{"shapes": [], "imagePath": "a.jpg", "imageWidth": NaN}')
    refused(capsys, tmp_path, tmp_path / "n.json", "it holds NaN, which is not a number")
    (tmp_path / "n.json").write_text('{"shapes": [], "imagePath": "a.jpg", "imageWidth": ' + "9" * 5000 + "}")
    refused(capsys, tmp_path, tmp_path / "n.json", "holds a value that cannot be read")
    (tmp_path / "n.json").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    refused(capsys, tmp_path, tmp_path / "n.json", "cannot be read: it is not text")


def with_region(tmp_path: Path, kind: str, corners: list) -> Path:
    """The annotations of a format, with one more region of the first picture."""
    before = files.REGIONS["a"][:]
    files.REGIONS["a"].append(("car", corners))
    try:
        return files.WRITERS[kind](tmp_path)
    finally:
        files.REGIONS["a"][:] = before


POLYGONS = sorted(files.WRITERS.keys() - {"supervisely"})  # whose regions are bitmaps here


@pytest.mark.parametrize("kind", POLYGONS)
def test_a_region_outside_its_picture_is_refused(capsys, tmp_path, kind):
    labels = with_region(tmp_path, kind, [(41.0, 2.0), (60.0, 3.0), (44.0, 20.0)])
    refused(capsys, tmp_path, labels, "lies outside the image of sample 'a' (40×30)")


@pytest.mark.parametrize("kind", POLYGONS)
def test_a_region_that_crosses_itself_is_drawn_and_told(capsys, tmp_path, kind):
    labels = with_region(tmp_path, kind, STAR)
    code, _, err = prepare(capsys, tmp_path, labels)
    assert (code, f"warning: {CROSSES}: 1" in err) == (0, True), err
    code, _, err = prepare(capsys, tmp_path, labels, "--check")
    assert (code, f"warning: {CROSSES}: 1" in err) == (0, True), err


@pytest.mark.parametrize("kind", POLYGONS)
def test_a_region_that_reaches_beyond_its_picture_is_cut_and_told(capsys, tmp_path, kind):
    code, _, err = prepare(capsys, tmp_path, with_region(tmp_path, kind, [(30.0, 2.0), (47.0, 3.0), (34.0, 20.0)]))
    assert (code, f"warning: {BEYOND}: 1" in err) == (0, True), err


@pytest.mark.parametrize("kind", files.WRITERS)
def test_annotations_of_a_picture_that_is_not_there_are_refused(capsys, tmp_path, kind):
    files.write_pictures(tmp_path / "photos")
    (tmp_path / "photos" / "a.jpg").unlink()
    refused(capsys, tmp_path, files.WRITERS[kind](tmp_path), "which is not there")


@pytest.mark.parametrize("kind", files.WRITERS)
def test_classes_that_differ_in_capitals_are_refused(capsys, tmp_path, kind):
    labels = files.WRITERS[kind](tmp_path)
    where = {"yolo": tmp_path / "data.yaml", "labelme": labels / "a.json", "supervisely": labels / "meta.json"}
    path = where.get(kind, labels)
    text = path.read_text()
    path.write_text(re.sub(r"\bperson\b", "CAR", text))
    refused(capsys, tmp_path, labels, "differ only in capital letters")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("yolo", lambda n: "0 " + "0.5 " * 2 * n),
        ("labelme", lambda n: json.dumps(files.labelme_tree("a", [("car", [(1, 1)] * n)]))),
        ("cvat", lambda n: files.cvat_text({"a": [("car", [(1, 1)] * n)]})),
    ],
)  # fmt: skip
def test_more_points_than_a_person_draws_are_refused(capsys, tmp_path, kind, make):
    labels = files.WRITERS[kind](tmp_path)
    path = labels if labels.is_file() else next(labels.glob("a.*"))
    path.write_text(make(1_000_001))
    refused(capsys, tmp_path, labels, "has 1000001 points, wanted at most 1000000")


def test_check_lists_every_problem_and_writes_nothing(capsys, tmp_path):
    def spoil(tree: dict) -> None:
        tree["annotations"][0]["category_id"] = 5
        tree["annotations"][1]["segmentation"] = [[1, 2, 3]]
        tree["annotations"][2]["segmentation"] = [[50, 2, 60, 4, 55, 26]]
        tree["images"].append({"id": 1, "file_name": "gone.jpg", "height": 1, "width": 1})

    code, out, _ = prepare(capsys, tmp_path, coco(tmp_path, spoil), "--check")
    assert code == 3
    for words in (
        "has the category 5",
        "odd number of coordinates",
        "lies outside the image",
        "annotates the picture 'gone.jpg'",
    ):
        assert words in out, words
    assert not (tmp_path / "data").exists()
    refused(capsys, tmp_path, tmp_path / "a.json", "(and 2 more problems; `--check` lists them)")


def test_a_yolo_class_without_a_name_and_a_line_of_words_are_refused(capsys, tmp_path):
    labels = files.write_yolo(tmp_path)
    text = (labels / "a.txt").read_text()
    (labels / "a.txt").write_text(text + "\n3 0.1 0.1 0.2 0.2 0.3 0.1")
    refused(capsys, tmp_path, labels, "line 4 of 'a' in 'a.txt' has the class '3', wanted 0 to 2 (3 names)")
    (labels / "a.txt").write_text(text + "\n2 0.1 0.1 0.2 x 0.3 0.1")
    refused(capsys, tmp_path, labels, "line 4 of 'a' in 'a.txt' is '2 0.1 0.1 0.2 x 0.3 0.1', wanted 'class x y")
    (labels / "a.txt").write_text(text + "\n2 10 10 20 20 30 10")
    refused(capsys, tmp_path, labels, "has the coordinate 30, wanted 0 to 1")
    (labels / "a.txt").write_text(text)
    (tmp_path / "data.yaml").unlink()
    refused(capsys, tmp_path, labels, "numbers its classes, and no data.yaml or classes.txt")
    (labels / "classes.txt").write_text("road\ncar\nperson\n")
    assert prepare(capsys, tmp_path, labels)[0] == 0


def test_check_lists_files_that_cannot_be_read_at_all(capsys, tmp_path):
    labels = files.write_labelme(tmp_path)
    for name in "abc":
        (labels / f"{name}.json").write_text("{" if name < "c" else "")
    code, out, _ = prepare(capsys, tmp_path, labels, "--check")
    assert code == 3
    assert [f"'{name}.json' is not valid JSON: it is cut short" in out for name in "abc"] == [True] * 3
    refused(capsys, tmp_path, labels, "'a.json' is not valid JSON: it is cut short (and 2 more problems; `--check` lists them)")


def test_check_lists_classes_that_collide_beside_other_problems(capsys, tmp_path):
    def spoil(tree: dict) -> None:
        tree["categories"][0]["name"] = "Car"
        tree["annotations"][0]["category_id"] = 5

    code, out, _ = prepare(capsys, tmp_path, coco(tmp_path, spoil), "--check")
    assert code == 3
    assert "the classes 'Car', 'car' differ only in capital letters" in out
    assert "has the category 5" in out
