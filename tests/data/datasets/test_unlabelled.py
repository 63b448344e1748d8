import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from camvid_folders import draw_folder, draw_sample
from own_files import write_own
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.unlabelled import as_asked
from segctl.data.inspect.check import check
from segctl.data.shards.dataset import open_dataset
from segctl.data.shards.shard import SHARD_FORMAT
from segctl.errors import InputError

SIZES = {"train": [(48, 64), (32, 40), (64, 48)], "val": [(48, 64)]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "source", SIZES)


@pytest.fixture
def extra(tmp_path: Path) -> Path:
    """Three pictures that no split shows, one of them grey, in two folders."""
    for index, name in enumerate(("x", "deep/x", "y")):
        path = tmp_path / "extra" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _ = draw_sample(24 + index, 30, 50 + index)
        Image.fromarray(image if name != "y" else image[..., 0]).save(path)
    return tmp_path / "extra"


def prepare(root: Path, *options: object) -> int:
    return main(["data", "prepare", *map(str, options), "--data-root", str(root), "--workers", "0"])


def refused(capsys: pytest.CaptureFixture[str], root: Path, *options: object) -> str:
    assert prepare(root, *options) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return " ".join(err.split())


def test_pictures_without_labels_become_a_split_that_has_none(tmp_path, source, extra):
    root = tmp_path / "data"
    assert prepare(root, "camvid", "--source", source, "--unlabelled", extra) == 0
    dataset = open_dataset(root, "camvid")
    names = ["unlabelled-deep-x", "unlabelled-x", "unlabelled-y"]
    assert {split: len(listed) for split, listed in dataset.splits.items()} == {"train": 3, "val": 1, "unlabelled": 3}
    assert dataset.names("unlabelled") == names
    assert [dataset.has_label(name) for name in [*names, dataset.names("val")[0]]] == [False, False, False, True]
    np.testing.assert_array_equal(dataset.image("unlabelled-x"), np.array(Image.open(extra / "x.png")))
    assert (dataset.image("unlabelled-y") == np.array(Image.open(extra / "y.png"))[..., None]).all()
    assert not dataset.reader.holds(dataset.samples["unlabelled-x"].shard, "labels", "unlabelled-x")
    with pytest.raises(InputError, match="sample 'unlabelled-x' of dataset 'camvid' has no label"):
        dataset.label("unlabelled-x")
    assert check(root, "camvid") == []
    assert dataset.label_counts.keys() == {"train", "val"}


def test_a_dataset_with_all_labels_is_written_as_it_always_was(tmp_path, source):
    assert prepare(tmp_path / "data", "camvid", "--source", source) == 0
    index = json.loads((tmp_path / "data" / "camvid" / "dataset.json").read_text())
    assert index["format"] == SHARD_FORMAT == 2
    assert "labelled" not in index["samples"]["0001TP_00000"]
    assert "repeated" not in index["provenance"]


