"""The web page holds what the Markdown holds, by itself; and a person can sort, filter and click in it."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from segctl.report import write_report
from segctl.report.content import Code, Page, Paragraph, Section, table
from segctl.report.html import render_html
from tests.report.run_folders import COLORS

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

    VOID = ("meta", "link", "img", "br", "input")  # and what closes itself, in figures

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
    bare = re.sub(r"<pre>.*?</pre>|http-equiv|http://www.w3.org/2000/svg", "", text, flags=re.S)
    assert "http" not in bare


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


@pytest.mark.slow
def test_one_run_shows_its_classes(tab):
    tab.locator(".images >> nth=0 >> css=select").select_option("0")
    headings = tab.locator(".images >> nth=0 >> css=thead button").all_inner_texts()
    assert headings[:3] == ["image", "mIoU_I", "sky"]


def test_every_table_is_sorted_by_a_click_on_a_heading(tab):
    tables = tab.locator("main .wide > table")
    assert tables.count() > 10
    table = tab.locator("table", has=tab.locator("th", has_text="score or class")).first
    cells = "tbody td:nth-child(2)"
    assert not table.locator("th[aria-sort]").count()
    table.locator("th button").nth(1).click()
    values = [float(text.split()[0]) for text in table.locator(cells).all_inner_texts() if text != "n/a"]
    assert values == sorted(values)
    table.locator("th button").nth(1).click()
    assert [float(text.split()[0]) for text in table.locator(cells).all_inner_texts() if text != "n/a"] == values[::-1]


def require_shown(tab, name):
    """Waits for the picture, which a busy machine draws late."""
    explorer = tab.locator(".explorer >> nth=0")
    pytest.importorskip("playwright.sync_api").expect(explorer).to_have_attribute("data-shown", name)


def shown(tab):
    tab.wait_for_timeout(150)
    return tab.locator(".explorer >> nth=0").get_attribute("data-shown")


def test_worst_images_open_in_the_explorer(tab):
    link = tab.locator(".worst >> nth=0 >> button >> nth=1")
    name = link.inner_text().split()[0]
    link.click()
    require_shown(tab, name)


@pytest.mark.slow
def test_a_row_of_the_table_of_images_opens_its_picture(tab):
    row = tab.locator(".images >> nth=0 >> tbody tr.opens >> nth=-1")
    name = row.locator("td").first.inner_text()
    row.locator("td").nth(1).click()
    require_shown(tab, name)


def test_the_first_picture_shows_both_runs_that_are_compared(tab):
    """Without the dataset not every picture has every run; panels without a prediction are hidden."""
    shown(tab)
    panels = tab.locator(".explorer >> nth=0 >> css=.panel:visible figcaption b").all_inner_texts()
    assert panels[:4] == ["image", "truth", "none-s0", "jml-s0"]


@pytest.mark.slow
def test_a_chip_hides_a_run(tab):
    explorer = tab.locator(".explorer >> nth=0")
    shown(tab)
    before = explorer.locator(".panel:visible").count()
    explorer.locator(".chip input").first.uncheck()
    tab.wait_for_timeout(150)
    assert explorer.locator(".panel:visible").count() == before - 1


def test_dragging_an_enlarged_picture_moves_all_panels_alike(tab):
    explorer = tab.locator(".explorer >> nth=0")
    shown(tab)
    for _ in range(3):
        explorer.press("+")
    tab.wait_for_timeout(150)
    explorer.evaluate("element => element.scrollIntoView({behavior: 'instant'})")
    before = [painted(tab, index) for index in range(2)]
    box = tab.locator(".panel canvas").first.bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 60)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 40, box["y"] + 30, steps=4)
    tab.mouse.up()
    tab.mouse.move(1, 1)
    tab.wait_for_timeout(150)
    assert all(painted(tab, index) != pixels for index, pixels in enumerate(before))


def test_keys_turn_pictures_and_zoom_all_panels(tab):
    explorer = tab.locator(".explorer >> nth=0")
    first = shown(tab)
    explorer.press("ArrowRight")
    assert shown(tab) != first
    explorer.press("ArrowLeft")
    assert shown(tab) == first
    before = [painted(tab, index) for index in range(2)]
    explorer.press("+")
    tab.wait_for_timeout(150)
    assert "1.5×" in explorer.inner_text()
    assert all(painted(tab, index) != pixels for index, pixels in enumerate(before))
    explorer.press("0")
    tab.wait_for_timeout(150)
    assert [painted(tab, index) for index in range(2)] == before


def painted(tab, index):
    return tab.evaluate("(index) => document.querySelectorAll('.panel canvas')[index].toDataURL()", index)


def test_the_canvas_shows_class_colours_and_mistakes_exactly(tab):
    """With a full overlay the truth has class colours alone; mistakes are red."""
    shown(tab)
    explorer = tab.locator(".explorer >> nth=0")
    explorer.locator("input[type=range]").fill("100")
    tab.wait_for_timeout(150)
    assert colors_of(tab, 1) <= {*COLORS, (0, 0, 0)}
    explorer.press("d")
    tab.wait_for_timeout(150)
    explorer.locator("select[aria-label='what to show']").evaluate("element => element.value")
    assert (215, 35, 35) in set().union(*(colors_of(tab, index) for index in range(2, explorer.locator("canvas").count())))
    assert (215, 35, 35) not in colors_of(tab, 1)


def colors_of(tab, index):
    found = tab.evaluate(
        """(index) => {
          const canvas = document.querySelectorAll(".explorer")[0].querySelectorAll("canvas")[index];
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          const colors = new Set();
          for (let at = 0; at < data.length; at += 4) colors.add(`${data[at]},${data[at + 1]},${data[at + 2]}`);
          return [...colors];
        }""",
        index,
    )
    return {tuple(map(int, color.split(","))) for color in found}


def test_pictures_are_filtered_by_class_and_sorted_by_a_difference(tab):
    explorer = tab.locator(".explorer >> nth=0")
    explorer.locator("summary").click()
    everything = explorer.locator(".list li").count()
    explorer.locator("select[aria-label=class]").select_option(label="sign")  # in every second image
    assert 0 < explorer.locator(".list li").count() < everything
    explorer.locator("select[aria-label=class]").select_option("-1")
    explorer.locator("select[aria-label='run to subtract']").select_option("1")
    values = [text for text in explorer.locator(".list b").all_inner_texts() if text != "n/a"]
    assert [float(text) for text in values] in (sorted(map(float, values)), sorted(map(float, values), reverse=True))


@pytest.mark.slow
def test_every_picture_loads(tab):
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("width", [*(pytest.param(width, marks=pytest.mark.slow) for width in (1400, 900, 420)), 390])
def test_no_width_scrolls_sideways_nothing_is_requested_and_the_console_is_empty(browser, page, width):
    opened = browser.new_page(viewport={"width": width, "height": 800})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page.as_uri())
    opened.wait_for_timeout(200)
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    opened.close()


def test_the_first_screen_shows_numbers_and_pictures(browser, page):
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    opened.goto(page.as_uri())
    for part in (".tiles", ".gain", ".row"):
        assert opened.locator(part).first.bounding_box()["y"] < 900
    assert opened.locator(".tile h4").all_inner_texts()[1:] == ["undistilled camvid-psp18-scratch", "distilled jml"]
    opened.close()


def test_the_dark_page_has_light_ink(browser, page):
    opened = browser.new_page(color_scheme="dark")
    opened.goto(page.as_uri())
    ink = "getComputedStyle(document.querySelector('svg .ink')).fill"
    assert opened.evaluate(ink) == "rgb(230, 232, 234)"
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 26)"
    opened.close()


def test_nothing_that_gets_into_the_page_can_run_or_fetch(browser, page, tmp_path):
    """The policy alone stops a script, a handler and an address that somebody put into the file."""
    injected = tmp_path / "injected.html"
    evil = "<script>window.ran = 1</script><img src='x' onerror='window.ran = 2'><img src='https://example.invalid/a.png'>"
    injected.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{evil}</main>"), encoding="utf-8")
    opened = browser.new_page()
    refused = []
    opened.on("requestfailed", lambda request: refused.append((request.url, request.failure)))
    opened.goto(injected.as_uri())
    opened.wait_for_timeout(200)
    assert opened.evaluate("window.ran") is None
    assert ("https://example.invalid/a.png", "csp") in refused
    opened.close()


def test_without_a_script_the_strips_are_there(browser, page):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(page.as_uri())
    assert opened.locator(".worst img").count() > 0
    assert opened.locator(".row img").count() >= 3
    context.close()


def test_names_from_strangers_are_text_everywhere(browser, shelf, tmp_path):
    """An image, a class and a run that are called like markup."""
    evil = "<img src=x onerror=window.ran=1>"
    run = tmp_path / "runs" / "<b>run"
    shutil.copytree(shelf / "none-s0", run)
    folder = run / "eval" / "val"
    for file in (folder / "scores.json", folder / "worst" / "worst.json"):
        text = file.read_text(encoding="utf-8").replace('"sky"', json.dumps(evil)).replace("seq00/frame_00000", evil)
        file.write_text(text, encoding="utf-8")
    for name in ("counts.npz", "confusion.npz"):
        with np.load(folder / name) as file:
            arrays = dict(file)
        for key, old in (("class_names", "sky"), ("names", "seq00/frame_00000")):
            if key in arrays:
                arrays[key] = np.array([evil if str(value) == old else str(value) for value in arrays[key]])
        np.savez(folder / name, **arrays)
    web = write_report([], tmp_path / "runs", tmp_path / "r.md").web
    opened = browser.new_page()
    complaints = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto(web.as_uri())
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.querySelectorAll('img[onerror], main b > b').length") == 0
    assert opened.evaluate("window.ran") is None
    assert complaints == []
    opened.close()
