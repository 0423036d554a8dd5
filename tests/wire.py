"""Bytes as AIStore writes them, and as it never would: HTTP heads and framing, TAR, multipart, whole answers.

Stdlib only. It shares no code with the package or its emulator, so that none of the three can excuse
another's mistake. Unless a docstring says otherwise, the form is the one Go's standard library gives.
"""

from __future__ import annotations

import json
import posixpath
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

TAR_BLOCK = 512
TRAILER = bytes(2 * TAR_BLOCK)
BOUNDARY = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2"  # 60 lower-case hex digits
XID = "gbt-Wire0test"
DATE = ("Date", "Sun, 22 Nov 2026 10:29:30 GMT")
_COPY = 32 << 10  # payload is copied in pieces of this size
_FILL = 2048  # the buffer in front of the chunk writer

# -------------------------------------------------------------------------------------------- HTTP


def head(
    status: int | str = 200,
    reason: str = "OK",
    headers: Iterable[tuple[str, str]] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """A response head, the empty line included."""
    lines = [f"{version} {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunked(
    body: bytes, sizes: Iterable[int] = (), *, extension: bytes = b"", trailers: bytes = b""
) -> bytes:
    """`body` in chunks of `sizes`; what is left over is one more chunk.

    Args:
        extension: Goes behind every chunk size, e.g. `b";name=value"`.
        trailers: Trailer lines, each with its CRLF.
    """
    view, at, out = memoryview(body), 0, []
    for size in [*sizes, len(body)]:
        data = view[at : at + size]
        if data:
            out += [b"%x%b\r\n" % (len(data), extension), data, b"\r\n"]
            at += len(data)
    return b"".join([*out, b"0%b\r\n" % extension, trailers, b"\r\n"])


def go_chunks(writes: Iterable[int]) -> list[int]:
    """Chunk sizes that Go's HTTP server makes of a handler's writes of these sizes."""
    sizes, held = [], 0
    for size in writes:
        while size > _FILL - held:
            if held:
                taken = _FILL - held
                sizes.append(_FILL)
            else:
                taken = size
                sizes.append(size)
            held, size = 0, size - taken
        held += size
    return [*sizes, held] if held else sizes


# --------------------------------------------------------------------------------------------- TAR


def octal(value: int, width: int) -> bytes:
    """Octal digits and a NUL, as most writers do."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int = 12) -> bytes:
    """GNU's binary number: big-endian two's complement, first bit set to mark it."""
    field = bytearray(value.to_bytes(width, "big", signed=True))
    field[0] |= 0x80
    return bytes(field)


def checksum(block: bytes) -> int:
    """Sum of a header block's bytes, its checksum field counted as spaces."""
    return sum(block[:148]) + 8 * 32 + sum(block[156:])


def header(
    name: bytes,
    size: int | bytes = 0,
    typeflag: bytes = b"0",
    *,
    mtime: int | bytes = 0,
    mode: bytes = b"0000644\0",
    linkname: bytes = b"",
    magic: bytes = b"ustar\00000",
    dev: bytes = b"0000000\0",
    prefix: bytes = b"",
    sum_field: bytes | None = None,
) -> bytes:
    """One header block. `size`, `mtime`: numbers, or the 12 bytes; `sum_field` replaces the checksum."""
    size = octal(size, 12) if isinstance(size, int) else size
    mtime = octal(mtime, 12) if isinstance(mtime, int) else mtime
    fields = [
        (name, 100), (mode, 8), (b"0000000\0", 8), (b"0000000\0", 8), (size, 12), (mtime, 12), (b" " * 8, 8),
        (typeflag, 1), (linkname, 100), (magic, 8), (b"", 32), (b"", 32), (dev, 8), (dev, 8), (prefix, 155),
        (b"", 12),
    ]  # fmt: skip
    for value, width in fields:
        assert len(value) <= width, (value, width)
    block = b"".join(value.ljust(width, b"\0") for value, width in fields)
    return block[:148] + (sum_field or b"%06o\0 " % checksum(block)).ljust(8, b"\0") + block[156:]


def padding(size: int) -> bytes:
    """Zeros from `size` to the next TAR block."""
    return bytes(-size % TAR_BLOCK)


def member(name: bytes, payload: bytes = b"", typeflag: bytes = b"0", **fields: object) -> bytes:
    """A header block, the payload, its padding."""
    return header(name, len(payload), typeflag, **fields) + payload + padding(len(payload))  # type: ignore[arg-type]


def record(key: str, value: str | bytes) -> bytes:
    """One PAX record: its own length in decimal, key, value."""
    rest = b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def pax(
    records: dict[str, str | bytes] | bytes, typeflag: bytes = b"x", name: bytes = b"PaxHeaders.0/x"
) -> bytes:
    """A PAX header (`x` for the next member, `g` for all that follow) of records, or of these very bytes."""
    if not isinstance(records, bytes):
        records = b"".join(record(key, records[key]) for key in sorted(records))
    return member(name, records, typeflag, mode=b"0000000\0", dev=b"")


def gnu_long(value: bytes, typeflag: bytes = b"L") -> bytes:
    """GNU's header of a long name (`L`) or long link name (`K`) for the next member."""
    return member(b"././@LongLink", value + b"\0", typeflag, magic=b"ustar  \0", mode=b"0000000\0")


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) of an ASCII name in USTAR form, None if it does not fit. One split is tried."""
    if len(name) <= 100:
        return b"", name
    cut = name[:156] if len(name) > 156 else name.removesuffix(b"/")
    at = cut.rfind(b"/")
    suffix = name[at + 1 :]
    return (name[:at], suffix) if 0 < at <= 155 and 1 <= len(suffix) <= 100 else None


def headers(name: str, size: int, mtime: int = 0) -> list[bytes]:
    """What stands before a member's payload, write by write: one USTAR block, or a PAX header and a block."""
    raw = name.encode()
    split = _split(raw) if name.isascii() else None
    records: dict[str, str | bytes] = {}
    if size >= 1 << 33:
        records["size"] = str(size)
    if not 0 <= mtime < 1 << 33:
        records["mtime"] = str(mtime)
    if split is None or (records and len(raw) > 100):
        records["path"] = raw
    elif not records:
        return [header(split[1], size, mtime=mtime, prefix=split[0])]
    size_field = 0 if "size" in records else size
    mtime_field = 0 if "mtime" in records else mtime
    directory, base = posixpath.split(name)
    pax_name = posixpath.normpath(posixpath.join(directory, "PaxHeaders.0", base))
    block = pax(records, name=_ascii(pax_name)[:100].rstrip(b"/"))
    ascii_name = _ascii(name)
    if len(ascii_name) > 100:
        ascii_name = ascii_name[:100].rstrip(b"/")
    return [block[:TAR_BLOCK], block[TAR_BLOCK:], header(ascii_name, size_field, mtime=mtime_field)]


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "ignore")


