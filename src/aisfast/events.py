"""What happens to batches, told to who asks: for tracing, metrics, tests. Where nobody asks it costs next to nothing.

    with aisfast.events.subscribe(print):
        bucket.batch(names).fetch()

A batch's events, in order, each of one `kind`:

    begun       it was asked for
    sent        a request, or its redirected repetition, is on its way to `url`
    answered    the head of an answer is here: a redirect (`status` 307), an error, or the 200 that brings entries
    ended       such a 200 brings nothing more; `reason`, if it ended before it had brought what it was asked for
    throttled   a request was refused for the cluster's load (429)
    retried     a request failed, and is sent again; `reason`
    resumed     an answer, or a refusal of some entries, left a rest, which is asked for; `reason`
    whole, failed, closed
                its last one: all entries are here; it raised what `error` and `reason` say; it was given up

`get(raw=True)` and calls about single objects have none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from aisfast.errors import redact
from aisfast.messages import what_failed

if TYPE_CHECKING:
    from aisfast._delivery import Delivery

log = logging.getLogger("aisfast")


class Event(NamedTuple):
    """Something that happened to a batch. Holds no token, and of a URL neither user nor query.

    Attributes:
        kind: What; see the module.
        time: When, in seconds since the epoch.
        call: Number of the batch's call, unique in its process.
        size: Entries of the batch.
        entries: Of them, those verified so far, missing ones included.
        payload_bytes: Bytes of payload verified so far.
        url: Of a request: where it goes.
        status: Of an answer: its HTTP status; else 0.
        error: Name of the exception that is the reason; "" if none is.
        reason: Why, in words.
    """

    kind: str
    time: float
    call: int
    size: int
    entries: int
    payload_bytes: int
    url: str = ""
    status: int = 0
    error: str = ""
    reason: str = ""


class Subscription:
    """What `subscribe` returns. A context manager; leaving it closes it."""

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self.callback = callback
        listeners.append(self)

    def close(self) -> None:
        """No event is told any more."""
        if self in listeners:
            listeners.remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


listeners: list[Subscription] = []  # for those who emit: empty, there is nothing to do
numbers = count(1)  # of calls


def subscribe(callback: Callable[[Event], object]) -> Subscription:
    """Have the events of all batches of this process told, from now on; also of a process that it forks.

    Args:
        callback: Called with each `Event`, in the thread that works on the batch, which waits for it: it must be quick.
            An exception that it raises is logged.
    """
    return Subscription(callback)


def emit(
    kind: str, call: int, delivery: Delivery, url: str = "", status: int = 0, why: BaseException | str | None = None
) -> None:
    """Tell all who listen. On a road that every batch takes, look at `listeners` first."""
    if not listeners:
        return
    error, reason = (type(why).__name__, what_failed(why)) if isinstance(why, BaseException) else ("", why or "")
    url = url.partition("?")[0]
    counts = delivery.count, delivery.index, delivery.payload_bytes
    event = Event(kind, time.time(), call, *counts, url, status, error, redact(reason))
    for listener in tuple(listeners):
        try:
            listener.callback(event)
        except Exception:  # a batch does not fail for it
            log.warning("a subscriber of aisfast.events failed", exc_info=True)
