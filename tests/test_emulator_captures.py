"""Asked what a recorded request asked, the emulator answers the recorded bytes, but for dates, ids and boundary.

The objects are put together from the recordings themselves: what an entry's member holds there is what is stored here.
Where a recorded cluster had three targets, each object is placed on the DT or on a peer as it was then.

The server's compressors are others than ours, and so are their bytes. Here recorded compressed data takes the place of
ours, for exactly the plain bytes that the recorded cluster compressed: all else must be equal, chunks too.

Left out (`_LEFT_OUT`): answers that the death of a node or a wait of many seconds ended at a byte that no rule tells,
and one that is the after-effect of another request's damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

import captures
from aisfast.emulator import Cluster, outputs
from aisfast.emulator.batch import Jobs
from aisfast.emulator.batch_request import BatchRequest

try:
    import lz4.block as lz4_block
    import lz4.frame as lz4_frame
except ImportError:
    lz4_frame = None

DT = 0
PEER = 1

_LEFT_OUT = {
    "3t-damaged-cut-remote-after": "a stream between targets that is down for a second",
    "3t-err-dt-dead": "a dead target",
    "3t-fault-kill-dt": "a dead target",
    "3t-fault-kill-dt-buffered": "a dead target",
    "3t-fault-kill-peer": "a dead target",
    "3t-fault-kill-peer-buffered": "a dead target",
    "3t-fault-kill-peer-strict": "a dead target",
    "3t-fault-slow-reader": "a reader that stops for 42 s",
}

NAMES = [name for name in captures.names() if name not in _LEFT_OUT]

Key = tuple[str, str, str]  # bucket, object name, archpath


# -- what was stored


def dechunk(body: bytes) -> bytes:
    out = []
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        out.append(body[:size])
        body = body[size + 2 :]
    return b"".join(out)


def archive_of(http: bytes) -> bytes:
    """The archive of an answer in either mode."""
    head, _, body = http.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        body = dechunk(body)
    boundary = re.search(rb"boundary=(\w+)", head)
    if boundary:
        part = body.split(b"--" + boundary[1])[2]
        body = part.partition(b"\r\n\r\n")[2][:-2]
    return body


class Member(NamedTuple):
    size: int  # by its header
    mtime: int
    data: bytes


def format_of(name: str) -> str:
    return (captures.load(name)[1]["request"] or {}).get("mime") or ".tar"


def members_of(name: str) -> Iterator[Member]:
    """Members of a recorded answer, the last one short if the answer was cut in it."""
    data, form = archive_of(captures.load(name)[0]), format_of(name)
    if form == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as pack:
            for info in pack.infolist():
                yield Member(info.file_size, int.from_bytes(info.extra[5:9], "little"), pack.read(info))
        return
    if form in (".tgz", ".tar.gz"):
        data = zlib.decompress(data, 31)
    elif form == ".tar.lz4":
        data = lz4_frame.decompress(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive, contextlib.suppress(tarfile.ReadError):
        for info in archive:
            yield Member(info.size, int(info.mtime), data[info.offset_data : info.offset_data + info.size])


def ask_of(meta: dict[str, Any]) -> list[dict[str, Any]]:
    return (meta["request"] or {}).get("in") or []


def recorded(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], Member]]:
    """Entry as asked, entry as described, member of the answer."""
    meta = captures.load(name)[1]
    if meta["status"] == 200 and (lz4_frame or format_of(name) != ".tar.lz4"):
        yield from zip(ask_of(meta), meta["entries"], members_of(name), strict=False)


def recover() -> dict[Key, bytes]:
    """All payloads that answers show, with zeros where none does."""
    pieces: dict[Key, list[tuple[int, bytes]]] = {}
    sizes: dict[Key, int] = {}
    for name in NAMES:
        for asked, entry, member in recorded(name):
            if entry.get("missing"):
                continue
            key = entry["bucket"], asked["objname"], asked.get("archpath", "").lstrip("/")
            start = 0 if entry.get("got") else asked.get("start", 0)
            if entry.get("got") or asked.get("length", -1) == -1:
                sizes[key] = start + max(member.size, entry["size"] or 0)
            pieces.setdefault(key, []).append((start, member.data))
    payloads = {}
    for key, parts in pieces.items():
        out = bytearray(sizes[key] if key in sizes else max(start + len(data) for start, data in parts) + 1)
        for start, data in parts:
            out[start : start + len(data)] = data
        payloads[key] = bytes(out)
    return payloads


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def shard_of(name: str, files: dict[str, bytes]) -> bytes:
    if name.endswith(".zip"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
        return out.getvalue()
    plain = tar_of(files)
    if name.endswith((".tgz", ".tar.gz")):
        pack = zlib.compressobj(1, zlib.DEFLATED, 31)
        return pack.compress(plain) + pack.flush()
    if name.endswith(".tar.lz4"):
        return lz4_frame.compress(plain) if lz4_frame else b""
    return plain


def cut_shard(name: str, files: dict[str, bytes], size: int, came: bytes) -> bytes:
    """A shard that ends, or whose compressed stream is wrong, inside its last member `cut.bin`."""
    plain = tar_of({**files, "cut.bin": came + bytes(size - len(came))})
    plain = plain[: plain.index(came) + len(came)]
    if not name.endswith(".tgz"):
        return plain
    pack = zlib.compressobj(0, zlib.DEFLATED, 31)
    return pack.compress(plain) + pack.flush(zlib.Z_SYNC_FLUSH) + b"\xff" * 8


def damaged() -> dict[tuple[str, str], tuple[int, bytes] | None]:
    """Broken shards: size and bytes of the member in which they end (made up where no answer shows it); None: noise."""
    found: dict[tuple[str, str], tuple[int, bytes] | None] = {}
    for name in NAMES:
        meta = captures.load(name)[1]
        for index, entry in enumerate(meta["entries"]):
            if entry.get("why") != "broken":
                continue
            key = entry["bucket"], entry["name"]
            found.setdefault(key, None if "noise" in entry["name"] else (4000, b"\x5a" * 1000))
            if meta.get("cut_member", {}).get("index") == index:
                member = list(members_of(name))[index]
                found[key] = member.size, member.data
    return found


Objects = dict[tuple[str, str, bool], bytes]  # by bucket, name, and whether they are asked for members


@pytest.fixture(scope="module")
def payloads() -> Objects:
    """All objects. A shard of which answers show only a range is another one where its members are asked for."""
    objects: Objects = {}
    files: dict[tuple[str, str], dict[str, bytes]] = {}
    for (bucket, name, archpath), data in recover().items():
        if archpath:
            files.setdefault((bucket, name), {})[archpath] = data
        else:
            objects[bucket, name, False] = data
    for key, members in files.items():
        objects[(*key, True)] = shard_of(key[1], members)
    for key, cut in damaged().items():
        objects[(*key, True)] = b"\xa5" * 4096 if cut is None else cut_shard(key[1], files.get(key, {}), *cut)
    return objects


def test_payloads_are_the_recorded_ones(payloads):
    """What was put together is what the recordings say about contents, so that equal answers mean something."""
    seen = 0
    for name in NAMES:
        for asked, entry, member in recorded(name):
            if (
                entry.get("sha256")
                and not entry.get("got")
                and not asked.get("archpath")
                and len(member.data) == entry["size"]
            ):
                stored = payloads[entry["bucket"], asked["objname"], False]
                start = asked.get("start", 0)
                assert hashlib.sha256(stored[start : start + entry["size"]]).hexdigest() == entry["sha256"]
                seen += 1
    assert seen > 500


# -- asking


@pytest.fixture(scope="module")
def one_target() -> Iterator[Cluster]:
    with Cluster(targets=1, tail_delay=0, seed=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three_targets() -> Iterator[Cluster]:
    with Cluster(targets=3, tail_delay=0, seed=3, max_wait=0.01) as cluster:
        yield cluster


def send(url: str, method: str, target: str, body: bytes) -> bytes:
    """One request on a connection of its own; all bytes of the answer."""
    parts = urlsplit(url)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        sock.sendall(head + body)
        sock.shutdown(socket.SHUT_WR)
        out = bytearray()
        while data := sock.recv(1 << 16):
            out += data
    return bytes(out)


def location(answer: bytes) -> str:
    assert answer.startswith(b"HTTP/1.1 307 "), answer[:300]
    return re.search(rb"Location: (\S+)", answer)[1].decode()


def normal(answer: bytes) -> bytes:
    """Without dates, ids and the boundary, each replaced by as many bytes."""
    boundary = re.search(rb"boundary=(\w{60})", answer)
    if boundary:
        answer = answer.replace(boundary[1], b"B" * 60)
    for pattern in (
        rb"Date: ([^\r]*)",
        rb"[tp]\[(\w{4}\d{5})\]",
        rb'"remote_addr":"([^"]*)"',
        rb"from (127\.0\.0\.1:\d{5})\"",
        rb"(gbt-[\w-]+)",
        rb'wid=\\"([^"\\]*)\\"',
        rb"/([\w-]{7}-[\w-]{5})/[13]",
        rb"(127\.0\.0\.1:\d{5})/",
        rb"pid=(\w{4}\d{5})",
        rb"utm=(\w{12})",
        rb"cap-a-(\d\d:\d\d:\d\d\.\d{6}):",
    ):
        answer = re.sub(pattern, lambda m: m[0].replace(m[1], b"?" * len(m[1])), answer)
    return answer


def prepare(cluster: Cluster, name: str, payloads: Objects) -> None:
    """Store and place what is asked for, with the access times and the job id that were recorded."""
    http, meta = captures.load(name)
    cluster.next_dt = DT if meta.get("answered_by") == "target" else None
    xid = re.search(rb"gbt-([\w-]+)", http)
    letters = xid[1].decode() if xid else "x" * 9
    cluster.jobs[:] = [Jobs(lambda length: letters) for _ in cluster.jobs]
    for bucket in ("cap-a", "cap-b"):
        cluster.bucket(bucket).objects.clear()
    for asked, entry in zip(ask_of(meta), meta["entries"], strict=False):
        key = entry["bucket"], entry["name"]
        data = payloads.get((*key, bool(asked.get("archpath"))), payloads.get((*key, False)))
        if data is not None:
            cluster.put(*key, data)
        if "lives_on" in entry:
            cluster.place(entry["bucket"], entry["name"], DT if entry["lives_on"] == "DT" else PEER)
    for asked, entry, member in recorded(name):
        stored = cluster.bucket(entry["bucket"]).objects.get(asked["objname"])
        if stored is not None and member.mtime:
            stored.atime = member.mtime * 1_000_000_000


def compress_as_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recorded cluster compressed is from now on compressed to what it sent; nothing else can be."""
    archive = archive_of(captures.load(name)[0])
    if format_of(name) == ".tar.lz4":
        blocks, at = {}, 7
        while size := int.from_bytes(archive[at : at + 4], "little"):
            block = archive[at + 4 : at + 4 + (size & 0x7FFFFFFF)]
            plain = block if size >> 31 else lz4_block.decompress(block, uncompressed_size=1 << 18)
            blocks[plain] = block
            at += 4 + len(block)
        monkeypatch.setattr(lz4_block, "compress", lambda data, store_size: blocks[data])
    elif format_of(name) in (".tgz", ".tar.gz"):
        monkeypatch.setattr(outputs.zlib, "compressobj", Recorded(archive))


