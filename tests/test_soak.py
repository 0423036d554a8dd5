"""A short run of `soak.py`: the long one is `make soak`."""

import sys
import time

import pytest

from soak import soak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_short_soak():
    """Two seconds; a fault that is mended by the next request must not slow down the batches after it."""
    started = time.monotonic()
    results = soak(120, seed=3, threads=8, rate=0.3, every=40)
    assert results.total() == 120
    assert results["whole"] >= 117
    assert time.monotonic() - started < 30
