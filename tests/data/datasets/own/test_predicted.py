"""Labels that a network made: who made them is recorded, and uncertain pixels are ignored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_zip
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own.predicted import MinConfidence, certain_fraction
from segctl.data.labels.certainty import LEVELS, in_levels, most_probable, read_soft, write_confidence, write_soft
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError

CLASSES = ["ground", "road", "sky"]
NAMES = ("train/a", "train/b", "val/c")


def slow_least(confidence: np.ndarray, fraction: float) -> float:
    """The plain reference: sort, and take the certain ones."""
    ordered = np.sort(confidence)[::-1]
    return float(ordered[int(np.ceil(fraction * len(ordered))) - 1])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in `in`, and `out` as predict would write it: label maps of random classes with random confidences."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    for name in NAMES:
        for folder in ("in", "out", "out/confidence", "out/overlays"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 20, 3)).astype(np.uint8)).save(tmp_path / "in" / f"{name}.png")
        Image.fromarray(random.integers(0, 3, (12, 20)).astype(np.uint8)).save(tmp_path / "out" / f"{name}.png")
        probabilities = random.random((1, 12, 20), np.float32)
        write_confidence(tmp_path / "out" / "confidence" / f"{name}.png", probabilities)
        Image.new("RGB", (20, 12)).save(tmp_path / "out" / "overlays" / f"{name}.jpg")
    record = {
        "weights": "/elsewhere/runs/toy/model.safetensors", "weights_sha256": "ab" * 32, "protocol": "whole", "precision": "fp32",
        "ids": "train ids", "overlay": True, "classes": CLASSES, "preset": "toy",
    }  # fmt: skip
    (tmp_path / "out" / "predict.json").write_text(json.dumps(record))
    return tmp_path


def prepare(*options: str) -> int:
    return main(["data", "prepare", "streets", "--images", "in", "--labels", *(options or ("out",)), "--workers", "0"])


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert prepare(*options) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert not Path("data/streets").exists()
    return " ".join(err.split())


def parts(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Label and confidence in 65535ths of a sample, as they lie in the folder."""
    path = next(each for each in NAMES if each.endswith(name))
    confidence = np.array(Image.open(Path("out/confidence") / f"{path}.png")).astype(np.int64)
    return np.array(Image.open(Path("out") / f"{path}.png")), confidence


def test_the_networks_classes_and_its_name_are_taken_from_the_folder(here, capsys):
    assert prepare() == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of 3 labels were made by the network 'toy' (sha256 abababababab), not by people" in said
    assert "1 label of split 'val' is predicted: scores on it show how similar two networks are" in said
    dataset = open_dataset(Path("data"), "streets")
    assert dataset.classes.names == CLASSES
    assert {split: len(names) for split, names in dataset.splits.items()} == {"train": 2, "val": 1}
    for name in "abc":
        np.testing.assert_array_equal(dataset.label(name), parts(name)[0])
    predicted = dataset.provenance.predicted
    assert predicted is not None
    assert (predicted.network, predicted.weights_sha256, predicted.samples) == ("toy", "ab" * 32, ("a", "b", "c"))
    assert "/elsewhere" not in (here / "data/streets/dataset.json").read_text()
    assert main(["data", "info", "streets"]) == 0
    assert "made by the network 'toy'" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("0.5", (0.5, 0.5, 0.5)),
        ("road=0.9,sky=0.8", (0, 0.9, 0.8)),
        ("road=0.9,0.25", (0.25, 0.9, 0.25)),
        ("0", (0, 0, 0)),
    ],
)
def test_less_certain_pixels_become_ignored(here, text, least):
    assert prepare("out", "--min-confidence", text) == 0
    dataset = open_dataset(Path("data"), "streets")
    for name in "abc":
        label, confidence = parts(name)
        limit = np.rint(np.array(least) * LEVELS)[label]
        np.testing.assert_array_equal(dataset.label(name), np.where(confidence < limit, 255, label))
    assert dataset.provenance.predicted.min_confidence == text


def test_balanced_keeps_the_most_certain_fraction_of_every_class_of_the_folder(here):
    assert prepare("out", "--min-confidence", "balanced=0.4") == 0
    dataset = open_dataset(Path("data"), "streets")
    label, confidence = (np.concatenate([part.ravel() for part in found]) for found in zip(*map(parts, "abc"), strict=True))
    kept = np.concatenate([dataset.label(name).ravel() for name in "abc"])
    for train_id in range(3):
        mine = label == train_id
        limit = slow_least(confidence[mine], 0.4)
        np.testing.assert_array_equal(kept[mine] == train_id, confidence[mine] >= limit)
        assert (kept[mine] == train_id).sum() == int(np.ceil(0.4 * mine.sum()))


def test_a_file_of_limits_and_another_limit_is_another_dataset(here, capsys):
    Path("limits.yaml").write_text("road: 0.9\nothers: 0.5\n")
    assert prepare("out", "--min-confidence", "limits.yaml") == 0
    first = open_dataset(Path("data"), "streets")
    assert prepare("out", "--min-confidence", "road=0.9,0.5") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert prepare("out", "--min-confidence", "road=0.8,0.5") == 0
    assert open_dataset(Path("data"), "streets").fingerprint != first.fingerprint


def test_certain_fractions_by_hand():
    """Class 0: four pixels at the levels 0, 1, 2, 3. Class 1: four at level 2. Class 2: none."""
    counts = np.array([[1, 1, 1, 1], [0, 0, 4, 0], [0, 0, 0, 0]])
    assert certain_fraction(counts, 0.5)[:2] == [2, 2]
    assert certain_fraction(counts, 0.51)[:2] == [1, 2]
    assert certain_fraction(counts, 1.0)[:2] == [0, 2]


