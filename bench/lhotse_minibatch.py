"""CPU of a minibatch that lhotse's `AISBatchLoader` fetches: the official SDK as it is, and under `accelerate()`.

Against an emulated cluster in a process of its own, or the cluster at `--endpoint`. Cuts are recordings, a URL each;
they are made, and thrown away, outside of what is timed. Within a round both ways run once, in random order.
Needs lhotse 1.32 or later and aistore.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import aisfast

BUCKET = "aisfast-bench-lhotse"
Way = Callable[[], AbstractContextManager[Any]]
WAYS: dict[str, Way] = {"official": nullcontext, "accelerated": aisfast.accelerate}


@contextmanager
def emulator() -> Iterator[str]:
    """The endpoint of an emulated cluster of one target."""
    line = [sys.executable, "-m", "aisfast", "emulator", "--port", "0", "--tail-delay", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def store(endpoint: str, count: int, size: int) -> None:
    """Fill the bucket anew with `count` objects of `size` bytes."""
    with aisfast.Client(endpoint) as client:
        bucket = client.bucket(BUCKET)
        bucket.delete(missing_ok=True)
        bucket.create()
        for i in range(count):
            bucket.object(name(i)).get_writer().put_content(random.Random(i).randbytes(size))


def name(i: int) -> str:
    """Of an object."""
    return f"audio/{i:06}.wav"


def minibatch(count: int) -> Any:
    """Cuts that refer to the objects."""
    from lhotse import CutSet, MonoCut, Recording
    from lhotse.audio import AudioSource

    def cut(i: int) -> Any:
        source = AudioSource("url", [0], f"ais://{BUCKET}/{name(i)}")
        return MonoCut(f"c{i}", 0, 1.0, 0, recording=Recording(f"r{i}", [source], 16000, 16000, 1.0))

    return CutSet.from_cuts(map(cut, range(count))).to_eager()


def contents(loaded: Any) -> list[bytes]:
    """What has been put into the cuts."""
    return [source.source for cut in loaded for source in cut.recording.sources]


def cpu_of(call: Callable[[], object]) -> float:
    """CPU seconds of all threads of this process, garbage collected before."""
    gc.collect()
    before = time.process_time()
    call()
    return time.process_time() - before


def measure(samples: Callable[[], float], rounds: int, order: random.Random) -> dict[str, list[float]]:
    """`rounds` samples of each way, after two that do not count."""
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 2):
        for way in order.sample(list(WAYS), len(WAYS)):
            with WAYS[way]():
                seconds = samples()
            if number >= 2:
                taken[way].append(seconds)
    return taken


def added(client: Any, count: int) -> float:
    """CPU seconds of one `Batch.add` of an `Object`."""
    objects = [client.bucket(BUCKET).object(name(i)) for i in range(count)]
    batch = client.batch()

    def add_all() -> None:
        for obj in objects:
            batch.add(obj, archpath=None)

    return cpu_of(add_all) / count


def row(what: str, unit: float, taken: dict[str, list[float]]) -> str:
    """Medians, and the ratios of medians and of minima."""
    middle = {way: statistics.median(values) for way, values in taken.items()}
    least = {way: min(values) for way, values in taken.items()}
    ratio = middle["official"] / middle["accelerated"]
    return (
        f"{what:<38}{middle['official'] * unit:>10.2f}{middle['accelerated'] * unit:>13.2f}{ratio:>8.1f}"
        f"{least['official'] / least['accelerated']:>10.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", nargs="+", default=["200x30000", "1000x1000"], metavar="CUTSxBYTES")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--endpoint", help="of a cluster; its bucket aisfast-bench-lhotse is destroyed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    order = random.Random(1)
    versions = {package: metadata.version(package) for package in ("lhotse", "aistore")}
    report: dict[str, Any] = {"versions": versions, "python": sys.version, "workloads": {}}
    print(", ".join(f"{package} {version}" for package, version in versions.items()))
    print(f"{'CPU, median of ' + str(options.rounds) + ' rounds':<38}  official  accelerated   ratio  of minima")
    with nullcontext(options.endpoint) if options.endpoint else emulator() as endpoint:
        os.environ["AIS_ENDPOINT"] = endpoint
        from lhotse.ais import AISBatchLoader

        loader = AISBatchLoader()
        for workload in options.workload:
            count, size = map(int, workload.split("x"))
            store(endpoint, count, size)
            whole = contents(loader(minibatch(count)))
            with aisfast.accelerate():
                assert contents(loader(minibatch(count))) == whole
            assert set(map(len, whole)) == {size}

            def load(count: int = count) -> float:
                cuts = minibatch(count)
                return cpu_of(lambda: loader(cuts))

            def add(count: int = count) -> float:
                return added(loader.client, count)

            loads, adds = measure(load, options.rounds, order), measure(add, options.rounds, order)
            print(row(f"minibatch of {count} x {size} bytes, ms", 1e3, loads))
            print(row("  one Batch.add of it, us", 1e6, adds), flush=True)
            report["workloads"][workload] = {"minibatch": loads, "add": adds}
        if options.endpoint:
            with aisfast.Client(endpoint) as client:
                client.bucket(BUCKET).delete()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
