"""`Batch`: what may be asked for and how, the three ways to get it, and what is said when it cannot be had."""

from __future__ import annotations

import base64
import copy
import gc
import hashlib
import inspect
import json
import os
import pickle
import queue
import threading

import numpy
import pytest

import aisfast
import wire
from aisfast import errors
from aisfast._request import check_names
from aisfast.batch import Batch
from aisfast.enums import Colocation
from aisfast.errors import (
    AISError,
    ErrBckNotFound,
    ErrObjNotFound,
    IncompleteBatchError,
    LimitError,
    WireError,
)
from aisfast.models import MossIn, Namespace
from scripted import ONE_ANSWER, Last, Scripted, answer

PATIENT = 30  # seconds: what a test waits for comes at once, or never
FILES = {"a": b"first", "b": b"", "dir/é.bin": bytes(range(256)) * 300, "z": b"last"}
WAYS = ["get", "stream", "fetch"]


@pytest.fixture
def endpoint(request):
    """`AIS_ENDPOINT` if it is set, else the emulator."""
    return os.environ.get("AIS_ENDPOINT") or request.getfixturevalue("ais_cluster").endpoint


@pytest.fixture
def client(endpoint):
    with aisfast.Client(endpoint) as client:
        yield client


@pytest.fixture
def bucket(client):
    bucket = client.bucket("aisfast-test-batch")
    bucket.delete(missing_ok=True)
    bucket.create()
    for name, payload in FILES.items():
        bucket.object(name).get_writer().put_content(payload)
    yield bucket
    bucket.delete()


@pytest.fixture
def nowhere():
    """A client whose endpoint nobody listens at: what is refused is refused before anything is sent."""
    with aisfast.Client("http://127.0.0.1:9") as client:
        yield client


def take(batch, way, **options):
    if way == "get":
        return [data for _, data in batch.get(clear_batch=False, **options)]
    return [bytes(item) for item in (batch.stream(**options) if way == "stream" else batch.fetch(**options))]


def body_of(batch, way="fetch", **options):
    """(path and query, request body) as they are sent."""
    with Scripted(lambda request: answer(400)) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
        batch.request_client = client
        with pytest.raises(AISError):
            take(batch, way, **options)
    return server.requests[0].target, json.loads(server.requests[0].body)


# ------------------------------------------------------------------------------------------------- what is asked for


def test_signatures_are_the_official_ones():
    assert str(inspect.signature(Batch.add)).startswith(
        "(self, obj: 'Object | str', opaque: 'bytes | None' = None, archpath: 'str | None' = None, "
        "start: 'int | None' = None, length: 'int | None' = None, bck: 'str | None' = None, "
        "provider: 'str | None' = None)"
    )
    assert list(inspect.signature(Batch.get).parameters) == [
        "self", "raw", "decode_as_stream", "clear_batch", "tar_buffer_size", "policy",
    ]  # fmt: skip
    assert list(inspect.signature(Batch.__init__).parameters) == [
        "self", "request_client", "objects", "bucket", "output_format", "cont_on_err", "only_obj_name", "streaming_get",
        "colocation",
    ]  # fmt: skip
    assert list(inspect.signature(Batch.stream).parameters) == ["self", "missing", "policy"]
    assert list(inspect.signature(Batch.fetch).parameters) == ["self", "missing", "into", "policy"]


def test_request_as_it_is_sent(nowhere):
    bucket = nowhere.bucket("b")
    batch = nowhere.batch(["x", "y"], bucket=bucket)
    assert batch.add("s.tar", archpath="m", opaque=b"\xfb\xff", start=5, length=7) is batch
    batch.add(nowhere.bucket("c", "aws").object("o")).add("p", bck="d", provider="gcp").add("q", start=0, length=-1)
    batch.add("r", opaque=b"", archpath="", start=0, length=0)
    target, body = body_of(batch)
    assert target == "/v1/ml/moss/b?provider=ais"
    assert body == {
        "in": [
            {"objname": "x", "bucket": "b", "provider": "ais"},
            {"objname": "y", "bucket": "b", "provider": "ais"},
            {
                "objname": "s.tar",
                "bucket": "b",
                "provider": "ais",
                "archpath": "m",
                "opaque": "+/8=",
                "start": 5,
                "length": 7,
            },
            {"objname": "o", "bucket": "c", "provider": "aws"},
            {"objname": "p", "bucket": "d", "provider": "gcp"},
            {"objname": "q", "bucket": "b", "provider": "ais", "length": -1},
            {"objname": "r", "bucket": "b", "provider": "ais"},
        ],
        "mime": ".tar",
        "coer": True,
        "onob": False,
        "strm": True,
    }


def test_options_as_they_are_sent(nowhere):
    options = {
        "cont_on_err": False,
        "only_obj_name": True,
        "streaming_get": False,
        "colocation": Colocation.TARGET_AWARE,
    }
    batch = nowhere.batch([nowhere.bucket("c").object("o")], **options)
    for way in WAYS:
        target, body = body_of(batch, way)
        assert target == "/v1/ml/moss?coloc=1"
        assert body["coer"] is (way != "get")  # native calls ignore it
        assert (body["onob"], body["strm"], body["coloc"]) == (True, False, 1)


