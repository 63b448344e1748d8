"""Content becomes GitHub-flavoured Markdown that also reads well as text."""

from pathlib import Path

from segctl.report.content import Cell, Code, Definitions, Figure, Notes, Page, Paragraph, Section, table
from segctl.report.markdown import render_markdown


def rendered(*blocks):
    return render_markdown(Page("T", (), (Section("S", blocks),))).removeprefix("# T\n\n## S\n\n").removesuffix("\n")


def test_a_page_by_hand():
    page = Page("Runs", (Paragraph("lead"),), (Section("One", (Paragraph("text"),)), Section("Two", (), level=3)))
    assert render_markdown(page) == "# Runs\n\nlead\n\n## One\n\ntext\n\n### Two\n"


def test_a_table_is_padded_and_its_numbers_are_on_the_right():
    block = table(["run", "mIoU_D"], [["psp18", Cell("47.12", best=True)], ["b", "n/a"]])
    assert rendered(block).splitlines() == [
        "| run   |    mIoU_D |",
        "| ----- | --------: |",
        "| psp18 | **47.12** |",
        "| b     |       n/a |",
    ]


def test_a_column_of_words_is_on_the_left():
    block = table(["run", "device"], [["a", "CPU"], ["b", "n/a"]])
    assert rendered(block).splitlines()[1] == "| --- | ------ |"


def test_bars_in_a_cell_do_not_end_it():
    assert rendered(table(["a"], [["x|y\nz"]])).splitlines()[-1] == "| x\\|y z |"


def test_markup_in_text_is_escaped_and_code_is_not():
    assert rendered(Paragraph("a*b <c> `d*e` [f](g)")) == "a\\*b \\<c> `d*e` [f\\](g)"


def test_names_with_underscores_and_lists_stay_as_they_are():
    assert rendered(Paragraph("mIoU_I_q5 [240, 320]")) == "mIoU_I_q5 [240, 320]"


def test_figures_are_relative_and_their_paths_quoted():
    figure = Figure(Path("my report (1)_files/worst a.png"), "worst", "The worst.")
    assert rendered(figure) == "![worst](my%20report%20%281%29_files/worst%20a.png)\n\n*The worst.*"


def test_notes_definitions_and_code():
    blocks = (Notes(("a", "b")), Definitions((("mIoU_D", "a mean"),)), Code("x = 1"))
    assert rendered(*blocks) == "- a\n- b\n\n- **mIoU_D**: a mean\n\n```\nx = 1\n```"


def test_a_fence_is_longer_than_any_in_the_code():
    assert rendered(Code("segctl train\n```\n<img>")) == "````\nsegctl train\n```\n<img>\n````"


def test_lines_and_backticks_in_names_let_no_markup_through():
    assert rendered(Paragraph("run `a\n\n<img>` x")) == "run `a <img>` x"
    assert rendered(Paragraph("run ```<img>` x")) == "run \\`\\`\\`\\<img>\\` x"
    assert rendered(Paragraph("bell \x07 \udcff")) == "bell \\\\x07 \\\\udcff"
