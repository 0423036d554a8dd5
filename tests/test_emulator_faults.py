"""Planned faults of the emulator, each as it is seen on the wire; and targets that die and come back."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import socket
import tarfile
import threading
import time
import zipfile
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from aisfast.emulator import Cluster
from aisfast.emulator.faults import REFUSALS

SIZES = (700, 5000, 1024, 0, 3000, 1)  # of the objects of `train`, in order
NAMES = [f"{index}.bin" for index in range(len(SIZES))]
DATA = [bytes([65 + index]) * size for index, size in enumerate(SIZES)]
MEMBERS = [(f"train/{name}", data) for name, data in zip(NAMES, DATA, strict=True)]


@pytest.fixture
def cluster():
    with Cluster(targets=3, tail_delay=0, seed=7, max_wait=0.05) as cluster:
        for index, (name, data) in enumerate(zip(NAMES, DATA, strict=True)):
            cluster.put("train", name, data)
            cluster.place("train", name, index % 3)
        yield cluster


class Seen(NamedTuple):
    """One answer, read to the end of its connection."""

    status: int  # 0: no status line
    head: str
    raw: bytes  # what follows the head, or all
    end: str  # "closed", "reset", "refused"
    silence: float  # the longest, in seconds
    pieces: int  # reads

    @property
    def body(self) -> bytes:
        return dechunk(self.raw)[0] if "Transfer-Encoding: chunked" in self.head else self.raw

    @property
    def whole(self) -> bool:
        """Is its end there?"""
        return dechunk(self.raw)[1] if "Transfer-Encoding: chunked" in self.head else True

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.raw)


def dechunk(raw: bytes) -> tuple[bytes, bool]:
    """The body as far as it came, and whether its terminal chunk did."""
    out, at = [], 0
    while True:
        end = raw.find(b"\r\n", at)
        if end < 0:
            return b"".join(out), False
        size = int(raw[at:end], 16)
        if size == 0:
            return b"".join(out), raw[end + 2 :] == b"\r\n"
        out.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def exchange(url: str, method: str = "GET", body: bytes = b"", pause: threading.Event | None = None) -> Seen:
    """One request; `pause`: nothing is read before it is set."""
    parts = urlsplit(url)
    target = parts.path + ("?" + parts.query) * bool(parts.query)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    out = bytearray()
    silence, pieces, end = 0.0, 0, "closed"
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
            sock.sendall(head.encode() + body)
            if pause is not None:
                assert pause.wait(10)
            while True:
                began = time.monotonic()
                data = sock.recv(1 << 16)
                silence = max(silence, time.monotonic() - began)
                if not data:
                    break
                pieces += 1
                out += data
    except ConnectionRefusedError:
        end = "refused"
    except ConnectionResetError:
        end = "reset"
    start, found, rest = bytes(out).partition(b"\r\n\r\n")
    if not start.startswith(b"HTTP/1.1 ") or not found:
        return Seen(0, "", bytes(out), end, silence, pieces)
    return Seen(int(start.split()[1]), start.decode(), rest, end, silence, pieces)


def moss(*names: str | dict[str, Any], **top: Any) -> bytes:
    entries = [{"objname": name} if isinstance(name, str) else name for name in names or NAMES]
    return json.dumps({"in": entries, "coer": True, "strm": True, **top}).encode()


def first_leg(cluster: Cluster, body: bytes, bucket: str = "train") -> Seen:
    return exchange(f"{cluster.endpoint}/v1/ml/moss/{bucket}", body=body)


def location(seen: Seen) -> str:
    assert seen.status == 307, seen
    return next(line for line in seen.head.split("\r\n") if line.startswith("Location: "))[10:]


def batch(cluster: Cluster, body: bytes | None = None, bucket: str = "train", dt: int | None = 0) -> Seen:
    """Both legs: the answer of the target, or the proxy's if it is no redirect."""
    body = moss() if body is None else body
    cluster.next_dt = dt
    seen = first_leg(cluster, body, bucket)
    return seen if seen.status != 307 else exchange(location(seen), body=body)


def members(data: bytes) -> list[tuple[str, bytes]]:
    """What an archive of any format holds."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as pack:
            return [(info.filename, pack.read(info)) for info in pack.infolist()]
    if data.startswith(b"\x04\x22\x4d\x18"):
        data = pytest.importorskip("lz4.frame").decompress(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [(info.name, archive.extractfile(info).read()) for info in archive]


def parts(body: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """`out` and the archive of a buffered answer."""
    boundary = body[: body.index(b"\r\n")]
    metadata, archive = body.split(b"\r\n" + boundary)[:2]
    return json.loads(metadata.partition(b"\r\n\r\n")[2])["out"], archive.partition(b"\r\n\r\n")[2]


def start_of(index: int) -> int:
    """Offset of a member's header in the archive of all objects."""
    return sum(512 + size + -size % 512 for size in SIZES[:index])


@pytest.fixture
def clean(cluster):
    """The answer without faults."""
    seen = batch(cluster)
    assert members(seen.body) == MEMBERS
    return seen.body


