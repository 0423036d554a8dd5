"""Planned faults at work: what one answer may meet, and the places of the serving code at which it meets it.

Nothing here runs for an answer that no fault is planned for. Places inside an archive are watched for by a gate in
front of the sink of its writer, places in a body by one in front of the answer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aisfast.emulator.httpd import Answer, ClientGone, Headers, Request
from aisfast.emulator.refusals import failure
from aisfast.emulator.tar import TarWriter, Write
from aisfast.emulator.zip import ZipWriter

if TYPE_CHECKING:
    from aisfast.emulator import Cluster
    from aisfast.emulator.batch import Job
    from aisfast.emulator.batch_request import Entry
    from aisfast.emulator.errors import Failure
    from aisfast.emulator.faults import Call, Fault
    from aisfast.emulator.outputs import Writer
    from aisfast.emulator.store import Bucket

SMALL_BUFFER = 4096  # bytes asked of the kernel for a socket whose reader is to be found slow


class Script:
    """What one answer may meet. The serving code asks it at the points where something can happen."""

    def __init__(self, cluster: Cluster, call: Call, bucket: Bucket, faults: list[Fault]):
        self._cluster = cluster
        self._call = call
        self._bucket = bucket
        self._job: Job | None = None
        self._faults = faults
        self._take = cluster.faults.take
        self._entries: dict[int, list[Fault]] = {}
        for fault in faults:
            index = fault.index_in(call)
            if fault.entry is not None and index is not None:
                self._entries.setdefault(index, []).append(fault)
        self._answer: _Answer | None = None
        self._gate: _Gate  # in front of the archive
        self._archive_size: Callable[[], int] | None = None  # of a buffered answer: bytes so far
        self._in_archive: list[tuple[int, Fault]] = []  # what is to happen when those bytes are sent
        self._written: list[int] = []  # entries in the order in which they were begun

    # -- before the status line

    def before_head(
        self, leg: str, request: Request, bucket: Bucket | None, wid: str = "", job: Job | None = None
    ) -> bool:
        """An answer is due. True if it was given here.

        Args:
            bucket: Default bucket of the request.
            job: Its job, on the target's leg.
        Raises:
            Failure: The answer is to be this error.
        """
        self._job = job
        for fault in self._faults:
            if fault.leg != leg or fault.placed or not fault.can("head"):
                continue
            if not self._take(fault):
                continue
            options = fault.options
            if fault.action == "stall":
                self._cluster.pause(options["seconds"])
            elif fault.action in ("kill", "call"):
                self._run(fault)
            elif fault.action == "empty":
                request.reply(200)
                return True
            elif fault.action == "reply":
                request.reply(options["status"], options["body"], options["headers"])
                return True
            elif fault.action == "error":
                raise self._failure(options["kind"], request, bucket, wid)
            elif fault.action == "abort":
                self._abort()
                raise self._failure("user-abort", request, bucket, wid)
            elif fault.action == "garbage":
                request.connection.send(options["data"])
                raise ClientGone("garbage")
            else:
                raise request.connection.reset() if fault.action == "reset" else ClientGone("cut")
        return False

    # -- while the archive is written

    def entries(self, entries: list[Entry]) -> Iterator[tuple[int, Entry]]:
        """The entries in the order in which their members are written, and what happens before each."""
        order = list(range(len(entries)))
        for index, faults in self._entries.items():
            for fault in faults:
                if fault.action in ("duplicate", "skip", "swap") and index in order and self._take(fault):
                    at = order.index(index)
                    if fault.action == "duplicate":
                        order.insert(at, index)
                    elif fault.action == "skip":
                        del order[at]
                    else:
                        order[at : at + 2] = order[at : at + 2][::-1]
        for index in order:
            for fault in self._entries.get(index, ()):
                if fault.part is not None:
                    continue
                if fault.action == "short":
                    if self._take(fault):
                        return
                elif fault.can("byte"):
                    self.happen(fault, self._gate)
                elif fault.action == "abort" and self._take(fault):
                    self._abort()
            self._written.append(index)
            yield index, entries[index]

    def recovery(self, index: int) -> float | None:
        """Seconds of silence after which this entry comes from recovery, if it does."""
        for fault in self._entries.get(index, ()):
            if fault.action == "recover" and self._take(fault):
                seconds: float | None = fault.options["seconds"]
                return self._cluster.max_wait if seconds is None else seconds
        return None

    def misses(self, index: int) -> bool:
        """Whether this entry counts as missing, there or not."""
        return any(fault.action == "miss" and self._take(fault) for fault in self._entries.get(index, ()))

    def writer(self, writer: TarWriter | ZipWriter, archive_size: Callable[[], int] | None = None) -> Writer:
        """Stands in for the archive's writer.

        Args:
            archive_size: Of a buffered answer: tells the bytes that have reached the writer's sink.
        """
        self._archive_size = archive_size

        def gate(write: Write) -> Write:
            self._gate = _Gate(write, self, writer.flush)
            return self._gate.write

        writer.intercept(gate)
        return _Writer(writer, self)

    def name_of(self, name: str) -> str:
        """A member is about to be written: its name."""
        for fault in self._entries.get(self._written[-1], ()):
            if fault.action == "rename" and self._take(fault):
                name = fault.options["name"]
        return name

    def member(self, middles: Mapping[str, int | None]) -> None:
        """What is to happen inside it, given the middles of its parts."""
        for fault in self._entries.get(self._written[-1], ()):
            middle = middles.get(fault.part or "")
            if middle is not None:
                self._gate.place(self._gate.at + middle, fault)

    def trailer(self) -> None:
        """The archive is about to end."""
        for fault in self._faults:
            if fault.part == "trailer":
                self.happen(fault, self._gate)

    # -- while the body is sent

    def answer(self, request: Request, status: int, headers: Headers) -> Answer:
        """The answer to write the body to."""
        self._answer = _Answer(request, status, headers, self)
        for fault in self._faults:
            if fault.offset is not None:
                self._answer.gate.place(fault.offset, fault)
        return self._answer

    def archive_begins(self) -> None:
        """From here on the body of a buffered answer is its archive."""
        assert self._answer is not None
        gate = self._answer.gate
        for at, fault in self._in_archive:
            gate.place(gate.at + at, fault)

    def end(self) -> None:
        """The body is complete but for its terminal chunk."""
        assert self._answer is not None
        for fault in self._faults:
            if fault.part == "end":
                self.happen(fault, self._answer.gate)

    def out(self, out: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The metadata of a buffered answer: in the order of the request, and changed if that is the fault."""
        items = dict(zip(self._written, out, strict=False))
        out = [items[index] for index in sorted(items)]
        for fault in self._faults:
            if fault.action == "out" and self._take(fault):
                by = fault.options["by"]
                out = out[:by] if by < 0 else out + out[-1:] * by
        return out

    def write_limit(self, request: Request) -> float | None:
        """Seconds that this answer's reader has, if they are not the usual ones."""
        for fault in self._faults:
            if fault.action == "slow_reader" and self._take(fault):
                request.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
                seconds: float = fault.options["seconds"]
                return seconds
        return None

    # -- what happens

    def happen(self, fault: Fault, gate: _Gate) -> None:
        action = fault.action
        gate.flush()
        breaks = action in ("reset", "drip", "garbage") or (action == "cut" and not fault.options["clean"])
        if breaks and self._answer is None:
            assert self._archive_size is not None
            self._in_archive.append((self._archive_size(), fault))
            return
        if not self._take(fault):
            return
        answer = self._answer
        if action in ("kill", "call"):
            self._run(fault)
        elif action == "stall":
            if answer is not None:
                answer.flush()
            self._cluster.pause(fault.options["seconds"])
            if answer is not None:
                answer.renew()
        elif action == "corrupt":
            gate.invert_next = True
        elif action == "cut" and fault.options["clean"]:
            gate.closed = True
        else:
            assert answer is not None
            answer.suffer(fault)

    def pause(self, seconds: float) -> None:
        self._cluster.pause(seconds)

    def _abort(self) -> None:
        for jobs in self._cluster.jobs:
            jobs.abort("user abort", self._job)

    def _failure(self, kind: str, request: Request, bucket: Bucket | None, wid: str) -> Failure:
        call = self._call
        uri, name = self._bucket.uri, call.names[0]
        return failure(kind, self._cluster, call.target, request, bucket, wid, self._job, uri=uri, name=name)

    def _run(self, fault: Fault) -> None:
        if fault.action == "call":
            fault.options["run"](self._cluster)
            return
        victim = fault.options["victim"]
        with suppress(ValueError):  # dead already
            self._cluster.kill(self._call.target if victim is None else victim)


