"""Whatever is drawn, our decoders read what the standard library reads, and `json` reads what we write."""

import base64
import contextlib
import io
import json
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import wire
from aisfast._decode import Framing, Multipart, TarReader, boundary_of, parse_head
from aisfast._request import Entries
from aisfast.errors import WireError
from feeding import AnswerDecoder, FramingDecoder, assert_beginning, run

settings.register_profile(
    "aisfast",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("aisfast")

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
PATHS = st.one_of(
    st.text("abc/.é日 ", min_size=1, max_size=30),
    st.integers(90, 300).map(lambda n: ("dir/" * 80 + "name")[-n:]),
    st.integers(90, 300).map(lambda n: "n" * n),
    TEXT,
).map(lambda name: name.strip("/") or "x")
PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.tuples(
        st.sampled_from([b"x", b"\0", b"\r\n", b"\r\n--" + wire.BOUNDARY.encode()]), st.integers(0, 3000)
    ).map(lambda pair: (pair[0] * pair[1])[: pair[1]]),
)
MTIMES = st.one_of(st.just(0), st.integers(-(1 << 40), 1 << 40))
ENTRIES = st.lists(
    st.builds(
        wire.Entry,
        name=PATHS,
        payload=PAYLOADS,
        archpath=st.none() | PATHS,
        bucket=st.sampled_from(["b", "other-bucket", "__404__"]),
        missing=st.just(False),
        member=st.none(),
        mtime=MTIMES,
        opaque=st.none(),
        err_msg=st.none(),
    ),
    max_size=6,
)
SIZES = st.one_of(st.none(), st.lists(st.integers(1, 3000), max_size=12), st.just([1] * 600))


CUTS = st.one_of(st.sampled_from([1, 7, 512, 2048, 1 << 30]), st.lists(st.floats(0, 1), max_size=12))


def cut(raw, plan):
    """`raw` in pieces: of one size, or cut at these fractions of it."""
    if isinstance(plan, int):
        return [raw[i : i + plan] for i in range(0, len(raw), plan)]
    stops = sorted(int(fraction * len(raw)) for fraction in plan)
    return [raw[a:b] for a, b in zip([0, *stops], [*stops, len(raw)], strict=True)]


def place(error):
    """What must be the same about an error however the input was cut; the bytes it quotes need not be."""
    return error and (type(error), error.layer, error.offset)


def members(events):
    """The events of these members, as (name, payload) of those that are whole."""
    found = []
    for event in events:
        if event[0] == "member":
            found.append((event[1].decode(), event[2], b""))
        elif event[0] == "data":
            name, size, _ = found[-1]
            found[-1] = (name, size, event[1])
    return [(name, payload) for name, size, payload in found if size == len(payload)]


# ----------------------------------------------------------------------------------- whole answers


@given(CUTS, ENTRIES, SIZES, st.booleans(), st.booleans())
def test_streaming_answer(cuts, entries, sizes, onob, length):
    answer = wire.streaming(
        entries, onob=onob, sizes=sizes, length=length, trailers=b"" if length else b"A: b\r\n"
    )
    outcome = run(AnswerDecoder, cut(answer.raw, cuts))
    assert outcome.done
    assert outcome.error is None
    found = members(outcome.events)
    assert found == [(name, entry.payload) for name, entry in zip(answer.members, entries, strict=True)]
    theirs = oracle.decode(answer.raw)
    assert theirs.reason is None
    assert theirs.members == found


@given(
    CUTS,
    ENTRIES,
    SIZES,
    st.one_of(st.just(wire.BOUNDARY), st.text("abcXYZ019'+_-./:=?", min_size=1, max_size=70)),
)
def test_buffered_answer(cuts, entries, sizes, boundary):
    answer = wire.buffered(entries, sizes=sizes, boundary=boundary)
    outcome = run(AnswerDecoder, cut(answer.raw, cuts))
    assert outcome.done
    assert outcome.error is None
    (_, (kind, metadata), *events) = outcome.events
    found = members(events)
    assert kind == "metadata"
    assert [entry["objname"] for entry in json.loads(metadata)["out"]] == [entry.name for entry in entries]
    assert found == [(name, entry.payload) for name, entry in zip(answer.members, entries, strict=True)]
    theirs = oracle.decode(answer.raw)
    assert theirs.reason is None
    assert (theirs.members, theirs.metadata) == (found, json.loads(metadata))


