"""GetBatch as the designated target (DT) does it: reserved in phase 1, claimed and assembled in phase 2.

An entry whose object the DT owns is local, any other one is remote: pushed by the peer that owns it. Names, metadata,
errors and the order of checks differ between the two exactly as on a real cluster; the data comes from one store.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aisfast.emulator import shards, store
from aisfast.emulator.batch_request import BatchRequest, Entry
from aisfast.emulator.errors import Failure, NotFound, RangeNotSatisfiable, quote
from aisfast.emulator.httpd import Answer, Request
from aisfast.emulator.outputs import WRITERS, Writer
from aisfast.emulator.refusals import failure
from aisfast.emulator.tar import PIECE

if TYPE_CHECKING:
    from aisfast.emulator import Cluster

MISSING = "__404__/"
MAX_SOFT_ERRORS = 8
MAX_RECOVERIES = 5  # GETs from a neighbour ("GFN") that one request may cost
MAX_PENDING = 256  # work items of one job
ABANDONED = 300.0  # seconds after which a work item that nobody claimed is dropped
FLUSH_EVERY = 5.0  # seconds between two flushes of a streaming answer


@dataclass
class Job:
    """The `get-batch` job of one DT and one default bucket: its requests share its id, and its end if it is aborted."""

    xid: str
    bucket: store.Bucket | None
    started: str
    pending: dict[str, tuple[BatchRequest, float]] = field(default_factory=dict)
    aborted: str | None = None

    @property
    def name(self) -> str:
        return f"x-get-batch[{self.xid}]" + (f"-{self.bucket.uri}" if self.bucket else "")


class Jobs:
    """All running jobs of one target."""

    def __init__(self, new_id: Callable[[int], str]):
        self._new_id = new_id
        self._lock = threading.Lock()
        self._by_bucket: dict[str, Job] = {}
        self._by_xid: dict[str, Job] = {}

    def reserve(self, bucket: store.Bucket | None, wid: str, request: BatchRequest) -> Job:
        """Phase 1: a work item of a running job, or of a new one.

        Raises:
            Failure: 429, too many work items.
        """
        now = time.monotonic()
        key = bucket.uname if bucket else ""
        with self._lock:
            job = self._by_bucket.get(key)
            if job is None or job.aborted is not None:
                clock = time.time()
                started = time.strftime("%H:%M:%S", time.gmtime(clock)) + f".{int(clock % 1 * 1e6):06}"
                job = Job("gbt-" + self._new_id(9), bucket, started)
                self._by_bucket[key] = self._by_xid[job.xid] = job
            if len(job.pending) >= MAX_PENDING:
                job.pending = {w: item for w, item in job.pending.items() if now - item[1] < ABANDONED}
            if len(job.pending) >= MAX_PENDING:
                raise Failure(
                    429, f"{job.name}: wid={quote(wid)} rejected: pending={len(job.pending)}", "ErrTooManyRequests"
                )
            job.pending[wid] = (request, now)
        return job

    def abort(self, reason: str, like: Job | None = None) -> None:
        """End the jobs with the default bucket of `like`, or all: running answers end as if complete."""
        with self._lock:
            for job in self._by_bucket.values():
                if job.aborted is None and (like is None or job.bucket is like.bucket):
                    job.aborted = reason

    def claim(self, xid: str, wid: str) -> tuple[Job, BatchRequest]:
        """Phase 2: take the work item; it can be had once.

        Raises:
            Failure: No such job, or no such work item any more.
        """
        with self._lock:
            job = self._by_xid.get(xid)
            if job is None:
                raise Failure(404, f"x-moss: xid {quote(xid)} not active")
            if job.aborted is not None:
                raise Failure(400, job.aborted)
            item = job.pending.pop(wid, None)
        if item is None:
            raise NotFound(f"{job.name}-{job.started}: wid={quote(wid)} (prep-rx not done?)")
        return job, item[0]


class _Aborted(Exception):
    """The job has ended: what was assembled so far is the answer, and counts as success."""


class Assembly:
    """One request being answered by its DT.

    Args:
        dt: Index of the DT.
    """

    def __init__(self, request: BatchRequest, job: Job, dt: int, cluster: Cluster):
        self._request = request
        self._job = job
        self._dt = dt
        self._cluster = cluster
        self._smap = cluster.smap
        self._targets = cluster.smap.targets
        self._objects = cluster.store
        self._tail_delay = cluster.tail_delay if len(self._smap.present()) > 1 else 0.0
        self._pause = cluster.pause
        self._script = request.script
        self._wid = ""
        self._soft = 0
        self._recoveries = 0
        self._silent: set[int] = set()  # peers whose sender has given up on this request
        self._last_push = time.monotonic()
        self._flush_at = 0.0
        self._before_wait: Callable[[], None] = lambda: None
        self._out: list[dict[str, Any]] | None = None
        self._writer: Writer

    def answer(self, http: Request, wid: str, output: str) -> None:
        """Assemble and answer, in either mode.

        Raises:
            Failure: Buffered mode only; once a streaming answer has begun every failure only makes it short.
        """
        self._wid = wid
        if self._request.streaming:
            self._stream(http, output)
        else:
            self._buffer(http, output)

    def _stream(self, http: Request, output: str) -> None:
        answer = self._answer(http, WRITERS[output].content_type)
        limit = self._script and self._script.write_limit(http)
        limit = limit or self._cluster.write_limit
        flush_every = min(FLUSH_EVERY, limit / 6)
        http.connection.limit_writes(limit)
        answer.flush()

        def before_wait() -> None:
            answer.release()
            http.connection.renew_write_limit()

        self._before_wait = before_wait
        writer = WRITERS[output](answer)
        self._writer = writer if self._script is None else self._script.writer(writer)
        self._flush_at = time.monotonic() + flush_every
        try:
            for index, entry in self._entries():
                self._next(index, entry)
                if time.monotonic() >= self._flush_at:
                    http.connection.renew_write_limit()
                    answer.flush()
                    self._flush_at = time.monotonic() + flush_every
        except _Aborted:
            self._writer.close()
            self._quiesce()
        except Failure:
            self._quiesce()
            self._writer.close()
        else:
            self._writer.close()
            self._quiesce()
        answer.finish()
        http.connection.limit_writes(None)

    def _entries(self) -> Iterator[tuple[int, Entry]]:
        entries = self._request.entries
        return enumerate(entries) if self._script is None else self._script.entries(entries)

    def _answer(self, http: Request, content_type: str) -> Answer:
        headers = [("Content-Type", content_type)]
        return Answer(http, 200, headers) if self._script is None else self._script.answer(http, 200, headers)

    def _buffer(self, http: Request, output: str) -> None:
        archive = _Buffer()
        writer = WRITERS[output](archive)
        self._writer = writer if self._script is None else self._script.writer(writer, archive.size)
        self._out = []
        try:
            for index, entry in self._entries():
                self._next(index, entry)
        except _Aborted:
            pass
        except Failure:
            self._quiesce()
            raise
        self._writer.close()
        boundary = secrets.token_hex(30)
        answer = self._answer(http, f"multipart/mixed; boundary={boundary}")
        if self._script is not None:
            self._out = self._script.out(self._out)
        metadata = _go_json({"uuid": self._job.xid, "out": self._out})
        answer.write(f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode())
        answer.write(metadata.encode("utf-8", "replace") + b"\n")
        disposition = f'form-data; name="archive"; filename="get-batch[{self._job.xid}]"'
        answer.write(
            f"\r\n--{boundary}\r\nContent-Disposition: {disposition}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n".encode()
        )
        if self._script is not None:
            self._script.archive_begins()
        for piece in pieces(archive.value()):
            answer.write(piece)
        answer.write(f"\r\n--{boundary}--\r\n".encode())
        self._before_wait = answer.release
        self._quiesce()
        answer.finish()

    def _quiesce(self) -> None:
        """The handler returns when the peers have been silent for a while; what the buffers hold waits with it."""
        wait = self._last_push + self._tail_delay - time.monotonic()
        if self._tail_delay and wait > 0:
            self._before_wait()
            self._pause(wait)

    def _next(self, index: int, entry: Entry) -> None:
        """Write one entry."""
        if self._job.aborted is not None:
            raise _Aborted
        if self._soft > MAX_SOFT_ERRORS:
            raise self._too_many()
        stored, owner = self._objects.locate(entry.bucket, entry.name)
        if self._smap.troubled:
            self._check_peer(entry, owner)
        if self._script is not None:
            if self._script.misses(index):
                stored = None
            wait = self._script.recovery(index)
            if wait is not None:
                self._recover(index, entry, stored, owner, wait)
                return
        if owner == self._dt:
            self._local(entry, stored)
        else:
            self._remote(index, entry, stored, owner)

    def _local(self, entry: Entry, stored: store.Object | None) -> None:
        name = entry.base
        try:
            if stored is None:
                raise NotFound(f"{self._targets[self._dt].name}: {entry.bucket.uri}/{entry.name}")
            if entry.archpath:
                name = _with_archpath(name, entry.archpath)
                member = self._objects.member(stored, entry.archpath, self._targets[self._dt].name)
                start, length = entry.range_of(member.size)
                self._write_member(name, entry, member, start, length, member.first_piece(start))
                return
        except NotFound as error:
            if not self._request.continue_on_error:
                raise
            self._missing(name, entry, error)
            return
        start, length = entry.range_of(stored.size)
        data = stored.data if length == stored.size else memoryview(stored.data)[start : start + length]
        self._write(name, entry, length, stored.atime if length == stored.size else 0, data)

    def _write_member(
        self, name: str, entry: Entry, member: shards.Member, start: int, length: int, first: int = PIECE
    ) -> None:
        """A local file of a shard. Damage in it ends the answer inside it, or right after it."""
        data, fault = member.load()
        data = memoryview(data)[start : start + length]
        self._writer.member(name, length, 0, pieces(data, first))
        if fault and (len(data) < length or length == member.size):
            raise Failure(400, fault)
        self._told(entry, length)

    def _write(self, name: str, entry: Entry, size: int, mtime: int, data: bytes | memoryview) -> None:
        """A local object. A file that was cut on disk ends the answer inside it, but for a ZIP, which goes on."""
        self._writer.member(name, size, mtime, pieces(data))
        if self._writer.broken:
            raise Failure(400, f"archive/tar: missed writing {self._writer.broken} bytes")
        self._told(entry, size)

    def _told(self, entry: Entry, size: int) -> None:
        if self._out is not None:
            self._out.append(_out(entry, entry.name, entry.archpath, entry.bucket.provider, "", size))

    def _missing(self, name: str, entry: Entry, error: Failure) -> None:
        self._writer.member(MISSING + name, 0, 0, ())
        self._soft += 1
        if self._out is not None:
            self._out.append(_out(entry, entry.name, entry.archpath, entry.bucket.provider, error.message, 0))

    def _remote(self, index: int, entry: Entry, stored: store.Object | None, owner: int) -> None:
        """An entry as its peer pushes it: any failure to find or open it is a miss, whatever continue-on-error says."""
        if owner in self._silent:
            self._recover(index, entry, stored, owner)
            return
        name = f"{entry.base}/{entry.archpath}" if entry.archpath else entry.base
        peer = self._targets[owner].name
        data: bytes | memoryview = b""
        problem = ""
        size = 0
        try:
            if stored is None:
                raise NotFound(f"{peer}: {entry.bucket.uri}/{entry.name}")
            if entry.archpath:
                member = self._objects.member(stored, entry.archpath, peer)
                full, load = member.size, member.load
            else:
                full, load = stored.size, lambda: (stored.data, None)
            try:
                start, size = entry.range_of(full)
            except RangeNotSatisfiable:
                self._silent.add(owner)
                self._recover(index, entry, stored, owner)
                return
            data, fault = load()
            data = data if size == full else memoryview(data)[start : start + size]
            if len(data) < size or (fault and size == full):
                self._abort(owner, fault or "unexpected EOF")
        except Failure as error:
            problem = error.message
            self._soft += 1
            if self._soft > MAX_SOFT_ERRORS:
                raise self._too_many() from None
        if not name and not problem:
            self._recover(index, entry, stored, owner)  # a name this empty is taken for "not received yet"
            return
        self._last_push = time.monotonic()
        self._writer.member(MISSING + name if problem else name, size, 0, pieces(data))
        if self._out is not None:
            told = f"{entry.name}/{entry.archpath}" if entry.archpath else entry.name
            self._out.append(_out(entry, told, "", entry.provider, problem, size))

    def _check_peer(self, entry: Entry, owner: int) -> None:
        """An entry of a target that died, or is starting, ends the answer: at once, or after a while of silence. So
        does one of a target that has left the map since the request was made: an answer goes by the map it began with.
        """
        held = entry.bucket.objects.get(entry.name)
        if held is not None and held.owner in self._request.targets and self._smap.state(held.owner)[0] == "gone":
            raise failure("membership", self._cluster, self._dt, job=self._job)
        state, seconds = self._smap.state(owner)
        if state == "well" or owner == self._dt:
            return
        if state == "dead" and seconds >= self._smap.death_notice / 2:
            self._before_wait()
            self._pause(self._cluster.max_wait)
        uri = entry.bucket.uri
        raise failure("neighbour", self._cluster, self._dt, peer=owner, uri=uri, name=entry.name)

    def _recover(
        self, index: int, entry: Entry, stored: store.Object | None, owner: int, wait: float | None = None
    ) -> None:
        """The peer does not send: wait, then GET the whole object or member from it. Its range is not looked at."""
        wait = self._cluster.max_wait if wait is None else wait
        self._before_wait()
        self._pause(wait)
        self._flush_at = 0.0  # a real wait is longer than the time between two flushes
        dt, peer = self._targets[self._dt], self._targets[owner]
        if self._recoveries >= MAX_RECOVERIES:
            text = f"timed out waiting for missing entry at index {index} [ {dt.name}, wid={quote(self._wid)}"
            raise Failure(400, f"{self._job.name}: {text}, total-wait={wait:g}s ]", "errHole")
        self._recoveries += 1
        name = _with_archpath(entry.base, entry.archpath) if entry.archpath else entry.base
        try:
            if stored is None:
                raise NotFound(f"{peer.name}: {entry.bucket.uri}/{entry.name}")
            if entry.archpath:
                member = self._objects.member(stored, entry.archpath, peer.name)
                self._write_member(name, entry, member, 0, member.size)
            else:
                self._write(name, entry, stored.size, 0, stored.data)
        except NotFound as error:
            if not self._request.continue_on_error:
                raise
            self._missing(name, entry, error)

    def _abort(self, owner: int, cause: str) -> None:
        peer = self._targets[owner].name
        self._job.aborted = f"remote target aborted xaction: {self._job.name}, {peer}: {cause}"
        raise _Aborted

    def _too_many(self) -> Failure:
        text = f"exceeded soft-errors limit: {self._soft} (max: {MAX_SOFT_ERRORS})"
        return Failure(400, f"{self._job.name}: wid={quote(self._wid)} {text}")


def _go_json(value: Any) -> str:
    """JSON with the escapes that Go's encoder chooses."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return re.sub(r"\\(.)", lambda m: {"b": r"\u0008", "f": r"\u000c"}.get(m[1], m[0]), text) if "\\" in text else text


