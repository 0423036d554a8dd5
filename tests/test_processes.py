"""Processes and interpreters: workers that fork, spawn or come from a server, with a client made in the parent.

Forks by hand: test_transport.py and test_session.py; DataLoaders: test_pytorch.py.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

ISOLATED = Path(__file__).parent / "isolated"


def isolated(name: str, *arguments: str) -> list[str]:
    """Words that a script prints, in an interpreter of its own where a warning is an error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RANK": "3"}
    command = [sys.executable, "-W", "error", ISOLATED / name, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_worker_pools(ais_cluster, method):
    for i in range(20):
        ais_cluster.put("b", f"o{i}", bytes([i]) * 5000)
    assert isolated("pools.py", ais_cluster.endpoint, method) == ["RANK:3", "404", "GET", "done"]


@pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters"))), reason="has no subinterpreters"
)
def test_a_second_interpreter_is_refused():
    assert isolated("subinterpreter.py") == ["refused", "first"]
