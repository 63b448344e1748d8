"""The web page holds what the Markdown holds, by itself; and a person can sort, filter and click in it."""

import re
import shutil
from html.parser import HTMLParser

import pytest

from segctl.report import write_report
from segctl.report.content import Code, Page, Paragraph, Section, table
from segctl.report.html import render_html

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def page(shelf, tmp_path_factory):
    path = tmp_path_factory.mktemp("web") / "results.md"
    return write_report([], shelf, path).web


@pytest.fixture(scope="module")
def text(page):
    return page.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Headings, unclosed elements and addresses."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append((int(self.open[-1][1]), data))


def outline(text):
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


def test_both_files_have_the_same_sections(page, text):
    markdown = page.with_suffix(".md").read_text(encoding="utf-8")
    wanted = [(len(marks), heading) for marks, heading in re.findall(r"^(##+) (.*)$", markdown, re.M)]
    assert [(level, heading) for level, heading in outline(text).headings] == wanted


def test_nothing_is_fetched_from_elsewhere(text):
    for address in outline(text).addresses:
        assert address.startswith(("data:", "#"))
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)


def test_it_is_one_file_that_can_be_moved(page, tmp_path):
    moved = tmp_path / "elsewhere.html"
    shutil.copy(page, moved)
    assert "results_files" not in moved.read_text(encoding="utf-8")


def test_naming_the_web_page_names_the_markdown_too(shelf, tmp_path):
    report = write_report([shelf / "none-s0"], shelf, tmp_path / "results.html")
    assert (report.path.name, report.web.name) == ("results.md", "results.html")
    assert report.path.read_text(encoding="utf-8").startswith("# ")


def test_text_is_escaped_and_backticks_are_code(tmp_path):
    blocks = (Paragraph("a <b> & `x < y`"), Code("1 < 2"), table(["<h>"], [["<i>"]]))
    found = render_html(Page("A <title>", (), (Section("S", blocks),)), tmp_path)
    assert "<title>A &lt;title&gt;</title>" in found
    assert "<p>a &lt;b&gt; &amp; <code>x &lt; y</code></p>" in found
    assert "<pre><code>1 &lt; 2</code></pre>" in found
    assert "<th>&lt;h&gt;</th>" in found


def test_names_of_images_cannot_break_out_of_the_data(shelf, tmp_path, read):
    report = write_report([shelf / "none-s0"], shelf, tmp_path / "r.md")
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', report.web.read_text(encoding="utf-8"), re.S)
    assert data
    assert all("<" not in part for part in data)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="the page's own tests want playwright, of the dev extra")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: looked for {', '.join(BROWSERS)}")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, page):
    """The page, open; its console must stay empty."""
    opened = browser.new_page(viewport={"width": 1300, "height": 900})
    complaints = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(page.as_uri())
    yield opened
    assert complaints == []
    opened.close()


def column(tab, number):
    return tab.locator(f".images >> nth=0 >> css=tbody td:nth-child({number})").all_inner_texts()


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(tab):
    heading = tab.locator(".images >> nth=0 >> css=thead button >> nth=1")
    values = [float(value) for value in column(tab, 2)]
    assert values == sorted(values)  # the worst first, before any click
    heading.click()
    assert [float(value) for value in column(tab, 2)] == sorted(values, reverse=True)
    tab.locator(".images >> nth=0 >> css=thead button >> nth=0").click()
    names = column(tab, 1)
    assert names == sorted(names)


def test_images_are_filtered_by_name_and_by_score(tab):
    everything = column(tab, 1)
    tab.locator(".images >> nth=0 >> css=input[type=search]").fill("00003")
    assert column(tab, 1) == [name for name in everything if "00003" in name] != []
    tab.locator(".images >> nth=0 >> css=input[type=search]").fill("")
    worst = float(column(tab, 2)[0])
    tab.locator(".images >> nth=0 >> css=input[type=number]").fill(str(worst + 0.01))
    assert 0 < len(column(tab, 1)) < len(everything)
    assert "in all" in tab.locator(".images >> nth=0 >> css=.count").inner_text()


def test_one_run_shows_its_classes(tab):
    tab.locator(".images >> nth=0 >> css=select").select_option("0")
    headings = tab.locator(".images >> nth=0 >> css=thead button").all_inner_texts()
    assert headings[:3] == ["image", "mIoU_I", "sky"]


def test_worst_images_are_clicked_through_and_enlarged(tab):
    gallery = tab.locator(".gallery >> nth=0")
    titles = [gallery.locator(".title").inner_text()]
    gallery.locator("button", has_text="better").click()
    titles.append(gallery.locator(".title").inner_text())
    gallery.press("ArrowRight")
    titles.append(gallery.locator(".title").inner_text())
    scores = [float(title.split("mIoU_I ")[1]) for title in titles]
    assert len(set(titles)) == 3
    assert scores == sorted(scores)
    gallery.locator(".tiles button >> nth=2").click()
    picture = tab.locator("dialog[open] img")
    assert picture.get_attribute("alt").startswith("prediction of ")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    tab.locator("dialog[open] button").click()
    assert tab.locator("dialog[open]").count() == 0


def test_every_picture_loads(tab):
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_page_does_not_scroll_sideways_on_a_phone(browser, page):
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    opened.goto(page.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    opened.close()


def test_without_a_script_the_strips_are_there(browser, page):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(page.as_uri())
    assert opened.locator(".gallery img").count() > 0
    context.close()