@given(CUTS, ENTRIES, SIZES, st.booleans(), st.floats(0, 1, exclude_max=True))
def test_prefix_of_an_answer(cuts, entries, sizes, buffered, fraction):
    """It never ends well, and gives the members whose last byte it holds and no other."""
    answer = (wire.buffered if buffered else wire.streaming)(entries, sizes=sizes)
    stop = int(fraction * len(answer.raw))
    outcome = run(AnswerDecoder, cut(answer.raw[:stop], cuts))
    assert not outcome.done
    assert not outcome.fed
    found = members(outcome.events)
    assert found == [(name, e.payload) for name, e in zip(answer.members, entries, strict=True)][: len(found)]
    came = sum(end <= stop for end in answer.ends)
    if buffered:
        assert len(found) <= came  # multipart holds back what may be its end
    else:
        assert len(found) == came


@given(CUTS, ENTRIES, st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_damaged_answer(cuts, entries, buffered, fraction, flip):
    """One byte changed: whatever comes of it, it comes at any split; and it is an ending or a `WireError`."""
    answer = (wire.buffered if buffered else wire.streaming)(entries, headers=())
    raw = bytearray(answer.raw)
    raw[answer.head_size + int(fraction * (len(raw) - answer.head_size))] ^= flip
    whole = run(AnswerDecoder, [bytes(raw)])
    pieces = run(AnswerDecoder, cut(bytes(raw), cuts))
    assert pieces.done == whole.done
    assert (pieces.error is None) == (
        whole.error is None
    )  # which layer finds it first depends on how much it got
    if whole.error is None:
        assert pieces.events == whole.events
    else:
        assert_beginning(whole.events, pieces.events)


# ------------------------------------------------------------------------------------- one decoder


@given(
    CUTS,
    st.binary(max_size=5000),
    st.lists(st.integers(1, 900), max_size=20),
    st.sampled_from([b"", b";a", b';a="b;c"', b" ;x=y"]),
    st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: " + b"c" * 300 + b"\r\n"]),
    st.binary(max_size=20),
)
def test_chunked(cuts, body, sizes, extension, trailers, behind):
    raw = wire.chunked(body, sizes, extension=extension, trailers=trailers)
    outcome = run(lambda: FramingDecoder(Framing.chunked()), cut(raw + behind, cuts))
    assert outcome.done
    assert outcome.events == ([("data", body)] if body else [])
    framing = Framing.chunked()
    framing.feed(raw + behind)
    assert (framing.offset, framing.excess) == (len(raw), len(behind))


@given(CUTS, st.text("0123456789abcdefABCDEFxX+-_ \t;\r\ng", max_size=6))
def test_chunk_size_is_hex_digits(cuts, size):
    """A size line is taken if it is hex digits, maybe with an extension; it then means int(_, 16)."""
    raw = size.encode() + b"\r\n" + b"y" * 300
    outcome = run(lambda: FramingDecoder(Framing.chunked()), cut(raw, cuts))
    line = (size + "\r\n").partition("\r\n")[0]
    digits = line.partition(";")[0].rstrip(" \t") if ";" in line else line
    if not digits or not set(digits) <= set("0123456789abcdefABCDEF") or set(line) & set("\r\n"):
        assert isinstance(outcome.error, WireError)
    elif int(digits, 16):
        payload = raw[len(line) + 2 :][: int(digits, 16)]
        assert_beginning(outcome.events, [("data", payload)])
    else:
        assert outcome.events == []


@given(CUTS, st.binary(max_size=2000), st.binary(max_size=2000), st.text("abc-'019", min_size=1, max_size=70))
def test_multipart(cuts, metadata, archive, boundary):
    marker = boundary.encode()
    if b"\r\n--" + marker in metadata + b"\r\n--" + marker[:-1]:
        metadata = b""
    raw = wire.multipart(metadata, archive, boundary)
    assert boundary_of(f'multipart/mixed; boundary="{boundary}"') == marker
    outcome = run(lambda: Multipart(marker), cut(raw, cuts))
    assert outcome.done
    assert outcome.events == [("metadata", metadata)] + ([("archive", archive)] if archive else [])


@given(
    CUTS,
    st.lists(
        st.tuples(
            PATHS,
            st.binary(max_size=1200),
            st.sampled_from([tarfile.REGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]),
            st.integers(-1 << 33, 1 << 36).map(lambda quarters: quarters / 4),
        ),
        min_size=1,  # `tarfile` takes a global header and nothing else for no archive
        max_size=5,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.dictionaries(st.sampled_from(["comment", "VENDOR.key"]), TEXT, max_size=2),
)  # fmt: skip
def test_tar_of_tarfile(cuts, files, form, pax_headers):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", pax_headers=pax_headers) as tar:
        for name, payload, kind, mtime in files:
            info = tarfile.TarInfo(name)
            info.type, info.mtime = kind, mtime if form == tarfile.PAX_FORMAT else max(0, int(mtime))
            regular = info.isreg()
            info.size = len(payload) if regular else 0
            info.linkname = "l" * 120 if kind == tarfile.SYMTYPE else ""
            tar.addfile(info, io.BytesIO(payload) if regular else None)
    raw = out.getvalue()
    outcome = run(TarReader, cut(raw, cuts))
    assert outcome.done
    right = [
        (name, payload) for name, payload, kind, _ in files if kind in (tarfile.REGTYPE, tarfile.CONTTYPE)
    ]
    assert members(outcome.events) == right
    theirs, _, reason = oracle.read_tar(raw)
    assert (theirs, reason) == (right, None)


@given(CUTS, st.binary(max_size=3000))
def test_noise_never_escapes(cuts, noise):
    """Any bytes at all: events or a `WireError`, the same in any split."""
    for make in (
        lambda: FramingDecoder(Framing.chunked()),
        lambda: Multipart(b"b"),
        TarReader,
        lambda: Multipart(noise[:1] or b"b"),
    ):
        whole, parts = run(make, [noise]), run(make, cut(noise, cuts))
        assert (whole.done, place(whole.error)) == (parts.done, place(parts.error))
    try:
        head = parse_head(b"HTTP/1.1 200 OK\r\n" + noise)
        assert head is None or head.size <= 17 + len(noise)
    except WireError:
        pass


@given(st.text())
def test_any_content_type(text):
    with contextlib.suppress(WireError):
        assert 1 <= len(boundary_of("multipart/mixed; " + text)) <= 70


# ---------------------------------------------------------------------------------------- requests

ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates and NULs included
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": ANY_TEXT,
            "bucket": st.none() | st.sampled_from(["b", "bücket", '"']) | ANY_TEXT,
            "provider": st.none() | st.sampled_from(["ais", "aws"]) | ANY_TEXT,
            "archpath": st.none() | ANY_TEXT,
            "opaque": st.none() | st.binary(max_size=100),
            "start": st.just(0) | INT64,
            "length": st.just(0) | INT64,
            "uname": st.none() | ANY_TEXT,
        }
    ),
    max_size=12,
)
FLAG = st.none() | st.booleans()


