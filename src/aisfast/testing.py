"""pytest fixtures, found by every pytest run where aisfast is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aisfast.emulator import Cluster


def bypass_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """See that requests to an emulated cluster do not go through the proxy that HTTP_PROXY may name."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name)
        monkeypatch.setenv(name, f"{hosts},127.0.0.1" if hosts else "127.0.0.1")


@pytest.fixture
def ais_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A fresh emulated cluster of three targets, without the delay at the end of answers. Stopped after the test."""
    from aisfast.emulator import Cluster

    bypass_proxies(monkeypatch)
    with Cluster(targets=3, tail_delay=0) as cluster:
        yield cluster
