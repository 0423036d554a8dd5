"""A simulated cluster with a virtual clock: `Delivery` and `Resume` against seeded schedules of faults.

The oracle is the truth the cluster was made with. Whatever happens, a batch ends whole and right, or in the documented
exception with the right indices, within what patience allows.

    python tests/simulate.py --seed 7          one schedule, told step by step
    python tests/simulate.py --count 100000    many
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import wire
from aisfast._decode import parse_head
from aisfast._delivery import Delivery, Form, Results, Want
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    SentRequest,
    WireError,
    error_from_answer,
)
from aisfast.exchange import framing_of
from aisfast.policy import Policy
from aisfast.resume import Ask, Read, Resume, Several, Single, Wait
from aisfast.view import ClusterView
from delivering import URL, entries_of

BUDGET = 8
NOISE = random.Random(0).randbytes(1 << 16)

# What can happen to an answer: at most so many of these in one schedule, then the cluster is well.
FAULTS = (
    "short", "cut", "cut clean", "no trailer", "lost head", "lost", "stall", "empty", "flip", "swap", "double",
    "rename", "429", "503", "409", "stale", "refused by target", "gateway's call failed", "garbage",
)  # fmt: skip


@dataclass
class Thing:
    """An entry, and what is true of it."""

    name: str
    payload: bytes
    start: int = 0
    length: int = 0
    missing: bool = False
    unreadable: bool = False
    local: bool = True

    @property
    def truth(self) -> bytes | str:
        if self.missing:
            return "missing"
        if self.unreadable:
            return "unreadable" if self.local else "missing"
        if not self.length:
            return self.payload
        size = len(self.payload)
        stop = size if self.length < 0 else self.start + self.length
        return "range" if self.start >= size or stop > size else self.payload[self.start : stop]


def refusal(status: int, message: str, node: str = "t[sim]", method: str = "GET", tcode: str = "") -> AISError:
    fields = {"tcode": tcode, "message": message, "method": method, "node": node, "status": status}
    text = json.dumps(fields)
    return error_from_answer(status, text, SentRequest("GET", URL, {}))


@dataclass
class Cluster:
    """Answers requests for entries, with what the schedule does to the answers."""

    rng: random.Random
    things: list[Thing]
    coer: bool
    faults: list[str]
    told: list[str] = field(default_factory=list)

    def answer(self, first: int, stop: int, streaming: bool) -> tuple[str, Any]:
        """("refused", error), ("lost", error), or ("answer", [(seconds of silence, bytes), ...])."""
        things = self.things[first:stop]
        fault = self.faults.pop() if self.faults else ""
        if fault:
            self.told.append(f"{fault} at {first}..{stop}")
        refusals = {
            "429": (429, 'wid="x" rejected: pending=256', "t[sim]", "POST", "ErrTooManyRequests"),
            "503": (503, "not ready yet", "t[sim]", "POST", ""),
            "409": (409, 't[sim]: different Smap version from p[x]: "12" vs local', "t[sim]", "POST", ""),
            "stale": (404, 'x-get-batch: wid="x" (prep-rx not done?) does not exist', "t[sim]", "GET", "ErrNotFound"),
            "refused by target": (400, "user abort", "t[sim]", "GET", ""),
            "gateway's call failed": (400, 'Post "http://t": connect: connection refused', "p[sim]", "GET", "Error"),
        }
        if fault in refusals:
            return "refused", refusal(*refusals[fault])
        if fault == "lost head":
            return "lost", AISConnectionError(0, "reset", URL, kind="broken")
        if not streaming:
            why = self.whole_refusal(things)
            if why is not None:
                return "refused", why
        entries, whole, stalls = self.members(things, streaming)
        if fault == "short" and entries:
            entries, whole = entries[: self.rng.randrange(len(entries))], False
        if fault == "swap" and len(entries) > 1:
            i = self.rng.randrange(len(entries) - 1)
            entries[i], entries[i + 1] = entries[i + 1], entries[i]
        if fault == "double" and entries:
            entries.insert(self.rng.randrange(len(entries)), self.rng.choice(entries))
        if fault == "rename" and entries:
            i = self.rng.randrange(len(entries))
            entries[i] = entries[i]._replace(member="b/another")
        write = wire.streaming if streaming else wire.buffered
        made = write(entries, length=True, headers=()) if streaming or whole else write(
            entries, out=[entry.out() for entry in entries], length=True, headers=()
        )
        raw, head_size = made.raw, made.head_size
        if fault == "empty":
            return "answer", [(0.0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]
        if fault == "garbage":
            starts = [end - size - 512 for end, size in zip(made.ends, self.sizes, strict=False)]
            at = self.rng.choice([head_size, *starts])
            raw = raw[:at] + NOISE[: len(raw) - at]
        if fault == "flip":
            at = self.rng.randrange(head_size, len(raw))
            raw = raw[:at] + bytes([raw[at] ^ 0x80]) + raw[at + 1 :] if self.in_header(made, at) else raw
        if fault in ("cut", "lost", "stall"):
            raw = raw[: self.rng.randrange(head_size, len(raw))]
        if fault in ("cut clean", "no trailer"):
            body = made.body
            keep = len(body) - 1024 if fault == "no trailer" and streaming else self.rng.randrange(len(body))
            body = body[:keep] + (b"\r\n--" + wire.BOUNDARY.encode() + b"--\r\n" if not streaming else b"")
            front = raw[:head_size].split(b"Content-Length")[0]
            raw = front + b"Content-Length: %d\r\n\r\n" % len(body) + body
        pieces = [(0.0 if streaming else 20.0 * len(stalls), raw[:head_size])]
        at = head_size
        stops = [made.ends[i] - len(entries[i].payload) - 600 for i in stalls if i < len(entries)] if streaming else []
        cuts = sorted({*stops, len(raw)})
        for cut in cuts:
            while at < min(cut, len(raw)):
                n = min(self.rng.choice((1, 100, 512, 4096, 1 << 20)), cut - at)
                pieces.append((0.0, raw[at : at + n]))
                at += n
            if cut < len(raw):
                pieces.append((20.0, b""))
        if fault == "stall":
            pieces.append((1000.0, b""))
        return "answer", pieces

    def in_header(self, made: wire.Answer, at: int) -> bool:
        """Is this byte of the answer one of a header? (A payload byte that changes cannot be told.)"""
        return not any(end - size <= at < end for end, size in zip(made.ends, self.sizes, strict=False))

    def members(self, things: list[Thing], streaming: bool) -> tuple[list[wire.Entry], bool, list[int]]:
        """What a streaming answer would hold, whether it is whole, and before which members it stalls."""
        entries: list[wire.Entry] = []
        stalls: list[int] = []
        misses = 0
        whole = True
        for thing in things:
            truth = thing.truth
            if truth == "missing":
                if thing.local and not self.coer:
                    whole = False
                    break
                misses += 1
                if misses > BUDGET and not thing.local:
                    whole = False
                    break
                entries.append(wire.Entry(thing.name, missing=True))
                if misses > BUDGET:
                    whole = False
                    break
            elif truth == "unreadable" or (truth == "range" and thing.local):
                whole = False
                break
            elif truth == "range":
                stalls.append(len(entries))
                entries.append(wire.Entry(thing.name, thing.payload))
            else:
                assert isinstance(truth, bytes)
                entries.append(wire.Entry(thing.name, truth))
        self.sizes = [len(entry.payload) for entry in entries]
        return entries, whole, stalls

    def whole_refusal(self, things: list[Thing]) -> AISError | None:
        """Why a buffered request for these is refused, or None."""
        misses = 0
        for thing in things:
            truth = thing.truth
            if truth == "missing":
                if thing.local and not self.coer:
                    return refusal(404, f"t[sim]: ais://b/{thing.name} does not exist", tcode="ErrNotFound")
                misses += 1
                if misses > BUDGET:
                    return refusal(400, f'x-get-batch: wid="x" exceeded soft-errors limit: {misses} (max: 8)')
            elif truth == "unreadable":
                return refusal(400, "archive/tar: invalid tar header")
            elif truth == "range" and thing.local:
                return refusal(400, "size=1: not satisfiable range [start=2,length=3]", tcode="ErrRangeNotSatisfiable")
        return None


class Shell:
    """Carries out the steps of a `Resume` on the virtual clock."""

    def __init__(self, cluster: Cluster, delivery: Delivery, resume: Resume) -> None:
        self.cluster = cluster
        self.delivery = delivery
        self.resume = resume
        self.now = 0.0
        self.pieces: list[tuple[float, bytes]] | None = None
        self.steps = 0

    def open(self) -> None:
        while self.pieces is None and not self.delivery.supplied:
            self.pump()

    def pump(self) -> None:
        self.steps += 1
        assert self.steps < 20_000, "it does not end"
        step = self.resume.next(self.now)
        delivery = self.delivery
        if not isinstance(step, Read) and self.pieces is not None:
            if delivery.want == Want.ANSWER and delivery.drains:
                delivery.leftover()
            self.pieces = None
        if isinstance(step, Read):
            self.read(step.until)
        elif isinstance(step, Wait):
            assert step.until >= self.now
            self.now = max(self.now, step.until)
        elif isinstance(step, Ask):
            self.now += 0.001
            delivery.begin(step.streaming, step.stop, self.now)
            what, value = self.cluster.answer(delivery.index, step.stop, step.streaming)
            if what == "refused":
                self.resume.on_refused(value, self.now)
            elif what == "lost":
                self.resume.on_lost(value, self.now)
            else:
                (delay, raw), *self.pieces = value
                most = min(90.0, step.until - self.now)
                self.now += min(delay, most)
                if delay > most:
                    self.pieces = None
                    self.resume.on_lost(AISTimeoutError(0, "no head in time", URL), self.now)
                    return
                head = parse_head(raw)
                with delivery.get_buffer() as buffer:
                    buffer[: len(raw)] = raw
                delivery.on_head(head, framing_of(head), URL, self.now)
                delivery.commit(len(raw), self.now, head.size)
                self.resume.on_accepted()
        elif isinstance(step, Single):
            self.single(step)
        elif isinstance(step, Several):
            self.resume.on_several({i: self.payload(i) for i in step.indices})

    def read(self, until: float) -> None:
        delivery = self.delivery
        assert until > self.now
        if not self.pieces:
            delivery.on_eof()
            return
        delay, data = self.pieces[0]
        if self.now + delay > min(until, self.now + 90.0):
            self.now = min(until, self.now + 90.0)
            delivery.on_error(AISTimeoutError(0, "no byte in time", URL))
            return
        self.now += delay
        self.pieces[0] = (0.0, data)
        if not data:
            self.pieces.pop(0)
            return
        with delivery.get_buffer() as buffer:
            n = min(len(buffer), len(data))
            buffer[:n] = data[:n]
        self.pieces[0] = (0.0, data[n:])
        if n == len(data):
            self.pieces.pop(0)
        delivery.commit(n, self.now)

    def single(self, step: Single) -> None:
        thing = self.cluster.things[step.entry]
        if step.kind == "size":
            self.resume.on_single("size", len(thing.payload), self.now)
            return
        value = self.payload(step.entry)
        if isinstance(value, AISError):
            self.resume.on_single_failed("payload", value, self.now)
        else:
            self.resume.on_single("payload", value, self.now)

    def payload(self, index: int) -> bytes | AISError:
        truth = self.cluster.things[index].truth
        if isinstance(truth, bytes):
            return truth
        if truth == "missing":
            return ErrObjNotFound(404, "does not exist", URL)
        if truth == "range":
            return ErrRangeNotSatisfiable(416, "out of range", URL)
        return AISError(400, "archive/tar: invalid tar header", URL)

    def finish(self) -> None:
        self.resume.next(self.now)
        trail = self.delivery.leftover() if self.pieces is not None else None
        assert trail is None or trail.broken or not trail.broken

    def close(self) -> None:
        pass


def schedule(seed: int) -> tuple[Cluster, dict[str, Any]]:
    """A cluster, a batch and its faults."""
    rng = random.Random(seed)
    n = rng.choice((1, 2, 3, 5, 8, 13, 30))
    missing = rng.choice((0.0, 0.0, 0.1, 0.5, 1.0))
    odd = rng.choice((0.0, 0.0, 0.1))
    things = []
    for i in range(n):
        size = rng.choice((0, 1, 100, 511, 512, 513, 2000, 9000))
        at = rng.randrange(len(NOISE) - size)
        thing = Thing(f"o/{i}", NOISE[at : at + size], missing=rng.random() < missing, local=rng.random() < 0.5)
        if rng.random() < 0.2 and size:
            thing.start = rng.randrange(size)
            thing.length = rng.choice((-1, 1 + rng.randrange(size - thing.start)))
        if rng.random() < odd:
            thing.start, thing.length = size + rng.randrange(3), rng.choice((-1, 1, max(1, size)))
        elif rng.random() < odd:
            thing.unreadable = True
        things.append(thing)
    how = {
        "form": rng.choice((Form.PAIRS, Form.ITEMS, Form.COLUMNS)),
        "streaming": rng.random() < 0.7,
        "strict": rng.random() < 0.4,
        "patience": rng.choice((30.0, 120.0, 600.0)),
        "deadline": rng.choice((None, None, None, 40.0)),
        "get_missing": rng.random() < 0.1,
    }
    coer = how["form"] != Form.PAIRS or not how["strict"] or how["get_missing"]
    faults = [rng.choice(FAULTS) for _ in range(rng.choice((0, 1, 2, 3, 6, 12)))]
    return Cluster(rng, things, coer, faults), how


def run(seed: int, tell: bool = False) -> str:
    """Run one schedule; what came of it. AssertionError: it is wrong."""
    cluster, how = schedule(seed)
    things = cluster.things
    asked = entries_of([(t.name, "b", "ais", None, None, t.start, t.length) for t in things])
    strict = how["strict"]
    delivery = Delivery(
        asked, how["form"], streaming=how["streaming"], only_obj_name=False, missing_raises=strict, max_entry=1 << 33
    )
    policy = Policy(patience=how["patience"], deadline=how["deadline"], get_missing=how["get_missing"])
    view = ClusterView()
    view.answered = True
    resume = Resume(
        delivery, policy, view, body=lambda some, streaming: b"", streaming=how["streaming"], coer=cluster.coer,
        rest=lambda rest: rest,
        rng=random.Random(seed),
    )  # fmt: skip
    shell = Shell(cluster, delivery, resume)
    got: list[bytes | None] = []
    error: Exception | None = None
    try:
        shell.open()
        if how["form"] == Form.COLUMNS:
            while not delivery.fill():
                shell.pump()
            shell.finish()
        else:
            for item in Results(delivery, shell):
                if how["form"] == Form.PAIRS:
                    got.append(item[1] if item[0].err_msg is None else None)
                else:
                    got.append(item.tobytes() if item.ok else None)
    except AISError as caught:
        error = caught
    if how["form"] == Form.COLUMNS:
        data, offsets, ok = delivery.columns()
        at = memoryview(offsets).cast("q").tolist()
        got = [bytes(memoryview(data)[at[i] : at[i + 1]]) if there else None for i, there in enumerate(bytes(ok))]
    if tell:
        print(how, [(t.name, len(t.payload), t.start, t.length, t.truth if isinstance(t.truth, str) else "ok", t.local)
                    for t in things])  # fmt: skip
        print(cluster.told, f"{shell.now:.1f} s", resume.counts, error and f"{type(error).__name__}: {error}")
    judge(cluster, how, got, error, shell.now)
    return type(error).__name__ if error else "whole"


def judge(cluster: Cluster, how: dict[str, Any], got: list[bytes | None], error: Exception | None, now: float) -> None:
    """Compare with the truth."""
    things = cluster.things
    for i, (thing, payload) in enumerate(zip(things, got, strict=False)):
        truth = thing.truth
        right = payload is None if isinstance(truth, str) else payload == truth
        assert right, f"entry {i} is wrong"
    slack = 100.0  # a read that began within patience, and the seconds that count for nothing
    assert now <= how["patience"] + slack + 20.0 * len(things), f"it took {now} s"
    if how["deadline"] is not None:
        assert now <= how["deadline"] + 1.0, f"it took {now} s of {how['deadline']}"
    if error is None:
        assert len(got) == len(things), "silently short"
        assert not how["strict"] or not any(isinstance(thing.truth, str) for thing in things)
        return
    first = len(got)
    if isinstance(error, IncompleteBatchError):
        assert error.received == first, (error.received, first)
        assert error.missing == tuple(range(first, len(things)))
        assert [error.rest().row(i)[0] for i in range(len(error.missing))] == [t.name for t in things[first:]]
        assert how["deadline"] is not None or now >= how["patience"] - 1.0, f"given up after {now} s"
    elif isinstance(error, ErrObjNotFound):
        assert how["strict"]
        if how["form"] != Form.COLUMNS and how["streaming"]:
            assert things[first].truth == "missing", "not missing"
        else:
            assert any(thing.truth == "missing" for thing in things)
    elif isinstance(error, ErrRangeNotSatisfiable):
        assert how["strict"]
        assert things[first].truth == "range"
    elif isinstance(error, WireError):
        damage = ["flip", "swap", "double", "rename", "garbage"]
        damage += [] if how["streaming"] else ["cut clean", "no trailer"]
        assert sum(fault in damage for fault in told(cluster)) >= 2, error
    else:
        unreadable = things[min(first, len(things) - 1)].truth == "unreadable"
        assert unreadable or how["patience"] <= now + 1.0 or how["deadline"], error


def told(cluster: Cluster) -> list[str]:
    return [text.rpartition(" at ")[0] for text in cluster.told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="run this one, and tell of it")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(run(arguments.seed, tell=True))
        return
    ends: dict[str, int] = {}
    wrong = 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            end = run(seed)
        except Exception as error:
            wrong += 1
            end = f"WRONG {type(error).__name__}: {str(error).splitlines()[0][:70] if str(error) else ''}"
            if wrong <= 20:
                print(f"seed {seed}: {end}", file=sys.stderr)
        ends[end] = ends.get(end, 0) + 1
    for end, times in sorted(ends.items(), key=lambda pair: -pair[1]):
        print(f"{times:8} {end}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
