from pathlib import Path

import numpy as np
import pytest
from camvid_folders import draw_folder
from PIL import Image

from segctl.data.datasets.camvid import open_camvid
from segctl.data.inspect.check_source import check_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "CamVid", {"train": [(48, 64), (32, 40), (16, 16)], "val": [(48, 64), (20, 20)]})


def test_a_sound_source_has_no_findings(folder):
    seen: list[tuple[int, int]] = []
    assert check_source(open_camvid([folder]), lambda done, total: seen.append((done, total))) == []
    assert seen[-1] == (5, 5)


def test_everything_wrong_is_listed_at_once(folder):
    (folder / "train" / "0016E5_00001.png").unlink()
    path = folder / "train" / "0016E5_00002.png"
    path.write_bytes(path.read_bytes()[:-60])
    Image.fromarray(np.full((20, 20), 77, np.uint8)).save(folder / "valannot" / "0016E5_00004.png")
    (folder / "val" / "0016E5_00003.png").write_bytes((folder / "train" / "0001TP_00000.png").read_bytes())
    findings = check_source(open_camvid([folder]))
    missing = "'train/0016E5_00001.png' is missing"
    assert [finding.problem for finding in findings] == [
        f"sample '0016E5_00001' has its label but no image: {missing} from '{folder}'",
        "the image of sample '0016E5_00002' (train/0016E5_00002.png) cannot be read: it is cut short",
        "the label of sample '0016E5_00004' (valannot/0016E5_00004.png) holds the id 77 (400 pixels), wanted 0 to 11",
        "shows the same picture as '0001TP_00000', in the splits 'val' and 'train'",
    ]
    assert findings[2].hint == "use the labels of the 480×360, 11-class release"
