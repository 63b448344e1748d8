"""`predict` through the front door: masks of any picture, kept, gone on with, and refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segctl.cli import main
from segctl.data.shards.dataset import open_dataset
from segctl.errors import SegctlError
from segctl.evaluate.png_pairs import read_ids
from segctl.evaluate.predictor import predict_classes
from segctl.models import load
from segctl.runtime.device import choose_compute
from segctl.schema.evaluate import EvaluateSpec


@pytest.fixture
def here(toy_teacher: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with `run`, and `in` with three pictures of different sizes and kinds."""
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_teacher, tmp_path / "run")
    random = np.random.default_rng(0)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name, size in (("a.png", (40, 50)), ("b.jpg", (64, 33)), ("deep/c.bmp", (31, 70))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "in" / name)
    return tmp_path


def test_every_picture_gets_a_mask_of_its_own_size_that_the_network_gives(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    assert capsys.readouterr().out == "3 masks in out\n"
    model, compute = load("run"), choose_compute("cpu", "fp32")
    for name in ("a.png", "b.jpg", "deep/c.bmp"):
        with Image.open(here / "in" / name) as opened:
            image = np.array(opened.convert("RGB"))
        wanted = predict_classes(model, torch.from_numpy(image)[None], EvaluateSpec(), compute)[0].numpy()
        np.testing.assert_array_equal(read_ids(here / "out" / Path(name).with_suffix(".png")), wanted)
    assert not (here / "out" / "overlays").exists()


def test_masks_show_the_datasets_colours_and_overlays_are_laid_over(here: Path, toy_data: Path) -> None:
    assert main(["predict", "run", "in/a.png", "-o", "out", "--overlay"]) == 0
    palette = open_dataset(toy_data, "camvid").classes.palette()
    with Image.open(here / "out" / "a.png") as mask, Image.open(here / "out" / "overlays" / "a.jpg") as mixed:
        np.testing.assert_array_equal(np.array(mask.convert("RGB")), palette[np.array(mask)])
        assert mixed.size == mask.size == (50, 40)


def test_without_the_dataset_every_class_still_has_a_colour(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGCTL_DATA", str(here / "nothing"))
    assert main(["predict", "run/model.safetensors", "in/a.png", "-o", "out"]) == 0
    with Image.open(here / "out" / "a.png") as mask:
        palette = np.array(mask.getpalette()).reshape(-1, 3)[:11]
    assert len(np.unique(palette, axis=0)) == 11


def test_a_second_start_does_only_what_is_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    kept = (here / "out" / "b.png").stat().st_mtime_ns
    (here / "out" / "a.png").unlink()
    capsys.readouterr()
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    assert capsys.readouterr().out == "3 masks in out (2 of them from an earlier start)\n"
    assert (here / "out" / "b.png").stat().st_mtime_ns == kept
    assert (here / "out" / "a.png").is_file()


def test_a_picture_that_changed_after_its_mask_is_predicted_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    mask = here / "out" / "a.png"
    stale = mask.read_bytes()
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(here / "in" / "a.png")
    later = mask.stat().st_mtime_ns + 1
    os.utime(here / "in" / "a.png", ns=(later, later))
    capsys.readouterr()
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    assert capsys.readouterr().out == "3 masks in out (2 of them from an earlier start)\n"
    assert mask.read_bytes() != stale
    assert read_ids(mask).shape == (20, 30)


def test_masks_made_otherwise_are_not_mixed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    assert main(["predict", "run", "in", "-o", "out", "--flip"]) == 2
    said = capsys.readouterr().err
    assert "error: 'out' holds masks made with other settings: protocol was 'whole image, single scale, no flip', now" in said


def test_a_folder_of_something_else_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("mine")
    assert main(["predict", "run", "in", "-o", "out"]) == 2
    assert "error: 'out' is not empty, and `segctl predict` did not write it" in capsys.readouterr().err
    assert [path.name for path in (here / "out").iterdir()] == ["thesis.txt"]


def test_pictures_are_never_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (here / "in" / "a.png").read_bytes()
    assert main(["predict", "run", "in", "-o", "in"]) == 2
    assert "error: the mask of 'in/a.png' would overwrite 'in/a.png'" in capsys.readouterr().err
    assert (here / "in" / "a.png").read_bytes() == before
    assert not (here / "in" / "predict.json").exists()


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_done(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in" / "a.png").write_bytes(b"no picture")
    assert main(["predict", "run", "in", "-o", "out"]) == 2
    assert (
        "error: cannot read 'in/a.png': it is not a picture\nnext:  the other 2 pictures have their masks"
        in capsys.readouterr().err
    )
    assert sorted(path.name for path in (here / "out").rglob("*.png")) == ["b.png", "c.png"]


def test_the_folder_says_how_its_masks_were_made(here: Path) -> None:
    assert main(["predict", "run", "in", "-o", "out", "--protocol", "sliding", "--tile", "32x32"]) == 0
    record = json.loads((here / "out" / "predict.json").read_text(encoding="utf-8"))
    assert record["protocol"] == "sliding 32×32 tiles, stride 0.6667 of a tile, single scale, no flip"
    assert (record["ids"], len(record["classes"]), len(record["weights_sha256"])) == ("train ids", 11, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "in", "-o", "out"], "no run folder or model file at 'nowhere'"),
        (["run", "no*thing", "-o", "out"], "'no*thing' is not a picture, a folder or a pattern that matches pictures"),
        (
            ["run", "in", "-o", "out", "--label-ids"],
            "--label-ids writes Cityscapes label ids, but this network has other classes",
        ),
        (["run", "in", "-o", "out", "--scales", "none"], "cannot read --scales 'none'"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *arguments]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_a_network_of_cityscapes_writes_label_ids(here: Path) -> None:
    from segctl.data.datasets.cityscapes_classes import CLASSES
    from segctl.models import build_model, save
    from segctl.runs import RunFolder

    spec = RunFolder(here / "run").read_run()
    torch.manual_seed(0)
    save(here / "cs.pt", build_model(spec.model, 19), spec, CLASSES.names)
    assert main(["predict", "cs.pt", "in", "-o", "ids"]) == 0
    assert main(["predict", "cs.pt", "in", "-o", "raw", "--label-ids"]) == 0
    ids, raw = read_ids(here / "ids" / "a.png"), read_ids(here / "raw" / "a.png")
    np.testing.assert_array_equal(CLASSES.raw_to_train()[raw], ids)
    assert (raw >= 7).all()


def test_a_predict_that_fails_is_in_nobodys_way(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(here / "bad" / "ok.png")
    (here / "bad" / "ok.png").write_bytes((here / "bad" / "ok.png").read_bytes()[:40])
    assert main(["predict", "run", "bad", "-o", "deep/out"]) == 2
    assert not (here / "deep").exists()
    damaged = here / "run" / "model.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert main(["predict", "run", "in", "-o", "deep/out"]) == 2
    assert not (here / "deep").exists()
    damaged.write_bytes(whole)
    assert main(["predict", "run", "in", "-o", "deep/out"]) == 0


def test_a_record_without_masks_is_written_anew(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "predict.json").write_text('{"protocol": "other"}')
    assert main(["predict", "run", "in", "-o", "out"]) == 0
    assert "whole image" in (here / "out" / "predict.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["[]", "null", "{", '{"protocol": 3}', "[" * 20000])
def test_a_foreign_record_beside_masks_is_a_sentence(content: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "in/a.png", "-o", "out"]) == 0
    (here / "out" / "predict.json").write_text(content)
    assert main(["predict", "run", "in", "-o", "out"]) == 2
    said = capsys.readouterr().err
    assert "'out/predict.json'" in said
    assert "next:  give another folder with -o, or remove this one" in said


def test_the_first_mask_that_cannot_be_written_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise SegctlError("cannot write: No space left on device")

    monkeypatch.setattr("segctl.inference.predict_pictures.write_index", fail)
    assert main(["predict", "run", "in", "-o", "out", "--overlay"]) == 1
    assert not (here / "out").exists()


def test_confidence_and_soft_labels_are_those_of_the_network(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import segctl
    from segctl.data.labels.certainty import LEVELS, read_soft

    assert main(["predict", "run", "in", "-o", "out", "--confidence", "--soft", "--top-k", "2", "--device", "cpu"]) == 0
    network = segctl.load("run", device="cpu")
    for name in ("a.png", "b.jpg", "deep/c.bmp"):
        labels, probabilities = network.predict(str(here / "in" / name), probabilities=True)
        written = (here / "out" / Path(name)).with_suffix(".png")
        np.testing.assert_array_equal(read_ids(written), labels)
        confidence = (here / "out" / "confidence" / Path(name)).with_suffix(".png")
        np.testing.assert_allclose(np.array(Image.open(confidence)) / LEVELS, probabilities.max(0), atol=1 / LEVELS)
        classes, soft = read_soft((here / "out" / "soft" / Path(name)).with_suffix(".npz"))
        assert classes.shape == (2, *labels.shape)
        np.testing.assert_array_equal(classes[0], labels)
        np.testing.assert_allclose(soft[0], probabilities.max(0), atol=1 / LEVELS)
    shutil.copytree(here / "out", here / "gt")
    shutil.rmtree(here / "gt" / "confidence")
    assert main(["eval", "--pred", "out", "--gt", "gt", "--num-classes", "11"]) == 0
    capsys.readouterr()
    assert main(["predict", "run", "in", "-o", "out", "--device", "cpu"]) == 2
    assert "confidence was True, now None" in " ".join(capsys.readouterr().err.split())


def test_a_folder_of_an_older_segctl_is_resumed(here: Path) -> None:
    assert main(["predict", "run", "in/a.png", "-o", "out"]) == 0
    record = json.loads((here / "out" / "predict.json").read_text())
    (here / "out" / "predict.json").write_text(
        json.dumps({key: value for key, value in record.items() if key not in ("confidence", "soft", "preset")})
    )
    assert main(["predict", "run", "in", "-o", "out"]) == 0


def test_what_would_lie_in_the_folder_of_confidences_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(here / "in" / "deep", here / "in" / "confidence")
    assert main(["predict", "run", "in", "-o", "out", "--confidence"]) == 2
    assert "which is for --confidence" in " ".join(capsys.readouterr().err.split())
    assert main(["predict", "run", "in", "-o", "out", "--top-k", "2"]) == 2
    assert "--top-k is 2, but nothing writes soft labels" in " ".join(capsys.readouterr().err.split())
    assert not (here / "out").exists()
