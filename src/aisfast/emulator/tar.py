"""TAR as Go's archive/tar writes it with an unknown format: USTAR where the header fits, else PAX, never GNU."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from typing import Protocol

from aisfast.emulator.errors import Failure

BLOCK = 512
OCTAL_LIMIT = 1 << 33  # sizes and times from here on do not fit eleven octal digits
NAME = 100
PREFIX = 155
PIECE = 32768  # payload is copied in pieces of the server's default buffer

_ZEROS = bytes(BLOCK)
_MODE_UID_GID = b"0000644\0" + b"0000000\0" * 2
_USTAR = b"ustar\x0000"
_DEVICES = b"0000000\0" * 2


Write = Callable[[bytes | memoryview], None]


class Sink(Protocol):
    def write(self, data: bytes | memoryview) -> None: ...


def header(name: str, size: int, mtime: int = 0) -> bytes:
    """Everything that stands before a member's payload."""
    return b"".join(_header(name, size, mtime))


def _header(name: str, size: int, mtime: int) -> tuple[bytes, ...]:
    """The same in the pieces in which it is written.

    Args:
        name: Member name.
        size: Payload bytes.
        mtime: Seconds since the epoch, may be negative.
    """
    raw = name.encode("utf-8", "replace")
    prefix = b""
    records = {}
    if len(raw) > NAME or not raw.isascii():
        split = _split(raw)
        if split is None:
            records["path"] = raw
        else:
            prefix, short = split
    if size >= OCTAL_LIMIT:
        records["size"] = b"%d" % size
    if not 0 <= mtime < OCTAL_LIMIT:
        records["mtime"] = b"%d" % mtime
    if not records:
        return (_block(short if prefix else raw, _MODE_UID_GID, size, mtime, b"0", _DEVICES, prefix),)
    if prefix:
        records["path"] = raw
    return _pax(name, raw, records, size, mtime)


def padding(size: int) -> bytes:
    """Zeros that complete a payload of `size` bytes to whole blocks."""
    return _ZEROS[: -size % BLOCK]


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and suffix at the one place where Go tries to split a long ASCII name."""
    if not raw.isascii():
        return None
    at = raw.rfind(b"/", 0, min(len(raw), PREFIX + 1))
    if at <= 0 or not 0 < len(raw) - at - 1 <= NAME:
        return None
    return raw[:at], raw[at + 1 :]


def _block(name: bytes, ids: bytes, size: int, mtime: int, flag: bytes, devices: bytes, prefix: bytes) -> bytes:
    front = name.ljust(NAME, b"\0") + ids + b"%011o\0%011o\0" % (size, mtime)
    back = flag + bytes(NAME) + _USTAR + bytes(64) + devices + prefix.ljust(PREFIX, b"\0") + bytes(12)
    return front + b"%06o\0 " % (sum(front) + sum(back) + 8 * 32) + back


def _pax(name: str, raw: bytes, records: dict[str, bytes], size: int, mtime: int) -> tuple[bytes, ...]:
    data = b"".join(_record(key.encode(), records[key]) for key in sorted(records))
    folder, _, base = name.rpartition("/")
    label = posixpath.normpath(posixpath.join(folder + "/" if _ else "", "PaxHeaders.0", base))
    if label.startswith("//"):
        label = label[1:]
    extended = _block(_ascii(label)[:NAME].rstrip(b"/"), b"0000000\0" * 3, len(data), 0, b"x", bytes(16), b"")
    short = _ascii(name)
    if len(short) > NAME:
        short = short[:NAME].rstrip(b"/")
    own = _block(
        short,
        _MODE_UID_GID,
        0 if "size" in records else size,
        0 if "mtime" in records else mtime,
        b"0",
        _DEVICES,
        b"",
    )
    return extended, data, padding(len(data)), own


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "ignore").replace(b"\0", b"")


def _record(key: bytes, value: bytes) -> bytes:
    """One PAX record; its length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


class TarWriter:
    """`.tar`. A member cut short leaves the archive without its trailer, as the server's does."""

    content_type = "application/x-tar"

    def __init__(self, sink: Sink):
        self._write: Write = sink.write
        self.broken = 0  # payload bytes that the last member still lacks

    def intercept(self, wrap: Callable[[Write], Write]) -> None:
        """Have all bytes of the TAR pass through another function first."""
        self._write = wrap(self._write)

    def parts(self, name: str, size: int, mtime: int) -> dict[str, int | None]:
        """Offsets in a member of the middles of its parts; None: it has no such part."""
        head = len(header(name, size, _seconds(mtime)))
        return {
            "header": head - BLOCK // 2,
            "data": head + size // 2 if size else None,
            "padding": head + size + len(padding(size)) // 2 if size % BLOCK else None,
        }

    def member(self, name: str, size: int, mtime: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Write one member. Fewer payload bytes than `size` break the archive: nothing can follow.

        Args:
            mtime: Nanoseconds since the epoch.
        Raises:
            Failure: It has a name that no file can have.
        """
        if name.endswith("/"):
            raise Failure(400, "archive/tar: cannot encode header: filename may not have trailing slash", "headerError")
        write = self._write
        for part in _header(name, size, _seconds(mtime)):
            write(part)
        came = 0
        for piece in pieces:
            write(piece)
            came += len(piece)
        self.broken = size - came
        if self.broken == 0 and size % BLOCK:
            write(_ZEROS[: -size % BLOCK])

    def flush(self) -> None:
        """Hand on what is held back, as far as that leaves the bytes as they would be."""

    def close(self) -> None:
        if not self.broken:
            self._write(_ZEROS)
            self._write(_ZEROS)


def _seconds(nanoseconds: int) -> int:
    return (nanoseconds + 500_000_000) // 1_000_000_000