class _Buffer:
    """Sink that keeps an archive in memory."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self.write = self._parts.append

    def size(self) -> int:
        return sum(len(part) for part in self._parts)

    def value(self) -> bytes:
        return b"".join(self._parts)


def pieces(data: bytes | memoryview, first: int = PIECE) -> Iterator[bytes | memoryview]:
    """A payload in the pieces in which the server copies it.

    Args:
        first: Bytes of the first piece, if it is not as large as the others.
    """
    size = len(data)
    if size <= first:
        if size:
            yield data
        return
    view = memoryview(data)
    yield view[:first]
    for at in range(first, size, PIECE):
        yield view[at : at + PIECE]


def _with_archpath(name: str, archpath: str) -> str:
    return name + archpath if archpath[0] == "/" else f"{name}/{archpath}"


def _out(entry: Entry, name: str, archpath: str, prov: str, problem: str, size: int) -> dict[str, Any]:
    """One item of the metadata, keys in the server's order."""
    item: dict[str, Any] = {"objname": name}
    if archpath:
        item["archpath"] = archpath
    item["bucket"] = entry.bucket.name
    item["provider"] = prov
    if problem:
        item["err_msg"] = problem
    if entry.opaque:
        item["opaque"] = entry.opaque
    item["size"] = size
    return item
