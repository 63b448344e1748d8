"""Tests are small, but must take the fast sums as real batches do; `test_fast` compares them with the plain ones."""

import pytest

from segctl.losses.sums import choose


@pytest.fixture(autouse=True)
def _take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "WORTHWHILE", 0)
