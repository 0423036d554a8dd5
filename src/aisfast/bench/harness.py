"""Runs the ways by turns in worker processes, and adds up what they tell."""

from __future__ import annotations

import json
import os
import platform
import random
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisfast.bench.arrivals import summary
from aisfast.bench.report import notes
from aisfast.bench.ways import PIPELINE, WAYS
from aisfast.client import Client
from aisfast.demo import cluster_at
from aisfast.errors import AISError, ErrObjNotFound

VERSION = 1  # of the report's form
OWN_OBJECTS, OWN_SIZE = 1000, 10 << 10  # what is stored where no bucket is named
MOST_NAMES = 20_000  # of a bucket that are taken along
SPLITS = 50  # batches whose time is taken apart, of each way, at most
ROUNDS = 5


@dataclass(frozen=True)
class Options:
    """What is to be measured.

    Attributes:
        endpoint: A cluster's gateway; None: an emulator is started and stopped.
        bucket, provider: Whose objects are got; "": objects of ours are stored in a bucket of its own, and deleted.
        prefix: Of the objects' names.
        batch: Objects in a request.
        seconds: For each way, in all.
        procs: Processes that get at the same time.
        rate: Batches that arrive in a second, at all processes together; None: each gets one behind the other.
        ways: Which; those that cannot be taken are left out, and the report says why.
        seed: Of all that is drawn.
    """

    endpoint: str | None = None
    bucket: str = ""
    provider: str = "ais"
    prefix: str = ""
    batch: int = 32
    seconds: float = 10.0
    procs: int = 1
    rate: float | None = None
    ways: tuple[str, ...] = WAYS
    seed: int | None = None


Report = dict[str, Any]


