"""ZIP as Go's archive/zip writes it: members stored, their sizes behind them and in the directory at the end.

A directory entry has the member's name as its comment too. Source: `cmn/archive/write.go` of AIStore, archive/zip.
"""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections.abc import Callable, Iterable

from aisfast.emulator.errors import Failure
from aisfast.emulator.tar import Sink, Write

BUFFER = 4096  # of the archive's writer; no flush empties it

_VERSION = 20
_VERSION_64 = 45
_DESCRIBED = 0x8  # sizes and CRC follow the payload
_UTF8 = 0x800
_MAX_16 = 0xFFFF
_MAX_32 = 0xFFFFFFFF
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_TIME = struct.Struct("<2HBI")  # extended timestamp
_PLAIN = re.compile(rb"[ -\[\]-}]*")  # a name that needs no flag; Go holds "\\" and "~" for special too


class _Buffered:
    """Go's bufio.Writer: small writes are collected, what is larger than the empty buffer passes."""

    def __init__(self, write: Write):
        self._write = write
        self._held = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        free = BUFFER - len(self._held)
        if len(data) > free:
            if self._held:
                self._held += data[:free]
                data = memoryview(data)[free:]
                self.flush()
            if len(data) > BUFFER:
                self._write(data)
                return
        self._held += data

    def flush(self) -> None:
        if self._held:
            self._write(bytes(self._held))
            self._held.clear()


class ZipWriter:
    """`.zip`. A member cut short is a shorter one: the archive does not show it."""

    content_type = "application/zip"
    broken = 0

    def __init__(self, sink: Sink):
        self._buffer = _Buffered(sink.write)
        self._write: Write = self._buffer.write
        self._at = 0
        self._directory: list[tuple[bytes, int, int, int, int, int]] = []  # name, flags, mtime, CRC, size, offset

    def intercept(self, wrap: Callable[[Write], Write]) -> None:
        """Have all bytes pass through another function before they are buffered."""
        self._write = wrap(self._write)

    def parts(self, name: str, size: int, mtime: int) -> dict[str, int | None]:
        """Offsets in a member of the middles of its parts; None: it has no such part.

        The header's is that of the name: a reader goes by the directory for all else. The descriptor is the padding.
        """
        raw = len(_raw(name))
        head = _LOCAL.size + raw + _TIME.size
        return {
            "header": _LOCAL.size + raw // 2,
            "data": head + size // 2 if size else None,
            "padding": head + size + 8,
        }

    def member(self, name: str, size: int, mtime: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Write one member, of as many bytes as come.

        Args:
            mtime: Nanoseconds since the epoch.
        Raises:
            Failure: Its name is too long for a ZIP.
        """
        raw, start, folder = _raw(name), self._at, name.endswith("/")
        flags = (0 if folder else _DESCRIBED) | (0 if _PLAIN.fullmatch(raw) else _UTF8)
        seconds = mtime // 1_000_000_000
        if len(raw) > _MAX_16:
            self._directory.append((raw, flags, seconds, 0, 0, start))  # as the server does: the ZIP is damaged
            raise Failure(400, "zip: FileHeader.Name too long")
        self._put(_LOCAL.pack(b"PK\3\4", _VERSION, flags, 0, *_dos(seconds), 0, 0, 0, len(raw), _TIME.size))
        self._put(raw)
        self._put(_extra(seconds))
        crc, begin = 0, self._at
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            self._put(piece)
        came = self._at - begin
        if not folder:
            form = "<4sI2I" if came < _MAX_32 else "<4sI2Q"
            self._put(struct.pack(form, b"PK\7\10", crc, came, came))
        self._directory.append((raw, flags, seconds, crc, came, start))

    def flush(self) -> None:
        """Hand on what the buffer holds."""
        self._buffer.flush()

    def close(self) -> None:
        start = self._at
        for entry in self._directory:
            self._list(*entry)
        end = self._at
        count, size = len(self._directory), end - start
        if count >= _MAX_16 or size >= _MAX_32 or start >= _MAX_32:
            record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, *[_VERSION_64] * 2, 0, 0, count, count, size, start)
            self._put(record + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
            count, size, start = _MAX_16, _MAX_32, _MAX_32
        self._put(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, start, 0))
        self.flush()

    def _list(self, raw: bytes, flags: int, seconds: int, crc: int, size: int, offset: int) -> None:
        """Write an entry of the directory."""
        extra, told, needed = _extra(seconds), size, _VERSION_64 if size >= _MAX_32 else _VERSION
        if size >= _MAX_32 or offset >= _MAX_32:
            extra += struct.pack("<2H3Q", 1, 24, size, size, offset)
            told = _MAX_32
        length = len(raw) & _MAX_16
        numbers = flags, 0, *_dos(seconds), crc, told, told, length, len(extra), length, 0, 0, 0
        self._put(_ENTRY.pack(b"PK\1\2", _VERSION, needed, *numbers, min(offset, _MAX_32)))
        self._put(raw)
        self._put(extra)
        self._put(raw)

    def _put(self, data: bytes | memoryview) -> None:
        self._write(data)
        self._at += len(data)


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "replace")


def _dos(seconds: int) -> tuple[int, int]:
    """Time and date as MS-DOS has them, in UTC; before 1980 they are as wrong as Go's."""
    t = time.gmtime(seconds)
    clock = t.tm_sec // 2 + (t.tm_min << 5) + (t.tm_hour << 11)
    return clock, t.tm_mday + (t.tm_mon << 5) + ((t.tm_year - 1980) << 9) & _MAX_16


def _extra(seconds: int) -> bytes:
    return _TIME.pack(0x5455, 5, 1, seconds & _MAX_32)
