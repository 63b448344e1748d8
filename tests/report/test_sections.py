"""The whole report over a shelf of runs, read as a stranger would."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from segctl.errors import InputError
from segctl.metrics.scores import RULES
from segctl.report import write_report
from tests.report.run_folders import Making, make_run


@pytest.fixture(scope="module")
def written(shelf, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "deep" / "results.md"
    write_report([], shelf, path)
    return path


@pytest.fixture(scope="module")
def text(written):
    return written.read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_sections_come_in_the_order_of_a_readers_questions(text):
    assert re.findall(r"^## (.*)$", text, re.M) == [
        "Pictures",
        "What was run",
        "Results and published numbers",
        "Fine-grained scores",
        "Classes",
        "Differences between runs",
        "Images",
        "Mix-ups",
        "Training curves",
        "Worst images",
        "Provenance",
        "How to read this report",
    ]


def test_every_run_is_listed(text, shelf):
    for path in shelf.iterdir():
        assert f"| `{path.name}`" in section(text, "What was run")


def test_unfinished_and_unscored_runs_say_what_to_do(text, shelf):
    found = section(text, "What was run")
    assert "- `stopped` is not evaluated: it has not finished" in found
    assert f"- `unscored` is not evaluated: `segctl eval {shelf / 'unscored'}`" in found


def test_losses_are_written_as_formulas(text):
    assert "+ 0.0625·KL(teacher ‖ main)" in section(text, "What was run")


def test_no_undefined_number_shows_as_nan_or_none(text):
    assert not re.search(r"\bnan\b|\| +\||± none", text, re.I)


def test_every_rule_is_printed_with_the_numbers(text):
    found = section(text, "How to read this report")
    for rule in RULES:
        assert f"- **{rule.term}**: " in found


def test_every_table_is_whole(text):
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_every_figure_is_there_and_relative(text, written):
    figures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert (
        len(figures) == 16
    )  # first row; bars, differences and histogram of two places; 3 curves (two lengths of cityscapes); 6 scored runs
    for figure in figures:
        assert figure.startswith("results_files/")
        if figure.endswith(".svg"):
            ElementTree.parse(written.parent / figure)
            continue
        with Image.open(written.parent / figure) as picture:
            picture.verify()


def test_datasets_have_tables_of_their_own(text):
    found = section(text, "Fine-grained scores")
    camvid, city = found.split("### camvid / val")[1].split("### cityscapes / val")
    assert "cityscapes" not in camvid
    assert "camvid" not in city


def test_commands_are_kept(text):
    assert "segctl distill --preset camvid-psp18-scratch --method jml --seed 1" in section(text, "Provenance")


def test_one_split_can_be_asked_for(shelf, tmp_path):
    report = write_report([shelf / "none-s0"], shelf, tmp_path / "r.md", split="val")
    assert [found.split for found in report.comparisons] == ["val"]


def test_a_split_nobody_scored_is_refused(shelf, tmp_path):
    with pytest.raises(InputError) as error:
        write_report([], shelf, tmp_path / "r.md", split="vall")
    assert error.value.message == "no run is evaluated on split 'vall', did you mean 'val'?"
    assert error.value.hint == "runs are evaluated on val; see `segctl eval`"
    assert not (tmp_path / "r.md").exists()


def test_a_report_without_any_evaluation_says_so(shelf, tmp_path):
    write_report([shelf / "unscored"], shelf, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "No run has been evaluated; `segctl eval RUN` scores one." in text
    assert "## Worst images" not in text
    assert "## Fine-grained scores" not in text


def test_a_run_that_never_took_a_step_is_reported(tmp_path):
    path = make_run(tmp_path / "runs" / "new", Making(overrides=("train.steps=100",), finished=False))
    for name in ("log.jsonl", "environment.json"):
        (path / name).unlink()
    write_report([], tmp_path / "runs", tmp_path / "r.md")
    assert "unfinished, step 0" in (tmp_path / "r.md").read_text()


def test_a_broken_run_is_named_in_the_report(shelf, tmp_path):
    root = tmp_path / "runs"
    for name in ("none-s0", "none-s1"):
        shutil.copytree(shelf / name, root / name)
    scores = root / "none-s0" / "eval" / "val" / "scores.json"
    scores.write_text("{")
    report = write_report([], root, tmp_path / "r.md")
    assert len(report.collection.unreadable) == 1
    assert f"- left out because it cannot be read: cannot read '{scores}'" in (tmp_path / "r.md").read_text()


def shelved(shelf, root, *names):
    for name in names:
        shutil.copytree(shelf / name, root / name)
    return root


def test_a_group_without_counts_is_named_where_it_is_left_out(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "jml-s0", "jml-s1")
    (root / "none-s0" / "eval" / "val" / "counts.npz").unlink()
    write_report([], root, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert (
        "- camvid-psp18-scratch · none: not in the figure, the differences, the images and the mix-ups, because counts.npz is "
        "missing for `none-s0`; `segctl eval` writes it"
    ) in section(text, "Classes")
    assert ("- camvid-psp18-scratch · jml: not compared with camvid-psp18-scratch · none: the baseline has no counts") in section(
        text, "Differences between runs"
    )


def test_groups_without_a_common_seed_are_named_as_not_compared(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "jml-s1")
    write_report([], root, tmp_path / "r.md")
    found = section((tmp_path / "r.md").read_text(encoding="utf-8"), "Differences between runs")
    assert "jml: not compared with camvid-psp18-scratch · none: they have no seed in common" in found


def test_a_place_without_any_counts_says_what_is_missing(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0")
    (root / "none-s0" / "eval" / "val" / "counts.npz").unlink()
    write_report([], root, tmp_path / "r.md")
    found = section((tmp_path / "r.md").read_text(encoding="utf-8"), "Classes")
    assert "- no run here has counts.npz, so there are no figures, differences, images and mix-ups" in found


def test_a_missing_confusion_matrix_is_named(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "jml-s0")
    (root / "jml-s0" / "eval" / "val" / "confusion.npz").unlink()
    write_report([], root, tmp_path / "r.md")
    found = section((tmp_path / "r.md").read_text(encoding="utf-8"), "Mix-ups")
    assert "- camvid-psp18-scratch · jml: left out, because confusion.npz is missing; `segctl eval` writes it" in found


def test_a_stopped_evaluation_is_named(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0")
    (root / "none-s0" / "eval" / "test" / ".parts").mkdir(parents=True)
    write_report([], root, tmp_path / "r.md")
    found = section((tmp_path / "r.md").read_text(encoding="utf-8"), "What was run")
    assert "- `none-s0`: the evaluation of test was stopped and is left out; the same `segctl eval` command resumes it" in found


def test_losses_that_cannot_be_drawn_are_counted(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "none-s1")
    with (root / "none-s0" / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"event": "step", "step": 90, "loss": NaN}\n{"event": "step", "step": 95, "loss": Infinity}\n')
    (root / "none-s1" / "log.jsonl").write_text("")
    write_report([], root, tmp_path / "r.md")
    found = section((tmp_path / "r.md").read_text(encoding="utf-8"), "Training curves")
    assert "- `none-s0`: values in the log that are not finite, and so not drawn: 2" in found
    assert "- `none-s1` has no curve: its log has no finite loss and no validation" in found


def test_a_run_without_worst_images_is_named(shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "jml-s0")
    shutil.rmtree(root / "jml-s0" / "eval" / "val" / "worst")
    write_report([], root, tmp_path / "r.md")
    found = section((tmp_path / "r.md").read_text(encoding="utf-8"), "Worst images")
    assert "- `jml-s0` on val: no pictures, because worst/worst.json is missing or empty" in found


def test_all_classes_undefined_is_still_a_report(shelf, tmp_path):
    shutil.copytree(shelf / "none-s0", tmp_path / "runs" / "empty")
    path = tmp_path / "runs" / "empty" / "eval" / "val" / "scores.json"
    scores = json.loads(path.read_text())
    emptied = {name: None for name in scores if name not in ("per_class", "about")}
    rows = [{**row, **{key: float("nan") for key in row if key != "class"}} for row in scores["per_class"]]
    path.write_text(json.dumps({**scores, **emptied, "per_class": rows}))
    write_report([], tmp_path / "runs", tmp_path / "r.md")
    assert "n/a †" in (tmp_path / "r.md").read_text()
    assert not re.search(r"\bnan\b", (tmp_path / "r.md").read_text(), re.I)


def test_the_folder_of_the_report_is_made(written):
    assert written.is_file()
    assert (written.parent / "results_files").is_dir()


def test_a_place_that_is_a_folder_is_refused(shelf, tmp_path):
    with pytest.raises(InputError) as error:
        write_report([shelf / "none-s0"], shelf, tmp_path)
    assert str(error.value) == f"cannot write the report to '{tmp_path}': it is a folder; give a file, such as -o report.md"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_drawn(shelf, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "report.md"
    with pytest.raises(InputError) as error:
        write_report([shelf / "none-s0"], shelf, path)
    assert error.value.message == f"cannot write the report to '{path}': Not a directory"
    assert error.value.hint == "give another file with -o"


def test_writing_again_gives_the_same_text_but_for_the_time(shelf, tmp_path):
    texts = []
    for _ in range(2):
        write_report([shelf / "city-jml"], shelf, tmp_path / "r.md")
        texts.append(re.sub(r"^Written .*$", "", (tmp_path / "r.md").read_text(encoding="utf-8"), flags=re.M))
    assert texts[0] == texts[1]


def test_runs_whose_names_differ_in_a_blank_have_figures_of_their_own(shelf, tmp_path):
    root = tmp_path / "runs"
    for name, source in (("a b", "none-s0"), ("a_b", "jml-s0"), ("A_b", "none-s1")):
        shutil.copytree(shelf / source, root / name)
    write_report([], root, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    figures = re.findall(r"\]\((r_files/worst-[^)]+)\)", text)
    assert len(figures) == len({name.casefold() for name in figures}) == 3
    assert len({(tmp_path / name).read_bytes() for name in figures}) == 3


def test_names_of_classes_with_lines_dollars_and_escape_codes_are_drawn(shelf, tmp_path):
    run = tmp_path / "runs" / "one"
    shutil.copytree(shelf / "none-s0", run)
    nasty = "s\nk$y \\\\frac$\x1b[31m"
    folder = run / "eval" / "val"
    scores = (folder / "scores.json").read_text(encoding="utf-8")
    (folder / "scores.json").write_text(scores.replace('"sky"', json.dumps(nasty)), encoding="utf-8")
    for name in ("counts.npz", "confusion.npz"):
        with np.load(folder / name) as file:
            arrays = dict(file)
        if "class_names" in arrays:
            names = [nasty if kind == "sky" else str(kind) for kind in arrays["class_names"]]
            np.savez(folder / name, **(arrays | {"class_names": np.array(names)}))
    write_report([], tmp_path / "runs", tmp_path / "r.md")
    for page in ("r.md", "r.html"):
        assert "\x1b" not in (tmp_path / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("empty", [("none-s0",), ("none-s0", "jml-s0")])
def test_counts_of_no_valid_pixel_are_still_a_report(shelf, tmp_path, empty):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "jml-s0")
    for place in (f"{run}/eval/val/{name}" for run in empty for name in ("counts.npz", "confusion.npz")):
        with np.load(root / place) as file:
            arrays = {key: array * 0 if array.dtype.kind == "i" else array for key, array in file.items()}
        np.savez(root / place, **arrays)
    write_report([], root, tmp_path / "r.md")
    assert "n/a" in (tmp_path / "r.md").read_text(encoding="utf-8")


def test_a_report_that_fails_leaves_nothing_new_and_the_old_one(shelf, tmp_path, monkeypatch):
    (tmp_path / "r.md").write_text("old")

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("segctl.report.html.render_html", fail)
    for path in (tmp_path / "r.md", tmp_path / "new" / "deep" / "r.md"):
        with pytest.raises(OSError, match="No space left"):
            write_report([shelf / "city-jml"], shelf, path)
    assert [path.name for path in tmp_path.iterdir()] == ["r.md"]
    assert (tmp_path / "r.md").read_text() == "old"


def test_links_pipes_and_a_persons_own_web_page_are_never_replaced(shelf, tmp_path):
    (tmp_path / "own.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"own\.html' is in the way of the web page, and `segctl report` did not write it"):
        write_report([shelf / "city-jml"], shelf, tmp_path / "own.md")
    (tmp_path / "link.md").symlink_to(tmp_path / "own.html")
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("link.md", "it is a link to"), ("pipe", "it is a device, a pipe or a socket")):
        with pytest.raises(InputError, match=what):
            write_report([shelf / "city-jml"], shelf, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.md", "own.html", "pipe"]


def test_an_empty_place_is_refused(shelf):
    with pytest.raises(InputError, match="it is a folder"):
        write_report([shelf / "city-jml"], shelf, Path())


@pytest.mark.parametrize("fault", ["is missing", "is not a plain file"])
def test_a_lost_log_is_named_with_what_is_missing(fault, shelf, tmp_path):
    root = shelved(shelf, tmp_path / "runs", "none-s0", "none-s1")
    log = root / "none-s0" / "log.jsonl"
    log.unlink()
    if fault != "is missing":
        log.mkdir()
    write_report([], root, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    said = f"'{log}' {fault}, so its training curves, its last step and the step of its weights are not shown"
    assert f"- `none-s0`: {said}" in section(text, "What was run")
    assert f"- `none-s0` has no curve: {said}" in text
