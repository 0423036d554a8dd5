"""Many batches against a cluster that misbehaves at random: every byte right, and memory, descriptors and threads flat.

    python tests/soak.py [--batches 20000] [--seed 1] [--threads 4] [--rate 0.15]

All three ways to get a batch, both modes, ranges, members of an archive, entries that are missing. The cluster runs in
a process of its own, so that what is measured is the client. A batch may end early, in an error of ours, if the same
damage meets it twice; what came before has to be right, and such batches have to be rare.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import logging
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any, NamedTuple

import aisfast
from aisfast._blocks import trim
from aisfast.emulator import Cluster
from aisfast.errors import AISError

BUCKET = "soak"
SIZES = (0, 1, 511, 512, 700, 3000, 5000, 20_000, 70_000, 300_000)
WARM = 0.2  # of the batches: until then caches fill
MOST_GROWTH = 24 << 20  # bytes of memory from then on
MOST_FAILED = 0.01  # of the batches
PLACES = ({"entry": 0}, {"entry": 2}, {"entry": -1}, {"entry": 1, "part": "header"}, {"entry": 3, "part": "data"})
FAULTS: list[dict[str, Any]] = [
    *({"action": action, **place} for action in ("cut", "reset") for place in PLACES),
    *({"action": "short", "entry": entry} for entry in (0, 1, 4)),
    *({"action": "stall", "seconds": 0.02, **place} for place in PLACES[:2]),
    *({"action": "error", "kind": kind} for kind in ("busy", "not-active", "membership")),
    {"action": "cut"},
    {"action": "reset"},
    {"action": "cut", "part": "trailer"},
    {"action": "cut", "part": "end"},
    {"action": "cut", "leg": "proxy"},
    {"action": "empty"},
    {"action": "garbage", "entry": 2},
    {"action": "corrupt", "entry": 1},
    {"action": "skip", "entry": 1},
    {"action": "duplicate", "entry": 1},
    {"action": "swap", "entry": 0},
    {"action": "out", "by": 1},
    {"action": "drip", "entry": 2, "size": 200, "every": 0.0002},
    {"action": "abort", "entry": 2},
]


class Wanted(NamedTuple):
    """An entry to ask for, and the digest of its payload; None: it is missing."""

    name: str
    options: dict[str, Any]
    digest: bytes | None


def payloads() -> dict[str, bytes]:
    draw = random.Random(7)
    return {f"{i}.bin": draw.randbytes(SIZES[i % len(SIZES)]) for i in range(40)}


def wanted() -> list[Wanted]:
    """All entries there are to choose from."""
    objects = payloads()
    found = [Wanted(name, {}, digest(data)) for name, data in objects.items()]
    found += [
        Wanted(name, {"start": 100, "length": 400}, digest(data[100:500]))
        for name, data in objects.items()
        if len(data) >= 511
    ]
    found += [Wanted("shard.tar", {"archpath": name}, digest(objects[name])) for name in list(objects)[:9]]
    return [*found, Wanted("absent.bin", {}, None)]


def digest(data: Any) -> bytes:
    return blake2b(data, digest_size=16).digest()


# ------------------------------------------------------------------------------------------------------- the cluster


def serve(seed: int, rate: float) -> None:
    """Run the cluster until the standard input ends; its endpoint is the first line written."""
    draw = random.Random(seed)
    with Cluster(targets=3, tail_delay=0.002) as cluster:
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w") as tar:
            for name, data in payloads().items():
                cluster.put(BUCKET, name, data)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        cluster.put(BUCKET, "shard.tar", shard.getvalue())
        for plan in FAULTS:
            cluster.faults.add(**plan, times=None, when=lambda _: draw.random() < rate / len(FAULTS))
        print(cluster.endpoint, flush=True)
        sys.stdin.read()
        print(sum(fault.hits for fault in cluster.faults), flush=True)


@contextmanager
def running(seed: int, rate: float) -> Iterator[tuple[str, Any]]:
    """The cluster in a process of its own: its endpoint, and what ends it and tells how many faults there were."""
    command = [sys.executable, __file__, "--serve", "--seed", str(seed), "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), lambda: int(process.communicate()[0])


# -------------------------------------------------------------------------------------------------------- the client


def one_batch(client: aisfast.Client, seed: int, choices: list[Wanted]) -> str:
    """Get a batch and check all that comes. "whole", or the name of the error that ended it."""
    draw = random.Random(seed)
    entries = draw.choices(choices, k=draw.choice((1, 2, 5, 10, 20)))
    batch = client.batch(bucket=client.bucket(BUCKET), streaming_get=draw.random() < 0.6)
    for entry in entries:
        batch.add(entry.name, **entry.options)
    got: list[bytes | None] = []
    way = draw.choice(("get", "stream", "fetch"))
    try:
        if way == "get":
            for info, data in batch.get():
                got.append(None if info.err_msg else digest(data))
        elif way == "stream":
            with batch.stream(missing="mark") as items:
                for item in items:
                    got.append(digest(item.data) if item.ok else None)
        else:
            columns = batch.fetch(missing="mark")
            got += [digest(columns[i].data) if columns.ok[i] else None for i in range(len(columns))]
    except AISError as error:
        result = type(error).__name__
    else:
        result = "whole"
        assert len(got) == len(entries), (seed, way, len(got), len(entries))
    assert got == [entry.digest for entry in entries[: len(got)]], (seed, way)
    return result


class Used(NamedTuple):
    memory: int  # bytes resident
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


def used() -> Used:
    """What the process holds, once it has given back what it keeps for later: our pool, and the C library's heaps."""
    gc.collect()
    trim()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return Used(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count())


def soak(batches: int, seed: int = 1, threads: int = 4, rate: float = 0.15, every: int = 1000) -> Counter[str]:
    """Run them; a line each `every` batches. What came of them.

    Raises:
        AssertionError: A byte was wrong, or something grew.
    """
    logging.getLogger("aisfast").setLevel(logging.ERROR)  # each mended batch is a warning
    choices = wanted()
    results: Counter[str] = Counter()
    warm: Used | None = None
    began = time.monotonic()
    policy = aisfast.Policy(patience=60)
    with running(seed, rate) as (endpoint, finish):
        with aisfast.Client(endpoint, policy=policy) as client, ThreadPoolExecutor(threads) as pool:
            for start in range(0, batches, every):
                seeds = [seed * 1_000_003 + i for i in range(start, min(start + every, batches))]
                results.update(pool.map(lambda s: one_batch(client, s, choices), seeds))
                now = used()
                done = start + len(seeds)
                stats = client.stats
                print(
                    f"{done:6} batches, {done / (time.monotonic() - began):.0f} a second, {stats.requests} requests, "
                    f"{stats.resumes} resumed, {stats.retries} retried, {done - results['whole']} not whole; {now}",
                    flush=True,
                )
                if warm is None and done >= batches * WARM:
                    warm = now
        faults = finish()
    print(f"{faults} faults; {dict(results)}")
    assert warm is not None
    assert faults > 0
    assert now.memory - warm.memory < MOST_GROWTH, (warm, now)
    assert now.descriptors <= warm.descriptors + 2 * threads, (warm, now)
    assert now.threads <= warm.threads, (warm, now)
    assert batches - results["whole"] <= max(3, batches * MOST_FAILED), results
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.15, help="faults a request")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.seed, given.rate)
    else:
        soak(given.batches, given.seed, given.threads, given.rate)


if __name__ == "__main__":
    main()