# -- the plan


def test_plan_counts_selects_and_shows(cluster):
    faults = cluster.faults
    third = faults.add("empty", nth=2, times=2, bucket="train", target=0)
    every = faults.add("error", kind="busy", times=None, when=lambda call: call.names == ["x"] and not call.streaming)
    cluster.put("other", "x", b"")
    seen = [batch(cluster).head.count("Content-Length: 0") for _ in range(5)]
    assert seen == [0, 1, 1, 0, 0]
    assert (third.hits, third.seen, third.wait(0)) == (2, 5, True)
    assert [batch(cluster, moss("x", strm=mode), "other").status for mode in (True, False, False)] == [200, 429, 429]
    assert repr(faults).splitlines() == ["<Faults: 2 planned>", f"  {third!r}", f"  {every!r}"]
    assert repr(third) == "<Fault 'empty', nth=2, times=2, bucket='train', target=0: happened 2 of 2>"
    assert list(faults) == [third, every]
    faults.clear()
    assert len(faults) == 0
    assert batch(cluster, moss("x", strm=False), "other").status == 200


def test_a_request_without_the_place_does_not_meet_the_fault(cluster):
    there = [
        cluster.faults.add("short", entry=6),
        cluster.faults.add("short", entry=-7),
        cluster.faults.add("short", entry="no such object"),
        cluster.faults.add("swap", entry=5),
        cluster.faults.add("cut", entry=3, part="data"),  # it has none
        cluster.faults.add("cut", entry=2, part="padding"),
        cluster.faults.add("cut", offset=start_of(6) + 1024),
        cluster.faults.add("out"),  # only in buffered answers
        cluster.faults.add("short", entry=1, target=2),
        cluster.faults.add("short", entry=1, bucket="other"),
    ]
    assert members(batch(cluster).body) == MEMBERS
    assert [fault.hits for fault in there] == [0] * len(there)


@pytest.mark.parametrize(
    ("why", "plan"),
    [
        ("no such action", {"action": "explode"}),
        ("needs seconds=", {"action": "stall"}),
        ("finite number", {"action": "stall", "seconds": float("inf")}),
        ("finite number", {"action": "stall", "seconds": float("nan")}),
        ("has no option 'size'", {"action": "stall", "seconds": 1, "size": 3}),
        ("1 or more", {"action": "empty", "nth": 0}),
        ("1 or more", {"action": "empty", "times": 0}),
        ("no target 3 among 3", {"action": "empty", "target": 3}),
        ("no target -1 among 3", {"action": "kill", "victim": -1}),
        ("needs entry=", {"action": "short"}),
        ("whole entries", {"action": "short", "entry": 1, "part": "data"}),
        ("whole entries", {"action": "abort", "offset": 7}),
        ("needs entry= or offset=", {"action": "corrupt"}),
        ("no place in the body", {"action": "empty", "entry": 1}),
        ("part is one of", {"action": "cut", "entry": 1, "part": "trunk"}),
        ("parts of an entry", {"action": "cut", "part": "data"}),
        ("parts of an entry", {"action": "cut", "entry": 1, "part": "trailer"}),
        ("stands alone", {"action": "cut", "entry": 1, "offset": 7}),
        ("stands alone", {"action": "cut", "offset": -1}),
        ("after its end", {"action": "cut", "part": "end", "clean": True}),
        ("after its end", {"action": "drip", "part": "end"}),
        ("needs a place", {"action": "cut", "clean": True}),
        ("only redirects", {"action": "cut", "leg": "proxy", "entry": 1}),
        ("only redirects", {"action": "empty", "leg": "proxy"}),
        ("'proxy' or 'target'", {"action": "cut", "leg": "both"}),
        ("'batch' or 'object'", {"action": "cut", "request": "list"}),
        ("before the status line", {"action": "drip", "request": "object"}),
        ("before the status line", {"action": "cut", "request": "object", "offset": 3}),
        ("no such kind", {"action": "error", "kind": "tea"}),
        ("comes from the proxy", {"action": "error", "kind": "busy", "leg": "target"}),
        ("is for objects", {"action": "error", "kind": "rate-limit"}),
        ("is for objects", {"action": "error", "kind": "busy", "request": "object"}),
        ("size is 1", {"action": "drip", "size": 0}),
        ("changes nothing", {"action": "out", "by": 0}),
        ("needs a name", {"action": "rename", "entry": 1, "name": ""}),
        ("function", {"action": "call", "run": 3}),
        ("200 to 599", {"action": "reply", "status": 99}),
    ],
)
def test_what_cannot_be_is_refused(cluster, why, plan):
    with pytest.raises(ValueError, match=why):
        cluster.faults.add(**plan)
    assert len(cluster.faults) == 0


# -- the archive


@pytest.fixture(params=[".tar", ".tgz", ".tar.lz4", ".zip"])
def mime(request):
    """Each output format that can be written here."""
    if request.param == ".tar.lz4":
        pytest.importorskip("lz4.frame")
    return request.param


