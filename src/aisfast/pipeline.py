"""The shell of `Client.pipeline`: many calls at once, their results in order, in bounded memory.

One thread, the caller's, waits for all connections together. What blocks by itself (a new connection, an object GET)
goes to threads that are started when they are needed and end with the pipeline.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aisfast._delivery import Form
from aisfast.batch import Batch, missing_raises
from aisfast.call import Call, NoRoom, Parked
from aisfast.columns import Columns
from aisfast.errors import IncompleteBatchError, LimitError
from aisfast.exchange import MOST_SECONDS, Exchange, wait_for
from aisfast.stats import Stats

if TYPE_CHECKING:
    from aisfast.bucket import Bucket
    from aisfast.client import Client
    from aisfast.policy import Policy

THREADS = 8
AHEAD = 4  # times `in_flight`: batches that are open, or done and not handed over, at most
WAIT = 0.05  # seconds until a pipeline that may not send, for the cluster's load, looks again


class Flight:
    """One batch of a pipeline.

    Attributes:
        result: Its `Columns`, or the exception that stands for them, once it is over.
    """

    call: Call | None = None
    result: Columns | BaseException | None = None

    def __init__(self, batch: Batch, expected: float) -> None:
        self.batch = batch
        self.expected = expected  # bytes of payload
        self._steps: Any = None
        self._need: Any = None
        self._parked_at = 0.0

    @property
    def held(self) -> int:
        """Bytes of payload that it has received and not handed over."""
        return self.call.delivery.kept_bytes if self.call is not None else 0

    @property
    def claims(self) -> float:
        """Bytes that it has received or is about to."""
        return self.held if self.waits or self.result is not None else max(self.expected, self.held)

    @property
    def waits(self) -> bool:
        """It is to be started, again or for the first time."""
        return self.result is None and (self.call is None or type(self._need) is Parked)

    @property
    def is_open(self) -> bool:
        """It is under way."""
        return self.result is None and not self.waits

    @property
    def exchange(self) -> Exchange | None:
        """The connection that it waits for."""
        return self._need if self.result is None and type(self._need) is Exchange else None

    @property
    def wake(self) -> float:
        """When it is to go on in any case."""
        need = self._need
        if self.result is not None or self.waits:
            return float("inf")
        if type(need) is Exchange:
            return need.wake
        if type(need) is Future:
            return 0.0 if need.done() else float("inf")
        return float(need)

    def start(self, pipeline: Pipeline) -> None:
        """Ask for it, or for its rest."""
        if self.call is None:
            try:
                self.call = pipeline.call(self.batch)
            except Exception as error:  # told in its turn
                self.result = error
                return
            self._steps = self.call.steps()
        else:
            now = monotonic()
            self.call.was_away(now - self._parked_at, now)
        self._go_on(pipeline, self._steps.send, None)

    def go_on(self, pipeline: Pipeline) -> None:
        """What it waited for is there, or it is time."""
        if type(self._need) is not Future:
            self._go_on(pipeline, self._steps.send, None)
            return
        error = self._need.exception()
        if error is None:
            self._go_on(pipeline, self._steps.send, self._need.result())
        else:
            self._go_on(pipeline, self._steps.throw, error)

    def _go_on(self, pipeline: Pipeline, resume: Callable[[Any], Any], value: Any) -> None:
        call = self.call
        assert call is not None
        try:
            need = resume(value)
            while need is None or (callable(need) and pipeline.waits_for_one):
                if need is not None:
                    need = self._do(need)
                elif call.delivery.fill():
                    call.finish()
                    self._steps.close()
                    self.result = Columns.of(call.delivery, call.stats)
                    return
                else:
                    need = next(self._steps)
            self._need = pipeline.submit(need) if callable(need) else need
            if type(need) is Parked:
                self._parked_at = monotonic()
        except BaseException as error:
            self._steps.close()
            call.close(error)
            if not isinstance(error, Exception):
                raise
            if isinstance(error, IncompleteBatchError):
                error.partial = Columns.of(call.delivery, call.stats)
            self.result = error

    def _do(self, job: Callable[[], Any]) -> Any:
        """Do what blocks here and now."""
        try:
            value = job()
        except Exception as error:
            return self._steps.throw(error)
        return self._steps.send(value)

    def park(self, pipeline: Pipeline) -> None:
        """There is no room for more of it: its answer is closed, since the server cuts what is left unread. What is
        verified stays."""
        self.expected = max(self.expected, 2.0 * self.held)
        self._go_on(pipeline, self._steps.throw, NoRoom())

    def forget(self) -> None:
        """Give up the call and what it has received; an unfinished one can be started again."""
        if self.call is not None and self.result is None:
            self._steps.close()
            self.call.close()
            if type(self._need) is Future:
                self._need.add_done_callback(_close_result)
        self.call = self._need = None

    def was_away(self, seconds: float, now: float) -> None:
        """Nobody waited for it for so long."""
        if self.call is None or self.result is not None:
            return
        self.call.was_away(seconds, now)
        if type(self._need) is float:
            self._need += seconds
        elif type(self._need) is Exchange:
            self._need.until += seconds
            self._need.wake += seconds
        elif type(self._need) is Parked:
            self._parked_at += seconds


class Pipeline(Iterator[Columns]):
    """Batches fetched with several requests open at once, in order. A context manager; leaving it early closes what is
    open.

    Attributes:
        stats: What all its calls have cost so far; `wall` is the sum of theirs, `wait` the time spent waiting for any.
    """

    def __init__(
        self,
        client: Client,
        batches: Iterable[Batch | Iterable[Any]],
        *,
        bucket: Bucket | None,
        in_flight: int,
        max_bytes: int,
        missing: str,
        progress: Callable[[int], object] | None,
        policy: Policy | None,
    ) -> None:
        for name, value in (("in_flight", in_flight), ("max_bytes", max_bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"pipeline: {name}={value!r} must be a positive integer")
        if progress is not None and not callable(progress):
            raise ValueError(f"pipeline: progress={progress!r} must be callable with a number of entries")
        self._client = client
        self._batches = iter(batches)
        self._bucket = bucket
        self._in_flight = in_flight
        self._max_bytes = max_bytes
        self._strict = missing_raises(missing)
        self._progress = progress
        self._policy = policy
        self.stats = Stats()
        self._flights: deque[Flight] = deque()
        self._taken = self._handed_over = 0  # batches
        self._source_error: BaseException | None = None
        self._exhausted = False
        self._over = self._busy = False
        self._left = 0.0  # when the caller was given control
        self._pool: ThreadPoolExecutor | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None  # rung when a thread is done

    # ----------------------------------------------------------------------------------------------- towards the caller

    def __iter__(self) -> Pipeline:
        return self

    def __next__(self) -> Columns:
        """The next batch.

        Raises:
            AISError: It cannot be made whole; with what was fetched behind it, it is given up.
            LimitError: It is larger than `max_bytes`.
        """
        if self._busy:
            raise RuntimeError("another thread is reading this pipeline: it belongs to one thread at a time")
        if self._over:
            raise StopIteration
        self._busy = True
        try:
            self._come_back()
            while True:
                self._fill_up()
                if not self._flights:
                    raise self._source_error or StopIteration
                head = self._flights[0]
                if head.result is not None:
                    break
                self._turn()
            self._flights.popleft()
            self._handed_over += 1
            self._count(head)
            if isinstance(head.result, BaseException):
                raise head.result
            if self._progress is not None:
                self._progress(len(head.result))
            return head.result
        except BaseException:
            self._close()
            raise
        finally:
            self._left = monotonic()
            self._busy = False

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_bell") and not self._busy:
            self._close()

    def close(self) -> None:
        """Give up what has not been handed over: its connections are closed, its threads end."""
        if self._busy:
            raise RuntimeError("another thread is reading this pipeline")
        self._close()

    def _close(self) -> None:
        self._over = True
        while self._flights:
            self._drop(self._flights.pop())
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        bell, self._bell = self._bell, None
        for end in bell or ():
            end.close()

    # ------------------------------------------------------------------------------------------------------ the machine

    def _come_back(self) -> None:
        """The caller had control: that time is nobody's."""
        now = monotonic()
        if self._left:
            for flight in self._flights:
                flight.was_away(now - self._left, now)

    def _fill_up(self) -> None:
        """Send what may be sent: the next in order always, others while there is room for what they will bring."""
        entry_bytes = self._client.transport.view.entry_bytes
        while True:
            flight = next((flight for flight in self._flights if flight.waits), None)
            if flight is None:
                batch = self._take() if len(self._flights) < AHEAD * self._in_flight else None
                if batch is None:
                    return
                flight = Flight(batch, entry_bytes * len(batch) or self._max_bytes / self._in_flight)
                self._flights.append(flight)
            if flight is not self._flights[0] and not self._may_start(flight):
                return
            flight.start(self)
            if isinstance(flight.result, BaseException):
                self._forget_behind(flight)

    def _may_start(self, flight: Flight) -> bool:
        transport = self._client.transport
        if transport.view.full:
            transport.sweep()
        is_open = sum(one.is_open for one in self._flights)
        claimed = sum(one.claims for one in self._flights if one is not flight)
        due = max(flight.expected, flight.held)
        return not transport.view.full and is_open < self._in_flight and claimed + due <= self._max_bytes

    def _take(self) -> Batch | None:
        """The next batch of the source."""
        if self._exhausted:
            return None
        try:
            item = next(self._batches)
            batch = self._batch_of(item)
            batch._check_not_empty()
        except StopIteration:
            self._exhausted = True
            return None
        except Exception as error:  # of the caller's generator, or about what it gave: told in its turn
            self._exhausted = True
            self._source_error = error
            return None
        self._taken += 1
        return batch

    def _batch_of(self, item: Any) -> Batch:
        if isinstance(item, Batch):
            return item._copy()  # its owner may change it before it is sent, or sent again
        where = f"pipeline: batch {self._taken}"
        if isinstance(item, str | bytes | tuple | dict) or not isinstance(item, Iterable):
            raise ValueError(f"{where} ({item!r:.100}) must be a Batch, or a list of entries")
        entries = list(item)
        if all(type(entry) is str for entry in entries):
            return self._client.batch(entries, bucket=self._bucket)
        batch = self._client.batch(bucket=self._bucket)
        for entry in entries:
            try:
                if isinstance(entry, tuple):
                    self._add(batch, *entry)
                else:
                    batch.add(entry)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{where}: {entry!r:.200} is no entry: {error}; an entry is an Object, a name, or a tuple "
                    "(bucket, name[, archpath[, start, length]])"
                ) from None
        return batch

    def _add(
        self,
        batch: Batch,
        bucket: Bucket | str,
        name: str,
        archpath: str | None = None,
        start: int | None = None,
        length: int | None = None,
    ) -> None:
        place = self._client.bucket(bucket) if isinstance(bucket, str) else bucket
        batch.add(place.object(name), archpath=archpath, start=start, length=length)

    def call(self, batch: Batch) -> Call:
        """A call for a batch."""
        return batch._call(Form.COLUMNS, self._policy, strict=self._strict, coer=True)

    @property
    def waits_for_one(self) -> bool:
        """Nothing else is under way that would have to wait for what blocks."""
        return sum(flight.is_open for flight in self._flights) <= 1

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Have a thread do what blocks."""
        if self._pool is None or self._bell is None:
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            self._pool = ThreadPoolExecutor(min(THREADS, self._in_flight), "aisfast-pipeline")
        bell = self._bell[1]

        def ring(_: Future[Any]) -> None:
            with suppress(OSError):  # full: it is heard anyhow; or closed
                bell.send(b"!")

        future = self._pool.submit(job)
        future.add_done_callback(ring)
        return future

    def _turn(self) -> None:
        """Wait until something can go on, and let it."""
        flights = [flight for flight in self._flights if flight.result is None]
        now = monotonic()
        wake = min(flight.wake for flight in flights)
        if self._client.transport.view.full and any(flight.waits for flight in flights):
            wake = min(wake, now + WAIT)
        exchanges = [flight.exchange for flight in flights if flight.exchange is not None]
        ready = wait_for(exchanges, min(MOST_SECONDS, max(0.0, wake - now)), self._bell[0] if self._bell else None)
        if self._bell is not None:
            with suppress(OSError):
                while self._bell[0].recv(4096):
                    pass
        waited_from, now = now, monotonic()
        self.stats.wait += now - waited_from
        for flight in flights:
            exchange = flight.exchange
            if (exchange in ready if exchange is not None and flight.wake > now else flight.wake <= now) and (
                exchange is None or exchange.sends or self._has_room(flight)
            ):
                flight.go_on(self)
                if isinstance(flight.result, BaseException):
                    self._forget_behind(flight)
                    return

    def _has_room(self, flight: Flight) -> bool:
        """Before it reads: whether it may, and how much; else it is parked, or others make room."""
        call, head = flight.call, self._flights[0]
        assert call is not None
        room = self._max_bytes - sum(one.held for one in self._flights)
        if flight is not head:
            if head.result is None:
                room -= int(max(0.0, head.expected - head.held))
            if room <= 0:
                self.stats.put_off += 1
                flight.park(self)
                return False
        while room <= 0:
            behind = next((one for one in reversed(self._flights) if one is not head and one.held), None)
            if behind is None:
                self._drop(head)
                head.result = LimitError(
                    0,
                    f"batch {self._handed_over} has more than the {self._max_bytes} bytes that the pipeline may hold",
                    call.delivery.url,
                    layer="batch",
                    expected=f"at most {self._max_bytes}",
                    found="more",
                    remedy="raise max_bytes, or make smaller batches",
                )
                return False
            room += behind.held
            self.stats.put_off += 1
            self._drop(behind)
        call.most = room
        return True

    def _drop(self, flight: Flight) -> None:
        """Give up what it has received, and what it is receiving; it may be started again."""
        self._count(flight)
        flight.forget()
        flight.result = None

    def _forget_behind(self, failed: Flight) -> None:
        """One has failed: what is behind it will not be handed over."""
        self._exhausted = True
        while self._flights[-1] is not failed:
            self._drop(self._flights.pop())

    def _count(self, flight: Flight) -> None:
        """What its call has cost."""
        if flight.call is not None:
            self.stats.add(flight.call.stats)


def _close_result(future: Future[Any]) -> None:
    """A connection that was opened for nobody."""
    if not future.cancelled() and future.exception() is None and isinstance(future.result(), Exchange):
        future.result().close()