class Recorded:
    """In place of zlib's compressor: gives the recorded stream if it was given what that inflates to."""

    def __init__(self, archive: bytes):
        self._stream = archive[10:-8]
        self._plain = zlib.decompress(self._stream, -15)
        self._given = b""

    def __call__(self, *_: int) -> Recorded:
        return self

    def compress(self, data: bytes) -> bytes:
        self._given += data
        return b""

    def flush(self, mode: int = zlib.Z_FINISH) -> bytes:
        if mode != zlib.Z_FINISH:
            return b""
        assert self._given == self._plain
        return self._stream


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_recorded(
    name: str, payloads: Objects, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    http, meta = captures.load(name)
    if lz4_frame is None and any(
        ".tar.lz4" in text for text in (format_of(name), *(e["name"] for e in meta["entries"]))
    ):
        pytest.skip("needs lz4")
    cluster: Cluster = request.getfixturevalue("one_target" if meta["cluster"] == "1 target" else "three_targets")
    prepare(cluster, name, payloads)
    if meta["request"] is not None:
        body = json.dumps(meta["request"], separators=(",", ":"), ensure_ascii=False).encode()
    else:
        body = (meta.get("request_raw") or "").encode()
    method = {"post": "POST", "put": "PUT"}.get(name.rpartition("-method-")[2], "GET") if "-method-" in name else "GET"
    if name == "3t-err-429":
        for index in range(256):
            cluster.jobs[DT].reserve(cluster.bucket("cap-a"), f"wid{index}", BatchRequest(b"", [], "", True, True))
        cluster.next_dt = DT
    if "fault-cut-file" in name:  # the object promises more than there is
        stored = cluster.bucket("cap-a").objects["m/014.bin"]
        stored.content = stored.data[:5000]
    if meta["status"] == 200:
        compress_as_recorded(name, monkeypatch)
    if "fault-abort" in name:
        entry = None if name.endswith("before-target") else meta["delivered"]
        cluster.faults.add("abort", entry=entry)
    answer = send(cluster.endpoint, method, meta["path"], body)
    if meta["answered_by"] == "target":
        where = urlsplit(location(answer))
        query = "provider=ais" if name.endswith("no-marker") else where.query
        answer = send(where.geturl(), method, f"{where.path}?{query}", body)
        if name.endswith("redirect-twice"):
            answer = send(where.geturl(), method, f"{where.path}?{query}", body)
    assert normal(answer) == normal(http)
