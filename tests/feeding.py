"""Runs a decoder over one input in every way the network may cut it; the outcome must be the same.

Whole, byte by byte, at every two-way split, and short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from aisfast._decode import Framing, Multipart, TarReader, boundary_of, parse_head
from aisfast.errors import WireError


class FramingDecoder:
    """`Framing` with the face of the other two: events from `feed`, `close` at the end of the input."""

    def __init__(self, framing: Framing) -> None:
        self.framing = framing

    @property
    def done(self) -> bool:
        return self.framing.done

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        payload = self.framing.feed(data)
        return [("data", payload)] if payload else []

    def close(self) -> None:
        pass  # an end that came too early shows in `done`


class AnswerDecoder:
    """All decoders in a row: an HTTP answer in, ("status", number) and the events of multipart and TAR out.

    The body of an answer that is not 200 comes as data events.
    """

    def __init__(self) -> None:
        self.front: bytes | None = b""
        self.framing: Framing | None = None
        self.multipart: Multipart | None = None
        self.tar: TarReader | None = None

    @property
    def done(self) -> bool:
        layers = [layer for layer in (self.framing, self.multipart, self.tar) if layer is not None]
        return layers != [] and all(layer.done for layer in layers)

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        events: list[tuple[Any, ...]] = []
        if self.front is not None:
            self.front += data
            head = parse_head(self.front)
            if head is None:
                return []
            data, self.front = self.front[head.size :], None
            events.append(("status", head.status))
            if head.headers.get("transfer-encoding") == "chunked":
                self.framing = Framing.chunked()
            else:
                self.framing = Framing.length(int(head.headers["content-length"]))
            if head.status == 200:
                self.tar = TarReader()
                if head.headers["content-type"].startswith("multipart/"):
                    self.multipart = Multipart(boundary_of(head.headers["content-type"]))
        assert self.framing is not None
        payload = self.framing.feed(data)
        if self.tar is None:
            return [*events, ("data", payload)] if payload else events
        inner = self.multipart.feed(payload) if self.multipart else [("archive", payload)]
        return [*events, *self._read(inner)]

    def _read(self, inner: list[tuple[str, bytes]]) -> Iterator[tuple[Any, ...]]:
        assert self.tar is not None
        for event in inner:
            if event[0] == "archive":
                yield from self.tar.feed(event[1])
            else:
                yield event

    def close(self) -> None:
        if self.multipart:
            assert list(self._read(self.multipart.close())) == []
        if self.tar:
            self.tar.close()


Decoder = FramingDecoder | Multipart | TarReader | AnswerDecoder


class Outcome(NamedTuple):
    """What came of it: events, adjacent data merged; the error, if any; whether `feed` raised it."""

    events: list[tuple[Any, ...]]
    error: WireError | None
    fed: bool
    done: bool


def merge(events: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Adjacent ("data", bytes) or ("archive", bytes) events made one."""
    merged: list[tuple[Any, ...]] = []
    for event in events:
        if event[0] in ("data", "archive") and merged and merged[-1][0] == event[0]:
            merged[-1] = (event[0], merged[-1][1] + event[1])
        else:
            merged.append(event)
    return merged


def run(make: Callable[[], Decoder], pieces: Iterable[bytes]) -> Outcome:
    """Feed a new decoder these pieces and close it. Only a `WireError` is caught."""
    decoder, events, fed = make(), [], False
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        fed = True  # what is wrong from here on is that there is no more
        events += decoder.close() or []
    except WireError as error:
        assert not fed or not decoder.done
        if not fed and not isinstance(decoder, AnswerDecoder):
            with pytest.raises(WireError):  # after an error it is closed: it never finds its way back
                decoder.feed(b"\0" * 1024)
        return Outcome(merge(events), error, not fed, decoder.done)
    return Outcome(merge(events), None, False, decoder.done)


def cuts(data: bytes) -> list[int]:
    """Every position inside `data`, but for those amid TAR's zeros, which are all alike."""
    zeros = bytes(16)
    return [at for at in range(1, len(data)) if data[at - 8 : at + 8] != zeros or at % 512 in (0, 1, 511)]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, with empty reads, and every two-way split."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    yield [b"", *(data[i : i + 7] for i in range(0, len(data), 7)), b""]
    for at in cuts(data):
        yield [data[:at], data[at:]]


def check_good(make: Callable[[], Decoder], data: bytes, events: list[tuple[Any, ...]]) -> None:
    """`data` gives `events` and the end, in any split; a proper prefix gives some of them and no end."""
    for pieces in splits(data):
        outcome = run(make, pieces)
        assert outcome.error is None, (outcome.error, [len(piece) for piece in pieces][:3])
        assert outcome.events == events
        assert outcome.done
    for stop in [0, *cuts(data)][: len(data)]:
        outcome = run(make, [data[:stop]])
        assert not outcome.done
        assert not outcome.fed, "a prefix of what is right was refused"
        assert_beginning(outcome.events, events)


def check_bad(
    make: Callable[[], Decoder],
    data: bytes,
    error: type[WireError] = WireError,
    *,
    events: list[tuple[Any, ...]] | None = None,
    offset: range | None = None,
    behind: bytes = b"",
) -> WireError:
    """`data` is refused in any split, by the same error at the same place.

    Args:
        error: The class of the error; `WireError` stands for itself and its subclasses.
        events: What may come before the error: a beginning of these. Default: nothing but payload.
        offset: Where the error may be.
        behind: Comes after `data`, is not split, and would be right if `data` were.
    Returns:
        The error of the whole input.
    """
    errors = []
    for pieces in splits(data):
        outcome = run(make, [*pieces, behind])
        assert isinstance(outcome.error, error), (outcome, [len(piece) for piece in pieces][:3])
        assert not outcome.done
        if events is not None:
            assert_beginning(outcome.events, events)
        errors.append(outcome.error)
    assert {(type(e), e.layer, e.offset) for e in errors} == {
        (type(errors[0]), errors[0].layer, errors[0].offset)
    }
    assert offset is None or errors[0].offset in offset
    for stop in [0, *cuts(data)][: len(data)]:
        outcome = run(make, [data[:stop]])
        if outcome.fed:
            assert outcome.error is not None
            assert (type(outcome.error), outcome.error.offset) == (type(errors[0]), errors[0].offset)
    return errors[0]


def assert_beginning(part: list[tuple[Any, ...]], whole: list[tuple[Any, ...]]) -> None:
    """`part` is a beginning of `whole`, its last data event perhaps shorter."""
    if not part:
        return
    *before, last = part
    assert before == whole[: len(before)]
    assert len(part) <= len(whole)
    other = whole[len(before)]
    if last[0] in ("data", "archive"):
        assert other[0] == last[0]
        assert other[1].startswith(last[1])
    else:
        assert last == other
