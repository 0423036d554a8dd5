"""Every target of the hot path, what was measured, and whether it is met: one command for the whole table.

    python bench/targets.py [--rounds 9] [--only drop small ...] [--json FILE]

Ratios are of CPU, taken within each round; shown are their medians. Peers that are not installed are left out, and
their lines say so. At a live server's pace: `live.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import payloads
from getbatch import OURS, PEERS, Bench, absent, environment, forget_proxies

SIZES = payloads.MAIN
MIB = 1024  # KiB


class Line(NamedTuple):
    """One target. `low`, `high`: the quartiles of what was measured, or that itself."""

    what: str
    least: float | None  # met from here on
    most: float | None  # met up to here
    measured: float
    low: float
    high: float
    note: str = ""

    @property
    def met(self) -> bool:
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)

    def __str__(self) -> str:
        target = f">= {self.least:.3g}" if self.least is not None else f"<= {self.most:.3g}"
        spread = f"({self.low:.2f}..{self.high:.2f})"
        return (
            f"{self.what:62}{target:>9}{self.measured:>9.2f} {spread:>18}  {'met' if self.met else 'NOT MET'}"
            f"{'  ' + self.note if self.note else ''}"
        )


Row = dict[str, Any]


def ratios(above: Row, below: Row) -> list[float]:
    """CPU of one alternative over another's, in each round."""
    return [
        a["cpu"] / b["cpu"] for a, b in zip(above["samples"], below["samples"], strict=True) if b["cpu"] > 0
    ]


def line(what: str, found: list[float], least: float | None = None, most: float | None = None, note: str = "") -> Line:
    low, middle, high = statistics.quantiles(found, n=4)
    return Line(what, least, most, middle, low, high, note)


def drop(rounds: int, order: random.Random) -> Iterator[Line]:
    workloads = [payloads.WORKLOADS[size] for size in SIZES]
    peers = [name for name in PEERS if not absent(name)]
    bench = Bench(workloads, True, False, order)
    with bench.served():
        for i, workload in enumerate(workloads):
            run = bench.run(workload, ["official", *OURS, *peers, "drain", "slab"], "drop", rounds)
            limit = statistics.median(ratios(run["official"], run["drain"])) / 1.5
            least = (50.0, 18.0, 7.0, 4.0)[i]
            note = f"this run's limit, official / raw drain / 1.5, is {limit:.1f}" if limit < least else ""
            found = ratios(run["official"], run["get"])
            yield line(f"official / get(), dropped, {workload}", found, least=min(least, limit), note=note)
            most = (3.5, 1.7, 1.4, 1.6)[i]
            yield line(f"get() / raw drain, {workload}", ratios(run["get"], run["drain"]), most=most)
            if i:
                yield line(f"fetch() / raw drain into a slab, {workload}", ratios(run["fetch"], run["slab"]), most=1.3)
            if peers:
                best = min(peers, key=lambda name: float(run[name]["cpu"]["median"]))
                least = (4.5, 4.0, 2.7, 2.2)[i]
                yield line(f"{best} / get(), {workload}", ratios(run[best], run["get"]), least=least)
            for way in OURS:
                faults = [float(sample["faults"]) for sample in run[way]["samples"]]
                yield line(f"page faults of a later batch, {way}(), {workload}", faults, most=16)
            memory = bench.memory(workload, ["get", "stream"], "drop")
            for way, most in (("get", 2.0), ("stream", 4.0)):
                if way == "stream" or workload.size <= 100 << 10:
                    peak = memory[way] / MIB
                    yield Line(f"MiB of peak memory, {way}(), {workload}", None, most, peak, peak, peak)


def hold(rounds: int, order: random.Random) -> Iterator[Line]:
    workloads = [payloads.WORKLOADS[size] for size in SIZES]
    bench = Bench(workloads, True, False, order)
    with bench.served():
        for workload, least in zip(workloads, (35, 14, 6, 4), strict=True):
            run = bench.run(workload, ["official", "stream"], "hold", rounds)
            found = ratios(run["official"], run["stream"])
            yield line(f"official / stream(), batch held, {workload}", found, least=least)


