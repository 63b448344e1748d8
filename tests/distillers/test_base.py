"""A term must say how parts of a batch add up: mypy asks for it, and so does its construction."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from segctl.distillers import Pair, Term
from segctl.models import Outputs
from segctl.schema.terms.distill_terms import PixelKLSpec

ROOT = Path(__file__).parent.parent.parent
HALF = """
from torch import Tensor
from segctl.{room} import {imports}
{more}

class Half({base}):
    @staticmethod
    def of({arguments}) -> "Half":
        return Half()

    def forward({inputs}) -> Tensor:
        return label
"""
TERM = HALF.format(
    room="distillers",
    imports="Pair, Term",
    more="from segctl.models import Outputs\nfrom segctl.schema.terms.distill_terms import PixelKLSpec",
    base="Term[PixelKLSpec]",
    arguments="spec: PixelKLSpec, pair: Pair",
    inputs="self, student: Outputs, teacher: Outputs, label: Tensor",
)
LOSS = HALF.format(
    room="losses",
    imports="Loss",
    more="from segctl.schema.terms.loss_terms import KLSpec",
    base="Loss[KLSpec]",
    arguments="spec: KLSpec",
    inputs="self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None",
)


def test_a_term_without_mean_over_pixels_cannot_be_made() -> None:
    class Half(Term[PixelKLSpec]):
        @staticmethod
        def of(spec: PixelKLSpec, pair: Pair) -> "Half":
            return Half()  # type: ignore[abstract]

        def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
            return label

    with pytest.raises(TypeError, match="mean_over_pixels"):
        Half()  # type: ignore[abstract]


@pytest.mark.slow
@pytest.mark.parametrize("code", [TERM, LOSS], ids=["term", "loss"])
def test_mypy_refuses_a_class_without_mean_over_pixels_and_no_other(code: str, tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text(code.replace("    @static", "    mean_over_pixels = False\n\n    @static"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(file)]
    whole = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stdout
    file.write_text(code, encoding="utf-8")
    half = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert 'Cannot instantiate abstract class "Half" with abstract attribute "mean_over_pixels"' in half.stdout