def test_a_label_map_of_a_person_among_them_is_taken_as_it_is(here):
    Path("out/confidence/train/b.png").unlink()
    assert prepare("out", "--min-confidence", "1") == 0
    dataset = open_dataset(Path("data"), "streets")
    assert (dataset.label("a") == 255).mean() > 0.9
    np.testing.assert_array_equal(dataset.label("b"), parts("b")[0] if Path("out/confidence/train/b.png").exists() else np.array(
        Image.open("out/train/b.png")
    ))  # fmt: skip
    assert dataset.provenance.predicted.samples == ("a", "c")


def test_an_archive_and_an_own_class_table(here):
    members = {path.relative_to("out").as_posix(): path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    Path("classes.csv").write_text("name,id\nsoil,0\nstreet,1\nsky,2\n")
    archive = write_zip(here / "predicted", members)
    assert prepare(str(archive), "--classes", "classes.csv", "--min-confidence", "street=0.5") == 0
    dataset = open_dataset(Path("data"), "streets")
    assert dataset.classes.names == ["soil", "street", "sky"]
    label, confidence = parts("a")
    wanted = np.where((label == 1) & (confidence < round(0.5 * LEVELS)), 255, label)
    np.testing.assert_array_equal(dataset.label("a"), wanted)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1.5", "got '1.5', wanted a number from 0 to 1"),
        ("nan", "got 'nan', wanted a number from 0 to 1"),
        ("road=", "got '' for 'road', wanted a number from 0 to 1"),
        ("raod=0.5", "names the class 'raod', which the labels do not have, did you mean 'road'?"),
        ("road=0.5,road=0.6", "says 'road' twice"),
        ("balanced=half", "got 'half' for 'balanced', wanted a number from 0 to 1"),
        ("balanced=0", "'balanced' is 0, which keeps no pixel, wanted more than 0"),
        ("list.yaml", "'list.yaml' does not map names to numbers"),
        ("broken.yaml", "'broken.yaml' cannot be read"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(here, capsys, text, sentence):
    Path("list.yaml").write_text("[1, 2]")
    Path("broken.yaml").write_text("{")
    assert sentence in refused(capsys, "out", "--min-confidence", text)


def test_tiles_of_predicted_labels_are_refused(here, capsys):
    assert "--tile does not cut predicted labels" in refused(capsys, "out", "--tile", "64")


def test_folders_that_do_not_fit_are_refused(here, capsys):
    shutil.copytree("out", "plain")
    Path("plain/predict.json").unlink()
    shutil.rmtree("plain/confidence")
    Path("names.txt").write_text("\n".join(CLASSES))
    said = refused(capsys, "plain", "--classes", "names.txt", "--min-confidence", "0.5")
    assert "--min-confidence is '0.5', but 'plain' was not written by `segctl predict`" in said
    shutil.copytree("out", "sure")
    shutil.rmtree("sure/confidence")
    assert "'sure' has no confidence maps" in refused(capsys, "sure", "--min-confidence", "0.5")
    shutil.copytree("out", "server")
    record = json.loads(Path("server/predict.json").read_text())
    Path("server/predict.json").write_text(json.dumps(record | {"ids": "Cityscapes label ids"}))
    assert "predict again without --label-ids" in refused(capsys, "server")
    Path("server/predict.json").write_text("{")
    assert "predict.json" in refused(capsys, "server")
    Image.new("I;16", (3, 4)).save("out/confidence/train/a.png")
    assert "is 3×4 pixels, wanted 20×12 as its label map" in refused(capsys, "out", "--min-confidence", "0.5")
    assert main(["data", "prepare", "camvid", "--min-confidence", "0.5"]) == 2
    assert "--min-confidence is '0.5', but a published dataset is not read in this way" in " ".join(
        capsys.readouterr().err.split()
    )


def test_soft_labels_come_back_to_a_65535th_and_hold_the_most_probable_classes(tmp_path):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), (6, 7)).transpose(2, 0, 1).astype(np.float32)
    write_soft(tmp_path / "soft.npz", probabilities, 3)
    classes, found = read_soft(tmp_path / "soft.npz")
    assert (classes.shape, classes.dtype, found.dtype) == ((3, 6, 7), np.uint8, np.float32)
    for y in range(6):
        for x in range(7):
            order = sorted(range(5), key=lambda c, y=y, x=x: -probabilities[c, y, x])[:3]
            assert classes[:, y, x].tolist() == order
            np.testing.assert_allclose(found[:, y, x], probabilities[order, y, x], atol=0.5 / LEVELS + 1e-7)
    assert most_probable(probabilities, 9)[0].shape == (5, 6, 7)
    assert in_levels(np.array([0.0, 1.0, 1.0000001, 0.5])).tolist() == [0, 65535, 65535, 32768]
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read soft labels from"):
        read_soft(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", classes=classes)
    with pytest.raises(InputError, match="array 'probabilities' is missing"):
        read_soft(tmp_path / "other.npz")


def test_names_of_limits_may_be_those_of_classes_alone():
    with pytest.raises(InputError, match="names the class 'others2'"):
        MinConfidence.parse("others2=0.4", CLASSES)
    assert MinConfidence.parse("others=0.4,sky=1", CLASSES).least(CLASSES, ()) == (
        round(0.4 * LEVELS),
        round(0.4 * LEVELS),
        LEVELS,
    )
