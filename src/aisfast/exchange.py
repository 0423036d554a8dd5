"""One connection to a node, and the HTTP/1.1 spoken on it: a request out, a response head in, the body by its framing.

GetBatch speaks HTTP on the connected socket itself: through http.client a small batch costs three or four times as
much.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from aisfast._decode import Framing, Head, parse_head
from aisfast._delivery import Trail
from aisfast.errors import NO_GATEWAY, LimitError, WireError
from aisfast.session import Origin
from aisfast.settings import MAX_HEAD
from aisfast.version import __version__

if TYPE_CHECKING:
    from aisfast.blackbox import Record


class StaleConnection(Exception):
    """A kept connection was dead before the answer's first byte: the request may be sent again."""


MOST_SECONDS = 1e6  # that a socket may be told to wait


class Exchange:
    """One connection, for one request at a time: idle, in use, or draining what follows a whole batch.

    Times are monotonic seconds.
    """

    __slots__ = ("absolute", "bounded", "fresh", "host", "pid", "record", "sock", "trail")

    def __init__(self, host: Host, sock: socket.socket, absolute: bool) -> None:
        self.host = host
        self.sock = sock
        self.absolute = absolute  # over a forward proxy: requests name the whole URL
        self.fresh = True  # nothing was sent on it yet
        self.bounded = False  # the next read is, by less than the host's limit
        self.record: Record | None = None  # of what is read, for a black box
        self.trail: Trail | None = None
        self.pid = os.getpid()

    def receive(self, buffer: memoryview | bytearray, until: float) -> int:
        """One read, for no longer than `until` and the host's own limit allow. An OSError is the caller's."""
        left = until - monotonic()
        limit = self.host.read_timeout
        if left < (MOST_SECONDS if limit is None else limit):
            self.sock.settimeout(max(0.001, left))
            self.bounded = True
        elif self.bounded:
            self.sock.settimeout(limit)
            self.bounded = False
        n = self.sock.recv_into(buffer)
        if self.record is not None:
            self.record.read(memoryview(buffer)[:n])
        return n

    def send(self, url: str, body: bytes, token: str | None, until: float) -> None:
        """Write a GetBatch request. An OSError is the caller's."""
        host = self.host
        target = url[len(host.prefix) :]
        if not target.startswith("/"):
            target = f"/{target}"
        if self.absolute:
            target = host.prefix + target
        secret = f"Authorization: Bearer {token}\r\n" if token else ""
        head = f"GET {target} HTTP/1.1\r\n{host.headers}{secret}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        left = until - monotonic()
        self.bounded = left < (MOST_SECONDS if host.read_timeout is None else host.read_timeout)
        self.sock.settimeout(max(0.001, left) if self.bounded else host.read_timeout)
        self.sock.sendall(head + body)

    def read_head(self, buffer: memoryview, until: float) -> tuple[Head, int]:
        """Read into `buffer` until it holds a final response head. The head, and the bytes read.

        Raises:
            OSError: The read failed.
            StaleConnection: A kept connection ended before the first byte.
            AISConnectionError, WireError: It ended later, or does not speak HTTP.
        """
        filled = interim = 0
        while True:
            try:
                n = self.receive(buffer[filled:], until)
            except ConnectionError:
                if not filled and not self.fresh:
                    raise StaleConnection from None
                raise
            if not n:
                if not filled and not self.fresh:
                    raise StaleConnection
                raise ConnectionResetError("closed without an answer")
            filled += n
            head = parse_head(buffer[:filled])
            while head is not None and 100 <= head.status < 200:  # an interim answer: the final one follows
                interim += head.size
                if interim > MAX_HEAD:
                    raise LimitError(0, f"interim answers of more than {MAX_HEAD} bytes", layer="http", offset=interim)
                rest = bytes(buffer[head.size : filled])
                filled = len(rest)
                buffer[:filled] = rest
                head = parse_head(rest)
            if head is not None:
                return head, filled
            if filled >= min(len(buffer), MAX_HEAD):
                raise LimitError(0, f"the response head is longer than {MAX_HEAD} bytes", layer="http", offset=filled)

    def try_drain(self) -> bool:
        """Read what has come of the trail, without waiting. False: more is to come; else see `trail`."""
        trail = self.trail
        if trail is None:
            return True
        self.sock.settimeout(0)
        try:
            while not trail.done and not trail.broken:
                with trail.get_buffer() as buffer:
                    n = self.sock.recv_into(buffer)
                if not n:
                    return True
                trail.commit(n)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            return type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError")
        return True

    def is_quiet(self) -> bool:
        """Nothing has come on the idle connection: it was not closed, and no stray byte waits."""
        from urllib3.util import wait_for_read

        return not wait_for_read(self.sock, timeout=0.0)

    def close(self) -> None:
        if self.pid == os.getpid():  # else it is the parent's, and we close our copy of the descriptor
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # wakes a thread that waits in it
        self.sock.close()


class Host:
    """One place of the cluster: its connections, and what every request to it begins with."""

    def __init__(self, origin: Origin, read_timeout: float | None, extra: dict[str, str]) -> None:
        self.origin = origin
        self.prefix = str(origin)
        self.read_timeout = read_timeout
        lines = {
            "Host": origin.place,
            "User-Agent": f"aisfast/{__version__}",
            "Accept": "*/*",
            "Content-Type": "application/json",
            **extra,
        }
        self.headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.idle: list[Exchange] = []
        self.draining: deque[Exchange] = deque()


def framing_of(head: Head) -> Framing:
    """How the body behind a response head is framed.

    Raises:
        WireError: Transfer-Encoding or Content-Length is not usable.
    Source: RFC 9112 section 6.3; a head with both is refused.
    """
    coding = head.headers.get("transfer-encoding")
    length = head.headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise WireError(
                0,
                "the answer's framing cannot be trusted",
                layer="http",
                offset=0,
                expected="Transfer-Encoding: chunked alone, or Content-Length",
                found=f"Transfer-Encoding: {coding}, Content-Length: {length}",
                remedy=NO_GATEWAY,
            )
        return Framing.chunked()
    if head.status in (204, 304):
        return Framing.length(0)
    if length is None:
        return Framing.until_close()
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise WireError(
            0,
            f"Content-Length: {length[:32]!r} is no length",
            layer="http",
            offset=0,
            expected="digits",
            found=length[:32],
            remedy=NO_GATEWAY,
        )
    return Framing.length(int(length))


def keeps_alive(head: Head) -> bool:
    """Whether the connection may be used after this answer."""
    return "close" not in head.headers.get("connection", "").lower()
