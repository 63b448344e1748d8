"""The pretend device's library, built once by a session of tests."""

from pathlib import Path

import pytest

from tests.device.there import build_guard


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that a process with the pretend device loads."""
    built = build_guard(tmp_path_factory.mktemp("guard"))
    if isinstance(built, str):
        pytest.skip(built)
    return built
