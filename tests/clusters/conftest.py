"""Clusters of this test session alone: Ray's and SLURM's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.clusters.ray_cluster import RayTestCluster
from tests.clusters.slurm_cluster import SlurmCluster, refusal


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayTestCluster]:
    """One for all tests of a session, with two nodes. This process becomes a client of it."""
    cluster = RayTestCluster()
    before = dict(os.environ)
    try:
        os.environ.update(cluster.environment)
        cluster.add_node(log_monitor=True)
        cluster.add_node()
        yield cluster
    finally:
        os.environ.clear()
        os.environ.update(before)
        cluster.close()


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """One for all tests of a session: SLURM's daemons take a few seconds to find each other."""
    if reason := refusal():
        pytest.skip(reason)
    with SlurmCluster() as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
