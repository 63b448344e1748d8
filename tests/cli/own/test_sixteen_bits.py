"""16-bit pictures that are kept as they are, from prepare to an exported file; and the refusals where types do not fit."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import segctl
from segctl.cli import main
from segctl.data.batches.views import require_known
from segctl.data.files.bands import BandScaling
from segctl.data.shards.dataset import PreparedDataset, fingerprint, open_dataset
from segctl.errors import InputError
from segctl.models import load, read
from segctl.schema.data import BlurSpec, ColorSpec, JpegSpec
from tests import toy

BANDS = (4, 1, 2)
SIZE = (48, 64)


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Four bands uint16 (H, W, 4) and the label uint8 (H, W) that the low byte of band 4 shows: every high byte is the same."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, (size[0] // 8, size[1] // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    values = random.integers(0, 256, (*size, 4), np.uint16) + np.uint16(200 << 8)
    values[..., 3] = (200 << 8) + 180 * label.astype(np.uint16) + random.integers(0, 20, size, np.uint16)
    return values, label


def prepare(name: str, *options: str, low_byte: bool = True) -> PreparedDataset:
    """The dataset of eight scenes below the current folder.  low_byte: False sets that of every number to 0."""
    for folder in ("images", "labels"):
        Path(name, folder).mkdir(parents=True, exist_ok=True)
    for number in range(8):
        values, label = scene(number)
        np.save(f"{name}/images/{number}.npy", values if low_byte else values & 0xFF00)
        Image.fromarray(label).save(f"{name}/labels/{number}.png")
    Path("classes.csv").write_text("name,id\nbare,0\nfield,1\n")
    files = [f"--images={name}/images", f"--labels={name}/labels", "--classes=classes.csv", "--split=val=0.25"]
    assert main(["data", "prepare", name, *files, *options, "--workers", "1"]) == 0
    return open_dataset(Path("data"), name)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGCTL_DATA", "data")
    monkeypatch.setenv("SEGCTL_RUNS", "runs")


def preset(name: str, dataset: str, **data: object) -> str:
    tree = toy.PRESET | {"name": name, "data": toy.PRESET["data"] | {"dataset": dataset} | data}
    tree["train"] = toy.PRESET["train"] | {"steps": 3, "validate_every": 3}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(tree))
    return f"{name}.yaml"


def refused(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """What a command says that ends with exit code 2, on one line."""
    capsys.readouterr()
    assert main(list(line)) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none", "source"])
def test_shards_hold_every_bit_and_the_statistics_are_those_of_numpy(codec: str) -> None:
    dataset = prepare("fields", "--bands=4,1,2", "--range=keep", f"--codec={codec}")
    assert (dataset.pixel_type, dataset.bands) == ("uint16", 3)
    chosen = {name: np.load(f"fields/images/{name}.npy")[..., [3, 0, 1]] for name in dataset.samples}
    for name, values in chosen.items():
        found = dataset.image(name)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, values)
        np.testing.assert_array_equal(dataset.image(name, 5, 7, 20, 30), values[5:25, 7:37])
    training = np.concatenate([chosen[name].reshape(-1, 3) for name in dataset.splits["train"]]).astype(np.float64)
    about = json.loads(Path("data/fields/dataset.json").read_text())["pixels"]
    assert (about["ranges"], about["dtype"]) == (None, "uint16")
    np.testing.assert_allclose(about["mean"], training.mean(0) / 65535, rtol=1e-12)
    np.testing.assert_allclose(about["std"], training.std(0) / 65535, rtol=1e-6)
    assert main(["data", "check", "fields"]) == 0


def test_the_low_byte_is_in_the_fingerprint_and_on_the_contact_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    kept, flat = (
        prepare("fields", "--bands=4,1,2", "--range=keep"),
        prepare("flat", "--range=keep", "--bands=4,1,2", low_byte=False),
    )
    assert kept.fingerprint != flat.fingerprint
    scaled = prepare("fields", "--bands=4,1,2", "--range=0,65535")
    assert (scaled.pixel_type, scaled.fingerprint == kept.fingerprint) == ("uint8", False)
    assert prepare("fields", "--bands=4,1,2", "--range=keep").fingerprint == kept.fingerprint
    capsys.readouterr()
    assert main(["data", "info", "fields", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pixel_type"] == "uint16"
    assert main(["data", "info", "fields"]) == 0
    assert "(uint16, 0 to 65535): band 4 5" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "preview", "fields", "--split=val", "-o", "sheet.png"]) == 0
    left, top, side = 32, 90, 320
    shown = np.asarray(Image.open("sheet.png"))[top : top + side * 3 // 4, left : left + side]
    assert shown.std() > 50  # as 8 bits of the whole range, these scenes would be one grey


def test_datasets_of_eight_bits_keep_their_fingerprint_and_their_record() -> None:
    dataset = prepare("fields", "--bands=4,1,2", "--range=51200,51455")
    sources = {name: record.source_sha256 for name, record in dataset.samples.items()}
    rule = dataset.provenance.rule
    assert rule.endswith("bands 4,1,2 of 4 uint16 range 51200:51455 51200:51455 51200:51455")
    assert dataset.fingerprint == fingerprint(rule, sources)
    about = json.loads(Path("data/fields/dataset.json").read_text())["pixels"]
    assert list(about) == ["bands", "of", "dtype", "ranges", "mean", "std"]
    images = np.concatenate([dataset.image(name).reshape(-1, 3) for name in dataset.splits["train"]]).astype(np.float64)
    np.testing.assert_allclose(about["mean"], images.mean(0) / 255, rtol=1e-12)


def test_augmentations_of_eight_bits_are_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = prepare("fields", "--bands=4,1,2", "--range=keep")
    said = "is for uint8 images, but those of 'fields' are uint16"
    found = refused(capsys, "train", "--preset", preset("deep", "fields", augment=[{"kind": "noise"}]), "--run", "run")
    assert f"data.augment.0: 'noise' {said}" in found
    assert not Path("run").exists()
    for step in (ColorSpec(), JpegSpec()):
        with pytest.raises(InputError, match=f"semi.augment.1: '{step.kind}' {said}"):
            require_known(dataset, (BlurSpec(), step), "semi.augment")


@pytest.mark.slow
def test_the_low_byte_decides_what_a_network_learns() -> None:
    for name, low_byte in (("fields", True), ("flat", False)):
        prepare(name, "--bands=4,1,2", "--range=keep", low_byte=low_byte)
        assert main(["train", "--preset", preset(name, name), "--run", f"run-{name}"]) == 0
    first, second = (load(f"run-{name}").state_dict() for name in ("fields", "flat"))
    assert any(not torch.equal(first[key], second[key]) for key in first if key.endswith("weight"))


@pytest.mark.slow
def test_sixteen_bits_from_prepare_to_an_exported_file(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = prepare("fields", "--bands=4,1,2", "--range=keep")
    prepare("bright", "--bands=4,1,2", "--range=percentile")
    shapes = {"augment": [{"kind": kind, "probability": 1.0} for kind in ("blur", "grey", "affine", "cutout", "copy_paste")]}
    assert main(["train", "--preset", preset("deep", "fields", **shapes), "--run", "deep"]) == 0
    saved, network = read(Path("deep")), load("deep")
    assert dataset.pixels is not None
    assert saved.pixels == dataset.pixels.model_dump(mode="json")
    assert network.pixel_type == "uint16"
    torch.testing.assert_close(network.pixel_mean.flatten() / 65535, torch.tensor(dataset.pixels.mean))
    assert main(["eval", "deep"]) == 0
    worst = np.asarray(Image.open(next(Path("deep/eval/val/worst").glob("*_image.png"))))
    assert worst.std() > 50
    np.save("scene.npy", scene(99, (72, 96))[0])
    Image.fromarray(scene(99)[0][..., :3].astype(np.uint8)).save("photo.png")
    np.save("shallow.npy", scene(99, (72, 96))[0].astype(np.uint8))
    masks = []
    assert main(["predict", "deep", "scene.npy", "-o", "masks", "--overlay"]) == 0
    assert main(["export", "deep", "--parity", "2"]) == 0
    assert "images uint16 (B, H, W, 3) of any size" in capsys.readouterr().out
    file = "deep/export/model.onnx"
    assert main(["predict", file, "scene.npy", "-o", "by-file"]) == 0
    masks = [hashlib.sha256(Path(folder, "scene.png").read_bytes()).hexdigest() for folder in ("masks", "by-file")]
    assert masks[0] == masks[1]
    assert main(["eval", "deep", "--model", file, "--protocol", "whole"]) == 0
    import onnx

    model = onnx.load(file)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT16
    facts = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "segctl"))
    assert (facts["input"], facts["pixels"]["ranges"]) == ("uint16", None)
    np.testing.assert_allclose(facts["mean"], dataset.pixels.mean, rtol=1e-6)
    for path in ("deep", file):
        found = refused(capsys, "predict", path, "shallow.npy", "-o", "none")
        assert "'shallow.npy' has 4 bands of uint8, wanted 4 bands of uint16" in found
        opened = segctl.load(path, "cpu")
        np.testing.assert_array_equal(opened.predict(scene(99, (72, 96))[0]), np.asarray(Image.open("masks/scene.png")))
        with pytest.raises(ValueError, match=r"got an array uint8 of shape \(72, 96, 4\), wanted uint16 \(H, W, 4\)"):
            opened.predict(np.load("shallow.npy"))
    types = "takes uint16 images, but those of 'bright' are uint8"
    assert f"the network of 'deep' {types}" in refused(capsys, "eval", "deep", "--dataset", "bright")
    assert f"'{file}' {types}" in refused(capsys, "eval", "deep", "--dataset", "bright", "--model", file)
    assert "are uint8" in refused(capsys, "bench", "deep")
    assert not Path("none").exists()


def test_a_record_without_ranges_is_of_uint16_alone() -> None:
    with pytest.raises(ValueError, match="only uint16 numbers are kept"):
        BandScaling(bands=(1,), of=1, dtype="float32", ranges=None)
