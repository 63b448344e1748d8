"""What one installs: the wheel carries the presets and works from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_built_wheel_lists_the_presets_from_another_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building the wheel offline needs hatchling, which the dev extra installs")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", str(PROJECT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "dist")]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("segctl-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True, capture_output=True
    )
    site = str(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {site!r}); import segctl.cli; print(segctl.__file__); segctl.cli.main()"
    found = subprocess.run(
        [sys.executable, "-c", code, "presets", "list", "--json"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert str(tmp_path / "site") in found.stdout
    assert '"cityscapes-psp18"' in found.stdout
    shipped = {path.name for path in (tmp_path / "site" / "segctl" / "presets").glob("*.yaml")}
    assert shipped == {path.name for path in (PROJECT / "presets").glob("*.yaml")}