@pytest.mark.parametrize("count", [0, 2, 5])
def test_short(cluster, mime, count):
    cluster.faults.add("short", entry=count, times=2)
    seen = batch(cluster, moss(mime=mime))
    assert (seen.status, seen.whole, members(seen.body)) == (200, True, MEMBERS[:count])
    if mime == ".tar":
        assert seen.body.endswith(bytes(1024))
    seen = batch(cluster, moss(mime=mime, strm=False))
    out, archive = parts(seen.body)
    assert (seen.status, seen.whole) == (200, True)
    assert [item["objname"] for item in out] == NAMES[:count]
    assert members(archive) == MEMBERS[:count]


PLACES = [
    ({"entry": 1}, start_of(1)),
    ({"entry": "1.bin", "part": "header"}, start_of(1) + 256),
    ({"entry": 1, "part": "data"}, start_of(1) + 512 + 2500),
    ({"entry": -5, "part": "padding"}, start_of(1) + 512 + 5000 + 60),
    ({"entry": 0}, 0),
    ({"part": "trailer"}, start_of(6)),
    ({"part": "end"}, start_of(6) + 1024),
    ({"offset": 0}, 0),
    ({"offset": 4321}, 4321),
]


@pytest.mark.parametrize(("where", "at"), PLACES)
@pytest.mark.parametrize("action", ["cut", "reset"])
def test_cut_and_reset(cluster, clean, action, where, at):
    cluster.faults.add(action, **where)
    seen = batch(cluster)
    assert (seen.status, seen.end, seen.whole) == (200, "closed" if action == "cut" else "reset", False)
    assert seen.body == clean[:at]
    assert dechunk(seen.raw + b"0\r\n\r\n")[1] is (where == {"part": "end"})  # else inside a chunk


@pytest.mark.parametrize(("where", "at"), PLACES)
def test_cut_in_a_buffered_answer(cluster, where, at):
    # local and remote entries alike: the boundary is random, the archive and the metadata are not
    out, archive = parts(batch(cluster, moss(strm=False)).body)
    fault = cluster.faults.add("cut", **where)
    seen = batch(cluster, moss(strm=False))
    assert (seen.status, seen.end, seen.whole, fault.hits) == (200, "closed", False, 1)
    if "offset" in where:
        assert len(seen.body) == at
    elif where == {"part": "end"}:
        assert parts(seen.body)[1] == archive
        assert seen.body.endswith(b"--\r\n")
    else:
        got_out, got = parts(seen.body)
        assert (got_out, got) == (out, archive[:at])


@pytest.mark.parametrize(("where", "at"), [place for place in PLACES if place[0] != {"part": "end"}])
def test_clean_cut(cluster, clean, where, at):
    cluster.faults.add("cut", clean=True, times=2, **where)
    seen = batch(cluster)
    assert (seen.end, seen.whole, seen.body) == ("closed", True, clean[:at])
    seen = batch(cluster, moss(strm=False))
    assert seen.whole
    if "offset" in where:
        assert len(seen.body) == at
    else:
        out, archive = parts(seen.body)
        assert ([item["objname"] for item in out], archive) == (NAMES, clean[:at])


def test_clean_cut_in_a_compressed_archive(cluster, clean):
    cluster.faults.add("cut", clean=True, entry=1, part="data")
    seen = batch(cluster, moss(mime=".tgz"))
    assert seen.whole
    assert gzip.decompress(seen.body) == clean[: start_of(1) + 512 + 2500]
    lz4 = pytest.importorskip("lz4.frame")
    cluster.faults.add("cut", clean=True, entry=1, part="data")
    assert lz4.decompress(batch(cluster, moss(mime=".tar.lz4")).body) == clean[: start_of(1) + 512 + 2500]


def test_cut_of_a_compressed_archive(cluster):
    """What the compressor holds is lost, but for what went before."""
    cluster.faults.add("cut", entry=1, part="data")
    seen = batch(cluster, moss(mime=".tgz"))
    assert (seen.whole, seen.body) == (False, b"\x1f\x8b\x08\0\0\0\0\0\x04\xff")
    cluster.faults.add("cut", offset=100)
    seen = batch(cluster, moss(mime=".tgz"))
    assert (seen.whole, len(seen.body)) == (False, 100)


def test_corrupt_compressed_stream(cluster):
    whole = batch(cluster, moss(mime=".tgz")).body
    cluster.faults.add("corrupt", offset=len(whole) - 6)
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(batch(cluster, moss(mime=".tgz")).body)
    cluster.faults.add("corrupt", entry=1)  # the stream is right, the header in it is not
    plain = gzip.decompress(batch(cluster, moss(mime=".tgz")).body)
    assert plain[start_of(1) + 256] == 0xFF


def zip_start(index: int) -> int:
    """Offset of a member's local header in the ZIP of all objects; of the directory for the last index."""
    return sum(30 + len(f"train/{name}") + 9 + size + 16 for name, size in zip(NAMES[:index], SIZES, strict=False))


