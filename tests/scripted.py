"""A server that answers as a test says, over real sockets on a port of its own: for what no emulator does."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from aisfast.policy import Policy

ONE_ANSWER = Policy(resume=False)  # what one answer does not bring is an error: nothing is asked again


class Request(NamedTuple):
    """What a client sent. Header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A response with a length. Underscores in header names stand for hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Last(bytes):
    """Bytes after which the connection is closed."""


class Scripted:
    """Answers each request with the bytes that `script` makes of it; with None it closes the connection.

    A body is read only if it comes: one that was announced with `Connection: close` is not waited for.
    """

    def __init__(self, script: Callable[[Request], bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Scripted:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        raw = sock
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock.makefile("rb") as file:
                while request := _read(file):
                    self.requests.append(request)
                    reply = self.script(request)
                    if reply is None:
                        return
                    sock.sendall(reply)
                    if isinstance(reply, Last) or request.headers.get("connection") == "close":
                        return
        except (OSError, ValueError):
            pass  # the client went away, refused our certificate, or speaks no HTTP
        finally:
            self._open.discard(raw)
            sock.close()


def _read(file: object) -> Request | None:
    line = file.readline()  # type: ignore[attr-defined]
    if not line:
        return None
    method, target, _ = line.decode().split(" ")
    headers = {}
    while (line := file.readline().decode().strip()) != "":  # type: ignore[attr-defined]
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    length = 0 if headers.get("connection") == "close" else int(headers.get("content-length", 0))
    return Request(method, target, headers, file.read(length))  # type: ignore[attr-defined]
