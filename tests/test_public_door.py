"""`import segctl`: what it exports, and that it costs nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segctl


def test_every_exported_name_is_there_and_nothing_else_is() -> None:
    for name in segctl.__all__:
        assert getattr(segctl, name) is not None
        assert name in dir(segctl)
    with pytest.raises(AttributeError, match="no attribute 'jaccard'"):
        _ = segctl.jaccard


ROOMS = {path.stem for path in Path(segctl.__file__).parent.iterdir() if path.name[0] not in "._"} - {"presets", "py"}


def test_every_room_is_found_by_its_name() -> None:
    """Each is asked for itself: a room that another one has imported is an attribute in any case."""
    assert [segctl.__getattr__(room).__name__ for room in sorted(ROOMS)] == [f"segctl.{room}" for room in sorted(ROOMS)]


@pytest.mark.slow
def test_every_room_is_an_attribute_after_the_import_alone() -> None:
    door = "segctl.models.load; segctl.losses.jdt.JDTLoss; assert segctl.JDTLoss is segctl.losses.jdt.JDTLoss"
    code = f"import segctl; {door}; assert all(getattr(segctl, room).__name__ == f'segctl.{{room}}' for room in {sorted(ROOMS)})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_segctl_loads_no_other_module() -> None:
    """`import segctl` must take less than 30 ms. It does, because it runs one file, which imports only `importlib` and `typing`.

    A time would depend on the machine, so the test holds the list of imported modules instead. -S leaves out site-packages, whose
    hooks can import modules before segctl does and so hide that segctl imports them too.
    """
    code = "import importlib, sys, typing; before = set(sys.modules); import segctl; print(*sys.modules.keys() - before)"
    line, root = [sys.executable, "-S", "-c", code], Path(segctl.__file__).parents[1]
    assert subprocess.run(line, cwd=root, check=True, capture_output=True, text=True).stdout == "segctl\n"


def test_label_maps_are_scored_from_python(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], np.uint8)
    for name, array in (("gt", truth), ("pred", prediction)):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "a.png")
    found = segctl.evaluate_files(tmp_path / "pred", str(tmp_path / "gt"), ["ground", "thing"])
    assert found["mIoU_D"] == pytest.approx(100 * (3 / 4 + 3 / 4) / 2)
