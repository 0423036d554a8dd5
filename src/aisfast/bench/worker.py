"""A process that gets batches and does nothing else: told what by lines of JSON, it answers with such lines.

    {"endpoint", "bucket", "provider", "names", "batch", "seed", "ways"}       first: what there is to get, and how
        -> {"left_out": {way: why}, "digests": {way: hash}, "versions": {package: version}}
    {"run": way, "seconds", "rate"}                                            one slice; `rate`: open loop, or null
        -> {"latencies", "first", "seconds", "unserved", "cpu", "objects", "bytes", "stats"}
    {"split": way}
        -> seconds by part of a batch

`{"error": text}` is the answer when a way fails.
"""

from __future__ import annotations

import gc
import json
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from itertools import cycle
from typing import Any, TextIO

from aisfast.bench import ways
from aisfast.bench.arrivals import Taken, arrivals, closed_loop, open_loop
from aisfast.messages import explain
from aisfast.version import __version__

PACKAGES = ("aistore", "urllib3", "requests", "pydantic", "numpy")
COUNTED = (
    "throttled", "resumes", "retries", "tail_entries", "tail_bytes", "connections", "reconnects", "requests", "reads",
    "payload_bytes", "wire_bytes", "bytes_copied",
)  # fmt: skip
DRAWN = 256  # batches, drawn before anything is timed
WARM = 2  # batches of each way before the first slice


class Worker:
    """See the module."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._names: list[str] = given["names"]
        self._batch = min(int(given["batch"]), len(self._names))
        self._draw = random.Random(given["seed"])
        self._choices = cycle([self._draw.sample(self._names, self._batch) for _ in range(DRAWN)])
        self._ways: dict[str, ways.Way] = {}
        self.left_out: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        same = self._names[: self._batch]
        for name in given["ways"]:
            try:
                way = ways.make(name, given["endpoint"], given["bucket"], given["provider"])
                if name == ways.DRAIN:
                    way.get(same)
                elif name != ways.PIPELINE:
                    self.digests[name] = ways.digest(way, same)
            except ways.LeftOut as why:
                self.left_out[name] = str(why)
            else:
                self._ways[name] = way
                for _ in range(WARM):
                    self._slice(way, 0.0, None)

    def run(self, name: str, seconds: float, rate: float | None) -> dict[str, Any]:
        """One slice."""
        way = self._ways[name]
        gc.collect()
        before = _counts(way)
        cpu = time.process_time()
        taken, size, first = self._slice(way, seconds, rate)
        cpu = time.process_time() - cpu
        return {
            **taken._asdict(),
            "first": first,
            "cpu": cpu,
            "objects": len(taken.latencies) * self._batch,
            "bytes": size,
            "stats": {key: value - before[key] for key, value in _counts(way).items()},
        }

    def _slice(self, way: ways.Way, seconds: float, rate: float | None) -> tuple[Taken, int, list[float]]:
        if isinstance(way, ways.Pipeline):
            return self._pipelined(way, seconds)
        size, first = 0, []

        def call() -> None:
            nonlocal size
            size += way.get(next(self._choices))
            if way.first:
                first.append(way.first)

        if rate is None:
            return closed_loop(call, seconds, time.perf_counter), size, first
        starts = list(arrivals(rate, seconds, self._draw))
        return open_loop(call, starts, seconds, time.perf_counter, time.sleep), size, first

    def _pipelined(self, way: ways.Pipeline, seconds: float) -> tuple[Taken, int, list[float]]:
        clock = time.perf_counter
        began = clock()
        started: list[float] = []

        def batches() -> Iterator[list[str]]:
            while not started or clock() - began < seconds:
                started.append(clock())
                yield next(self._choices)

        size, ended = 0, []
        for n in way.flow(batches()):
            ended.append(clock())
            size += n
        latencies = [end - start for start, end in zip(started, ended, strict=True)]
        return Taken(latencies, clock() - began, 0), size, []

    def split(self, name: str) -> dict[str, float]:
        return ways.split(self._ways[name], next(self._choices))


def _counts(way: ways.Way) -> dict[str, int]:
    return {key: getattr(way.client.stats, key) for key in COUNTED} if way.client is not None else {}


def versions() -> dict[str, str]:
    """Of what takes part; what is not installed is not there."""
    found = {"aisfast": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def main(lines: TextIO, out: TextIO) -> None:
    worker: Worker | None = None
    for line in lines:
        given = json.loads(line)
        answer: dict[str, Any]
        try:
            if worker is None:
                worker = Worker(given)
                answer = {"left_out": worker.left_out, "digests": worker.digests, "versions": versions()}
            elif "run" in given:
                answer = worker.run(given["run"], given["seconds"], given["rate"])
            else:
                answer = worker.split(given["split"])
        except Exception as error:
            answer = {"error": explain(error)}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us is interrupted too, and ends us
    main(sys.stdin, sys.stdout)
