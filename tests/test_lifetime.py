"""A view stays valid for as long as it is held, whatever becomes of everything else; and nothing is held longer."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import io
import os
import pickle
import random
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import numpy
import pytest

import aisfast
import wire
from aisfast._blocks import idle_memory, trim
from aisfast._delivery import Form, Results
from delivering import FORMS, Feed, cut, deliver, delivery_of, entries_of
from scripted import ONE_ANSWER, Scripted

KIB = 1024
MIB = 1024 * KIB
ISOLATED = Path(__file__).parent / "isolated"


def payload(i, size):
    return random.Random(i).randbytes(size)


def batch(n, size, seed=0):
    return [wire.Entry(f"o{i}", payload(i + seed, size)) for i in range(n)]


def items_of(entries, pieces=None, **options):
    """All items of one answer, and nothing else of it."""
    raw = wire.streaming(entries).raw
    delivery = delivery_of(entries_of(entries), Form.ITEMS, **options)
    feed = Feed(delivery, pieces or [raw])
    feed.open()
    return list(Results(delivery, feed))


def churn(times=200):
    """Batches that recycle every block that is free."""
    small, large = batch(40, 5000, 900), batch(2, 400 * KIB, 901)
    raw_small, raw_large = wire.streaming(small).raw, wire.streaming(large).raw
    for i in range(times):
        for entries, raw in ((small, raw_small), (large, raw_large)):
            assert deliver(entries_of(entries), [raw], FORMS[i % 3]).error is None


# --------------------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("size", [1, 1000, 100 * KIB, 600 * KIB, 3 * MIB])
def test_views_outlive_everything(size):
    entries = batch(5, size)
    views = [item.data for item in items_of(entries)]
    slices = [item.data[1:] for item in items_of(entries)]
    arrays = [item.numpy()[::2] for item in items_of(entries, cut(wire.streaming(entries).raw, 70_000))]
    gc.collect()
    churn(20 if size < MIB else 5)
    for i, entry in enumerate(entries):
        assert views[i] == entry.payload
        assert slices[i] == entry.payload[1:]
        assert arrays[i].tobytes() == entry.payload[::2]


def test_views_through_thousands_of_batches():
    """Some of each batch are kept, and all others recycled, 2,000 times: what is kept keeps its bytes."""
    entries = [wire.Entry(f"o{i}", payload(i, size)) for i, size in enumerate([3000, 10, 70_000, 0, 9000, 300_000])]
    raw = wire.streaming(entries).raw
    asked = entries_of(entries)
    marks = [hashlib.sha256(entry.payload).digest() for entry in entries]
    draw = random.Random(7)
    kept: list[tuple[int, memoryview]] = []
    for _ in range(2000):
        delivery = delivery_of(asked, Form.ITEMS)
        feed = Feed(delivery, [raw])
        feed.open()
        for item in Results(delivery, feed):
            if draw.random() < 0.02:
                kept.append((item.index, item.data[:]))
        while len(kept) > 60:
            index, view = kept.pop(draw.randrange(60))
            assert hashlib.sha256(view).digest() == marks[index]
    for index, view in kept:
        assert hashlib.sha256(view).digest() == marks[index]


def test_views_outlive_the_client():
    entries = batch(30, 40_000)
    raw = wire.streaming(entries).raw
    with Scripted(lambda request: raw) as server:
        client = aisfast.Client(server.url, policy=ONE_ANSWER)
        names = [entry.name for entry in entries]
        stream = client.batch(names, bucket=client.bucket("b")).stream()
        views = [item.data for item in stream]
        columns = client.batch(names, bucket=client.bucket("b")).fetch()
        data, one, item = columns.data, columns[3].data, columns[4]
        client.close()
        del client, stream, columns
    gc.collect()
    churn(50)
    assert views == [entry.payload for entry in entries]
    assert data.tobytes() == b"".join(entry.payload for entry in entries)
    assert one == entries[3].payload
    assert bytes(item) == entries[4].payload


def test_one_item_keeps_columns_alive():
    entries = batch(10, 50_000)
    got = fetched(entries)
    item = got[7]
    view = got[2].data
    whole = weakref.ref(got)
    del got
    gc.collect()
    assert whole() is None
    churn(50)
    assert bytes(item) == entries[7].payload
    assert view == entries[2].payload


def fetched(entries, **options):
    from aisfast.columns import Columns
    from aisfast.stats import Stats

    got = deliver(entries_of(entries), [wire.streaming(entries).raw], Form.COLUMNS, **options)
    assert got.error is None
    return Columns.of(got.feed.delivery, Stats())


@pytest.mark.parametrize("size", [0, 10, 300 * KIB])
def test_writable_requests_are_refused(size):
    """And leave nothing locked."""
    entries = batch(2, size)
    columns = fetched(entries)
    for item in (items_of(entries)[0], columns[0]):
        view = item.data
        assert view.readonly
        if size:
            with pytest.raises(TypeError):
                view[0] = 1
        with pytest.raises((BufferError, TypeError)):
            (ctypes.c_char * size).from_buffer(item)
        with pytest.raises((BufferError, TypeError)):
            io.BytesIO(b"x" * size).readinto(item)
        with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
            numpy.frombuffer(item, numpy.uint8).flags.writeable = True
        assert item.data == entries[0].payload
    for array in (columns.data, columns.offsets, columns.ok):
        with pytest.raises(ValueError, match=r"WRITEABLE"):
            array.flags.writeable = True


def test_released_and_dropped_in_any_order():
    entries = batch(6, 30_000)
    items = items_of(entries)
    views = [item.data for item in items]
    draw = random.Random(3)
    things = [*items, *views, *(view[5:] for view in views), *(item.numpy() for item in items)]
    del items, views
    draw.shuffle(things)
    while things:
        thing = things.pop()
        if isinstance(thing, memoryview):
            thing.release()
        del thing
        if len(things) % 4 == 0:
            churn(1)


def test_pickled_items_stand_alone():
    entries = batch(40, 20_000)
    pickles = [pickle.dumps(item) for item in items_of(entries)]
    assert all(len(text) < 20_000 + 500 for text in pickles)  # neither its block nor the other entries
    churn(5)
    assert [bytes(pickle.loads(text)) for text in pickles] == [entry.payload for entry in entries]


# -------------------------------------------------------------------------------------------------------------- memory


def test_slabs_are_recycled_once_no_view_of_them_lives():
    entries = batch(8, 256 * KIB)
    gc.collect()
    trim()
    columns = fetched(entries, expected=2 * MIB)
    view = columns[0].data
    held = idle_memory()
    assert held < MIB  # the slab is in use
    del columns
    gc.collect()
    assert idle_memory() < held + MIB
    other = fetched(entries, expected=2 * MIB)
    assert other.data.ctypes.data != numpy.frombuffer(view, numpy.uint8).ctypes.data
    address = other.data.ctypes.data
    assert view == entries[0].payload
    del other
    assert idle_memory() >= held + 2 * MIB
    again = fetched(entries, expected=2 * MIB)
    assert again.data.ctypes.data == address
    del view, again
    assert idle_memory() >= held + 4 * MIB
    assert trim() >= 4 * MIB
    assert idle_memory() == 0


def test_blocks_are_recycled_once_no_item_of_them_lives():
    entries = batch(30, 10_000)
    gc.collect()
    trim()
    items = items_of(entries)
    assert idle_memory() < 300 * KIB
    last = items[-1].data
    del items
    assert idle_memory() < 300 * KIB  # one view keeps its block
    copied = bytes(last)
    del last
    assert idle_memory() >= 512 * KIB
    assert copied == entries[-1].payload


def test_all_blocks_of_a_held_batch_are_recycled():
    """It is the next one's: the page faults of fresh memory cost more than receiving into it."""
    entries = batch(400, 100 * KIB)
    gc.collect()
    trim()
    items = items_of(entries)
    del items
    assert idle_memory() >= 400 * 100 * KIB


