"""Compressed archives behind one small interface: bytes go in by `push`, what they inflate to comes out by `pull`.

    gzip    zlib of the standard library, or isal where it is installed (extra `gzip`)
    lz4     the LZ4 frame format, by the package lz4 (extra `lz4`)

Checksums are verified by the libraries. What comes out is bounded by what was asked for, whatever goes in.
"""

from __future__ import annotations

from typing import Any, Protocol

from aisfast.errors import WireError


class Inflater(Protocol):
    """A stream being inflated."""

    done: bool  # its end mark was read, and its checksum was right

    def push(self, data: Any) -> None:
        """Give it bytes, once `pull` has returned nothing."""

    def pull(self, most: int) -> bytes:
        """The next bytes, `most` at most; none: more must be pushed, or the stream is done.

        Raises:
            WireError: The stream is damaged.
        """


class Gzip:
    """One or more gzip members, one after the other."""

    def __init__(self) -> None:
        self.done = False
        self._zlib: Any = _zlib()
        self._stream = self._zlib.decompressobj(31)
        self._given = b""
        self._taken = 0

    def push(self, data: Any) -> None:
        self._given = self._given + bytes(data) if self._given else data
        self._taken += len(data)

    def pull(self, most: int) -> bytes:
        while True:
            if self.done:
                if not len(self._given):
                    return b""
                self._next_member()
                if self.done:
                    return b""
            try:
                out: bytes = self._stream.decompress(self._given, most)
            except self._zlib.error as error:
                raise _damaged("gzip", self._taken - len(self._given), "a gzip stream", str(error)) from None
            self.done = self._stream.eof
            self._given = self._stream.unused_data if self.done else self._stream.unconsumed_tail
            if out or not len(self._given):
                return out

    def _next_member(self) -> None:
        """What follows the end of a member can only be another one."""
        begin = bytes(self._given[:2])
        if begin != b"\x1f\x8b"[: len(begin)]:
            raise _damaged("gzip", self._taken - len(self._given), "the end of the stream", bytes(self._given[:16]))
        if len(begin) == 2:
            self._stream = self._zlib.decompressobj(31)
            self.done = False


class Lz4:
    """One LZ4 frame."""

    def __init__(self) -> None:
        try:
            from lz4.frame import LZ4FrameDecompressor
        except ImportError:
            raise ModuleNotFoundError(
                "output format '.tar.lz4' needs the package lz4: install aisfast[lz4], or ask for '.tar'", name="lz4"
            ) from None
        self.done = False
        self._stream = LZ4FrameDecompressor()
        self._given: Any = b""
        self._taken = 0

    def push(self, data: Any) -> None:
        self._given = data
        self._taken += len(data)

    def pull(self, most: int) -> bytes:
        if self.done or (self._stream.needs_input and not len(self._given)):
            return b""
        try:
            out: bytes = self._stream.decompress(self._given, most)
        except (RuntimeError, EOFError) as error:
            raise _damaged("lz4", self._taken - len(self._given), "an LZ4 frame", str(error)) from None
        self._given = b""
        self.done = self._stream.eof
        if self.done and self._stream.unused_data:
            raise _damaged("lz4", self._taken, "the end of the stream", self._stream.unused_data[:16])
        return out


def _zlib() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib
    return isal_zlib


def _damaged(layer: str, offset: int, expected: str, found: object) -> WireError:
    found = found if isinstance(found, str) else repr(found)
    where = f"the compressed archive is damaged near byte {offset}"
    return WireError(
        0, f"{where}: expected {expected}, found {found}", layer=layer, offset=offset, expected=expected, found=found
    )