class _Gate:
    """A sink in front of another one, with places at which something happens before the byte there passes."""

    def __init__(self, write: Write, script: Script, flush: Callable[[], None] = lambda: None):
        self._write = write
        self._script = script
        self.flush = flush  # has what is held back behind it handed on
        self._places: list[tuple[int, Fault]] = []
        self.at = 0
        self.closed = False  # nothing passes any more
        self.invert_next = False

    def place(self, at: int, fault: Fault) -> None:
        self._places.append((at, fault))
        self._places.sort(key=lambda place: place[0])

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while self._places and self._places[0][0] < self.at + len(rest) and not self.closed:
            place, fault = self._places.pop(0)
            before = max(0, place - self.at)
            self._pass(rest[:before])
            rest = rest[before:]
            self._script.happen(fault, self)
        self._pass(rest)

    def _pass(self, data: memoryview) -> None:
        if self.closed or not len(data):
            return
        self.at += len(data)
        if self.invert_next:
            self.invert_next = False
            self._write(bytes((data[0] ^ 0xFF,)))
            data = data[1:]
        self._write(data)


class _Writer:
    """The writer of an archive in which something may happen."""

    def __init__(self, inner: TarWriter | ZipWriter, script: Script):
        self._inner = inner
        self._script = script

    @property
    def broken(self) -> int:
        return self._inner.broken

    def member(self, name: str, size: int, mtime: int, pieces: Iterable[bytes | memoryview]) -> None:
        name = self._script.name_of(name)
        self._script.member(self._inner.parts(name, size, mtime))
        self._inner.member(name, size, mtime, pieces)

    def close(self) -> None:
        self._script.trailer()
        self._inner.close()


