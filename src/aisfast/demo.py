"""`aisfast demo`: real files go into a cluster and come back in batches; every byte is checked, every figure measured.

Laws: what is timed is from a list of names to the last payload in hand, for everybody alike; checking is not timed.
CPU is that of this process (user and system time, all threads); the emulator has a process of its own.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import random
import secrets
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aisfast.messages import FAILED, printable
from aisfast.version import __version__

if TYPE_CHECKING:
    from aisfast.bucket import Bucket
    from aisfast.client import Client

TARGETS = 3  # of the emulator
BATCH = 1000  # entries per request
FILES = 3000  # at most; a complete standard library has some 2,300
LARGEST = 4 << 20  # bytes of a file that is taken along
PER_SHARD = 100  # files in each tar shard
WRITERS = 4  # threads that store
SHOWN = 10  # mismatches that are told one by one
SKIPPED = ("site-packages", "dist-packages", "__pycache__")


class Entry(NamedTuple):
    """What is asked for, and what must come."""

    name: str
    archpath: str
    start: int
    length: int
    digest: bytes
    size: int


class Stored(NamedTuple):
    """What was put into the bucket, as entries to ask for."""

    objects: list[Entry]
    members: list[Entry]
    ranges: list[Entry]


class Cost(NamedTuple):
    """What fetching all batches of one row of the table took."""

    entries: int
    size: int
    wall: float
    cpu: float


Got = tuple[str, Any]  # what came for an entry: its name, its payload (or why it is missing, as a str)


def run(endpoint: str | None = None, *, most: int | None = None) -> int:
    """Run the demo.

    Args:
        endpoint: URL of a cluster's gateway; None: `AIS_ENDPOINT`, else an emulator is started and stopped.
        most: Files to take, at most; None: 3,000.
    Returns:
        Exit code: 0, or 1 if anything did not come back as it was stored.
    """
    from aisfast.client import Client

    endpoint = endpoint or os.environ.get("AIS_ENDPOINT")
    with terminated_is_exit(), cluster_at(endpoint) as at, Client(at) as client:
        where = f"cluster at {at}" if endpoint else f"emulator with {TARGETS} targets at {at}"
        print(f"aisfast {__version__}, Python {platform.python_version()}, {where}\n", flush=True)
        bucket = client.bucket(f"aisfast-demo-{secrets.token_hex(4)}").create()
        try:
            return _fetch_all(client, bucket, _store(bucket, most or FILES), emulated=not endpoint)
        finally:
            if endpoint:  # an emulator takes it along
                bucket.delete(missing_ok=True)


# -------------------------------------------------------------------------------------------------------------- stored


def _files(most: int) -> list[Path]:
    """Regular files of the running Python's standard library, in order."""
    found = []
    for folder, below, names in os.walk(sysconfig.get_paths()["stdlib"]):
        below[:] = sorted(name for name in below if name not in SKIPPED)
        found += [path for name in sorted(names) if (path := Path(folder, name)).is_file() and not path.is_symlink()]
    if not found:
        raise OSError(f"no files of a standard library in {sysconfig.get_paths()['stdlib']}")
    step = max(1, len(found) // most)  # fewer: spread over all
    return found[::step][:most]


def _store(bucket: Bucket, most: int) -> Stored:
    began = time.perf_counter()
    root = Path(sysconfig.get_paths()["stdlib"])
    choose = random.Random(most)
    stored = Stored([], [], [])
    shards: dict[str, bytes] = {}
    packing: list[tuple[str, bytes]] = []

    def put(name: str, content: bytes) -> None:
        bucket.object(name).get_writer().put_content(content)

    def pack() -> None:
        name = f"shards/{len(shards):03}.tar"
        shards[name] = _tar(packing)
        stored.members.extend(_entry(name, content, path) for path, content in packing)
        packing.clear()

    with ThreadPoolExecutor(WRITERS) as writers:
        done = []
        for path in _files(most):
            content = path.read_bytes()
            if len(content) > LARGEST:
                continue
            name = path.relative_to(root).as_posix()
            stored.objects.append(_entry(f"files/{name}", content))
            if content:
                start = choose.randrange(len(content))
                length = choose.randint(1, len(content) - start)
                stored.ranges.append(_entry(f"files/{name}", content[start : start + length], "", start, length))
            packing.append((name, content))
            if len(packing) == PER_SHARD:
                pack()
            done.append(writers.submit(put, f"files/{name}", content))
        if packing:
            pack()
        done += [writers.submit(put, name, content) for name, content in shards.items()]
        try:
            for future in done:
                future.result()
        except BaseException:
            writers.shutdown(wait=False, cancel_futures=True)
            raise

    sizes = [entry.size for entry in stored.objects]
    print(
        f"stored in {time.perf_counter() - began:.1f} s: {len(sizes):,} files of Python's standard library "
        f"({_amount(sum(sizes))}, {_amount(min(sizes))} to {_amount(max(sizes))} each)\n"
        f"{'':13}and the same files in {len(shards)} tar shards\n",
        flush=True,
    )
    return stored


def _entry(name: str, content: bytes, archpath: str = "", start: int = 0, length: int = 0) -> Entry:
    return Entry(name, archpath, start, length, hashlib.sha256(content).digest(), len(content))


def _tar(files: Sequence[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


# ------------------------------------------------------------------------------------------------------------- fetched


def _get(batch: Any) -> list[Got]:
    return [(info.obj_name, info.err_msg or payload) for info, payload in batch.get()]


def _stream(batch: Any) -> list[Got]:
    with batch.stream(missing="mark") as items:
        return [(item.name, item.err_msg or item) for item in items]


def _fetch(batch: Any) -> list[Got]:
    return [(item.name, item.err_msg or item) for item in batch.fetch(missing="mark")]


CALLS: dict[str, Callable[[Any], list[Got]]] = {"get()": _get, "stream()": _stream, "fetch()": _fetch}


def _fetch_all(client: Client, bucket: Bucket, stored: Stored, *, emulated: bool) -> int:
    official, version = official_client(client.settings.endpoint)
    mixed = [entry for three in zip(stored.objects, stored.members, stored.ranges, strict=False) for entry in three]
    groups = (
        ("objects", True, stored.objects),
        ("archive members", True, stored.members),
        ("byte ranges", True, stored.ranges),
        ("all three mixed", False, mixed),
    )
    print(f"{_HEAD}{'  CPU of SDK' if official else ''}", flush=True)
    wrong: list[str] = []
    checked = checked_bytes = 0
    for what, streaming, entries in groups:
        print(f"{what}, {'streaming' if streaming else 'buffered'}")
        theirs = None
        if official:
            theirs, faults = _measure("official SDK", _get, official, official.bucket(bucket.name), entries, streaming)
            wrong += faults
        for name, call in CALLS.items():
            copied_before = client.stats.bytes_copied
            cost, faults = _measure(name, call, client, bucket, entries, streaming)
            copied = client.stats.bytes_copied - copied_before
            wrong += faults
            checked += cost.entries
            checked_bytes += cost.size
            ratio = f"{theirs.cpu / max(cost.cpu, 1e-9):>10.1f}x" if theirs else ""
            print(f"{_row(name, cost)}  {copied / max(cost.size, 1):>6.0%}{ratio}", flush=True)
        if theirs:
            print(_row("official SDK", theirs), flush=True)
    print()
    print(f"checked: {checked:,} payloads, {_amount(checked_bytes)}, sha256 of each against the file it came from")
    for text in wrong[:SHOWN]:
        print(printable(f"WRONG: {text}"))
    if wrong:
        print(f"WRONG: {len(wrong):,} payloads are not what was stored")
        return FAILED
    print("all of them match")
    print()
    print("CPU us/obj: microseconds of this process (user and system), from names to payloads; hashing is not in it.")
    print("copied: payload bytes copied once more after they were received; large ones are received in place.")
    whose = "the emulator, on the same cores," if emulated else "the cluster"
    print(f"objects/s and MB/s: {whose} sets the pace; with several targets a buffered answer takes 100 ms more.")
    if official:
        print(f"official SDK: aistore {version}, Batch.get(), the same batches; its CPU as a multiple of ours.")
    elif version:
        print(f"aistore {version} has no Client.batch(), so it was not compared.")
    else:
        print("With the official SDK (aistore) installed beside aisfast, it is run on the same batches.")
    return 0


_HEAD = f"{'entries':>25}  {'MB':>7}  {'s':>5}  {'objects/s':>9}  {'MB/s':>6}  {'CPU us/obj':>10}  {'copied':>6}"


def _row(name: str, cost: Cost) -> str:
    rate, pace = cost.entries / cost.wall, cost.size / 1e6 / cost.wall
    return (
        f"  {name:<14}  {cost.entries:>7,}  {cost.size / 1e6:>7.1f}  {cost.wall:>5.2f}  {rate:>9,.0f}  {pace:>6.1f}"
        f"  {cost.cpu / cost.entries * 1e6:>10.1f}"
    )


def _measure(
    name: str, call: Callable[[Any], list[Got]], client: Any, bucket: Any, entries: Sequence[Entry], streaming: bool
) -> tuple[Cost, list[str]]:
    """Fetch all entries in batches; what it took, and what was wrong."""
    wall = cpu = 0.0
    size = 0
    wrong = []
    call(_batch(client, bucket, entries[:1], streaming))  # imports and connections are not what is measured
    for at in range(0, len(entries), BATCH):
        asked = entries[at : at + BATCH]
        wall_began, cpu_began = time.perf_counter(), time.process_time()
        got = call(_batch(client, bucket, asked, streaming))
        cpu += time.process_time() - cpu_began
        wall += time.perf_counter() - wall_began
        wrong += [f"{name}: {text}" for text in _differences(asked, got)]
        del got  # its memory is free for the next batch
        size += sum(entry.size for entry in asked)
    return Cost(len(entries), size, wall, cpu), wrong


def _batch(client: Any, bucket: Any, entries: Sequence[Entry], streaming: bool) -> Any:
    """The batch; the official client makes its own in the same way."""
    if not any(entry.archpath or entry.length for entry in entries):
        return client.batch([entry.name for entry in entries], bucket=bucket, streaming_get=streaming)
    batch = client.batch(bucket=bucket, streaming_get=streaming)
    for entry in entries:
        batch.add(entry.name, archpath=entry.archpath, start=entry.start, length=entry.length)
    return batch


def _differences(asked: Sequence[Entry], got: Sequence[Got]) -> Iterator[str]:
    """What is not as it was stored."""
    if len(got) != len(asked):
        yield f"{len(asked)} entries asked for, {len(got)} came"
    for entry, (name, payload) in zip(asked, got, strict=False):
        described = f"{entry.name}{'::' + entry.archpath if entry.archpath else ''}"
        if entry.length:
            described += f" [{entry.start}, {entry.start + entry.length})"
        if name not in (entry.name, f"{entry.name}/{entry.archpath}"):  # so the server's record may name a member
            yield f"{described}: {name} came in its place"
        elif isinstance(payload, str):
            yield f"{described}: missing: {payload}"
        elif len(payload) != entry.size:
            yield f"{described}: {entry.size} bytes stored, {len(payload)} came"
        elif hashlib.sha256(payload).digest() != entry.digest:
            yield f"{described}: {entry.size} bytes came that differ from those stored"


def official_client(endpoint: str) -> tuple[Any, str]:
    """A client of the official SDK, or None; and its version, "" where it is not installed."""
    try:
        import aistore
        from aistore.sdk import Client
    except ImportError:
        return None, ""
    client = Client(endpoint, token=os.environ.get("AIS_AUTHN_TOKEN"), timeout=(3, 90))
    return (client if hasattr(client, "batch") else None), str(aistore.__version__)


def _amount(size: float) -> str:
    if size < 1000:
        return f"{size:.0f} B"
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


# ------------------------------------------------------------------------------------------------------------- cluster


@contextmanager
def cluster_at(endpoint: str | None) -> Iterator[str]:
    """The endpoint of a cluster: the one given, or that of an emulator in a process of its own, always stopped."""
    if endpoint:
        yield endpoint
        return
    command = [sys.executable, "-m", "aisfast", "emulator", "--targets", str(TARGETS), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as emulator:
        try:
            assert emulator.stdout is not None
            ready = emulator.stdout.readline().split()
            if not ready:
                raise OSError(f"the emulator did not start (exit code {emulator.wait()})")
            with _no_proxy(ready[0]):
                yield ready[0]
        finally:
            emulator.terminate()
            try:
                emulator.wait(10)
            except subprocess.TimeoutExpired:
                emulator.kill()


@contextmanager
def _no_proxy(url: str) -> Iterator[None]:
    """Requests to this machine do not go through the proxy that HTTP_PROXY may name."""
    before = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    host = url.partition("://")[2].partition(":")[0]
    for name, value in before.items():
        os.environ[name] = f"{value},{host}" if value else host
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def terminated_is_exit() -> Iterator[None]:
    """SIGTERM ends the program as an exit does, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
