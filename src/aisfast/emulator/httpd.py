"""HTTP/1.1 as Go's net/http speaks it: listeners, requests, answers, and the two buffers that every answer passes.

A handler writes into a buffer of 2048 bytes in front of the chunk writer, which writes into the connection's buffer of
4096 bytes. Only what leaves the second one is on the wire; `Answer` keeps account of both, so exactly the bytes that a
Go server would hold back are held back here, while the socket is still fed in large pieces.
Everything that goes to a client goes through `Connection.send`.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

CHUNK_BUFFER = 2048
CONNECTION_BUFFER = 4096
BATCHED = 64 << 10  # bytes gathered for one send
MAX_HEAD = 1 << 20  # a request's head; Go's default limit
IDLE = 30.0  # seconds: an idle connection is closed, a client that takes nothing for that long is cut off
READ = 1 << 16
TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # what methods are made of
NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
)
NOT_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"

_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

Headers = Iterable[tuple[str, str]]
Handler = Callable[["Request"], None]


class ClientGone(Exception):
    """The client closed the connection, broke the protocol, or was too slow."""


class Connection:
    """One accepted connection: buffered reads, and the one place through which bytes leave."""

    def __init__(self, sock: socket.socket, peer: str):
        self.sock = sock
        self.peer = peer  # "host:port", as errors name it
        self._buffer = bytearray()
        self._write_limit: float | None = None
        self._write_until = 0.0

    def limit_writes(self, seconds: float | None) -> None:
        """From now on the client has so long to take all that is sent; None: no such limit."""
        self._write_limit = seconds
        self.renew_write_limit()
        if seconds is None:
            self.sock.settimeout(IDLE)

    def renew_write_limit(self) -> None:
        if self._write_limit is not None:
            self._write_until = time.monotonic() + self._write_limit

    def send(self, data: bytes | memoryview) -> None:
        try:
            if self._write_limit is not None:
                left = self._write_until - time.monotonic()
                if left <= 0:
                    raise ClientGone("too slow")
                self.sock.settimeout(left)
            self.sock.sendall(data)
        except (OSError, ValueError) as error:
            raise ClientGone(str(error)) from None

    def reset(self) -> ClientGone:
        """Have the connection end in a reset instead of an end of file; the caller raises what this returns."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        return ClientGone("reset")

    def read_some(self) -> bytes:
        """Buffered bytes if there are any, else one read; b"" at the end."""
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data
        try:
            return self.sock.recv(READ)
        except (OSError, ValueError) as error:
            raise ClientGone(str(error)) from None

    def unread(self, data: bytes | bytearray) -> None:
        self._buffer[:0] = data

    def read_until(self, mark: bytes, limit: int) -> bytes | None:
        """Bytes up to and with `mark`; None if the client closed before it sent any."""
        seen = bytearray()
        while True:
            data = self.read_some()
            if not data:
                if seen:
                    raise ClientGone("closed inside a request")
                return None
            start = max(0, len(seen) - len(mark) + 1)
            seen += data
            at = seen.find(mark, start)
            if at >= 0:
                end = at + len(mark)
                self.unread(seen[end:])
                return bytes(seen[:end])
            if len(seen) > limit:
                raise ClientGone("request head too long")

    def read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.read_some()
            if not piece:
                raise ClientGone("closed inside a body")
            data += piece
        if len(data) > size:
            self.unread(data[size:])
            del data[size:]
        return bytes(data)