ZIP_PLACES = [
    ({"entry": 1}, zip_start(1)),
    ({"entry": 1, "part": "header"}, zip_start(1) + 30 + 5),
    ({"entry": 4, "part": "data"}, zip_start(4) + 50 + 1500),
    ({"entry": 3, "part": "padding"}, zip_start(4) - 8),
    ({"part": "trailer"}, zip_start(6)),
    ({"offset": 4321}, 4321),
]


@pytest.mark.parametrize(("where", "at"), ZIP_PLACES)
def test_places_in_a_zip(cluster, where, at):
    whole = batch(cluster, moss(mime=".zip")).body
    assert members(whole) == MEMBERS
    cluster.faults.add("cut", **where)
    seen = batch(cluster, moss(mime=".zip"))
    assert (seen.whole, seen.body) == (False, whole[:at])
    cluster.faults.add("cut", clean=True, **where)
    seen = batch(cluster, moss(mime=".zip"))
    assert (seen.whole, seen.body) == (True, whole[:at])
    if "offset" not in where:
        cluster.faults.add("cut", **where)
        assert parts(batch(cluster, moss(mime=".zip", strm=False)).body)[1] == whole[:at]
    if where != {"entry": 1}:
        cluster.faults.add("corrupt", **where)
        body = batch(cluster, moss(mime=".zip")).body
        assert [index for index, (a, b) in enumerate(zip(body, whole, strict=True)) if a != b] == [at]


def test_end_of_a_zip(cluster):
    cluster.faults.add("cut", part="end")
    seen = batch(cluster, moss(mime=".zip"))
    assert (seen.whole, members(seen.body)) == (False, MEMBERS)


@pytest.mark.parametrize("strm", [True, False])
def test_a_file_shorter_than_its_metadata(cluster, mime, strm):
    """A TAR is cut there; a ZIP is valid, with a member that is too short."""
    cluster.place("train", "1.bin", 0)
    stored = cluster.bucket("train").objects["1.bin"]
    stored.content = stored.data[:3000]
    seen = batch(cluster, moss(mime=mime, strm=strm))
    if mime == ".zip":
        archive = seen.body if strm else parts(seen.body)[1]
        assert members(archive) == [(name, data[:3000]) for name, data in MEMBERS]
        assert strm or [item["size"] for item in parts(seen.body)[0]] == list(SIZES)  # the metadata does not know
    elif strm:
        assert (seen.status, seen.whole) == (200, True)
        plain = seen.body
        if mime == ".tgz":
            plain = gzip.decompress(plain)
        elif mime == ".tar.lz4":
            plain = pytest.importorskip("lz4.frame").decompress(plain)
        assert len(plain) == start_of(1) + 512 + 3000
    else:
        assert (seen.status, seen.error["message"]) == (400, "archive/tar: missed writing 2000 bytes")


@pytest.mark.parametrize(
    ("plan", "order"),
    [
        ({"action": "duplicate", "entry": 1}, [0, 1, 1, 2, 3, 4, 5]),
        ({"action": "skip", "entry": 1}, [0, 2, 3, 4, 5]),
        ({"action": "swap", "entry": 0}, [1, 0, 2, 3, 4, 5]),
        ({"action": "duplicate", "entry": -1}, [0, 1, 2, 3, 4, 5, 5]),
    ],
)
def test_members_out_of_place(cluster, mime, plan, order):
    fault = cluster.faults.add(times=2, **plan)
    seen = batch(cluster, moss(mime=mime))
    assert (seen.whole, members(seen.body)) == (True, [MEMBERS[index] for index in order])
    out, archive = parts(batch(cluster, moss(mime=mime, strm=False)).body)
    assert members(archive) == [MEMBERS[index] for index in order]
    assert [item["size"] for item in out] == [SIZES[index] for index in sorted(set(order))]
    assert fault.hits == 2


def test_faults_that_meet(cluster, clean):
    cluster.faults.add("skip", entry=1)
    late = cluster.faults.add("swap", entry=1)
    cluster.faults.add("duplicate", entry=0)
    cluster.faults.add("rename", entry=0, name="x", times=None)
    cluster.faults.add("cut", entry=3, part="header")
    cluster.faults.add("stall", entry=2, seconds=0.05)
    seen = batch(cluster)
    again = b"".join(clean[start_of(a) : start_of(a + 1)] for a in (0, 0, 2)) + clean[start_of(3) :][:256]
    assert (len(seen.body), seen.whole, late.hits) == (len(again), False, 0)
    assert seen.body[2 * start_of(1) :] == again[2 * start_of(1) :]
    assert seen.silence >= 0.045