def test_bucket_in_a_namespace(nowhere):
    """Entries cannot name it: the request does, or is refused."""
    space = Namespace(name="ns")
    bucket = nowhere.bucket("b", namespace=space)
    batch = nowhere.batch(["x", bucket.object("y")], bucket=bucket)
    batch.add("z")
    target, body = body_of(batch)
    assert target == "/v1/ml/moss/b?provider=ais&namespace=%40%23ns"
    assert body["in"] == [{"objname": "x"}, {"objname": "y"}, {"objname": "z"}]
    for own in (
        None,
        nowhere.bucket("b"),
        nowhere.bucket("c", namespace=space),
        nowhere.bucket("b", namespace=Namespace("u")),
    ):
        with pytest.raises(ValueError, match="namespace"):
            nowhere.batch([bucket.object("y")], bucket=own)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"objects": "x"}, "Bucket must be provided"),
        ({"objects": ["x"]}, "Bucket must be provided"),
        ({"objects": ("x",)}, "Unsupported object type"),
        ({"objects": 5}, "Unsupported object type"),
        ({"objects": [None]}, "Unsupported object type"),
        ({"objects": [b"x"]}, "Unsupported object type"),
        ({"output_format": ".rar"}, "Unsupported output format"),
        ({"output_format": None}, "Unsupported output format"),
        ({"output_format": "tar"}, "Unsupported output format"),
        ({"colocation": 3}, "colocation"),
        ({"colocation": "1"}, "colocation"),
        ({"colocation": None}, "colocation"),
    ],
)
def test_wrong_arguments_of_a_batch(nowhere, arguments, words):
    with pytest.raises(ValueError, match=words):
        nowhere.batch(**arguments)


def test_colocation_that_the_server_lacks(nowhere):
    with pytest.raises(NotImplementedError):
        nowhere.batch(colocation=Colocation.TARGET_AND_SHARD_AWARE)


