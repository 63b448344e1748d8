"""docs/methods.md lists every method, and the methods that need features are those that docs/teachers.md names."""

import re
from pathlib import Path

from segctl.schema.terms.methods import METHODS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_a_row_for_each_method_in_the_order_of_the_list() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "methods.md").read_text(encoding="utf-8"), re.M)
    assert rows == [method for method in METHODS if method != "none"]


def test_the_methods_that_compare_features_are_named_where_a_teacher_may_hide_them() -> None:
    listed = re.search(r"Methods that compare them \((.*?)\)", (DOCS / "teachers.md").read_text(encoding="utf-8"), re.S)
    assert listed is not None
    reading = {
        method
        for method, bundle in METHODS.items()
        if bundle is not None and any("features" in term.reads for term in bundle.terms)
    }
    assert set(re.findall(r"`(\w+)`", listed[1])) == reading
