"""One connection to a node, and the HTTP/1.1 spoken on it: a request out, a response head in, the body by its framing.

GetBatch speaks HTTP on the connected socket itself: through http.client a small batch costs three or four times as
much.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from aisfast._decode import Framing, Head
from aisfast.errors import NO_GATEWAY, WireError
from aisfast.session import Origin
from aisfast.version import __version__

if TYPE_CHECKING:
    from aisfast._delivery import Trail
    from aisfast.blackbox import Record

MOST_SECONDS = 1e6  # that anything may be told to wait
GATHERING = 0.005  # seconds for which bytes may gather in the kernel
SMALL = 32 << 10  # bytes: reads that bring less are worth gathering
LEAST_MARK = 16 << 10
MOST_MARK = 256 << 10
RECORD = 16 << 10  # bytes of TLS of which nothing is seen before all are here


class StaleConnection(Exception):
    """A kept connection was dead before the answer's first byte: the request may be sent again."""


class LowWater:
    """How many bytes the kernel is to gather before a read of an answer wakes us: learnt from the reads before.

    A live target writes entry by entry, in pieces of 2-32 KiB, and waking for each costs more than decoding does. One
    that sends as fast as it can be read is only slowed by a mark, and gets none.
    """

    def __init__(self) -> None:
        self.level = 1  # bytes: a good mark, if so much is due; 1: none
        self._mean = float(SMALL)  # bytes of reads without a mark

    def mark(self, due: int) -> int:
        """For the next read of an answer of which at least `due` bytes are to come. Never more than that: no answer
        waits for the time to be over."""
        return min(self.level, due) if due >= LEAST_MARK else 1

    def came(self, n: int, mark: int, full: bool) -> None:
        """A read with this mark has brought n bytes; `full`: all that the read had room for."""
        if mark == 1:
            self._mean += ((max(n, SMALL) if full else n) - self._mean) / 8
            if self.level == 1 and self._mean < SMALL:
                self.level = LEAST_MARK
        elif n < mark and not full:  # the time was over
            self.level = max(1, self.level >> 1)
            self._mean = float(SMALL)
        elif n >= 4 * mark:  # more had come than we can have waited for
            self.level = 1
            self._mean = float(SMALL)
        elif mark == self.level < MOST_MARK:
            self.level *= 2


class Exchange:
    """One connection, for one request at a time: idle, in use, or draining what follows a whole batch.

    Its socket never blocks (but for `blocks`): who reads from it asks `expect` first, and waits for it, with `wait` or
    with others, as that says. Times are monotonic seconds.

    Attributes:
        sends: It waits for room to send, not for something to read.
        wake: When to go on in any case.
        until: When it is too late: what is tried then and cannot be done is a TimeoutError.
    """

    __slots__ = (
        "_full",
        "_mark",
        "_reads",
        "_streams",
        "_stuck",
        "_tls",
        "absolute",
        "blocks",
        "fresh",
        "host",
        "limit",
        "pid",
        "record",
        "sends",
        "sock",
        "trail",
        "until",
        "wake",
    )

    def __init__(self, host: Host, sock: socket.socket, absolute: bool) -> None:
        self.host = host
        self.sock = sock
        self.absolute = absolute  # over a forward proxy: requests name the whole URL
        self.fresh = True  # nothing was sent on it yet
        self.record: Record | None = None  # of what is read, for a black box
        self.trail: Trail | None = None
        self.pid = os.getpid()
        self.sends = False
        self.limit = self.until = self.wake = 0.0
        self.blocks = not isinstance(sock, socket.socket)  # urllib3's TLS inside TLS, to a proxy: it cannot but block
        self._tls = hasattr(sock, "pending")
        self._mark = 1
        self._streams = False  # the read under way is one of many
        self._stuck = False  # nothing could be sent
        self._full = False  # the last read has brought all that it had room for
        self._reads = poll_of(sock)
        if not self.blocks:
            sock.setblocking(False)

    # ---------------------------------------------------------------------------------------------------------- waiting

    def expect(self, until: float, due: int = 0) -> bool:
        """Before a read: whether to wait for it first.

        Args:
            until: When it is too late, if the host's own limit is not earlier.
            due: Bytes of which it is certain that they are still to come: the kernel may gather some of them.
        """
        now = self._bound(until)
        self.sends = self._stuck = False
        self._streams = due > 0
        if self.blocks:
            self.sock.settimeout(max(0.001, min(MOST_SECONDS, self.limit)))
            return False
        mark = self.host.low_water.mark(due)
        if mark != self._mark:
            self._set_mark(mark)
        if mark > 1:
            self.wake = min(self.until, now + GATHERING)
        # TLS holds decrypted bytes of its own; and where a read has brought all that it could, more will be there
        return not (self._tls or (self._full and mark == 1))

    def wait(self) -> None:
        """Until something can be read (or sent), but not beyond `wake`."""
        left = min(MOST_SECONDS, self.wake - monotonic())
        (poll_of(self.sock, sends=True) if self.sends else self._reads)(max(0.0, left))

    def _bound(self, until: float) -> float:
        """What is tried now is too late at `until`, or when the host's own limit is over. Now."""
        now = monotonic()
        limit = self.host.read_timeout
        self.until = self.wake = until if limit is None or until < now + limit else now + limit
        self.limit = self.until - now
        return now

    def _set_mark(self, mark: int) -> None:
        self._mark = mark
        if hasattr(socket, "SO_RCVLOWAT"):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)

    def _not_yet(self, error: OSError) -> None:
        """What was tried cannot be done yet.

        Raises:
            TimeoutError: It is too late.
        """
        now = monotonic()
        if now >= self.until:
            raise TimeoutError("timed out") from None
        self.sends = self._stuck if isinstance(error, BlockingIOError) else type(error).__name__ == "SSLWantWriteError"
        if now >= self.wake:  # nothing at all came in time: wait for the first byte
            self._set_mark(1)
            self.wake = self.until

    # ------------------------------------------------------------------------------------------------------------ bytes

    def receive(self, buffer: memoryview) -> int:
        """Read what has come: how many bytes; 0 at the connection's end, -1 if there is nothing yet: then wait."""
        try:
            n = self.sock.recv_into(buffer)
            if self._tls:
                n = self._receive_more(buffer, n)
        except OSError as error:
            if not _must_wait(error):
                raise
            self._not_yet(error)
            return -1
        if self.record is not None:
            self.record.read(buffer[:n])
        self._full = n == len(buffer)
        if self._streams and n:
            self.host.low_water.came(n + RECORD if self._tls else n, self._mark, self._full)
        return n

    def _receive_more(self, buffer: memoryview, n: int) -> int:
        """TLS: further records that are here, each of 16 KiB at most."""
        last, filled = n, n
        while last and filled < len(buffer):
            try:
                last = self.sock.recv_into(buffer[filled:])
            except OSError:  # if it is the connection's, the next read meets it again
                break
            filled += last
        return filled

    def send(self, data: bytes | memoryview, until: float) -> int:
        """Send what can be sent at once: how many bytes; 0: wait, and try again. An OSError is the caller's."""
        if self.blocks:
            self.sock.settimeout(max(0.001, min(MOST_SECONDS, until - monotonic())))
            self.sock.sendall(data)
            return len(data)
        try:
            n = self.sock.send(data)
        except OSError as error:
            if not _must_wait(error):
                raise
            if not self._stuck:
                self._bound(until)
                self._stuck = True
            self._not_yet(error)
            return 0
        self._stuck = False
        return n

    def end(self) -> None:
        """The answer is over, but for what nobody waits for."""
        self.record = None
        if self._mark > 1:
            self._set_mark(1)

    def try_drain(self) -> bool:
        """Read what has come of the trail, without waiting. False: more is to come; else see `trail`."""
        trail = self.trail
        if trail is None:
            return True
        if self.blocks and self.is_quiet():
            return False
        try:
            while not trail.done and not trail.broken:
                with trail.get_buffer() as buffer:
                    n = self.sock.recv_into(buffer)
                if not n:
                    return True
                trail.commit(n)
        except OSError as error:
            return not _must_wait(error)
        return True

    def is_quiet(self) -> bool:
        """Nothing has come on the idle connection: it was not closed, and no stray byte waits."""
        return not self._reads(0.0)

    def close(self) -> None:
        if self.pid == os.getpid() and isinstance(self.sock, socket.socket):
            # else it is the parent's, and we close our copy of the descriptor
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # wakes a thread that waits for it
        self.sock.close()


