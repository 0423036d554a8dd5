"""Reading a server at its own pace: this library, with `Policy.low_water` and without, against a plain recv loop.

    python bench/live.py [--workload live-1k ...] [--rounds 9] [--server paced full] [--json FILE]
    python bench/live.py --endpoint http://localhost:8080     # a live cluster: objects are stored in buckets of its own

`paced` is the replay server sending as a live target does: entry by entry, in pieces of 2-32 KiB, working in between.
`full` is the same server sending as fast as the kernel takes it: what must not become slower. All run in one process,
in random order within each round; a ratio is taken within each round, shown are medians (and quartiles in the JSON).
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))

import payloads
import replay
from getbatch import OURS, digest, environment, forget_proxies, pairs_of, request_body, timed

WORKLOADS = ("live-1k", "live-10k", "live-100k", "live-1m")
MOST = {"live-10k": 0.6, "live-100k": 0.9, "live-1m": 1.1}  # CPU of ours over that of the plain loop, at a live pace
SLOWED = 1.15  # wall or CPU with low_water over without, at full speed: noise is below
WARM = 2


class Read(NamedTuple):
    """One batch: seconds of wall time and of CPU, seconds to its first item, reads of its body."""

    wall: float
    cpu: float
    first: float
    reads: float


class Ours:
    """One way of this library, on a client of its own."""

    def __init__(self, endpoint: str, workload: payloads.Workload, method: str, low_water: bool) -> None:
        import aisfast

        self.client = aisfast.Client(endpoint, policy=aisfast.Policy(low_water=low_water))
        self._bucket, self._names, self._method = self.client.bucket(workload.name), workload.names, method

    def results(self) -> Any:
        return getattr(self.client.batch(self._names, bucket=self._bucket), self._method)()

    def __call__(self) -> Read:
        before, first = self.client.stats.reads, [0.0]

        def consume() -> None:
            began = time.perf_counter()
            found = self.results()
            if self._method == "fetch":
                return
            for _ in found:
                first[0] = time.perf_counter() - began
                break
            for _ in found:
                pass

        sample = timed(consume)
        return Read(sample.wall, sample.cpu, first[0], self.client.stats.reads - before)


class Loop:
    """The plain recv loop behind a redirect, with connections kept."""

    def __init__(self, endpoint: str, workload: payloads.Workload) -> None:
        place = urlsplit(endpoint)
        self._body = request_body(workload, True).partition(b"\r\n\r\n")[2]
        self._path = f"/v1/ml/moss/{workload.name}?provider=ais"
        self._proxy = socket.create_connection((place.hostname, place.port))
        self._proxy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._targets: dict[str, replay.Drain] = {}

    def _request(self, path: str) -> bytes:
        return b"GET %b HTTP/1.1\r\nHost: drain\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            path.encode(), len(self._body), self._body,
        )  # fmt: skip

    def _drain(self) -> int:
        self._proxy.sendall(self._request(self._path))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._proxy.recv(8192)
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(headers.get(b"content-length", 0)):
            body += self._proxy.recv(8192)
        line = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"location: "))
        place = urlsplit(line.partition(b" ")[2].decode())
        target = self._targets.get(place.netloc)
        if target is None:
            target = self._targets[place.netloc] = replay.Drain(place.port or 80, b"", 0, str(place.hostname))
        target.request = self._request(f"{place.path}?{place.query}")
        return target()

    def __call__(self) -> Read:
        before = self.reads
        sample = timed(self._drain)
        return Read(sample.wall, sample.cpu, 0.0, self.reads - before)

    @property
    def reads(self) -> int:
        return sum(target.reads for target in self._targets.values())


def run(endpoint: str, workload: payloads.Workload, methods: list[str], rounds: int, order: random.Random) -> Any:
    """Samples of each alternative, by name."""
    calls: dict[str, Callable[[], Read]] = {"loop": Loop(endpoint, workload)}
    right = digest(zip(workload.names, payloads.payloads(workload), strict=True))
    for method in methods:
        for low_water in (True, False):
            ours = calls[f"{method}{'' if low_water else ' off'}"] = Ours(endpoint, workload, method, low_water)
            if digest(pairs_of(method, ours.results())) != right:
                raise SystemExit(f"{method} does not return what was stored ({workload})")
    for _ in range(WARM):
        for call in calls.values():
            call()
    samples: dict[str, list[Read]] = {name: [] for name in calls}
    for _ in range(rounds):
        names = list(calls)
        order.shuffle(names)
        for name in names:
            samples[name].append(calls[name]())
    return samples


def summary(workload: payloads.Workload, samples: dict[str, list[Read]]) -> dict[str, dict[str, Any]]:
    """Medians, and ratios within rounds: to the plain loop, and with low_water to without."""

    def paired(name: str, base: str, field: str) -> dict[str, float]:
        ratios = [getattr(a, field) / getattr(b, field) for a, b in zip(samples[name], samples[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return {"median": middle, "low": low, "high": high}

    result: dict[str, dict[str, Any]] = {}
    for name, taken in samples.items():
        row: dict[str, Any] = {f: statistics.median(getattr(s, f) for s in taken) for f in Read._fields}
        row["samples"] = [sample._asdict() for sample in taken]
        row["bytes_per_read"] = workload.count * (workload.size + 512) / row["reads"]
        if name != "loop":
            row["cpu_over_loop"] = paired(name, "loop", "cpu")
            row["wall_over_loop"] = paired(name, "loop", "wall")
            if not name.endswith(" off"):
                for field in ("cpu", "wall", *(["first"] if name != "fetch" else [])):
                    row[f"{field}_over_off"] = paired(name, f"{name} off", field)
        result[name] = row
    return result


def table(title: str, workload: payloads.Workload, result: dict[str, dict[str, Any]], live: bool) -> str:
    lines = [
        f"{title}: {workload}   (medians; ratios within rounds)",
        f"{'':12}{'wall ms':>9}{'CPU us/obj':>12}{'first ms':>10}{'reads':>8}{'KiB/read':>10}{'CPU/loop':>10}"
        f"{'wall/loop':>11}{'CPU/off':>9}{'wall/off':>10}{'first/off':>11}",
    ]
    for name, row in result.items():

        def ratio(key: str, row: dict[str, Any] = row) -> str:
            return f"{row[key]['median']:.2f}" if key in row else "-"

        missed = live and ratio("cpu_over_loop") != "-" and not name.endswith(" off")
        missed = missed and row["cpu_over_loop"]["median"] > MOST.get(workload.name, 9e9)
        missed = missed or (not live and row.get("wall_over_off", {}).get("median", 0) > SLOWED)
        lines.append(
            f"{name:12}{1e3 * row['wall']:>9.1f}{1e6 * row['cpu'] / workload.count:>12.2f}{1e3 * row['first']:>10.2f}"
            f"{row['reads']:>8.0f}{row['bytes_per_read'] / 1024:>10.1f}{ratio('cpu_over_loop'):>10}"
            f"{ratio('wall_over_loop'):>11}{ratio('cpu_over_off'):>9}{ratio('wall_over_off'):>10}"
            f"{ratio('first_over_off'):>11}{' !' if missed else ''}"
        )
    return "\n".join(lines)


@contextmanager
def stored(endpoint: str, workloads: list[payloads.Workload]) -> Iterator[None]:
    """Have the workloads' objects in the cluster, in buckets of their names."""
    import aisfast

    with aisfast.Client(endpoint) as client:
        made = []
        try:
            for workload in workloads:
                made.append(client.bucket(workload.name).create())
                for name, payload in zip(workload.names, payloads.payloads(workload), strict=True):
                    made[-1].object(name).get_writer().put_content(bytes(payload))
            yield
        finally:
            for bucket in made:
                bucket.delete(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", nargs="+", choices=sorted(payloads.WORKLOADS), default=WORKLOADS)
    parser.add_argument("--method", nargs="+", choices=OURS, default=OURS)
    parser.add_argument("--server", nargs="+", choices=("paced", "full"), default=["paced", "full"])
    parser.add_argument("--endpoint", help="a live cluster instead")
    parser.add_argument("--rounds", type=int, default=9)
    pace = payloads.Pace()
    parser.add_argument("--entry-us", type=float, default=pace.entry, help="work of the paced server per entry")
    parser.add_argument("--piece-us", type=float, default=pace.piece, help="and per 32 KiB of it")
    parser.add_argument("--seed", type=int, default=None, help="of the order within rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    forget_proxies()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    order = random.Random(seed)
    workloads = [payloads.WORKLOADS[name] for name in options.workload]
    report: dict[str, Any] = {"environment": environment(), "options": vars(options) | {"seed": seed}, "servers": {}}

    def measure(title: str, endpoint: str, workload: payloads.Workload) -> None:
        result = summary(workload, run(endpoint, workload, list(options.method), options.rounds, order))
        report["servers"].setdefault(title, {})[workload.name] = result
        print(table(title, workload, result, title != "full"), flush=True)
        print()

    if options.endpoint:
        with stored(options.endpoint, workloads):
            for workload in workloads:
                measure("live", options.endpoint, workload)
    else:
        files = {w.name: payloads.answer_file(w) for w in workloads}
        pace = payloads.Pace(options.entry_us, options.piece_us)
        paces = {w.name: pace.file(w) for w in workloads}
        with replay.Replay(files, paces) as paced, replay.Replay(files) as full:
            for workload in workloads:
                for title in options.server:
                    measure(title, (paced if title == "paced" else full).endpoint, workload)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
