"""What to ask for, and what to make of an answer that does not bring it all. No socket, no clock: time is an argument.

A `Delivery` keeps the verified prefix. A `Resume` asks the gateway for the rest, in order, until the batch is whole,
and decides when it cannot become so. A shell carries out its steps:

    Ask         a GetBatch request: then on_redirect and `follows`, on_accepted or on_refused, on_lost
    Single      one REST call about one entry: then on_single or on_single_failed
    Several     object GETs of several entries, some at a time: then on_several
    Read        one read of the answer
    Wait        nothing
    None        the batch is whole

each before `until`. What the silence of the cluster may cost is counted on the shell's clock, which stands still while
the consumer works.
"""

from __future__ import annotations

import logging
import random
import re
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from aisfast import events
from aisfast._delivery import Form, Over, Want
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    LimitError,
    Unreadable,
    WireError,
    parse_error_body,
)
from aisfast.stats import Stats
from aisfast.verdict import Verdict, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aisfast._delivery import Delivery
    from aisfast._request import Entries
    from aisfast.policy import Policy
    from aisfast.view import ClusterView

log = logging.getLogger("aisfast")

SILENCE = 1.0  # seconds: a shorter stretch without a kept byte counts for nothing
BACKOFF = 0.1  # seconds before asking again, at most, after a first failure; for further ones see `ClusterView.turn`
CONFLICT_BACKOFF = 1.0  # a map change takes a second or more
BUDGET = 6  # misses in one answer that are taken for the server's soft-error budget (8 by default) when it ends short
LEAST_WINDOW = 8  # entries asked for after a budget's end, at least
AWAITED = 64  # entries asked for, at most, to see whether a lost target is back
DENSE = 4  # misses among 2 * DENSE entries: the next ones are got by object GETs, if misses are
STOCK = 64  # entries got by object GETs in one go
# of what is left of patience, that one answer may cost: something must be left for another; a buffered one comes as a
# whole, after as long as it takes
SHARE, SHARE_BUFFERED = 0.5, 0.75
ROOM = 5.0  # seconds, at most, that a call waits for others to end: they may wait for it
TOLD = 25.0  # seconds for which a count of targets is believed: the map takes longer to notice a loss
PROBE = 25.0  # seconds that a target which stalled before may be silent: longer than it waits for another target
LOOK = 1.0  # seconds, at most, until a call that waits sees that there is nothing to wait for any more
AVOIDS = 3  # redirects to a target that stalled lately that one request does not follow
STOPPED = ("reason: ", "user abort")  # how a refusal begins whose job was stopped
UNSENT = "failed to receive "  # in a refusal: a target could not read an entry to its end while another waited for it
HOPELESS = ("dns", "tls", "redirect", "proxy")  # kinds of failed connections that another try does not mend


class Ask(NamedTuple):
    """A GetBatch request for the entries up to `stop`, and `extra` ones behind them that nobody waits for.

    `aside`: without the bucket in its path, if that can be.
    """

    body: bytes
    streaming: bool
    stop: int
    until: float
    aside: bool
    extra: int


class Single(NamedTuple):
    """One REST call about an entry: for the "size" of its object or member, or its "payload"."""

    kind: str
    entry: int
    until: float


class Several(NamedTuple):
    """The payloads of these entries, each by an object GET."""

    entries: list[int]
    until: float


class Read(NamedTuple):
    until: float


class Wait(NamedTuple):
    until: float


Step = Ask | Single | Several | Read | Wait | None


