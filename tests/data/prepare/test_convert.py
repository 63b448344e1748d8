import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.findings import Finding
from segctl.data.prepare.convert import Conversion, convert
from segctl.data.sample import RawSample
from segctl.data.shards.dataset import pixels_sha256
from segctl.data.shards.tiles import file_hash
from segctl.errors import SegctlError

CLASSES = ClassTable((ClassRow("all", 0, 0, (9, 9, 9)),))


@dataclass(frozen=True)
class Grey:
    """A source whose samples are flat; reading `fatal` kills the process that reads it, as running out of memory would."""

    fatal: str = ""
    name: str = "grey"
    rule: str = "grey/1"
    origin: str = "the test"
    decoder: str = "none"
    classes: ClassTable = CLASSES
    groups: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()

    @property
    def splits(self) -> dict[str, list[str]]:
        return {"train": ["a", "b", "c"]}

    def size(self, name: str) -> tuple[int, int]:
        return 4, 5

    def digest(self, name: str) -> str:
        return name

    def read(self, name: str) -> RawSample:
        if name == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return RawSample(name, np.full((4, 5, 3), ord(name), np.uint8), np.zeros((4, 5), np.uint8), None, name, 7)


def conversion(folder: Path, source: Grey) -> Conversion:
    return Conversion(source, folder, "lz4", (("grey-0.h5", ("a",)), ("grey-1.h5", ("b", "c"))))


@pytest.mark.parametrize("workers", [0, 2])
def test_records_say_where_each_sample_went(tmp_path, workers):
    shards = convert(conversion(tmp_path, Grey()), workers, lambda done, total: None)
    records = {name: record for shard in shards for name, record in shard.records.items()}
    assert [shard.filename for shard in shards] == ["grey-0.h5", "grey-1.h5"]
    assert [shard.file_hash for shard in shards] == [file_hash(tmp_path / shard.filename) for shard in shards]
    assert {name: record.shard for name, record in records.items()} == {"a": 0, "b": 1, "c": 1}
    sample = Grey().read("b")
    assert records["b"].pixels_sha256 == pixels_sha256(sample.image, sample.label)
    assert records["b"].source_bytes == 7


def test_a_worker_that_dies_is_one_sentence(tmp_path):
    with pytest.raises(SegctlError) as caught:
        convert(conversion(tmp_path, Grey(fatal="c")), 2, lambda done, total: None)
    assert str(caught.value) == "a converting process died; try again with --workers 1; the machine may be out of memory"
