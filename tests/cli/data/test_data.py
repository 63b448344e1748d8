import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cityscapes_files
import pytest
from archive_files import write_folder, write_zip
from camvid_folders import draw_folder
from deepglobe_files import tree as deepglobe_tree
from own_files import write_own

from segctl.cli import main
from segctl.data.datasets import KNOWN


@pytest.fixture
def root(toy_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_data, tmp_path / "data"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_list_says_what_is_here(capsys, root):
    code, out, _ = run(capsys, "data", "list", "--data-root", root)
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()[2:]}
    assert list(rows) == sorted(KNOWN)
    assert rows["camvid"][1:3] == ["15", "samples,"]
    assert rows["shapes"][1:3] == ["no", "nothing"]


def test_list_as_json(capsys, root):
    code, out, err = run(capsys, "data", "list", "--data-root", root, "--json")
    assert (code, err) == (0, "")
    camvid = next(row for row in json.loads(out) if row["name"] == "camvid")
    assert (camvid["name"], camvid["state"], camvid["samples"]) == ("camvid", "ready", 15)


def test_prepare_again_says_so(capsys, root, toy_data):
    source = toy_data.parent / "source"
    code, out, err = run(capsys, "data", "prepare", "camvid", "--source", source, "--data-root", root)
    assert code == 0
    assert f"'{root}/camvid' was made from the same bytes; nothing to do" in err
    assert out.startswith("camvid: train 10, val 5; ")


