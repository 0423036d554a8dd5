"""A shell without sockets: gives a `Delivery` the bytes of an answer as a test cuts them, and tells what came of it.

It does what `aisfast.transport.Call` does between two reads, so every form and every iterator runs as in earnest.
"""

from __future__ import annotations

import random
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import wire
from aisfast._decode import parse_head
from aisfast._delivery import Delivery, Form, Results, Trail
from aisfast._request import Entries
from aisfast.errors import AISError
from aisfast.exchange import framing_of
from aisfast.policy import Policy
from aisfast.resume import Ask, Read, Resume
from aisfast.view import ClusterView

FORMS = [Form.PAIRS, Form.ITEMS, Form.COLUMNS]
URL = "http://target:1/v1/ml/moss/b/gbt-x/y/1"


class Feed:
    """Reads of an answer: `pieces` one by one, then the end of the connection."""

    def __init__(self, delivery: Delivery, pieces: Iterable[bytes], streaming: bool = True, extra: int = 0) -> None:
        self.delivery = delivery
        self.extra = extra  # entries asked for behind the last one
        self.resume = Resume(
            delivery,
            Policy(resume=False),
            ClusterView(),
            body=lambda *_: b"",
            streaming=streaming,
            coer=True,
            rest=lambda rest: rest,
            rng=random.Random(1),
        )
        self.pieces: Iterator[bytes] = filter(None, pieces)
        self.at_hand = memoryview(b"")
        self.finished = False
        self.closed = False
        self.trail: Trail | None = None
        self.largest = 0  # bytes of the largest buffer that was lent

    def read(self, buffer: memoryview) -> int:
        """What `recv_into` does."""
        assert len(buffer) > 0
        self.largest = max(self.largest, len(buffer))
        if not self.at_hand:
            self.at_hand = memoryview(next(self.pieces, b""))
        n = min(len(buffer), len(self.at_hand))
        buffer[:n] = self.at_hand[:n]
        self.at_hand = self.at_hand[n:]
        return n

    def open(self) -> None:
        """The head of a 200."""
        ask = self.resume.next(0.0)
        assert isinstance(ask, Ask)
        self.delivery.begin(ask.streaming, ask.stop, 0.0, self.extra)
        with self.delivery.get_buffer() as buffer:
            filled = 0
            head = None
            while head is None:
                n = self.read(buffer[filled:])
                assert n, "the answer ends in its head"
                filled += n
                head = parse_head(buffer[:filled])
        assert head.status == 200
        self.delivery.on_head(head, framing_of(head), URL, 0.0)
        self.delivery.commit(filled, 0.0, head.size)
        self.resume.on_accepted()

    def pump(self, returned: bool = False) -> None:
        assert not self.closed
        step = self.resume.next(0.0)
        assert isinstance(step, Read)
        with self.delivery.get_buffer() as buffer:
            n = self.read(buffer)
        if n:
            self.delivery.commit(n, 0.0)
        else:
            self.delivery.on_eof()

    def finish(self) -> None:
        self.finished = self.closed = True
        self.trail = self.delivery.leftover()

    def close(self, error: BaseException | None = None) -> None:
        self.closed = True

    @property
    def reusable(self) -> bool:
        """Whether the connection could be used again: reads what is left, as the pool does."""
        trail = self.trail
        if trail is None:
            return False
        while not trail.done and not trail.broken:
            with trail.get_buffer() as buffer:
                n = self.read(buffer)
            if not n:
                return False
            trail.commit(n)
        return trail.done and not self.at_hand


class Delivered(NamedTuple):
    """`items`: (payload, err_msg) in order, payload None where the entry is missing; `error`: what ended it."""

    items: list[tuple[bytes | None, str | None]]
    error: AISError | None
    feed: Feed


def entries_of(entries: Sequence[wire.Entry | tuple[Any, ...]], bucket: str = "b") -> Entries:
    """What asks for these: `wire.Entry`s, or tuples as `Entries.append` takes them; and the batch's own bucket."""
    asked = Entries()
    asked.bucket = bucket
    for entry in entries:
        if isinstance(entry, wire.Entry):
            opaque = None if entry.opaque is None else b64decode(entry.opaque)
            asked.append(entry.name, entry.bucket, "ais", entry.archpath, opaque)
        else:
            asked.append(*entry)
    return asked


def delivery_of(asked: Entries, form: int = Form.PAIRS, **options: Any) -> Delivery:
    """A `Delivery` of a streaming answer that takes what is missing; `rest()` gives the `Entries`."""
    options = {
        "streaming": True, "only_obj_name": False, "missing_raises": False, "max_entry": 1 << 33, **options,
    }  # fmt: skip
    return Delivery(asked, form, **options)


def deliver(
    asked: Entries, pieces: Iterable[bytes], form: int = Form.PAIRS, extra: int = 0, **options: Any
) -> Delivered:
    """Take all that `pieces` deliver; `extra` more entries were asked for, for nobody."""
    streaming = options.setdefault("streaming", True)
    delivery = delivery_of(asked, form, **options)
    feed = Feed(delivery, pieces, streaming, extra)
    items: list[tuple[bytes | None, str | None]] = []
    error: AISError | None = None
    try:
        feed.open()
        if form == Form.COLUMNS:
            while not delivery.fill():
                feed.pump()
            feed.finish()
        else:
            results = Results(delivery, feed)
            try:
                for item in results:
                    if form == Form.PAIRS:
                        info, payload = item
                        assert info.size == len(payload)
                        assert payload == b"" or info.err_msg is None
                        items.append((payload if info.err_msg is None else None, info.err_msg))
                    else:
                        items.append((item.tobytes() if item.ok else None, item.err_msg))
            finally:
                assert next(results, None) is None  # at its end, whatever happened
    except AISError as caught:
        error = caught.with_traceback(None)  # whose frames would keep the delivery
    if form == Form.COLUMNS:
        data, offsets, ok = delivery.columns()
        at = memoryview(offsets).cast("q").tolist()
        present = bytes(memoryview(ok))
        assert at[0] == 0
        assert at[-1] == len(data) == delivery.used
        assert len(at) == len(present) + 1 == delivery.index + 1
        for i, there in enumerate(present):
            payload = bytes(memoryview(data)[at[i] : at[i + 1]])
            assert there == (i not in delivery.errors)
            assert there or not payload
            items.append((payload if there else None, delivery.errors.get(i)))
    assert feed.finished == (error is None)
    return Delivered(items, error, feed)


def cut(raw: bytes, plan: int | Sequence[float]) -> list[bytes]:
    """`raw` in pieces: of one size, or cut at these fractions of it."""
    if isinstance(plan, int):
        return [raw[i : i + plan] for i in range(0, len(raw), plan)]
    stops = sorted(int(fraction * len(raw)) for fraction in plan)
    return [raw[a:b] for a, b in zip([0, *stops], [*stops, len(raw)], strict=True)]
