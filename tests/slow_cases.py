"""Which cases of a test run every time, and which only with `-m slow`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_after(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """The cases of `pytest.mark.parametrize`, all but the first few of them slow. A case of several values is a tuple."""
    return [case if index < quick else _slow(case) for index, case in enumerate(cases)]


def slow_where(cases: Iterable[Any], dear: Callable[[Any], bool]) -> list[Any]:
    """The cases of `pytest.mark.parametrize`, those that are dear slow."""
    return [_slow(case) if dear(case) else case for case in cases]


def _slow(case: Any) -> Any:
    return pytest.param(*case if isinstance(case, tuple) else [case], marks=pytest.mark.slow)
