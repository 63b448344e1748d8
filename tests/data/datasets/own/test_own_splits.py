from pathlib import Path

import pytest

from segctl.data.datasets.own.splits import EXAMPLE, Drawn, split_samples
from segctl.errors import InputError

FLAT = {f"s{number:03d}": "" for number in range(100)}


def refusal(folders: dict[str, str], *texts: str) -> str:
    with pytest.raises(InputError) as caught:
        split_samples(folders, texts, 0)
    return caught.value.message


def test_folders_are_splits_in_the_usual_order():
    folders = {"a": "val", "b": "train/paris", "c": "train/rome", "d": "extra", "e": "test"}
    drawn = split_samples(folders, (), 0)
    assert drawn == Drawn({"train": ["b", "c"], "val": ["a"], "test": ["e"], "extra": ["d"]})
    assert list(drawn.splits) == ["train", "val", "test", "extra"]


def test_a_ratio_is_drawn_by_the_seed_and_the_rest_is_train():
    splits = split_samples(FLAT, ("val=0.2", "test=0.1"), 0).splits
    assert {split: len(names) for split, names in splits.items()} == {"train": 70, "val": 20, "test": 10}
    assert sorted(name for names in splits.values() for name in names) == sorted(FLAT)
    assert splits == split_samples(dict(reversed(FLAT.items())), ("val=0.2", "test=0.1"), 0).splits
    assert splits["val"] != split_samples(FLAT, ("val=0.2",), 1).splits["val"]
    assert splits["val"][:3] == ["s006", "s008", "s014"]


def test_more_samples_move_hardly_any_other():
    before = set(split_samples(FLAT, ("val=0.2",), 0).splits["val"])
    after = set(split_samples(FLAT | {"t": ""}, ("val=0.2",), 0).splits["val"])
    assert len(before - after) <= 1


def test_lists_name_samples_by_name_or_by_path(tmp_path):
    (tmp_path / "val.txt").write_text("s003\nimages/s001.jpg labels/s001.png\n\nC:\\data\\s002.png\n")
    drawn = split_samples(FLAT, (f"val={tmp_path}/val.txt", "train=0.5"), 0)
    assert drawn.splits["val"] == ["s003", "s001", "s002"]
    assert not {"s001", "s002", "s003"} & set(drawn.splits["train"])
    assert len(drawn.splits["train"]) == 48
    assert drawn.notes == ("49 samples are in no split and left out",)


def test_a_list_alone_leaves_the_others_out_with_a_note(tmp_path):
    (tmp_path / "test.txt").write_text("s003\n")
    drawn = split_samples(FLAT, (f"test={tmp_path}/test.txt",), 0)
    assert drawn.splits == {"test": ["s003"]}
    assert drawn.notes == ("99 samples are in no split and left out",)


def test_what_a_list_names_wrongly_is_a_problem(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("s003\ngone.png\ns003\n")
    assert [finding.problem for finding in split_samples(FLAT, (f"val={path}",), 0).problems] == [
        f"'{path}' lists 'gone.png', which has no picture with a label",
        f"'{path}' lists 's003' more than once",
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["val"], "--split is 'val', wanted NAME=RATIO or NAME=FILE"),
        (["my val=0.2"], "--split is 'my val=0.2', wanted NAME=RATIO or NAME=FILE"),
        (["val=0"], "--split is 'val=0', wanted a ratio above 0 and at most 1"),
        (["val=1.5"], "--split is 'val=1.5', wanted a ratio above 0 and at most 1"),
        (["val=0.2", "val=0.3"], "--split names 'val' twice"),
        (["val=0.7", "test=0.7"], "the ratios of --split add up to 1.4, wanted at most 1"),
        (["val=0.001"], "--split val=0.001 selects none of 100 samples"),
        (["val=nowhere.txt"], "the list 'nowhere.txt' of split 'val' does not exist"),
    ],
)
def test_a_wrong_split_is_refused(texts, message):
    assert refusal(FLAT, *texts) == message


def test_a_flat_folder_needs_a_split():
    with pytest.raises(InputError) as caught:
        split_samples(FLAT, (), 0)
    assert caught.value.message == "the pictures are in one folder, so nothing says which of them are for validation"
    assert caught.value.hint == f"add --split, {EXAMPLE}"
    assert refusal({"a": "", "b": "val"}).startswith("the pictures are partly in folders and partly beside them")


