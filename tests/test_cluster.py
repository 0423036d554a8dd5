"""Batches that a real cluster cannot serve as asked: whole and byte-exact in the end, or an error that names the entry.

What an emulator takes for granted is asked of the server itself: the cluster at `AIS_ENDPOINT`, of any number of
targets. Where several entries are alike, some live on the target that answers and some elsewhere. What takes minutes
runs only with AISFAST_LONG_TESTS=1.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import aisfast
from aisfast.errors import AISError, ErrObjNotFound, ErrRangeNotSatisfiable, IncompleteBatchError

pytestmark = pytest.mark.cluster

long = pytest.mark.skipif(not os.environ.get("AISFAST_LONG_TESTS"), reason="AISFAST_LONG_TESTS is not set")
WAYS = ["get", "stream", "fetch"]
MODES = [pytest.param(True, id="streaming"), pytest.param(False, id="buffered")]
POLICY = aisfast.Policy(patience=100)
SIZE = 5000
NAMES = [f"dir/{i:03}.bin" for i in range(200)]
SHARDS = [f"{i}{extension}" for extension in (".tar", ".tgz") for i in range(4)]
MEMBERS = [f"m/{i}.txt" for i in range(4)]


def content(name: str, size: int = SIZE) -> bytes:
    """What an object or member holds."""
    return random.Random(name).randbytes(size)


def shard(name: str) -> bytes:
    """An archive of MEMBERS."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if name.endswith(".tgz") else "w") as tar:
        for member in MEMBERS:
            info = tarfile.TarInfo(member)
            info.size = SIZE
            tar.addfile(info, io.BytesIO(content(name + member)))
    return made.getvalue()


@pytest.fixture(scope="module")
def client() -> Iterator[aisfast.Client]:
    endpoint = os.environ.get("AIS_ENDPOINT")
    if not endpoint:
        pytest.skip("AIS_ENDPOINT is not set: no real cluster")
    with aisfast.Client(endpoint, policy=POLICY) as client:
        yield client


@pytest.fixture(scope="module")
def bucket(client: aisfast.Client) -> Iterator[aisfast.Bucket]:
    bucket = client.bucket("aisfast-test-cluster")
    bucket.delete(missing_ok=True)
    bucket.create()
    for name in NAMES:
        bucket.object(name).get_writer().put_content(content(name))
    for name in SHARDS:
        bucket.object(name).get_writer().put_content(shard(name))
    yield bucket
    bucket.delete()


class Outcome:
    """What came of a batch, one way or the other: payloads or None, the reasons for None, the error that ended it."""

    def __init__(self, batch: Any, way: str, policy: aisfast.Policy = POLICY) -> None:
        """Natively, `cont_on_err` of the batch chooses between missing="mark" and missing="raise"."""
        self.came: list[bytes | None] = []
        self.reasons: dict[int, str] = {}
        self.error: AISError | None = None
        stats = batch.request_client.stats
        before = stats.requests
        try:
            for payload, reason in self._pairs(batch, way, policy):
                if reason is not None:
                    assert not payload
                    self.reasons[len(self.came)] = reason
                self.came.append(payload if reason is None else None)
        except AISError as error:
            self.error = error
        self.requests = batch.request_client.stats.requests - before

    def _pairs(self, batch: Any, way: str, policy: aisfast.Policy) -> Iterator[tuple[bytes, str | None]]:
        missing = "mark" if batch.request.cont_on_err else "raise"
        if way == "get":
            for info, data in batch.get(clear_batch=False, policy=policy):
                yield data, info.err_msg or None
        elif way == "stream":
            with batch.stream(missing=missing, policy=policy) as items:
                for item in items:
                    yield (bytes(item.data) if item.ok else b""), item.err_msg
        else:
            for item in batch.fetch(missing=missing, policy=policy):
                yield (bytes(item.data) if item.ok else b""), item.err_msg


# ------------------------------------------------------------------------------------------------------------ misses


