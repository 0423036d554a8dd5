"""The builders write what a real cluster wrote, and the oracle reads it: other tests lean on both."""

import hashlib
import itertools

import pytest

import captures
import oracle
import wire

TAR = [name for name in captures.names() if captures.is_tar(name) and captures.load(name)[1]["status"] == 200]
FLUSHED = [
    "3t-badrange-remote",
    "3t-damaged-cut-remote-after",
]  # silences of 20 s: the server flushed in between


@pytest.mark.parametrize("name", TAR)
def test_oracle_reads_recordings(name):
    raw, meta = captures.load(name)
    decoded = oracle.decode(raw)
    assert decoded.status == 200
    whole = meta["end"] in ("terminal-chunk", "content-length") and meta["trailer"]
    assert (decoded.reason is None) == whole
    assert len(decoded.members) == meta["delivered"]
    for (member, payload), entry in zip(decoded.members, meta["entries"], strict=False):
        right = entry.get("got", entry)
        assert member == entry["member"]
        assert len(payload) == right["size"]
        assert right["sha256"] in (None, hashlib.sha256(payload).hexdigest())
    assert decoded.metadata is None or len(decoded.metadata["out"]) == meta["out"]


@pytest.mark.parametrize(
    "name", [name for name in TAR if name not in FLUSHED and captures.load(name)[1]["trailer"]]
)
def test_builders_write_the_recorded_bytes(name):
    raw, _ = captures.load(name)
    decoded = oracle.decode(raw)
    entries = [
        wire.Entry("any", payload, member=member, mtime=int(mtime))
        for (member, payload), mtime in zip(decoded.members, decoded.mtimes, strict=True)
    ]
    date = [("Date", decoded.headers["date"])]
    if decoded.metadata is None:
        assert wire.streaming(entries, headers=date).raw == raw
    else:
        xid, boundary = decoded.metadata["uuid"], decoded.headers["content-type"].rpartition("=")[2]
        out = decoded.metadata["out"]
        assert wire.buffered(entries, headers=date, out=out, xid=xid, boundary=boundary).raw == raw


@pytest.mark.parametrize("build", [wire.streaming, wire.buffered])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"length": True},
        {"sizes": [1] * 5000},
        {"sizes": [700, 0, 3], "extension": b";a=b", "trailers": b"X: y\r\n"},
    ],
    ids=["go", "length", "bytes", "extensions"],
)
def test_ends_are_the_last_payload_bytes(build, form):
    entries = [
        wire.Entry("a", b"x" * 1500),
        wire.Entry("b"),
        wire.Entry("é", b"y" * 512),
        wire.Entry("c", b"z"),
    ]
    answer = build(entries, **form)
    assert oracle.decode(answer.raw).reason is None
    for i, end in enumerate(answer.ends):
        whole = oracle.decode(answer.raw[:end]).members
        assert (
            whole
            == [(name, entry.payload) for name, entry in zip(answer.members, entries, strict=True)][: i + 1]
        )
        assert len(oracle.decode(answer.raw[: end - 1]).members) <= i


@pytest.mark.parametrize(
    ("writes", "sizes"),
    [
        ([512, 100, 412] * 4 + [512] * 2, [2048, 2048, 1024]),
        (([512, 5000, 120] * 2) + [512] * 2, [2048, 3464, 2048, 3584, 1144]),
        (
            [512, 32768, 32768, 32768, 1696, 352] * 3 + [512] * 2,
            [
                2048,
                31232,
                32768,
                32768,
                2048,
                2048,
                31232,
                32768,
                32768,
                2048,
                2048,
                31232,
                32768,
                32768,
                2048,
                1024,
            ],
        ),
    ],
)
def test_go_chunks(writes, sizes):
    assert wire.go_chunks(writes) == sizes
    assert sum(sizes) == sum(writes)


def test_long_numbers_and_records():
    assert wire.base256(-1) == b"\xff" * 12
    assert wire.base256(5) == b"\x80" + bytes(10) + b"\x05"
    assert [len(wire.record("k", "v" * n)) for n in range(200)] == [
        int(wire.record("k", "v" * n).split()[0]) for n in range(200)
    ]
    assert wire.record("mtime", "-1755800000") == b"21 mtime=-1755800000\n"
    assert all(len(b) % 512 == 0 for b in itertools.chain(wire.headers("é" * 900, 1 << 33, -1)))