def test_wrong_name(cluster, mime):
    cluster.faults.add("rename", entry=2, name="train/ärger.bin", times=2)
    expected = [("train/ärger.bin", data) if index == 2 else (name, data) for index, (name, data) in enumerate(MEMBERS)]
    assert members(batch(cluster, moss(mime=mime)).body) == expected
    out, archive = parts(batch(cluster, moss(mime=mime, strm=False)).body)
    assert members(archive) == expected
    assert len(out) == len(NAMES)


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ({"entry": 1}, start_of(1) + 256),
        ({"entry": 1, "part": "data"}, start_of(1) + 3012),
        ({"offset": 9}, 9),
        ({"part": "trailer"}, start_of(6)),
    ],
)
def test_one_byte_inverted(cluster, clean, where, at):
    cluster.faults.add("corrupt", **where)
    seen = batch(cluster)
    assert seen.whole
    assert [index for index, (a, b) in enumerate(zip(seen.body, clean, strict=True)) if a != b] == [at]
    assert seen.body[at] == clean[at] ^ 0xFF


@pytest.mark.parametrize(("by", "names"), [(-1, NAMES[:-1]), (-6, []), (1, [*NAMES, NAMES[-1]])])
def test_metadata_that_does_not_fit(cluster, by, names):
    cluster.faults.add("out", by=by)
    out, archive = parts(batch(cluster, moss(strm=False)).body)
    assert [item["objname"].partition("/")[0] for item in out] == names
    assert members(archive) == MEMBERS


def test_a_range_comes_as_the_whole_object(cluster):
    cluster.faults.add("recover", entry=1, times=2)
    cluster.faults.add("recover", entry=4, seconds=0)
    entries = [
        {"objname": name, "start": 10, "length": 20} if size > 100 else name
        for name, size in zip(NAMES, SIZES, strict=True)
    ]
    seen = batch(cluster, moss(*entries))
    got = members(seen.body)
    assert [len(data) for _, data in got] == [20, 5000, 20, 0, 3000, 1]
    assert got[1] == MEMBERS[1]
    assert seen.silence >= cluster.max_wait * 0.9
    seen = batch(cluster, moss(*entries, strm=False))
    assert [item["size"] for item in parts(seen.body)[0]] == [20, 5000, 20, 0, 20, 1]
    assert seen.silence >= cluster.max_wait * 0.9


# -- the connection


@pytest.mark.parametrize("leg", ["proxy", "target"])
def test_before_the_status_line(cluster, leg):
    cluster.faults.add("cut", leg=leg)
    assert batch(cluster)[2:4] == (b"", "closed")
    cluster.faults.add("reset", leg=leg)
    assert batch(cluster)[2:4] == (b"", "reset")
    cluster.faults.add("garbage", leg=leg, data=b"SSH-2.0-none\r\n")
    assert batch(cluster)[:4] == (0, "", b"SSH-2.0-none\r\n", "closed")
    page = [("Content-Type", "text/html"), ("Retry-After", "1")]
    cluster.faults.add("reply", leg=leg, status=502, body=b"<html>Bad Gateway</html>", headers=page)
    seen = batch(cluster)
    assert (seen.status, seen.raw) == (502, b"<html>Bad Gateway</html>")
    assert "\r\nRetry-After: 1\r\n" in seen.head
    fault = cluster.faults.add("stall", leg=leg, seconds=0.1)
    began = time.monotonic()
    assert members(batch(cluster).body) == MEMBERS
    assert time.monotonic() - began >= 0.1
    assert fault.hits == 1


def test_empty_200(cluster):
    cluster.faults.add("empty", times=2)
    for mode in (True, False):
        seen = batch(cluster, moss(strm=mode))
        assert (seen.status, seen.raw) == (200, b"")
        assert seen.head.endswith("Content-Length: 0\r\nConnection: close")
        assert "Content-Type" not in seen.head


@pytest.mark.parametrize("where", [{"entry": 2}, {"entry": 1, "part": "data"}, {"offset": 100}, {"part": "end"}])
def test_stall(cluster, clean, where):
    fault = cluster.faults.add("stall", seconds=0.1, times=2, **where)
    seen = batch(cluster)
    assert (seen.whole, seen.body) == (True, clean)
    assert 0.09 <= seen.silence < 1
    seen = batch(cluster, moss(strm=False))
    assert members(parts(seen.body)[1]) == MEMBERS
    assert (seen.silence >= 0.09, fault.hits) == (True, 2)


def test_missing_though_it_is_there(cluster):
    for dt in (0, 1):  # local, remote
        cluster.faults.add("miss", entry="3.bin", times=2)
        missed = [("__404__/train/3.bin", b"") if name == "train/3.bin" else (name, data) for name, data in MEMBERS]
        assert members(batch(cluster, dt=dt).body) == missed
        out, archive = parts(batch(cluster, moss(strm=False), dt=dt).body)
        assert members(archive) == missed
        assert [item["objname"] for item in out if "err_msg" in item] == ["3.bin"]
        assert members(batch(cluster, dt=dt).body) == MEMBERS


def test_stop_ends_a_stall():
    with Cluster(1) as cluster:
        cluster.put("train", "o", b"data")
        fault = cluster.faults.add("stall", seconds=3600, entry=0)
        thread = threading.Thread(target=batch, args=(cluster, moss("o")))
        thread.start()
        assert fault.wait()
        began = time.monotonic()
    thread.join()
    assert time.monotonic() - began < 5