class Resume:
    """The decisions about one batch. See the module's docstring.

    Args:
        delivery: The batch.
        policy: How long, and by what means.
        view: What is known of the cluster.
        body: Makes the request body for some entries, and a tail of others: (entries, streaming, tail).
        place: Where they are asked for: a tail is of the same place. None: no tail.
        streaming: Whether streaming answers are asked for.
        coer: Whether they are to go on behind a missing entry.
        rest: Makes of the entries not received what `IncompleteBatchError.rest()` returns.
        rng: For waiting times.
    Attributes:
        stats: What it has cost; the shell counts in it too.
        number: Of the call, for `aisfast.events`.
        away: Seconds that the consumer took: what the shell's clock lacks to a clock on the wall.
    """

    _start: float | None = None
    # the request under way
    _accepted = False  # a 200 has come for this batch
    _asking = False  # a request is out, or its answer is coming
    _alone = False  # for one entry, to learn what is wrong with it
    _buffered = False
    _began = 0  # where its answer began ...
    _misses = 0  # ... how many misses there had been ...
    _before = (0.0, 0.0)  # ... and silence and kept_at
    _asked_at = 0.0
    _host = ""  # which target answers
    _fewer = False  # of a cluster that has lost targets
    _avoids = 0
    _tail = False  # entries are repeated behind its last one
    # what to ask for next
    _ask_alone = False
    _room_by = inf  # until when to wait for room
    _single = ""  # what to ask of the entry at hand by a REST call
    _aside = False  # another job than that of the batch's bucket
    _by_gets = 0  # entries before this one are got by object GETs
    _told_at = 0.0  # when, on the wall, the latest redirect told how many targets there are
    _absent = -1  # an entry that a REST call did not find
    _waiting = False  # for a target that is gone
    # what failed
    _last: AISError | None = None
    _troubled = False  # it had to wait, and no answer has come whole since
    _recoveries = 0  # when it was last looked at
    _failures = 0  # in a row, without a newly verified entry
    _not_before = 0.0
    _stuck = (-1, 0)  # an entry that answers stopped at, and how often
    _cut = (-1, 0)  # an entry that was cut inside its payload, and how often
    _damage = (-1, "")  # an entry that came wrong, and how
    _refusal = (-1, "")  # an entry that was refused, and how
    # the silence
    _kept = 0  # bytes kept so far ...
    _kept_at = 0.0  # ... and when the latest came
    _verified = 0
    _silence = 0.0  # seconds, stretches that are over
    _latest_wait = 0.0  # seconds, for the latest bytes that were kept

    def __init__(
        self,
        delivery: Delivery,
        policy: Policy,
        view: ClusterView,
        *,
        body: Callable[[Entries, bool, Entries | None], bytes],
        place: str | None = None,
        streaming: bool,
        coer: bool,
        rest: Callable[[Entries], Any],
        rng: random.Random,
    ) -> None:
        self.delivery = delivery
        self.policy = policy
        self.view = view
        self.stats = Stats()
        self.number = next(events.numbers)
        self.away = 0.0
        self._body = body
        self._place = place if policy.tail else None
        self._streaming = streaming
        self._coer = coer
        self._rest = rest
        self._rng = rng
        self._window = delivery.count  # entries to ask for next
        self._unsent: set[int] = set()  # entries that a target could not send to another
        self._stock: dict[int, Any] = {}  # what object GETs brought, by index
        self._recent: deque[int] = deque(maxlen=DENSE)  # entries whose misses were asked for by a GET

    # ------------------------------------------------------------------------------------------------------------ steps

    def next(self, now: float) -> Step:
        """What is to be done now.

        Raises:
            AISError: The batch cannot be made whole: `IncompleteBatchError`, or what stands for it.
        """
        delivery = self.delivery
        if self._start is None:
            self._start = self._kept_at = now
        self.note(now)
        if delivery.index == delivery.count:
            if self._asking:
                if events.listeners:
                    events.emit("ended", self.number, delivery)
                self._came_whole(now)
            return None
        if self._asking:
            want = delivery.want
            if want == Want.BYTES:
                return Read(self._share(now))
            if want == Want.MISS:
                return self._on_miss(now)
            if want == Want.DOUBT:
                return Single("size", delivery.index, self._limit(now))
            self._ended(now)
            if delivery.index < self._by_gets:
                return Wait(now)
        limit = self._limit(now)
        if now < self._not_before:
            if self._recoveries != self.view.recoveries:
                self._recoveries = self.view.recoveries
                soon = max(BACKOFF, min(LOOK, self.view.pace))
                self._not_before = min(self._not_before, now + self._rng.uniform(0, soon))
            return Wait(min(self._not_before, limit, now + LOOK))
        if delivery.index < self._by_gets and delivery.index != self._absent:
            return self._take_stock(now, limit)
        if delivery.index in self._unsent and not self._single:
            self._single = "payload"
        if self._single:
            kind, self._single = self._single, ""
            return Single(kind, delivery.index, limit)
        if self.view.full and now < self._room_by:
            self._room_by = min(self._room_by, now + ROOM)
            self._not_before = now + self._rng.uniform(0, BACKOFF)
            return Wait(min(self._not_before, limit))
        self._room_by = inf
        return self._ask(now)

    def end(self) -> None:
        """The call is over, well or not: say what a user may want to know."""
        delivery, stats = self.delivery, self.stats
        if delivery.index == delivery.count and (stats.resumes or stats.retries):
            log.warning(
                "a batch of %d entries was mended: %d answers ended early, %d requests failed",
                delivery.count,
                stats.resumes,
                stats.retries,
            )
        if delivery.misses and not self.policy.get_missing and not self.view.told_cold:
            provider = delivery.entries.row(delivery.first_miss)[2] or delivery.entries.provider or "ais"
            if provider != "ais":
                self.view.told_cold = True
                log.warning(
                    "%s, of a cloud bucket (%s), was reported missing: GetBatch reads only objects that the cluster "
                    "has already. Prefetch them, or have the missing ones fetched by Policy(get_missing=True)",
                    delivery.entries.describe(delivery.first_miss),
                    provider,
                )

    def _ask(self, now: float) -> Ask:
        delivery = self.delivery
        self._alone, self._ask_alone = self._ask_alone, False
        stop = delivery.index + 1 if self._alone else min(delivery.count, delivery.index + self._window)
        stop = min((i for i in self._unsent if i > delivery.index), default=stop) if self._unsent else stop
        streaming = self._streaming and not self._alone
        self._asking = True
        self._buffered = not streaming
        self._began = delivery.index
        self._misses = delivery.misses
        self._before = (self._silence, self._kept_at)
        self._asked_at = now
        self._avoids = 0
        self._host = ""
        self.stats.requests += 1
        whole = delivery.index == 0 and stop == delivery.count
        entries = delivery.entries if whole else delivery.entries.subset(range(delivery.index, stop))
        tail = None
        if self._place is not None and self.view.targets > 1 and streaming and not self._aside:
            likely = self.view.entry_bytes * (stop - delivery.index)
            tail = self.view.tails.choose(self._place, delivery.entries, likely)
        self._tail = tail is not None
        if tail is None:
            return Ask(self._body(entries, streaming, None), streaming, stop, self._share(now), self._aside, 0)
        extra = len(tail.entries)
        self.stats.tail_entries += extra
        self.stats.tail_bytes += tail.bytes
        return Ask(self._body(entries, streaming, tail.entries), streaming, stop, self._share(now), False, extra)

    # ----------------------------------------------------------------------------------------------------------- events

    def on_redirect(self, targets: int, now: float) -> None:
        """The gateway has redirected, and told how many targets there are."""
        self.view.answered = True
        self.view.saw_targets(targets, now + self.away, self.policy.target_memory)
        self._fewer = self.view.lost_targets
        self._told_at = now + self.away
        self.delivery.hold_misses = self.policy.get_missing or self._fewer

    def follows(self, host: str, now: float) -> float | None:
        """Until when to wait for an answer of the host that a redirect names. None: not to be followed, ask the gateway
        again, which may name another."""
        self._host = host
        choice = self.policy.resume and self.view.targets > 1 and self._avoids < AVOIDS
        if not choice or not self.view.avoided(host, now + self.away):
            return self._share(now)
        self._avoids += 1
        self._retried(f"{host} has stalled lately: another target may be named")
        return None

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
        if self._tail and error.status_code != 429:  # the batch's own entries may be blameless
            assert self._place is not None
            self.view.tails.forget(self._place)
            self._place = None
            self._retried(error)
            return
        self._place = None  # whatever is wrong, a tail is not what helps
        self._remember(error, now)
        if error.status_code == 429:
            self.stats.throttled += 1
            events.emit("throttled", self.number, delivery, status=429, why=error)
            self.view.throttled()
        verdict = verdict_of(error)
        if verdict is Verdict.SUSPECT and self._buffered and self.policy.resume:
            # asked for again in a batch a damaged shard may stop the job for all; an object GET goes to its owner alone
            if delivery.stop - delivery.index == 1:
                self._single = "payload"
                self._retried(error)
            else:
                self._window = (delivery.stop - delivery.index) // 2
                self._resumed(error)
            return
        if verdict in (Verdict.BUDGET, Verdict.MISSING, Verdict.RANGE, Verdict.UNREADABLE):
            self._on_entry_refused(verdict, error, now)
            return
        if verdict is Verdict.FINAL or not self.policy.resume:
            raise self._given_up(error)
        self._retried(error)
        text = parse_error_body(error.message)["message"]
        if text.startswith(STOPPED):  # every request to that job keeps it alive, and is refused
            self._aside = not self._aside
        if UNSENT in text and (at := self._named(text)) >= 0:  # asked for again it would stop the job again, for all
            self._unsent.add(at)
        if verdict is Verdict.AT_ONCE and not self._failures:
            self._failures += 1
            self._not_before = now
        else:
            self._back_off(now, CONFLICT_BACKOFF if verdict is Verdict.CONFLICT else BACKOFF)

    def on_lost(self, error: AISError, now: float) -> None:
        """There was no answer: no connection, or it broke or made no sense before a 200's head was in.

        Raises:
            AISError: Asking again is of no use, or not wanted.
        """
        self._asking = False
        self._place = None
        self.delivery.abandon()
        self._remember(error, now)
        new_here = not self.view.answered
        if isinstance(error, WireError):
            hopeless = new_here or isinstance(error, LimitError) or self._same_damage(error)
        else:
            kind = error.kind if isinstance(error, AISConnectionError) else ""
            hopeless = kind in HOPELESS or (new_here and kind in ("refused", "unreachable"))
        if hopeless or not self.policy.resume:
            raise self._given_up(error)
        self._retried(error)
        self._back_off(now, BACKOFF)

    def on_put_off(self) -> None:
        """The caller has no room for more now: the answer under way is left, and its rest asked for later."""
        self._leave_answer()
        self._single = ""

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
            self._leave_answer()
            self._single = "payload"

    def on_single_failed(self, kind: str, error: AISError, now: float) -> None:
        """A REST call about the entry at hand has failed.

        Raises:
            AISError: That cannot be mended.
        """
        self._remember(error, now)
        if isinstance(error, ErrRangeNotSatisfiable):
            self._out_of_range(parse_error_body(error.message)["message"], error)
            return
        if isinstance(error, Unreadable):
            verdict = Verdict.UNREADABLE
        else:
            verdict = self._verdict(error) if error.status_code >= 400 else Verdict.TRANSIENT
        if verdict is Verdict.MISSING:
            told = self.delivery.want == Want.MISS and now + self.away - self._told_at < TOLD
            if not self.policy.resume and self.delivery.want != Want.MISS:
                raise self._incomplete(error)  # what came cannot be verified
            if told or not self.policy.resume:
                self._missing(parse_error_body(error.message)["message"], now)
            else:  # a batch's redirect tells whether it may only be out of reach
                if self._absent == self.delivery.index:
                    self._back_off(now, BACKOFF)
                self._absent = self.delivery.index
                self._unsent.discard(self.delivery.index)
                self._leave_answer()
                self._ask_alone = True
            return
        if verdict is Verdict.UNREADABLE:
            self._unreadable(error)
            return
        if verdict is Verdict.FINAL or isinstance(error, WireError) or not self.policy.resume:
            raise self._given_up(error)
        self._leave_answer()
        self._retried(error)
        self._single = "payload" if kind == "payload" and self.delivery.index >= self._by_gets else ""
        self._back_off(now, BACKOFF)

    def on_several(self, found: dict[int, Any]) -> None:
        """Object GETs have brought payloads, or the errors that say why not, by index."""
        self._stock.update(found)

    # ------------------------------------------------------------------------------------------- an answer that is over

    def _ended(self, now: float) -> None:
        """The answer under way brings nothing more, and the batch is not whole."""
        delivery = self.delivery
        self._asking = False
        events.emit("ended", self.number, delivery, why=None if delivery.over == Over.WINDOW else delivery.cause)
        new = delivery.index - self._began
        misses = delivery.misses - self._misses
        if new:
            self._failures = 0
        else:  # all its time was silence
            self._silence, self._kept_at = self._before
        if delivery.over == Over.WINDOW:
            self._came_whole(now)
            if not self._alone:  # as many as the budget will bear, if it is like this further on
                self._window *= 2
                if misses:
                    self._window = min(self._window, max(LEAST_WINDOW, new * BUDGET // misses))
            return
        self._place = None
        cause = delivery.cause
        self._remember(cause, now)
        if not self.policy.resume:
            raise cause if delivery.over == Over.DAMAGED else self._incomplete(cause)
        self._resumed(cause)
        log.info("an answer ended early, after %d of %d entries: %s", new, delivery.stop - self._began, cause)
        if delivery.over == Over.DAMAGED:
            self._on_damage(cause, now)
        elif delivery.inside and (cuts := self._again("_cut")) >= 2:
            # of an archive's member the server may know why
            self._ask_alone = cuts == 2 and delivery.entries.row(delivery.index)[3] is not None
            self._single = "" if self._ask_alone else "payload"
        elif delivery.over == Over.LOST:
            self._back_off(now, BACKOFF)
        elif misses >= BUDGET:
            self._window = max(LEAST_WINDOW, new * BUDGET // misses)
        else:
            # why it stopped here is only told to who asks for this entry alone, and for a buffered answer
            self._ask_alone = self._again("_stuck") >= (2 if self._coer else 1) and not self._alone
            if not self._ask_alone:
                self._back_off(now, BACKOFF)

    def _came_whole(self, now: float) -> None:
        """An answer has brought all that it was asked for."""
        view = self.view
        view.worked(self._host)
        view.took(now - self._asked_at)
        place = None if self._buffered or self._aside or view.targets <= 1 else self._place
        if place is not None and view.tails.ended(place, self._latest_wait, self._tail):
            view.tails.learn(place, self.delivery.entries, self.delivery.latest_sizes())
        if self._troubled:
            view.recovered()
            self._troubled = False

    def _remember(self, error: AISError, now: float) -> None:
        """What failed last, and which target was silent. A try cut by our own limit tells less than the one before."""
        silent = isinstance(error, AISTimeoutError)
        if silent and self._host and not self._buffered:
            self.view.stalled(self._host, now + self.away)
        if not (silent and self._last and now >= self._until()):
            self._last = error

    def _on_damage(self, cause: WireError, now: float) -> None:
        """Bytes were wrong. Once may be chance; the same again is not."""
        if self.delivery.wrong_range:
            self._single = "payload"
        elif self._same_damage(cause):
            raise cause
        else:
            self._back_off(now, BACKOFF)

    def _leave_answer(self) -> None:
        """Nothing more is wanted of the answer under way."""
        if self._asking:
            self._asking = False
            events.emit("ended", self.number, self.delivery, why="it was left: its rest comes another way, or later")
            if self.delivery.index == self._began:
                self._silence, self._kept_at = self._before
            self.delivery.abandon()

    def _again(self, name: str) -> int:
        """How often in a row this has happened at the entry at hand."""
        index, times = getattr(self, name)
        times = times + 1 if index == self.delivery.index else 1
        setattr(self, name, (self.delivery.index, times))
        return int(times)

    def _retried(self, why: AISError | str) -> None:
        """A request failed, and is sent again."""
        self.stats.retries += 1
        events.emit("retried", self.number, self.delivery, why=why)

    def _resumed(self, why: AISError) -> None:
        """An answer, or a refusal of some entries, left a rest, which is asked for."""
        self.stats.resumes += 1
        events.emit("resumed", self.number, self.delivery, why=why)

    def _same_damage(self, error: WireError) -> bool:
        kind = re.sub(r"\d", "", f"{error.layer}: {error.expected}")  # a checksum changes with the access time
        before, self._damage = self._damage, (self.delivery.index, kind)
        return before == self._damage

    # ------------------------------------------------------------------------------------------------ entries not there

    def _on_miss(self, now: float) -> Step:
        """The answer reports the entry at hand missing, and it may be there."""
        delivery = self.delivery
        if not self.policy.get_missing:
            self._missing(delivery.err_msg or "", now)
            return Wait(now)
        self._recent.append(delivery.index)
        seen = delivery.index - self._recent[0] + 1
        if len(self._recent) == DENSE and seen <= 2 * DENSE and delivery.index != self._absent:
            cold = delivery.index < 2 * DENSE  # most of the first entries: the rest will be so too
            self._by_gets = delivery.count if cold else min(delivery.count, delivery.index + STOCK)
            log.info("%d of %d entries are missing: object GETs get the next ones", DENSE, seen)
            self._leave_answer()
            return Wait(now)
        return Single("payload", delivery.index, self._limit(now))

    def _take_stock(self, now: float, limit: float) -> Step:
        """Hand over what object GETs have brought, in order."""
        index = self.delivery.index
        if index not in self._stock:
            stop = min(self._by_gets, index + STOCK)
            return Several([i for i in range(index, stop) if i not in self._stock], limit)
        value = self._stock.pop(index)
        if isinstance(value, AISError):
            self.on_single_failed("payload", value, now)
        else:
            self.on_single("payload", value, now)
        return Wait(now)

    def _missing(self, reason: str, now: float, index: int = -1) -> None:
        """The entry at hand (or the one at `index`) does not exist, or is out of reach.

        Raises:
            ErrObjNotFound: That is an error.
        """
        delivery = self.delivery
        lost = self.view.lost_targets
        if self.policy.resume and (self.view.worth_waiting or (self._fewer and not lost)):
            self._waiting = lost  # for the target that may hold it; else it has come back
            self._window = min(self._window, AWAITED)
            self._stock = {i: found for i, found in self._stock.items() if not isinstance(found, AISError)}
            self._leave_answer()
            self._back_off(now, CONFLICT_BACKOFF)
            return
        if self.view.lost_targets:
            reason = f"{reason}; the cluster has lost targets: the entry may only be out of reach"
        if delivery.missing_raises and (delivery.form != Form.COLUMNS or index >= 0):  # `fill` names all of them
            error = delivery.missing_error(reason, index)
            error.req_url = error.req_url or (self._last.req_url if self._last else "")
            raise error
        if delivery.want == Want.MISS:
            delivery.settle(err_msg=reason)
        else:
            delivery.supply_missing(reason)

    # ------------------------------------------------------------------------------------------------- entries at fault

    def _verdict(self, error: AISError) -> Verdict:
        """What an error answer means. What makes an entry suspect tells at the second time that it is at fault."""
        verdict = verdict_of(error)
        if verdict is Verdict.SUSPECT:
            text = re.sub(r"\S*\d\S*", "", parse_error_body(error.message)["message"])  # but for ids and addresses
            before, self._refusal = self._refusal, (self.delivery.index, text)
            if before == self._refusal:
                return Verdict.UNREADABLE
        return verdict

    def _on_entry_refused(self, verdict: Verdict, error: AISError, now: float) -> None:
        """The request was refused for one or more of its entries."""
        delivery = self.delivery
        text = parse_error_body(error.message)["message"]
        count = delivery.stop - delivery.index
        at = self._named(text) if verdict is Verdict.MISSING else -1
        if count == 1 and self._buffered and (self.policy.resume or delivery.count == 1):
            if verdict is Verdict.RANGE:
                self._out_of_range(text, error)
            elif verdict is Verdict.UNREADABLE:
                self._unreadable(error)
            elif at == delivery.index:
                self._missing(text, now)  # the one at hand
            else:
                raise self._given_up(error)
        elif verdict is Verdict.MISSING and delivery.missing_raises and at >= 0:
            self._missing(text, now, at)
        elif self.policy.resume and self._buffered:
            self._window = count // 2
            self._resumed(error)
        elif self.policy.resume:
            self._ask_alone = True
            self._resumed(error)
        else:
            raise self._given_up(error)

    def _named(self, text: str) -> int:
        """Index of the entry asked for that a target's text names, or -1."""
        delivery = self.delivery
        for i in range(delivery.index, delivery.stop):
            name, bucket, _, archpath = delivery.entries.row(i)[:4]
            bucket = bucket or delivery.entries.bucket or ""
            place, member = f"{bucket}/{name}", (archpath or "").lstrip("/")
            whole = f"{member} in " in text if archpath and " in " in text else True  # else the archive itself is meant
            if (f"{place} " in text and whole) or (member and f"{place}/{member} " in text):
                return i
        return -1

    def _unreadable(self, error: AISError) -> None:
        delivery = self.delivery
        text = parse_error_body(error.message)["message"]
        if delivery.missing_raises:
            error.message = f"{delivery.entries.describe(delivery.index)} cannot be read: {text}"
            error.remedy = "the object is damaged, or no archive: put it again, or take it as an item (missing='mark')"
            raise error
        self._leave_answer()
        delivery.supply_missing(text)

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

    def note(self, now: float) -> None:
        """Count the silence since the latest kept byte, if one has come."""
        delivery = self.delivery
        kept = delivery.kept_bytes
        if delivery.index != self._verified:
            self._waiting = False
        if kept > self._kept or delivery.index != self._verified:
            self._latest_wait = now - self._kept_at
            if self._latest_wait >= SILENCE:
                self._silence += self._latest_wait
            self._kept_at = now
        self._kept = kept
        self._verified = delivery.index

    def _until(self) -> float:
        """When patience or deadline will be spent."""
        until = self._patient_until()
        if self.policy.deadline is None:
            return until
        assert self._start is not None
        return min(until, self._start + self.policy.deadline)

    def _patient_until(self) -> float:
        return self._kept_at + max(SILENCE, self.policy.patience - self._silence)

    def _limit(self, now: float) -> float:
        """When patience or deadline will be spent.

        Raises:
            AISError: They are.
        """
        if self._waiting and now >= self._patient_until():
            log.warning("the cluster has lost targets and patience is spent: entries they held count as missing")
            self.view.give_up_waiting()
            self._waiting = False
            self._silence, self._kept_at = 0.0, now
            self._not_before, self._failures = now, 0
        until = self._until()
        if now >= until:
            cause = self._last
            if cause is None or isinstance(cause, ErrObjNotFound | ErrRangeNotSatisfiable):  # one that was not final
                cause = AISTimeoutError(0, "no answer came in time", self.delivery.url)
                cause.__cause__ = self._last
            raise self._incomplete(cause) if self._accepted else cause
        return until

    def _share(self, now: float) -> float:
        """Until when the answer under way may be silent.

        Raises:
            AISError: Patience or deadline are spent.
        """
        limit = self._limit(now)
        since = self._kept_at if self._kept_at > self._asked_at else self._asked_at
        share = (SHARE_BUFFERED if self._buffered else SHARE) * (self._patient_until() - since)
        if share > PROBE and not self._buffered and self.view.targets > 1 and self.view.suspect(self._host):
            share = PROBE
        until = since + (share if share > SILENCE else SILENCE)
        return until if until < limit else limit

    def _back_off(self, now: float, base: float) -> None:
        """Wait for the turn of this call before the next request, and while there is still time for one."""
        turn = self.view.turn(now + self.away, base, self._rng) - self.away
        self._not_before = min(turn, now + max(SILENCE, (self._until() - now) / 2))
        self._failures += 1
        self._recoveries = self.view.recoveries
        self._troubled = True

    # ---------------------------------------------------------------------------------------------------------- the end

    def _given_up(self, cause: AISError) -> AISError:
        """The exception for a batch that this failure ends."""
        if isinstance(cause, ErrObjNotFound | ErrRangeNotSatisfiable | WireError):
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
            attempts=self.stats.requests,
            _rest=self._rest(delivery.entries.subset(missing)),
        )
        error.__cause__ = cause
        return error
