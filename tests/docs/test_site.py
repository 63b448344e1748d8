"""The documentation site: its pages and the modules of its API reference exist. `mkdocs build --strict` is a step of CI."""

import pydoc
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_page_is_in_the_navigation_and_the_other_way_round() -> None:
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(nav) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"] == "readthedocs"


def test_every_module_of_the_reference_exists() -> None:
    names = [
        name for page in (DOCS / "reference").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), flags=re.M)
    ]
    assert len(names) > 30
    assert [name for name in names if pydoc.locate(name) is None] == []
