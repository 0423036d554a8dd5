"""The blocking shell: moves bytes between sockets and a `Delivery`, and carries out what its `Resume` decides.

    Transport    one per client: its hosts, their idle and draining connections
    Call         one batch: asks the endpoint, follows the redirect, reads until the Delivery has what it wants
"""

from __future__ import annotations

import os
import random
import re
import threading
import weakref
from collections.abc import Iterable
from time import monotonic, sleep
from typing import TYPE_CHECKING

from aisfast._delivery import Delivery, Trail, Want
from aisfast.errors import (
    NO_GATEWAY,
    AISConnectionError,
    AISError,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    SentRequest,
    WireError,
    error_from_answer,
)
from aisfast.exchange import Exchange, Host, StaleConnection, framing_of, keeps_alive
from aisfast.resume import Ask, Read, Resume, Several, Single, Wait
from aisfast.session import Session, origin_of
from aisfast.settings import MAX_DRAINING, MAX_ERROR_BODY, MAX_REDIRECTS
from aisfast.stats import Stats
from aisfast.view import ClusterView

if TYPE_CHECKING:
    from aisfast._decode import Head
    from aisfast.blackbox import Record
    from aisfast.singles import Singles

REDIRECTS = (301, 302, 307, 308)
WAKE = 0.1  # seconds


class Transport:
    """A client's GetBatch connections. Shared by threads; opens its own after a fork."""

    def __init__(self, session: Session, view: ClusterView | None = None) -> None:
        self.session = session
        self.view = view or ClusterView(session.settings.expect_targets)
        self.stats = Stats()
        self.rng = random.Random()
        self._lock = threading.RLock()  # a call collected as garbage may get here from inside
        self._hosts: dict[str, Host] = {}
        self._trusted: set[str] = set()
        _TRANSPORTS.add(self)

    def __del__(self) -> None:
        self.close()

    def follow(self, url: str, location: str | None, hosts: tuple[str, ...] | None) -> str:
        """Where an answer from `url` redirects to, once it is known to be a place we may go to."""
        if hosts is None and location and _place(location) in self._trusted and url[:5] == location[:5]:
            return location.partition("#")[0]
        to = self.session.follow(url, location, hosts)
        if hosts is None:
            self._trusted.add(_place(to))
        return to

    def host(self, url: str) -> Host:
        """The host of a URL that is known to be allowed."""
        place = _place(url)
        host = self._hosts.get(place)
        if host is None:
            origin = origin_of(url)
            extra = self.session.proxy_headers(*origin)
            with self._lock:
                host = self._hosts.setdefault(place, Host(origin, self.session.settings.batch_read_timeout, extra))
                host.prefix = place
        return host

    def acquire(self, host: Host, stats: Stats) -> Exchange:
        """A connection to a host, a kept one if there is one that is alive."""
        while True:
            with self._lock:
                self._sweep(host)
                exchange = host.idle.pop() if host.idle else None
            if exchange is None:
                return self.open(host, stats)
            if exchange.is_quiet():
                exchange.fresh = False
                return exchange
            exchange.close()

    def open(self, host: Host, stats: Stats) -> Exchange:
        """A new connection to a host."""
        sock, absolute = self.session.connect(*host.origin)
        stats.connections += 1
        return Exchange(host, sock, absolute)

    def release(self, exchange: Exchange) -> None:
        """Take back a connection whose answer was read to its end."""
        exchange.record = None
        with self._lock:
            if self._knows(exchange.host):
                self._keep(exchange)
            else:
                exchange.close()

    def accepted(self) -> None:
        """A batch is open at the server: it counts until `drain` or `discard`."""
        with self._lock:
            self.view.open += 1

    def drain(self, exchange: Exchange, trail: Trail) -> None:
        """Take back a batch's connection, whose answer was read but for its trail."""
        exchange.trail = trail
        exchange.record = None
        with self._lock:
            if not self._knows(exchange.host):
                exchange.close()
                self.view.open -= 1
                return
            draining = exchange.host.draining
            draining.append(exchange)
            if trail.done or trail.broken:
                self._sweep(exchange.host)
            elif len(draining) > MAX_DRAINING:
                draining.popleft().close()
                self.view.open -= 1

    def discard(self, exchange: Exchange) -> None:
        """Give up a batch's connection."""
        exchange.close()
        with self._lock:
            self.view.open -= 1

    def sweep(self) -> None:
        """See how far all draining connections are."""
        with self._lock:
            for host in self._hosts.values():
                self._sweep(host)

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            hosts, self._hosts = self._hosts, {}
            self.view.open -= sum(len(host.draining) for host in hosts.values())
        _close(hosts.values())

    def add_stats(self, stats: Stats) -> None:
        with self._lock:
            self.stats.add(stats)

    def _sweep(self, host: Host) -> None:
        """See how far the draining connections are."""
        for _ in range(len(host.draining)):
            exchange = host.draining.popleft()
            if not exchange.try_drain():
                host.draining.append(exchange)
                continue
            self.view.open -= 1
            if exchange.trail is not None and exchange.trail.done:
                self._keep(exchange)
            else:
                self.stats.unclean_ends += 1
                exchange.close()

    def _knows(self, host: Host) -> bool:
        """False: we were closed, or forked, since the host was asked for."""
        return self._hosts.get(host.prefix) is host

    def _keep(self, exchange: Exchange) -> None:
        exchange.trail = None
        idle = exchange.host.idle
        idle.append(exchange)
        if len(idle) > self.session.settings.max_pool:
            idle.pop(0).close()

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock; the connections are the parent's."""
        self._lock = threading.RLock()
        self.close()
        self.view.open = 0