class _Answer(Answer):
    """An answer in whose body something may happen."""

    def __init__(self, request: Request, status: int, headers: Headers, script: Script):
        super().__init__(request, status, headers)
        self.gate = _Gate(self._pass, script)
        self._script = script
        self._drip: tuple[int, float] | None = None

    def write(self, data: bytes | memoryview) -> None:
        self.gate.write(data)

    def finish(self) -> None:
        self._script.end()
        super().finish()

    def _pass(self, data: bytes | memoryview) -> None:
        if self._drip is None:
            super().write(data)
            return
        size, every = self._drip
        for at in range(0, len(data), size):
            super().write(data[at : at + size])
            self.flush()
            self._script.pause(every)
            self.renew()

    def renew(self) -> None:
        """A silence of the server's is not the reader's."""
        self._request.connection.renew_write_limit()

    def suffer(self, fault: Fault) -> None:
        """Reset, cut, drip or garbage, here."""
        connection = self._request.connection
        if fault.action == "drip":
            self.flush()
            self._drip = fault.options["size"], fault.options["every"]
            return
        if fault.action == "garbage":
            self.flush()
            connection.send(fault.options["data"])
        elif fault.part == "end":
            self.flush()
        else:
            self.break_off()
        raise connection.reset() if fault.action == "reset" else ClientGone(fault.action)
