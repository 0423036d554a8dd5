"""Types of the decoders' Python face. C callers use `_decode.pxd`."""

from typing import Any, Final, final

from typing_extensions import Buffer, Self

MAX_CHUNK_LINE: Final[int]
MAX_HEAD: Final[int]
MAX_METADATA: Final[int]
MAX_PAX: Final[int]

@final
class Head:
    """An HTTP response head."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; values of repeated names joined by ", "."""
    @property
    def size(self) -> int:
        """Bytes of the head, the empty line included."""

def parse_head(data: Buffer) -> Head | None:
    """The response head that `data` begins with; None if its end is not there yet.

    Strict: WireError with layer "http".
    """

@final
class Framing:
    """Takes HTTP/1.1 body framing off, in place, at any split."""

    @staticmethod
    def chunked() -> Framing: ...
    @staticmethod
    def length(n: int) -> Framing: ...
    @staticmethod
    def until_close() -> Framing: ...
    @property
    def done(self) -> bool:
        """The body's end was seen (never by `until_close`)."""
    @property
    def offset(self) -> int:
        """Raw bytes taken so far."""
    @property
    def excess(self) -> int:
        """Bytes that came behind the end: not consumed, no payload."""
    def feed(self, data: Buffer) -> bytes:
        """The payload bytes in the next read, a copy (C callers strip in place).

        WireError with layer "http" and its offset.
        """

@final
class Multipart:
    """A GetBatch multipart body: metadata, then the archive; the closing delimiter is held back and checked."""

    def __new__(cls, boundary: bytes, max_metadata: int = ...) -> Self: ...
    @property
    def boundary(self) -> bytes: ...
    @property
    def closing(self) -> bytes:
        """What follows the archive."""
    @property
    def metadata(self) -> bytes | None:
        """The first part, once it is whole."""
    @property
    def offset(self) -> int:
        """Bytes taken so far."""
    @property
    def done(self) -> bool: ...
    def feed(self, data: Buffer) -> list[tuple[str, bytes]]:
        """Events of the next bytes: ("metadata", whole_json) once, then ("archive", some_bytes) any number of times.

        WireError with layer "multipart".
        """
    def close(self) -> list[tuple[str, bytes]]:
        """The body has ended: checks the closing delimiter and gives the last ("archive", bytes).

        WireError with layer "multipart" if it is not whole.
        """

def boundary_of(content_type: str) -> bytes:
    """The boundary parameter of a multipart/mixed content type, quoted or not.

    WireError with layer "multipart" if there is none.
    """

@final
class TarReader:
    """TAR headers at any split; payload is only counted, never copied by C callers."""

    def __new__(cls, max_entry: int = ...) -> Self: ...
    @property
    def done(self) -> bool:
        """Two zero blocks were seen."""
    @property
    def offset(self) -> int:
        """Bytes consumed so far."""
    def feed(self, data: Buffer) -> list[tuple[Any, ...]]:
        """Events: ("member", name: bytes, size: int), ("data", bytes) runs of its payload, ("end",) at two zero blocks.

        Members that are no regular files (directories, links, devices, unknown types) are skipped with their payload,
        without an event. WireError with layer "tar" and its offset; LimitError for a size over `max_entry`.
        """
    def close(self) -> None:
        """The input has ended: WireError unless the two zero blocks were seen."""
