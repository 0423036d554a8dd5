"""A client's GetBatch connections: where they may lead, those that are idle, those whose last answer still drains."""

from __future__ import annotations

import os
import random
import re
import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aisfast.exchange import Exchange, Host
from aisfast.session import Session, origin_of
from aisfast.settings import MAX_DRAINING
from aisfast.stats import Stats
from aisfast.view import ClusterView

if TYPE_CHECKING:
    from aisfast._delivery import Trail

_PLACE = re.compile("[^:/?#]*://[^/?#]*")


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

    def follow(self, url: str, location: str | None, hosts: tuple[str, ...] | None) -> tuple[str, str]:
        """Where an answer from `url` redirects to, once it is known to be a place we may go to: the URL, its place."""
        if hosts is None and location and url[:5] == location[:5]:
            place = place_of(location)
            if place in self._trusted:
                return (location if "#" not in location else location.partition("#")[0]), place
        to = self.session.follow(url, location, hosts)
        place = place_of(to)
        if hosts is None:
            self._trusted.add(place)
        return to, place

    def host(self, place: str) -> Host:
        """The host at a place that is known to be allowed."""
        host = self._hosts.get(place)
        if host is None:
            session, origin = self.session, origin_of(place)
            made = Host(place, origin, session.settings.batch_read_timeout, session.proxy_headers(*origin))
            made.is_endpoint = origin == session.endpoint
            with self._lock:
                host = self._hosts.setdefault(place, made)
        return host

    def kept(self, host: Host) -> Exchange | None:
        """A kept connection to a host, if there is one that is alive."""
        while True:
            with self._lock:
                if host.draining and not host.idle:
                    self._sweep(host, enough=1)
                exchange = host.idle.pop() if host.idle else None
            if exchange is None:
                return None
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
        exchange.end()
        with self._lock:
            if not self._knows(exchange.host):
                exchange.close()
                self.view.open -= 1
                return
            draining = exchange.host.draining
            if trail.done or trail.broken:
                self._drained(exchange)
                return
            draining.append(exchange)
            if len(draining) > MAX_DRAINING:
                self._sweep(exchange.host)
            if len(draining) > MAX_DRAINING:
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

    def _sweep(self, host: Host, enough: int | None = None) -> None:
        """See how far the draining connections are, the oldest first, until there are `enough` idle ones."""
        draining, left = host.draining, []
        while draining and (enough is None or len(host.idle) < enough):
            exchange = draining.popleft()
            if exchange.try_drain():
                self._drained(exchange)
            else:
                left.append(exchange)
        draining.extendleft(reversed(left))

    def _drained(self, exchange: Exchange) -> None:
        """What was to come on it has come."""
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


def place_of(url: str) -> str:
    """Scheme, host and port of a URL."""
    found = _PLACE.match(url)
    return found[0] if found else ""


def _close(hosts: Iterable[Host]) -> None:
    for host in hosts:
        for exchange in (*host.idle, *host.draining):
            exchange.close()