def test_drip(cluster, clean):
    cluster.faults.add("drip", size=100, every=0.002, entry=4, part="data")
    seen = batch(cluster)
    assert (seen.whole, seen.body) == (True, clean)
    rest = len(clean) - (start_of(4) + 512 + 1500)
    assert seen.raw.count(b"64\r\n") >= rest // 100 - 2  # chunks of 100 bytes
    assert seen.pieces > 10
    cluster.faults.add("drip", size=200)
    assert members(parts(batch(cluster, moss(strm=False)).body)[1]) == MEMBERS


def test_garbage_among_the_chunks(cluster, clean):
    cluster.faults.add("garbage", offset=3000)
    raw = batch(cluster).raw
    assert raw.endswith(b"\r\n\x16\x03\x01\x02 this is not HTTP\r\n\r\n")
    assert dechunk(raw[: raw.index(b"\x16")] + b"0\r\n\r\n") == (clean[:3000], True)


def test_slow_reader_is_cut_off(cluster):
    cluster.put("train", "large", bytes(4 << 20))
    cluster.faults.add("slow_reader", seconds=0.3)
    cluster.next_dt = 0
    body = moss("large", "0.bin")
    begin = threading.Event()
    reader = threading.Timer(0.8, begin.set)
    reader.start()
    seen = exchange(location(first_leg(cluster, body)), body=body, pause=begin)
    reader.join()
    assert (seen.status, seen.whole) == (200, False)
    assert 0 < len(seen.body) < 4 << 20
    assert len(members(batch(cluster, body).body)) == 2


def test_write_limit_of_a_cluster():
    with Cluster(1, write_limit=0.3) as cluster:
        cluster.put("train", "large", bytes(32 << 20))
        body = moss("large")
        begin = threading.Event()
        reader = threading.Timer(0.8, begin.set)
        reader.start()
        assert not exchange(location(first_leg(cluster, body)), body=body, pause=begin).whole
        reader.join()
        assert batch(cluster, body).whole


# -- errors

PROXY, RESERVE, TARGET = "GET /v1/ml/moss/train", "POST /v1/ml/moss/train/noxid/", "GET /v1/ml/moss/train/gbt-"
TEXTS = {
    "refused": (400, 'Post "http://127.0.0.1:', "connect: connection refused"),
    "timeout": (
        400,
        'Post "http://127.0.0.1:',
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    ),
    "dns": (400, 'Post "http://127.0.0.1:', ": no such host"),
    "no-targets": (400, "no storage targets in the cluster", ""),
    "token": (401, 'invalid token from header "Authorization": invalid token [err: token expired]: ', ""),
    "forbidden": (403, "bucket ais://train: GET access denied (allowed: [", "])"),
    "busy": (429, "x-get-batch[gbt-", " rejected: pending=256"),
    "pressure": (429, "x-get-batch[gbt-", ", pending=97)"),
    "not-ready": (503, "not ready yet", ""),
    "renewal": (409, "x-moss renewal (temp) conflict: [gbt-", "]"),
    "map": (409, "t[", "]"),
    "target-count": (400, "x-moss: expecting 3 targets, have 2", ""),
    "consumed": (404, "x-get-batch[gbt-", " (prep-rx not done?) does not exist"),
    "not-active": (409, 'x-moss: xid "gbt-', '" not active'),
    "pruned": (404, 'x-moss: xid "gbt-', '" not active'),
    "user-abort": (400, "user abort", ""),
    "peer-abort": (400, "remote target aborted xaction: x-get-batch[gbt-", "]: unexpected EOF"),
    "abandoned": (400, 'wi "', " abandoned (age 5m30s)"),
    "neighbour": (400, "GFN(ais://train/0.bin, t[", ": read: connection reset by peer"),
    "hole": (400, "x-get-batch[gbt-", ", total-wait=20s ]"),
    "membership": (400, "x-get-batch[gbt-", ", p=1]"),
    "budget": (400, "x-get-batch[gbt-", " exceeded soft-errors limit: 9 (max: 8)"),
    "missed-writing": (400, "archive/tar: missed writing 4014 bytes", ""),
    "damaged": (400, "archive/tar: invalid tar header", ""),
}


@pytest.mark.parametrize("kind", REFUSALS.keys() - {"rate-limit"})
def test_error(cluster, kind):
    fault = cluster.faults.add("error", kind=kind)
    refusal = REFUSALS[kind]
    if refusal.buffered:
        assert members(batch(cluster).body) == MEMBERS
    error = batch(cluster, moss(strm=False)).error
    status, begin, end = TEXTS[kind]
    assert (error["status"], fault.hits) == (status, 1)
    assert error["message"].startswith(begin)
    assert error["message"].endswith(end)
    assert "{" not in error["message"]
    assert error.get("tcode", "") == refusal.tcode
    assert error["node"] == (cluster.smap.proxy if refusal.leg == "proxy" else cluster.smap.targets[0]).name
    assert error["caller"] == (cluster.smap.proxy.name if refusal.leg == "reserve" else "")
    where = {"proxy": PROXY, "reserve": RESERVE, "target": TARGET}[refusal.leg]
    assert f"{error['method']} {error['url_path']}".startswith(where)
    assert members(batch(cluster).body) == MEMBERS


