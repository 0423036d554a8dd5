"""The ways to get a batch of objects that are held against each other."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import aisfast
from aisfast.blocking import Blocking
from aisfast.exchange import Exchange

OURS = ("get()", "stream()", "fetch()")
PIPELINE = "pipeline()"
OFFICIAL = "official SDK"
SINGLES = "single GETs"
DRAIN = "raw drain"
WAYS = (OFFICIAL, SINGLES, *OURS, PIPELINE, DRAIN)

Names = Sequence[str]


class LeftOut(Exception):
    """A way that cannot be taken here; the text says why."""


class Way:
    """One way, with a client of its own that is made once.

    Attributes:
        client: Ours, whose stats tell what it cost; None for the others.
        first: Seconds from the latest call to its first object; 0: it is not told.
    """

    client: aisfast.Client | None = None

    def __init__(self) -> None:
        self.first = 0.0

    def get(self, names: Names) -> int:
        """Get a batch and drop it: bytes of payload."""
        size, began, self.first = 0, time.perf_counter(), 0.0
        for _name, data in self.pairs(names):
            if not self.first:
                self.first = time.perf_counter() - began
            size += len(data)
        return size

    def pairs(self, names: Names) -> Iterable[tuple[str, Any]]:
        """Name and content of each object."""
        raise NotImplementedError

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


class Ours(Way):
    def __init__(self, endpoint: str, bucket: str, provider: str, method: str) -> None:
        super().__init__()
        self.client = aisfast.Client(endpoint)
        self._bucket = self.client.bucket(bucket, provider)
        self.method = method

    def batch(self, names: Names) -> Any:
        assert self.client is not None
        return self.client.batch(list(names), bucket=self._bucket)

    def pairs(self, names: Names) -> Iterable[tuple[str, Any]]:
        batch = self.batch(names)
        if self.method == "get()":
            return ((info.obj_name, data) for info, data in batch.get())
        return ((item.name, item.data) for item in (batch.stream() if self.method == "stream()" else batch.fetch()))

    def get(self, names: Names) -> int:
        batch = self.batch(names)
        began, self.first, size = time.perf_counter(), 0.0, 0
        if self.method == "fetch()":
            return int(batch.fetch().offsets[-1])
        for thing in batch.get() if self.method == "get()" else batch.stream():
            if not size:
                self.first = time.perf_counter() - began
            size += len(thing[1]) if self.method == "get()" else thing.size
        return size


class Pipeline(Ours):
    """Several batches in flight; its batches are timed from when the pipeline takes them."""

    def __init__(self, endpoint: str, bucket: str, provider: str) -> None:
        super().__init__(endpoint, bucket, provider, "fetch()")

    def pairs(self, names: Names) -> Iterable[tuple[str, Any]]:
        assert self.client is not None
        with self.client.pipeline([list(names)], bucket=self._bucket) as results:
            for columns in results:
                yield from ((item.name, item.data) for item in columns)

    def flow(self, batches: Iterator[Names]) -> Iterator[int]:
        """Bytes of each batch's payload, in order."""
        assert self.client is not None
        given = (list(names) for names in batches)
        with self.client.pipeline(given, bucket=self._bucket) as results:
            for columns in results:
                yield int(columns.offsets[-1])


class Singles(Way):
    """One object GET behind the other, on a kept connection."""

    def __init__(self, endpoint: str, bucket: str, provider: str) -> None:
        super().__init__()
        self.client = aisfast.Client(endpoint)
        self._bucket = self.client.bucket(bucket, provider)

    def pairs(self, names: Names) -> Iterable[tuple[str, Any]]:
        return ((name, self._bucket.object(name).get_reader().read_all()) for name in names)


class Official(Way):
    def __init__(self, endpoint: str, bucket: str, provider: str) -> None:
        super().__init__()
        try:
            from aistore.sdk import Client
        except ImportError:
            raise LeftOut("aistore is not installed") from None
        client = Client(endpoint, token=os.environ.get("AIS_AUTHN_TOKEN"), timeout=(3, 90))
        if not hasattr(client, "batch"):
            raise LeftOut(f"aistore {metadata.version('aistore')} has no Client.batch()")
        self._client, self._bucket = client, client.bucket(bucket, provider)

    def batch(self, names: Names) -> Any:
        return self._client.batch(list(names), bucket=self._bucket)

    def pairs(self, names: Names) -> Iterable[tuple[str, Any]]:
        return ((info.obj_name, data) for info, data in self.batch(names).get())