def busy(rounds: int, order: random.Random) -> Iterator[Line]:
    workload = payloads.WORKLOADS["10k"]
    bench = Bench([workload], True, False, order)
    with bench.served():
        run = bench.run(workload, ["official", "get"], "busy", rounds)
        yield line(f"official / get(), busy consumer, {workload}", ratios(run["official"], run["get"]), least=12)


def multipart(rounds: int, order: random.Random) -> Iterator[Line]:
    workload = payloads.WORKLOADS["1k"]
    bench = Bench([workload], False, False, order)
    with bench.served():
        run = bench.run(workload, ["official", "get"], "drop", rounds)
        yield line(f"official / get(), multipart, {workload}", ratios(run["official"], run["get"]), least=20)


def tls(rounds: int, order: random.Random) -> Iterator[Line]:
    workloads = [payloads.WORKLOADS[size] for size in SIZES[1:]]
    bench = Bench(workloads, True, True, order)
    with bench.served():
        for workload in workloads:
            run = bench.run(workload, ["get", "drain"], "drop", rounds)
            yield line(f"get() / raw TLS drain, {workload}", ratios(run["get"], run["drain"]), most=1.3)


def small(rounds: int, order: random.Random) -> Iterator[Line]:
    workloads = [payloads.WORKLOADS[name] for name in ("1", "32", "100")]
    bench = Bench(workloads, True, False, order)
    with bench.served():
        for workload, least in zip(workloads, (12, 13, 21), strict=True):
            run = bench.run(workload, ["official", "get"], "drop", rounds)
            yield line(f"official / get(), a batch of {workload}", ratios(run["official"], run["get"]), least=least)


def building(rounds: int, order: random.Random) -> Iterator[Line]:
    from aistore.sdk import Client

    from aisfast._request import Entries

    client, names = Client("http://localhost:1"), payloads.WORKLOADS["1k"].names[:1000]
    bucket = client.bucket("1k")

    def official() -> None:
        json.dumps(client.batch(names, bucket=bucket).request.dict()).encode()

    def ours() -> None:
        entries = Entries()
        entries.extend(names, "1k", None)
        entries.body(".tar", True, False, True)

    def seconds(call: Callable[[], None], times: int) -> float:
        began = time.process_time_ns()
        for _ in range(times):
            call()
        return (time.process_time_ns() - began) / times

    seconds(official, 2)
    seconds(ours, 100)
    found = [seconds(official, 10) / seconds(ours, 500) for _ in range(rounds)]
    yield line("official / ours, request of 1,000 names", found, least=45)


PARTS: dict[str, Callable[[int, random.Random], Iterator[Line]]] = {
    part.__name__: part for part in (building, small, drop, hold, busy, multipart, tls)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=None, help="of the order within rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    forget_proxies()
    if absent("official"):
        raise SystemExit("the official SDK (aistore) is what is compared with, and is not installed")
    for name in PEERS:
        if package := absent(name):
            print(f"{name} is left out: {package} is not installed")
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    order = random.Random(seed)
    report: dict[str, Any] = {"environment": environment(), "rounds": options.rounds, "seed": seed, "lines": []}
    print(f"load {report['environment']['load'][0]:.1f} on {report['environment']['cores']} cores")
    print(f"{'ratios of CPU, unless a line says otherwise':62}{'target':>9}{'measured':>9} {'(quartiles)':>18}")
    for part in options.only:
        for found in PARTS[part](options.rounds, order):
            report["lines"].append(found._asdict() | {"part": part, "met": found.met})
            print(found, flush=True)
    missed = sum(not found["met"] for found in report["lines"])
    print(f"{len(report['lines']) - missed} of {len(report['lines'])} met")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
