"""A network of five 16-bit bands from prepare to predict: what the files hold goes in, and a GeoTIFF stays where it lies."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from segctl.cli import main
from segctl.data.shards.dataset import open_dataset
from segctl.models import load, read
from tests import toy

rasterio = pytest.importorskip("rasterio")
PLACE = rasterio.transform.from_origin(500_000, 5_400_000, 10, 10)


def write_scene(path: Path, seed: int, *, size: tuple[int, int] = (48, 64), gain: int = 1) -> np.ndarray:
    """A GeoTIFF of five bands uint16; band 5 shows the class. Returns the label uint8 (H, W)."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, (size[0] // 8, size[1] // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    values = random.integers(0, 400, (5, *size), np.uint16)
    values[4] += 3000 * label.astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 5, "dtype": "uint16"}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=PLACE, **profile) as file:
        file.write(values * gain)
    return label


def prepare(folder: Path, name: str, *options: str, gain: int = 1) -> None:
    from PIL import Image

    for number in range(8):
        label = write_scene(folder / f"{name}/images/{number}.tif", number, gain=gain)
        (folder / f"{name}/labels").mkdir(exist_ok=True)
        Image.fromarray(label).save(folder / f"{name}/labels/{number}.png")
    (folder / "classes.csv").write_text("name,id\nbare,0\nfield,1\n")
    files = [f"--images={name}/images", f"--labels={name}/labels", "--classes=classes.csv", "--split=val=0.25"]
    assert main(["data", "prepare", name, *files, *options, "--workers", "1", "--data-root", "data"]) == 0


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the datasets `fields` and `bright`, of ten times the numbers; and a run of two steps, `bands`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGCTL_DATA", "data")
    prepare(tmp_path, "fields", "--bands=5,1,2,3,4", "--range=percentile")
    prepare(tmp_path, "bright", "--bands=5,1,2,3,4", "--range=percentile", gain=10)
    preset = toy.PRESET | {"name": "bands", "data": toy.PRESET["data"] | {"dataset": "fields"}}
    preset["train"] = toy.PRESET["train"] | {"steps": 2, "validate_every": 2}
    Path("bands.yaml").write_text(yaml.safe_dump(preset))
    assert main(["train", "--preset", "bands.yaml", "--run", "bands", "--data-root", "data"]) == 0
    return tmp_path


def test_bands_are_trained_scored_and_predicted(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_dataset(trained / "data", "fields")
    saved = read(trained / "bands")
    assert saved.pixels == dataset.pixels.model_dump(mode="json")
    assert load(trained / "bands").bands == dataset.bands == 5
    capsys.readouterr()
    assert main(["eval", "bands", "--data-root", "data"]) == 0
    assert "the network was trained where" not in capsys.readouterr().err
    assert main(["eval", "bands", "--dataset", "bright", "--data-root", "data"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the network was trained where images are bands 5, 1, 2, 3, 4 of 5 (uint16)" in said
    assert "so the same number is another pixel to it" in said
    write_scene(trained / "scene.tif", 99, size=(72, 96))
    assert main(["predict", "bands", "scene.tif", "-o", "masks", "--data-root", "data"]) == 0
    with rasterio.open(trained / "masks/scene.tif") as mask:
        assert (mask.crs.to_epsg(), mask.transform, mask.shape) == (32632, PLACE, (72, 96))


@pytest.mark.slow
def test_an_exported_network_of_bands_predicts_the_same(trained: Path) -> None:
    assert main(["export", "bands", "--format", "onnx", "--data-root", "data"]) == 0
    write_scene(trained / "scene.tif", 99, size=(72, 96))
    onnx = next((trained / "bands/export").glob("*.onnx"))
    masks = []
    for network, folder in (("bands", "run"), (str(onnx), "onnx")):
        assert main(["predict", network, "scene.tif", "-o", folder, "--data-root", "data"]) == 0
        with rasterio.open(trained / folder / "scene.tif") as mask:
            assert (mask.crs.to_epsg(), mask.transform) == (32632, PLACE)
            masks.append(mask.read(1))
    assert (masks[0] != masks[1]).mean() < 1e-3