BAD_NAMES = ["", "a/", "/", ".", "..", "a/../b", "./a", "a/.", "~/a"]
GOOD_NAMES = [
    "/q",
    "d//b",
    "...",
    "a..b",
    ".a",
    "a.",
    "~a",
    "e/~/b",
    " ",
    "a b",
    "é",
    "日本/\U0001f600",
    "a\\b",
    '"',
    "\x01",
    "%2e",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_no_object_has(nowhere, name):
    bucket = nowhere.bucket("b")
    for make in (
        lambda: nowhere.batch(["x", name], bucket=bucket),
        lambda: nowhere.batch([bucket.object("x"), bucket.object(name)]),
        lambda: nowhere.batch("x", bucket=bucket).add(name),
        lambda: nowhere.batch("x", bucket=bucket).add("s.tar", archpath=name or "a/"),
    ):
        with pytest.raises(ValueError, match="entry 1"):
            make()


def test_names_that_objects_have(client, bucket):
    for name in GOOD_NAMES:
        bucket.object(name.lstrip("/")).get_writer().put_content(name.encode())
    names = [name.lstrip("/") for name in GOOD_NAMES]
    for onob in (False, True):
        batch = client.batch(names, bucket=bucket, only_obj_name=onob)
        for way in WAYS:
            assert take(batch, way) == [name.encode() for name in GOOD_NAMES]


@pytest.mark.parametrize(
    "options",
    [
        {"start": -1, "length": 1},
        {"start": -1},
        {"start": 1},
        {"start": 1, "length": 0},
        {"length": -2},
        {"start": 5, "length": -2},
        {"start": 1 << 63, "length": 1},
        {"start": 1, "length": 1 << 63},
        {"start": 1.5, "length": 1},
        {"start": "1", "length": 1},
        {"start": 1, "length": True},
        {"start": True, "length": 1},
    ],
)
def test_ranges_that_are_none(nowhere, options):
    batch = nowhere.batch(bucket=nowhere.bucket("b"))
    with pytest.raises(ValueError, match="byte range"):
        batch.add("x", **options)
    assert len(batch) == 0


def test_wrong_arguments_of_add(nowhere):
    batch = nowhere.batch(bucket=nowhere.bucket("b"))
    for options, words in [({"bck": "c"}, "together"), ({"provider": "ais"}, "together")]:
        with pytest.raises(ValueError, match=words):
            batch.add("x", **options)
    with pytest.raises(ValueError, match="cannot be combined"):
        batch.add(nowhere.bucket("c").object("o"), bck="c", provider="ais")
    for obj in (None, 5, b"x", ["x"]):
        with pytest.raises(ValueError, match="Unsupported object type"):
            batch.add(obj)
    with pytest.raises(ValueError, match="opaque='text' must be bytes"):
        batch.add("x", opaque="text")
    with pytest.raises(ValueError, match="archpath=5 must be a str"):
        batch.add("x", archpath=5)
    with pytest.raises(ValueError, match="policy=5 must be a Policy"):
        nowhere.batch("x", bucket=nowhere.bucket("b")).fetch(policy=5)
    with pytest.raises(ValueError, match="Bucket must be provided"):
        nowhere.batch().add("x")
    assert len(batch) == 0


def test_text_that_no_name_holds(nowhere):
    """Lone surrogates, as `os.listdir` makes them of bytes that are not UTF-8."""
    bucket = nowhere.bucket("b")
    for make in (
        lambda: nowhere.batch(["x", "x\udcff"], bucket=bucket),
        lambda: nowhere.batch("x", bucket=bucket).add("x\udcff"),
        lambda: nowhere.batch("x", bucket=bucket).add("s.tar", archpath="a\udcff"),
    ):
        with pytest.raises(ValueError, match=r"entry 1.*UTF-8"):
            make()
    for entry in (MossIn(obj_name="x\udcff"), MossIn(obj_name="s.tar", archpath="a\udcff")):
        batch = nowhere.batch("x", bucket=bucket)
        batch.requests_list.append(entry)
        for way in WAYS:
            with pytest.raises(ValueError, match=r"entry 1.*UTF-8"):
                take(batch, way)


@pytest.mark.parametrize("way", WAYS)
def test_empty_batch(nowhere, way):
    for batch in (nowhere.batch(), nowhere.batch([]), nowhere.batch("x", bucket=nowhere.bucket("b")).clear()):
        with pytest.raises(ValueError, match="No objects added to batch"):
            take(batch, way)


def test_wrong_arguments_of_the_calls(nowhere):
    batch = nowhere.batch("x", bucket=nowhere.bucket("b"))
    for size in (0, -1, True, 1.5, "1"):
        with pytest.raises(ValueError, match="tar_buffer_size must be a positive integer"):
            batch.get(tar_buffer_size=size)
    with pytest.raises(ValueError, match="tar_buffer_size requires TAR"):
        batch.get(raw=True, tar_buffer_size=1)
    for way in ("stream", "fetch"):
        with pytest.raises(ValueError, match="missing="):
            getattr(batch, way)(missing="skip")
    for into in (bytes(9), "x", 5):
        with pytest.raises((TypeError, BufferError)):
            batch.fetch(into=into)
    with pytest.raises(ValueError, match="tar_buffer_size requires TAR"):
        nowhere.batch("x", bucket=nowhere.bucket("b"), output_format=".zip").get(tar_buffer_size=1)
    assert len(batch) == 1


# ------------------------------------------------------------------------------------------------- the list of entries


def test_length_and_text(nowhere):
    batch = nowhere.batch(bucket=nowhere.bucket("b"))
    assert (len(batch), repr(batch)) == (0, "Batch(objects=0, format=.tar)")
    batch.add("x").add("y")
    assert (len(batch), repr(batch)) == (2, "Batch(objects=2, format=.tar)")
    assert batch.clear() is batch
    assert len(batch) == 0


def test_list_of_entries_is_the_truth(nowhere):
    batch = nowhere.batch(["x", "y"], bucket=nowhere.bucket("b"))
    entries = batch.requests_list
    assert entries is batch.requests_list is batch.request.moss_in
    assert [entry.obj_name for entry in entries] == ["x", "y"]
    entries.append(MossIn(obj_name="z", bck="c", provider="ais", start=1, length=2, opaque="+/8=", archpath="m"))
    del entries[0]
    entries.reverse()
    batch.add("last")
    assert len(batch) == len(entries) == 3
    _, body = body_of(batch)
    assert body["in"] == [
        {"objname": "z", "bucket": "c", "provider": "ais", "archpath": "m", "opaque": "+/8=", "start": 1, "length": 2},
        {"objname": "y", "bucket": "b", "provider": "ais"},
        {"objname": "last", "bucket": "b", "provider": "ais"},
    ]
    assert body["in"] == [entry.dict() for entry in entries]
    batch.clear()
    assert len(entries) == 3  # a new list
    assert batch.requests_list == []


def test_list_of_entries_is_the_same_as_columns(nowhere):
    """Touching the list changes nothing of what is sent."""
    rows = [
        ("x", {}),
        ("s.tar", {"archpath": "m", "opaque": b"\xfb\xff"}),
        ("r", {"start": 3, "length": -1}),
        ("é", {}),
    ]
    bodies = []
    for touched in (False, True):
        batch = nowhere.batch(bucket=nowhere.bucket("b"))
        for name, options in rows:
            batch.add(name, **options)
        if touched:
            assert len(batch.requests_list) == 4
        bodies.append(body_of(batch))
    assert bodies[0] == bodies[1]


def test_replaced_list(nowhere):
    batch = nowhere.batch(["x"], bucket=nowhere.bucket("b"))
    mine = [MossIn(obj_name="y")]
    batch.request.moss_in = mine
    batch.add("z")
    assert batch.requests_list is mine
    assert [entry["objname"] for entry in body_of(batch)[1]["in"]] == ["y", "z"]


@pytest.mark.parametrize("entry", [None, "x", {"objname": "x"}, 5, object()])
def test_what_is_no_entry(nowhere, entry):
    batch = nowhere.batch(["x"], bucket=nowhere.bucket("b"))
    batch.requests_list.append(entry)
    for way in WAYS:
        with pytest.raises(ValueError, match=r"requests_list\[1\]"):
            take(batch, way)


@pytest.mark.parametrize("opaque", ["-_8=", "-_-_", "x", "eA", "*&^%", "é"])
def test_opaque_of_the_list_that_is_not_base64(nowhere, opaque):
    """It is refused, as the server does, and not sent as something else."""
    batch = nowhere.batch(["x"], bucket=nowhere.bucket("b"))
    batch.requests_list.append(MossIn(obj_name="y", opaque=opaque))
    with pytest.raises(ValueError, match=r"requests_list\[1\]"):
        batch.fetch()


def test_running_call_keeps_what_it_asked(client, bucket):
    batch = client.batch(list(FILES), bucket=bucket)
    calls = [batch.get(clear_batch=False), batch.stream()]
    batch.add("a")
    batch.requests_list.insert(0, MossIn(obj_name="z"))
    assert [data for _, data in calls[0]] == list(FILES.values())
    got = list(calls[1])
    assert [item.name for item in got] == list(FILES)
    assert [bytes(item) for item in got] == list(FILES.values())
    assert take(batch, "fetch") == [b"last", *FILES.values(), b"first"]
    batch.clear()
    assert [item.name for item in got] == list(FILES)


def test_clearing(client, bucket):
    batch = client.batch(list(FILES), bucket=bucket)
    for way in ("stream", "fetch"):
        take(batch, way)
        assert len(batch) == 4
    assert len(list(batch.get(clear_batch=False))) == 4
    assert len(batch) == 4
    pairs = batch.get()
    assert len(batch) == 0
    assert [data for _, data in pairs] == list(FILES.values())
    batch = client.batch("x", bucket=client.bucket("no-such-bucket"))
    with pytest.raises(ErrBckNotFound, match="no-such-bucket"):
        batch.get()
    assert len(batch) == 1


@pytest.mark.parametrize("touched", [False, True])
def test_pickled_batch(client, bucket, touched):
    batch = client.batch(["a", "z"], bucket=bucket, cont_on_err=False).add("dir/é.bin", opaque=b"o", start=2, length=3)
    if touched:
        batch.requests_list.append(MossIn(obj_name="b"))
    for other in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert repr(other) == repr(batch)
        with other.request_client:
            assert take(other, "fetch") == [b"first", b"last", bytes([2, 3, 4]), *([b""] if touched else [])]
        assert other.request.cont_on_err is False
        other.add("a")
        assert len(batch) == len(other) - 1


# ------------------------------------------------------------------------------------------------------- what comes


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_the_three_ways(client, bucket, streaming):
    batch = client.batch(bucket=bucket, streaming_get=streaming)
    for name in FILES:
        batch.add(name, opaque=name.encode())
    batch.add("dir/é.bin", start=1, length=5)

    pairs = list(batch.get(clear_batch=False))
    assert [data for _, data in pairs] == [*FILES.values(), bytes(range(1, 6))]
    assert all(type(data) is bytes for _, data in pairs)
    for (info, data), name in zip(pairs, [*FILES, "dir/é.bin"], strict=True):
        assert (info.obj_name, info.bucket, info.provider, info.size) == (name, bucket.name, "ais", len(data))
        assert info.err_msg is None
        assert info.archpath == ("" if streaming else None)
        assert pickle.loads(pickle.dumps(info)) == info
    assert [info.opaque for info, _ in pairs] == [*(name.encode() for name in FILES), None]

    with batch.stream() as stream:
        items = list(stream)
    for i, (item, (info, data)) in enumerate(zip(items, pairs, strict=True)):
        assert (item.index, item.name, item.bucket, item.provider, item.size) == (
            i,
            info.obj_name,
            bucket.name,
            "ais",
            len(data),
        )
        assert (item.opaque, item.archpath, item.err_msg, item.ok) == (info.opaque, None, None, True)
        assert (bytes(item), item.tobytes(), len(item)) == (data, data, len(data))
        assert isinstance(item.data, memoryview)
        assert item.data.readonly
        assert item.data == data
        assert hashlib.sha256(item).digest() == hashlib.sha256(data).digest()
        assert item.numpy().tobytes() == data
        assert item.numpy().dtype == numpy.uint8
        assert not item.numpy().flags.writeable
        assert b"".join([item]) == data
    assert stream.stats.members == 5
    assert stream.stats.payload_bytes == sum(len(data) for _, data in pairs)

    columns = batch.fetch()
    assert len(columns) == 5
    assert columns.data.tobytes() == b"".join(data for _, data in pairs)
    assert columns.sizes.tolist() == [len(data) for _, data in pairs]
    assert columns.offsets.tolist() == [0, *numpy.cumsum(columns.sizes)]
    assert (columns.data.dtype, columns.offsets.dtype, columns.ok.dtype) == (numpy.uint8, numpy.int64, numpy.bool_)
    assert columns.sizes.dtype == numpy.int64
    assert columns.ok.tolist() == [True] * 5
    assert columns.errors == {}
    assert columns.names == [info.obj_name for info, _ in pairs]
    assert [bytes(item) for item in columns] == [data for _, data in pairs]
    assert (columns[-1].index, columns[4].name, [item.index for item in columns[1:3]]) == (4, "dir/é.bin", [1, 2])
    for array in (columns.data, columns.offsets, columns.ok):
        assert not array.flags.writeable
    for index in (5, -6):
        with pytest.raises(IndexError):
            columns[index]
    assert columns.stats.members == 5
    assert "5 entries" in repr(columns)


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_missing_entries(client, bucket, streaming):
    names = ["a", "gone", "z", "gone too"]
    batch = client.batch(names, bucket=bucket, streaming_get=streaming)
    pairs = list(batch.get(clear_batch=False))
    assert [data for _, data in pairs] == [b"first", b"", b"last", b""]
    assert [bool(info.err_msg) for info, _ in pairs] == [False, True, False, True]
    if streaming:
        assert pairs[1][0].err_msg == "Batch entry failed on the server"
    else:
        assert "gone" in pairs[1][0].err_msg

    items = list(batch.stream(missing="mark"))
    assert [item.ok for item in items] == [True, False, True, False]
    hole = items[1]
    assert (hole.name, hole.size, bool(hole.err_msg), bool(hole)) == ("gone", 0, True, False)
    for touch in (bytes, len, memoryview, lambda i: i.data, lambda i: i.numpy(), lambda i: i.tobytes(), hashlib.sha256):
        with pytest.raises(ErrObjNotFound, match="gone"):
            touch(hole)
    assert "missing" in repr(hole)
    again = pickle.loads(pickle.dumps(hole))
    assert (again.ok, again.err_msg, again.name, again.index) == (False, hole.err_msg, "gone", 1)

    columns = batch.fetch(missing="mark")
    assert columns.ok.tolist() == [True, False, True, False]
    assert columns.sizes.tolist() == [5, 0, 4, 0]
    assert columns.errors.keys() == {1, 3}
    assert [item.ok for item in columns] == [True, False, True, False]
    with pytest.raises(ErrObjNotFound):
        bytes(columns[3])
    assert columns.stats.misses == 2

    stream = batch.stream()
    assert next(stream).name == "a"
    with pytest.raises(ErrObjNotFound, match=r"entry 1 \([-a-z]+/gone\)") as caught:
        next(stream)
    assert caught.value.missing == (1,)
    assert list(stream) == []
    with pytest.raises(ErrObjNotFound, match=r"entry 1 \([-a-z]+/gone\).*entry 3 \([-a-z]+/gone too\)") as caught:
        batch.fetch()
    assert caught.value.missing == (1, 3)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, errors.AISRetryableError)


