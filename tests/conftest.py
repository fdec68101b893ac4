"""Fixtures for all rooms."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples in every run, however busy the machine is, and no files left behind.
settings.register_profile("conclave", deadline=None, derandomize=True, database=None)
settings.load_profile("conclave")


@pytest.fixture
def permissive_umask() -> Iterator[None]:
    """Let new files be readable by everybody, unless the code forbids it."""
    before = os.umask(0)
    yield
    os.umask(before)
