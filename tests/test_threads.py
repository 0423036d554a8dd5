"""One client, many threads: a batch belongs to one thread at a time, all else is shared.

A second thread inside `get()`, `stream()` or a pipeline, and a stream that another thread closes: test_batch.py and
test_pipeline.py.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import aisfast
from aisfast import events

THREADS = 16
ROUNDS = 4
PATIENT = 60  # seconds
WAYS = ("get", "stream", "fetch", "pipeline")
DATA = {f"o{i}": random.Random(i).randbytes(1 + 997 * i) for i in range(60)}


@pytest.fixture
def cluster(ais_cluster):
    for name, data in DATA.items():
        ais_cluster.put("b", name, data)
    return ais_cluster


@pytest.fixture
def client(cluster):
    with aisfast.Client(cluster.endpoint) as client:
        yield client


def in_threads(work: Callable[[int], object]) -> list[object]:
    """What `work(number)` returns in each of the threads, all of which begin at once."""
    together = threading.Barrier(THREADS, timeout=PATIENT)

    def run(number: int) -> object:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS), timeout=PATIENT))


def take(client: aisfast.Client, way: str, names: list[str]) -> list[bytes]:
    bucket = client.bucket("b")
    if way == "pipeline":
        halves = [names[: len(names) // 2], names[len(names) // 2 :]]
        return [bytes(item) for columns in client.pipeline(halves, bucket=bucket) for item in columns]
    batch = client.batch(names, bucket=bucket)
    if way == "get":
        return [data for _, data in batch.get()]
    return [bytes(item) for item in getattr(batch, way)()]


def mixed(client: aisfast.Client, number: int) -> int:
    """Batches of one thread, each another way, each of its own entries; returns how many entries came."""
    draw, count = random.Random(number), 0
    for turn in range(ROUNDS):
        names = draw.sample(list(DATA), draw.randint(2, 40))
        assert take(client, WAYS[(number + turn) % 4], names) == [DATA[name] for name in names]
        count += len(names)
    return count


def test_a_shared_client(client):
    counts = in_threads(lambda number: mixed(client, number))
    stats = client.stats
    assert stats.members == sum(counts)
    assert stats.requests == THREADS * (ROUNDS + 1) + stats.resumes + stats.retries  # one way in four sends two
    assert stats.connections < stats.requests + stats.redirects  # they were shared


def test_faults_stay_with_their_batches(client, cluster):
    cluster.faults.add("short", entry=1, times=10)
    cluster.faults.add("error", kind="busy", times=10)
    in_threads(lambda number: mixed(client, number))
    assert (client.stats.resumes, client.stats.throttled) == (10, 10)


def test_errors_stay_with_their_threads(client):
    def work(number: int) -> str:
        bucket = client.bucket("b" if number % 2 else f"nowhere{number}")
        try:
            return str(len(client.batch(list(DATA), bucket=bucket).fetch()))
        except aisfast.ErrBckNotFound as error:
            return error.message

    for number, outcome in enumerate(in_threads(work)):
        assert outcome == "60" if number % 2 else f"nowhere{number}" in str(outcome)


def test_a_client_closed_while_others_use_it(client):
    """Its idle connections close; who fetches is not disturbed, and opens new ones."""
    over = threading.Event()

    def close() -> None:
        while not over.is_set():
            client.close()

    closer = threading.Thread(target=close)
    closer.start()
    try:
        in_threads(lambda number: mixed(client, number))
    finally:
        over.set()
        closer.join()
    assert take(client, "fetch", list(DATA)) == list(DATA.values())


@pytest.mark.parametrize("way", ["get", "stream"])
def test_an_iterator_handed_on(client, way):
    """One thread after the other takes an item of the same batch."""
    items = getattr(client.batch(list(DATA), bucket=client.bucket("b")), way)()
    got: list[bytes] = []

    def work() -> None:
        item = next(items)
        got.append(bytes(item[1] if way == "get" else item))

    for _ in DATA:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert got == list(DATA.values())
    assert next(items, None) is None


def test_a_pipeline_is_not_closed_under_its_reader(client):
    """Another thread's `close` raises; the reader goes on."""
    outcomes: list[str] = []

    def close() -> None:
        try:
            pipeline.close()
        except RuntimeError as error:
            outcomes.append(str(error))

    def progress(_: int) -> None:  # the reader is inside
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()

    names = list(DATA)
    pipeline = client.pipeline([names] * 3, bucket=client.bucket("b"), progress=progress)
    assert [[bytes(item) for item in columns] for columns in pipeline] == [list(DATA.values())] * 3
    assert outcomes == ["another thread is reading this pipeline"] * 3
    close()  # nobody reads it any more
    assert len(outcomes) == 3


def test_items_read_and_dropped_by_many_threads(client):
    """Views of one batch, whose memory goes back from whichever thread drops the last one."""
    for _ in range(ROUNDS):
        items = list(client.batch(list(DATA), bucket=client.bucket("b")).stream())
        share = [items[number::THREADS] for number in range(THREADS)]
        del items

        def work(number: int, share=share) -> None:
            mine, share[number] = share[number], []
            while mine:
                item = mine.pop()
                assert bytes(item.data) == DATA[item.name]

        in_threads(work)


def test_events_tell_each_batch_in_order(client):
    told: dict[int, list[events.Event]] = defaultdict(list)
    with events.subscribe(lambda event: told[event.call].append(event)):
        counts = in_threads(lambda number: mixed(client, number))
    assert len(told) == THREADS * (ROUNDS + 1)
    assert {(each[0].kind, each[-1].kind) for each in told.values()} == {("begun", "whole")}
    assert sum(each[-1].entries for each in told.values()) == sum(map(int, counts))
