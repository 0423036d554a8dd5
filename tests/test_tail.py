"""Entries repeated behind a batch's last one: what is chosen, what follows the last entry, what users see of it."""

from __future__ import annotations

import random
import time

import pytest

import aisfast
import wire
from aisfast import Policy
from aisfast._request import Entries
from aisfast.emulator import Cluster
from aisfast.tail import FIRST_TERM, HOPELESS, LATE, MOST_BYTES, MOST_ENTRIES, PUSH, Tails, archived
from delivering import cut, deliver, entries_of

LATE_END, SOON = LATE * 2, LATE / 2


def asked(n: int, **options: object) -> Entries:
    entries = Entries()
    for i in range(n):
        entries.append(f"o{i}", "b", "ais", **options)
    return entries


ANY = asked(1)  # in the bucket of all


def taught(sizes: list[int], place: str = "p") -> Tails:
    """One who has seen a late end of a batch of these."""
    tails = Tails()
    assert tails.ended(place, LATE_END, with_tail=False)
    tails.learn(place, asked(len(sizes)), list(enumerate(sizes)))
    return tails


# ---------------------------------------------------------------------------------------------------------- the choice


def test_no_tail_before_an_end_was_late():
    tails = Tails()
    for _ in range(100):
        assert tails.choose("p", ANY, 0) is None
        assert not tails.ended("p", SOON, with_tail=False)


@pytest.mark.parametrize("sizes", [[1024] * 32, [1024], [0], [100, 3000, 5], [10_000] * 3, [10_000_000], [PUSH - 512]])
def test_a_tail_takes_enough_bytes_and_no_more(sizes):
    tail = taught(sizes).choose("p", ANY, 0)
    assert tail is not None
    assert tail.bytes <= MOST_BYTES
    assert tail.bytes >= PUSH or len(tail.entries) == MOST_ENTRIES
    assert tail.bytes < PUSH + max(archived(size) for size in sizes if archived(size) <= PUSH or size == sizes[0])
    total = 0
    for i in range(len(tail.entries)):
        name, bucket, provider, archpath, opaque, start, length, uname = tail.entries.row(i)
        size = sizes[int(name[1:])]
        assert (bucket, provider, archpath, opaque, start, uname) == ("b", "ais", None, None, 0, None)
        assert length <= size
        total += archived(length or size)
    assert total == tail.bytes


def test_a_range_of_a_range_lies_inside_it():
    tails = Tails()
    tails.ended("p", LATE_END, with_tail=False)
    tails.learn("p", asked(1, start=1000, length=50_000), [(0, 50_000)])
    assert tails.choose("p", ANY, 0).entries.row(0)[5:7] == (1000, PUSH - 512)


def test_a_tail_is_of_the_place_it_was_learnt_at():
    tails = taught([1024])
    assert tails.choose("another", ANY, 0) is None
    assert tails.ended("another", LATE_END, with_tail=False)
    assert tails.choose("p", ANY, 0) is not None


def test_a_tail_is_of_the_buckets_that_are_asked():
    tails = taught([1024])
    other = Entries()
    other.append("o0", "c", "ais")
    assert tails.choose("p", other, 0) is None
    other.append("o0", "b", "ais")
    assert tails.choose("p", other, 0) is not None


def test_without_an_entry_there_is_no_tail():
    assert taught([]).choose("p", ANY, 0) is None


def test_now_and_then_a_batch_goes_without_to_see_whether_ends_are_still_late():
    tails = taught([1024])
    with_tail = 0
    for _ in range(3 * FIRST_TERM + 2):
        chosen = tails.choose("p", ANY, 0) is not None
        with_tail += chosen
        tails.ended("p", SOON if chosen else LATE_END, chosen)
    assert with_tail == 3 * FIRST_TERM  # the term is doubled each time
    while tails.choose("p", ANY, 0) is not None:
        tails.ended("p", SOON, with_tail=True)
    assert not tails.ended("p", SOON, with_tail=False)  # it ended soon: no more tails
    assert tails.choose("p", ANY, 0) is None
    assert not tails.ended("p", LATE_END, with_tail=False)  # until one is late, whose entries are known
    assert tails.choose("p", ANY, 0) is not None


