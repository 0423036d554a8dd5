"""The formats of an answer's archive: `WRITERS`. Each puts its archive into a sink, anything with `write(bytes)`.

A `.tar.lz4` needs the package lz4. What is compressed is framed as the server frames it, and holds the same TAR; the
compressed bytes are valid but not the server's, whose compressors are others.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

from aisfast.emulator.tar import Sink, TarWriter
from aisfast.emulator.zip import ZipWriter

GZIP_BLOCK = 65535
DEFLATED = 240  # most bytes of a compressed block that Go's compressor writes at once
LZ4_BLOCK = 256 << 10
LZ4_STORED = 1 << 31  # in the size of a block that did not become smaller


class Writer(Protocol):
    """Of one archive."""

    @property
    def broken(self) -> int:
        """Payload bytes that the last member still lacks, if nothing can follow it therefore."""

    def member(self, name: str, size: int, mtime: int, pieces: Iterable[bytes | memoryview]) -> None: ...
    def close(self) -> None: ...


class _Gzip:
    """Sink that compresses into another one: by blocks, each stored if it does not become smaller."""

    def __init__(self, sink: Sink):
        self._sink = sink
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        self._held = bytearray()
        self._crc = 0
        self._size = 0
        sink.write(b"\x1f\x8b\x08\0\0\0\0\0\x04\xff")

    def write(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._held += data
        while len(self._held) >= GZIP_BLOCK:
            self._block(bytes(self._held[:GZIP_BLOCK]))
            del self._held[:GZIP_BLOCK]

    def _block(self, plain: bytes) -> None:
        packed = self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if len(packed) >= len(plain):
            self._sink.write(struct.pack("<B2H", 0, len(plain), len(plain) ^ 0xFFFF))
            self._sink.write(plain)
        else:
            self._put(packed)

    def _put(self, packed: bytes) -> None:
        for at in range(0, len(packed), DEFLATED):
            self._sink.write(packed[at : at + DEFLATED])

    def close(self) -> None:
        if self._held:
            self._block(bytes(self._held))
        self._put(self._deflate.flush())
        self._sink.write(self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little"))


class _Lz4:
    """Sink that writes one LZ4 frame: independent blocks of 256 KiB, no checksums but the header's."""

    def __init__(self, sink: Sink):
        from lz4.block import compress

        self._sink = sink
        self._compress: Callable[..., bytes] = compress
        self._held = bytearray()
        sink.write(b"\x04\x22\x4d\x18\x60\x50\xfb")

    def write(self, data: bytes | memoryview) -> None:
        self._held += data
        while len(self._held) >= LZ4_BLOCK:
            self._block(bytes(self._held[:LZ4_BLOCK]))
            del self._held[:LZ4_BLOCK]

    def _block(self, plain: bytes) -> None:
        packed, size = self._compress(plain, store_size=False), 0
        if len(packed) >= len(plain):
            packed, size = plain, LZ4_STORED
        self._sink.write((size + len(packed)).to_bytes(4, "little"))
        self._sink.write(packed)

    def close(self) -> None:
        if self._held:
            self._block(bytes(self._held))
        self._sink.write(bytes(4))


class _Compressed(TarWriter):
    """A TAR, compressed. Where it is cut short its compressed stream is complete all the same."""

    compressor: Callable[[Sink], _Gzip | _Lz4]

    def __init__(self, sink: Sink):
        self._compressed = self.compressor(sink)
        super().__init__(self._compressed)

    def close(self) -> None:
        super().close()
        self._compressed.close()


class TgzWriter(_Compressed):
    """`.tgz` and `.tar.gz`."""

    content_type = "application/gzip"
    compressor = _Gzip


class Lz4Writer(_Compressed):
    """`.tar.lz4`."""

    content_type = "application/x-lz4"
    compressor = _Lz4


WRITERS: dict[str, type[TarWriter] | type[ZipWriter]] = {
    ".tar": TarWriter,
    ".tgz": TgzWriter,
    ".tar.gz": TgzWriter,
    ".tar.lz4": Lz4Writer,
    ".zip": ZipWriter,
}