def expected(row):
    """The entry as `json` should read it: empty and absent values left out where AIStore leaves them out."""
    entry = {"objname": row["name"]}
    for key in ("bucket", "provider", "uname"):
        if row[key] is not None:
            entry[key] = row[key]
    if row["archpath"]:
        entry["archpath"] = row["archpath"]
    if row["opaque"]:
        entry["opaque"] = base64.b64encode(row["opaque"]).decode()
    return entry | {key: row[key] for key in ("start", "length") if row[key]}


@given(ROWS, st.none() | ANY_TEXT, FLAG, FLAG, FLAG, st.none() | st.integers(0, 2))
def test_request_body(rows, mime, coer, onob, strm, coloc):
    entries = Entries()
    for row in rows:
        entries.append(**row)
    right = {
        "in": [expected(row) for row in rows],
        "mime": mime,
        "coer": coer,
        "onob": onob,
        "strm": strm,
        "coloc": coloc or None,
    }
    body = entries.body(mime, coer, onob, strm, coloc)
    assert json.loads(body.decode("utf-8")) == {
        key: value for key, value in right.items() if value is not None
    }
    assert len(entries) == len(rows)
    assert entries.names == [row["name"] for row in rows]
    assert json.loads(entries.copy().body(mime, coer, onob, strm, coloc)) == json.loads(body)
    some = list(range(0, len(rows), 2))
    assert json.loads(entries.subset(some).body(None, None, None, None)) == {
        "in": [expected(rows[i]) for i in some]
    }


@given(st.lists(ANY_TEXT, max_size=50), ROWS, st.lists(ANY_TEXT, max_size=5))
def test_request_of_names(names, rows, more):
    """Names added by the list mix with single entries before and after."""
    entries = Entries()
    entries.extend(names, None, None)
    for row in rows:
        entries.append(**row)
    entries.extend(more, "b", "ais")
    right = [{"objname": name} for name in names] + [expected(row) for row in rows]
    right += [{"objname": name, "bucket": "b", "provider": "ais"} for name in more]
    assert json.loads(entries.body(None, None, None, None)) == {"in": right}


@pytest.mark.parametrize(
    "char",
    [*map(chr, range(0x21)), '"', "\\", "/", "<", "\x7f", "\x80", "\u2028", chr(0xD800), chr(0xDFFF), "𐍈"],
)
@pytest.mark.parametrize("at", [0, 1, 15, 16, 31])
def test_request_with_every_special_character(char, at):
    name = "a" * at + char + "b" * 20
    entries = Entries()
    entries.append(name, char, None, archpath=char + name)
    body = entries.body(char, None, None, None)
    assert json.loads(body) == {
        "in": [{"objname": name, "bucket": char, "archpath": char + name}],
        "mime": char,
    }
