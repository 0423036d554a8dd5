"""`Columns` in the hands of others: Arrow, numpy, pickle, other processes. No copy is made, no memory used twice."""

from __future__ import annotations

import ctypes
import gc
import mmap
import multiprocessing
import pickle
import sys
import threading
from multiprocessing import shared_memory

import numpy
import pytest

import aisfast
import wire
from aisfast._blocks import idle_memory, span_of, trim
from aisfast._delivery import Form
from aisfast.columns import Columns
from aisfast.stats import Stats
from delivering import deliver, entries_of
from scripted import ONE_ANSWER, Scripted

KIB = 1024
MIB = 1024 * KIB
WHOLE = [wire.Entry(f"o{i}", bytes([i]) * (3000 * i)) for i in range(20)]
HOLES = [wire.Entry(f"o{i}", b"" if i % 3 == 1 else b"x" * i, missing=i % 3 == 1) for i in range(19)]
CASES = {
    "whole": WHOLE,
    "holes": HOLES,
    "one": [wire.Entry("o", b"payload")],
    "only a hole": [wire.Entry("o", missing=True)],
    "empty payloads": [wire.Entry("a"), wire.Entry("b")],
    "eight and a hole": [*(wire.Entry(str(i), b"12") for i in range(8)), wire.Entry("o", missing=True)],
}
ALL_CASES = pytest.mark.parametrize("entries", CASES.values(), ids=CASES)


def columns_of(entries, **options):
    got = deliver(entries_of(entries), [wire.streaming(entries).raw], Form.COLUMNS, **options)
    assert got.error is None
    return Columns.of(got.feed.delivery, Stats())


def truth(entries):
    return [None if entry.missing else entry.payload for entry in entries]


def churn():
    """Batches that take every slab that is free."""
    for _ in range(20):
        columns_of([wire.Entry("o", b"?" * 600_000)], expected=600_000)
        columns_of(WHOLE)


# --------------------------------------------------------------------------------------------------------------- Arrow


class Schema(ctypes.Structure):
    """Arrow C data interface: ArrowSchema."""


class Array(ctypes.Structure):
    """Arrow C data interface: ArrowArray."""


Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.c_void_p),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Schema))),
    ("private_data", ctypes.c_void_p),
]
Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.c_void_p),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Array))),
    ("private_data", ctypes.c_void_p),
]


