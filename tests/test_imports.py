"""What is loaded, and when: optional packages only by what needs them, the official SDK only by `accelerate()`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aisfast.emulator import Cluster

PROGRAM = """
import importlib, pkgutil, sys
import aisfast, aisfast.sdk
for module in pkgutil.walk_packages(aisfast.sdk.__path__, "aisfast.sdk."):
    importlib.import_module(module.name)
with aisfast.sdk.Client({endpoint!r}) as client:
    batch = client.batch(["o"], bucket=client.bucket("b"), output_format={mime!r})
    assert [data for _, data in batch.get()] == [b"data"]
{more}
print(*sorted({{"aistore", "torch", "lz4", "isal", "msgspec", "pydantic", "requests"}} & set(sys.modules)))
"""


def loaded(mime: str, more: str = "") -> set[str]:
    """Names of the packages that a program has loaded when it has got a batch."""
    with Cluster(tail_delay=0) as cluster:
        cluster.put("b", "o", b"data")
        program = PROGRAM.format(endpoint=cluster.endpoint, mime=mime, more=more)
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def has(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("mime", [".tar", ".zip"])
def test_nothing_else_is_loaded(mime: str) -> None:
    assert loaded(mime) == set()


def test_gzip_loads_isal_where_it_is_installed() -> None:
    assert loaded(".tgz") == ({"isal"} if has("isal") else set())


def test_lz4_is_loaded_for_its_format() -> None:
    pytest.importorskip("lz4.frame", reason="the package lz4 is not installed")
    assert loaded(".tar.lz4") == {"lz4"}


def test_the_official_sdk_is_loaded_by_accelerate() -> None:
    pytest.importorskip("aistore.version", reason="the official SDK is not installed")
    assert "aistore" in loaded(".tar", "aisfast.accelerate()")
