"""Fixtures of aisfast.testing, also where the package is not installed."""

import importlib.metadata

if not any(entry.value == "aisfast.testing" for entry in importlib.metadata.entry_points(group="pytest11")):
    pytest_plugins = ["aisfast.testing"]