# --------------------------------------------------------------------------------------- multipart


def multipart(metadata: bytes, archive: bytes, boundary: str = BOUNDARY, xid: str = XID) -> bytes:
    """A buffered answer's body; `metadata` is the JSON with its line end."""
    return b"".join(_multipart_writes(metadata, [archive], boundary, xid))


def _multipart_writes(metadata: bytes, archive: Iterable[bytes], boundary: str, xid: str) -> list[bytes]:
    return [
        f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode(),
        metadata,
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="archive"; filename="get-batch[{xid}]"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode(),
        *archive,
        f"\r\n--{boundary}--\r\n".encode(),
    ]


def metadata_json(out: Sequence[dict[str, object]], xid: str = XID) -> bytes:
    """The metadata part: one line, the characters escaped that Go's encoder escapes."""
    text = json.dumps({"uuid": xid, "out": list(out)}, ensure_ascii=False, separators=(",", ":")) + "\n"
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


# ----------------------------------------------------------------------------------- whole answers


class Entry(NamedTuple):
    """One entry of an answer: what was asked for, and what comes."""

    name: str
    payload: bytes = b""
    archpath: str | None = None
    bucket: str = "b"
    missing: bool = False
    member: str | None = None  # the member's name, if it is not the one it should have
    mtime: int = 0
    opaque: str | None = None  # base64, buffered mode only
    err_msg: str | None = None  # buffered mode only; None: the server's text if it is missing

    def member_name(self, onob: bool = False) -> str:
        if self.member is not None:
            return self.member
        parts = [self.name] if self.archpath is None else [self.name, self.archpath]
        return "/".join((["__404__"] if self.missing else []) + ([] if onob else [self.bucket]) + parts)

    def request(self) -> dict[str, str]:
        """The entry in a GetBatch request body."""
        return {"objname": self.name, **({"archpath": self.archpath} if self.archpath is not None else {})}

    def out(self) -> dict[str, object]:
        """The entry in the metadata of a buffered answer, from a target that holds it itself."""
        err_msg = self.err_msg
        if err_msg is None and self.missing:
            err_msg = f"t[wire]: ais://{self.bucket}/{self.name} does not exist"
        fields = {
            "objname": self.name, "archpath": self.archpath, "bucket": self.bucket, "provider": "ais",
            "err_msg": err_msg, "opaque": self.opaque, "size": len(self.payload),
        }  # fmt: skip
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer.

    Attributes:
        raw: All its bytes.
        head_size: Bytes of the head in `raw`.
        body: The body without its framing.
        members: Name of each entry's member.
        ends: For each entry, how many bytes of `raw` hold its whole payload: cut shorter, it is not whole.
        end: The same for the last payload byte of all; the head's size if there is no entry.
    """

    raw: bytes
    head_size: int
    body: bytes
    members: list[str]
    ends: list[int]

    @property
    def end(self) -> int:
        return self.ends[-1] if self.ends else self.head_size


def tar(
    entries: Iterable[Entry], *, onob: bool = False, trailer: bool = True
) -> tuple[list[bytes], list[int]]:
    """A TAR: the writes that make it, and for each entry the offset behind its last payload byte."""
    writes: list[bytes] = []
    ends: list[int] = []
    at = 0
    for entry in entries:
        front = headers(entry.member_name(onob), len(entry.payload), entry.mtime)
        view = memoryview(entry.payload)
        writes += front
        writes += [view[i : i + _COPY] for i in range(0, len(view), _COPY)]  # type: ignore[misc]
        at += sum(map(len, front)) + len(view)
        ends.append(at)
        if gap := padding(len(view)):
            writes.append(gap)
            at += len(gap)
    if trailer:
        writes += [TRAILER[:TAR_BLOCK]] * 2
    return writes, ends


def streaming(
    entries: Sequence[Entry],
    *,
    onob: bool = False,
    trailer: bool = True,
    sizes: Sequence[int] | None = None,
    extension: bytes = b"",
    trailers: bytes = b"",
    length: bool = False,
    headers: Sequence[tuple[str, str]] = (DATE,),
) -> Answer:
    """A streaming answer.

    Args:
        onob: Member names without the bucket.
        trailer: End the archive with two zero blocks.
        sizes: Sizes of the chunks; None: those Go makes.
        extension, trailers: As `chunked` takes them.
        length: A Content-Length body instead of chunks.
        headers: Further headers.
    """
    writes, ends = tar(entries, onob=onob, trailer=trailer)
    members = [entry.member_name(onob) for entry in entries]
    front = [("Content-Type", "application/x-tar"), *headers]
    return _answer(front, writes, members, ends, sizes, extension, trailers, length)


def buffered(
    entries: Sequence[Entry],
    *,
    onob: bool = False,
    trailer: bool = True,
    sizes: Sequence[int] | None = None,
    extension: bytes = b"",
    trailers: bytes = b"",
    length: bool | None = None,
    out: Sequence[dict[str, object]] | None = None,
    metadata: bytes | None = None,
    boundary: str = BOUNDARY,
    xid: str = XID,
    headers: Sequence[tuple[str, str]] = (DATE,),
) -> Answer:
    """A buffered (multipart) answer; arguments as in `streaming`.

    Args:
        length: None: a Content-Length if the body has no more than 2048 bytes, as Go does.
        out: Replaces the entries in the metadata.
        metadata: Replaces the whole metadata part.
    """
    archive, ends = tar(entries, onob=onob, trailer=trailer)
    if metadata is None:
        metadata = metadata_json([entry.out() for entry in entries] if out is None else out, xid)
    archive_bytes = b"".join(archive)
    pieces = [archive_bytes[i : i + _COPY] for i in range(0, len(archive_bytes), _COPY)]
    writes = _multipart_writes(metadata, pieces, boundary, xid)
    before = sum(map(len, writes[:3]))
    if length is None:
        length = sum(map(len, writes)) <= _FILL and sizes is None
    members = [entry.member_name(onob) for entry in entries]
    front = [("Content-Type", f"multipart/mixed; boundary={boundary}"), *headers]
    return _answer(front, writes, members, [before + end for end in ends], sizes, extension, trailers, length)


def _answer(
    front: list[tuple[str, str]],
    writes: Sequence[bytes],
    members: list[str],
    ends: Sequence[int],
    sizes: Sequence[int] | None,
    extension: bytes,
    trailers: bytes,
    length: bool,
) -> Answer:
    body = b"".join(writes)
    if length:
        first = head(headers=[*front, ("Content-Length", str(len(body)))])
        return Answer(first + body, len(first), body, members, [len(first) + end for end in ends])
    first = head(headers=[*front, ("Transfer-Encoding", "chunked")])
    if sizes is None:
        sizes = go_chunks(map(len, writes))
    stops = sorted({min(stop, len(body)) for stop in accumulate(sizes)} - {0} | {len(body)})
    lines = [len(b"%x%b\r\n" % (stop - start, extension)) for start, stop in pairwise([0, *stops])]
    fronts = list(
        accumulate(line + 2 * (i > 0) for i, line in enumerate(lines))
    )  # framing bytes before a chunk's data
    raw_ends = [len(first) + end + fronts[bisect_left(stops, end)] for end in ends]
    return Answer(
        first + chunked(body, sizes, extension=extension, trailers=trailers),
        len(first),
        body,
        members,
        raw_ends,
    )
