"""A person's own pictures in four lines: prepare, train a teacher, distil a student, report."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segctl.cli import main
from segctl.runs import RunFolder
from segctl.schema.load import read_tree

PREPARE = "data prepare streets --images photos/ --labels annotations.json --split val=0.2"
SMALL = "--set model.backbone=test_resnet --set model.width=8 --set data.workers=0 --set train.precision=fp32"


def segctl(line: str) -> int:
    """The exit code of `segctl LINE`."""
    return main(line.split())


def export_coco(folder: Path, pictures: int = 20, height: int = 64, width: int = 96) -> None:
    """`photos/` and `annotations.json`: on each picture a red sign and a green car, on noise."""
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    images, annotations = [], []
    for index in range(pictures):
        pixels = random.integers(0, 90, (height, width, 3), dtype=np.uint8)
        for channel, category in ((0, 3), (1, 8)):
            left, top = int(random.integers(0, width // 2)), int(random.integers(0, height // 2))
            right, bottom = left + width // 2, top + height // 2
            pixels[top:bottom, left:right] = np.eye(3, dtype=np.uint8)[channel] * 230
            ring = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index + 1, "category_id": category, "iscrowd": 0,
                 "area": (right - left) * (bottom - top), "bbox": [left, top, right - left, bottom - top], "segmentation": [ring]}
            )  # fmt: skip
        name = f"p{index:02d}.png"
        Image.fromarray(pixels).save(folder / "photos" / name)
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
    categories = [{"id": 3, "name": "sign"}, {"id": 8, "name": "car"}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(tree), encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a COCO export, and nothing else."""
    for variable in ("SEGCTL_DATA", "SEGCTL_RUNS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    export_coco(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_four_lines_make_a_teacher_a_student_and_a_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a network connection: the scratch forms, on a network of some thousand weights, for some steps."""
    assert segctl(PREPARE) == 0
    assert segctl(f"train --preset dl101-scratch --data streets {SMALL} --set optim.lr=0.1 --set train.steps=25") == 0
    said = capsys.readouterr().err
    assert "batch 8   steps 25   epochs 12.5   seed 0" in said
    assert "crop 64×96: every picture is 64×96\nevaluation of whole pictures: each fits into the crop" in said
    assert segctl(f"distill --preset fast-scratch --data streets {SMALL} --set model.stages=null --set train.steps=8") == 0
    assert "teacher runs/streets-dl101-scratch/model.safetensors" in capsys.readouterr().err
    assert main(["report"]) == 0
    report = (here / "report.md").read_text(encoding="utf-8")
    assert "streets-fast-scratch" in report
    assert "none published" not in report

    log = (here / "runs/streets-fast-scratch/train.log").read_text(encoding="utf-8")
    assert "crop 64×96: every picture is 64×96" in log
    stored = RunFolder(here / "runs/streets-fast-scratch")
    run = stored.read_run()
    assert (run.name, run.data.crop, run.train.validate_every) == ("streets-fast-scratch", (64, 96), 1)
    assert main(["eval", str(stored.path)]) == 0
    assert segctl(f"distill --run {stored.path} --extend-to 9") == 0
    assert segctl(f"distill --run {stored.path} --extend-to 12 --data streets") == 2
    assert "--data needs --preset" in capsys.readouterr().err
    (stored.model).unlink()
    assert segctl(f"distill --run {stored.path} --resume") == 0
    assert stored.finished


@pytest.mark.slow
def test_a_comparison_trains_on_the_named_data(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    segctl(PREPARE)
    line = f"compare --preset fast-scratch --data streets --methods none --seeds 1 {SMALL} --set model.stages=null --steps 1"
    assert segctl(line) == 0
    assert RunFolder(here / "runs/streets-fast-scratch-none-seed0").finished
    said = capfd.readouterr()
    assert "crop 64×96: every picture is 64×96" in said.err
    assert "streets-fast-scratch on streets / val, 1 steps" in said.out


@pytest.mark.slow
def test_the_lines_of_the_readme_run_as_written_for_some_steps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With ImageNet weights, which have to be downloaded."""
    lines = [PREPARE, "train --preset dl101 --data streets", "distill --preset fast --data streets", "report"]
    assert segctl(lines[0]) == 0
    code = segctl(f"{lines[1]} --set train.steps=40 --set optim.lr=3.0e-4")
    if code and "download" in capsys.readouterr().err:
        pytest.skip("the ImageNet weights cannot be downloaded here")
    assert code == 0
    assert segctl(f"{lines[2]} --set train.steps=4") == 0
    assert segctl(lines[3]) == 0
    assert RunFolder(here / "runs/streets-fast").finished


def test_a_teacher_that_is_not_there_is_asked_for_in_the_same_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segctl(PREPARE)
    assert segctl("distill --preset fast --data streets") == 2
    said = capsys.readouterr().err
    assert "there is no finished run of the teacher preset 'streets-dl101' under 'runs'" in said
    assert "make one with `segctl train --preset dl101 --data streets`" in said
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --preset fast", "preset 'fast' is for any dataset, and none is named"),
        ("train --preset fast --data stretes", "there is no dataset called 'stretes' in 'data', did you mean 'streets'?"),
        ("train --preset camvid-psp18 --data streets", "preset 'camvid-psp18' is made for the dataset 'camvid', but --data is"),
        (
            "train --preset fast --data streets --set data.dataset=x",
            "--data 'streets' and --set data.dataset=x name two datasets",
        ),
        ("distill --preset dl101 --data streets", "preset 'streets-dl101' has no teacher to learn from"),
        ("train --preset fast --data camvid", "dataset 'camvid' is not prepared in 'data'"),
        ("presets new camvid-psp18 --like fast --data streets", "a preset of that name ships with segctl"),
        ("presets new a/b --like fast --data streets", "wanted letters, digits, '.', '_' and '-'"),
        ("presets show tiny", "preset 'tiny' is for any dataset, and none is named"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(here: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    segctl(PREPARE)
    capsys.readouterr()
    assert segctl(line) == 2
    said = capsys.readouterr().err
    assert message in said
    assert not (here / "runs").exists()


def test_a_new_preset_is_complete_and_needs_no_recipe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segctl(PREPARE)
    capsys.readouterr()
    assert segctl("presets new mine --like fast --data streets") == 0
    text = capsys.readouterr().out
    assert "#   steps 2,000, the fewest: 200 epochs × 16 images / batch 8 would be 400" in text
    (here / "mine.yaml").write_text(text.replace("recipe: jml\n", ""), encoding="utf-8")
    assert main(["presets", "check", "mine.yaml"]) == 0
    assert main(["presets", "show", "mine.yaml"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out.partition("\n")[2])
    assert (shown["name"], shown["recipe"], shown["data"]["crop"]) == ("mine", None, [64, 96])


def test_a_generic_preset_of_ones_own_is_fitted_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segctl(PREPARE)
    tree = read_tree(Path(__file__).parents[3] / "presets/generic/fast.yaml") | {"name": "mine"}
    (here / "mine.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    capsys.readouterr()
    assert segctl("presets show mine.yaml --set data.dataset=streets --json") == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert (run["name"], run["train"]["steps"], run["teacher"]["preset"]) == ("streets-mine", 2000, "streets-dl101")


def test_what_the_network_will_see_can_be_drawn(here: Path) -> None:
    segctl(PREPARE)
    assert segctl("data preview streets --augmented fast -o seen.png") == 0
    assert Image.open(here / "seen.png").size[0] > 96
