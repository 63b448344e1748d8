"""The table of datasets: every line leads to a file that opens the dataset."""

import subprocess
import sys
from importlib import import_module

import pytest

from segctl.data.datasets import KNOWN


@pytest.mark.parametrize("name", KNOWN)
def test_an_opener_is_a_function_beside_its_layout(name: str) -> None:
    file, function = KNOWN[name].opener.rsplit(".", 1)
    module = import_module(f"segctl.data.datasets.{file}")
    assert callable(getattr(module, function))
    assert "--source" in module.LAYOUT or KNOWN[name].needs == "nothing"
    assert KNOWN[name].needs_source == KNOWN[name].needs.startswith("--source")


def test_the_names_are_known_without_the_readers_libraries() -> None:
    code = "import sys, segctl.data.datasets; print(sorted({'numpy', 'cv2', 'PIL'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
