"""What to ask for, and what to make of an answer that does not bring it all. No socket, no clock: time is an argument.

A `Delivery` keeps the verified prefix. A `Resume` asks the gateway for the rest, in order, until the batch is whole,
and decides when it cannot become so. A shell carries out its steps:

    Ask         a GetBatch request: then on_redirect, on_accepted or on_refused, on_lost
    Single      one REST call about one entry: then on_single or on_single_failed
    Several     object GETs of several entries, in any order: then on_several
    Read        one read of the answer, before `until`
    Wait        nothing, until then
    None        the batch is whole

What the silence of the cluster may cost is counted on the shell's clock, which stands still while the consumer works.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from aisfast._delivery import Over, Want
from aisfast.errors import (
    AISError,
    AISTimeoutError,
    ErrBckNotFound,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    ErrRemoteBckNotFound,
    IncompleteBatchError,
    LimitError,
    WireError,
    parse_error_body,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aisfast._delivery import Delivery
    from aisfast._request import Entries
    from aisfast.policy import Policy
    from aisfast.view import ClusterView

log = logging.getLogger("aisfast")

SILENCE = 1.0  # seconds: a shorter stretch without a kept byte counts for nothing
BACKOFF = 0.1  # seconds before asking again, at most, after the first failure; doubled for each further one ...
MOST_BACKOFF = 5.0  # ... up to this
CONFLICT_BACKOFF = 1.0  # a map change takes a second or more
BUDGET = 6  # misses in one answer that are taken for the server's soft-error budget (8 by default) when it ends short
LEAST_WINDOW = 16  # entries asked for after a budget's end, at least
COLD = 4  # missing among the first 2 * COLD entries: the batch is taken to be of a cold bucket
STOCK = 64  # entries got by object GETs in one go


class Ask(NamedTuple):
    """A GetBatch request for the entries up to `stop`; its head is waited for no longer than `until`."""

    body: bytes
    streaming: bool
    stop: int
    until: float


class Single(NamedTuple):
    """One REST call about an entry: "size" of its object, or its "payload"."""

    kind: str
    entry: int


class Several(NamedTuple):
    """The payloads of these entries, each by an object GET, some at a time."""

    indices: range


class Read(NamedTuple):
    until: float


class Wait(NamedTuple):
    until: float


Step = Ask | Single | Several | Read | Wait | None


class Kind(Enum):
    """What an error answer to a GetBatch request means."""

    FINAL = 0  # the request's own fault
    TRANSIENT = 1
    AT_ONCE = 2  # the redirect was stale: ask the gateway again
    CONFLICT = 3  # the cluster map is changing
    BUDGET = 4  # too many misses for one buffered answer
    MISSING = 5
    RANGE = 6
    UNREADABLE = 7  # a shard that is damaged, or no archive


def kind_of(error: AISError) -> Kind:
    """What an error answer means. Protocol: a 400 is not always the request's fault, and no status is certain."""
    status = error.status_code
    fields = parse_error_body(error.message)
    text = fields["message"]
    if status in (429, 503) or status >= 500:
        return Kind.TRANSIENT
    if status == 409:
        return Kind.CONFLICT
    if status == 404:
        if "prep-rx not done?" in text or "not active" in text:
            return Kind.AT_ONCE
        if isinstance(error, ErrBckNotFound | ErrRemoteBckNotFound):
            return Kind.FINAL
        return Kind.MISSING if "does not exist" in text or "doesn't exist" in text else Kind.FINAL
    if status != 400:
        return Kind.FINAL
    if "exceeded soft-errors limit" in text:
        return Kind.BUDGET
    if fields.get("tcode") == "ErrRangeNotSatisfiable" or "not satisfiable range" in text:
        # the gateway refuses shapes of ranges that no object can satisfy
        return Kind.FINAL if str(fields.get("node", "")).startswith("p[") else Kind.RANGE
    if text.startswith(("archive/", "gzip:", "lz4:", "zip:", "flate:")) or "unknown archive" in text:
        return Kind.TRANSIENT if "missed writing" in text else Kind.UNREADABLE
    if "unknown mime type" in text or fields.get("tcode") == "errUnknownMime":
        return Kind.FINAL
    by_gateway = str(fields.get("node", "")).startswith("p[") and fields.get("method") == "GET"
    asked_nobody = not (text.startswith('Post "') or fields.get("tcode") in ("Error", "ErrNoNodes"))
    return Kind.FINAL if by_gateway and asked_nobody else Kind.TRANSIENT