def test_a_tail_that_does_not_help_is_given_up_for_a_while():
    tails = taught([1024])
    for _ in range(HOPELESS):
        assert tails.choose("p", ANY, 0) is not None
        assert not tails.ended("p", LATE_END, with_tail=True)
    rest = 0
    while not tails.ended("p", LATE_END, with_tail=False):
        assert tails.choose("p", ANY, 0) is None
        rest += 1
    assert rest == 2 * FIRST_TERM - 1
    assert tails.choose("p", ANY, 0) is None  # its entries may be gone: others are learnt
    tails.learn("p", asked(1), [(0, 1024)])
    assert tails.choose("p", ANY, 0) is not None


def test_one_late_end_in_between_does_not_matter():
    tails = taught([1024])
    for i in range(FIRST_TERM):
        assert tails.choose("p", ANY, 0) is not None
        tails.ended("p", LATE_END if i % HOPELESS else SOON, with_tail=True)


# -------------------------------------------------------------------------------------------------- behind the last one

WANTED = [wire.Entry("a", b"x" * 700, bucket="b"), wire.Entry("c", b"", bucket="b")]
BEHIND = [
    wire.Entry("a", b"y" * 6000, bucket="b"),
    wire.Entry("d", bucket="b", missing=True),
    wire.Entry("a", b"z", bucket="b"),
]


def drained(raw: bytes, pieces: int, extra: int) -> bool:
    """Whether the connection may be used again."""
    done = deliver(entries_of(WANTED), cut(raw, pieces), extra=extra)
    assert done.items == [(b"x" * 700, None), (b"", None)]
    return done.feed.reusable


@pytest.mark.parametrize("pieces", [1, 7, 512, 600, 1 << 20])
@pytest.mark.parametrize("extra", [0, 1, 2, 3, 4])
def test_only_members_that_were_asked_for_may_follow(pieces, extra):
    raw = wire.streaming([*WANTED, *BEHIND]).raw
    assert drained(raw, pieces, extra) == (extra >= len(BEHIND))
    assert not drained(raw[:-5], pieces, extra)


def test_every_split():
    raw = wire.streaming([*WANTED, *BEHIND[1:]]).raw
    for i in range(len(raw)):
        done = deliver(entries_of(WANTED), [raw[:i], raw[i:]], extra=2)
        assert len(done.items) == 2
        assert done.feed.reusable


def test_a_huge_member_behind_the_last_one_is_not_waited_for():
    raw = wire.streaming([*WANTED, wire.Entry("e", b"e" * 100_000, bucket="b")]).raw
    assert not drained(raw, 1 << 20, 1)


# ------------------------------------------------------------------------------------------------------------ in real


@pytest.fixture(scope="module")
def slow_ends():
    """Three targets, which hold the end of an answer back as real ones do."""
    with Cluster(targets=3, tail_delay=0.1) as cluster:
        with aisfast.Client(cluster.endpoint) as client:
            bucket = client.bucket("b").create()
            for i in range(200):
                bucket.object(f"o{i}").get_writer().put_content(random.Random(i).randbytes(1024))
        yield cluster


NAMES = [f"o{i}" for i in range(200)]


def take(client: aisfast.Client, names: list[str], way: str, **options: object) -> list[bytes]:
    batch = client.batch(names, bucket=client.bucket("b"), **options)
    if way == "get":
        return [data for _, data in batch.get()]
    return [bytes(item) for item in (batch.stream() if way == "stream" else batch.fetch())]


