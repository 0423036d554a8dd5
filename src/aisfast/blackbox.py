"""The black box: the answer that ended a batch in a `WireError`, in a file.

With `AISFAST_BLACKBOX=DIR` a client keeps, of the answer it is reading, the first MiB and the last 4 MiB as they came
from the socket, and writes them to a file in DIR when a `WireError` ends the batch. `aisfast emulator --replay FILE`
serves such an answer again. A file may hold what objects hold. It holds no request headers; tokens and cookies are
blotted out, each with as many asterisks, so that every other byte is at its place.

    aisfast black box 1
    {
     "error": {...},            what ended the batch: its type and fields, and what was raised for it
     "request": {"url": ...,    as the gateway was asked
      "bytes": ..., "first": ...  length of the body; index, in the batch, of the first entry asked for
     "answer": {"url": ...,     who answered, without the query
      "redirected": ...,        whether the gateway had redirected to it
      "bytes": ..., "left_out": ..., "closed": ...  bytes read, those not kept, whether the connection had ended
     ...
    }
    -- request: 123 bytes
    {"in":[...
    -- answer from byte 0: 1048576 bytes
    HTTP/1.1 200 OK ...
    -- answer from byte 9437184: 4194304 bytes
    ...

Behind each title stand as many bytes as it says, and a line feed. A request body of more than 4 MiB is left out.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aisfast.errors import AISError, WireError
from aisfast.session import origin_of
from aisfast.settings import MIB
from aisfast.version import __version__

log = logging.getLogger("aisfast")

KEEP_FIRST = 1 * MIB
KEEP_LAST = 4 * MIB
KEEP_REQUEST = 4 * MIB
MAX_FILES = 16  # of one process

_MAGIC = b"aisfast black box 1\n"
_TITLE = re.compile(rb"-- (request|answer from byte (\d{1,15})): (\d{1,9}) bytes\n")
_HEADERS = re.compile(rb"(?i)^(?:set-cookie|(?:proxy-)?authorization):[ \t]*([^\r\n]+)", re.MULTILINE)
# In heads and error texts, not in archives, where a changed name would be another fault.
_SECRETS = re.compile(
    rb"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?i:(?<=bearer )[^\s\"',]+)"  # tokens
    rb"|(?<=://)[^/@\s\"]+(?=@)|(?<=[?&;]u=)[\w-]+"  # in URLs: who asks; the signature of a redirect
)

_written: dict[int, Iterator[int]] = {}  # by process: a fork counts anew, without a lock


class Record:
    """One answer as it is read, for the case that a `WireError` comes of it.

    Args:
        directory: Where files go; made if it is not there.
        asked: URL of the request to the gateway.
        url: Who answers: that, or where the gateway has redirected to.
        body: Of the request.
        first: Index, in the batch, of the first entry it asks for.
    """

    def __init__(self, directory: str, asked: str, url: str, body: bytes, first: int) -> None:
        self._directory = directory
        self._asked = asked
        self._url = url
        self._body = body
        self._first = first
        self._total = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._closed = False

    def read(self, data: memoryview) -> None:
        """These bytes were read; none: the connection has ended."""
        self._closed = not data
        self._total += len(data)
        room = KEEP_FIRST - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * KEEP_LAST:
            del self._tail[:-KEEP_LAST]

    def write(self, wire: WireError, raised: AISError, token: str | None) -> None:
        """Write the file, and name it in the error that is raised. If that fails the log says so, and nothing else.

        Args:
            wire: What is wrong with this answer.
            raised: What the caller gets for it: the same, or what it is the cause of.
        """
        number = next(_written.setdefault(os.getpid(), count(1)))
        if number > MAX_FILES:
            if number == MAX_FILES + 1:
                log.warning("this process has written %d black boxes and writes no more", MAX_FILES)
            return
        name = f"aisfast-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{os.urandom(4).hex()}.blackbox"
        path = os.path.join(self._directory, name)
        try:
            os.makedirs(self._directory, exist_ok=True)
            _write_whole(path, self._parts(wire, raised, token))
        except Exception as failure:  # whatever it is: it must not hide the error that is raised
            log.warning("no black box could be written to %s: %s", self._directory, failure)
            return
        log.warning("%s: the answer is kept in %s", type(raised).__name__, path)
        kept = f"`aisfast emulator --replay {shlex.quote(path)}` serves the answer again"
        raised.remedy = f"{raised.remedy}; {kept}" if raised.remedy else kept

    def _parts(self, wire: WireError, raised: AISError, token: str | None) -> list[bytes]:
        tail = bytes(self._tail[-KEEP_LAST:])
        left_out = self._total - len(self._head) - len(tail)

        def plain(text: str) -> str:
            return _without(token, _SECRETS.sub(_blot, text.encode("utf-8", "replace"))).decode()

        texts = {name: plain(getattr(wire, name)) for name in ("layer", "expected", "found", "entry", "message")}
        about = {
            "written": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "aisfast": __version__,
            "python": platform.python_version(),
            "error": {
                "type": type(wire).__name__,
                "raised": type(raised).__name__,
                "offset": wire.offset,
                **texts,
            },
            "request": {"url": plain(self._asked), "bytes": len(self._body), "first": self._first},
            "answer": {
                "url": plain(f"{origin_of(self._url)}{urlsplit(self._url).path}"),
                "redirected": self._url != self._asked,
                "bytes": self._total,
                "left_out": left_out,
                "closed": self._closed,
            },
        }
        parts = [_MAGIC, json.dumps(about, indent=1).encode(), b"\n"]
        if len(self._body) <= KEEP_REQUEST:
            parts += _section("request", _without(token, self._body))
        kept = bytes(self._head) + tail  # one piece: what lies across the two is blotted out as well
        ok = kept.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\n" in kept
        end = kept.index(b"\r\n\r\n") if ok else len(kept)
        head = _HEADERS.sub(lambda found: found[0][: found.start(1) - found.start()] + _blot(found, 1), kept[:end])
        kept = _without(token, _SECRETS.sub(_blot, head) + kept[end:])
        size = len(self._head)
        if not left_out:
            return parts + _section("answer from byte 0", kept)
        parts += _section("answer from byte 0", kept[:size])
        return parts + _section(f"answer from byte {size + left_out}", kept[size:])


class Recorded(NamedTuple):
    """What a file holds.

    Attributes:
        about: The JSON object.
        request: The request's body, None if it was left out.
        answer: The answer's first bytes, or all.
        last: Its last bytes; b"" if none were left out before them.
    """

    about: dict[str, Any]
    request: bytes | None
    answer: bytes
    last: bytes


def load(path: str) -> Recorded:
    """Read a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no black box, or is damaged.
    """
    data = Path(path).read_bytes()
    if not data.startswith(_MAGIC):
        raise ValueError(f"{path} is no black box of this version: it does not begin with {_MAGIC.decode().strip()!r}")
    end = data.find(b"\n}\n") + 3
    sections: dict[bytes, bytes] = {}
    try:
        about = json.loads(data[len(_MAGIC) : end])
        at = end
        while at < len(data):
            title = _TITLE.match(data, at)
            if title is None:
                raise ValueError("a title is wrong")
            at = title.end() + int(title[3])
            if data[at : at + 1] != b"\n":
                raise ValueError("a section is longer or shorter than its title says")
            sections[title[2] or b""] = data[title.end() : at]
            at += 1
        request, answer, last = (sections.pop(b"", None), sections.pop(b"0"), b"".join(sections.values()))
        if len(answer) + len(last) + about["answer"]["left_out"] != about["answer"]["bytes"]:
            raise ValueError("a section is missing")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is a damaged black box: {error}") from None
    return Recorded(about, request, answer, last)


def _write_whole(path: str, parts: list[bytes]) -> None:
    """All or nothing, and never over another file: the name is random."""
    unfinished = f"{path}.part"
    try:
        with open(unfinished, "xb") as file:
            file.writelines(parts)
        os.rename(unfinished, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise


def _section(title: str, data: bytes) -> list[bytes]:
    return [f"-- {title}: {len(data)} bytes\n".encode(), data, b"\n"]


def _blot(found: re.Match[bytes], group: int = 0) -> bytes:
    return b"*" * len(found[group])


def _without(token: str | None, data: bytes) -> bytes:
    return data.replace(token.encode(), b"*" * len(token)) if token else data
