"""Types of the decoders' Python face. C callers use `_decode.pxd`."""

from typing import Any, final

from typing_extensions import Buffer

class Head:
    """An HTTP response head."""
    status: int
    reason: str
    headers: dict[str, str]  # names in lower case; repeated names joined by ", "
    size: int                # bytes of the head, the empty line included

def parse_head(data: Buffer) -> Head | None:
    """The response head at the beginning of `data`; None if its end is not there yet. Strict; WireError(layer="http")."""

@final
class Framing:
    """Takes HTTP/1.1 body framing off, in place, at any split."""
    @staticmethod
    def chunked() -> Framing: ...
    @staticmethod
    def length(n: int) -> Framing: ...
    @staticmethod
    def until_close() -> Framing: ...
    done: bool      # the body's end was seen (never by until_close)
    offset: int     # raw bytes taken so far
    excess: int     # bytes that came behind the end (not consumed, not payload)
    def feed(self, data: Buffer) -> bytes:
        """The payload bytes in the next read (a copy; C callers strip in place). WireError(layer="http", offset=..)."""

@final
class Multipart:
    """A GetBatch multipart body: metadata part, then archive part; the closing delimiter is held back and checked."""
    def __init__(self, boundary: bytes, max_metadata: int = ...) -> None: ...
    done: bool
    def feed(self, data: Buffer) -> list[tuple[str, bytes]]:
        """Events of the next bytes: ("metadata", whole_json) once, then ("archive", some_bytes) any number of times. WireError(layer="multipart")."""
    def close(self) -> list[tuple[str, bytes]]:
        """The body has ended: checks the closing delimiter, gives the last ("archive", bytes). WireError if it is not whole."""

def boundary_of(content_type: str) -> bytes:
    """The boundary parameter of a multipart/mixed content type, quoted or not. WireError(layer="multipart") if there is none."""

@final
class TarReader:
    """TAR headers at any split; payload is only counted, never copied by C callers."""
    def __init__(self, max_entry: int = ...) -> None: ...
    done: bool      # two zero blocks were seen
    offset: int     # absolute bytes consumed
    def feed(self, data: Buffer) -> list[tuple[Any, ...]]:
        """Events: ("member", name: bytes, size: int), ("data", bytes) runs of its payload, ("end",) at the two zero blocks.
        Non-regular members: directories, links, devices, unknown types are skipped by rule (their payload too), no event. WireError(layer="tar", offset=..), LimitError for a size over max_entry."""
    def close(self) -> None:
        """The input has ended: WireError unless the two zero blocks were seen."""
