"""`Client.pipeline`: many batches at once, in order, in bounded memory, and nothing left behind."""

from __future__ import annotations

import gc
import itertools
import os
import random
import sys
import threading
import time
from pathlib import Path

import pytest

import aisfast
from aisfast import Policy
from aisfast.emulator import Cluster
from aisfast.errors import AISError, ErrObjNotFound, IncompleteBatchError, LimitError
from aisfast.pipeline import Pipeline

KIB, MIB = 1 << 10, 1 << 20
SIZES = random.Random(7).choices((0, 1, 500, 1024, 3000, 10_000, 70_000, 300_000), k=120)
NAMES = [f"o{i:03}" for i in range(len(SIZES))]
DATA = {name: random.Random(name).randbytes(size) for name, size in zip(NAMES, SIZES, strict=True)}


def fill(cluster: Cluster) -> None:
    for name, data in DATA.items():
        cluster.put("b", name, data)


@pytest.fixture(scope="module")
def shared():
    with Cluster(targets=3, tail_delay=0.02) as cluster:
        fill(cluster)
        yield cluster


@pytest.fixture
def cluster():
    with Cluster(targets=3, tail_delay=0.02) as cluster:
        fill(cluster)
        yield cluster


@pytest.fixture
def client(shared):
    with aisfast.Client(shared.endpoint) as client:
        yield client


def batches(n: int, size: int = 6, seed: int = 1) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices(NAMES, k=rng.randrange(1, 2 * size)) for _ in range(n)]


def check(columns: aisfast.Columns, names: list[str]) -> None:
    assert columns.names == names
    assert [bytes(item) for item in columns] == [DATA[name] for name in names]


