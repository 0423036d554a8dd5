"""The blocking shell: moves bytes between sockets and a `Delivery`, and decides nothing about them.

    Transport    one per client: its hosts, their idle and draining connections
    Call         one batch: asks the endpoint, follows the redirect, reads until the Delivery has what it wants
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Iterable
from time import perf_counter

from aisfast._decode import Head
from aisfast._delivery import Delivery, Trail
from aisfast.errors import NO_GATEWAY, AISError, ErrRangeNotSatisfiable, SentRequest, WireError, error_from_answer
from aisfast.exchange import Exchange, Host, StaleConnection, framing_of, keeps_alive
from aisfast.policy import Policy
from aisfast.session import Session, origin_of
from aisfast.settings import MAX_DRAINING, MAX_ERROR_BODY, MAX_REDIRECTS
from aisfast.stats import Stats

REDIRECTS = (301, 302, 307, 308)


class ClusterView:
    """What a client has seen of its cluster. Pickles with it.

    Attributes:
        targets: Most targets seen at once; 0 before the first redirect.
        entry_bytes: Mean payload of an entry in the latest whole batch; 0.0 before it.
    """

    def __init__(self, targets: int = 0) -> None:
        self.targets = targets
        self.entry_bytes = 0.0

    def saw_redirect(self, location: str) -> int:
        """Count the targets that a GetBatch redirect tells of: the last item of its path."""
        path = location.partition("?")[0]
        count = path.rpartition("/")[2]
        targets = int(count) if count.isdecimal() and len(count) < 7 else 0
        self.targets = max(self.targets, targets)
        return targets


class Transport:
    """A client's GetBatch connections. Shared by threads; opens its own after a fork."""

    def __init__(self, session: Session, view: ClusterView | None = None) -> None:
        self.session = session
        self.view = view or ClusterView(session.settings.expect_targets)
        self.stats = Stats()
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

    def release(self, exchange: Exchange, trail: Trail | None) -> None:
        """Take back a connection whose answer was read, but for its trail."""
        exchange.trail = trail
        with self._lock:
            host = exchange.host
            if self._hosts.get(host.prefix) is not host:  # closed, or forked, in between
                exchange.close()
            elif trail is None or trail.done:
                self._keep(exchange)
            elif trail.broken:
                self._drop(exchange)
            else:
                host.draining.append(exchange)
                if len(host.draining) > MAX_DRAINING:
                    host.draining.popleft().close()

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            hosts, self._hosts = self._hosts, {}
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
            elif exchange.trail is not None and exchange.trail.done:
                self._keep(exchange)
            else:
                self._drop(exchange)

    def _keep(self, exchange: Exchange) -> None:
        exchange.trail = None
        idle = exchange.host.idle
        idle.append(exchange)
        if len(idle) > self.session.settings.max_pool:
            idle.pop(0).close()

    def _drop(self, exchange: Exchange) -> None:
        self.stats.unclean_ends += 1
        exchange.close()

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock; the connections are the parent's."""
        self._lock = threading.RLock()
        self.close()


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
    """One batch on its way through the blocking shell."""

    _exchange: Exchange | None = None
    _keep = False  # the connection may be used after this answer
    _over = True

    def __init__(self, transport: Transport, delivery: Delivery, path: str, body: bytes, policy: Policy) -> None:
        self.transport = transport
        self.session = transport.session
        self.delivery = delivery
        self.policy = policy
        self.stats = Stats()
        self._url = f"{self.session.settings.endpoint}/v1/{path}"
        self._body = body
        self._began = 0.0
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
        self._began = perf_counter()
        try:
            self.delivery.sent()
            self.stats.requests += 1
            self._ask()
        except BaseException:
            self.close()
            raise
        finally:
            self.stats.wait += perf_counter() - self._began

    def pump(self) -> None:
        """One read of the answer."""
        exchange = self._exchange
        delivery = self.delivery
        if exchange is None:
            raise RuntimeError("this batch is closed")
        start = perf_counter()
        try:
            with delivery.get_buffer() as buffer:
                n = exchange.sock.recv_into(buffer)
        except OSError as error:
            delivery.on_error(self._failure(error, delivery.url))
        else:
            if n:
                delivery.commit(n)
            else:
                delivery.on_eof()
        self.stats.wait += perf_counter() - start

    def finish(self) -> None:
        """The batch is whole."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self.transport.view.entry_bytes = self.delivery.payload_bytes / self.delivery.count
            if self._keep:
                self.transport.release(exchange, self.delivery.leftover())
            else:
                exchange.close()
        self._count()

    def close(self) -> None:
        """Give up: the connection is closed."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
        self._count()

    # ---------------------------------------------------------------------------------------------------------- asking

    def _ask(self) -> None:
        """To a 200: on new connections if a kept one had died, with a new token if the old one had expired."""
        kept = may_renew = True
        while True:
            try:
                self._follow(kept)
                return
            except StaleConnection:
                self.stats.reconnects += 1
                kept = False
            except AISError as error:
                if error.status_code != 401 or not may_renew or not self.session.reload_token():
                    raise
                may_renew, kept = False, True

    def _follow(self, kept: bool) -> None:
        """From the endpoint through its redirect to a 200."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            head = self._leg(url, kept)
            if head is None:
                return
            self.stats.redirects += 1
            url = self.transport.follow(url, head.headers.get("location"), self.policy.redirect_hosts)
            self.stats.targets = max(self.stats.targets, self.transport.view.saw_redirect(url))
        raise WireError(
            0,
            f"more than {MAX_REDIRECTS} redirects, the last to {origin_of(url)}",
            self._url,
            layer="http",
            remedy="check the addresses in the cluster map (`aisfast doctor`)",
        )

    def _leg(self, url: str, kept: bool) -> Head | None:
        """One request. None: a 200, whose body is the delivery's; else a redirect's head, its connection given back."""
        transport = self.transport
        host = transport.host(url)
        exchange = transport.acquire(host, self.stats) if kept else transport.open(host, self.stats)
        token = self.session.token if host.origin == self.session.endpoint else None
        try:
            broken: OSError | None = None
            try:
                exchange.send(url, self._body, token)
            except OSError as error:  # refused before all was sent? then an answer may be there
                broken = error
            with self.delivery.get_buffer() as buffer:
                try:
                    head, filled = exchange.read_head(buffer)
                except AISError:  # some are OSErrors
                    raise
                except OSError as error:
                    raise self._failure(broken or error, url) from error
                first = bytes(buffer[head.size : filled]) if head.status != 200 else b""
            if head.status == 200:
                self.delivery.on_head(head, framing_of(head), url)
                self.delivery.commit(filled, head.size)
                self._exchange = exchange
                self._keep = keeps_alive(head) and broken is None
                return None
            text, whole = self._read_small(exchange, head, first, url)
        except BaseException as caught:
            exchange.close()
            if isinstance(caught, AISError) and not caught.req_url:
                caught.req_url = url
            raise
        if whole and keeps_alive(head) and broken is None:
            transport.release(exchange, None)
        else:
            exchange.close()
        if head.status in REDIRECTS:
            return head
        if head.status == 429:
            self.stats.throttled += 1
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

    def _read_small(self, exchange: Exchange, head: Head, first: bytes, url: str) -> tuple[str, bool]:
        """The body of a redirect or an error, and whether it came whole."""
        framing = framing_of(head)
        body = bytearray(framing.feed(first))
        scratch = bytearray(16384)
        while not framing.done and len(body) <= MAX_ERROR_BODY:
            try:
                n = exchange.sock.recv_into(scratch)
            except OSError as error:
                raise self._failure(error, url) from error
            if not n:
                break
            body += framing.feed(scratch[:n])
        return bytes(body[:MAX_ERROR_BODY]).decode("utf-8", "replace"), framing.done and not framing.excess

    def _out_of_range(self, text: str) -> str:
        """The entries that a server's complaint about a range may mean: it names the range, not the entry."""
        named = re.search(r"start=(\d+),length=(-?\d+)", text)
        if named is None:
            return ""
        entries = self.delivery.entries
        asked = (int(named[1]), int(named[2]))
        return "; ".join(entries.describe(i) for i in range(len(entries)) if entries.row(i)[5:7] == asked)

    def _failure(self, error: OSError, url: str) -> AISError:
        return self.session.failure(error, url, "GET", self.session.settings.batch_read_timeout)

    def _count(self) -> None:
        """The call is over: its counts join the client's."""
        if self._over:
            return
        self._over = True
        stats, delivery = self.stats, self.delivery
        stats.wall = perf_counter() - self._began if self._began else 0.0
        stats.members = delivery.index
        stats.misses = delivery.misses
        stats.payload_bytes = delivery.payload_bytes
        stats.wire_bytes = delivery.wire_bytes
        stats.bytes_copied = delivery.bytes_copied
        stats.reads = delivery.reads
        self.transport.add_stats(stats)