def test_the_redirect_that_was_consumed_says_what_a_real_one_says(cluster):
    body = moss()
    where = location(first_leg(cluster, body))
    assert exchange(where, body=body).whole
    real = exchange(where, body=body).error
    cluster.faults.add("error", kind="consumed")
    planned = batch(cluster).error
    assert (real["status"], real["tcode"]) == (planned["status"], planned["tcode"])
    assert real["message"].split(": ", 1)[1].split('"')[2] == planned["message"].split(": ", 1)[1].split('"')[2]


def test_faults_of_single_objects(cluster):
    cluster.faults.add("error", kind="rate-limit", request="object")
    cluster.faults.add("reset", request="object", leg="target", nth=2)
    parts = urlsplit(cluster.endpoint)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", "/v1/objects/train/1.bin")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["message"]) == (429, "Too Many Requests")
    connection.close()
    url = f"{cluster.endpoint}/v1/objects/train/1.bin"
    for end, data in (("closed", DATA[1]), ("reset", b""), ("closed", DATA[1])):
        seen = exchange(url)
        assert seen.status == 301
        target = next(line for line in seen.head.split("\r\n") if line.startswith("Location: "))[10:]
        assert exchange(target)[2:4] == (data, end)
    assert members(batch(cluster).body) == MEMBERS


# -- jobs and targets


@pytest.mark.parametrize("streaming", [True, False])
def test_an_abort_ends_all_answers_of_the_bucket(cluster, streaming):
    cluster.put("other", "x", b"x")
    body = moss(strm=streaming)
    gate = threading.Event()
    same: list[Seen] = []
    other: list[Seen] = []
    running = []
    for seen, where, entry in ((same, (body,), 4), (other, (moss("x"), "other"), 0)):
        held = cluster.faults.add("call", entry=entry, bucket=(*where, "train")[1], run=lambda _: gate.wait(10))
        thread = threading.Thread(target=lambda seen=seen, where=where: seen.append(batch(cluster, *where)))
        thread.start()
        assert held.wait()
        running.append(thread)
    cluster.faults.add("abort", entry=2)
    aborted = batch(cluster, body, dt=1)  # another target, the same bucket
    gate.set()
    for thread in running:
        thread.join()
    for answer, count in ((aborted, 2), (same[0], 4)):
        assert (answer.status, answer.whole) == (200, True)
        assert members(answer.body if streaming else parts(answer.body)[1]) == MEMBERS[:count]
    assert members(other[0].body) == [("other/x", b"x")]
    assert members(batch(cluster).body) == MEMBERS


def test_an_abort_between_the_two_legs(cluster):
    cluster.faults.add("abort")
    seen = batch(cluster)
    assert (seen.status, seen.error["message"]) == (400, "user abort")
    assert members(batch(cluster).body) == MEMBERS


