"""`segctl.load`: one network for pictures of every kind, with torch and without."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segctl
from segctl.errors import ArgumentError, InputError
from segctl.evaluate.png_pairs import read_ids
from segctl.evaluate.predictor import class_probabilities, predict_classes
from segctl.models import load as load_module
from segctl.runtime.device import choose_compute
from segctl.schema.evaluate import EvaluateSpec


@pytest.fixture
def pictures(tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three pictures of two sizes."""
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, (height, width) in (("a", (40, 50)), ("b", (64, 33)), ("c", (40, 50))):
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width]).save(tmp_path / "in" / f"{name}.png")
    return sorted((tmp_path / "in").iterdir())


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("kind", ["run", "model file", "onnx"])
def test_paths_pictures_arrays_lists_and_batches_give_the_same(kind: str, pictures: list[Path], toy_export: Path) -> None:
    places = {"run": toy_export, "model file": toy_export / "model.safetensors", "onnx": toy_export / "export" / "model.onnx"}
    net, module, compute = segctl.load(places[kind]), load_module(toy_export), choose_compute("cpu", "fp32")
    images = [pixels(path) for path in pictures]
    wanted = [predict_classes(module, torch.from_numpy(image)[None], EvaluateSpec(), compute).numpy()[0] for image in images]
    for found in (net.predict(pictures), net.predict(list(map(str, pictures))), [net.predict(image) for image in images]):
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == np.uint8
            assert (np.asarray(one) != other).mean() < 1e-3
    with Image.open(pictures[1]) as opened:
        np.testing.assert_array_equal(net.predict(opened), net.predict(pictures[1]))
    batch = net.predict(np.stack([pixels(pictures[0]), pixels(pictures[2])]))
    np.testing.assert_array_equal(batch[1], net.predict(pictures[2]))


def test_probabilities_are_those_of_the_evaluation(pictures: list[Path], toy_export: Path) -> None:
    labels, found = segctl.load(toy_export).predict(pictures[0], probabilities=True)
    image = torch.from_numpy(pixels(pictures[0]))[None]
    wanted = class_probabilities(load_module(toy_export), image, EvaluateSpec(), choose_compute("cpu", "fp32"))[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(labels, found.argmax(0))
    with pytest.raises(InputError, match="returns only labels, wanted probabilities; export the run with --output probabilities"):
        segctl.load(toy_export / "export" / "model.onnx").predict(pictures[0], probabilities=True)


def test_a_label_map_shows_itself_and_is_an_array(pictures: list[Path], toy_export: Path) -> None:
    found = segctl.load(toy_export / "export" / "model.onnx").predict(pictures[0])
    assert isinstance(found, np.ndarray)
    assert found.overlay().size == (50, 40)
    half = (pixels(pictures[0])[0, 0].astype(float) + found.palette[found[0, 0]]) / 2
    np.testing.assert_allclose(np.array(found.overlay())[0, 0], half, atol=1)
    shown = found._repr_html_()
    assert "data:image/jpeg;base64," in shown
    assert found.class_names[int(found[0, 0])] in shown
    part = found[:10]
    assert part._repr_html_() is None
    with pytest.raises(ValueError, match="part or a copy of a label map"):
        part.overlay()
    assert (found == found.copy()).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 5), np.uint8), r"uint8 of shape \(4, 5\), wanted \(H, W, 3\).*repeat the grey values"),
        (np.zeros((3, 4, 5), np.uint8), "move the channels last"),
        (np.zeros((4, 5, 4), np.uint8), "drop other channels"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\), wanted"),
        (np.zeros((4, 5, 3), np.float32), "float32 .*wanted uint8 from 0 to 255"),
        (7, "got a int, wanted a path, a PIL image or an array"),
        (torch.zeros(3, 4, 5), "got a Tensor, wanted a path"),
    ],
)
def test_what_is_no_picture_is_a_value_error_that_helps(given: object, said: str, toy_export: Path) -> None:
    with pytest.raises(ArgumentError, match=said):
        segctl.load(toy_export / "export" / "model.onnx").predict(given)


def test_a_missing_picture_and_a_missing_network(toy_export: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.png"):
        segctl.load(toy_export / "export" / "model.onnx").predict(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="no run folder or model file at"):
        segctl.load(tmp_path / "nothing")
    assert segctl.load(toy_export / "export" / "model.onnx").predict([]) == []


@pytest.mark.slow
def test_predicting_with_an_onnx_file_imports_no_torch(pictures: list[Path], toy_export: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from segctl.cli import main; import segctl; model, folder, out = sys.argv[1:]\n"
        "assert main(['predict', model, folder, '-o', out, '--overlay']) == 0\n"
        "assert segctl.load(model).predict(folder + '/a.png').overlay().size == (50, 40)\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    model, folder = toy_export / "export" / "model.onnx", tmp_path / "in"
    subprocess.run([sys.executable, "-c", code, str(model), str(folder), str(tmp_path / "out")], check=True)
    for path in pictures:
        wanted = np.asarray(segctl.load(toy_export).predict(path))
        assert (read_ids(tmp_path / "out" / f"{path.stem}.png") != wanted).mean() < 1e-3


def test_options_of_a_runs_protocol_do_not_fit_an_exported_file(
    pictures: list[Path], toy_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from segctl.cli import main

    model = str(toy_export / "export" / "model.onnx")
    assert main(["predict", model, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--flip"]) == 2
    assert "sees each picture in one piece and once" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
