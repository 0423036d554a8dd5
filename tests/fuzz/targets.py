"""What is fuzzed: each target takes any bytes and asserts a law about what our code makes of them.

An input's first bytes choose how the rest is cut and wrapped, so that one in the corpus always does the same. Only the
library's own errors are caught; whatever else comes out of it is a finding, as is a broken law.

Checksums of TAR headers stop almost every mutation at the door. So an input may ask that they be mended first.
"""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

sys.path.append(str(Path(__file__).parents[1]))  # for the helpers of the tests

import wire
from aisfast._decode import Framing, Multipart, TarReader, boundary_of, parse_head
from aisfast.errors import IncompleteBatchError, WireError
from delivering import FORMS, deliver, entries_of
from feeding import Decoder, FramingDecoder, Outcome, merge

_A = TypeVar("_A")
_R = TypeVar("_R")

CUTS = (1, 2, 7, 511, 512, 513, 4096, 1 << 20)  # sizes of reads
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\0]*)?\r\n")
TRAILERS = re.compile(rb"(?:[^\r\n\0]+\r\n)*\r\n")

# what the target `delivery` asks for, as many of them as an input says
ENTRIES = [
    wire.Entry("a", b"alpha"),
    wire.Entry("dir/b.txt", b"b" * 600),
    wire.Entry("shard.tar", b"member", archpath="x/y.jpg"),
    wire.Entry("other", b"", bucket="b2"),
    wire.Entry("é" + "long/" * 30 + "name", b"pax"),
    wire.Entry("opaque", b"o" * 512, opaque=b64encode(b"\0mine").decode()),
    wire.Entry("gone", missing=True),
    wire.Entry("last", b"\0" * 70),
]
RANGED = ("ranged", None, None, None, None, 3, 4)  # bytes 3 to 7 of an object


def attempt(call: Callable[[_A], _R], argument: _A) -> tuple[_R | None, WireError | None]:
    """What a function makes of its argument, or the error that refuses it."""
    try:
        return call(argument), None
    except WireError as error:
        return None, error


def pieces(data: bytes, plan: int) -> list[bytes]:
    """`data` as reads bring it."""
    size = CUTS[plan % len(CUTS)]
    return [data[i : i + size] for i in range(0, len(data), size)]


def outcome(decoder: Decoder, data: bytes, plan: int) -> Outcome:
    """As `feeding.run`, without what it asserts: also of unlawful input whose end was refused after `done`."""
    events = []
    fed = False
    try:
        for piece in pieces(data, plan):
            events += decoder.feed(piece)
        fed = True
        events += decoder.close() or []
    except WireError as error:
        return Outcome(merge(events), error, not fed, decoder.done)
    return Outcome(merge(events), None, False, decoder.done)


def place(found: Outcome) -> tuple[object, ...]:
    """What may not depend on how the input was cut: an error and its place; what it quotes may."""
    error = found.error
    return found.done, found.fed, error and (type(error), error.layer, error.offset)


def payload_of(found: Outcome, kind: str = "data") -> bytes:
    return b"".join(event[1] for event in found.events if event[0] == kind)