def test_memory_kept_idle_is_bounded():
    trim()
    blocks = [items_of(batch(1, 3 * MIB, i)) for i in range(120)]
    del blocks
    assert 0 < idle_memory() <= 512 * MIB
    trim()


def test_memory_that_is_not_needed_any_more_goes_back_to_the_system():
    """A program that got large batches, and goes on with small ones."""
    trim()
    large, small = batch(3, 4 * MIB), batch(1, 10)
    fetched(large)
    assert idle_memory() >= 12 * MIB
    for _ in range(2000):
        fetched(small)
    assert idle_memory() < 2 * MIB
    trim()


@pytest.mark.parametrize("at", [0, 1, 3])
def test_dropped_in_the_middle(at):
    """Its memory goes back, its connection is closed, with no call to the garbage collector."""
    entries = batch(4, 200 * KIB)
    raw = wire.streaming(entries).raw
    ended = threading.Semaphore(0)

    class Watching(Scripted):
        def _serve(self, sock):
            with suppress(OSError):  # closed with bytes unread is a reset
                sock.recv(65536)
                sock.sendall(raw[: len(raw) - 100 * KIB])
                sock.recv(1)
            self._open.discard(sock)
            sock.close()
            ended.release()

    gc.disable()
    try:
        with Watching(lambda request: None) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
            names = [entry.name for entry in entries]
            for way in ("get", "stream"):
                asked = client.batch(names, bucket=client.bucket("b"))
                call = getattr(asked, way)()
                for _ in range(at):
                    next(call)
                del call
                assert ended.acquire(timeout=30)
                assert client.stats.members == (at if way == "get" else 2 * at)
    finally:
        gc.enable()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_descriptor_is_left_behind(ais_cluster):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with aisfast.Client(ais_cluster.endpoint) as client:
        bucket = client.bucket("few").create()
        for i in range(5):
            bucket.object(f"o{i}").get_writer().put_content(payload(i, 5000))
        names = [f"o{i}" for i in range(5)]

        def some(times):
            for i in range(times):
                asked = client.batch([*names, "gone"], bucket=bucket)
                stream = asked.stream(missing="mark")
                next(stream)
                if i % 3:
                    list(stream)
                del stream
                with pytest.raises(FileNotFoundError):
                    asked.fetch()
                with pytest.raises(aisfast.LimitError):
                    asked.fetch(into=bytearray(10), missing="mark")
                assert len(list(asked.get())) == 6

        some(20)
        before = descriptors()
        some(60)
        assert descriptors() <= before + 3  # idle connections, which the pool bounds


def isolated(name, *arguments):
    """Run a script in an interpreter of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-X", "dev", ISOLATED / name, *arguments]
    done = subprocess.run(command, env=env, cwd=ISOLATED.parent, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize("form", ["pairs", "items", "columns", "errors", "dropped"])
def test_no_leak_over_a_thousand_batches(form):
    assert isolated("leaks.py", form).startswith("grown by")


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="needs reference counts")
def test_reference_counts():
    assert isolated("refcounts.py").split() == ["items", "pairs", "columns", "errors", "into"]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_while_items_are_dropped():
    """10,000 objects of 1 KiB and 64 of 1 MiB pass through 4 MiB at most."""
    assert isolated("dropping.py").count("at most") == 2
