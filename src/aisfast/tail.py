"""Entries repeated behind a batch's last one, so that its last bytes come at once.

A target of a cluster with several writes the end of a streaming answer into buffers of some 6 KiB, and then waits for
100 ms of silence from its peers before it lets go of them. What follows the last entry pushes it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from aisfast._request import Entries

PUSH = 7 << 10  # bytes of archive, headers and padding included, that push out everything before them
MOST_ENTRIES = 16
MOST_BYTES = 16 << 10  # of archive, that a tail may take ...
SHARE = 0.05  # ... or this part of the batch
LATE = 0.05  # seconds that a last read waits for what is held back, at least
HOPELESS = 3  # ends in a row that were late in spite of a tail: it does not help
FIRST_TERM, LONGEST_TERM = 64, 1024  # batches, until what was learnt is put to the test
MOST_PLACES = 16


class Tail(NamedTuple):
    entries: Entries
    bytes: int  # of archive


class Tails:
    """What a client has learnt about late ends from its whole batches. No I/O."""

    def __init__(self) -> None:
        self._known: dict[str, Tail] = {}  # by place: an entry may leave its bucket to the request's path
        self._helping = False  # ends were late without a tail
        self._term = FIRST_TERM
        self._left = 0  # batches of the term: with a tail, or without a look at ends; below 0: one without, to see
        self._late = 0  # ends in a row that were late in spite of a tail

    def choose(self, place: str, asked: Entries, batch_bytes: float) -> Tail | None:
        """What to repeat behind a batch of about so many bytes, asked for at this place. Only of buckets that it asks
        anyhow: one that is gone by now would have the whole request refused."""
        tail = self._known.get(place) if self._helping else None
        if tail is None or tail.bytes > max(MOST_BYTES, SHARE * batch_bytes) or not asked.covers(tail.entries):
            return None
        self._left -= 1
        return tail if self._left >= 0 else None

    def ended(self, place: str, waited: float, with_tail: bool) -> bool:
        """A batch is whole, and its last read took so many seconds. Whether entries of it are wanted, to `learn`."""
        late = waited >= LATE
        if with_tail:
            self._late = self._late + 1 if late else 0
            if self._late >= HOPELESS:
                self.forget(place)
                self._helping, self._late = False, 0
                self._left = self._term = min(LONGEST_TERM, 2 * self._term)
        elif not self._helping:
            self._left = max(0, self._left - 1)
            if late and not self._left:
                self._helping, self._left = True, self._term
        elif self._left < 0:
            self._helping = late
            self._term = min(LONGEST_TERM, 2 * self._term) if late else FIRST_TERM
            self._left = self._term if late else 0
        return self._helping and place not in self._known

    def forget(self, place: str) -> None:
        """What is repeated there does harm, or no good."""
        self._known.pop(place, None)

    def learn(self, place: str, entries: Entries, sizes: Sequence[tuple[int, int]]) -> None:
        """Make a tail of entries that are there: (index, bytes of payload) of some."""
        found = sorted(sizes, key=lambda one: one[1], reverse=True)[:MOST_ENTRIES]
        if not found:
            return
        tail, total = Entries(), 0
        for i, size in cycle(found):
            name, bucket, provider, archpath, _, start, length, uname = entries.row(i)
            if archived(size) > PUSH:  # a part of it will do
                size = length = PUSH - 512
            tail.append(name, bucket, provider, archpath, None, start, length, uname)
            total += archived(size)
            if total >= PUSH or len(tail) == MOST_ENTRIES:
                break
        if len(self._known) >= MOST_PLACES:
            self._known.clear()
        self._known[place] = Tail(tail, total)


def archived(size: int) -> int:
    """Bytes that a payload takes in a TAR, at least."""
    return 512 + (size + 511) // 512 * 512