class Request:
    """One request and the means to answer it.

    Attributes:
        method, target: As on the request line.
        path: Path of the target, percent-decoded; `raw_path` as sent.
        raw_query: What follows the question mark, as sent.
        headers: Lower-case name → value; of a repeated header the last.
        local: "host:port" the client connected to.
    """

    def __init__(self, connection: Connection, method: str, target: str, headers: dict[str, str], version: str):
        self.connection = connection
        self.method = method
        self.target = target
        if "://" in target.split("?", 1)[0]:  # absolute form, as a forward proxy sends it
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        self.raw_path, _, self.raw_query = target.partition("?")
        self.path = unquote(self.raw_path)
        self.headers = headers
        connection_header = headers.get("connection", "").lower()
        self.close = "close" in connection_header or (version == "HTTP/1.0" and "keep-alive" not in connection_header)
        self._body: bytes | None = None
        self._query: dict[str, str] | None = None
        self.answered = False

    @property
    def query(self) -> dict[str, str]:
        if self._query is None:
            self._query = dict(reversed(parse_qsl(self.raw_query, keep_blank_values=True)))
        return self._query

    def body(self) -> bytes:
        """The whole body, read on the first call."""
        if self._body is None:
            if self.headers.get("expect", "").lower() == "100-continue" and not self.answered:
                self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                self._body = self._read_chunked()
            else:
                try:
                    size = int(self.headers.get("content-length") or 0)
                except ValueError:
                    raise ClientGone("bad Content-Length") from None
                self._body = self.connection.read_exactly(size) if size > 0 else b""
        return self._body

    def drain(self) -> None:
        """Read a body that the handler left alone, so that the next request can be read."""
        if self._body is None and not self.headers.get("expect"):
            self.body()

    def _read_chunked(self) -> bytes:
        parts = []
        while True:
            line = self.connection.read_until(b"\r\n", READ)
            if line is None:
                raise ClientGone("closed inside a body")
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise ClientGone("bad chunk size") from None
            if size == 0:
                break
            parts.append(self.connection.read_exactly(size))
            self.connection.read_exactly(2)
        while True:  # trailer section
            line = self.connection.read_until(b"\r\n", READ)
            if line is None or line == b"\r\n":
                return b"".join(parts)

    def reply(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        """A whole answer of known length. For HEAD give a Content-Length of your own if there is one to tell."""
        names = {name for name, _ in headers}
        has_body = self.method != "HEAD" and status != HTTPStatus.NO_CONTENT
        length = len(body) if has_body and "Content-Length" not in names else None
        self.answered = True
        if self._body is None and self.headers.get("expect"):
            self.close = True  # the client waits for a word before it sends its body, and may not send it now
        self.connection.send(self.head(status, headers, length=length) + (body if has_body else b""))

    def head(self, status: int, headers: Headers, *, length: int | None = None, chunked: bool = False) -> bytes:
        lines = [f"HTTP/1.1 {status} {_reason(status)}"]
        lines += [f"{name}: {value}" for name, value in sorted(headers, key=lambda header: header[0])]
        lines.append(f"Date: {_date()}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        if self.close:
            lines.append("Connection: close")
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


class Answer:
    """An answer written in pieces: Go's response writer with its two buffers.

    `write` fills the 2048-byte buffer; a write larger than what is free completes it to one chunk, and if the rest of
    that write is larger than the buffer it is a chunk of its own. An answer that fits the buffer and was never flushed
    has a Content-Length instead of chunks.
    """

    def __init__(self, request: Request, status: int, headers: Headers):
        self._request = request
        self._status = status
        self._headers = list(headers)
        self._head_done = False
        self._waiting: list[bytes | memoryview] = []  # in the chunk buffer
        self._waiting_size = 0
        self._out: list[
            bytes | memoryview
        ] = []  # framed and not sent; its last `_held` bytes are in the connection's buffer
        self._out_size = 0
        self._held = 0

    def write(self, data: bytes | memoryview) -> None:
        size = len(data)
        free = CHUNK_BUFFER - self._waiting_size
        if size <= free:
            self._waiting.append(data)
            self._waiting_size += size
            return
        if self._waiting_size:
            view = memoryview(data)
            self._waiting.append(view[:free])
            self._chunk(self._waiting, CHUNK_BUFFER)
            data, size = view[free:], size - free
        if size > CHUNK_BUFFER:
            self._chunk([data], size)
            self._waiting = []
            self._waiting_size = 0
        else:
            self._waiting = [data]
            self._waiting_size = size

    def flush(self) -> None:
        """Everything written so far goes to the client."""
        if self._waiting_size:
            self._chunk(self._waiting, self._waiting_size)
            self._waiting = []
            self._waiting_size = 0
        self._begin()
        self._held = 0
        self.release()

    def release(self) -> None:
        """Send what has left both buffers; what they hold stays. To be called before any wait."""
        ready = self._out_size - self._held
        if ready <= 0:
            return
        data = memoryview(b"".join(self._out))
        self._out = [data[ready:]] if self._held else []
        self._out_size = self._held
        self._request.connection.send(data[:ready])

    def break_off(self) -> None:
        """Send everything so far, the last of it in a chunk that says it is longer: the connection is to be closed."""
        data = b"".join(self._waiting)
        self._waiting = []
        self._waiting_size = 0
        self.flush()
        self._request.connection.send(b"%x\r\n" % (len(data) + CHUNK_BUFFER) + data)

    def finish(self) -> None:
        """The handler has returned: the rest of both buffers and the end of the body."""
        if not self._head_done:
            self._request.reply(self._status, b"".join(self._waiting), self._headers)
            return
        if self._waiting_size:
            self._chunk(self._waiting, self._waiting_size)
            self._waiting = []
        self._out.append(b"0\r\n\r\n")
        self._out_size += 5
        self._held = 0
        self.release()

    def _begin(self) -> None:
        if not self._head_done:
            self._head_done = True
            self._request.answered = True
            head = self._request.head(self._status, self._headers, chunked=True)
            self._out.append(head)
            self._out_size += len(head)
            self._buffered(len(head))

    def _chunk(self, pieces: list[bytes | memoryview], size: int) -> None:
        if not self._head_done:
            self._begin()
        line = b"%x\r\n" % size
        out = self._out
        out.append(line)
        out += pieces
        out.append(b"\r\n")
        self._out_size += len(line) + size + 2
        self._buffered(len(line))
        self._buffered(size)
        self._buffered(2)
        if self._out_size - self._held >= BATCHED:
            self.release()

    def _buffered(self, size: int) -> None:
        """Account for one write of `size` bytes into the connection's buffer."""
        held = self._held
        if held + size <= CONNECTION_BUFFER:
            self._held = held + size
            return
        if held:
            size -= CONNECTION_BUFFER - held
        self._held = 0 if size > CONNECTION_BUFFER else size


class Listeners:
    """Listening sockets, one acceptor thread for all of them and one thread per connection."""

    def __init__(self, tls: tuple[str, str] | None = None):
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._sockets: dict[int, tuple[socket.socket, Handler]] = {}  # by port
        self._lock = threading.Lock()
        self._threads: dict[threading.Thread, tuple[socket.socket, int]] = {}
        self._acceptor: threading.Thread | None = None
        self._errands: deque[Callable[[], None]] = deque()
        self._stopping = False

    def listen(self, host: str, port: int, handler: Handler) -> int:
        """Open one listening socket; returns its port. Requests wait until `start`."""
        sock = _bound(host, port)
        port = int(sock.getsockname()[1])
        self._sockets[port] = sock, handler
        self._open(port)
        return port

    def start(self) -> None:
        acceptor = threading.Thread(target=self._accept, name="aisfast-emulator", daemon=True)
        acceptor.start()
        self._acceptor = acceptor  # not before it runs: `stop` waits for it

    def stop(self) -> None:
        """Close everything and wait for every thread."""
        self._stopping = True
        self._wake()
        if self._acceptor is not None:
            self._acceptor.join()
        for thread in self._hang_up():
            thread.join()
        for sock, _ in self._sockets.values():
            sock.close()
        self._wake_in.close()
        self._wake_out.close()
        self._selector.close()

    def kill(self, port: int) -> None:
        """As if the process behind this port had died: its connections end, new ones are refused. The port is kept."""

        def run() -> None:
            sock, handler = self._sockets[port]
            self._selector.unregister(sock)
            host = sock.getsockname()[0]
            sock.close()
            self._sockets[port] = _bound(host, port), handler
            self._hang_up(port)

        self._by_acceptor(run)

    def revive(self, port: int) -> None:
        """Listen again."""
        self._by_acceptor(lambda: self._open(port))

    def _open(self, port: int) -> None:
        sock, handler = self._sockets[port]
        sock.listen(512)
        self._selector.register(sock, selectors.EVENT_READ, (handler, port))

    def _by_acceptor(self, errand: Callable[[], None]) -> None:
        """Have the acceptor do it, so that nothing is accepted meanwhile."""
        done = threading.Event()
        failed: list[OSError] = []

        def run() -> None:
            try:
                errand()
            except OSError as error:
                failed.append(error)
            done.set()

        self._errands.append(run)
        self._wake()
        while not done.wait(0.05) and not self._stopping:
            pass
        if failed:
            raise failed[0]

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b"x")

    def _hang_up(self, port: int | None = None) -> list[threading.Thread]:
        """End the connections of one port, or all; returns their threads."""
        with self._lock:
            ended = {thread: sock for thread, (sock, on) in self._threads.items() if port in (None, on)}
        for sock in ended.values():
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket.shutdown: that one disturbs the reader
        return list(ended)

    def _accept(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._wake_out.recv(1)
                    while self._errands:
                        self._errands.popleft()()
                    break  # what select() found may be closed now
                handler, port = key.data
                try:
                    sock, address = key.fileobj.accept()  # type: ignore[union-attr]
                except OSError:
                    continue
                sock.settimeout(IDLE)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(
                    target=self._serve,
                    args=(sock, port, f"{address[0]}:{address[1]}", handler),
                    name="aisfast-emulator-connection",
                )
                thread.daemon = True
                with self._lock:
                    self._threads[thread] = sock, port
                thread.start()

    def _serve(self, sock: socket.socket, port: int, peer: str, handler: Handler) -> None:
        try:
            if self._context is not None:
                first = sock.recv(1, socket.MSG_PEEK)
                if first and first[0] in TOKEN:
                    sock.recv(READ)  # closing with bytes unread would cut the answer off
                    sock.sendall(NOT_TLS)
                    return
                sock = self._context.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._threads[threading.current_thread()] = sock, port
            serve(Connection(sock, peer), handler)
        except (ClientGone, OSError):
            pass
        finally:
            with self._lock:
                self._threads.pop(threading.current_thread(), None)
                sock.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port; until it listens, connections to it are refused."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def serve(connection: Connection, handler: Handler) -> None:
    """Answer the requests of one connection until it ends."""
    first = connection.read_some()
    connection.unread(first)
    if first and first[0] not in TOKEN + b"\r\n":  # a TLS handshake, most likely
        connection.read_some()
        connection.send(NOT_HTTP)
        return
    while True:
        head = connection.read_until(b"\r\n\r\n", MAX_HEAD)
        if head is None:
            return
        lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3:
            connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.lower()] = value.strip()
        request = Request(connection, words[0], words[1], headers, words[2])
        handler(request)
        request.drain()
        if request.close:
            return


def html_escape(text: str) -> str:
    """As Go's http.Redirect escapes a URL in its body."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return text


def _reason(status: int) -> str:
    return HTTPStatus(status).phrase if status != 416 else "Requested Range Not Satisfiable"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date() -> str:
    now = time.gmtime()
    return (
        f"{_DAYS[now.tm_wday]}, {now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {now.tm_year} "
        f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} GMT"
    )
