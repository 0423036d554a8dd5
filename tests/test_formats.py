"""Compressed archives and ZIPs: every form and mode, in pieces, cut anywhere, damaged anywhere.

The bytes are made by the standard library (gzip), the package lz4, and `go_zip`, which writes a ZIP as Go does: stored
members, sizes in data descriptors. `zipfile` reads it as an oracle.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from itertools import pairwise

import pytest

import aisfast
import wire
from aisfast._blocks import idle_memory, trim
from aisfast._delivery import Form, Want
from aisfast.emulator import Cluster
from aisfast.errors import AISConnectionError, ErrObjNotFound, IncompleteBatchError, LimitError, WireError
from delivering import FORMS, Feed, cut, deliver, delivery_of, entries_of
from scripted import Scripted

lz4 = pytest.importorskip("lz4.frame", reason="the package lz4 is not installed")

MIMES = [".tgz", ".tar.gz", ".tar.lz4", ".zip"]
TYPES = {".tgz": "application/gzip", ".tar.gz": "application/gzip", ".tar.lz4": "application/x-lz4"}
RNG = random.Random(6)
ENTRIES = [
    wire.Entry("a.txt", b"text " * 3000),
    wire.Entry("dir/é.bin", RNG.randbytes(5000)),
    wire.Entry("empty"),
    wire.Entry("gone", missing=True),
    wire.Entry("a.txt", b"text " * 3000),
    wire.Entry("s.tar", RNG.randbytes(700), archpath="in/m"),
]
RIGHT = [None if entry.missing else entry.payload for entry in ENTRIES]


def go_zip(entries: list[wire.Entry], wide: bool = False) -> bytes:
    """A ZIP as Go's archive/zip streams it; `wide`: with ZIP64 records although nothing needs them."""
    out, directory = bytearray(), bytearray()
    for entry in entries:
        name, crc, size = entry.member_name().encode(), zlib.crc32(entry.payload), len(entry.payload)
        flags = 8 if name.isascii() else 8 | 0x800
        extra = b"UT\5\0\1" + struct.pack("<I", 0)
        at = len(out)
        out += struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, 0, 0, 0, 0, 0, 0, len(name), len(extra)) + name + extra
        out += entry.payload + struct.pack("<4s3I", b"PK\7\x08", crc, size, size)
        numbers = (crc, 0xFFFFFFFF, 0xFFFFFFFF) if wide else (crc, size, size)
        more = struct.pack("<2H3Q", 1, 24, size, size, at) if wide else b""
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, flags, 0, 0, 0, *numbers, len(name), len(extra) + len(more), len(name),
            0, 0, 0, 0xFFFFFFFF if wide else at,
        ) + name + extra + more + name  # fmt: skip
    begin = len(out)
    out += directory
    if wide:
        end = len(out)
        out += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(entries), len(entries), len(directory), begin)
        out += struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        out += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    else:
        out += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), begin, 0)
    return bytes(out)


def archive(mime: str, entries: list[wire.Entry]) -> bytes:
    if mime == ".zip":
        return go_zip(entries)
    tar = wire.streaming(entries).body
    if mime == ".tar.lz4":
        return lz4.compress(tar, block_size=lz4.BLOCKSIZE_MAX256KB, block_linked=False, content_checksum=True)
    return gzip.compress(tar, 1, mtime=0)


def answer(mime: str, body: bytes, streaming: bool, entries: list[wire.Entry] = ENTRIES) -> bytes:
    """The answer on the wire, in small chunks."""
    kind = TYPES.get(mime, "application/zip")
    if not streaming:
        body = wire.multipart(wire.metadata_json([entry.out() for entry in entries]), body)
        kind = f"multipart/mixed; boundary={wire.BOUNDARY}"
    head = wire.head(headers=[("Content-Type", kind), ("Transfer-Encoding", "chunked")])
    return head + wire.chunked(body, [999] * 50)


def asked(entries: list[wire.Entry] = ENTRIES):
    return entries_of(entries)


