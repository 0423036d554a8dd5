"""Builds and runs the replay server (replay.c) and the raw drain (drain.c). Needs a C compiler and POSIX.

The same over TLS is this file, run as a program: it encrypts as long as its client decrypts, so that its wall times say
nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
BUILD = HERE / "build"


def compiler() -> list[str]:
    """The C compiler and its flags."""
    return [*shlex.split(os.environ.get("CC", "cc")), "-O2", "-Wall", "-Wextra"]


def build(source: str, target: str, *flags: str) -> Path:
    """Compile a source of this directory into build/, unless that is newer than the source."""
    path, code = BUILD / target, HERE / source
    if not path.exists() or path.stat().st_mtime < code.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        subprocess.run([*compiler(), str(code), "-o", str(path), *flags], check=True)
    return path


class Replay:
    """A running replay server, a process of its own.

    Attributes:
        ca: Path of the certificate to trust, if it speaks TLS.

    Args:
        answers: Bucket names to answers' files.
        paces: Bucket names to files that tell how such an answer is sent; without: as fast as the kernel takes it.
    """

    ca: str | None = None

    def __init__(self, answers: dict[str, Path], paces: dict[str, Path] | None = None) -> None:
        program = build("replay.c", "replay", "-pthread")
        arguments = [
            f"{name}={path}" + (f":{paces[name]}" if paces and name in paces else "") for name, path in answers.items()
        ]
        self._process = subprocess.Popen(
            [str(program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.target_port, self.proxy_port = map(int, self._process.stdout.readline().split())

    @property
    def endpoint(self) -> str:
        """URL of the proxy, which redirects to the target."""
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def direct(self) -> str:
        """URL of the target, which answers at once."""
        return f"http://127.0.0.1:{self.target_port}"

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its stdin, which ends it


class Drain:
    """The raw drain on one kept connection.

    Args:
        answer_size: Bytes of the whole answer; 0: to its last chunk.
        slab: Into one large buffer, always the same, instead of a small one.
    Attributes:
        reads: Of all answers so far.
    """

    def __init__(
        self, port: int, request: bytes, answer_size: int, host: str = "127.0.0.1", slab: bool = False
    ) -> None:
        self._slab = ctypes.create_string_buffer(answer_size) if slab else None
        self._call = ctypes.CDLL(str(build("drain.c", "drain.so", "-shared", "-fPIC"))).drain
        self._reads = ctypes.c_size_t()
        size_of = ctypes.c_size_t
        counter = ctypes.POINTER(size_of)
        self._call.argtypes = [ctypes.c_int, ctypes.c_char_p, size_of, size_of, counter, ctypes.c_char_p]
        self._call.restype = ctypes.c_long
        self.request, self._size = request, answer_size
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def reads(self) -> int:
        return self._reads.value

    def __call__(self) -> int:
        """One answer; its bytes."""
        got: int = self._call(
            self._socket.fileno(), self.request, len(self.request), self._size, ctypes.byref(self._reads), self._slab
        )
        if got != (self._size or got) or got < 0:
            raise ConnectionError("the raw drain lost its connection")
        return got

    def close(self) -> None:
        self._socket.close()


class TlsReplay:
    """A running TLS replay server, a process of its own: it answers at once, without a redirect."""

    def __init__(self, answers: dict[str, Path]) -> None:
        import trustme

        BUILD.mkdir(exist_ok=True)
        authority, self.ca = trustme.CA(), str(BUILD / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(BUILD / "server.pem"))
        arguments = [str(BUILD / "server.pem"), *(f"{name}={path}" for name, path in answers.items())]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.target_port = int(self._process.stdout.readline())

    @property
    def direct(self) -> str:
        return f"https://localhost:{self.target_port}"

    endpoint = direct

    def __enter__(self) -> TlsReplay:
        return self

    __exit__ = Replay.__exit__


class TlsDrain:
    """The raw drain over TLS: `recv_into` a hot buffer, from Python (at most 16 KiB a call: TLS has no more)."""

    def __init__(self, port: int, ca: str | None, request: bytes, answer_size: int) -> None:
        self._request, self._size = request, answer_size
        plain = socket.create_connection(("localhost", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname="localhost")
        self._buffer = bytearray(64 << 10)

    def __call__(self) -> int:
        self._socket.sendall(self._request)
        read, buffer, left = self._socket.recv_into, self._buffer, self._size
        while left:
            n = read(buffer)
            if not n:
                raise ConnectionError("the raw drain lost its connection")
            left -= n
        return self._size

    def close(self) -> None:
        self._socket.close()


def serve_tls(certificate: str, answers: dict[bytes, mmap.mmap]) -> None:
    """Answer GetBatch requests until stdin ends; the port is printed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_side=True) as connection, connection.makefile("rb") as requests:
            while line := requests.readline():
                length = 0
                while (header := requests.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                requests.read(length)
                bucket = line.partition(b"/v1/ml/moss/")[2].split(b"?")[0].split(b"/")[0].split(b" ")[0]
                connection.sendall(answers[bucket])

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    given = {}
    for argument in sys.argv[2:]:
        bucket, _, path = argument.partition("=")
        with open(path, "rb") as file:
            given[bucket.encode()] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    serve_tls(sys.argv[1], given)