@pytest.mark.parametrize("way", ["get", "stream", "fetch"])
def test_small_batches_end_at_once(slow_ends, way):
    with aisfast.Client(slow_ends.endpoint) as client:
        seconds = []
        for i in range(20):
            began = time.monotonic()
            got = take(client, NAMES[i : i + 8], way)
            seconds.append(time.monotonic() - began)
            assert got == [random.Random(n).randbytes(1024) for n in range(i, i + 8)]
        assert sum(second > 0.09 for second in seconds) < 10, seconds
        stats = client.stats
        assert stats.requests == 20
        assert stats.members == 160
        assert stats.misses == 0
        assert 5 <= stats.tail_entries / sum(second < 0.09 for second in seconds) <= MOST_ENTRIES
        assert stats.tail_bytes <= stats.requests * MOST_BYTES
        assert stats.unclean_ends == 0
        connections = stats.connections
        time.sleep(0.15)
        take(client, NAMES[:8], way)
        assert client.stats.connections <= connections + 1  # those that drained are used again


@pytest.mark.parametrize("options", [{"streaming_get": False}, {"output_format": ".tgz"}])
def test_other_answers_have_none(slow_ends, options):
    with aisfast.Client(slow_ends.endpoint) as client:
        for _ in range(4):
            assert len(take(client, NAMES[:4], "get", **options)) == 4
        assert client.stats.tail_entries == 0


def test_policy_turns_it_off(slow_ends):
    with aisfast.Client(slow_ends.endpoint, policy=Policy(tail=False)) as client:
        for _ in range(4):
            assert len(take(client, NAMES[:4], "get")) == 4
        assert client.stats.tail_entries == 0


def test_with_one_target_there_is_no_need():
    with Cluster(targets=1, tail_delay=0.1) as cluster, aisfast.Client(cluster.endpoint) as client:
        client.bucket("b").create().object("o0").get_writer().put_content(b"x")
        for _ in range(4):
            assert take(client, ["o0"], "get") == [b"x"]
        assert client.stats.tail_entries == 0


def test_it_is_nobodys_business(slow_ends):
    """Not delivered, not in `requests_list`, no miss of the caller's even when it is missing by now."""
    with aisfast.Client(slow_ends.endpoint) as client:
        bucket = client.bucket("b")
        bucket.object("gone").get_writer().put_content(b"g" * 2000)
        for _ in range(3):
            assert take(client, ["gone"], "get") == [b"g" * 2000]
        assert client.stats.tail_entries > 0
        bucket.object("gone").delete()
        batch = client.batch(NAMES[:3], bucket=bucket)
        assert len(batch.requests_list) == 3
        assert [info.obj_name for info, _ in batch.get(clear_batch=False)] == NAMES[:3]
        assert len(batch.requests_list) == 3
        for _ in range(6):
            assert len(take(client, NAMES[:3], "stream")) == 3
            assert len(take(client, NAMES[:3], "get", cont_on_err=False)) == 3
        assert client.stats.misses == 0
        assert client.stats.unclean_ends == 0
        with pytest.raises(aisfast.ErrObjNotFound) as caught:
            take(client, [*NAMES[:3], "gone"], "fetch")
        assert caught.value.missing == (3,)


def test_a_bucket_that_is_gone_is_not_asked(slow_ends):
    with aisfast.Client(slow_ends.endpoint) as client:
        bucket = client.bucket("short-lived").create()
        bucket.object("o").get_writer().put_content(b"o" * 1000)
        for _ in range(4):
            assert [data for _, data in client.batch(bucket.object("o")).get()] == [b"o" * 1000]
        assert client.stats.tail_entries > 0
        bucket.delete()
        before = client.stats.requests
        assert len(list(client.batch(client.bucket("b").object("o0")).get())) == 1  # the path names no bucket either
        assert client.stats.requests == before + 1


@pytest.mark.parametrize("resume", [True, False])
def test_a_request_refused_with_a_tail_is_sent_without(slow_ends, resume):
    with aisfast.Client(slow_ends.endpoint, policy=Policy(resume=resume)) as client:
        for _ in range(3):
            assert len(take(client, NAMES[:3], "get")) == 3
        assert client.stats.tail_entries > 0
        fault = slow_ends.faults.add("error", kind="forbidden", times=None, when=lambda call: len(call.names) > 3)
        try:
            assert len(take(client, NAMES[:3], "get")) == 3
            assert fault.hits == 1
            assert len(take(client, NAMES[:3], "get")) == 3
            assert fault.hits == 1
        finally:
            slow_ends.faults.clear()
