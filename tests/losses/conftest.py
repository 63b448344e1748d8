"""Tests are small, and are to go the way that real batches go; `test_blocks` compares it with the plain one."""

import pytest

from segctl.losses.sums import choose


@pytest.fixture(autouse=True)
def _take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "WORTHWHILE", 0)
