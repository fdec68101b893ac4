"""One cluster for each file of tests that does not break it."""

from collections.abc import Iterator

import pytest

from tests.processes.nodes import Cluster, started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster"), umask=0) as running:
        yield running
