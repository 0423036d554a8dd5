"""An AIStore-compatible cluster in one process, for tests, demos and development without a cluster.

One proxy and N targets listen on ports of their own and speak real HTTP: redirects, GetBatch in both modes, buckets,
objects and lists as the official SDK uses them. The bytes of GetBatch answers are those of a real target, but for
dates, ids and what a compressor chooses. What it does not have: jobs, ETL, cloud backends; object checksums are md5
where a real cluster has xxhash2. Nothing of the client's decoder or request writer is used.

It can also fail as a real cluster fails: see `aisfast.emulator.faults`, `Cluster.kill` and `Cluster.restore`.
"""

from __future__ import annotations

import os
import random
import threading
from types import TracebackType

from aisfast.emulator.batch import Jobs
from aisfast.emulator.faults import Faults
from aisfast.emulator.httpd import Listeners
from aisfast.emulator.proxy import Proxy
from aisfast.emulator.serve import server_main
from aisfast.emulator.smap import GLOBAL_NAMESPACE, Node, Smap
from aisfast.emulator.store import Bucket, Store, provider
from aisfast.emulator.target import Target

__all__ = ["Cluster", "server_main"]

_HOST = "127.0.0.1"
_LAST_PORT = 65535
_FIRST_ID = 51080  # node ids end in a number; it does not follow the ports, so that a seed gives the same ids each time
_ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Cluster:
    """A running cluster, as a context manager or between `start()` and `stop()`.

    Args:
        targets: Number of targets.
        tail_delay: Seconds that a target with peers waits at the end of an answer, holding back its last bytes, as a
            real one does. 0 for quick tests.
        port: Port of the proxy; the targets take the next ones, all at most 65535. 0: any free ports.
        dir: Directory in which objects live as files; None: in memory. A restarted cluster finds them again.
        token: Bearer token that the proxy demands, or None.
        tls: Paths of a certificate and its key; the cluster then speaks HTTPS.
        seed: Makes node ids, the choice of targets and job ids repeatable.
        max_wait: Seconds to wait for an entry that a peer does not send (20 on a real cluster).
        write_limit: Seconds that a client has to take what a streaming answer sends, begun anew between entries.
        death_notice: Seconds from a target's death until the cluster map loses it (30 on a real cluster).
        settle: Seconds from a target's return until it answers (2 on a real cluster).

    Attributes:
        endpoint: URL of the proxy, once started.
        faults: What is planned to go wrong: `cluster.faults.add(...)`.
        next_dt: Index of the target that answers the next GetBatch; None again after it. For tests.
    """

    def __init__(
        self,
        targets: int = 1,
        tail_delay: float = 0.1,
        *,
        port: int = 0,
        dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        tls: tuple[str, str] | None = None,
        seed: int | None = None,
        max_wait: float = 0.2,
        write_limit: float = 30.0,
        death_notice: float = 0.5,
        settle: float = 0.2,
    ):
        if targets < 1:
            raise ValueError(f"targets={targets} must be at least 1")
        if port and not 1 <= port <= _LAST_PORT - targets:
            raise ValueError(
                f"port={port} must be 1 to {_LAST_PORT - targets} with targets={targets}, which take the next ports, "
                "or 0 for any that are free"
            )
        if min(tail_delay, max_wait, death_notice, settle) < 0 or write_limit <= 0:
            raise ValueError("tail_delay, max_wait, death_notice and settle are seconds, 0 or more; write_limit more")
        self.tail_delay = tail_delay
        self.max_wait = max_wait
        self.write_limit = write_limit
        self.token = token
        self.next_dt: int | None = None
        self.random = random.Random(seed)
        self.smap = Smap(targets, self.random, _FIRST_ID, "https" if tls else "http")
        self.smap.death_notice = death_notice
        self.smap.settle = settle
        self.faults = Faults(self)
        self.jobs = [Jobs(self.new_id) for _ in self.smap.targets]
        self.store = Store(dir, self.smap)
        self._port = port
        self._tls = tls
        self._listeners: Listeners | None = None
        self._stopped = threading.Event()

    @property
    def endpoint(self) -> str:
        if not self.smap.proxy.port:
            raise RuntimeError("the cluster has not been started; use `with Cluster() as cluster:`, or call start()")
        return self.smap.proxy.url

    def start(self) -> Cluster:
        """Listen and serve. Returns once requests can be sent.

        Raises:
            OSError: A port is taken, or the directory or certificate cannot be read.
        """
        if self._listeners is not None:
            raise RuntimeError("the cluster is running")
        self._stopped.clear()
        self.smap.troubled.clear()
        self.store.load()
        listeners = Listeners(self._tls)
        try:
            self.smap.proxy.port = listeners.listen(_HOST, self._port, Proxy(self, self.smap.proxy).handle)
            for index, target in enumerate(self.smap.targets):
                port = self._port + 1 + index if self._port else 0
                target.port = listeners.listen(_HOST, port, Target(self, target, index).handle)
            listeners.start()
        except BaseException:
            listeners.stop()
            for node in (self.smap.proxy, *self.smap.targets):
                node.port = 0
            raise
        self._listeners = listeners
        return self

    def stop(self) -> None:
        """Close all connections and wait for all threads. Stored objects stay."""
        if self._listeners is not None:
            self._stopped.set()
            self._listeners.stop()
            self._listeners = None

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- for tests

    def bucket(self, name: str, *, prov: str = "ais", namespace: str = GLOBAL_NAMESPACE) -> Bucket:
        """The bucket, made if it is not there."""
        key = provider(prov), namespace, name
        return self.store.buckets.get(key) or self.store.create(name, key[0], namespace)

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Store an object without a request; creates the bucket."""
        self.bucket(bucket).put(name, bytes(data))

    def owner(self, bucket: str, name: str) -> int:
        """Index of the target that owns the object, there or not: the choice of a real cluster with these node ids."""
        return self.store.owner_of(self.bucket(bucket), name)

    def place(self, bucket: str, name: str, target: int) -> None:
        """Make a target the owner of an object, there or not, against the rule."""
        self.store.place(self.bucket(bucket), name, target)

    def kill(self, target: int) -> None:
        """As `kill -9` of a target: its connections end where they are, new ones are refused, its jobs are lost.

        For `death_notice` seconds it stays in the cluster map. Then a GetBatch for which it is chosen gets 400
        `Post "http://...": dial tcp ...: connect: connection refused` from the proxy; other answers end short before
        the first entry that lives on it, in the second half of that time after `max_wait` seconds of silence.
        Afterwards the map has a target less, and what lives on it is reported missing.

        Raises:
            ValueError: There is no such target, or it is dead already.
        """
        node = self._target(target)
        listeners = self._running()
        self.smap.kill(target)
        self.jobs[target] = Jobs(self.new_id)
        listeners.kill(node.port)

    def restore(self, target: int) -> None:
        """Start a dead target again, with all it had.

        It is in the map at once. All running answers end short, as if complete. For `settle` seconds a GetBatch for
        which it is chosen gets 503 `not ready yet`, then 409 `different Smap version`, and answers that need it end
        short. Then all is as before its death.

        Raises:
            ValueError: There is no such target, or it is not dead.
        """
        node = self._target(target)
        listeners = self._running()
        self.smap.restore(target)
        for jobs in self.jobs:
            jobs.abort("rebalance")
        listeners.revive(node.port)

    def _target(self, index: int) -> Node:
        if not 0 <= index < len(self.smap.targets):
            raise ValueError(f"there is no target {index} among {len(self.smap.targets)}")
        return self.smap.targets[index]

    def _running(self) -> Listeners:
        if self._listeners is None:
            raise RuntimeError("the cluster is not running")
        return self._listeners

    # -- for its own parts

    def new_id(self, length: int) -> str:
        """A random id."""
        return "".join(self.random.choices(_ID_LETTERS, k=length))

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond `stop`."""
        self._stopped.wait(seconds)