_TRANSPORTS: weakref.WeakSet[Transport] = weakref.WeakSet()


def _after_fork() -> None:
    for transport in list(_TRANSPORTS):
        transport.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _place(url: str) -> str:
    """Scheme, host and port of a URL."""
    start = url.find("://") + 3
    return url[: min((end for end in (url.find(mark, start) for mark in "/?#") if end >= 0), default=len(url))]


def _close(hosts: Iterable[Host]) -> None:
    for host in hosts:
        for exchange in (*host.idle, *host.draining):
            exchange.close()


class Call:
    """One batch on its way through the blocking shell.

    Args:
        path: Below `/v1/`, with its query.
        path_aside: The same without the batch's bucket, if its entries name theirs: there another job serves.
        singles: For entries that have to be got one by one.
    """

    _exchange: Exchange | None = None
    _keep = False  # the connection may be used after this answer
    _record: Record | None = None  # of the latest answer, with AISFAST_BLACKBOX
    _over = True

    def __init__(
        self,
        transport: Transport,
        delivery: Delivery,
        resume: Resume,
        path: str,
        path_aside: str,
        singles: Singles,
    ) -> None:
        self.transport = transport
        self.session = transport.session
        self.delivery = delivery
        self.resume = resume
        self.singles = singles
        self.stats = resume.stats
        self._base = f"{self.session.settings.endpoint}/v1/"
        self._path, self._path_aside = path, path_aside
        self._url = self._base + path
        self._accepted = False
        self._asked_at = 0.0
        self._began = self._left = monotonic()
        self._away = 0.0  # what the consumer took, until the latest step
        self._over = False

    def __del__(self) -> None:
        self.close()

    def open(self) -> None:
        """Send the request and see it accepted: a 200's head is in, and bytes of its body may be.

        Raises:
            AISError: The server refused, as its answer says.
            AISConnectionError, AISTimeoutError: There was no answer.
            WireError: What answers does not speak GetBatch.
        """
        try:
            while not self._accepted and not self.delivery.supplied:
                self.pump()
        except BaseException as error:
            self.close(error)
            raise

    def pump(self, returned: bool = False) -> None:
        """One step towards the next entry.

        Args:
            returned: The caller of the iterator had control since the latest step: that time is not ours.
        Raises:
            AISError: The batch cannot be made whole.
        """
        entered = monotonic()
        if returned:
            self._away += entered - self._left
            self.resume.away = self._away
        try:
            self._step(entered - self._away)
        finally:
            self._left = monotonic()
            self.stats.wait += self._left - entered

    def finish(self) -> None:
        """The batch is whole."""
        self.resume.next(self._now())
        self.transport.view.entry_bytes = self.delivery.payload_bytes / self.delivery.count
        self._end_answer()
        self._count()

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
        self._count()

    # ----------------------------------------------------------------------------------------------------------- steps

    def _now(self) -> float:
        """The shell's clock, which stands still while the consumer works."""
        return monotonic() - self._away

    def _step(self, now: float) -> None:
        if self._over:
            raise RuntimeError("this batch is closed")
        if self._exchange is None and self.transport.view.full:
            self.transport.sweep()
        step = self.resume.next(now)
        if type(step) is Read:
            self._read(step.until + self._away)
            return
        if self._exchange is not None and self.delivery.want == Want.ANSWER:
            self._end_answer()
        if type(step) is Wait:
            self._wait(step.until)
        elif type(step) is Ask:
            self._send(step)
        elif type(step) is Single:
            self._single(step)
        elif type(step) is Several:
            self.stats.singles += len(step.entries)
            self.resume.on_several(self.singles.several(step.entries, step.until + self._away))

    def _wait(self, until: float) -> None:
        while not self._over and (left := until - self._now()) > 0:  # another thread may close us
            sleep(min(left, WAKE))

    def _read(self, until: float) -> None:
        exchange, delivery = self._exchange, self.delivery
        assert exchange is not None
        began = monotonic()
        try:
            with delivery.get_buffer() as buffer:
                n = exchange.receive(buffer, until)
        except OSError as error:
            delivery.on_error(self._failure(error, delivery.url, exchange.sock.gettimeout()))
        else:
            if n:
                now = monotonic()
                delivery.commit(n, now, 0, now - began)
            else:
                delivery.on_eof()

    def _single(self, step: Single) -> None:
        self.stats.singles += 1
        ask = self.singles.size if step.kind == "size" else self.singles.payload
        try:
            value = ask(step.entry, step.until + self._away)
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

    def _send(self, ask: Ask) -> None:
        """Carry out a request."""
        self._url = self._base + (self._path_aside if ask.aside else self._path)
        self._asked_at = monotonic()
        self.delivery.begin(ask.streaming, ask.stop, self._asked_at)
        try:
            self._reach(ask.body, ask.until + self._away)
        except AISError as error:
            if error.status_code >= 400:
                self.resume.on_refused(error, self._now())
            else:
                self.resume.on_lost(error, self._now())
        else:
            self._accepted = True
            self.transport.accepted()
            self.resume.on_accepted()

    def _reach(self, body: bytes, until: float) -> None:
        """To a 200: on new connections if a kept one had died, with a new token if the old one had expired."""
        kept = may_renew = True
        while True:
            try:
                self._follow(body, until, kept)
                return
            except StaleConnection:
                self.stats.reconnects += 1
                kept = False
            except AISError as error:
                if error.status_code != 401 or not may_renew or not self.session.reload_token():
                    raise
                may_renew, kept = False, True

    def _follow(self, body: bytes, until: float, kept: bool) -> None:
        """From the endpoint through its redirect to a 200."""
        url, hops = self._url, 0
        while hops <= MAX_REDIRECTS:
            hops += 1
            head = self._leg(url, body, until, kept)
            if head is None:
                return
            self.stats.redirects += 1
            url = self.transport.follow(url, head.headers.get("location"), self.resume.policy.redirect_hosts)
            targets = targets_of(url)
            self.stats.targets = max(self.stats.targets, targets)
            self.resume.on_redirect(targets, self._now())
            wait = self.resume.follows(_place(url), self._now())
            if wait is None:
                url, hops = self._url, 0
            else:
                until = wait + self._away
        raise AISConnectionError(
            0,
            f"more than {MAX_REDIRECTS} redirects, the last to {origin_of(url)}",
            self._url,
            kind="redirect",
            remedy="check the addresses in the cluster map (`aisfast doctor`)",
        )

    def _leg(self, url: str, body: bytes, until: float, kept: bool) -> Head | None:
        """One request. None: a 200, whose body is the delivery's; else a redirect's head, its connection given back."""
        transport = self.transport
        host = transport.host(url)
        exchange = transport.acquire(host, self.stats) if kept else transport.open(host, self.stats)
        token = self.session.token if host.origin == self.session.endpoint else None
        directory = self.session.settings.blackbox
        if directory is not None:
            from aisfast.blackbox import Record

            self._record = exchange.record = Record(directory, self._url, url, body, self.delivery.index)
        try:
            broken: OSError | None = None
            try:
                exchange.send(url, body, token, until)
            except OSError as error:  # refused before all was sent? then an answer may be there
                broken = error
            with self.delivery.get_buffer() as buffer:
                try:
                    head, filled = exchange.read_head(buffer, until)
                except AISError:  # some are OSErrors
                    raise
                except OSError as error:
                    raise self._failure(broken or error, url, exchange.sock.gettimeout()) from error
                first = bytes(buffer[head.size : filled]) if head.status != 200 else b""
            if head.status == 200:
                now = monotonic()
                self.delivery.on_head(head, framing_of(head), url, now)
                self.delivery.commit(filled, now, head.size, now - self._asked_at)
                self._exchange = exchange
                self._keep = keeps_alive(head) and broken is None
                return None
            text, whole = self._read_small(exchange, head, first, url, until)
        except BaseException as caught:
            exchange.close()
            if isinstance(caught, AISError) and not caught.req_url:
                caught.req_url = url
            raise
        if whole and keeps_alive(head) and broken is None:
            transport.release(exchange)
        else:
            exchange.close()
        if head.status in REDIRECTS:
            return head
        if head.status >= 400:
            refusal = error_from_answer(head.status, text, SentRequest("GET", url, {}), self.session.token)
            if isinstance(refusal, ErrRangeNotSatisfiable):
                refusal.entry = self._out_of_range(refusal.message)
                refusal.remedy = f"{refusal.remedy}: {refusal.entry}" if refusal.entry else refusal.remedy
            raise refusal
        raise WireError(
            head.status,
            f"a GetBatch request is answered with status {head.status} {head.reason}",
            url,
            layer="http",
            expected="200",
            found=str(head.status),
            remedy=NO_GATEWAY,
        )

    def _read_small(self, exchange: Exchange, head: Head, first: bytes, url: str, until: float) -> tuple[str, bool]:
        """The body of a redirect or an error, and whether it came whole."""
        framing = framing_of(head)
        body = bytearray(framing.feed(first))
        scratch = bytearray(16384)
        while not framing.done and len(body) <= MAX_ERROR_BODY:
            try:
                n = exchange.receive(scratch, until)
            except OSError as error:
                raise self._failure(error, url, exchange.sock.gettimeout()) from error
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

    def _failure(self, error: OSError, url: str, waited: float | None) -> AISError:
        return self.session.failure(error, url, "GET", waited)

    def _count(self) -> None:
        """The call is over: its counts join the client's."""
        if self._over:
            return
        self._over = True
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


def targets_of(location: str) -> int:
    """How many targets a GetBatch redirect tells of: the last item of its path; 0 if it tells nothing."""
    count = location.partition("?")[0].rpartition("/")[2]
    return int(count) if count.isdecimal() and len(count) < 7 else 0