@dataclass
class Counts:
    """What a Resume has counted."""

    requests: int = 0
    resumes: int = 0
    retries: int = 0
    throttled: int = 0
    singles: int = 0


class Resume:
    """The decisions about one batch. See the module's docstring.

    Args:
        delivery: The batch.
        policy: How long, and by what means.
        view: What is known of the cluster.
        body: Makes the request body for some entries: (entries, streaming).
        streaming: Whether streaming answers are asked for.
        coer: Whether they are to go on behind a missing entry.
        rest: Makes of the entries not received what `IncompleteBatchError.rest()` returns.
        rng: For waiting times.
    """

    def __init__(
        self,
        delivery: Delivery,
        policy: Policy,
        view: ClusterView,
        *,
        body: Callable[[Entries, bool], bytes],
        streaming: bool,
        coer: bool,
        rest: Callable[[Entries], Any],
        rng: random.Random,
    ) -> None:
        self.delivery = delivery
        self.policy = policy
        self.view = view
        self.counts = Counts()
        self._body = body
        self._streaming = streaming
        self._coer = coer
        self._rest = rest
        self._rng = rng
        self._accepted = False  # a 200 has come for this batch
        self._asking = False  # a request is out, or its answer is coming
        self._alone = False  # for one entry, to learn what is wrong with it
        self._began = 0  # where the answer under way began ...
        self._misses = 0  # ... and how many misses there had been
        self._window = delivery.count  # entries to ask for next
        self._ask_alone = False
        self._single: str | None = None  # what to ask of the entry at hand by a REST call
        self._failures = 0  # in a row, without a newly verified entry
        self._not_before = 0.0
        self._stuck: tuple[int, int] = (-1, 0)  # an entry that answers stopped at, and how often
        self._cut: tuple[int, int] = (-1, 0)  # an entry that was cut inside its payload, and how often
        self._damage: tuple[int, str] = (-1, "")  # an entry that came wrong, and how
        self._last: AISError | None = None  # what failed last
        self._start: float | None = None
        self._kept = 0  # bytes kept so far ...
        self._kept_at = 0.0  # ... and when the latest came
        self._verified = 0
        self._verified_at = 0.0
        self._silence = 0.0  # seconds, stretches that are over
        self._before = (0.0, 0.0)  # silence and kept_at when the answer under way was asked for
        self._waiting = False  # for a target that is gone
        self._fetched = 0  # entries reported missing that were asked for by a GET
        self._cold = False  # the rest is got by GETs
        self._stock: dict[int, Any] = {}  # what they brought, by index
        self.away = 0.0  # seconds that the consumer took: what the shell's clock lacks to a clock on the wall

    # ------------------------------------------------------------------------------------------------------------ steps

    def next(self, now: float) -> Step:
        """What is to be done now.

        Raises:
            AISError: The batch cannot be made whole: `IncompleteBatchError`, or what stands for it.
        """
        delivery = self.delivery
        if self._start is None:
            self._start = self._kept_at = self._verified_at = now
        self._note(now)
        if delivery.index == delivery.count:
            if self.counts.resumes or self.counts.retries:
                log.warning(
                    "a batch of %d entries was mended: %d answers ended early, %d requests failed",
                    delivery.count,
                    self.counts.resumes,
                    self.counts.retries,
                )
            return None
        if self._asking:
            want = delivery.want
            if want == Want.BYTES:
                return Read(self._limit(now))
            if want == Want.MISS:
                return self._on_miss(now)
            if want == Want.DOUBT:
                return Single("size", delivery.index)
            self._ended(now)
        self._limit(now)
        if now < self._not_before:
            return Wait(min(self._not_before, self._limit(now)))
        if self._cold:
            return self._take_stock(now)
        if self._single is not None:
            kind, self._single = self._single, None
            return Single(kind, delivery.index)
        if self.view.full:
            self._not_before = now + self._rng.uniform(0, BACKOFF)
            return Wait(self._not_before)
        return self._ask(now)

    def _ask(self, now: float) -> Ask:
        delivery = self.delivery
        self._alone, self._ask_alone = self._ask_alone, False
        stop = delivery.index + 1 if self._alone else min(delivery.count, delivery.index + self._window)
        streaming = self._streaming and not self._alone
        self._asking = True
        self._began = delivery.index
        self._misses = delivery.misses
        self._before = (self._silence, self._kept_at)
        self.counts.requests += 1
        whole = delivery.index == 0 and stop == delivery.count
        entries = delivery.entries if whole else delivery.entries.subset(range(delivery.index, stop))
        return Ask(self._body(entries, streaming), streaming, stop, self._limit(now))

    # ----------------------------------------------------------------------------------------------------------- events

    def on_redirect(self, targets: int, now: float) -> None:
        """The gateway has redirected, and told how many targets there are."""
        self.view.saw_targets(targets, now + self.away, self.policy.target_memory)
        self.delivery.hold_misses = self.policy.get_missing or (self.policy.resume and self.view.lost_targets)

    def on_accepted(self) -> None:
        """A 200 has come."""
        self._accepted = True
        self.view.answered = True
        self.view.bears()

    def on_refused(self, error: AISError, now: float) -> None:
        """An error answer has come to the request.

        Raises:
            AISError: Nothing can be done about it.
        """
        delivery = self.delivery
        self._asking = False
        self.view.answered = True
        delivery.abandon()
        self._last = error
        if error.status_code == 429:
            self.counts.throttled += 1
            self.view.throttled()
        kind = kind_of(error)
        count = delivery.stop - delivery.index
        buffered = self._alone or not self._streaming
        if kind in (Kind.BUDGET, Kind.MISSING, Kind.RANGE, Kind.UNREADABLE):
            splits = kind is not Kind.MISSING or not delivery.missing_raises
            if buffered and count > 1 and self.policy.resume and splits:
                self._window = count // 2
                self.counts.resumes += 1
                return
            if buffered and count == 1 and (self.policy.resume or delivery.count == 1):
                self._bad_entry(kind, error)
                return
        if kind in (Kind.FINAL, Kind.BUDGET, Kind.MISSING, Kind.RANGE, Kind.UNREADABLE) or not self.policy.resume:
            raise self._given_up(error)
        self.counts.retries += 1
        if kind is Kind.AT_ONCE and not self._failures:
            self._failures += 1
            self._not_before = now
        else:
            self._back_off(now, CONFLICT_BACKOFF if kind is Kind.CONFLICT else BACKOFF)

    def on_lost(self, error: AISError, now: float) -> None:
        """There was no answer: no connection, or it broke before a 200's head was in.

        Raises:
            AISError: Asking again is of no use, or not wanted.
        """
        self._asking = False
        self.delivery.abandon()
        self._last = error
        kind = getattr(error, "kind", "")
        hopeless = isinstance(error, WireError) or kind in ("dns", "tls", "redirect", "proxy")
        if hopeless or not self.policy.resume or (kind in ("refused", "unreachable") and not self.view.answered):
            raise self._given_up(error)
        self.counts.retries += 1
        self._back_off(now, BACKOFF)

    def on_single(self, kind: str, value: Any, now: float) -> None:
        """A REST call about the entry at hand has brought the size of its object, or its payload.

        Raises:
            ErrRangeNotSatisfiable: The range lies outside the object, and that is an error.
        """
        delivery = self.delivery
        if kind == "payload":
            self._failures = 0
            delivery.supply(value)
            return
        start, length = delivery.entries.row(delivery.index)[5:7]
        came = delivery.kept_size
        right = value - start if length < 0 else length
        if start >= value or right > value - start:
            self._out_of_range(f"the object has {value} bytes", None)
        elif came == right:
            delivery.settle()
        elif came == value:
            delivery.settle(start, right)
        else:
            self._leave_answer(now)
            self._single = "payload"

    def on_single_failed(self, kind: str, error: AISError, now: float) -> None:
        """A REST call about the entry at hand has failed.

        Raises:
            AISError: That cannot be mended.
        """
        self._last = error
        if isinstance(error, ErrRangeNotSatisfiable):
            self._leave_answer(now)
            self._out_of_range(error.message, error)
        elif isinstance(error, ErrObjNotFound):
            self._as_missing(error.message)
        elif 400 <= error.status_code < 500 and error.status_code not in (408, 409, 429):
            raise self._given_up(error)
        else:
            self._leave_answer(now)
            self.counts.retries += 1
            self._single = "payload" if kind == "payload" else None
            self._back_off(now, BACKOFF)

    def on_several(self, found: dict[int, Any]) -> None:
        """Object GETs have brought payloads, or the errors that say why not, by index."""
        self._stock.update(found)

    def _take_stock(self, now: float) -> Step:
        """Hand over what object GETs have brought, in order."""
        delivery = self.delivery
        index = delivery.index
        if index not in self._stock:
            return Several(range(index, min(delivery.count, index + STOCK)))
        value = self._stock.pop(index)
        if not isinstance(value, AISError):
            delivery.supply(value)
        else:
            self.on_single_failed("payload", value, now)
            self._single = None
        return Wait(now)

    # -------------------------------------------------------------------------------------------------- an answer's end

    def _ended(self, now: float) -> None:
        """The answer under way brings nothing more, and the batch is not whole."""
        delivery = self.delivery
        self._asking = False
        new = delivery.index - self._began
        misses = delivery.misses - self._misses
        if new:
            self._failures = 0
            self._kept_at = max(self._kept_at, self._verified_at)
        else:  # all its time was silence
            self._silence, self._kept_at = self._before
        if delivery.over == Over.WINDOW:
            if not self._alone:
                self._window *= 2
            return
        cause = delivery.cause
        self._last = cause
        if not self.policy.resume:
            raise cause if delivery.over == Over.DAMAGED else self._incomplete(cause)
        self.counts.resumes += 1
        log.info("an answer ended early, after %d of %d entries: %s", new, delivery.stop - self._began, cause)
        if delivery.over == Over.DAMAGED:
            self._on_damage(cause, now)
            return
        if delivery.inside and self._again(delivery.index, "_cut") >= 2:
            self._single = "payload"
            return
        if delivery.over == Over.LOST:
            self._back_off(now, BACKOFF)
            return
        if misses >= BUDGET:  # the budget's end: no more than it will bear
            self._window = max(LEAST_WINDOW, new * BUDGET // misses)
            return
        stops = self._again(delivery.index, "_stuck")
        self._ask_alone = not self._alone and stops >= (2 if self._coer else 1)
        if not self._ask_alone:
            self._back_off(now, BACKOFF)

    def _on_damage(self, cause: WireError, now: float) -> None:
        """Bytes were wrong. Once may be chance; the same again is not."""
        delivery = self.delivery
        if delivery.wrong_range:
            self._single = "payload"
            return
        damage = (delivery.index, f"{cause.layer}: {cause.expected}")
        if damage == self._damage:
            raise cause
        self._damage = damage
        self._back_off(now, BACKOFF)

    def _on_miss(self, now: float) -> Step:
        """The answer reports the entry at hand missing, and it may be there."""
        delivery = self.delivery
        if self.policy.get_missing:
            seen = delivery.index + 1
            self._fetched += 1
            if self._fetched >= COLD and seen <= 2 * COLD:
                log.warning("%d of the first %d entries are missing: object GETs get the rest", self._fetched, seen)
                self._leave_answer(now)
                self._cold = True
                return Wait(now)
            return Single("payload", delivery.index)
        if not self.view.worth_waiting:
            reason = None
            if self.view.lost_targets:
                reason = f"{delivery.err_msg}; the cluster has lost targets: the entry may only be out of reach"
            delivery.settle(err_msg=reason)
            return Wait(now)
        self._waiting = True
        self._window = min(self._window, LEAST_WINDOW)
        self._leave_answer(now)
        self._silence, self._kept_at = self._before if delivery.index == self._began else (self._silence, self._kept_at)
        self._back_off(now, CONFLICT_BACKOFF)
        return Wait(now)

    def _leave_answer(self, now: float) -> None:
        """Nothing more is wanted of the answer under way."""
        if self._asking:
            self._asking = False
            self.delivery.abandon()

    def _again(self, index: int, name: str) -> int:
        """How often in a row this has happened at this entry."""
        at, times = getattr(self, name)
        times = times + 1 if at == index else 1
        setattr(self, name, (index, times))
        return int(times)

    # ------------------------------------------------------------------------------------------------- entries at fault

    def _bad_entry(self, kind: Kind, error: AISError) -> None:
        """The entry at hand, asked for alone, was refused."""
        if kind in (Kind.MISSING, Kind.BUDGET):
            self._as_missing(parse_error_body(error.message)["message"])
        elif kind is Kind.RANGE:
            self._out_of_range(parse_error_body(error.message)["message"], error)
        else:
            delivery = self.delivery
            if delivery.missing_raises:
                error.message = f"{delivery.entries.describe(delivery.index)} cannot be read: {error.message}"
                raise error
            delivery.supply_missing(parse_error_body(error.message)["message"])

    def _as_missing(self, reason: str) -> None:
        delivery = self.delivery
        if delivery.missing_raises and delivery.want != Want.MISS:
            raise delivery.missing_error(reason)
        if delivery.want == Want.MISS:
            delivery.settle(err_msg=reason)
        else:
            delivery.supply_missing(reason)

    def _out_of_range(self, reason: str, error: AISError | None) -> None:
        delivery = self.delivery
        if delivery.missing_raises:
            described = delivery.entries.describe(delivery.index)
            raise ErrRangeNotSatisfiable(
                error.status_code if error else 416,
                f"{described}: {reason}",
                delivery.url,
                remedy="ask for a range inside the object",
                entry=described,
            )
        delivery.supply_missing(f"range not satisfiable: {reason}")

    # --------------------------------------------------------------------------------------------------------- patience

    def _note(self, now: float) -> None:
        """Count the silence since the latest kept byte, if one has come."""
        delivery = self.delivery
        kept = delivery.kept_bytes
        if delivery.index != self._verified:
            self._verified = delivery.index
            self._verified_at = now
        if kept > self._kept:
            if now - self._kept_at >= SILENCE:
                self._silence += now - self._kept_at
            self._kept_at = now
        self._kept = kept

    def _limit(self, now: float) -> float:
        """When patience or deadline will be spent.

        Raises:
            AISError: They are.
        """
        assert self._start is not None
        until = self._kept_at + max(SILENCE, self.policy.patience - self._silence)
        if now >= until and self._waiting:
            log.warning("the cluster has lost targets and patience is spent: entries they held count as missing")
            self.view.give_up_waiting()
            self._waiting = False
            self._silence, self._kept_at = 0.0, now
            until = now + self.policy.patience
        if self.policy.deadline is not None:
            until = min(until, self._start + self.policy.deadline)
        if now >= until:
            cause = self._last or AISTimeoutError(0, "no answer came in time", self.delivery.url)
            raise self._incomplete(cause) if self._accepted else cause
        return until

    def _back_off(self, now: float, base: float) -> None:
        """Wait before the next request: full jitter, longer with each failure in a row and under load."""
        most = min(MOST_BACKOFF, base * 2 ** min(self._failures, 10)) * self.view.retry_cost()
        self._failures += 1
        self._not_before = now + self._rng.uniform(0, most)

    # ---------------------------------------------------------------------------------------------------------- the end

    def _given_up(self, cause: AISError) -> AISError:
        """The exception for a batch that this failure ends."""
        if isinstance(cause, ErrObjNotFound | ErrRangeNotSatisfiable | LimitError):
            return cause
        return self._incomplete(cause) if self._accepted else cause

    def _incomplete(self, cause: AISError) -> IncompleteBatchError:
        delivery = self.delivery
        missing = tuple(range(delivery.index, delivery.count))
        error = IncompleteBatchError(
            0,
            f"the batch is incomplete: {delivery.index} of {delivery.count} entries came, the first that did not is "
            f"{delivery.entries.describe(delivery.index)}: {cause.message}",
            delivery.url,
            remedy="error.rest() is a batch of what is missing",
            requested=delivery.count,
            received=delivery.index,
            missing=missing,
            attempts=self.counts.requests,
            _rest=self._rest(delivery.entries.subset(missing)),
        )
        error.__cause__ = cause
        return error
