"""What a hostile server may send, and what it costs us: an error that says what is wrong, little memory, little time.

What the decoders refuse byte by byte is in `test_decode_*.py`; here is what a whole answer, a flood or a claim shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from pathlib import Path

import pytest

import aisfast
import wire
from aisfast import settings
from aisfast.errors import AISError, AISTimeoutError, ErrObjNotFound, IncompleteBatchError, LimitError, WireError
from delivering import FORMS, cut, deliver, entries_of
from scripted import Last, Scripted, answer
from test_transport import Talking, client_of, fetch, redirect

KIB, MIB = 1 << 10, 1 << 20
ALL_FORMS = pytest.mark.parametrize("form", FORMS)
TAR_HEAD = wire.head(headers=[("Content-Type", "application/x-tar")])
MULTIPART_HEAD = wire.head(headers=[("Content-Type", f"multipart/mixed; boundary={wire.BOUNDARY}")])
ENTRY = wire.Entry("a", b"payload", opaque="eA==")
SOON = aisfast.Policy(deadline=0.4)
LIMIT = 10.0  # seconds over a deadline that are called a hang


def buffered(metadata: bytes, entries=(ENTRY,)) -> bytes:
    return wire.buffered(entries, metadata=metadata).raw


def with_field(key: str, value: str) -> bytes:
    """Metadata of ENTRY, one of its fields replaced by this JSON."""
    record = {name: json.dumps(was) for name, was in ENTRY.out().items()} | {key: value}
    return b'{"uuid":"x","out":[{%s}]}\n' % ",".join(f'"{k}":{v}' for k, v in record.items()).encode()


# ----------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("key", ["objname", "size", "opaque", "err_msg", "unknown", "archpath"])
@pytest.mark.parametrize("shape", ["[%s]", '{"a":%s}', '{"objname":%s}'])
def test_deep_metadata(key, shape):
    """Whatever depth JSON's parser takes, what we make of it does not fall over: no RecursionError, at no depth."""
    front, back = shape.split("%s")
    most = 60_000 // len(front + back)  # what fits into the metadata of one entry
    edge = bisect_left(range(most), True, key=lambda depth: not parses(front * depth + "0" + back * depth))
    for depth in sorted({1, 100, *range(max(1, edge - 60), edge + 4, 5), edge, most}):
        metadata = with_field(key, front * depth + "0" + back * depth)
        got = deliver(entries_of([ENTRY]), [buffered(metadata)], streaming=False)
        if got.error is None:
            assert key in ("unknown", "archpath")
        else:
            assert isinstance(got.error, WireError)
            assert got.error.layer in ("metadata", "batch")
            assert got.items == []
            assert len(str(got.error)) < 4 * KIB


def parses(text: str) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return False
    return True


NUMBERS = ["1e999", "-1e999", "NaN", "-1", "7.0", "true", "null", "9" * 4000, "9" * 5000, str(1 << 63), '"7"', "7e0"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:8])
def test_size_that_is_not_the_members(number):
    got = deliver(entries_of([ENTRY]), [buffered(with_field("size", number))], streaming=False)
    assert got.items == []
    assert isinstance(got.error, WireError)
    assert got.error.layer == "metadata"
    assert "b/a" in got.error.entry
    assert got.error.remedy
    assert len(str(got.error)) < 4 * KIB


def test_long_strings_are_not_quoted_whole():
    entry = wire.Entry("a", b"", missing=True)
    text = "x" * (50 * KIB)
    for metadata in (
        wire.metadata_json([entry.out() | {"objname": text}]),
        wire.metadata_json([entry.out() | {"opaque": text}]),
        wire.metadata_json([{text: 1}]),
    ):
        got = deliver(entries_of([entry]), [buffered(metadata, [entry])], streaming=False)
        assert isinstance(got.error, WireError)
        assert len(str(got.error)) < 4 * KIB


@pytest.mark.parametrize("text", ["\ud800", "\0", "\x1b[31m", "\u2028", "x" * 60000, ""])
def test_reasons_of_any_text(text):
    entry = wire.Entry("a", missing=True)
    record = json.dumps({"out": [entry.out() | {"err_msg": text}]}).encode() + b"\n"
    got = deliver(entries_of([entry]), [buffered(record, [entry])], streaming=False)
    assert got.error is None
    assert got.items == [(None, text or "Batch entry failed on the server")]