@pytest.fixture(params=MIMES)
def mime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["streaming", "buffered"])
def streaming(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_the_zip_is_one() -> None:
    for wide in (False, True):
        with zipfile.ZipFile(io.BytesIO(go_zip(ENTRIES, wide))) as file:
            assert file.testzip() is None
            assert [file.read(info) for info in file.infolist()] == [entry.payload for entry in ENTRIES]


@pytest.mark.parametrize("plan", [1 << 20, 1000, 7, 1])
def test_whole(mime: str, streaming: bool, form: int, plan: int) -> None:
    raw = answer(mime, archive(mime, ENTRIES), streaming)
    got = deliver(asked(), cut(raw, plan), form, streaming=streaming, mime=mime)
    assert got.error is None
    assert [payload for payload, _ in got.items] == RIGHT
    assert got.feed.reusable


@pytest.mark.parametrize("lacks", [1, 3, 30, 300, 3000])
def test_cut(mime: str, streaming: bool, form: int, lacks: int) -> None:
    """Whatever of the archive does not come, the batch is not whole; what was verified before stands."""
    body = archive(mime, ENTRIES)
    raw = answer(mime, body, streaming)
    end = 5 + (0 if streaming else len(f"\r\n--{wire.BOUNDARY}--\r\n"))  # terminal chunk and closing delimiter
    got = deliver(asked(), [raw[: -end - 2 - lacks]], form, streaming=streaming, mime=mime)
    assert type(got.error) is IncompleteBatchError
    assert type(got.error.__cause__) is AISConnectionError
    assert [payload for payload, _ in got.items] == RIGHT[: len(got.items)]
    assert len(got.items) < len(RIGHT)
    clean = answer(mime, body[:-lacks], streaming)
    got = deliver(asked(), [clean], form, streaming=streaming, mime=mime)
    assert isinstance(got.error, IncompleteBatchError | WireError)
    assert [payload for payload, _ in got.items] == RIGHT[: len(got.items)]


def test_short(mime: str, streaming: bool, form: int) -> None:
    """A whole archive of fewer entries."""
    raw = answer(mime, archive(mime, ENTRIES[:3]), streaming, ENTRIES[:3])
    got = deliver(asked(), [raw], form, streaming=streaming, mime=mime)
    assert type(got.error) is IncompleteBatchError
    assert (got.error.received, [payload for payload, _ in got.items]) == (3, RIGHT[:3])


def test_damage(mime: str, streaming: bool) -> None:
    """One byte changed anywhere: never wrong data, but where the format has no checksum of payloads."""
    body = archive(mime, ENTRIES)
    draw = random.Random(mime)
    for at in sorted(draw.sample(range(len(body)), 300)):
        changed = body[:at] + bytes([body[at] ^ (1 << draw.randrange(8))]) + body[at + 1 :]
        got = deliver(asked(), [answer(mime, changed, streaming)], 0, streaming=streaming, mime=mime)
        if got.error is None:
            assert [payload for payload, _ in got.items] == RIGHT, at  # in what is not read: times, padding
        else:
            assert isinstance(got.error, IncompleteBatchError | WireError)


@pytest.mark.parametrize("mime", [".tgz", ".tar.lz4"])
def test_wrong_checksum_at_the_end(mime: str, streaming: bool, form: int) -> None:
    body = bytearray(archive(mime, ENTRIES))
    body[-8 if mime == ".tgz" else -1] ^= 1
    got = deliver(asked(), [answer(mime, bytes(body), streaming)], form, streaming=streaming, mime=mime)
    assert type(got.error) is WireError
    assert got.error.layer in ("gzip", "lz4")
    assert len(got.items) < len(RIGHT)


@pytest.mark.parametrize("mime", [".tgz", ".tar.lz4"])
@pytest.mark.parametrize("way", ["get", "stream", "fetch"])
def test_damage_after_entries_were_handed_out_is_final(mime: str, way: str, streaming: bool) -> None:
    """Asked again, the rest would come right, and what was handed out would stay wrong."""
    entries = [wire.Entry(str(i), RNG.randbytes(300_000)) for i in range(5)]
    body = bytearray(archive(mime, entries))
    body[100_000] ^= 1
    bad, good = (answer(mime, bytes(each), streaming, entries) for each in (body, archive(mime, entries)))
    replies = [bad, good]
    with (
        Scripted(lambda request: replies.pop(0)) as server,
        aisfast.Client(server.url, policy=aisfast.Policy(redirect_hosts=["127.0.0.1"])) as client,
    ):
        batch = client.batch(
            [entry.name for entry in entries], bucket=client.bucket("b"), output_format=mime, streaming_get=streaming
        )
        with pytest.raises(WireError):
            list(getattr(batch, way)())
        assert replies == [good]


@pytest.mark.parametrize("mime", MIMES)
def test_a_whole_object_in_place_of_a_range_is_no_damage(mime: str) -> None:
    with Cluster(tail_delay=0) as cluster, aisfast.Client(cluster.endpoint) as client:
        for name in "abc":
            cluster.put("b", name, name.encode() * 5000)
        batch = client.batch("a", bucket=client.bucket("b"), output_format=mime).add("b", start=100, length=7).add("c")
        cluster.faults.add("recover", entry="b", seconds=0, times=None)
        assert [data for _, data in batch.get()] == [b"a" * 5000, b"b" * 7, b"c" * 5000]


def test_gzip_in_several_members(streaming: bool, form: int) -> None:
    tar = wire.streaming(ENTRIES).body
    body = b"".join(gzip.compress(tar[i : i + 9000], 1) for i in range(0, len(tar), 9000))
    for plan in (1 << 20, 1):
        got = deliver(asked(), cut(answer(".tgz", body, streaming), plan), form, streaming=streaming, mime=".tgz")
        assert (got.error, [payload for payload, _ in got.items]) == (None, RIGHT)


@pytest.mark.parametrize("mime", [".tgz", ".tar.lz4"])
def test_bomb_behind_the_last_entry(mime: str) -> None:
    tar = wire.streaming(ENTRIES).body + bytes(50_000_000)
    body = gzip.compress(tar, 9) if mime == ".tgz" else lz4.compress(tar)
    got = deliver(asked(), [answer(mime, body, True)], 0, mime=mime)
    assert type(got.error) is WireError
    assert "64 KiB" in str(got.error)


@pytest.mark.parametrize("mime", [".tgz", ".tar.lz4", ".zip"])
def test_entry_over_the_limit(mime: str, streaming: bool, form: int) -> None:
    raw = answer(mime, archive(mime, ENTRIES), streaming)
    got = deliver(asked(), [raw], form, streaming=streaming, mime=mime, max_entry=14_999)
    assert type(got.error) is LimitError
    assert got.items == []
    assert "a.txt" in got.error.entry


def test_large_payloads(mime: str, streaming: bool, form: int) -> None:
    """Larger than every buffer; compressible, and not."""
    entries = [wire.Entry("x", RNG.randbytes(3_000_000)), wire.Entry("y", bytes(9_000_000)), wire.Entry("z", b"end")]
    raw = answer(mime, archive(mime, entries), streaming, entries)
    got = deliver(asked(entries), [raw], form, streaming=streaming, mime=mime)
    assert got.error is None
    assert [payload for payload, _ in got.items] == [entry.payload for entry in entries]


def test_missing_raises(mime: str, streaming: bool, form: int) -> None:
    raw = answer(mime, archive(mime, ENTRIES), streaming)
    got = deliver(asked(), [raw], form, streaming=streaming, mime=mime, missing_raises=True)
    assert type(got.error) is ErrObjNotFound
    assert got.error.missing == (3,)


def test_zip64(streaming: bool, form: int) -> None:
    raw = answer(".zip", go_zip(ENTRIES, wide=True), streaming)
    got = deliver(asked(), [raw], form, streaming=streaming, mime=".zip")
    assert (got.error, [payload for payload, _ in got.items]) == (None, RIGHT)


def test_zip_members_of_every_size(form: int) -> None:
    """Their CRCs are taken in strides of 16, 64 and 128 bytes, and from 64 KiB on without the GIL."""
    sizes = [*range(400), *range(65_500, 65_600, 7), 1 << 20]
    entries = [wire.Entry(str(i), RNG.randbytes(size)) for i, size in enumerate(sizes)]
    raw = answer(".zip", go_zip(entries), True)
    got = deliver(asked(entries), [raw], form, mime=".zip")
    assert (got.error, [payload for payload, _ in got.items]) == (None, [entry.payload for entry in entries])


@pytest.mark.parametrize("size", [1, 63, 64, 300, 5000, 70_000])
def test_zip_payload_damaged(size: int) -> None:
    """One bit, wherever: the entries before are delivered, and the error tells both sums."""
    first, payload = wire.Entry("first", b"right"), RNG.randbytes(size)
    body = go_zip([first, wire.Entry("second", payload)])
    begin = body.index(b"b/second") + len("b/second") + 9  # behind the local header's extra field
    assert body[begin:].startswith(payload)
    for at in {0, size // 3, size // 2, size - 1}:
        changed = bytearray(body)
        changed[begin + at] ^= 1 << at % 8
        got = deliver(asked([first, wire.Entry("second")]), [answer(".zip", bytes(changed), True)], mime=".zip")
        assert type(got.error) is WireError
        assert [payload for payload, _ in got.items] == [b"right"]
        found = zlib.crc32(changed[begin : begin + size])
        sums = f"{zlib.crc32(payload):08x}", f"{found:08x}"
        assert (got.error.layer, got.error.expected, got.error.found) == ("zip", *sums)


@pytest.mark.parametrize("given", [0, 10, 100_000, 10_000_000])
def test_zip_columns_with_an_entry_from_elsewhere(streaming: bool, given: int) -> None:
    """The payloads of a ZIP are put together within its own memory, where one from elsewhere may have no room."""
    delivery = delivery_of(asked(), Form.COLUMNS, streaming=streaming, mime=".zip")
    delivery.hold_misses = True
    feed = Feed(delivery, [answer(".zip", go_zip(ENTRIES), streaming)], streaming)
    feed.open()
    payload = RNG.randbytes(given)
    while not delivery.fill():
        if delivery.want == Want.MISS:
            delivery.supply(payload)
        else:
            feed.pump()
    feed.finish()
    data, offsets, _ = delivery.columns()
    at = memoryview(offsets).cast("q").tolist()
    got = [bytes(memoryview(data)[begin:end]) for begin, end in pairwise(at)]
    assert got == [payload if right is None else right for right in RIGHT]


def test_zip_damaged_and_asked_again(streaming: bool) -> None:
    """What came before the damage stands, in whatever memory; the rest joins it."""
    entries = [wire.Entry(str(i), RNG.randbytes(40_000 * i)) for i in range(6)]
    body = bytearray(go_zip(entries))
    body[body.index(entries[2].payload)] ^= 1
    replies = [
        answer(".zip", bytes(body), streaming, entries),
        answer(".zip", go_zip(entries[2:]), streaming, entries[2:]),
    ]
    with (
        Scripted(lambda request: replies.pop(0)) as server,
        aisfast.Client(server.url, policy=aisfast.Policy(redirect_hosts=["127.0.0.1"])) as client,
    ):
        batch = client.batch(
            [entry.name for entry in entries], bucket=client.bucket("b"), output_format=".zip", streaming_get=streaming
        )
        columns = batch.fetch()
    assert [bytes(item) for item in columns] == [entry.payload for entry in entries]
    assert (columns.stats.resumes, replies) == (1, [])


def test_zip_memory_is_reused(streaming: bool) -> None:
    """Once the size of entries is known, the next archive takes the memory of the one before."""
    entries = [wire.Entry(str(i), payload) for i, payload in enumerate([RNG.randbytes(900_000)] * 10)]
    raw = answer(".zip", go_zip(entries), streaming, entries)
    trim()
    idle = []
    for _ in range(3):
        got = deliver(asked(entries), [raw], streaming=streaming, mime=".zip", expected=9_000_000)
        assert got.error is None
        del got
        idle.append(idle_memory())
    assert 9_000_000 < idle[0] < 20_000_000
    assert idle == idle[:1] * 3


def test_no_archive_at_all(mime: str) -> None:
    for body in (b"", b"no", RNG.randbytes(4000), bytes(1024), b"PK\5\6" + bytes(18)):
        got = deliver(asked(), [answer(mime, body, True)], 0, mime=mime)
        assert isinstance(got.error, IncompleteBatchError | WireError)
        assert got.items == []


def test_zip_directories_that_lie() -> None:
    """Random numbers in place of those of the directory: an error, or the truth."""
    body = go_zip(ENTRIES)
    begin = body.index(b"PK\1\2")
    draw = random.Random(9)
    for _ in range(2000):
        at = draw.randrange(begin, len(body) - 4)
        number = struct.pack("<I", draw.choice([0, 1, 20, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, draw.randrange(1 << 32)]))
        got = deliver(asked(), [answer(".zip", body[:at] + number + body[at + 4 :], True)], 1, mime=".zip")
        if got.error is None:
            assert [payload for payload, _ in got.items] == RIGHT
        else:
            assert isinstance(got.error, IncompleteBatchError | WireError)
