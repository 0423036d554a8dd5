"""When batches start, and what their times are worth: closed and open loop, percentiles. No socket, no client."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
GIVE_UP = 3.0  # times its seconds that an open loop may take; what has not started then is counted, not run


class Taken(NamedTuple):
    """What one slice took.

    Attributes:
        latencies: Seconds of each batch; open loop: from when it should have started.
        seconds: From the first start to the last end.
        unserved: Batches that should have started, and were not: the loop could not keep up.
    """

    latencies: list[float]
    seconds: float
    unserved: int


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the least value that so many percent of all are not above."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100 - 1e-9) - 1)]


def summary(latencies: Sequence[float]) -> dict[str, float]:
    """Percentiles by name, and the largest; empty without any."""
    ordered = sorted(latencies)
    if not ordered:
        return {}
    return {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES} | {"max": ordered[-1]}


def arrivals(rate: float, seconds: float, draw: random.Random) -> Iterator[float]:
    """Seconds at which batches arrive, `rate` in a second on average, each without regard to the others."""
    at = draw.expovariate(rate)
    while at < seconds:
        yield at
        at += draw.expovariate(rate)


def closed_loop(call: Callable[[], object], seconds: float, clock: Callable[[], float]) -> Taken:
    """One batch behind the other, at least one."""
    began = now = clock()
    latencies: list[float] = []
    while not latencies or now - began < seconds:
        started = now
        call()
        now = clock()
        latencies.append(now - started)
    return Taken(latencies, now - began, 0)


def open_loop(
    call: Callable[[], object],
    starts: Sequence[float],
    seconds: float,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> Taken:
    """Batches that arrive at `starts`, whether or not those before them are done. What has to wait for those has waited
    from its arrival on, so that a stall is seen by all whom it met."""
    began = now = clock()
    latencies: list[float] = []
    for start in starts:
        if now - began > GIVE_UP * seconds:
            break
        if (early := began + start - now) > 0:
            sleep(early)
        call()
        now = clock()
        latencies.append(now - began - start)
    return Taken(latencies, now - began, len(starts) - len(latencies))
