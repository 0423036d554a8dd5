"""GetBatch end to end against a replay server: the official SDK, this library, the raw drain, side by side.

    python bench/getbatch.py [--workload 1k ...] [--rounds 9] [--consumer drop] [--json FILE]

All alternatives run in one process, in random order within each round, and return the same objects (checked
by hash before anything is timed). bench/README.md tells what the figures mean and what they do not.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import payloads
import replay

OURS = ("get", "stream", "fetch")
PEERS = ("pycurl+spdl", "urllib3+spdl")  # the strongest that can be put together off the shelf
FLOORS = ("drain", "slab")
ALL = ("official", *OURS, *PEERS, *FLOORS)
PACKAGES = (  # their versions are reported
    "aistore", "requests", "urllib3", "pydantic", "numpy", "isal", "lz4", "pycurl", "spdl_io",
)  # fmt: skip
DISAGREE = 1.5  # ratios of medians and of minima that differ by more than this are flagged
SERVER_BOUND = 1.3  # wall time over the drain's below which the server, not the client, sets the pace
BUSY = 25e-6  # seconds of Python per object in the busy consumer


class Sample(NamedTuple):
    """One batch: seconds of wall time, of CPU in all threads of this process; faults; voluntary switches."""

    wall: float
    cpu: float
    faults: int
    switches: int


# ------------------------------------------------------------------------------------ alternatives

Results = Callable[
    [], Any
]  # sends a batch made from a list of names; what comes is what the library hands out


def absent(name: str) -> str:
    """The package that an alternative needs and that is not installed; or ""."""
    needs = {"official": ["aistore"], "pycurl+spdl": ["pycurl", "spdl"], "urllib3+spdl": ["spdl"]}.get(name, [])
    return next((package for package in needs if find_spec(package) is None), "")


def results_of(
    name: str, endpoint: str, workload: payloads.Workload, streaming: bool, mime: str = ".tar", ca: str | None = None
) -> Results:
    """An alternative on a client of its own, made once; the batch and its JSON are made at each call.

    Args:
        ca: Path of the certificate to trust.
    """
    if name in PEERS:
        return peer(name, endpoint, workload, ca)
    client: Any
    if name == "official":
        from aistore.sdk import Client

        client = Client(endpoint, ca_cert=ca)
    else:
        import aisfast

        client = aisfast.Client(endpoint, ca_cert=ca)
    bucket, names = client.bucket(workload.name), workload.names
    method = "get" if name == "official" else name
    options = {"output_format": mime, "streaming_get": streaming}
    return lambda: getattr(client.batch(names, bucket=bucket, **options), method)()


def peer(name: str, endpoint: str, workload: payloads.Workload, ca: str | None) -> Results:
    """An HTTP client and spdl_io's TAR reader, each as fast as it is known to go: streaming mode, nothing checked."""
    from spdl.io import iter_tarfile

    url = f"{endpoint}/v1/ml/moss/{workload.name}?provider=ais"

    def body() -> bytes:
        entries = [{"objname": name} for name in workload.names]
        return json.dumps({"mime": ".tar", "in": entries, "coer": True, "onob": False, "strm": True}).encode()

    if name == "pycurl+spdl":
        import pycurl

        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.FOLLOWLOCATION, True)
        curl.setopt(pycurl.CUSTOMREQUEST, "GET")
        curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
        curl.setopt(pycurl.BUFFERSIZE, 512 << 10)
        if ca:
            curl.setopt(pycurl.CAINFO, ca)

        def results() -> Any:
            into = io.BytesIO()
            curl.setopt(pycurl.POSTFIELDS, body())
            curl.setopt(pycurl.WRITEFUNCTION, into.write)
            curl.perform()
            return iter_tarfile(into.getvalue())
    else:
        import urllib3

        pool = urllib3.PoolManager(ca_certs=ca)

        def results() -> Any:
            headers = {"Content-Type": "application/json"}
            answer = pool.request("GET", url, body=body(), headers=headers, preload_content=False)
            return iter_tarfile(io.BufferedReader(answer, 1 << 20))  # type: ignore[arg-type]

    return results


def pairs_of(name: str, results: Any) -> Iterator[tuple[str, Any]]:
    """(name, content) of what an alternative hands out."""
    if name in ("official", "get"):
        return ((info.obj_name, data) for info, data in results)
    if name in PEERS:
        return ((path.partition("/")[2], data) for path, data in results)
    return ((item.name, item.data) for item in results)