def run(options: Options, tell: Callable[[str], object] = lambda text: None) -> Report:
    """Measure.

    Args:
        tell: Is told, in a line, what is going on.
    Returns:
        What JSON holds: `environment`, `options`, `objects`, `ways` (by name), `left_out` (name to reason), `notes`.
    Raises:
        AISError: The bucket holds nothing, a way failed, or two did not get the same bytes.
    """
    with ExitStack() as stack:
        at = stack.enter_context(cluster_at(options.endpoint))
        client = stack.enter_context(Client(at))
        bucket, sizes = stack.enter_context(_objects(client, options, tell))
        targets = len(client.cluster().get_info().tmap)
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        draw = random.Random(seed)
        able = [name for name in options.ways if _can(name, options)]
        given = {
            "endpoint": at, "bucket": bucket, "provider": options.provider, "names": list(sizes),
            "batch": options.batch, "ways": able,
        }  # fmt: skip
        workers = [stack.enter_context(_worker()) for _ in range(options.procs)]
        met = _all(workers, [{**given, "seed": draw.getrandbits(32)} for _ in workers])
        left_out = {name: why for answer in met for name, why in answer["left_out"].items()}
        if not _can(PIPELINE, options) and PIPELINE in options.ways:
            left_out[PIPELINE] = "with --rate batches arrive one by one"
        ways = [name for name in able if name not in left_out]
        _check_equal(met[0]["digests"])
        tell(f"{len(met[0]['digests'])} ways got the same {min(options.batch, len(sizes))} objects, byte for byte")

        slices: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        for i in range(ROUNDS):
            for name in draw.sample(ways, len(ways)):
                tell(f"round {i + 1} of {ROUNDS}: {name}")
                rate = options.rate / options.procs if options.rate else None
                command = {"run": name, "seconds": options.seconds / ROUNDS, "rate": rate}
                slices[name].append(_merged(_all(workers, [command] * options.procs)))
        tell("where the time goes")
        splits = {name: _splits(workers[0], name, options.seconds / ROUNDS) for name in ways}
        report: Report = {
            "version": VERSION,
            "environment": {
                "machine": platform.machine(), "system": platform.platform(), "cores": os.cpu_count(),
                "processor": _processor(), "load": _load(), "versions": met[0]["versions"], "targets": targets,
                "emulator": options.endpoint is None, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            "options": {
                "batch": options.batch, "seconds": options.seconds, "procs": options.procs, "rate": options.rate,
                "prefix": options.prefix, "seed": seed, "rounds": ROUNDS,
            },
            "objects": {
                "count": len(sizes), "median": statistics.median(sizes.values()), "least": min(sizes.values()),
                "most": max(sizes.values()),
            },
            "ways": {name: _row(slices[name], splits[name]) for name in ways},
            "left_out": left_out,
        }  # fmt: skip
        report["notes"] = notes(report)
        return report


def _can(name: str, options: Options) -> bool:
    return name != PIPELINE or options.rate is None


# ------------------------------------------------------------------------------------------------------------- objects


@contextmanager
def _objects(client: Client, options: Options, tell: Callable[[str], object]) -> Iterator[tuple[str, dict[str, int]]]:
    """A bucket's name, and the sizes of its objects by name."""
    if options.bucket:
        bucket = client.bucket(options.bucket, options.provider)
        sizes = {}
        for entry in bucket.list_objects_iter(options.prefix, "name,size"):
            sizes[entry.name] = int(entry.size or 0)
            if len(sizes) == MOST_NAMES:
                break
        if not sizes:
            where = f"{options.provider}://{options.bucket}/{options.prefix}"
            raise ErrObjNotFound(0, f"no objects in {where}", remedy="name another bucket or --prefix")
        tell(f"{len(sizes):,} objects listed")
        yield options.bucket, sizes
        return
    bucket = client.bucket(f"aisfast-bench-{secrets.token_hex(4)}").create()
    try:
        sizes = {f"{i:05}.bin": OWN_SIZE for i in range(OWN_OBJECTS)}
        content = random.Random(1).randbytes(OWN_SIZE + OWN_OBJECTS)
        for i, name in enumerate(sizes):
            bucket.object(name).get_writer().put_content(content[i : i + OWN_SIZE])
        tell(f"{OWN_OBJECTS:,} objects stored in {bucket.name}")
        yield bucket.name, sizes
    finally:
        bucket.delete(missing_ok=True)


def _check_equal(digests: dict[str, str]) -> None:
    if len(set(digests.values())) > 1:
        told = ", ".join(f"{name}: {digest}" for name, digest in digests.items())
        raise AISError(0, f"the ways do not get the same bytes ({told})", remedy="nothing was timed")


# ------------------------------------------------------------------------------------------------------------- workers

_Worker = subprocess.Popen[str]
_COMMAND = ["-m", "aisfast.bench.worker"]


@contextmanager
def _worker() -> Iterator[_Worker]:
    command = [sys.executable, *_COMMAND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.terminate()
            with suppress(OSError):  # what it did not take
                worker.communicate()


def _all(workers: list[_Worker], commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each a command, then wait for all answers.

    Raises:
        AISError: One failed.
    """
    for worker, command in zip(workers, commands, strict=True):
        assert worker.stdin is not None
        with suppress(OSError):  # one that has ended: what it does not answer tells
            worker.stdin.write(json.dumps(command) + "\n")
            worker.stdin.flush()
    answers = []
    for worker in workers:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        answer = json.loads(line) if line else {"error": f"a process of the bench ended (code {worker.wait()})"}
        if "error" in answer:
            raise AISError(0, answer["error"])
        answers.append(answer)
    return answers


def _splits(worker: _Worker, name: str, seconds: float) -> list[dict[str, float]]:
    """The time of some batches, taken apart."""
    found: list[dict[str, float]] = []
    until = time.monotonic() + seconds
    while not found or (len(found) < SPLITS and time.monotonic() < until):
        found += _all([worker], [{"split": name}])
    return found


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What several processes took in the same slice, as if it were one."""
    return {
        **{key: [value for part in parts for value in part[key]] for key in ("latencies", "first")},
        **{key: sum(part[key] for part in parts) for key in ("unserved", "cpu", "objects", "bytes")},
        "seconds": max(part["seconds"] for part in parts),
        "stats": {key: sum(part["stats"][key] for part in parts) for key in parts[0]["stats"]},
    }


def _row(slices: list[dict[str, Any]], splits: list[dict[str, float]]) -> dict[str, Any]:
    """All that is told of one way."""
    latencies = [seconds for part in slices for seconds in part["latencies"]]
    objects, seconds = sum(part["objects"] for part in slices), sum(part["seconds"] for part in slices)
    size = sum(part["bytes"] for part in slices)
    per_object = sorted(1e6 * part["cpu"] / part["objects"] for part in slices if part["objects"])
    return {
        "batches": len(latencies),
        "objects": objects,
        "bytes": size,
        "objects_per_s": objects / seconds,
        "MB_per_s": size / 1e6 / seconds,
        "cpu_us_per_object": {
            "median": statistics.median(per_object), "min": per_object[0], "max": per_object[-1],
        },
        "latency": summary(latencies),
        "first_item": summary([first for part in slices for first in part["first"]]),
        "unserved": sum(part["unserved"] for part in slices),
        "stats": {key: sum(part["stats"][key] for part in slices) for key in slices[0]["stats"]},
        "split": {
            part: statistics.median(found[part] for found in splits) for part in (splits[0] if splits else {})
        },
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the machine


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    return text.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None

