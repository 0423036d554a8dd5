"""Builds and runs the replay server (replay.c) and the raw drain (drain.c). Needs a C compiler and POSIX."""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
import subprocess
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

    Args:
        answers: Bucket names to answers' files.
        paces: Bucket names to files that tell how such an answer is sent; without: as fast as the kernel takes it.
    """

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
    Attributes:
        reads: Of all answers so far.
    """

    def __init__(self, port: int, request: bytes, answer_size: int, host: str = "127.0.0.1") -> None:
        self._call = ctypes.CDLL(str(build("drain.c", "drain.so", "-shared", "-fPIC"))).drain
        self._reads = ctypes.c_size_t()
        size_of = ctypes.c_size_t
        self._call.argtypes = [ctypes.c_int, ctypes.c_char_p, size_of, size_of, ctypes.POINTER(size_of)]
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
            self._socket.fileno(), self.request, len(self.request), self._size, ctypes.byref(self._reads)
        )
        if got != (self._size or got) or got < 0:
            raise ConnectionError("the raw drain lost its connection")
        return got

    def close(self) -> None:
        self._socket.close()