# --------------------------------------------------------------------------------------------------- memory

PEAK = """
import resource, sys
import wire
from aisfast._blocks import trim
from delivering import deliver, entries_of
from test_limits import FLOODS

entries, pieces, options = FLOODS[sys.argv[1]]()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
got = deliver(entries_of(entries), pieces, int(sys.argv[2]), **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, type(got.error).__name__, str(got.error)[:2000])
"""
HUGE = 10**18 - 1  # the longest Content-Length there is
CHUNKED = wire.head(headers=[("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked")])
MANY = [wire.Entry(f"object-{i}", b"x") for i in range(16)]


def _claimed_length():
    head = wire.head(headers=[("Content-Type", "application/x-tar"), ("Content-Length", str(HUGE))])
    return [ENTRY], [head + wire.member(b"b/a", b"payload")[:515]], {}


def _claimed_chunk():
    return [ENTRY], [CHUNKED + b"fffffffffffffff\r\n" + wire.header(b"b/a", 1 << 32)], {}


def _claimed_sizes():
    """Every member claims the largest size that is allowed, and none comes."""
    return [ENTRY], [TAR_HEAD + wire.header(b"b/a", wire.base256(1 << 50)) + bytes(600)], {"max_entry": 1 << 60}


def _small_records():
    """As many bytes of metadata as 16 entries may have, none of them a record."""
    size = 16 * settings.MAX_METADATA_PER_ENTRY
    return MANY, cut(buffered(b'{"out":[' + b"[]," * (size // 3) + b"0]}\n", MANY), 65536), {"streaming": False}


def _long_metadata():
    """More of it than 16 entries may have."""
    text = b"x" * (17 * settings.MAX_METADATA_PER_ENTRY)
    return MANY, cut(buffered(b'{"out":["%b"]}\n' % text, MANY), 65536), {"streaming": False}


def _pax_records():
    records = wire.record("comment", "x") * (settings.MAX_PAX // 13 - 1)
    return [ENTRY], [TAR_HEAD, *[wire.pax(records)] * 20], {}


def _long_names():
    return [ENTRY], [TAR_HEAD, *[wire.gnu_long(b"x" * (settings.MAX_PAX - 1))] * 20], {}


def _long_name():
    """A member whose name is as long as one may be, and not the one that was asked for."""
    return [ENTRY], [TAR_HEAD + wire.gnu_long(b"b/a" + b"x" * (settings.MAX_PAX - 4)) + wire.member(b"x")], {}


def _directories():
    return [ENTRY], [TAR_HEAD, *[wire.header(b"d/", 0, b"5") * 1000] * 40], {}


FLOODS = {
    "claimed length": _claimed_length,
    "claimed chunk": _claimed_chunk,
    "claimed sizes": _claimed_sizes,
    "small records": _small_records,
    "long metadata": _long_metadata,
    "pax records": _pax_records,
    "long names": _long_names,
    "long name": _long_name,
    "directories": _directories,
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize("flood", FLOODS)
def test_memory_of_a_flood(flood):
    """Measured in a process of its own: our memory pool is not seen by tracemalloc."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    form = FORMS[len(flood) % 3]
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, flood, str(int(form))], env=env, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    kib, error, text = ran.stdout.split(" ", 2)
    assert int(kib) < 64 * KIB
    assert error in ("IncompleteBatchError", "WireError", "LimitError")
    assert "b/a" in text or "b/object-0" in text or "multipart" in text  # the entry, or the part that is refused
    assert "REMEDY" in text


# ----------------------------------------------------------------------------------------------------- time


@ALL_FORMS
def test_tiny_chunks(form):
    """A payload in chunks of one byte takes linear time, and comes whole."""
    entries = [wire.Entry("a", bytes(range(256)) * KIB), wire.Entry("b", b"x")]
    raw = wire.streaming(entries, sizes=[1] * (256 * KIB + 2048)).raw
    started = time.process_time()
    got = deliver(entries_of(entries), cut(raw, 65536), form)
    assert got.error is None
    assert [payload for payload, _ in got.items] == [entry.payload for entry in entries]
    assert time.process_time() - started < 5


def flood(first: bytes, piece: bytes, gap: float = 0.0):
    """A server that sends `first`, then `piece` without end."""

    def talk(connection):
        if connection.request():
            connection.send(first)
            while True:
                time.sleep(gap)
                connection.send(piece)

    return Talking(talk)


DRIPS = {
    "head": b"HTTP/1.1 200 OK\r\nX: ",
    "error body": b"HTTP/1.1 400 Bad\r\n\r\n",
    "redirect body": b"HTTP/1.1 307 T\r\nLocation: /v1/x\r\n\r\n",
    "chunk extension": CHUNKED + b"1;",
    "pax": TAR_HEAD + wire.header(b"x", 1_000_000, b"x"),
    "skipped member": TAR_HEAD + wire.header(b"x", 1_000_000, b"V"),
    "payload": TAR_HEAD + wire.header(b"b/a", 1_000_000),
    "part headers": MULTIPART_HEAD + f"--{wire.BOUNDARY}\r\nA: ".encode(),
}


@pytest.mark.parametrize("what", DRIPS)
@pytest.mark.parametrize("resume", [True, False])
def test_drip_ends_with_the_deadline(what, resume):
    """No read ever waits long, so no time limit of the socket ends it."""
    policy = SOON.replace(deadline=0.3, resume=resume)
    with flood(DRIPS[what], b"x", gap=0.02) as server, client_of(server, policy=policy) as client:
        started = time.monotonic()
        batch = client.batch(["a", "b"], bucket=client.bucket("b"), streaming_get=what != "part headers")
        with pytest.raises(AISError) as caught:
            list(batch.get())
        assert 0.2 < time.monotonic() - started < 0.3 + LIMIT
        assert isinstance(caught.value, AISTimeoutError | IncompleteBatchError)


FLOODED = {
    "directories": wire.header(b"d/", 0, b"5") * 1000,
    "pax comments": wire.pax({"comment": "x" * 1_000_000}),
    "long names": wire.gnu_long(b"x" * 1_000_000),
    "skipped payload": wire.member(b"v", bytes(100_000), b"V"),
    "pax records": wire.pax(wire.record("c", "x") * 150_000),
}


@pytest.mark.parametrize("what", FLOODED)
def test_flood_without_a_member_ends(what):
    with flood(TAR_HEAD, FLOODED[what]) as server, client_of(server, policy=SOON) as client:
        started = time.monotonic()
        with pytest.raises((IncompleteBatchError, LimitError)) as caught:
            fetch(client)
        assert time.monotonic() - started < 0.4 + LIMIT
        assert "b/a" in str(caught.value)


@pytest.mark.parametrize("first", [b"HTTP/1.1 400 Bad\r\n\r\n", b"HTTP/1.1 307 T\r\nLocation: /v1/x\r\n\r\n"])
def test_body_of_an_error_or_redirect_without_end(first):
    """Only its beginning is read, and the connection closed."""
    with flood(first, b"because " * 8192) as server, client_of(server) as client:
        with pytest.raises(AISError) as caught:
            fetch(client)
        assert len(caught.value.message) <= settings.MAX_ERROR_BODY


# --------------------------------------------------------------------------------------------- what answers say


@pytest.mark.parametrize("status", [400, 404, 409, 429, 500, 503])
@pytest.mark.parametrize("nest", ["[", '{"message":', '{"a":[', '{"message":"x","b":' + "9" * 5000 + "}["])
def test_error_body_of_hostile_json(status, nest):
    reply = answer(status, nest.encode() * (50_000 if len(nest) < 99 else 1))
    with Scripted(lambda request: reply) as server, client_of(server) as client:
        with pytest.raises(AISError) as caught:
            fetch(client)
        assert caught.value.status_code == status
        with pytest.raises(AISError):
            client.bucket("b").list_all_objects()


HOSTILE_JSON = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"entries":[{"name":"x","size":1e999}]}',
    b'{"entries":[{"name":"x","size":' + b"9" * 5000 + b"}]}",
    b'{"entries":[{"name":1}]}',
    b'{"tmap":{"t":{"daemon_id":1e999}},"pmap":[],"version":1e999}',
    b"\xff\xfe\x00",
    b"null",
    b"",
]


@pytest.mark.parametrize("body", HOSTILE_JSON, ids=lambda body: repr(body[:24]))
def test_rest_answer_of_hostile_json(body):
    """Lists, maps, summaries: an error of ours or a result, nothing of json's."""
    found = []
    with Scripted(lambda request: answer(200, body)) as server, client_of(server) as client:
        for ask in (client.bucket("b").list_all_objects, client.cluster().get_info, client.bucket("b").summary):
            try:
                ask()
            except AISError as error:
                found.append(error)
    assert found  # a map it is for none of them
    for error in found:
        assert isinstance(error, WireError)
        assert error.layer == "http"
        assert len(str(error)) < 4 * KIB


@pytest.mark.parametrize("body", HOSTILE_JSON, ids=lambda body: repr(body[:24]))
def test_hostile_map_where_a_redirect_needs_one(body):
    """Whether a host is of the cluster cannot be told: not followed, and no token sent."""
    with Scripted(lambda request: Last(b"")) as stranger:

        def talk(request):
            return answer(200, body) if "daemon" in request.target else redirect(f"{stranger.url}/v1/x")

        with Scripted(talk) as server, client_of(server, token="secret") as client:
            with pytest.raises(AISError) as caught:
                fetch(client)
            assert "secret" not in str(caught.value)
        assert stranger.connections == 0


LENGTHS = [b"abc", b"-5", b"5, 6", b"1_0", b"0x5", b"9" * 5000, "\u0663".encode(), b"\xb2", b"5 5", b"+5"]


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: repr(length[:8]))
def test_length_that_is_none(length):
    reply = Last(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nContent-Length: " + length + b"\r\n\r\nhello")
    with Scripted(lambda request: reply) as server, client_of(server) as client, pytest.raises(WireError) as caught:
        fetch(client)
    assert "Content-Length" in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        b"http://h/\xff\xfe x",
        b"http://127.0.0.1:1/\x01",
        b"//[::1",
        b"http://a\xad/",
        b"http://\xe9\xe9.x/",
        b"http://127.0.0.1:%s/" % (b"1" * 5000),
        b"http://user:secret@127.0.0.1:1/",
        b"http://127.0.0.1:1\\@evil/",
        b"/" + b"x" * 60_000,
        b"gopher://127.0.0.1/",
        b"file:///etc/passwd",
        b"http://127.0.0.1:0/",
    ],
    ids=lambda location: repr(location[:24]),
)
def test_location_of_any_bytes(location):
    """Refused, or not reachable: an error of ours, on both paths."""
    reply = b"HTTP/1.1 307 T\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    policy = aisfast.Policy(resume=False, redirect_hosts=("127.0.0.1",))
    with Scripted(lambda request: reply) as server, client_of(server, policy=policy, timeout=1.0) as client:
        with pytest.raises(AISError):
            fetch(client)
        with pytest.raises(AISError) as caught:
            client.bucket("b").list_all_objects()
        assert len(server.requests) <= 2 * (settings.MAX_REDIRECTS + 1)
        assert "passwd" not in str(caught.value) or "no URL" in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Encoding: gzip\r\n\r\nnotgzip",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["many headers", "long header", "version", "chunk", "gzip", "tls"],
)
def test_rest_answer_of_hostile_http(head):
    with Scripted(lambda request: Last(head)) as server, client_of(server) as client, pytest.raises(AISError):
        client.bucket("b").list_all_objects()


def test_missing_of_any_number_names_a_few():
    """A batch of misses has an error whose text does not grow with them."""
    entries = [wire.Entry(f"object-{i}", missing=True) for i in range(5000)]
    got = deliver(entries_of(entries), [wire.streaming(entries).raw], FORMS[2], missing_raises=True)
    assert type(got.error) is ErrObjNotFound
    assert len(got.error.missing) == 5000
    assert len(str(got.error)) < 4 * KIB