def test_missing_entry_in_strict_mode():
    """`cont_on_err=False`: streaming, an error in its place; buffered, at the call. What a remote miss looks like."""
    entries = [
        wire.Entry("a", b"1"),
        wire.Entry("b", missing=True),
        wire.Entry("c", b"3"),
        wire.Entry("d", missing=True),
    ]
    for streaming, raw in ((True, wire.streaming(entries).raw), (False, wire.buffered(entries).raw)):
        with Scripted(lambda request, raw=raw: raw) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
            bucket = client.bucket("b")
            batch = client.batch(list("abcd"), bucket=bucket, cont_on_err=False, streaming_get=streaming)
            if streaming:
                pairs = batch.get(clear_batch=False)
                assert next(pairs)[1] == b"1"
                with pytest.raises(ErrObjNotFound, match=r"entry 1 \(b/b\)"):
                    next(pairs)
                assert list(pairs) == []
            else:
                with pytest.raises(ErrObjNotFound, match=r"entry 1 \(b/b\).*entry 3 \(b/d\)"):
                    batch.get(clear_batch=False)
            items = list(batch.stream(missing="mark"))  # native calls go by `missing` alone
            assert [item.ok for item in items] == [True, False, True, False]
        assert [json.loads(request.body)["coer"] for request in server.requests] == [False, True]