class Drain(Way):
    """The same request, and a plain receive loop over the answer: nothing is decoded, nothing is handed out."""

    def __init__(self, endpoint: str, bucket: str, provider: str) -> None:
        super().__init__()
        place = urlsplit(endpoint)
        if place.scheme != "http":
            raise LeftOut("the endpoint speaks TLS")
        if os.environ.get("AIS_AUTHN_TOKEN") or os.environ.get("AIS_AUTHN_TOKEN_FILE"):
            raise LeftOut("the cluster wants a token")
        self._path = f"/v1/ml/moss/{bucket}?provider={provider}"
        self._proxy = place.netloc
        self._kept: dict[str, socket.socket] = {}
        self._buffer = bytearray(128 << 10)

    def get(self, names: Names) -> int:
        entries = [{"objname": name} for name in names]
        body = json.dumps({"in": entries, "mime": ".tar", "coer": True, "onob": False, "strm": True}).encode()
        head = self._ask(self._proxy, self._path, body)
        location = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"location:")), None)
        if location is None:
            raise LeftOut("the endpoint does not redirect")
        to = urlsplit(location.partition(b":")[2].strip().decode())
        self._ask(to.netloc, f"{to.path}?{to.query}", body)
        return 0

    def _ask(self, place: str, path: str, body: bytes) -> bytes:
        """Send the request, and read to the answer's end: its first bytes."""
        host, _, port = place.rpartition(":")
        sock = self._kept.get(place)
        if sock is None:
            sock = self._kept[place] = socket.create_connection((host.strip("[]"), int(port)), 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), place.encode(), len(body), body)
        )
        buffer, first, last = self._buffer, b"", b""
        while True:
            n = sock.recv_into(buffer)
            if not n:
                raise LeftOut("the connection was closed")
            first = first or bytes(buffer[: min(n, 4096)])
            last = (last + bytes(buffer[max(0, n - 5) : n]))[-5:]
            if last == b"0\r\n\r\n" or first.startswith(b"HTTP/1.1 3"):  # a redirect comes in one piece
                return first

    def close(self) -> None:
        for sock in self._kept.values():
            sock.close()


def make(way: str, endpoint: str, bucket: str, provider: str) -> Way:
    """A way by its name.

    Raises:
        LeftOut: It cannot be taken here.
    """
    if way in OURS:
        return Ours(endpoint, bucket, provider, way)
    others: dict[str, Callable[[str, str, str], Way]] = {
        PIPELINE: Pipeline, SINGLES: Singles, OFFICIAL: Official, DRAIN: Drain,
    }  # fmt: skip
    return others[way](endpoint, bucket, provider)


def digest(way: Way, names: Names) -> str:
    """A hash over names and contents of a batch, in order."""
    total = hashlib.blake2b(digest_size=16)
    for name, data in way.pairs(names):
        total.update(f"{name}\0{len(data)}\0".encode())
        total.update(data)
    return total.hexdigest()


# -------------------------------------------------------------------------------------------------- where the time goes


class Spent:
    """Seconds of one batch, by what they were spent on; and the same when the answer had begun, with that moment."""

    def __init__(self) -> None:
        self.seconds = {"wait": 0.0, "receive": 0.0, "pump": 0.0}
        self.at_answer = dict(self.seconds)
        self.answered = 0.0


@contextmanager
def clocked() -> Iterator[Spent]:
    """While it lasts our calls tell how long they wait for bytes, and take them from the kernel, and work in all."""
    spent = Spent()

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent.seconds[name] += time.perf_counter() - began

        return call

    def marked(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            method(*arguments)
            spent.answered, spent.at_answer = time.perf_counter(), dict(spent.seconds)

        return call

    places: list[tuple[Any, str]] = [(Exchange, "wait"), (Exchange, "receive"), (Blocking, "pump")]
    kept = [(owner, name, getattr(owner, name)) for owner, name in (*places, (Blocking, "open"))]
    for owner, name in places:
        setattr(owner, name, timed(name, getattr(owner, name)))
    setattr(Blocking, "open", marked(Blocking.open))  # noqa: B010
    try:
        yield spent
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


PARTS = ("build", "first byte", "wait", "receive", "decode", "hand-off", "wire and decode")


def split(way: Way, names: Names) -> dict[str, float]:
    """Where the seconds of one batch go, by the names in PARTS; empty where that cannot be told.

    build: from names to a batch. first byte: the request is written, sent and redirected, and the answer begins. wait:
    for the network. receive: the kernel's copy. decode: framing, TAR, checks, payloads copied. hand-off: objects made,
    and the loop of who takes them. Of the official SDK only the first two can be told apart.
    """
    if not isinstance(way, (Ours, Official)) or isinstance(way, Pipeline):
        return {}
    clock = time.perf_counter
    began = clock()
    batch = way.batch(names)
    built = clock()
    if isinstance(way, Official):
        results = batch.get()
        answered = clock()
        for _ in results:
            pass
        return {"build": built - began, "first byte": answered - built, "wire and decode": clock() - answered}
    with clocked() as spent:
        if way.method == "fetch()":
            batch.fetch()
        else:
            for _ in batch.get() if way.method == "get()" else batch.stream():
                pass
        ended = clock()
    after = {name: seconds - spent.at_answer[name] for name, seconds in spent.seconds.items()}
    return {
        "build": built - began,
        "first byte": spent.answered - built,
        "wait": after["wait"],
        "receive": after["receive"],
        "decode": max(0.0, after["pump"] - after["wait"] - after["receive"]),
        "hand-off": max(0.0, ended - spent.answered - after["pump"]),
    }