def test_prepare_reports_sizes_and_the_next_step(capsys, tmp_path, toy_data):
    source = toy_data.parent / "source"
    code, out, err = run(capsys, "data", "prepare", "camvid", "--source", source, "--data-root", tmp_path, "--workers", 0)
    assert code == 0
    assert "of lz4 shards from" in out
    assert "fingerprint" in out
    assert "preparing camvid 15/15" in err
    assert f"next: segctl data info camvid --data-root {tmp_path}" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prepare", "camvdi"], "knows no dataset called 'camvdi', did you mean 'camvid'?"),
        (["prepare", "deepglobe"], "'deepglobe' needs --source and got none"),
        (["prepare", "camvid", "--source", "nowhere"], "the source 'nowhere' does not exist"),
        (["prepare", "camvid", "my camvid"], "too\nnext:  a published dataset is given by `--source 'my camvid'`"),
        (["prepare", "shapes", "--codec", "lz"], "the codec is 'lz', wanted lz4, zstd, source or none, did you mean 'lz4'?"),
        (["info", "cityscapes"], "dataset 'cityscapes' is not prepared in"),
        (["info", "kitti"], "there is no dataset called 'kitti' in"),
        (["check", "shapes"], "dataset 'shapes' is not prepared in"),
        (["preview", "camvid", "--split", "tran"], "dataset 'camvid' has no split called 'tran', did you mean 'train'?"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(capsys, root, arguments, sentence):
    code, out, err = run(capsys, "data", *arguments, "--data-root", root)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err


def test_a_trial_is_marked_everywhere(capsys, tmp_path, toy_data):
    source = toy_data.parent / "source"
    prepare = ["data", "prepare", "camvid", "--source", source, "--data-root", tmp_path, "--workers", 0]
    code, out, err = run(capsys, *prepare, "--limit", 2)
    assert (code, out[:24]) == (0, "camvid: train 2, val 2; ")
    words = "a trial: at most 2 samples of each split"
    assert f"'camvid' is {words}; prepare it without --limit to pack all samples" in err
    assert words in run(capsys, "data", "check", "camvid", "--data-root", tmp_path)[1]
    assert words in run(capsys, "data", "info", "camvid", "--data-root", tmp_path)[1]
    assert words in run(capsys, "data", "info", "camvid", "--data-root", tmp_path, "--json")[1]
    assert '"limit": 2' in (tmp_path / "camvid" / "dataset.json").read_text()
    code, out, err = run(capsys, *prepare)
    assert (code, out[:25]) == (0, "camvid: train 10, val 5; ")
    assert "a trial:" not in err


def test_check_of_a_sound_dataset(capsys, root):
    code, out, _ = run(capsys, "data", "check", "camvid", "--data-root", root)
    assert (code, out) == (0, "camvid: every sample is as it was packed\n")


def test_check_of_a_damaged_dataset_lists_the_problems_and_exits_with_3(capsys, root):
    (root / "camvid" / "camvid-00000-of-00001.h5").unlink()
    code, out, err = run(capsys, "data", "check", "camvid", "--data-root", root)
    assert code == 3
    assert "incomplete: 'camvid-00000-of-00001.h5' with 15 samples is missing" in out
    assert f"error: 'camvid' in '{root}' has one problem" in err


@pytest.mark.parametrize(("first", "second"), [("training", "validation"), ("Train", "Val"), ("train_fold2", "valid_fold2")])
def test_a_picture_in_both_splits_is_found_before_and_after_packing(capsys, tmp_path, first, second):
    images, labels, classes = write_own(tmp_path / "own", [f"{first}/a", f"{first}/b", f"{second}/c"])
    (images / second / "c.jpg").write_bytes((images / first / "a.jpg").read_bytes())
    prepare = ["data", "prepare", "ade", "--images", images, "--labels", labels, "--classes", classes, "--data-root", tmp_path]
    leak = f"shows the same picture as 'a', in the splits '{second}' and '{first}'"
    code, out, _ = run(capsys, *prepare, "--check")
    assert (code, leak in out) == (3, True)
    assert run(capsys, *prepare, "--workers", 0)[0] == 0
    code, out, _ = run(capsys, "data", "check", "ade", "--data-root", tmp_path)
    assert (code, leak in out) == (3, True)


def test_check_as_json(capsys, root):
    code, out, _ = run(capsys, "data", "check", "camvid", "--data-root", root, "--json")
    assert (code, json.loads(out)) == (0, [])


def test_info_shows_every_class_and_split(capsys, root):
    code, out, _ = run(capsys, "data", "info", "camvid", "--data-root", root)
    assert code == 0
    assert "64×48 (10)" in out
    assert "0001TP 10" in out
    assert "Bicyclist" in out


def test_info_as_json(capsys, root):
    code, out, _ = run(capsys, "data", "info", "camvid", "--data-root", root, "--json")
    splits = json.loads(out)["splits"]
    assert code == 0
    assert splits["val"]["images"] == 5
    assert splits["train"]["ignored_pixels"] == 10 * 48 * 2


def test_preview_writes_a_picture(capsys, root, tmp_path):
    path = tmp_path / "sheet.png"
    code, out, _ = run(capsys, "data", "preview", "camvid", "-o", path, "--split", "val", "--data-root", root)
    assert code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert out == f"{path}: 5 samples of camvid val\n"


def test_bench_measures_and_says_on_what(capsys, root):
    code, out, _ = run(capsys, "data", "bench", "camvid", "--samples", 2, "--workers", 1, "--crop", 16, 24, "--data-root", root)
    assert code == 0
    assert "lz4, crop 16×24, scale 0.5 to 2, flip; medians of 2" in out
    assert "what is decoded: PNG copies in memory" in out


def test_bench_as_json(capsys, root):
    code, out, _ = run(capsys, "data", "bench", "camvid", "--samples", 2, "--workers", 1, "--data-root", root, "--json")
    found = json.loads(out)
    assert (code, found["dataset"], list(found["rates"])) == (0, "camvid", ["0", "1"])
    assert found["times_faster"] == found["common_ms"] / found["shards_ms"]


def test_info_of_one_split(capsys, root):
    code, out, _ = run(capsys, "data", "info", "camvid", "--split", "val", "--data-root", root)
    assert code == 0
    assert "val pixels" in out
    assert "train" not in out
    code, _, err = run(capsys, "data", "info", "camvid", "--split", "vla", "--data-root", root)
    assert (code, "no split called 'vla', did you mean 'val'?" in err) == (2, True)


def test_own_pictures_become_a_dataset_like_any_other(capsys, tmp_path):
    images, labels, classes = write_own(tmp_path, [f"p{number}" for number in range(10)])
    folders = ["--images", images, "--labels", labels, "--classes", classes]
    prepare = ["data", "prepare", "streets", *folders, "--data-root", tmp_path / "data", "--workers", 0]
    code, out, err = run(capsys, *prepare, "--split", "val=0.2", "--split-seed", 3)
    assert code == 0, err
    assert out.startswith("streets: train 8, val 2; ")
    assert run(capsys, "data", "check", "streets", "--data-root", tmp_path / "data")[0] == 0
    assert "crack" in run(capsys, "data", "info", "streets", "--data-root", tmp_path / "data")[1]
    assert "streets" in run(capsys, "data", "list", "--data-root", tmp_path / "data")[1]
    code, _, err = run(capsys, "data", "info", "street", "--data-root", tmp_path / "data")
    assert (code, "did you mean 'streets'?" in err) == (2, True)


def test_a_look_before_packing_lists_everything_and_writes_nothing(capsys, tmp_path):
    images, labels, classes = write_own(tmp_path, ["train/a", "train/b", "train/c", "val/d"])
    prepare = ["data", "prepare", "streets", "--images", images, "--labels", labels, "--classes", classes, "--check"]
    code, out, _ = run(capsys, *prepare, "--data-root", tmp_path / "data")
    assert (code, out) == (0, "streets: no problems found\n")
    for name in ("a", "b"):
        (labels / "train" / f"{name}.png").unlink()
    (images / "val" / "d.jpg").write_bytes(b"nothing")
    code, out, err = run(capsys, *prepare, "--data-root", tmp_path / "data")
    assert code == 3
    assert "the image of sample 'd' (val/d.jpg) cannot be read: it is not a picture" in out
    assert "sample … has its image but no label: … holds no … …" in out.split("By kind")[1]
    assert "error: the source of 'streets' has 3 problems" in err
    assert not (tmp_path / "data").exists()


def test_notes_and_stray_colours_are_shown(capsys, tmp_path):
    folder = write_folder(tmp_path / "source", deepglobe_tree())
    code, _, err = run(
        capsys, "data", "prepare", "deepglobe", "--source", folder, "--data-root", tmp_path / "data", "--workers", 0
    )
    assert code == 0
    assert "these are 11 pictures, not the official 803" in err
    assert "pixels in 11 samples have a colour that belongs to no class and are ignored" in err
    out = run(capsys, "data", "info", "deepglobe", "--data-root", tmp_path / "data")[1]
    assert "pixels in 11 samples have a colour that belongs to no class" in out
    assert "val_fold4 %" in out
    tree = json.loads(run(capsys, "data", "info", "deepglobe", "--data-root", tmp_path / "data", "--json")[1])
    assert len(tree["unknown_pixels"]) == 11


def test_several_sources_are_one(capsys, tmp_path):
    sources = [write_zip(tmp_path / "a", cityscapes_files.images()), write_zip(tmp_path / "b", cityscapes_files.labels())]
    options = [word for path in sources for word in ("--source", path)]
    code, out, err = run(capsys, "data", "prepare", "cityscapes", *options, "--data-root", tmp_path / "data", "--workers", 0)
    assert (code, out[:28]) == (0, "cityscapes: train 2, val 1; "), err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["streets", "--images", "x"], "--labels is missing"),
        (["streets", "--classes", "y"], "--images and --labels are missing"),
        (["camvid", "--unlabelled", "ignore"], "--unannotated is 'ignore', but a published dataset is not read in this way"),
        (["camvid", "--split", "val=0.2"], "--split is 'val=0.2', but a published dataset has its own splits"),
        (
            ["streets", "--images", "x", "--labels", "y", "--classes", "nowhere.csv"],
            "the class table 'nowhere.csv' cannot be read",
        ),
    ],
)
def test_own_data_that_is_not_all_given_is_refused(capsys, tmp_path, arguments, sentence):
    code, _, err = run(capsys, "data", "prepare", *arguments, "--data-root", tmp_path)
    assert (code, sentence in err) == (2, True), err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM to handle")
def test_sigterm_leaves_no_temporary_file(tmp_path):
    folder = draw_folder(tmp_path / "source", {"train": [(64, 80)] * 400})
    with tarfile.open(tmp_path / "camvid.tgz", "w:gz") as archive:
        archive.add(folder, "CamVid")
    (tmp_path / "tmp").mkdir()
    line = ["data", "prepare", "camvid", "--source", str(tmp_path / "camvid.tgz"), "--data-root", str(tmp_path / "data")]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen([sys.executable, "-m", "segctl", *line], env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "tmp").glob("segctl-*.spool")):
            time.sleep(0.005)
        process.terminate()
        assert process.wait() in (0, 143)
    assert list((tmp_path / "tmp").glob("segctl-*.spool")) == []