def test_info_preview_and_list_know_the_split(tmp_path, source, extra, capsys):
    root = tmp_path / "data"
    prepare(root, "camvid", "--source", source, "--unlabelled", extra)
    capsys.readouterr()
    assert main(["data", "info", "camvid", "--data-root", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]
    assert (found["unlabelled"]["images"], found["unlabelled"]["unlabelled"], found["train"]["unlabelled"]) == (3, 3, 0)
    assert found["unlabelled"]["ignored_pixels"] == 0
    assert main(["data", "info", "camvid", "--data-root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "no labels" in out
    assert "unlabelled pixels" not in out
    assert main(["data", "info", "camvid", "--data-root", str(root), "--split", "unlabelled"]) == 0
    assert "Classes" not in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert main(["data", "preview", "camvid", "--data-root", str(root), "--split", "unlabelled", "-o", str(sheet)]) == 0
    assert sheet.is_file()


def test_the_same_command_again_does_nothing_and_changed_pictures_are_packed_again(tmp_path, source, extra, capsys):
    root = tmp_path / "data"
    image = source / "train" / "0001TP_00000.png"
    (extra / "copy.png").write_bytes(image.read_bytes())
    options = ("camvid", "--source", source, "--unlabelled", extra)
    assert prepare(root, *options) == 0
    assert "1 unlabelled picture is left out: another sample shows the same picture" in capsys.readouterr().err
    first = open_dataset(root, "camvid")
    assert prepare(root, *options) == 0
    assert "nothing to do" in capsys.readouterr().err
    Image.fromarray(draw_sample(24, 30, 99)[0]).save(extra / "copy.png")
    assert prepare(root, *options) == 0
    second = open_dataset(root, "camvid")
    assert "unlabelled-copy" in second.splits["unlabelled"]
    assert "unlabelled-copy" not in first.splits["unlabelled"]
    assert second.fingerprint != first.fingerprint
    assert prepare(root, *options[:3]) == 0
    assert "unlabelled" not in open_dataset(root, "camvid").splits


def test_a_picture_that_is_also_in_val_is_refused_whatever_its_file(tmp_path, source, extra, capsys):
    image = np.array(Image.open(source / "val" / "0016E5_00003.png"))
    Image.fromarray(image).save(extra / "other-name.bmp")
    said = refused(capsys, tmp_path / "data", "camvid", "--source", source, "--unlabelled", extra)
    assert "the picture 'unlabelled-other-name' shows the same picture as '0016E5_00003'" in said
    assert not (tmp_path / "data" / "camvid").exists()
    code = main(["data", "prepare", "camvid", "--source", str(source), "--unlabelled", str(extra), "--check"])
    assert code == 3
    assert "unlabelled-other-name" in capsys.readouterr().out


def test_repeated_pictures_are_packed_once(tmp_path, source, extra, capsys):
    (extra / "twin.png").write_bytes((extra / "x.png").read_bytes())
    root = tmp_path / "data"
    assert prepare(root, "camvid", "--source", source, "--unlabelled", extra, "--unlabelled", extra) == 0
    assert "5 unlabelled pictures are left out" in capsys.readouterr().err
    assert len(open_dataset(root, "camvid").names("unlabelled")) == 3
    assert check(root, "camvid") == []
    code = main(["data", "prepare", "camvid", "--source", str(source), "--unlabelled", str(extra), "--check"])
    assert code == 0
    assert "1 unlabelled picture shows what another sample shows too" in " ".join(capsys.readouterr().err.split())


def test_photos_of_phones_become_upright(tmp_path, source):
    folder = tmp_path / "phone"
    folder.mkdir()
    image, _ = draw_sample(24, 32, 7)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image).save(folder / "a.png", exif=exif)
    assert prepare(tmp_path / "data", "camvid", "--source", source, "--unlabelled", folder) == 0
    found = open_dataset(tmp_path / "data", "camvid").image("unlabelled-a")
    np.testing.assert_array_equal(found, np.rot90(image, 3))


def test_own_data_and_an_archive(tmp_path, extra):
    images, labels, classes = write_own(tmp_path / "own", ["train/a", "train/b", "val/d"], "index")
    with zipfile.ZipFile(tmp_path / "extra.zip", "w") as archive:
        archive.write(extra / "x.png", "a.png")
        archive.write(extra / "y.png", "a.bmp")
    own = ("--images", images, "--labels", labels, "--classes", classes)
    assert prepare(tmp_path / "data", "streets", *own, "--unlabelled", tmp_path / "extra.zip") == 0
    dataset = open_dataset(tmp_path / "data", "streets")
    assert dataset.names("unlabelled") == ["unlabelled-a.bmp", "unlabelled-a.png"]
    assert dataset.samples["unlabelled-a.bmp"].class_pixels == {}


def test_the_older_meaning_of_the_option_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_asked([Path("ignore")], None) == ([], "ignore")
    assert as_asked([Path("background"), Path("extra")], "background") == ([Path("extra")], "background")
    with pytest.raises(InputError, match="cannot become both background and ignore"):
        as_asked([Path("ignore")], "background")
    Path("ignore").mkdir()
    assert as_asked([Path("ignore")], None) == ([Path("ignore")], None)


def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, source, capsys):
    root = tmp_path / "data"
    (tmp_path / "empty").mkdir()
    said = refused(capsys, root, "camvid", "--source", source, "--unlabelled", tmp_path / "empty")
    assert "--unlabelled" in said
    assert "holds no pictures" in said
    assert "nowhere" in refused(capsys, root, "camvid", "--source", source, "--unlabelled", tmp_path / "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "unlabelled-x" in refused(capsys, root, "camvid", "--source", source, "--unlabelled", tmp_path / "bad")
    assert not (root / "camvid").exists()


def test_a_split_without_labels_cannot_be_scored(tmp_path, source, extra):
    prepare(tmp_path / "data", "camvid", "--source", source, "--unlabelled", extra)
    dataset = open_dataset(tmp_path / "data", "camvid")
    with pytest.raises(
        InputError, match="--split: got 'unlabelled' of dataset 'camvid', but none of its pictures has a label"
    ) as e:
        dataset.labelled_names("unlabelled", "--split")
    assert "give a split with labels: train, val" in e.value.hint