def fuzz_head(data: bytes) -> None:
    """A head is exactly the bytes up to the first empty line, and no shorter prefix of it is one or is refused."""
    head, error = attempt(parse_head, data)
    if error is not None:
        assert error.layer == "http"
        assert 0 <= (error.offset or 0) <= len(data)
        return
    if head is None:
        assert b"\r\n\r\n" not in data[: 64 << 10]
        return
    assert head.size == data.index(b"\r\n\r\n") + 4
    assert 0 <= head.status <= 999
    again = parse_head(data[: head.size])
    assert again is not None
    assert (again.status, again.reason, again.headers, again.size) == (
        head.status, head.reason, head.headers, head.size,
    )  # fmt: skip
    for stop in {0, 1, head.size // 2, head.size - 1}:
        assert parse_head(data[:stop]) is None
    for name, value in head.headers.items():
        assert name == name.lower()
        assert "\r" not in value
        assert "\n" not in value


def fuzz_chunked(data: bytes) -> None:
    """The payload is what a regular expression finds in the chunks, however they are cut; what is refused stays so."""
    plan, body = data[:1], data[1:]
    framing = Framing.chunked()
    found = outcome(FramingDecoder(framing), body, plan[0] if plan else 0)
    payload, whole, behind = dechunk(body)
    ours = payload_of(found)
    assert len(ours) <= len(body)
    assert found.done == whole
    assert payload.startswith(ours)
    if found.done:
        assert found.error is None
        assert ours == payload
        assert (framing.offset, framing.excess) == (len(body) - behind, behind)
    elif found.error is None:
        assert ours == payload
    check_cuts(lambda: FramingDecoder(Framing.chunked()), body, found)


def dechunk(body: bytes) -> tuple[bytes, bool, int]:
    """(payload, whether the end came, bytes behind it) of a chunked body."""
    payload, at = [], 0
    while line := CHUNK_LINE.match(body, at):
        size, at = int(line[1], 16), line.end()
        if line.end() - line.start() > 4 << 10:
            break
        if not size:
            end = TRAILERS.match(body, at)
            whole = end is not None and end.end() - at < 64 << 10
            return b"".join(payload), whole, len(body) - end.end() if end and whole else 0
        payload.append(body[at : at + size])
        if body[at + size : at + size + 2] != b"\r\n":
            break
        at += size + 2
    return b"".join(payload), False, 0


def fuzz_multipart(data: bytes) -> None:
    """The parts are those that `bytes.partition` finds, however they are cut, and both delimiters stood around them."""
    plan, (first, _, body) = data[:1], data[1:].partition(b"\n")
    boundary = wire.BOUNDARY.encode()
    if first:
        told, error = attempt(boundary_of, first.decode("latin-1"))
        if told is None:
            assert error is not None
            assert error.layer == "multipart"
            return
        boundary = told
        assert 0 < len(boundary) <= 70
    found = outcome(Multipart(boundary, 4096), body, plan[0] if plan else 0)
    assert len(payload_of(found, "archive")) + len(payload_of(found, "metadata")) <= len(body)
    if found.error is None:
        assert found.done
        delimiter, closing = b"\r\n--" + boundary, b"\r\n--" + boundary + b"--\r\n"
        opening, _, rest = (b"\r\n" + body).partition(b"\r\n--" + boundary + b"\r\n")
        assert opening == b""
        _, _, rest = (b"\r\n" + rest).partition(b"\r\n\r\n")
        metadata, _, rest = rest.partition(delimiter)
        assert rest.startswith(b"\r\n")
        _, _, rest = rest.partition(b"\r\n\r\n")
        assert rest.endswith(closing)
        assert payload_of(found, "metadata") == metadata
        assert payload_of(found, "archive") == rest.removesuffix(closing)
    check_cuts(lambda: Multipart(boundary, 4096), body, found)


def fuzz_tar(data: bytes) -> None:
    """Members' payloads are slices of the input, in order, each behind a header of its own, however they are cut."""
    mode, archive = data[0] if data else 0, data[1:]
    if mode & 8:
        archive = mend(archive)
    reader = TarReader(1 << 20)
    found = outcome(reader, archive, mode)
    assert 0 <= reader.offset <= len(archive)
    at = 0
    for name, size, payload in members(found):
        assert len(payload) <= size <= 1 << 20
        assert b"\0" not in name
        at = archive.index(payload, at + 512) + len(payload)
    if found.error is None:
        assert found.done
        assert archive[reader.offset - 1024 : reader.offset] == wire.TRAILER
        assert all(len(payload) == size for _, size, payload in members(found))
    check_cuts(lambda: TarReader(1 << 20), archive, found)


def members(found: Outcome) -> Iterator[tuple[bytes, int, bytes]]:
    """(name, size, payload, perhaps cut) of each member."""
    for i, event in enumerate(found.events):
        if event[0] == "member":
            behind = found.events[i + 1] if i + 1 < len(found.events) else ("end",)
            yield event[1], event[2], behind[1] if behind[0] == "data" else b""


def mend(archive: bytes) -> bytes:
    """Give what stands where a header is due the checksum it should have."""
    blocks = bytearray(archive)
    at = 0
    while at + 512 <= len(blocks):
        block = bytes(blocks[at : at + 512])
        if block.count(0) == 512:
            break
        blocks[at + 148 : at + 156] = b"%06o\0 " % wire.checksum(block)
        digits = block[124:136].strip(b" \0")
        size = int(digits, 8) if re.fullmatch(b"[0-7]{1,12}", digits) else 0
        at += 512 + (size + 511) // 512 * 512
    return bytes(blocks)


def check_cuts(make: Callable[[], Decoder], data: bytes, found: Outcome) -> None:
    """Read in one piece it comes to the same."""
    whole = outcome(make(), data, len(CUTS) - 1)
    assert place(whole) == place(found)
    if found.error is None:
        assert whole.events == found.events


def fuzz_delivery(data: bytes) -> None:
    """What is delivered is what the members of the input hold, in order; whole only if all entries came."""
    if len(data) < 3:
        return
    mode, plan, many = data[:3]
    form, buffered, level = FORMS[mode % 3], bool(mode & 4), mode >> 6
    count = many % len(ENTRIES) + 1
    body = data[3:]
    metadata = b""
    if level == 3:  # what stands before the archive is made here
        metadata, _, body = body.partition(b"\n")
    archive = mend(body) if mode & 8 else body
    answer = archive
    if level == 3 and buffered:
        answer = wire.multipart((metadata or out(count)) + b"\n", archive)
    if level:
        kind = f"multipart/mixed; boundary={wire.BOUNDARY}" if buffered else "application/x-tar"
        headers = [("Content-Type", kind), ("Transfer-Encoding", "chunked")]
        answer = wire.head(headers=headers) + wire.chunked(answer, [CUTS[plan >> 4 & 7]] * (many >> 4))
    if b"\r\n\r\n" not in answer[:16384] or not answer.startswith(b"HTTP/1.1 200"):
        return  # the exchange's business, not the delivery's
    asked = entries_of(ENTRIES[:count])
    if mode & 16:
        asked.append(*RANGED)
    options = {"streaming": not buffered, "missing_raises": bool(mode & 32), "max_entry": 1 << 20}
    came = deliver(asked, pieces(answer, plan), form, **options)
    payloads = [payload for payload, _ in came.items if payload is not None]
    assert sum(map(len, payloads)) <= len(answer)
    if came.error is None:
        assert len(came.items) == len(asked)
    else:
        assert isinstance(came.error, WireError | IncompleteBatchError | FileNotFoundError), repr(came.error)
        assert str(came.error)
    if not mode & 32:  # columns tell of what is missing at their end, the others at its place
        other = deliver(asked, pieces(answer, plan + 1), FORMS[(mode + 1) % 3], **options)
        assert other.items == came.items
        assert type(other.error) is type(came.error)
    at = 0
    if level:
        for payload in payloads:
            at = archive.index(payload, at + 512) + len(payload)
        there = members(outcome(TarReader(1 << 20), archive, plan)) if level == 3 or not buffered else iter(())
        for (payload, _), (name, size, whole) in zip(came.items, there, strict=False):
            if len(whole) < size:
                break  # the reader's last events went with its error
            assert payload == (None if name.startswith(b"__404__/") else whole)


def out(count: int) -> bytes:
    """Right metadata for the first entries."""
    return wire.metadata_json([entry.out() for entry in ENTRIES[:count]]).rstrip(b"\n")


TARGETS = {
    "head": fuzz_head,
    "chunked": fuzz_chunked,
    "multipart": fuzz_multipart,
    "tar": fuzz_tar,
    "delivery": fuzz_delivery,
}
