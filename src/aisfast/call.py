"""One batch on its way: asks the endpoint, follows the redirect, reads until the Delivery has what it wants.

A `Call` carries out what its `Resume` decides, as a generator of what it waits for: it never blocks by itself.
`blocking.py` waits for one, `pipeline.py` for many at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from aisfast import events
from aisfast._decode import parse_head
from aisfast._delivery import Delivery, Want
from aisfast.errors import (
    NO_GATEWAY,
    AISConnectionError,
    AISError,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    LimitError,
    SentRequest,
    WireError,
    error_from_answer,
    hide,
    redact,
)
from aisfast.exchange import Exchange, StaleConnection, framing_of, keeps_alive
from aisfast.resume import Ask, Read, Resume, Several, Single, Wait
from aisfast.session import origin_of
from aisfast.settings import MAX_ERROR_BODY, MAX_HEAD, MAX_REDIRECTS
from aisfast.transport import Transport, place_of

if TYPE_CHECKING:
    from aisfast._decode import Head
    from aisfast.blackbox import Record
    from aisfast.singles import Singles

REDIRECTS = (301, 302, 307, 308)


class NoRoom(Exception):
    """Thrown into a call that waits for its connection: there is no room for what would come."""


class Parked:
    """A call that was put off: it goes on when there is room."""


# What a call waits for: a connection (see `Exchange`), a time (monotonic seconds), the result of a call that blocks,
# room, or, None, for somebody to take what has come.
Need = Exchange | float | Callable[[], Any] | Parked | None
Steps = Generator[Need, Any, Any]
PARKED = Parked()
LOOK = 0.05  # seconds for which reads go on without a look at all else
BYTES = int(Want.BYTES)


class Call:
    """One batch on its way.

    Args:
        path: Below `/v1/`, with its query.
        path_aside: The same without the batch's bucket, if its entries name theirs: there another job serves.
        singles: Makes what gets single entries, when one has to be got so.
    Attributes:
        over: It was finished, or closed.
        most: Bytes that may be received; None: no limit.
    """

    most: int | None = None

    _exchange: Exchange | None = None
    _keep = False  # the connection may be used after this answer
    _record: Record | None = None  # of the latest answer, with AISFAST_BLACKBOX
    _accepted = False
    _asked_at = 0.0
    _away = 0.0  # what the consumer took, until the latest step
    _back_at = 0.0  # when it came back, last

    def __init__(
        self,
        transport: Transport,
        delivery: Delivery,
        resume: Resume,
        path: str,
        path_aside: str,
        singles: Callable[[], Singles],
    ) -> None:
        self.transport = transport
        self.session = transport.session
        self.delivery = delivery
        self.resume = resume
        self._new_singles = singles
        self.stats = resume.stats
        self._path, self._path_aside = path, path_aside
        self._url = ""
        self._began = monotonic()
        self.over = False
        if events.listeners:
            self._tell("begun")

    @cached_property
    def singles(self) -> Singles:
        """Gets entries one by one."""
        return self._new_singles()

    @property
    def begun(self) -> bool:
        """The request was accepted, or its first entry is here in another way."""
        return self._accepted or self.delivery.supplied

    def was_away(self, seconds: float, now: float) -> None:
        """Nobody waited for us for so long: it is no time of ours."""
        self._away += seconds
        self._back_at = now
        self.resume.away = self._away

    def finish(self) -> None:
        """The batch is whole."""
        self.resume.next(self._now())
        self.transport.view.entry_bytes = self.delivery.payload_bytes / self.delivery.count
        self._end_answer()
        self._count("whole")

    def close(self, error: BaseException | None = None) -> None:
        """Give up: the connection is closed.

        Args:
            error: Why, if it failed.
        """
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self.transport.discard(exchange)
        record, self._record = self._record, None
        wire = error.__cause__ if isinstance(error, IncompleteBatchError) else error
        if record is not None and isinstance(error, AISError) and isinstance(wire, WireError):
            record.write(wire, error, self.session.token)
        self._count("failed" if error is not None else "closed", error)

    # ----------------------------------------------------------------------------------------------------------- steps

    def _now(self) -> float:
        """The clock of `Resume`, which stands still while the consumer works."""
        return monotonic() - self._away

    def steps(self) -> Steps:
        """To be resumed when what it waits for is there.

        Raises:
            AISError: The batch cannot be made whole.
        """
        while True:
            try:
                yield from self._carry_out()
                return
            except NoRoom:
                self.resume.on_put_off()
                self._end_answer()
                yield PARKED

    def _carry_out(self) -> Steps:
        """Do what `Resume` decides."""
        resume, view = self.resume, self.transport.view
        while not self.over:
            if self._exchange is None and view.full:
                self.transport.sweep()
            step = resume.next(self._now())
            if type(step) is Read:
                yield from self._read(step.until)
                continue
            if self._exchange is not None and self.delivery.want == Want.ANSWER:
                self._end_answer()
            if type(step) is Wait:
                if step.until > self._now():
                    yield step.until + self._away
            elif type(step) is Ask:
                yield from self._send(step)
            elif type(step) is Single:
                yield from self._single(step)
            elif type(step) is Several:
                self.stats.singles += len(step.entries)
                found = yield partial(self.singles.several, step.entries, step.until + self._away)
                resume.on_several(found)
            else:
                return
            yield None

    def _read(self, until: float) -> Steps:
        """Read on while nothing but bytes is wanted; now and then `Resume` is asked again whether that is so."""
        exchange, delivery, resume = self._exchange, self.delivery, self.resume
        assert exchange is not None
        low_water = resume.policy.low_water
        began = monotonic()
        look = min(began - self._away + LOOK, until)
        while True:
            try:
                if exchange.expect(until + self._away, delivery.due if low_water else 0):
                    yield exchange
                while True:
                    with delivery.get_buffer() as buffer:
                        n = self._receive(exchange, buffer)
                    if n >= 0:
                        break
                    yield exchange
            except OSError as error:
                delivery.on_error(self._failure(error, delivery.url, exchange.limit))
                n = 0
            else:
                if n:
                    now = monotonic()
                    delivery.commit(n, now, 0, now - max(began, self._back_at))
                else:
                    delivery.on_eof()
            yield None
            began = monotonic()
            now = began - self._away
            if not n or now >= look or delivery.want != BYTES or delivery.index == delivery.count or self.over:
                return
            resume.note(now)

    def _receive(self, exchange: Exchange, buffer: memoryview) -> int:
        """What has come, as `Exchange.receive`, and as far as there is room."""
        if self.most is None:
            return exchange.receive(buffer)
        if self.most <= 0:
            exchange.wake = 0.0  # not for long: whose room it is will see to it
            return -1
        n = exchange.receive(buffer[: self.most])
        self.most -= max(0, n)
        return n

    def _wait_and_receive(self, exchange: Exchange, buffer: memoryview, until: float) -> Steps:
        """One read: how many bytes it brought; 0: the connection has ended. An OSError is the caller's."""
        if exchange.expect(until):
            yield exchange
        while (n := self._receive(exchange, buffer)) < 0:
            yield exchange
        return n

    def _single(self, step: Single) -> Steps:
        self.stats.singles += 1
        ask = self.singles.size if step.kind == "size" else self.singles.payload
        try:
            value = yield partial(ask, step.entry, step.until + self._away)
        except AISError as error:
            self.resume.on_single_failed(step.kind, error, self._now())
        else:
            self.resume.on_single(step.kind, value, self._now())

    def _end_answer(self) -> None:
        """The answer under way brings nothing more: its connection drains, if it ended well, or is closed."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        delivery = self.delivery
        if self._keep and (delivery.index == delivery.count or delivery.drains):
            self.transport.drain(exchange, delivery.leftover())
        else:
            self.transport.discard(exchange)

    # ---------------------------------------------------------------------------------------------------------- asking

    def _send(self, ask: Ask) -> Steps:
        """Carry out a request."""
        self._url = f"{self.session.settings.endpoint}/v1/{self._path_aside if ask.aside else self._path}"
        self._asked_at = monotonic()
        self.delivery.begin(ask.streaming, ask.stop, self._asked_at, ask.extra)
        try:
            yield from self._reach(ask.body, ask.until + self._away)
        except AISError as error:
            if error.status_code >= 400:
                self.resume.on_refused(error, self._now())
            else:
                self.resume.on_lost(error, self._now())
        else:
            self._accepted = True
            self.transport.accepted()
            self.resume.on_accepted()

    def _reach(self, body: bytes, until: float) -> Steps:
        """To a 200: on new connections if a kept one had died, with a new token if the old one had expired."""
        kept = may_renew = True
        while True:
            try:
                yield from self._follow(body, until, kept)
                return
            except StaleConnection:
                self.stats.reconnects += 1
                kept = False
            except AISError as error:
                if error.status_code != 401 or not may_renew or not self.session.reload_token():
                    raise
                may_renew, kept = False, True

    def _follow(self, body: bytes, until: float, kept: bool) -> Steps:
        """From the endpoint through its redirect to a 200."""
        resume, stats = self.resume, self.stats
        url, place, hops = self._url, place_of(self._url), 0
        while hops <= MAX_REDIRECTS:
            hops += 1
            head = yield from self._leg(url, place, body, until, kept)
            if head is None:
                return
            stats.redirects += 1
            url, place = self.transport.follow(url, head.headers.get("location"), resume.policy.redirect_hosts)
            targets = targets_of(url)
            stats.targets = max(stats.targets, targets)
            now = self._now()
            resume.on_redirect(targets, now)
            wait = resume.follows(place, now)
            if wait is None:
                url, place, hops = self._url, place_of(self._url), 0
            else:
                until = wait + self._away
        raise AISConnectionError(
            0,
            f"more than {MAX_REDIRECTS} redirects, the last to {origin_of(url)}",
            self._url,
            kind="redirect",
            remedy="check the addresses in the cluster map (`aisfast doctor`)",
        )

    def _leg(self, url: str, place: str, body: bytes, until: float, kept: bool) -> Steps:
        """One request. None: a 200, whose body is the delivery's; else a redirect's head, its connection given back."""
        transport, session = self.transport, self.session
        host = transport.host(place)
        exchange = transport.kept(host) if kept else None
        if exchange is None:
            exchange = yield partial(transport.open, host, self.stats)
        directory = session.settings.blackbox
        if directory is not None:
            from aisfast.blackbox import Record

            self._record = exchange.record = Record(directory, self._url, url, body, self.delivery.index)
        if events.listeners:
            self._tell("sent", url)
        try:
            request = host.request(url, body, session.token if host.is_endpoint else None, exchange.absolute)
            broken: OSError | None = None
            try:
                sent = exchange.send(request, until)
                while sent < len(request):
                    n = exchange.send(memoryview(request)[sent:], until)
                    sent += n
                    if not n:
                        yield exchange
            except OSError as error:  # refused before all was sent? then an answer may be there
                broken = error
            with self.delivery.get_buffer() as buffer:
                try:
                    head, filled = yield from self._head(exchange, buffer, until)
                except AISError:  # some are OSErrors
                    raise
                except OSError as error:
                    raise self._failure(broken or error, url, exchange.limit) from error
                first = bytes(buffer[head.size : filled]) if head.status != 200 else b""
            if events.listeners:
                self._tell("answered", url, head.status)
            if head.status == 200:
                now = monotonic()
                self.delivery.on_head(head, framing_of(head), url, now)
                self.delivery.commit(filled, now, head.size, now - max(self._asked_at, self._back_at))
                self._exchange = exchange
                self._keep = keeps_alive(head) and broken is None
                return None
            text, whole = yield from self._small(exchange, head, first, url, until)
        except BaseException as caught:
            exchange.close()
            if isinstance(caught, AISError) and not caught.req_url:
                caught.req_url = url
            if isinstance(caught, WireError):
                hide(caught, session.token)
            raise
        if whole and keeps_alive(head) and broken is None:
            transport.release(exchange)
        else:
            exchange.close()
        if head.status in REDIRECTS:
            return head
        if head.status >= 400:
            refusal = error_from_answer(head.status, text, SentRequest("GET", url, {}), session.token)
            if isinstance(refusal, ErrRangeNotSatisfiable):
                refusal.entry = self._out_of_range(refusal.message)
                refusal.remedy = f"{refusal.remedy}: {refusal.entry}" if refusal.entry else refusal.remedy
            raise refusal
        raise WireError(
            head.status,
            f"a GetBatch request is answered with status {head.status} {redact(head.reason, session.token)}",
            url,
            layer="http",
            expected="200",
            found=str(head.status),
            remedy=NO_GATEWAY,
        )

    def _head(self, exchange: Exchange, buffer: memoryview, until: float) -> Steps:
        """Read into `buffer` until it holds a final response head: that, and the bytes read.

        Raises:
            OSError: The read failed.
            StaleConnection: A kept connection ended before the first byte.
            AISConnectionError, WireError: It ended later, or does not speak HTTP.
        """
        filled = interim = 0
        while True:
            try:
                n = yield from self._wait_and_receive(exchange, buffer[filled:], until)
            except ConnectionError:
                if not filled and not exchange.fresh:
                    raise StaleConnection from None
                raise
            if not n:
                if not filled and not exchange.fresh:
                    raise StaleConnection
                raise ConnectionResetError("closed without an answer")
            filled += n
            head = parse_head(buffer[:filled])
            while head is not None and 100 <= head.status < 200:  # an interim answer: the final one follows
                interim += head.size
                if interim > MAX_HEAD:
                    raise LimitError(0, f"interim answers of more than {MAX_HEAD} bytes", layer="http", offset=interim)
                rest = bytes(buffer[head.size : filled])
                filled = len(rest)
                buffer[:filled] = rest
                head = parse_head(rest)
            if head is not None:
                return head, filled
            if filled >= min(len(buffer), MAX_HEAD):
                raise LimitError(0, f"the response head is longer than {MAX_HEAD} bytes", layer="http", offset=filled)

    def _small(self, exchange: Exchange, head: Head, first: bytes, url: str, until: float) -> Steps:
        """The body of a redirect or an error, and whether it came whole."""
        framing = framing_of(head)
        body = bytearray(framing.feed(first))
        if not framing.done:
            scratch = memoryview(bytearray(16384))
            while not framing.done and len(body) <= MAX_ERROR_BODY:
                try:
                    n = yield from self._wait_and_receive(exchange, scratch, until)
                except OSError as error:
                    raise self._failure(error, url, exchange.limit) from error
                if not n:
                    break
                body += framing.feed(scratch[:n])
        return bytes(body[:MAX_ERROR_BODY]).decode("utf-8", "replace"), framing.done and not framing.excess

    def _out_of_range(self, text: str) -> str:
        """The entries that a server's complaint about a range may mean: it names the range, not the entry."""
        named = re.search(r"start=(\d+)(?:,length=(-?\d+))?", text)
        if named is None:
            return ""
        entries = self.delivery.entries
        asked = (int(named[1]), int(named[2] or -1))
        return "; ".join(entries.describe(i) for i in range(len(entries)) if entries.row(i)[5:7] == asked)

    def _failure(self, error: OSError, url: str, waited: float) -> AISError:
        return self.session.failure(error, url, "GET", waited)

    def _tell(self, kind: str, url: str = "", status: int = 0, why: BaseException | None = None) -> None:
        """Tell who listens to `aisfast.events`."""
        events.emit(kind, self.resume.number, self.delivery, url, status, why)

    def _count(self, how: str, error: BaseException | None = None) -> None:
        """The call is over: its counts join the client's."""
        if self.over:
            return
        self.over = True
        self.resume.end()
        stats, delivery = self.stats, self.delivery
        stats.wall = monotonic() - self._began
        stats.members = delivery.index
        stats.misses = delivery.misses
        stats.payload_bytes = delivery.payload_bytes
        stats.wire_bytes = delivery.wire_bytes
        stats.bytes_copied = delivery.bytes_copied
        stats.reads = delivery.reads
        self.transport.add_stats(stats)
        if events.listeners:
            self._tell(how, why=error)


def targets_of(location: str) -> int:
    """How many targets a GetBatch redirect tells of: the last item of its path; 0 if it tells nothing."""
    count = location.partition("?")[0].rpartition("/")[2]
    return int(count) if count.isdecimal() and len(count) < 7 else 0
