"""A simulated cluster: what it holds is the truth, what it answers is what a real one says, faults and deaths included.

It has no clock: every question says when it is asked, and an answer says when each of its bytes is written. The wire is
that of `wire.py`; the ways to fail are those of live clusters: short answers that look whole, targets that die, come
back and crawl, ranges that come as whole objects.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import inf
from typing import NamedTuple

import wire
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    SentRequest,
    WireError,
    error_from_answer,
)
from delivering import URL

SOFT_ERRORS = 8  # misses that one answer may hold
RECOVERIES = 5  # entries of one answer that the server gets in another way, each after ...
MAX_WAIT = 20.0  # ... so many seconds of silence
HELD_BACK = 6144  # bytes that may sit in the server's buffers over a silence
NOTICED = 30.0  # seconds until the map lacks a dead target
SETTLING = 2.2  # seconds after its return, in which running answers are cut
CRAWLING = 60.0
NOISE = random.Random(0).randbytes(1 << 16)
TERMINAL = b"0\r\n\r\n"
LAST = b"400\r\n" + wire.TRAILER + b"\r\n" + TERMINAL
HEAD = wire.head(headers=[("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked")])
BUFFERED_HEAD = wire.head(
    headers=[("Content-Type", f"multipart/mixed; boundary={wire.BOUNDARY}"), ("Transfer-Encoding", "chunked")]
)
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

# What can happen to one request: a refusal, no answer, or an answer that goes wrong.
REFUSALS = {
    "429": (429, 'wid="x" rejected: pending=256', "t[sim]", "POST", "ErrTooManyRequests"),
    "503": (503, "not ready yet", "t[sim]", "POST", ""),
    "409": (409, 't[sim]: different Smap version from p[x]: "12" vs local', "t[sim]", "POST", ""),
    "stale": (404, 'x-get-batch: wid="x" (prep-rx not done?) does not exist', "t[sim]", "GET", "ErrNotFound"),
    "not active": (404, 'x-moss: xid "gbt-x" not active', "t[sim]", "GET", ""),
    "rebalance": (400, "reason: starting x-rebalance[g1]", "t[sim]", "GET", ""),
    "membership": (400, "detected cluster membership change from v6 to v7", "t[sim]", "GET", "ErrMembershipChange"),
    "user abort": (400, "user abort", "t[sim]", "GET", ""),
    "remote abort": (400, "remote target aborted xaction: x", "t[sim]", "GET", "wrapError"),
    "slow target": (400, 'Post "http://t": context deadline exceeded', "p[sim]", "GET", "Error"),
    "abandoned": (400, 'wi "x" abandoned (age 5m)', "t[sim]", "GET", "errAbandonedWI"),
    "count": (400, "x-moss: expecting 3 targets, have 2", "t[sim]", "GET", ""),
    "gone": (404, 'bucket "ais://b" does not exist', "p[sim]", "GET", "ErrBckNotFound"),
    "401": (401, "token required", "p[sim]", "GET", ""),
    "403": (403, "user `u` has insufficient permissions", "p[sim]", "GET", ""),
}
BY_GATEWAY = ("429", "503", "409", "slow target", "gone", "401", "403")  # before it redirects
FINAL = {"gone", "401", "403", "single 403"}
NO_ANSWER = ("lost head", "no head", "refused", "nonsense")
CUTS = ("short", "cut", "cut clean", "no trailer", "no terminal", "stall", "empty", "extra", "slow peer", "chunking")
DAMAGE = {"extra", "flip", "swap", "double", "rename", "garbage", "out", "nonsense", "chunking"}
SINGLES = ("single lost", "single 503", "single hangs", "single 403")  # to the next REST call about an entry


@dataclass
class Thing:
    """An entry, and what is true of it.

    Attributes:
        kind: "here"; "gone"; "elsewhere": a batch reports it missing, an object GET brings it (misplaced, or cold);
            "damaged": its archive is; "slow": no streaming answer gets to its end.
        home: The target it lives on.
    """

    name: str
    payload: bytes
    archpath: str | None = None
    start: int = 0
    length: int = 0
    kind: str = "here"
    home: int = 0

    @cached_property
    def part(self) -> bytes | None:
        """The range that is asked for, or None: it lies outside."""
        if not self.length:
            return self.payload
        size = len(self.payload)
        stop = size if self.length < 0 else self.start + self.length
        return None if self.start >= size or stop > size else self.payload[self.start : stop]

    def member(self, missing: bool, local: bool) -> str:
        if not missing:
            return f"b/{self.name}/{self.archpath}" if self.archpath else f"b/{self.name}"
        return f"__404__/b/{self.name}" + (f"/{self.archpath}" if self.archpath and not local else "")


class Member(NamedTuple):
    name: str
    payload: bytes
    at: float  # when it is written
    err_msg: str | None = None


@dataclass
class Answer:
    """Bytes and when they are written: (seconds, bytes); then the connection ends, or (`hangs`) nothing comes.

    Attributes:
        deadline: The server cuts a reader that does not read for half a minute.
    """

    pieces: list[tuple[float, bytes]]
    hangs: bool = False
    deadline: bool = True

    def cut(self, now: float, room: int) -> None:
        """The server has waited too long to write: what was written, and still fits, is all that comes."""
        kept = []
        for at, data in self.pieces:
            if room <= 0:
                break
            kept.append((min(at, now), data[:room]))
            room -= len(data)
        self.pieces, self.hangs = kept, False


@dataclass
class Refused:
    error: AISError
    at: float


@dataclass
class Lost:
    error: AISError
    at: float


@cache
def header(name: str, size: int) -> bytes:
    return b"".join(wire.headers(name, size))


def member_bytes(member: Member) -> bytes:
    size = len(member.payload)
    return header(member.name, size) + member.payload + bytes(-size % 512)


def refusal(status: int, message: str, node: str = "t[sim]", method: str = "GET", tcode: str = "") -> AISError:
    fields = {"tcode": tcode, "message": message, "method": method, "node": node, "status": status}
    return error_from_answer(status, json.dumps(fields), SentRequest("GET", URL, {}))


@dataclass
class Cluster:
    """What is there, and what will happen to it.

    Attributes:
        targets: How many there are.
        faults: What happens to the next requests, the last one first; "" is nothing.
        single_faults: The same for REST calls about entries.
        victim: The target that dies at `death` and is back at `back`; -1 for none.
        crawls: Seconds for each entry that answers of the target that is back take, for a minute; infinity: for ever.
        aborts: When the job is aborted.
        pace: Seconds that the server takes for each entry.
        happened: Faults that were met.
        requests, calls: GetBatch requests and REST calls so far.
    """

    rng: random.Random
    things: list[Thing]
    coer: bool
    targets: int = 1
    faults: list[str] = field(default_factory=list)
    single_faults: list[str] = field(default_factory=list)
    victim: int = -1
    death: float = inf
    back: float = inf
    crawls: float = 0.0
    aborts: list[float] = field(default_factory=list)
    pace: float = 0.0
    happened: list[str] = field(default_factory=list)
    requests: int = 0
    calls: int = 0
    tell: Callable[[str], None] | None = None

    # ------------------------------------------------------------------------------------------------------ the targets

    def is_down(self, target: int, at: float) -> bool:
        return target == self.victim and self.death <= at < self.back

    def in_map(self, target: int, at: float) -> bool:
        return not (target == self.victim and self.death + NOTICED <= at < self.back)

    def place(self, target: int, at: float) -> int:
        """Where the map says that things of a target are."""
        return target if self.in_map(target, at) else (target + 1) % self.targets

    def count(self, at: float) -> int:
        """Targets in the map."""
        return self.targets - (not self.in_map(self.victim, at))

    def choose(self, at: float) -> int:
        """A designated target, or -1: there is none."""
        there = [target for target in range(self.targets) if self.in_map(target, at)]
        return self.rng.choice(there) if there else -1

    # ---------------------------------------------------------------------------------------------------------- batches

    def answer(
        self,
        first: int,
        stop: int,
        streaming: bool,
        at: float,
        follows: Callable[[int, int], bool],
        behind: Sequence[Thing] = (),
    ) -> Refused | Lost | Answer:
        """What comes of a request.

        Args:
            follows: Told of a redirect: the number of targets, and to which. False: the gateway is asked again.
            behind: Asked for behind `stop`.
        """
        self.requests += 1
        fault = self.faults.pop() if self.faults else ""
        if fault:
            self.happened.append(fault)
        if self.tell:
            self.tell(f"entries {first}..{stop} of a {'stream' if streaming else 'buffer'}: {fault or '-'}")
        if fault in BY_GATEWAY:
            return Refused(refusal(*REFUSALS[fault]), at)
        if fault == "refused":
            return Lost(AISConnectionError(0, "connection refused", URL, kind="refused"), at)
        if fault == "nonsense":
            return Lost(WireError(0, "no HTTP", URL, layer="http", expected="HTTP/1.1", found="SSH-2.0"), at)
        while True:
            target = self.choose(at)
            if self.tell:
                self.tell(f"  by t{target}")
            if target < 0:
                return Refused(refusal(400, "no storage targets in the cluster", "p[sim]", tcode="ErrNoNodes"), at)
            if self.is_down(target, at):
                text = 'Post "http://t": dial tcp 10.0.0.1:1: connect: connection refused'
                return Refused(refusal(400, text, "p[sim]", tcode="Error"), at)
            if target == self.victim and self.back <= at < self.back + 1.5:
                return Refused(refusal(*REFUSALS["503" if at < self.back + 0.5 else "409"]), at)
            if follows(self.count(at), target):
                break
        if fault in REFUSALS:
            return Refused(refusal(*REFUSALS[fault]), at)
        if fault == "lost head":
            return Lost(AISConnectionError(0, "reset", URL, kind="broken"), at + self.rng.choice((0.0, 1.0)))
        if fault == "no head":
            return Lost(AISTimeoutError(0, "no head", URL), inf)
        if fault == "empty":
            return Answer([(at, EMPTY)])
        things = [*self.things[first:stop], *behind]
        members, end, why, torn = self.walk(things, target, streaming, at, fault == "slow peer")
        before = end
        end, why, cut_off = self.interrupt(target, members, end, why, at)
        torn = torn and end == before
        if fault == "short" and members:
            del members[self.rng.randrange(len(members)) :]
            torn, why = False, None
        if fault in ("short", "slow peer") or end > at + 5.0:
            fault = ""  # what is wrong with bytes is written all at once, and would hide a silence
        if not streaming:
            return self.buffered(members, end, why, fault, cut_off)
        if fault in CUTS or fault in DAMAGE:
            return self.damaged(members, end, fault, torn)
        pieces = pieces_of(members, at, self.rng)
        if torn:
            size = len(members[-1].payload)
            when, data = pieces[-1]
            pieces[-1] = (when, data[: len(data) - (-size % 512) - 1 - self.rng.randrange(size)])
        if cut_off:
            pieces = pieces[: self.rng.randrange(len(pieces) + 1)]
            return Answer([(at, HEAD), *map(chunk, pieces), (end, b"")])
        return Answer([(at, HEAD), *map(chunk, pieces), (end, TERMINAL if torn else LAST)])

    def walk(
        self, things: list[Thing], dt: int, streaming: bool, at: float, slow_peer: bool
    ) -> tuple[list[Member], float, AISError | None, bool]:
        """Entry by entry: the members, when the last is written, why it ends before all were (with what a buffered
        request is refused), and whether the last member is torn."""
        members: list[Member] = []
        misses = recoveries = 0
        pace = self.pace
        if dt == self.victim and self.back + SETTLING <= at < self.back + max(CRAWLING, 1000 * (self.crawls == inf)):
            pace = max(pace, self.crawls)
        for i, thing in enumerate(things):
            at += pace
            local = self.place(thing.home, at) == dt
            kind = thing.kind
            missing = kind in ("gone", "elsewhere") or (kind == "damaged" and not local)
            if self.is_down(thing.home, at):
                if self.in_map(thing.home, at):
                    at += MAX_WAIT if at > self.death + 15 else 0.1
                    text = 'GFN(ais://b/o, t[x]): Get "http://t": read tcp: connection reset by peer'
                    return members, at, refusal(400, text, tcode="wrapError"), False
                missing = True
            if missing:
                text = f"t[sim]: ais://b/{thing.name} does not exist"
                if local and not self.coer:
                    return members, at, refusal(404, text, tcode="ErrNotFound"), False
                misses += 1
                spent = misses > SOFT_ERRORS and (not local or i + 1 < len(things))
                if not spent or local:
                    members.append(Member(thing.member(True, local), b"", at, text))
                if spent:
                    text = f'x-get-batch: wid="x" exceeded soft-errors limit: {misses} (max: 8)'
                    return members, at, refusal(400, text), False
                continue
            if kind == "damaged":
                return members, at, refusal(400, "archive/tar: invalid tar header"), False
            part = thing.part
            if part is None and local:
                text = "size=1: not satisfiable range [start=2,length=3]"
                return members, at, refusal(400, text, tcode="ErrRangeNotSatisfiable"), False
            if part is None or (slow_peer and not local):
                at += MAX_WAIT
                recoveries += 1
                if recoveries > RECOVERIES:
                    text = f"timed out waiting for missing entry at index {i}"
                    return members, at, refusal(400, text, tcode="errHole"), False
                part = thing.payload
            members.append(Member(thing.member(False, local), part, at))
            if kind == "slow" and part and streaming:
                return members, at + 30.0, refusal(400, "abort"), True
        return members, at, None, False

    def interrupt(
        self, target: int, members: list[Member], end: float, why: AISError | None, at: float
    ) -> tuple[float, AISError | None, bool]:
        """What happens to the cluster while it answers. True: the target itself dies."""
        stops = [time for time in (*self.aborts, self.back + SETTLING) if at < time < end]
        if target == self.victim and at < self.death < end:
            stops.append(self.death)
        if self.victim >= 0 and target != self.victim and at < self.death + NOTICED < end:
            stops.append(self.death + NOTICED)
        if not stops:
            return end, why, False
        stop = min(stops)
        while members and members[-1].at > stop:
            members.pop()
        if self.tell:
            self.tell(f"  interrupted at {stop:.1f}, after {len(members)} entries")
        self.happened.append("interrupted")
        return stop, None, stop == self.death and target == self.victim

    def buffered(
        self, members: list[Member], end: float, why: AISError | None, fault: str, cut_off: bool
    ) -> Refused | Lost | Answer:
        if cut_off:
            return Lost(AISConnectionError(0, "closed without an answer", URL, kind="broken"), end)
        if why is not None:
            return Refused(why, end)
        if fault in CUTS or fault in DAMAGE:
            return self.damaged(members, end, fault, False, buffered=True)
        return Answer([(end, BUFFERED_HEAD), *map(chunk, [(end, multipart(members))]), (end, TERMINAL)], deadline=False)

    def damaged(self, members: list[Member], at: float, fault: str, torn: bool, buffered: bool = False) -> Answer:
        """An answer that goes wrong, written all at once."""
        rng = self.rng
        records = [record(member) for member in members]
        if fault == "swap" and len(members) > 1:
            i = rng.randrange(len(members) - 1)
            members[i], members[i + 1] = members[i + 1], members[i]
        elif fault == "double" and members:
            members.insert(rng.randrange(len(members)), rng.choice(members))
        elif fault == "rename" and members:
            i = rng.randrange(len(members))
            members[i] = members[i]._replace(name="b/another")
        elif fault == "extra":
            members.append(Member("b/one more", b"?", at))
        elif fault == "out" and buffered:
            if records and rng.random() < 0.5:
                del records[rng.randrange(len(records)) :]
            else:
                records += [{"objname": "one more", "bucket": "b", "provider": "ais", "size": 0}] * 2
        parts = [member_bytes(member) for member in members]
        if torn:
            parts[-1] = parts[-1][: 512 + rng.randrange(len(members[-1].payload))]
        body = b"".join(parts)
        if not torn:
            body += wire.TRAILER[512 * (fault == "no trailer") :][: 512 * 2 * (fault != "no trailer")]
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + len(part))
        if fault == "flip":
            i = rng.choice(starts) + rng.randrange(345)
            body = body[:i] + bytes([body[i] ^ 0x80]) + body[i + 1 :] if i < len(body) else body
        elif fault == "garbage":
            i = rng.choice(starts)
            body = body[:i] + NOISE[: len(body) - i]
        elif fault == "cut clean":
            body = body[: rng.randrange(len(body) + 1)]
        if buffered:
            body = multipart([], records, body)
        head = BUFFERED_HEAD if buffered else HEAD
        i = rng.randrange(len(body) + 1)
        if fault in ("cut", "stall"):
            pieces = [chunk((at, body))]
            pieces[0] = (at, pieces[0][1][:i])
        elif fault == "chunking":
            pieces = [chunk((at, body[:i])), (at, b"zz\r\n")]
        elif fault == "no terminal":
            pieces = [chunk((at, body))]
        else:
            pieces = [chunk((at, body)), (at, TERMINAL)]
        return Answer([(at, head), *pieces], hangs=fault == "stall", deadline=not buffered)

    # ------------------------------------------------------------------------------------------------------- REST calls

    def single(self, kind: str, index: int, at: float) -> tuple[float, int | bytes | AISError]:
        """A HEAD for the "size" or a GET for the "payload": when it ends, and how."""
        self.calls += 1
        fault = self.single_faults.pop() if self.single_faults else ""
        if fault:
            self.happened.append(fault)
        at += 0.002
        thing = self.things[index]
        end, value = self.plain_single(kind, thing, at)
        if fault == "single lost":
            value = AISConnectionError(0, "reset", URL, kind="broken")
        elif fault == "single 503":
            value = AISError(503, "not ready yet", URL)
        elif fault == "single 403":
            value = AISError(403, "no permission", URL)
        elif fault == "single hangs":
            end, value = at + 20.0, AISTimeoutError(0, "no byte", URL)
        if self.tell:
            self.tell(f"{kind} of {index}: {fault or '-'}, {type(value).__name__}")
        return end, value

    def plain_single(self, kind: str, thing: Thing, at: float) -> tuple[float, int | bytes | AISError]:
        if self.is_down(thing.home, at) and self.in_map(thing.home, at):
            return at, AISConnectionError(0, "connection refused", URL, kind="refused")
        if self.targets == 1 and self.is_down(thing.home, at):
            return at, AISError(400, "no storage targets in the cluster", URL)
        if thing.kind == "gone" or self.is_down(thing.home, at):
            text = f"t[sim]: ais://b/{thing.name} does not exist"
            return at, ErrObjNotFound(404, json.dumps({"message": text, "status": 404}), URL)
        if thing.kind == "damaged":
            return at, AISError(400, json.dumps({"message": "archive/tar: invalid tar header", "status": 400}), URL)
        if kind == "size":
            return at, len(thing.payload)
        if thing.part is None:
            return at, ErrRangeNotSatisfiable(416, "out of range", URL)
        return at, thing.part


def record(member: Member) -> dict[str, object]:
    name = member.name.removeprefix("__404__/").removeprefix("b/")
    fields: dict[str, object] = {"objname": name, "bucket": "b", "provider": "ais", "size": len(member.payload)}
    return fields if member.err_msg is None else {**fields, "err_msg": member.err_msg}


def multipart(
    members: list[Member], records: list[dict[str, object]] | None = None, archive: bytes | None = None
) -> bytes:
    if archive is None:
        archive = b"".join(map(member_bytes, members)) + wire.TRAILER
    return wire.multipart(wire.metadata_json(list(map(record, members)) if records is None else records), archive)


def pieces_of(members: list[Member], at: float, rng: random.Random) -> list[tuple[float, bytes]]:
    """The archive, without its trailer, as it is written. Over a silence the server holds some bytes back."""
    pieces: list[tuple[float, bytes]] = []
    held = b""
    for i, member in enumerate(members):
        data = held + member_bytes(member)
        held = b""
        if i + 1 < len(members) and members[i + 1].at > member.at + 5.0:
            keep = len(data) - rng.randrange(min(HELD_BACK, len(data)) + 1)
            data, held = data[:keep], data[keep:]
        pieces.append((member.at, data))
    return pieces


def chunk(piece: tuple[float, bytes]) -> tuple[float, bytes]:
    at, data = piece
    return at, b"%x\r\n%b\r\n" % (len(data), data) if data else b""