def test_a_target_dies_in_mid_stream_and_comes_back(cluster):
    smap = cluster.smap
    smap.death_notice = 3600.0
    cluster.put("train", "large", bytes(1 << 20))
    cluster.place("train", "large", 0)
    cluster.faults.add("kill", entry=2)
    seen = batch(cluster, moss("0.bin", "large", *NAMES[1:]), dt=1)
    assert (seen.status, seen.whole) == (200, False)

    # it is in the map: refused as the designated target, missing to the others
    seen = batch(cluster, dt=1)
    assert (seen.status, seen.error["node"], seen.error["method"], seen.error["tcode"]) == (
        *(400, smap.proxy.name, "GET"),
        "Error",
    )
    host = f"127.0.0.1:{smap.targets[1].port}"
    assert seen.error["message"].startswith(f'Post "http://{host}/v1/ml/moss/train/noxid/')
    assert seen.error["message"].endswith(f'?tid={smap.targets[1].id}": dial tcp {host}: connect: connection refused')
    assert exchange(smap.targets[1].url + "/v1/health").end == "refused"
    seen = batch(cluster, dt=0)
    assert (seen.status, seen.whole, members(seen.body)) == (200, True, MEMBERS[:1])
    assert batch(cluster, moss(strm=False), dt=0).error["message"].startswith("GFN(ais://train/1.bin, t[")
    assert members(batch(cluster, moss("0.bin", "2.bin"), dt=0).body) == [MEMBERS[0], MEMBERS[2]]
    with pytest.raises(ValueError, match="dead already"):
        cluster.kill(1)

    # the same after a while, but after a silence: its death is to be noticed soon
    smap.troubled[1] = "dead", time.monotonic() - 2000
    seen = batch(cluster, dt=0)
    assert (members(seen.body), seen.silence >= cluster.max_wait * 0.9) == (MEMBERS[:1], True)

    # it has left the map
    version = int(json.loads(exchange(f"{cluster.endpoint}/v1/daemon?what=smap").body)["version"])
    smap.death_notice = 0.0
    document = json.loads(exchange(f"{cluster.endpoint}/v1/daemon?what=smap").body)
    assert len(document["tmap"]) == 2
    assert int(document["version"]) >= version
    body = moss()
    cluster.next_dt = 1  # cannot be
    where = location(first_leg(cluster, body))
    assert urlsplit(where).path.endswith("/2")
    assert [name for name, _ in members(exchange(where, body=body).body)] == [
        f"__404__/train/{name}" if index % 3 == 1 else f"train/{name}" for index, name in enumerate(NAMES)
    ]
    seen = exchange(f"{cluster.endpoint}/v1/objects/train/1.bin")
    assert seen.status == 301
    target = next(line for line in seen.head.split("\r\n") if line.startswith("Location: "))[10:]
    assert exchange(target).error["message"].endswith("ais://train/1.bin does not exist")
    listed = exchange(f"{cluster.endpoint}/v1/buckets/train", body=b'{"action":"list","value":{}}')
    assert [entry["name"] for entry in json.loads(listed.body)["entries"]] == [
        "0.bin",
        "2.bin",
        "3.bin",
        "5.bin",
        "large",
    ]

    # it comes back: running answers are cut, it is not ready, then its map is another, then all is well
    smap.settle = 3600.0
    cluster.faults.add("call", entry=3, run=lambda cluster: cluster.restore(1))
    seen = batch(cluster, moss("0.bin", "2.bin", "3.bin", "5.bin"), dt=0)
    assert (seen.whole, members(seen.body)) == (True, [MEMBERS[index] for index in (0, 2, 3)])
    error = batch(cluster, dt=1).error
    assert (error["status"], error["message"], error["method"]) == (503, "not ready yet", "POST")
    assert (error["caller"], error["node"]) == (smap.proxy.name, smap.targets[1].name)
    assert members(batch(cluster, dt=0).body) == MEMBERS[:1]
    smap.troubled[1] = "starting", time.monotonic() - 2000
    error = batch(cluster, dt=1).error
    assert (error["status"], error["method"]) == (409, "POST")
    assert error["message"].startswith(f"{smap.targets[1].name}: different Smap version from {smap.proxy.name}(")
    smap.settle = 0.0
    for dt in range(3):
        assert members(batch(cluster, dt=dt).body) == MEMBERS
    assert urlsplit(location(first_leg(cluster, body))).path.endswith("/3")
    assert not smap.troubled
    with pytest.raises(ValueError, match="not dead"):
        cluster.restore(1)


def test_a_peer_dies_while_the_answer_runs(cluster):
    cluster.faults.add("kill", entry=4, victim=1)
    seen = batch(cluster, dt=0)
    assert (seen.status, seen.whole, members(seen.body)) == (200, True, MEMBERS[:4])


def test_the_map_changes_while_the_answer_runs(cluster):
    """What lived on the target that left it is not reported missing: the answer ends."""
    cluster.smap.death_notice = cluster.smap.settle = 0.0
    cluster.faults.add("kill", entry=4, victim=1)
    seen = batch(cluster, dt=0)
    assert (seen.status, seen.whole, members(seen.body)) == (200, True, MEMBERS[:4])
    cluster.restore(1)
    cluster.faults.add("kill", entry=4, victim=1)
    error = batch(cluster, moss(strm=False), dt=0).error
    assert (error["status"], error["tcode"]) == (400, "ErrMembershipChange")
    assert "detected cluster membership change" in error["message"]
    assert members(batch(cluster, dt=0).body)[4] == ("__404__/train/4.bin", b"")  # the next one is of the new map


def test_idle_connections_of_a_dead_target_end(cluster):
    target = cluster.smap.targets[2]
    with socket.create_connection((target.host, target.port), timeout=10) as sock:
        sock.sendall(b"GET /v1/health HTTP/1.1\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        cluster.kill(2)
        assert sock.recv(4096) == b""
    cluster.restore(2)
    assert exchange(target.url + "/v1/health").status == 200


def test_all_targets_dead(cluster):
    cluster.smap.death_notice = 0.0
    for index in range(3):
        cluster.kill(index)
    error = batch(cluster).error
    assert (error["tcode"], error["message"]) == ("ErrNoNodes", "no storage targets in the cluster")
    for index in range(3):
        cluster.restore(index)
    cluster.smap.settle = 0.0
    assert members(batch(cluster).body) == MEMBERS


def test_targets_that_cannot_be_killed(cluster):
    with pytest.raises(ValueError, match="no target 3 among 3"):
        cluster.kill(3)
    with pytest.raises(RuntimeError, match="not running"):
        Cluster(1).kill(0)
    with pytest.raises(ValueError, match="write_limit"):
        Cluster(1, write_limit=0)


def test_stop_with_a_dead_target_frees_its_port():
    with Cluster(2) as cluster:
        port = cluster.smap.targets[1].port
        cluster.kill(1)
    with socket.create_server(("127.0.0.1", port)):
        pass
    with cluster:  # a new start is one of all targets
        assert not cluster.smap.troubled
        assert exchange(cluster.smap.targets[1].url + "/v1/health").status == 200