def loop(name: str, results: Results, consumer: str) -> Callable[[], None]:
    """What is timed: a batch sent, and every object handed to a consumer, with nothing of ours in between."""

    def drop() -> None:
        if name == "fetch":
            results()  # the columns are the result: no Python object per entry
        elif name == "stream":
            for item in results():
                item.data  # noqa: B018
        else:
            for _info, _data in results():
                pass

    def hold() -> None:
        held = results() if name == "fetch" else list(results())
        len(held)

    def touch() -> None:
        for _name, data in pairs_of(name, results()):
            zlib.adler32(data)

    def busy() -> None:
        for _ in results():
            until = time.perf_counter() + BUSY
            while time.perf_counter() < until:
                pass

    return {"drop": drop, "hold": hold, "touch": touch, "busy": busy}[consumer]


def request_body(workload: payloads.Workload, streaming: bool) -> bytes:
    """What the drain sends: a request as the others write it, ready beforehand."""
    entries = [{"objname": name} for name in workload.names]
    body = json.dumps(
        {"mime": ".tar", "in": entries, "coer": True, "onob": False, "strm": streaming}
    ).encode()
    return (
        b"GET /v1/ml/moss/%b/gbt-drain0001/drain/1?provider=ais HTTP/1.1\r\nHost: drain\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (workload.name.encode(), len(body), body)
    )


# ---------------------------------------------------------------------------------------- equality


def digest(pairs: Iterable[tuple[str, Any]]) -> tuple[int, str]:
    """Number of objects, and a hash over all names and contents in order."""
    total, count = hashlib.blake2b(digest_size=16), 0
    for name, data in pairs:
        total.update(name.encode() + b"\0%d\0" % len(data))
        total.update(data)
        count += 1
    return count, total.hexdigest()


def check_equal(alternatives: dict[str, Results], workload: payloads.Workload) -> None:
    """Every alternative, the official SDK first of all, returns what was put in.

    Raises:
        SystemExit: One does not; nothing is timed.
    """
    right = digest(zip(workload.names, payloads.payloads(workload), strict=True))
    for name, results in alternatives.items():
        found = digest(pairs_of(name, results()))
        if found != right:
            raise SystemExit(
                f"{name} does not return what was stored: {found} instead of {right} ({workload})"
            )


# -------------------------------------------------------------------------------------------- time


def timed(call: Callable[[], object]) -> Sample:
    """One batch, garbage collected before it; collection stays on inside."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Sample(wall, cpu, after.ru_minflt - before.ru_minflt, after.ru_nvcsw - before.ru_nvcsw)


def measure(
    calls: dict[str, Callable[[], object]], rounds: int, order: random.Random
) -> dict[str, dict[str, Any]]:
    """`rounds` batches of each, in random order within a round, after two untimed ones; the first is kept."""
    first = {name: timed(call) for name, call in calls.items()}
    for call in calls.values():
        call()
    samples: dict[str, list[Sample]] = {name: [] for name in calls}
    for _ in range(rounds):
        names = list(calls)
        order.shuffle(names)
        for name in names:
            samples[name].append(timed(calls[name]))
    return {
        name: {"first": first[name]._asdict(), "samples": [sample._asdict() for sample in taken]}
        for name, taken in samples.items()
    }


def scale(result: dict[str, dict[str, Any]], batches: int, idle: float) -> None:
    """Makes the figures per batch, less `idle` seconds of the consumer's own time (drains have none)."""
    for name, row in result.items():
        own = {"wall": idle, "cpu": idle} if name not in FLOORS else {}
        for sample in (row["first"], *row["samples"]):
            for field in Sample._fields:
                sample[field] = sample[field] / batches - own.get(field, 0)
        for field in Sample._fields:
            values = [sample[field] for sample in row["samples"]]
            row[field] = {"min": min(values), "median": statistics.median(values)}


def compare(result: dict[str, dict[str, Any]]) -> None:
    """Adds the ratios official / it and it / drain, of medians and of minima, and what to distrust."""

    def ratios(above: dict[str, float], below: dict[str, float]) -> dict[str, float]:
        return {kind: above[kind] / below[kind] for kind in above if below[kind] > 0}

    for name, row in result.items():
        row["flags"] = []
        for base in ("official", "drain"):
            for field in ("cpu", "wall"):
                if base not in result:
                    continue
                pair = (
                    (result[base][field], row[field])
                    if base == "official"
                    else (row[field], result[base][field])
                )
                ratio = row[f"official_over_{field}" if base == "official" else f"over_drain_{field}"] = (
                    ratios(*pair)
                )
                if name in OURS and len(ratio) == 2 and max(ratio.values()) > DISAGREE * min(ratio.values()):
                    row["flags"].append(
                        f"{base} {field}: medians say {ratio['median']:.2f}, minima {ratio['min']:.2f}"
                    )
        row["server_bound"] = (
            name in OURS and row.get("over_drain_wall", {}).get("median", 9e9) < SERVER_BOUND
        )