def test_archived_members(client, bucket):
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as shard:
        for name, payload in {"x.txt": b"x", "d/y.txt": b"yy"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            shard.addfile(info, io.BytesIO(payload))
    bucket.object("s.tar").get_writer().put_content(out.getvalue())
    for onob in (False, True):
        for streaming in (False, True):
            batch = client.batch(bucket=bucket, only_obj_name=onob, streaming_get=streaming)
            for archpath in ("x.txt", "d/y.txt", "/d/y.txt", "no.txt", "x.txt"):
                batch.add("s.tar", archpath=archpath)
            batch.add("no.tar", archpath="x.txt").add("s.tar")
            items = list(batch.stream(missing="mark"))
            assert [item.tobytes() if item.ok else None for item in items] == [
                b"x", b"yy", b"yy", None, b"x", None, out.getvalue(),
            ]  # fmt: skip
            assert [item.archpath for item in items] == [
                "x.txt",
                "d/y.txt",
                "/d/y.txt",
                "no.txt",
                "x.txt",
                "x.txt",
                None,
            ]
            assert [info.archpath or None for info, _ in batch.get()] == [item.archpath for item in items]


def test_items_of_pickle_and_copy(client, bucket):
    batch = client.batch(bucket=bucket).add("dir/é.bin", opaque=b"o", start=1, length=3).add("b")
    for item in (*batch.stream(), *batch.fetch()):
        for again in (pickle.loads(pickle.dumps(item)), copy.copy(item), copy.deepcopy(item)):
            assert bytes(again) == bytes(item)
            for name in ("index", "name", "archpath", "bucket", "provider", "opaque", "size", "err_msg", "ok"):
                assert getattr(again, name) == getattr(item, name)
            assert repr(again) == repr(item)


def test_into(client, bucket):
    batch = client.batch(list(FILES), bucket=bucket)
    whole = b"".join(FILES.values())
    memory = numpy.full(len(whole) + 9, 7, numpy.uint8)
    columns = batch.fetch(into=memory)
    assert memory.tobytes() == whole + b"\7" * 9
    assert numpy.shares_memory(columns.data, memory)
    assert len(columns.data) == len(whole)
    assert [bytes(item) for item in columns] == list(FILES.values())
    with pytest.raises(LimitError, match="does not fit"):
        batch.fetch(into=bytearray(len(whole) - 1))
    assert take(batch, "fetch") == list(FILES.values())


def test_iterating_by_hand(client, bucket):
    batch = client.batch(list(FILES), bucket=bucket)
    for call in (batch.get(clear_batch=False), batch.stream()):
        assert iter(call) is call
        for _ in FILES:
            next(call)
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(call)
        call.close()
        assert list(call) == []


# ---------------------------------------------------------------------------------------------------- policy, stats


def test_policy_of_the_call_replaces_the_clients(bucket, endpoint):
    small = aisfast.Policy(max_entry=10)
    with aisfast.Client(endpoint, policy=small) as client:
        batch = client.batch(list(FILES), bucket=client.bucket(bucket.name))
        for way in WAYS:
            with pytest.raises(LimitError, match="max_entry"):
                take(batch, way)
            assert take(batch, way, policy=aisfast.Policy()) == list(FILES.values())
            with pytest.raises(LimitError):
                take(batch, way, policy=small)


def test_stats_add_up(client, bucket):
    before = copy.copy(client.stats)
    batch = client.batch([*FILES, "gone"], bucket=bucket)
    stream = batch.stream(missing="mark")
    list(stream)
    columns = batch.fetch(missing="mark")
    payload = sum(map(len, FILES.values()))
    for stats in (stream.stats, columns.stats):
        assert (stats.requests, stats.members, stats.misses, stats.payload_bytes) == (1, 5, 1, payload)
        assert (stats.redirects, stats.throttled) == (1, 0)
        assert stats.targets == 3 or "AIS_ENDPOINT" in os.environ
        assert stats.wire_bytes > payload
        assert 0 < stats.wait <= stats.wall
    total = client.stats
    assert total.requests - before.requests == 2
    assert total.members - before.members == 10
    assert total.payload_bytes - before.payload_bytes == 2 * payload
    assert total.wall >= stream.stats.wall + columns.stats.wall


def test_wire_bytes_are_those_of_bodies():
    entries = [wire.Entry("a", b"x" * 1000)]
    raw = wire.streaming(entries)
    with Scripted(lambda request: raw.raw) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
        stats = client.batch("a", bucket=client.bucket("b")).fetch().stats
    assert raw.end - raw.head_size <= stats.wire_bytes <= len(raw.raw) - raw.head_size


def test_throttled_answers_are_counted():
    with (
        Scripted(lambda request: answer(429, b'{"message":"rejected: pending=256"}')) as server,
        aisfast.Client(server.url, policy=ONE_ANSWER) as client,
    ):
        with pytest.raises(AISError, match="pending=256") as caught:
            client.batch("a", bucket=client.bucket("b")).fetch()
        assert caught.value.status_code == 429
        assert client.stats.throttled == 1


# ------------------------------------------------------------------------------------------------------------- errors

ENTRIES = [wire.Entry("a", b"first"), wire.Entry("b", b"second"), wire.Entry("c", b"third")]


def short(request):
    """An answer for all but the last of what is asked for."""
    asked = [entry["objname"] for entry in json.loads(request.body)["in"]]
    return wire.streaming([entry for entry in ENTRIES if entry.name in asked][: max(1, len(asked) - 1)]).raw


@pytest.mark.parametrize("way", WAYS)
def test_rest_of_an_incomplete_batch(way):
    with Scripted(short) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
        batch = client.batch([], bucket=client.bucket("b"), only_obj_name=False, cont_on_err=False)
        batch.add("a", opaque=b"1").add("b", opaque=b"2").add("c", start=0, length=5)
        with pytest.raises(
            IncompleteBatchError, match=r"2 of 3 entries.*entry 2 \(b/c, range start=0 length=5\)"
        ) as caught:
            take(batch, way)
        error = caught.value
        assert (error.requested, error.received, error.missing, error.attempts) == (3, 2, (2,), 1)
        assert isinstance(error.__cause__, WireError)
        assert error.status_code == 0
        assert error.req_url.startswith(server.url)
        assert error.rest() is error.rest()
        rest = error.rest()
        assert isinstance(rest, Batch)
        assert [(entry.obj_name, entry.length) for entry in copy.deepcopy(rest).requests_list] == [("c", 5)]
        assert (rest.request.cont_on_err, rest.request.streaming_get) == (False, True)
        assert take(rest, way) == [b"third"]
        assert rest.add("a") is rest
        if way == "fetch":
            assert [bytes(item) for item in error.partial] == [b"first", b"second"]
            assert (len(error.partial), error.partial.names) == (2, ["a", "b"])
        else:
            assert error.partial is None


@pytest.mark.parametrize("way", WAYS)
def test_incomplete_before_the_first_entry(way):
    with (
        Scripted(lambda request: wire.streaming([]).raw) as server,
        aisfast.Client(server.url, policy=ONE_ANSWER) as client,
    ):
        with pytest.raises(IncompleteBatchError, match="0 of 2") as caught:
            take(client.batch(["a", "b"], bucket=client.bucket("b")), way)
        assert caught.value.missing == (0, 1)
        if way == "fetch":
            partial = caught.value.partial
            assert (len(partial), list(partial), partial.data.tobytes(), partial.sizes.tolist()) == (0, [], b"", [])
            assert partial.offsets.tolist() == [0]


def test_rest_keeps_the_namespace_and_the_options():
    with (
        Scripted(lambda request: wire.buffered([]).raw) as server,
        aisfast.Client(server.url, policy=ONE_ANSWER) as client,
    ):
        bucket = client.bucket("b", namespace=Namespace(name="ns"))
        options = {"streaming_get": False, "only_obj_name": True, "colocation": Colocation.TARGET_AWARE}
        for _ in range(2):
            batch = client.batch(["a", "b"], bucket=bucket, **options)
            with pytest.raises(IncompleteBatchError) as caught:
                batch.fetch()
        with pytest.raises(IncompleteBatchError):
            caught.value.rest().fetch()
        first, *others = [(request.target, request.body) for request in server.requests]
        assert others == [first] * 2


def all_errors():
    found, left = [], [AISError]
    while left:
        cls = left.pop()
        found.append(cls)
        left += cls.__subclasses__()
    return sorted(set(found), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_errors_survive_a_pickle_and_a_dataloader(cls):
    request = errors.SentRequest("GET", "http://h/v1/x", {"A": "b"})
    error = cls(404, "what happened", "http://h/v1/x", request, remedy="do this")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is cls
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert (again.status_code, again.message, again.req_url, again.req) == (
            404,
            "what happened",
            "http://h/v1/x",
            request,
        )
    for again in (cls("a worker's trace"), cls(message="a worker's trace")):
        assert "a worker's trace" in str(again)
        assert again.status_code == 0
        assert str(pickle.loads(pickle.dumps(again))) == str(again)


@pytest.mark.parametrize("way", WAYS)
def test_errors_of_a_call_survive_a_pickle(way):
    bad = wire.streaming([ENTRIES[0], ENTRIES[2], ENTRIES[1]]).raw
    answers = {
        "short": short,
        "swapped": lambda request: bad,
        "cut": lambda request: Last(bad[:800]),
        "refused": lambda request: answer(404, b'{"message":"t[x]: ais://b/o does not exist"}'),
        "none": lambda request: None,
        "garbage": lambda request: b"SSH-2.0",
    }
    for script in answers.values():
        with (
            Scripted(script) as server,
            aisfast.Client(server.url, policy=ONE_ANSWER) as client,
            pytest.raises(AISError) as caught,
        ):
            take(client.batch(["a", "b", "c"], bucket=client.bucket("b")), way)
        error = caught.value
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        if isinstance(error, IncompleteBatchError):
            assert (again.missing, again.received, len(again.rest())) == (
                error.missing,
                error.received,
                len(error.missing),
            )
            again.rest().request_client.close()
        del error, again, caught
        gc.collect()


@pytest.mark.parametrize("way", ["get", "stream"])
def test_iterator_is_at_its_end_after_an_exception(way):
    bad = wire.streaming([ENTRIES[0], ENTRIES[2], ENTRIES[1]]).raw
    for script in (short, lambda request: bad, lambda request: Last(bad[:1000])):
        with Scripted(script) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
            batch = client.batch(["a", "b", "c"], bucket=client.bucket("b"))
            call = batch.get() if way == "get" else batch.stream()
            with pytest.raises(AISError):
                list(call)
            for _ in range(3):
                with pytest.raises(StopIteration):
                    next(call)
            assert server.connections == 1


# ------------------------------------------------------------------------------------------------------ one thread


@pytest.mark.parametrize("way", ["get", "stream"])
def test_second_thread_gets_an_exception(way):
    """The first one, which waits for the next item, is not disturbed."""
    answered = wire.streaming(ENTRIES)
    go_on = threading.Event()

    class Slow(Scripted):
        def _serve(self, sock):
            try:
                sock.recv(65536)
                sock.sendall(answered.raw[: answered.ends[0]])
                assert go_on.wait(PATIENT)
                sock.sendall(answered.raw[answered.ends[0] :])
                sock.recv(1)
            finally:
                self._open.discard(sock)
                sock.close()

    outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()

    def work():
        try:
            outcomes.put(next(call))
        except RuntimeError as error:
            outcomes.put(error)

    with Slow(lambda request: None) as server, aisfast.Client(server.url, policy=ONE_ANSWER) as client:
        batch = client.batch(["a", "b", "c"], bucket=client.bucket("b"))
        call = batch.get() if way == "get" else batch.stream()
        next(call)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):  # one of them waits, whichever came first
            assert "another thread" in str(outcomes.get(timeout=PATIENT))
        go_on.set()
        for thread in threads:
            thread.join()
        got = [outcomes.get(), *call]
        assert [bytes(item[1] if way == "get" else item) for item in got] == [b"second", b"third"]


@pytest.mark.parametrize("timeout", [None, 0], ids=["limit", "no limit"])
def test_stream_closed_by_another_thread(timeout):
    """The one that reads from it gets an exception that says so, or its end."""
    answered = wire.streaming(ENTRIES)
    closed = threading.Event()

    class Slow(Scripted):
        def _serve(self, sock):
            try:
                sock.recv(65536)
                sock.sendall(answered.raw[: answered.ends[0] + 1])
                assert closed.wait(PATIENT)
                sock.sendall(answered.raw[answered.ends[0] + 1 : answered.ends[1] - 1])
            except OSError:
                pass
            finally:
                self._open.discard(sock)
                sock.close()

    outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()

    def work():
        try:
            outcomes.put(next(stream))
        except BaseException as error:
            outcomes.put(error)

    with Slow(lambda request: None) as server, aisfast.Client(server.url, timeout=timeout) as client:
        stream = client.batch(["a", "b", "c"], bucket=client.bucket("b")).stream()
        next(stream)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert "another thread" in str(outcomes.get(timeout=PATIENT))  # so the other one is inside
        stream.close()
        closed.set()
        for thread in threads:
            thread.join()
        outcome = outcomes.get(timeout=PATIENT)
        assert isinstance(outcome, (RuntimeError, StopIteration, AISError)), repr(outcome)
        assert list(stream) == []


def test_pickled_columns(client, bucket):
    columns = client.batch([*FILES, "gone"], bucket=bucket).fetch(missing="mark")
    again = pickle.loads(pickle.dumps(columns))
    assert [bytes(item) if item.ok else None for item in again] == [*FILES.values(), None]
    assert again.names == columns.names
    assert again.errors == columns.errors
    assert again.stats == columns.stats
    for name in ("data", "offsets", "sizes", "ok"):
        assert getattr(again, name).tolist() == getattr(columns, name).tolist()
        assert getattr(again, name).dtype == getattr(columns, name).dtype
    assert [item.bucket for item in again] == [item.bucket for item in columns]


def test_opaque_is_any_bytes(client, bucket):
    values = [bytes(range(256)), b"\xfb\xff\xfe", b"\0", b"x" * 5000]
    for streaming in (True, False):
        batch = client.batch(bucket=bucket, streaming_get=streaming)
        for value in values:
            batch.add("a", opaque=value)
        assert [entry.opaque for entry in copy.deepcopy(batch).requests_list] == [
            base64.b64encode(value).decode() for value in values
        ]
        assert [item.opaque for item in batch.stream()] == values
        assert [info.opaque for info, _ in batch.get()] == values


@pytest.mark.parametrize("home", [0, 1])
def test_a_missing_entry_at_the_call_leaves_the_batch_as_it_was(ais_cluster, home):
    """Buffered, without `cont_on_err`; also where the server has accepted the request: its miss is another target's."""
    for name in ("a", "gone"):
        ais_cluster.place("b", name, home if name == "gone" else 0)
    ais_cluster.put("b", "a", b"data")
    ais_cluster.next_dt = 0
    with aisfast.Client(ais_cluster.endpoint) as client:
        batch = client.batch(["a", "gone"], bucket=client.bucket("b"), cont_on_err=False, streaming_get=False)
        with pytest.raises(ErrObjNotFound) as caught:
            batch.get()
        assert caught.value.req_url.startswith("http://")
        assert len(batch) == 2


def test_plain_names_are_taken_as_columns(client):
    """No entry is looked at one by one in Python; others are added as they come."""
    assert check_names(["a", "b"]) is True
    assert check_names(["a", numpy.str_("b")]) is False
    batch = client.batch(["a", numpy.str_("b")], bucket=client.bucket("b"))
    assert [entry.obj_name for entry in batch.requests_list] == ["a", "b"]
