"""pytest fixtures, found by every pytest run where aisfast is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aisfast.emulator import Cluster


@pytest.fixture
def ais_cluster() -> Iterator[Cluster]:
    """A fresh emulated cluster of three targets, without the delay at the end of answers. Stopped after the test."""
    from aisfast.emulator import Cluster

    with Cluster(targets=3, tail_delay=0) as cluster:
        yield cluster
