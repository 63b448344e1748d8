"""Tests are small, and are to go the way that real batches go; `test_blocks` compares it with the plain one."""

import pytest

from segctl.losses import reading


@pytest.fixture(autouse=True)
def _take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WORTHWHILE", 0)
