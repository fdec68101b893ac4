"""Fixtures for all rooms."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def permissive_umask() -> Iterator[None]:
    """Let new files be readable by everybody, unless the code forbids it."""
    before = os.umask(0)
    yield
    os.umask(before)
