"""The body of an answer as it comes, for who decodes it in another way: nothing of it is verified."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import urllib3

    from aisfast.session import Session

READ_SIZE = 1 << 16


class RawAnswer(io.RawIOBase):
    """A readable, closable answer, as `Batch.get(raw=True)` returns it. Close it: a `with` statement does.

    Attributes:
        status: Always 200.
        headers: Of the answer.
    """

    def __init__(self, session: Session, answer: urllib3.BaseHTTPResponse, url: str) -> None:
        super().__init__()
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._session = session
        self._answer = answer
        self._url = url

    def readable(self) -> bool:
        return not self.closed

    def readinto(self, buffer: Any) -> int:
        """Read what is there.

        Raises:
            AISConnectionError, AISTimeoutError: The answer broke off, or paused for too long.
            ValueError: It is closed.
        """
        if self.closed:
            raise ValueError("the answer is closed")
        view = memoryview(buffer).cast("B")
        with self._session.translated(self._url, "GET", self._session.settings.batch_read_timeout):
            piece = self._answer.read1(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def stream(self, amt: int = READ_SIZE, decode_content: bool | None = None) -> Iterator[bytes]:
        """The rest of it, in pieces of `amt` bytes at most."""
        while piece := self.read(amt):
            yield piece

    @property
    def data(self) -> bytes:
        """The rest of it."""
        return self.readall()

    def release_conn(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        if not self.closed:
            self._answer.close()
        super().close()
