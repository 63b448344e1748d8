"""What the printer does with progress and with narrow terminals."""

import json

import pytest

from segctl.cli import main
from segctl.cli.output import Printer, out
from segctl.errors import InputError


def test_the_last_line_of_progress_is_said_once(capsys):
    with out.progress("packing") as progress:
        for done in (1, 2, 3, 3, 3):
            progress(done, 3)
    assert capsys.readouterr().err == "packing 3/3\n"


def cells_of_presets():
    from segctl.schema.load import all_names, find_preset, read_tree

    for name in all_names():
        tree = read_tree(find_preset(name))
        yield name, tree["model"]["head"], tree["model"]["backbone"].partition(".")[0], tree.get("teacher", {}).get("preset", "")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_presets_show_whole_names_at_any_width(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["presets", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= width
    firsts = [line.split(" ")[0] for line in shown]
    names = [row[0] for row in cells_of_presets()]
    for name, *words, teacher in cells_of_presets():
        first = firsts.index(name)  # long cells go on in the lines below
        after = next((index for index in range(first + 1, len(shown)) if firsts[index] in names), len(shown))
        row = " ".join(shown[first:after]).split()
        assert all(word in row for word in words)
        assert width < 120 or teacher in ["", *row]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_classes_of_a_dataset_show_whole_names_at_any_width(width, toy_data, capsys, monkeypatch):
    from segctl.data.shards.dataset import open_dataset

    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["data", "info", "camvid", "--data-root", str(toy_data)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= width
    dataset = open_dataset(toy_data, "camvid")
    firsts = [line.split(" ")[0] for line in shown]
    assert {*dataset.classes.names, *dataset.splits} <= set(firsts)


def test_sentences_break_between_words_on_a_terminal_and_not_in_a_pipe(capsys, monkeypatch):
    text = "all 5 images are of one group, '0016E5': frames of one drive resemble each other, so these intervals are too narrow"
    out.warn(text)
    assert capsys.readouterr().err == f"warning: {text}\n"
    monkeypatch.setenv("COLUMNS", "60")
    out.warn(text)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert max(map(len, said)) <= 60
    assert " ".join(said) == f"warning: {text}"


def test_a_command_to_type_is_never_broken(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    hint = "finish it with `segctl train --resume --run runs/a-long-name-of-a-run-in-a-folder`"
    out.error(InputError("the run has not finished", hint))
    assert capsys.readouterr().err == f"error: the run has not finished\nnext:  {hint}\n"


def test_values_stay_beside_their_names(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out.values("Boundary IoU", [("mBIoU_D", "40.00"), ("mBIoU_I", "41.00"), ("mBIoU_C", "42.00")])
    assert capsys.readouterr().out == "Boundary IoU: mBIoU_D 40.00\n  mBIoU_I 41.00   mBIoU_C 42.00\n"


@pytest.mark.parametrize("width", ["60", "80"])
def test_json_does_not_depend_on_the_width(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    assert main(["presets", "list", "--json"]) == 0
    assert "camvid-psp18" in json.loads(capsys.readouterr().out)


NASTY = "a\x1b]0;title\x07\u202eb\x9b31m\udcff"
SPELLED = r"a\x1b]0;title\x07\u202eb\x9b31m\udcff"


def test_escape_codes_in_names_never_reach_the_terminal(capsys):
    printer = Printer()
    printer.result(f"one {NASTY}\ntwo")
    printer.table(f"title {NASTY}", ["name", NASTY], [[f"{NASTY}\n", "1"]], [NASTY])
    printer.values("values", [(NASTY, "1")])
    printer.note(NASTY)
    printer.warn(f"first {NASTY}\nsecond")
    printer.error(InputError(f"file {NASTY}", f"remove {NASTY}"))
    with printer.progress(NASTY) as progress:
        progress(1, 1)
    shown, said = capsys.readouterr()
    assert set(shown + said) & set("\x1b\x07\x9b\u202e\udcff") == set()
    assert shown.startswith(f"one {SPELLED}\ntwo\ntitle {SPELLED}\n")
    assert rf"{SPELLED}\n " in shown
    assert f"warning: first {SPELLED}\nsecond\n" in said
    assert f"error: file {SPELLED}\nnext:  remove {SPELLED}\n" in said


def test_json_with_escape_codes_is_the_same_value(capsys):
    Printer().json({NASTY: [NASTY, "ü"]})
    shown = capsys.readouterr().out
    assert set(shown) & set("\x1b\x07\x9b\u202e\udcff") == set()
    assert json.loads(shown) == {NASTY: [NASTY, "ü"]}
    assert "ü" in shown