# ------------------------------------------------------------------------------------------ memory


def peak_kib() -> int:
    """The most memory this process ever had resident, in KiB.

    On Linux the kernel's own mark of this program: `ru_maxrss` there begins with the parent's at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak


def memory_child(
    name: str, endpoint: str, workload: payloads.Workload, streaming: bool, consumer: str
) -> None:
    """In a fresh process: print by how many KiB a batch raises the peak, over imports and one tiny batch."""
    loop(name, results_of(name, endpoint, payloads.WORKLOADS["tiny"], streaming), consumer)()
    call = loop(name, results_of(name, endpoint, workload, streaming), consumer)
    gc.collect()
    base = peak_kib()
    call()
    print(peak_kib() - base)


def peak_growth(name: str, endpoint: str, workload: payloads.Workload, streaming: bool, consumer: str) -> int:
    """KiB, measured in a child process."""
    arguments = [
        "--memory-child",
        name,
        "--endpoint",
        endpoint,
        "--workload",
        workload.name,
        "--consumer",
        consumer,
    ]
    arguments += [] if streaming else ["--buffered"]
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


# ------------------------------------------------------------------------------------------ report


def environment() -> dict[str, Any]:
    """Machine and versions, for the JSON."""

    def output(*command: str) -> str:
        try:
            return subprocess.run(
                command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    model = ""
    if Path("/proc/cpuinfo").exists():
        model = (
            Path("/proc/cpuinfo")
            .read_text()
            .partition("model name")[2]
            .partition(":")[2]
            .partition("\n")[0]
            .strip()
        )
    import aisfast

    return {
        "machine": platform.machine(),
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": sys.version,
        "compiler": output(*replay.compiler()[:1], "--version").partition("\n")[0],
        "versions": {name: version(name) for name in PACKAGES} | {"aisfast": aisfast.__version__},
        "commit": output("git", "rev-parse", "HEAD"),
        "changed": output("git", "status", "--porcelain") != "",
        "allocator": {
            key: value
            for key, value in os.environ.items()
            if key.startswith(("MALLOC_", "PYTHONMALLOC", "LD_PRELOAD"))
        },
        "load": os.getloadavg(),
    }


def table(workload: payloads.Workload, result: dict[str, dict[str, Any]], memory: dict[str, int]) -> str:
    """One workload, for people."""
    lines = [
        f"{workload}   (min / median; ratios of medians)",
        f"{'':13}{'first ms':>9}{'wall ms':>18}{'CPU ms':>18}{'us/obj':>9}{'s/GB':>7}"
        f"{'off./it CPU':>12}{'wall':>7}{'it/drain CPU':>14}{'faults':>8}{'switches':>10}{'peak MiB':>10}",
    ]
    for name, row in result.items():

        def ratio(key: str, row: dict[str, Any] = row) -> str:
            value = row.get(key, {}).get("median")
            return f"{value:.1f}" if value else "-"

        wall, cpu = row["wall"], row["cpu"]
        wall_text = f"{1e3 * wall['min']:.2f} / {1e3 * wall['median']:.2f}"
        cpu_text = f"{1e3 * cpu['min']:.2f} / {1e3 * cpu['median']:.2f}"
        peak = f"{memory[name] / 1024:.1f}" if name in memory else "-"
        lines.append(
            f"{name:13}{1e3 * row['first']['wall']:>9.1f}{wall_text:>18}{cpu_text:>18}"
            f"{1e6 * cpu['median'] / workload.count:>9.2f}"
            f"{1e9 * cpu['median'] / workload.payload_bytes:>7.2f}"
            f"{ratio('official_over_cpu'):>12}{ratio('official_over_wall'):>7}{ratio('over_drain_cpu'):>14}"
            f"{row['faults']['median']:>8.0f}{row['switches']['median']:>10.0f}{peak:>10}"
        )
    for name, row in result.items():
        lines += [f"  ! {name}: ratios to {flag}; run again on a quieter machine" for flag in row["flags"]]
    bound = [name for name, row in result.items() if row["server_bound"]]
    if bound:
        lines.append(
            f"  {', '.join(bound)}: within {SERVER_BOUND}x of the drain's wall time, so only CPU counts there"
        )
    return "\n".join(lines)


def forget_proxies() -> None:
    """Have no proxy in the environment: requests reads these variables for each call."""
    for variable in list(os.environ):
        if variable.lower() in (
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "requests_ca_bundle",
            "curl_ca_bundle",
        ):
            del os.environ[variable]


class Bench:
    """A replay server, and all alternatives against it.

    Args:
        order: Of the alternatives within a round.
    """

    def __init__(
        self, workloads: Iterable[payloads.Workload], streaming: bool, tls: bool, order: random.Random
    ) -> None:
        self._files = {w.name: payloads.answer_file(w, streaming) for w in [*workloads, payloads.WORKLOADS["tiny"]]}
        self._streaming, self._tls, self._order = streaming, tls, order

    @contextmanager
    def served(self, direct: bool = False) -> Iterator[None]:
        """While the server runs. `direct`: without a redirect."""
        server = replay.TlsReplay(self._files) if self._tls else replay.Replay(self._files)
        with server:
            self._server = server
            self._endpoint = server.direct if direct or self._tls else server.endpoint
            yield

    def run(self, workload: payloads.Workload, only: Iterable[str], consumer: str, rounds: int) -> dict[str, Any]:
        """Samples and what is made of them, by alternative.

        Raises:
            SystemExit: One does not return what was stored; nothing is timed.
        """
        server = self._server
        alternatives = {
            name: results_of(name, self._endpoint, workload, self._streaming, ca=server.ca)
            for name in only
            if name not in FLOORS and (self._streaming or name not in PEERS)
        }
        check_equal(alternatives, workload)
        calls: dict[str, Callable[[], object]] = {
            name: loop(name, results, consumer) for name, results in alternatives.items()
        }
        size = self._files[workload.name].stat().st_size
        request = request_body(workload, self._streaming)
        drains: list[replay.Drain | replay.TlsDrain] = []
        if self._tls:
            if "drain" in only:
                drains.append(replay.TlsDrain(server.target_port, server.ca, request, size))
                calls["drain"] = drains[-1]
        else:
            for name in FLOORS:
                if name in only:
                    drains.append(replay.Drain(server.target_port, request, size, slab=name == "slab"))
                    calls[name] = drains[-1]
        batches = max(1, 2000 // workload.count)  # clocks are too coarse for one small batch
        result = measure({name: repeated(call, batches) for name, call in calls.items()}, rounds, self._order)
        scale(result, batches, BUSY * workload.count if consumer == "busy" else 0)
        compare(result)
        for drain in drains:
            drain.close()
        return result

    def memory(self, workload: payloads.Workload, only: Iterable[str], consumer: str) -> dict[str, int]:
        """KiB by which a batch raises the peak of a process, by alternative."""
        return {
            name: peak_growth(name, self._endpoint, workload, self._streaming, consumer)
            for name in only
            if name not in FLOORS
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", nargs="+", choices=sorted(payloads.WORKLOADS), default=payloads.MAIN)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--consumer", choices=("drop", "hold", "touch", "busy"), default="drop")
    parser.add_argument("--buffered", action="store_true", help="multipart answers")
    parser.add_argument("--direct", action="store_true", help="ask the target itself: no redirect")
    parser.add_argument("--tls", action="store_true", help="HTTPS, from the target itself")
    parser.add_argument("--memory", action="store_true", help="peak memory too (a child process for each)")
    parser.add_argument("--seed", type=int, default=None, help="of the order within rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    forget_proxies()
    streaming = not options.buffered
    workloads = [payloads.WORKLOADS[name] for name in options.workload]
    if options.memory_child:
        memory_child(options.memory_child, options.endpoint, workloads[0], streaming, options.consumer)
        return

    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    report: dict[str, Any] = {
        "environment": environment(),
        "options": vars(options) | {"seed": seed, "json": str(options.json) if options.json else None},
        "workloads": {},
    }
    bench = Bench(workloads, streaming, options.tls, random.Random(seed))
    with bench.served(options.direct):
        for name in options.only:
            if package := absent(name):
                print(f"{name} is left out: {package} is not installed")
        for workload in workloads:
            only = [name for name in options.only if not absent(name)]
            result = bench.run(workload, only, options.consumer, options.rounds)
            memory = bench.memory(workload, only, options.consumer) if options.memory else {}
            report["workloads"][workload.name] = {
                "count": workload.count,
                "size": workload.size,
                "alternatives": result,
                "peak_growth_kib": memory,
            }
            print(table(workload, result, memory), flush=True)
            print()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    """`call`, several times over: clocks are too coarse for one small batch."""

    def many() -> None:
        for _ in range(times):
            call()

    return many


if __name__ == "__main__":
    main()