class Open:
    """How many requests are open at once, and what the clients hold: seen from the call that hands over."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def held(self) -> int:
        return sum(flight.held for flight in self.pipeline._flights)


# --------------------------------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize("in_flight", [1, 2, 8, 40])
def test_batches_come_in_order(client, in_flight):
    asked = batches(50)
    with client.pipeline(iter(asked), bucket=client.bucket("b"), in_flight=in_flight) as pipeline:
        for names, columns in zip(asked, pipeline, strict=True):
            check(columns, names)
        assert next(pipeline, None) is None
    stats = pipeline.stats
    assert stats.members == sum(map(len, asked))
    assert stats.requests == 50
    assert stats.payload_bytes == sum(len(DATA[name]) for names in asked for name in names)
    assert client.stats.members == stats.members


def test_kinds_of_batches_and_entries(client):
    bucket = client.bucket("b")
    batch = client.batch(NAMES[:3], bucket=bucket)
    given = [
        batch,
        [bucket.object(NAMES[3]), NAMES[4], ("b", NAMES[5]), (bucket, NAMES[6])],
        [("b", NAMES[7], None), ("b", "o004", None, 0, 0), ("b", "o000", "", None, None)],
        (name for name in NAMES[8:10]),
        [("b", name, None, 1, 2) for name in NAMES if len(DATA[name]) > 3],
    ]
    got = list(client.pipeline(given, bucket=bucket))
    check(got[0], NAMES[:3])
    check(got[1], NAMES[3:7])
    check(got[2], [NAMES[7], "o004", "o000"])
    check(got[3], NAMES[8:10])
    assert [bytes(item) for item in got[4]] == [data[1:3] for data in DATA.values() if len(data) > 3]
    assert len(batch) == 3


def test_a_batch_may_be_changed_once_it_was_taken(client):
    bucket = client.bucket("b")

    def source():
        batch = client.batch(bucket=bucket)
        for name in NAMES[:30]:
            yield batch.add(name)
            batch.clear()

    got = list(client.pipeline(source(), in_flight=3, max_bytes=310_000))
    assert [columns.names for columns in got] == [[name] for name in NAMES[:30]]


def test_a_list_that_holds_nonsense_is_told_in_its_turn(client):
    broken = client.batch(NAMES[:1], bucket=client.bucket("b"))
    broken.requests_list.append(7)
    pipeline = client.pipeline([[NAMES[0]], broken], bucket=client.bucket("b"))
    check(next(pipeline), [NAMES[0]])
    with pytest.raises(ValueError, match="requests_list"):
        next(pipeline)


def test_archive_members(shared):
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("x/1")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    shared.put("b", "shard.tar", out.getvalue())
    with aisfast.Client(shared.endpoint) as client:
        (columns,) = client.pipeline([[("b", "shard.tar", "x/1"), ("b", "shard.tar", "x/1", 1, 3)]])
        assert [bytes(item) for item in columns] == [b"hello", b"ell"]


def test_an_endless_source_is_taken_from_only_as_far_as_needed(client):
    taken = []

    def source():
        for i in itertools.count():
            taken.append(i)
            yield [NAMES[i % 10]]

    with client.pipeline(source(), bucket=client.bucket("b"), in_flight=3) as pipeline:
        for i, columns in enumerate(itertools.islice(pipeline, 20)):
            check(columns, [NAMES[i % 10]])
            assert len(taken) <= i + 1 + 4 * 3


def test_progress(client):
    told = []
    asked = batches(10)
    assert len(list(client.pipeline(asked, bucket=client.bucket("b"), progress=told.append))) == 10
    assert told == [len(names) for names in asked]


@pytest.mark.parametrize("options", [{"streaming_get": False}, {"output_format": ".tgz"}, {"output_format": ".zip"}])
def test_formats(client, options):
    asked = batches(12)
    given = (client.batch(names, bucket=client.bucket("b"), **options) for names in asked)
    for names, columns in zip(asked, client.pipeline(given), strict=True):
        check(columns, names)


def test_slabs_are_used_again(client):
    """From some batches on no memory is taken, if the consumer lets go of what it got."""
    from aisfast._blocks import idle_memory, trim

    asked = [NAMES] * 12
    trim()
    idle = []
    for columns in client.pipeline(asked, bucket=client.bucket("b"), in_flight=2):
        del columns
        idle.append(idle_memory())
    assert max(idle) <= 8 * sum(SIZES)


# ------------------------------------------------------------------------------------------------------------ max_bytes


@pytest.mark.parametrize("in_flight", [2, 8])
@pytest.mark.parametrize("max_bytes", [310_000, 500_000, 2 * MIB])
def test_max_bytes_is_never_exceeded(client, max_bytes, in_flight, monkeypatch):
    asked = [names for names in batches(80, seed=3) if sum(len(DATA[name]) for name in names) <= max_bytes]
    pipeline = client.pipeline(asked, bucket=client.bucket("b"), in_flight=in_flight, max_bytes=max_bytes)
    held = []
    monkeypatch.setattr(
        Pipeline, "_turn", lambda self, turn=Pipeline._turn: (turn(self), held.append(Open(self).held))[0]
    )
    for names, columns in zip(asked, pipeline, strict=True):
        check(columns, names)
    assert max(held) <= max_bytes
    if max_bytes < MIB:
        assert pipeline.stats.put_off > 0
    assert pipeline.stats.members >= sum(map(len, asked))


def test_an_answer_without_room_is_closed_and_its_rest_asked_for_later(client):
    """The sizes seen say 1 byte an entry; they are 300,000."""
    large = [name for name in NAMES if len(DATA[name]) == 300_000]
    list(client.pipeline([[NAMES[SIZES.index(1)]]], bucket=client.bucket("b")))
    asked = [[large[i % len(large)]] * 2 for i in range(8)]
    with client.pipeline(asked, bucket=client.bucket("b"), max_bytes=650_000) as pipeline:
        for names in asked:
            time.sleep(0.02)
            check(next(pipeline), names)
    assert pipeline.stats.put_off > 0
    assert pipeline.stats.requests > 8
    assert pipeline.stats.resumes == pipeline.stats.retries == 0


def test_a_batch_larger_than_max_bytes_is_an_error_in_its_turn(client):
    large = [name for name in NAMES if len(DATA[name]) == 300_000][:2]
    pipeline = client.pipeline([[NAMES[0]], large, [NAMES[1]]], bucket=client.bucket("b"), max_bytes=400_000)
    check(next(pipeline), [NAMES[0]])
    with pytest.raises(LimitError, match="batch 1 has more than the 400000 bytes") as caught:
        next(pipeline)
    assert caught.value.remedy
    assert next(pipeline, None) is None


def test_a_batch_of_just_max_bytes_fits(client):
    large = next(name for name in NAMES if len(DATA[name]) == 300_000)
    for columns in client.pipeline([[large]] * 5, bucket=client.bucket("b"), max_bytes=300_000):
        check(columns, [large])


# --------------------------------------------------------------------------------------------------------------- errors


def test_the_first_error_comes_at_its_batch(cluster):
    with aisfast.Client(cluster.endpoint) as client:
        asked = [[NAMES[0]], [NAMES[1]], ["none"], ["none either"], [NAMES[2]]]
        pipeline = client.pipeline(asked, bucket=client.bucket("b"))
        check(next(pipeline), [NAMES[0]])
        check(next(pipeline), [NAMES[1]])
        with pytest.raises(ErrObjNotFound, match=r"\(b/none\)"):
            next(pipeline)
        assert next(pipeline, None) is None
        assert left_behind() == []


def test_missing_is_marked(client):
    (columns,) = client.pipeline([[NAMES[0], "none"]], bucket=client.bucket("b"), missing="mark")
    assert columns.ok.tolist() == [True, False]
    assert columns.errors.keys() == {1}


def test_errors_of_the_source_come_in_its_turn(client):
    def source():
        yield [NAMES[0]]
        yield [NAMES[1]]
        raise KeyError("the caller's own")

    pipeline = client.pipeline(source(), bucket=client.bucket("b"))
    check(next(pipeline), [NAMES[0]])
    check(next(pipeline), [NAMES[1]])
    with pytest.raises(KeyError, match="own"):
        next(pipeline)
    assert next(pipeline, None) is None


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("abc", "batch 1 .*'abc'.* must be a Batch, or a list of entries"),
        (("b", "o"), "must be a Batch"),
        (7, "must be a Batch"),
        ([7], "7 is no entry: Unsupported object type"),
        ([("b",)], r"\('b',\) is no entry"),
        ([("b", "o", None, -1, 5)], "start=-1 must be"),
        ([("b", "a/../b")], "path component"),
        ([], "No objects added to batch"),
        (["ok", 7], "7 is no entry"),
    ],
)
def test_what_is_no_batch(client, item, words):
    pipeline = client.pipeline([[NAMES[0]], item], bucket=client.bucket("b"))
    check(next(pipeline), [NAMES[0]])
    with pytest.raises(ValueError, match=words):
        next(pipeline)


def test_a_name_without_a_bucket(client):
    with pytest.raises(ValueError, match="Bucket must be provided"):
        next(client.pipeline([["a"]]))


@pytest.mark.parametrize(
    "options",
    [{"in_flight": 0}, {"in_flight": 1.5}, {"max_bytes": 0}, {"max_bytes": True}, {"missing": "no"}, {"progress": 1}],
)
def test_wrong_arguments(client, options):
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        client.pipeline([], **options)


def test_what_cannot_be_completed(cluster):
    policy = Policy(resume=False)
    with aisfast.Client(cluster.endpoint) as client:
        cluster.faults.add("cut", entry=NAMES[9], times=None)
        asked = [NAMES[:3], NAMES[5:12], NAMES[:2]]
        pipeline = client.pipeline(asked, bucket=client.bucket("b"), policy=policy)
        check(next(pipeline), NAMES[:3])
        with pytest.raises(IncompleteBatchError) as caught:
            next(pipeline)
        error = caught.value
        check(error.partial, NAMES[5:9])
        cluster.faults.clear()
        check(error.rest().fetch(), NAMES[9:12])


@pytest.mark.parametrize("fault", ["cut", "short", "reset", "skip", "swap"])
def test_faults_are_mended(cluster, fault):
    with aisfast.Client(cluster.endpoint) as client:
        for name in NAMES[::9]:
            cluster.faults.add(fault, entry=name)
        asked = [NAMES[i : i + 10] for i in range(0, 110, 5)]
        for names, columns in zip(asked, client.pipeline(asked, bucket=client.bucket("b")), strict=True):
            check(columns, names)
        stats = client.stats
        assert stats.resumes + stats.retries >= 5


def test_429_lowers_the_number_in_flight_and_success_raises_it(cluster):
    with aisfast.Client(cluster.endpoint, policy=Policy(patience=20)) as client:
        cluster.faults.add("error", kind="busy", times=20)
        asked = [[NAMES[i % 100]] for i in range(120)]
        lowest, view = 999.0, client.transport.view
        for names, columns in zip(asked, client.pipeline(asked, bucket=client.bucket("b"), in_flight=16), strict=True):
            check(columns, names)
            lowest = min(lowest, view._most_open)
        assert client.stats.throttled == 20
        assert lowest < 16
        assert view._most_open > lowest


# ------------------------------------------------------------------------------------------------ nothing left behind


def left_behind() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aisfast-pipeline")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open descriptors in /proc")
@pytest.mark.parametrize("how", ["close", "with", "del", "after one", "exception"])
def test_leaving_early(cluster, how):
    def leave() -> None:
        client = aisfast.Client(cluster.endpoint)
        pipeline = client.pipeline(itertools.repeat(NAMES[:60]), bucket=client.bucket("b"))
        if how != "close":
            next(pipeline)
        if how == "with":
            with pipeline:
                next(pipeline)
        elif how in ("close", "after one"):
            pipeline.close()
            pipeline.close()
        elif how == "exception":
            with pytest.raises(ZeroDivisionError), pipeline:
                1 / 0  # noqa: B018
        else:
            del pipeline
            client.close()
            return
        assert next(pipeline, None) is None
        assert client.transport.view.open <= 16 * 3 + 1
        client.close()

    leave()
    gc.collect()
    before = descriptors()
    for _ in range(5):
        leave()
    gc.collect()
    assert left_behind() == []
    deadline = time.monotonic() + 10
    while descriptors() > before and time.monotonic() < deadline:  # the emulator's own are among them
        time.sleep(0.01)
    assert descriptors() <= before


def test_open_answers_are_counted_down(client):
    with client.pipeline(itertools.repeat(NAMES[:30]), bucket=client.bucket("b")) as pipeline:
        next(pipeline)
    deadline = time.monotonic() + 5
    while client.transport.view.open and time.monotonic() < deadline:
        client.transport.sweep()
        time.sleep(0.01)
    assert client.transport.view.open == 0


def test_two_threads(client):
    pipeline = client.pipeline(itertools.repeat(NAMES), bucket=client.bucket("b"))
    next(pipeline)
    errors = []
    inside = threading.Event()
    pipeline._progress = lambda _: inside.set() or time.sleep(0.2)

    def read() -> None:
        inside.wait(5)
        try:
            next(pipeline)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    next(pipeline)
    thread.join()
    assert "another thread" in errors[0]
    pipeline.close()


def test_a_slow_consumer_costs_no_patience(cluster):
    with aisfast.Client(cluster.endpoint, policy=Policy(patience=1.0)) as client:
        for i, columns in enumerate(client.pipeline([NAMES[:50]] * 4, bucket=client.bucket("b"), in_flight=3)):
            check(columns, NAMES[:50])
            if i < 2:
                time.sleep(1.2)


def test_connections_are_reused(cluster):
    with aisfast.Client(cluster.endpoint) as client:
        for _ in range(3):
            list(client.pipeline([[NAMES[i]] for i in range(50)], bucket=client.bucket("b"), in_flight=4))
        assert client.stats.connections <= 4 + 3 * 16


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_nothing_open(cluster):
    import signal

    with aisfast.Client(cluster.endpoint) as client:
        cluster.faults.add("stall", seconds=3, entry=NAMES[1], times=None)
        pipeline = client.pipeline([NAMES[:3]] * 3, bucket=client.bucket("b"))
        timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(pipeline)
        assert next(pipeline, None) is None
        assert left_behind() == []


def test_a_refused_endpoint_is_an_error_of_ours():
    with aisfast.Client("http://127.0.0.1:9") as client, pytest.raises(AISError):
        next(client.pipeline([["a"]], bucket=client.bucket("b")))