def poll_of(sock: Any, sends: bool = False) -> Callable[[float], Any]:
    """Waits for so many seconds, at most, until the socket can be read (or sent to); tells whether it can."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLOUT if sends else select.POLLIN)
        return lambda seconds: poller.poll(seconds * 1000)
    return lambda seconds: any(select.select(*(([], [sock]) if sends else ([sock], [])), [], seconds))


def wait_for(exchanges: list[Exchange], seconds: float, bell: socket.socket | None = None) -> set[Exchange]:
    """Wait, for so long at most, until one can be read (or sent to, as it says) or the bell rings: which can."""
    if hasattr(select, "poll"):
        poller = select.poll()
        for exchange in exchanges:
            poller.register(exchange.sock, select.POLLOUT if exchange.sends else select.POLLIN)
        if bell is not None:
            poller.register(bell, select.POLLIN)
        found = {number for number, _ in poller.poll(seconds * 1000)}
        return {exchange for exchange in exchanges if exchange.sock.fileno() in found}
    reads = [exchange.sock for exchange in exchanges if not exchange.sends]
    sends = [exchange.sock for exchange in exchanges if exchange.sends]
    if not reads and not sends and bell is None:  # Windows would not wait
        sleep(seconds)
        return set()
    ready = select.select([*reads, *([bell] if bell else [])], sends, [], seconds)
    return {exchange for exchange in exchanges if exchange.sock in (*ready[0], *ready[1])}


def _must_wait(error: OSError) -> bool:
    """The socket has nothing for us yet. (Without `ssl` loaded there is no TLS socket.)"""
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


class Host:
    """One place of the cluster: its connections, and what every request to it begins with.

    Attributes:
        prefix: What the URLs of the place begin with.
        is_endpoint: It is the endpoint, which may see our token.
    """

    is_endpoint = False

    def __init__(self, prefix: str, origin: Origin, read_timeout: float | None, extra: dict[str, str]) -> None:
        self.prefix = prefix
        self.origin = origin
        self.read_timeout = read_timeout
        self.low_water = LowWater()
        lines = {
            "Host": origin.place,
            "User-Agent": f"aisfast/{__version__}",
            "Accept": "*/*",
            "Content-Type": "application/json",
            **extra,
        }
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.idle: list[Exchange] = []
        self.draining: deque[Exchange] = deque()

    def request(self, url: str, body: bytes, token: str | None, absolute: bool) -> bytes:
        """A GetBatch request. `absolute`: it names the whole URL."""
        target = url if absolute else url[len(self.prefix) :]
        if target[:1] != "/" and not absolute:
            target = f"/{target}"
        secret = f"Authorization: Bearer {token}\r\n" if token else ""
        head = f"GET {target} HTTP/1.1\r\n{self._headers}{secret}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("latin-1") + body


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
