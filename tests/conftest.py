"""Fixtures of aisfast.testing, also where the package is not installed; and no proxy on the way to this machine."""

import importlib.metadata

import pytest

if not any(entry.value == "aisfast.testing" for entry in importlib.metadata.entry_points(group="pytest11")):
    pytest_plugins = ["aisfast.testing"]


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    from aisfast.testing import bypass_proxies

    bypass_proxies(monkeypatch)
