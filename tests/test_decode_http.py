"""HTTP: response heads and body framing, strict as RFC 9112 is where it says MUST."""

import contextlib
import http.client
import io

import pytest

import wire
from aisfast._decode import Framing, parse_head
from aisfast.errors import LimitError, WireError
from aisfast.settings import MAX_CHUNK_LINE, MAX_HEAD
from feeding import FramingDecoder, check_bad, check_good, run

KIB = 1 << 10


def chunked():
    return FramingDecoder(Framing.chunked())


def data(payload):
    return [("data", payload)] if payload else []


# ---------------------------------------------------------------------------------- chunked coding


@pytest.mark.parametrize(
    ("raw", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", b"abcdef"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"1b\r\n" + b"x" * 27 + b"\r\n00\r\n\r\n", b"x" * 27),
        (b"0000005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"4\r\n\r\n\r\n\r\n2\r\n0\r\r\n0\r\n\r\n", b"\r\n\r\n0\r"),
        (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
        (b'5;a="quoted; string";b\r\nhello\r\n0\r\n\r\n', b"hello"),
        (b"5 ;a = b\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\nExpires: never\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"hello"),
        (wire.chunked(bytes(range(256)) * 3, [1, 2, 3, 500]), bytes(range(256)) * 3),
    ],
)
def test_chunked(raw, payload):
    check_good(chunked, raw, data(payload))
    response = http.client.HTTPResponse(_Socket(wire.head(headers=[("Transfer-Encoding", "chunked")]) + raw))
    response.begin()
    assert response.read() == payload  # as others read it


class _Socket(io.BytesIO):
    def makefile(self, mode):
        return self


def test_chunked_offset_and_excess():
    raw = wire.chunked(b"some payload", [4], extension=b";x", trailers=b"A: b\r\n")
    for behind in (b"", b"H", b"HTTP/1.1 200 OK\r\n\r\n"):
        for cut in range(len(raw) + len(behind)):
            framing = Framing.chunked()
            whole = raw + behind
            assert framing.feed(whole[:cut]) + framing.feed(whole[cut:]) == b"some payload"
            assert framing.done
            assert framing.offset == len(raw)
            assert framing.excess == len(behind)


@pytest.mark.parametrize(
    "size",
    [
        b"0x5", b"0X5", b"+5", b"-5", b"1_0", b" 5", b"\t5", b"", b";a=b", b"g", b"5g", b"h5", b"5.", b"5,",
        b"\x005", b"5\x00", b"\xef\xbc\x95", b"\xb2", b"five", b"5\r", b"\r5", b"\n5", b'"5"', b"5 5",
        b"10000000000000000", b"ffffffffffffffff", b"8000000000000000", b"f" * 40, b"9" * 4000,
    ],
)  # fmt: skip
def test_chunk_size_refused(size):
    error = check_bad(chunked, size + b"\r\nhello\r\n0\r\n\r\n", events=[], offset=range(len(size) + 2))
    assert error.layer == "http"
    # the same behind a chunk that is right
    good = b"3\r\nabc\r\n"
    error = check_bad(
        chunked,
        good + size + b"\r\nhello\r\n0\r\n\r\n",
        events=data(b"abc"),
        offset=range(8, 8 + len(size) + 2),
    )
    assert error.expected
    assert str(error.offset) in str(error)


@pytest.mark.parametrize(
    "raw",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5hello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\0b\r\nhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\rX0\r\n\r\n",
        b"5\r\nhelloXY0\r\n\r\n",
        b"5\r\nhello\n\r0\r\n\r\n",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"0\n\n",
        b"0\r\n\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\r\n\n",
        b"0\r\nA: \0\r\n\r\n",
        b"0\r\nA: b\rC\r\n\r\n",
        b"0\r\n\rX\r\n",
    ],
)
def test_chunked_lines_refused(raw):
    error = check_bad(chunked, raw, events=data(b"hello"), offset=range(len(raw)))
    assert error.layer == "http"


@pytest.mark.parametrize(
    "begin",
    [b"5;" + b"a" * (MAX_CHUNK_LINE + 10), b"5" + b" " * (MAX_CHUNK_LINE + 10), b"0" * (MAX_CHUNK_LINE + 10)],
    ids=["extension", "blanks", "zeros"],
)
def test_chunk_size_line_without_end(begin):
    error = check_bad(chunked, begin, LimitError, events=[], offset=range(len(begin)))
    assert error.layer == "http"


def test_chunk_size_line_within_the_limit():
    raw = (
        b"5;" + b"a" * (MAX_CHUNK_LINE - 10) + b"\r\nhello\r\n0;" + b"b" * (MAX_CHUNK_LINE - 10) + b"\r\n\r\n"
    )
    assert run(chunked, [raw]).events == data(b"hello")
    assert run(chunked, [raw]).done


@pytest.mark.parametrize(
    "line", [b"A: " + b"b" * 997 + b"\r\n", b"a" * (MAX_HEAD + 10)], ids=["many", "long"]
)
def test_trailer_section_over_the_limit(line):
    trailers = line * (MAX_HEAD // len(line) + 2)
    for pieces in (
        [b"0\r\n" + trailers],
        [b"0\r\n", *(trailers[i : i + 100] for i in range(0, len(trailers), 100))],
    ):
        outcome = run(chunked, pieces)
        assert isinstance(outcome.error, LimitError)
        assert MAX_HEAD - 10 <= outcome.error.offset <= 2 * MAX_HEAD
    below = line[: MAX_HEAD // 2 - 2].rstrip() + b"\r\n"
    assert run(chunked, [b"0\r\n" + below + b"\r\n"]).done


def test_a_size_is_no_promise():
    framing = Framing.chunked()
    assert (
        framing.feed(b"7ffffffffffffff\r\nabc") == b"abc"
    )  # 2^59 bytes are to come; none is taken before they do
    assert not framing.done


# ---------------------------------------------------------------------------------- other framings


@pytest.mark.parametrize("payload", [b"", b"x", b"0\r\n\r\n", bytes(range(256))])
def test_content_length(payload):
    check_good(lambda: FramingDecoder(Framing.length(len(payload))), payload, data(payload))
    for behind in (b"", b"x", b"HTTP/1.1"):
        for cut in range(len(payload + behind)):
            framing = Framing.length(len(payload))
            assert framing.feed((payload + behind)[:cut]) + framing.feed((payload + behind)[cut:]) == payload
            assert (framing.offset, framing.excess) == (len(payload), len(behind))


def test_content_length_negative():
    with pytest.raises(ValueError, match="negative"):
        Framing.length(-1)


def test_until_close():
    framing = Framing.until_close()
    assert framing.feed(b"0\r\n\r\n") + framing.feed(b"") + framing.feed(b"more") == b"0\r\n\r\nmore"
    assert not framing.done
    assert (framing.offset, framing.excess) == (9, 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_feed_takes_any_buffer_and_leaves_it_alone(kind):
    raw = kind(b"5\r\nhello\r\n0\r\n\r\n")
    assert Framing.chunked().feed(raw) == b"hello"
    assert bytes(raw) == b"5\r\nhello\r\n0\r\n\r\n"


# ------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("raw", "status", "reason", "headers"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, "OK", {}),
        (b"HTTP/1.1 204 \r\n\r\n", 204, "", {}),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://h:1/a?b=c\r\n\r\n", 307, "Temporary Redirect",
         {"location": "http://h:1/a?b=c"}),
        (b"HTTP/1.1 200 OK\r\nContent-Type: a/b; c=d\r\nTRANSFER-encoding:chunked\r\n"
         b"X-Empty:\r\nX-Wide: \t v \t\r\n\r\n",
         200, "OK",
         {"content-type": "a/b; c=d", "transfer-encoding": "chunked", "x-empty": "", "x-wide": "v"}),
        (b"HTTP/1.1 200 OK\r\nA: 1\r\nB: x\r\na: 2\r\n\r\n", 200, "OK", {"a": "1, 2", "b": "x"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 200, "OK",
         {"content-length": "5"}),
        (b"HTTP/1.1 200 OK\r\n!#$%&'*+-.^_`|~09aZ: token\r\n\r\n", 200, "OK",
         {"!#$%&'*+-.^_`|~09az": "token"}),
        (b"HTTP/1.1 200 OK\r\nX: a:b: c\r\n\r\n", 200, "OK", {"x": "a:b: c"}),
    ],
)  # fmt: skip
def test_head(raw, status, reason, headers):
    for behind in (b"", b"body", b"\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n"):
        parsed = parse_head(raw + behind)
        assert (parsed.status, parsed.reason, parsed.headers, parsed.size) == (
            status,
            reason,
            headers,
            len(raw),
        )
    for stop in range(len(raw)):
        assert parse_head(raw[:stop]) is None


def test_head_takes_any_buffer():
    raw = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    for kind in (bytes, bytearray, memoryview):
        assert parse_head(kind(raw)).headers == {"a": "b"}


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/2 200 OK", b"HTTP/1 200 OK", b"HTTP/2.0 200 OK", b"HTTP/1.x 200 OK", b"HTTP/11 200 OK",
        b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"ICY 200 OK", b"SSH-2.0-OpenSSH_9.6",
        b"\x16\x03\x01\x02\x00", b"\r\nHTTP/1.1 200 OK", b"", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 OK",
        b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 200OK", b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 2_0 OK",
        b"HTTP/1.1 \xb2\xb2\xb2 OK", b"HTTP/1.1 \xef\xbc\x92\xef\xbc\x90\xef\xbc\x90 OK", b"<html>",
        b"GET / HTTP/1.1",
    ],
)  # fmt: skip
def test_status_line_refused(line):
    raw = line + b"\r\nA: b\r\n\r\n"
    with pytest.raises(WireError) as info:
        parse_head(raw)
    assert info.value.layer == "http"
    assert info.value.remedy
    for stop in range(len(raw)):  # a prefix is refused too, or not yet an answer
        with contextlib.suppress(WireError):
            assert parse_head(raw[:stop]) is None


@pytest.mark.parametrize(
    "line",
    [
        b"no colon", b"NoColon", b"O", b": no name", b"A : b", b"A\t: b", b" folded", b"\tfolded",
        b" A: folded", b"A B: c", b"A: b\0c", b"A\0: b", b"A: b\rc", b"A: b\r", b"\rA: b", b"A(: b",
        b"A,B: c", b"A\xe9: b", b"A/B: c", b"[A]: b", b"A;: b", b'"A": b',
    ],
)  # fmt: skip
def test_header_line_refused(line):
    before = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"
    with pytest.raises(WireError) as info:
        parse_head(before + line + b"\r\nZ: z\r\n\r\n")
    assert info.value.layer == "http"
    assert info.value.offset in range(len(before), len(before + line) + 2)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n\n",
        b"HTTP/1.1 200 OK\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\ncontent-length: 05\r\n\r\n",
    ],
)
def test_head_refused(raw):
    with pytest.raises(WireError) as info:
        parse_head(raw)
    assert info.value.layer == "http"


def test_head_over_the_limit():
    first = b"HTTP/1.1 200 OK\r\n"
    for rest in (b"A: " + b"b" * MAX_HEAD, b"A: b\r\n" * (MAX_HEAD // 6), b"a" * MAX_HEAD):
        with pytest.raises(LimitError):
            parse_head(first + rest)
        with pytest.raises(LimitError):
            parse_head(first + rest + b"\r\n\r\n")
    with pytest.raises(LimitError):
        parse_head(b"HTTP/1.1 200 " + b"O" * MAX_HEAD)
    line = b"A: " + b"b" * (MAX_HEAD - len(first) - 7) + b"\r\n\r\n"
    assert parse_head(first + line).size == MAX_HEAD