def test_folders_above_the_splits_are_none():
    found = split_samples({"a": "proj/train/x", "b": "proj/val/x"}, (), 0)
    assert (found.splits, found.notes) == ({"train": ["a"], "val": ["b"]}, ())
    assert split_samples({"a": "proj/test/x", "b": "proj/test/y"}, (), 0).splits == {"test": ["a", "b"]}
    assert refusal({"a": "proj", "b": "proj"}).startswith("the pictures are in one folder")
    found = split_samples({"a": "proj/paris", "b": "proj/rome"}, (), 0)
    assert found.splits == {"paris": ["a"], "rome": ["b"]}
    assert found.notes[0].startswith("folders became splits, and none is called train or val: 'paris', 'rome'; ")


def test_a_folder_that_cannot_name_a_split_is_refused():
    assert refusal({"a": "2024-05-01 shots", "b": "val"}) == "the folder '2024-05-01 shots' cannot name a split"


def test_a_list_may_be_called_like_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("0.5").write_text("s001\n")
    assert split_samples(FLAT, ("val=0.5",), 0).splits["val"] == ["s001"]


def listed(tmp_path: Path, text: str, *paths: str) -> Drawn:
    (tmp_path / "val.txt").write_text(text)
    names = {Path(path).with_suffix("").as_posix().replace("/", "-"): path for path in paths}
    return split_samples(dict.fromkeys(names, ""), (f"val={tmp_path / 'val.txt'}",), 0, names)


SPACED = ("photo.jpg", "photo (2).jpg", "photo (3).jpg")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("photo (2).jpg", "photo (2)"),
        ("photo (2)", "photo (2)"),
        ("images/photo (2).jpg", "photo (2)"),
        ("photo (2).jpg photo (2).png", "photo (2)"),
        ("photo (2).jpg\t1", "photo (2)"),
        ("photo.jpg 1", "photo"),
    ],
)
def test_a_line_is_a_file_name_before_it_is_columns(tmp_path, line, name):
    drawn = listed(tmp_path, line, *SPACED)
    assert (drawn.splits, drawn.problems) == ({"val": [name]}, ())


@pytest.mark.parametrize(
    "line", ["s003.png s004.png s005.png", "s003,s004", "s003\ts004", "images/s003.jpg labels/s004.png", "s003; s004.jpg"]
)
def test_a_line_of_several_pictures_is_refused(tmp_path, line):
    path = tmp_path / "val.txt"
    path.write_text(f"s001\n{line}\n")
    (found,) = split_samples(FLAT, (f"val={path}", "train=1.0"), 0).problems
    assert found.problem == f"'{path}' lists '{line}', which names the pictures 's003' and 's004'"
    assert found.hint == "write one picture on each line; columns that name another one are not read"


@pytest.mark.parametrize("paths", [SPACED, ("photo.jpg", "roof.jpg")])
def test_a_listed_picture_that_is_missing_becomes_no_other(tmp_path, paths):
    drawn = listed(tmp_path, "photo (7).jpg", *paths)
    assert drawn.splits == {"val": []}
    assert [finding.sample for finding in drawn.problems] == ["photo (7).jpg"]


BEARS = ("480p/bear/0.jpg", "480p/bear/1.jpg", "480p/cow/0.jpg")


@pytest.mark.parametrize(
    "line",
    [
        "/JPEGImages/480p/bear/0.jpg /Annotations/480p/bear/0.png",
        "bear/0.jpg",
        "./480p/bear/0",
        "480p\\bear\\0.png",
        "480p-bear-0",
    ],
)
def test_paths_in_lists_are_paths_of_pictures(tmp_path, line):
    assert listed(tmp_path, line, *BEARS).splits == {"val": ["480p-bear-0"]}


def test_an_ambiguous_line_is_named_and_a_unique_stem_is_taken(tmp_path):
    drawn = listed(tmp_path, "0.jpg\n1\n", *BEARS)
    assert drawn.splits == {"val": ["480p-bear-1"]}
    assert drawn.problems[0].problem.endswith("lists '0.jpg', which names 2 pictures: '480p/bear/0.jpg', '480p/cow/0.jpg'")


def test_a_path_of_another_folder_is_no_match(tmp_path):
    drawn = listed(tmp_path, "val/0.jpg\n", "train/0.jpg", "train/1.jpg")
    assert (drawn.splits, len(drawn.problems)) == ({"val": []}, 1)


def test_a_list_without_names_is_refused(tmp_path):
    with pytest.raises(InputError, match="names no sample"):
        listed(tmp_path, "\n\n", *BEARS)