@pytest.mark.parametrize("streaming", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_more_misses_than_the_server_bears(bucket: aisfast.Bucket, way: str, streaming: bool) -> None:
    missing = set(random.Random(1).sample(range(1000), 300))
    names = [f"no such {i}" if i in missing else NAMES[i % 200] for i in range(1000)]
    outcome = Outcome(bucket.client.batch(names, bucket=bucket, streaming_get=streaming), way)
    assert outcome.error is None
    assert outcome.came == [None if i in missing else content(name) for i, name in enumerate(names)]
    assert set(outcome.reasons) == missing
    assert outcome.requests <= 100  # three misses each, where the server bears eight


def test_requests_grow_with_the_misses_and_not_with_the_entries(bucket: aisfast.Bucket) -> None:
    missing = set(random.Random(1).sample(range(5000), 20))
    names = [f"no such {i}" if i in missing else NAMES[i % 200] for i in range(5000)]
    for streaming in (True, False):
        outcome = Outcome(bucket.client.batch(names, bucket=bucket, streaming_get=streaming), "get")
        assert outcome.came == [None if i in missing else content(name) for i, name in enumerate(names)]
        assert outcome.requests <= 15


def test_single_gets_find_no_more(bucket: aisfast.Bucket) -> None:
    names = [f"no such {i}" if i % 3 == 0 else NAMES[i] for i in range(60)]
    outcome = Outcome(bucket.client.batch(names, bucket=bucket), "get", POLICY.replace(get_missing=True))
    assert outcome.came == [None if i % 3 == 0 else content(name) for i, name in enumerate(names)]


@pytest.mark.parametrize("streaming", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_a_miss_that_is_an_error_names_its_entry(bucket: aisfast.Bucket, way: str, streaming: bool) -> None:
    """Eight names: on several targets some are local to the one that answers, some remote."""
    for i in range(8):
        at = 3 * i
        names = [*NAMES[:at], f"no such {i}", *NAMES[at:30]]
        batch = bucket.client.batch(names, bucket=bucket, cont_on_err=False, streaming_get=streaming)
        outcome = Outcome(batch, way)
        assert type(outcome.error) is ErrObjNotFound
        assert f"entry {at} " in str(outcome.error)
        assert f"no such {i}" in str(outcome.error)
        before = [content(name) for name in names[:at]]
        assert outcome.came == (before if way == "stream" or (way == "get" and streaming) else [])


def test_one_answer_only(bucket: aisfast.Bucket) -> None:
    """Twelve misses of twenty entries are more than one answer bears."""
    names = [f"no such {i}" if i % 5 < 3 else NAMES[i] for i in range(20)]
    outcome = Outcome(bucket.client.batch(names, bucket=bucket), "stream", POLICY.replace(resume=False))
    error = outcome.error
    assert isinstance(error, IncompleteBatchError)
    assert outcome.requests == error.attempts == 1
    assert error.requested == 20
    assert error.received == len(outcome.came)
    assert error.missing == tuple(range(error.received, 20))
    rest = Outcome(error.rest(), "fetch")
    assert [*outcome.came, *rest.came] == [None if i % 5 < 3 else content(name) for i, name in enumerate(names)]


# ------------------------------------------------------------------------------------------------------------ ranges


@pytest.mark.parametrize("streaming", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_ranges(bucket: aisfast.Bucket, way: str, streaming: bool) -> None:
    batch = bucket.client.batch(bucket=bucket, streaming_get=streaming)
    expected = []
    for i, (start, length) in enumerate(
        [(0, 1), (SIZE - 1, 1), (0, SIZE), (17, -1), (SIZE - 1, -1), (0, -1), (1, SIZE - 1), (0, 0)] * 3
    ):
        name, inside, member = NAMES[i], SHARDS[i % len(SHARDS)], MEMBERS[i % len(MEMBERS)]
        batch.add(name, start=start, length=length)
        batch.add(inside, archpath=member, start=start, length=length)
        stop = start + length if length > 0 else None
        expected += [content(name)[start:stop], content(inside + member)[start:stop]]
    outcome = Outcome(batch, way)
    assert outcome.error is None
    assert outcome.came == expected
    assert outcome.requests == 1


def test_a_range_outside(bucket: aisfast.Bucket) -> None:
    """Another target is silent for 20 s, then sends the whole object in place of a range outside: all cases at once."""

    def ask(streaming: bool, archpath: str | None, length: int, cont_on_err: bool) -> Outcome:
        batch = bucket.client.batch(bucket=bucket, streaming_get=streaming, cont_on_err=cont_on_err)
        outside = SHARDS[0] if archpath else NAMES[100]
        batch.add(NAMES[0]).add(outside, archpath=archpath, start=SIZE, length=length).add(NAMES[1])
        return Outcome(batch, "get")

    cases = list(itertools.product([True, False], [None, MEMBERS[1]], [1, -1], [True, False]))
    with ThreadPoolExecutor(len(cases)) as pool:
        outcomes = list(pool.map(lambda case: ask(*case), cases))
    for (_, archpath, _, cont_on_err), outcome in zip(cases, outcomes, strict=True):
        if cont_on_err:
            assert outcome.error is None
            assert outcome.came == [content(NAMES[0]), None, content(NAMES[1])]
            assert "range" in outcome.reasons[1]
        else:
            assert type(outcome.error) is ErrRangeNotSatisfiable
            named = f"{SHARDS[0]}/{archpath}" if archpath else NAMES[100]
            assert f"entry 1 ({bucket.name}/{named}, range" in str(outcome.error)


# -------------------------------------------------------------------------------------------- entries nobody can read


@pytest.mark.parametrize("streaming", MODES)
def test_an_archive_that_is_none(bucket: aisfast.Bucket, streaming: bool) -> None:
    """Where it is remote the server itself says that it is missing."""
    for i in range(4):
        name = f"noise {i}.tar"
        bucket.object(name).get_writer().put_content(content(name, 20_000))
        for cont_on_err in (True, False):
            batch = bucket.client.batch(bucket=bucket, streaming_get=streaming, cont_on_err=cont_on_err)
            batch.add(SHARDS[0], archpath=MEMBERS[0]).add(name, archpath=MEMBERS[0]).add(NAMES[0])
            outcome = Outcome(batch, "get")
            if cont_on_err:
                assert outcome.error is None
                assert outcome.came == [content(SHARDS[0] + MEMBERS[0]), None, content(NAMES[0])]
                assert outcome.reasons[1]
            else:
                assert type(outcome.error) in (AISError, ErrObjNotFound)
                assert f"entry 1 ({bucket.name}/{name}/{MEMBERS[0]})" in str(outcome.error)


def test_a_member_that_is_none(bucket: aisfast.Bucket) -> None:
    batch = bucket.client.batch(bucket=bucket)
    for name in SHARDS:
        batch.add(name, archpath="no such member").add(name, archpath=MEMBERS[3])
    outcome = Outcome(batch, "get")
    assert outcome.came[0::2] == [None] * len(SHARDS)
    assert outcome.came[1::2] == [content(name + MEMBERS[3]) for name in SHARDS]


# --------------------------------------------------------------------------------------------------- while it comes


@pytest.fixture(scope="module")
def large(client: aisfast.Client) -> Iterator[aisfast.Bucket]:
    """64 MiB: more than what socket buffers hold."""
    bucket = client.bucket("aisfast-test-cluster-large")
    bucket.delete(missing_ok=True)
    bucket.create()
    for name in NAMES[:128]:
        bucket.object(name).get_writer().put_content(content(name, 1 << 19))
    yield bucket
    bucket.delete(missing_ok=True)


def test_an_object_deleted_meanwhile(large: aisfast.Bucket) -> None:
    """It comes whole, or as missing."""
    name = "deleted"
    large.object(name).get_writer().put_content(content(name))
    expected = [content(other, 1 << 19) for other in NAMES[:128]]
    came: list[bytes | None] = []
    for info, data in large.client.batch([*NAMES[:128], name], bucket=large).get(policy=POLICY):
        if not came:
            large.object(name).delete()
        came.append(None if info.err_msg else data)
    assert came[:128] == expected
    assert came[128:] in ([None], [content(name)])


@long
def test_a_consumer_that_pauses(large: aisfast.Bucket) -> None:
    """The server cuts who has not read for 30 s: the rest is asked for again. All ways pause at the same time."""
    names = NAMES[:128]

    def payloads(batch: aisfast.Batch, way: str) -> Iterator[bytes]:
        if way == "get":
            yield from (data for _, data in batch.get())
        else:
            yield from (bytes(item.data) for item in batch.stream())

    def consume(way: str, streaming: bool, pause: float) -> int:
        batch = large.client.batch(names, bucket=large, streaming_get=streaming)
        came = 0
        for data in payloads(batch, way):
            assert data == content(names[came], 1 << 19)
            came += 1
            if came == 20:
                time.sleep(pause)
        return came

    cases = list(itertools.product(["get", "stream"], [True, False], [45.0, 100.0]))
    with ThreadPoolExecutor(len(cases)) as pool:
        assert list(pool.map(lambda case: consume(*case), cases)) == [len(names)] * len(cases)


def test_a_bucket_deleted_meanwhile(client: aisfast.Client) -> None:
    """What came stands, and the error says which entries did not."""
    bucket = client.bucket("aisfast-test-cluster-gone")
    bucket.delete(missing_ok=True)
    bucket.create()
    names = NAMES[:100]
    for name in names:
        bucket.object(name).get_writer().put_content(content(name, 1 << 19))
    deleting = threading.Thread(target=bucket.delete)
    came = 0
    caught: AISError | None = None
    try:
        with client.batch(names, bucket=bucket).stream(policy=POLICY) as items:
            for item in items:
                assert item.data == content(names[came], 1 << 19)
                came += 1
                if came == 2:
                    deleting.start()
    except (IncompleteBatchError, ErrObjNotFound) as error:
        caught = error
    deleting.join()
    if caught is None:
        assert came == len(names)
    elif isinstance(caught, IncompleteBatchError):
        assert caught.received == came
        assert caught.missing == tuple(range(came, len(names)))
    else:
        assert f"entry {came} " in str(caught)