def pointer(capsule, name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


def moved(kind, capsule, name):
    """What a consumer does: take the struct over, and mark the capsule's as released."""
    source = kind.from_address(pointer(capsule, name))
    taken = kind.from_buffer_copy(source)
    ctypes.memset(ctypes.addressof(source) + kind.release.offset, 0, ctypes.sizeof(ctypes.c_void_p))
    return taken


def consume(columns, requested=None):
    schema, array = columns.__arrow_c_array__(requested)
    return moved(Schema, schema, b"arrow_schema"), moved(Array, array, b"arrow_array")


def read(array, number=ctypes.c_int64):
    """The values of a large_binary array, by its buffers alone; of a binary one with int32."""
    n = array.length
    offsets = (number * (n + 1)).from_address(array.buffers[1])
    valid = array.buffers[0]
    bits = None if valid is None else ctypes.string_at(valid, (n + 7) // 8)
    values = []
    for i in range(n):
        if bits is not None and not bits[i // 8] >> i % 8 & 1:
            assert offsets[i] == offsets[i + 1]
            values.append(None)
        else:
            values.append(ctypes.string_at(array.buffers[2] + offsets[i], offsets[i + 1] - offsets[i]))
    return values


@ALL_CASES
def test_arrow_structs(entries):
    columns = columns_of(entries)
    schema, array = consume(columns)
    assert (schema.format, schema.name, schema.metadata, schema.flags) == (b"Z", b"", None, 2)
    assert (schema.n_children, schema.children, schema.dictionary) == (0, None, None)
    assert (array.length, array.offset, array.n_buffers, array.n_children) == (len(entries), 0, 3, 0)
    missing = sum(entry.missing for entry in entries)
    assert array.null_count == missing
    assert (array.buffers[0] is None) == (not missing)
    assert array.buffers[1] == columns.offsets.ctypes.data
    assert array.buffers[2] == columns.data.ctypes.data
    assert read(array) == truth(entries)
    schema.release(schema)
    array.release(array)
    assert not schema.release
    assert not array.release


def test_arrow_schema_alone():
    schema = moved(Schema, columns_of(WHOLE).__arrow_c_schema__(), b"arrow_schema")
    assert (schema.format, schema.flags) == (b"Z", 2)
    schema.release(schema)


@pytest.mark.parametrize("take", [False, True], ids=["nobody takes it", "taken and released"])
def test_arrow_array_keeps_the_slab_until_it_is_released(take):
    """And no longer; capsules that nobody takes release what they hold."""
    gc.collect()
    trim()
    columns = columns_of(WHOLE, expected=4 * MIB)
    address = columns.data.ctypes.data
    capsules = columns.__arrow_c_array__()
    del columns
    gc.collect()
    assert idle_memory() < 4 * MIB
    if take:
        array = moved(Array, capsules[1], b"arrow_array")
        del capsules
        assert idle_memory() < 4 * MIB
        churn()
        assert array.buffers[2] == address
        assert read(array) == truth(WHOLE)
        releasing = threading.Thread(target=array.release, args=(array,))  # any thread may
        releasing.start()
        releasing.join()
        assert not array.release
    else:
        del capsules
    assert idle_memory() >= 4 * MIB
    again = columns_of(WHOLE, expected=4 * MIB)
    assert again.data.ctypes.data == address


def test_arrow_arrays_leave_no_reference_behind():
    columns = columns_of(HOLES)
    before = sys.getrefcount(columns._slab), sys.getrefcount(columns._offsets)
    for _ in range(50):
        columns.__arrow_c_array__()
        columns.__arrow_c_array__(columns.__arrow_c_schema__())
        schema, array = consume(columns)
        schema.release(schema)
        array.release(array)
    assert (sys.getrefcount(columns._slab), sys.getrefcount(columns._offsets)) == before


@ALL_CASES
def test_arrow_binary_if_it_is_asked_for(entries, monkeypatch):
    columns = columns_of(entries)
    wanted = columns.__arrow_c_schema__()
    Schema.from_address(pointer(wanted, b"arrow_schema")).format = b"z"
    schema, array = consume(columns, wanted)
    assert schema.format == b"z"
    assert array.buffers[2] == columns.data.ctypes.data
    assert read(array, ctypes.c_int32) == truth(entries)
    array.release(array)
    monkeypatch.setattr("aisfast.columns.MOST_OF_BINARY", len(columns.data))
    assert consume(columns, wanted)[0].format == b"z"
    monkeypatch.setattr("aisfast.columns.MOST_OF_BINARY", len(columns.data) - 1)
    assert consume(columns, wanted)[0].format == b"Z"


def test_arrow_schema_that_is_no_schema():
    columns = columns_of(WHOLE)
    for request in (5, "Z", columns):
        with pytest.raises(TypeError, match=f"not {type(request).__name__}"):
            columns.__arrow_c_array__(request)
    _, array = columns.__arrow_c_array__(requested_schema=columns.__arrow_c_schema__())
    with pytest.raises(ValueError, match="'arrow_array'"):
        columns.__arrow_c_array__(array)
    used = columns.__arrow_c_schema__()
    taken = moved(Schema, used, b"arrow_schema")
    with pytest.raises(ValueError, match="released"):
        columns.__arrow_c_array__(used)
    taken.release(taken)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    with pytest.raises(ValueError, match="without a name"):
        columns.__arrow_c_array__(new(1, None, None))


@ALL_CASES
def test_pyarrow(entries):
    pyarrow = pytest.importorskip("pyarrow")
    columns = columns_of(entries)
    array = pyarrow.array(columns)
    array.validate(full=True)
    assert array.type == pyarrow.large_binary()
    assert array.to_pylist() == truth(entries)
    assert array.null_count == sum(entry.missing for entry in entries)
    valid, offsets, data = array.buffers()
    assert (valid is None) == (array.null_count == 0)
    assert offsets.address == columns.offsets.ctypes.data
    assert data is None or data.address == columns.data.ctypes.data
    assert pyarrow.array(columns, pyarrow.binary()).to_pylist() == truth(entries)
    part = array[len(entries) // 2 :]
    del array, columns, valid, offsets, data
    churn()
    assert part.to_pylist() == truth(entries)[len(entries) // 2 :]


@ALL_CASES
def test_nanoarrow(entries):
    nanoarrow = pytest.importorskip("nanoarrow")
    array = nanoarrow.Array(columns_of(entries))
    churn()
    assert array.schema.type == nanoarrow.Type.LARGE_BINARY
    assert array.to_pylist() == truth(entries)


# -------------------------------------------------------------------------------------------------------------- pickle


def same(one, other):
    return (
        one.data.tobytes() == other.data.tobytes()
        and one.offsets.tolist() == other.offsets.tolist()
        and one.ok.tolist() == other.ok.tolist()
        and (one.errors, one.names, one.stats) == (other.errors, other.names, other.stats)
        and [(item.index, item.name, item.err_msg) for item in one]
        == [(item.index, item.name, item.err_msg) for item in other]
    )


@ALL_CASES
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_in_band(entries, protocol):
    columns = columns_of(entries)
    again = pickle.loads(pickle.dumps(columns, protocol))
    assert same(again, columns)
    assert not again.data.flags.writeable
    assert same(pickle.loads(pickle.dumps(again, protocol)), columns)


@ALL_CASES
def test_pickled_out_of_band(entries):
    columns = columns_of(entries)
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(columns, 5, buffer_callback=buffers.append)
    assert len(text) < 1500 + 50 * len(entries)
    assert numpy.shares_memory(numpy.frombuffer(buffers[0], numpy.uint8), columns.data) or not len(columns.data)
    again = pickle.loads(text, buffers=buffers)
    assert again.data.ctypes.data == columns.data.ctypes.data
    carried = [bytearray(buffer) for buffer in buffers]  # as another process would have them, and writable
    other = pickle.loads(text, buffers=carried)
    assert same(other, columns)
    assert not other.data.flags.writeable
    if len(columns.data):
        assert other.data.ctypes.data == ctypes.addressof(ctypes.c_char.from_buffer(carried[0]))
    schema, array = consume(other)
    del other, carried
    assert read(array) == truth(entries)
    schema.release(schema)
    array.release(array)


def test_pickled_without_a_second_copy():
    """In band there is the pickle, which grows to half as much again; out of band there is nothing."""
    import tracemalloc

    columns = columns_of([wire.Entry("o", b"x" * 8 * MIB)])
    tracemalloc.start()
    try:
        text = pickle.dumps(columns, 5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        pickle.dumps(columns, 5, buffer_callback=lambda buffer: None)
        assert tracemalloc.get_traced_memory()[1] - before < MIB
    finally:
        tracemalloc.stop()
    assert 8 * MIB < len(text) <= peak < 13 * MIB


def test_buffer_that_is_not_contiguous():
    with pytest.raises(BufferError):
        span_of(memoryview(b"1234")[::2])


def _double(inbox, outbox):
    columns = inbox.get()
    outbox.put((columns, [bytes(item) * 2 for item in columns if item.ok]))


def test_through_queues_of_other_processes():
    context = multiprocessing.get_context("spawn")
    inbox, outbox = context.Queue(), context.Queue()
    process = context.Process(target=_double, args=(inbox, outbox))
    process.start()
    columns = columns_of(HOLES)
    inbox.put(columns)
    again, doubled = outbox.get(timeout=60)
    process.join()
    assert same(again, columns)
    assert doubled == [payload * 2 for payload in truth(HOLES) if payload is not None]
    for queue in (inbox, outbox):
        queue.close()
        queue.join_thread()


# ------------------------------------------------------------------------------------------------ views, and who holds


HOLDERS = {
    "array": lambda columns: columns.data,
    "part": lambda columns: columns.data[5:100_000:3],
    "sizes": lambda columns: numpy.split(columns.data, columns.offsets[1:-1])[7],
    "item": lambda columns: columns[7],
    "view": lambda columns: columns[7].data,
    "numpy of an item": lambda columns: columns[7].numpy(),
    "Arrow": lambda columns: columns.__arrow_c_array__()[1],
    "out of band": lambda columns: pickle.loads(pickle.dumps(columns, 5, buffer_callback=KEPT.append), buffers=KEPT),
}
KEPT: list[pickle.PickleBuffer] = []


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_slab_is_not_used_again_while_it_is_seen(holder):
    gc.collect()
    trim()
    KEPT.clear()
    columns = columns_of(WHOLE, expected=4 * MIB)
    address = columns.data.ctypes.data
    held = holder(columns)
    del columns
    others = [columns_of(WHOLE, expected=4 * MIB) for _ in range(2)]
    assert address not in [other.data.ctypes.data for other in others]
    del others, held
    KEPT.clear()
    gc.collect()
    again = [columns_of(WHOLE, expected=4 * MIB) for _ in range(3)]
    assert address in [other.data.ctypes.data for other in again]


@pytest.mark.parametrize("kind", ["numpy", "bytearray", "mmap", "shared memory", "torch", "two dimensions"])
def test_fetch_into(kind):
    size = sum(len(entry.payload) for entry in WHOLE)
    shared = tensor = None
    if kind == "shared memory":
        shared = shared_memory.SharedMemory(create=True, size=size + 10)
    elif kind == "torch":
        tensor = pytest.importorskip("torch").zeros(size + 10, dtype=pytest.importorskip("torch").uint8)
    into = {
        "numpy": lambda: numpy.zeros(size + 10, numpy.uint8),
        "bytearray": lambda: bytearray(size + 10),
        "mmap": lambda: mmap.mmap(-1, size + 10),
        "shared memory": lambda: shared.buf,
        "torch": lambda: tensor.numpy(),
        "two dimensions": lambda: numpy.zeros((2, size), numpy.float32),
    }[kind]()
    try:
        with (
            Scripted(lambda request: wire.streaming(WHOLE).raw) as server,
            aisfast.Client(server.url, policy=ONE_ANSWER) as client,
        ):
            columns = client.batch([entry.name for entry in WHOLE], bucket=client.bucket("b")).fetch(into=into)
        memory = numpy.frombuffer(into, numpy.uint8)
        assert numpy.shares_memory(columns.data, memory)
        assert memory[:size].tobytes() == b"".join(entry.payload for entry in WHOLE)
        assert not memory[size:].any()
        assert [bytes(item) for item in columns] == truth(WHOLE)
        if tensor is not None:
            assert bytes(tensor.numpy()[:size]) == columns.data.tobytes()
        schema, array = consume(columns)
        assert read(array) == truth(WHOLE)
        schema.release(schema)
        array.release(array)
        del columns, memory, array, schema
    finally:
        if shared is not None:
            del into
            gc.collect()
            shared.close()
            shared.unlink()
