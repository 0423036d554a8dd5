"""Buckets, objects and the cluster by REST: on the emulator, and on a cluster at `AIS_ENDPOINT` if set."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aisfast import Bucket, Client
from aisfast.enums import ArchiveMode, Provider
from aisfast.errors import (
    AISConnectionError,
    AISError,
    ErrBckAlreadyExists,
    ErrBckNotFound,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    InvalidBckProvider,
    InvalidURLException,
    WireError,
)
from aisfast.models import ArchiveConfig, Namespace
from aisfast.object import ObjectAttributes
from aisfast.policy import Policy
from aisfast.retry import RetryConfig
from scripted import Last, Request, Scripted, answer

NAMES = [f"dir {i % 3}/ü#?%{i:02}" for i in range(25)]


@pytest.fixture(params=["emulator", pytest.param("cluster", marks=pytest.mark.cluster)])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "emulator":
        endpoint = request.getfixturevalue("ais_cluster").endpoint
    elif not (endpoint := os.environ.get("AIS_ENDPOINT", "")):
        pytest.skip("AIS_ENDPOINT is not set: no real cluster")
    with Client(endpoint) as made:
        yield made


@pytest.fixture
def bucket(client: Client) -> Iterator[Bucket]:
    made = client.bucket("aisfast-test-rest")
    made.delete(missing_ok=True)
    yield made.create()
    made.delete(missing_ok=True)


def put(bucket: Bucket, name: str, content: bytes) -> None:
    bucket.object(name).get_writer().put_content(content)


# ------------------------------------------------------------------------------------------ cluster


def test_cluster(client: Client, bucket: Bucket) -> None:
    cluster = client.cluster()
    smap = cluster.get_info()
    assert smap.tmap
    assert smap.proxy_si.daemon_type == "proxy"
    assert all(node.daemon_type == "target" and node.daemon_id == key for key, node in smap.tmap.items())
    assert smap.version > 0
    assert cluster.get_uuid() == smap.uuid
    assert cluster.get_primary_url().startswith("http")
    assert cluster.is_ready()
    for provider in ("ais", Provider.AIS, ""):
        assert bucket.as_model().name in [model.name for model in cluster.list_buckets(provider)]
    with pytest.raises(InvalidBckProvider):
        cluster.list_buckets("nfs")
    assert cluster.client is client


def test_a_cluster_that_is_not_there_is_not_ready() -> None:
    assert not Client("http://127.0.0.1:1").cluster().is_ready()


# ------------------------------------------------------------------------------------------ buckets


def test_bucket_comes_and_goes(client: Client, bucket: Bucket) -> None:
    assert bucket.create(exist_ok=True) is bucket
    with pytest.raises(ErrBckAlreadyExists) as caught:
        bucket.create()
    assert caught.value.status_code == 409
    assert f"ais://{bucket.name}" in caught.value.message
    assert caught.value.req_url.startswith(client.settings.endpoint)
    assert isinstance(caught.value, FileExistsError)
    assert bucket.head()["ais-bucket-props"].startswith("{")
    bucket.delete()
    bucket.delete(missing_ok=True)
    for call in (bucket.delete, bucket.head, bucket.list_all_objects, lambda: put(bucket, "o", b"x")):
        with pytest.raises(ErrBckNotFound, match="does not exist") as missing:
            call()
        assert isinstance(missing.value, FileNotFoundError)
        assert type(pickle.loads(pickle.dumps(missing.value))) is ErrBckNotFound


def test_only_ais_buckets_are_made(client: Client) -> None:
    cloud = client.bucket("b", "s3")
    for call in (cloud.create, lambda: cloud.create(True), cloud.delete, lambda: cloud.delete(True)):
        with pytest.raises(InvalidBckProvider):
            call()
    with pytest.raises(NotImplementedError, match="start_after"):
        cloud.list_objects_iter(start_after="x")
    assert cloud.qparam == {"provider": "aws"}


def test_namespaces(client: Client) -> None:
    named = client.bucket("aisfast-test-ns", namespace=Namespace(name="aisfast"))
    named.delete(missing_ok=True)
    named.create().create(exist_ok=True)
    with pytest.raises(ErrBckAlreadyExists):
        named.create()
    put(named, "o", b"content")
    assert [entry.name for entry in named.list_all_objects()] == ["o"]
    assert named.object("o").get_reader().read_all() == b"content"
    assert named.object("o").uname == "ais/@#aisfast/aisfast-test-ns/o"
    assert named.as_model() in client.cluster().list_buckets()
    with pytest.raises(ErrBckNotFound):
        client.bucket("aisfast-test-ns").head()
    with pytest.raises(ErrObjNotFound):
        named.object("p").get_reader().read_all()
    named.delete()
    with pytest.raises(ErrBckNotFound):
        named.delete()


def test_summary_and_info(bucket: Bucket) -> None:
    put(bucket, "a/1", b"12345")
    put(bucket, "b/1", b"123")
    summary = bucket.summary()
    assert summary["name"] == bucket.name
    assert int(summary["ObjCount"]["obj_count_present"]) == 2
    props, summary = bucket.info(prefix="a/")
    assert '"provider":"ais"' in props
    assert int(summary["TotalSize"]["size_all_present_objs"]) == 5
    with pytest.raises(ValueError, match="flt_presence"):
        bucket.info(flt_presence=99)


@pytest.mark.parametrize("page_size", [0, 1, 7, 25])
def test_listing(bucket: Bucket, page_size: int) -> None:
    for i, name in enumerate(NAMES):
        put(bucket, name, bytes(i))
    entries = bucket.list_all_objects(page_size=page_size)
    assert [(entry.name, entry.size) for entry in entries] == sorted(
        (name, i) for i, name in enumerate(NAMES)
    )
    assert list(bucket.list_objects_iter(page_size=page_size)) == entries
    assert all(entry.is_ok() and entry.is_cached() for entry in entries)
    some = [entry.name for entry in bucket.list_all_objects("dir 1/", page_size=page_size)]
    assert some == sorted(name for name in NAMES if name.startswith("dir 1/"))
    assert entries[3].object.get_reader().read_all() == bytes(entries[3].size)  # type: ignore[union-attr]


def test_listing_details(bucket: Bucket) -> None:
    for i, name in enumerate(NAMES):
        put(bucket, name, bytes(i))
    ordered = sorted(NAMES)
    page = bucket.list_objects(page_size=10)
    assert [entry.name for entry in page.entries] == ordered[:10]
    assert page.continuation_token == ordered[9]
    more = bucket.list_objects(page_size=10, uuid=page.uuid, continuation_token=page.continuation_token)
    assert [entry.name for entry in more.entries] == ordered[10:20]
    after = [entry.name for entry in bucket.list_all_objects(start_after=ordered[20], page_size=2)]
    assert after == ordered[21:]
    objects = list(bucket.list_all_objects_iter("dir 0/"))
    assert [obj.name for obj in objects] == [name for name in ordered if name.startswith("dir 0/")]
    assert objects[1].props_cached.size == NAMES.index(objects[1].name)  # type: ignore[union-attr]
    assert bucket.list_all_objects(props="name,size,checksum,version")[5].checksum
    assert next(bucket.list_urls("dir 1/")) == bucket.object(NAMES[1]).get_url()
    assert bucket.list_all_objects("nothing") == []


def test_listing_that_does_not_go_on() -> None:
    page = b'{"uuid":"u","continuation_token":"t","entries":[{"name":"a"}],"flags":0}'
    with Scripted(lambda _: answer(body=page)) as server, Client(server.url) as client:
        with pytest.raises(WireError, match="does not go on behind 't'"):
            client.bucket("b").list_all_objects()
        assert len(server.requests) == 2
        server.script = lambda _: answer(body=b'{"uuid":"","continuation_token":"","entries":null}')
        assert client.bucket("b").list_all_objects() == []


def test_put_files(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.txt", "b.bin", "below/c.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert bucket.put_files(tmp_path, pattern="*.txt", dry_run=True) == ["a.txt"]
    assert bucket.list_all_objects() == []
    assert bucket.put_files(tmp_path, recursive=True, prepend="up/") == [
        "up/a.txt",
        "up/b.bin",
        "up/below/c.txt",
    ]
    assert bucket.put_files(tmp_path, recursive=True, basename=True, prefix_filter="c") == ["c.txt"]
    assert bucket.object("c.txt").get_reader().read_all() == b"below/c.txt"
    with pytest.raises(ValueError, match="not a directory"):
        bucket.put_files(tmp_path / "a.txt")


# ------------------------------------------------------------------------------------------ objects


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_put_and_get(bucket: Bucket, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    obj = bucket.object("a b/ü%#?")
    for write in (
        lambda: obj.get_writer().put_content(content),
        lambda: obj.get_writer().put_content(memoryview(content)),  # type: ignore[arg-type]
        lambda: obj.get_writer().put_file(path),
    ):
        done = write()
        assert (done.status_code, done.ok, done.text) == (200, True, "")
        reader = obj.get_reader()
        assert reader.read_all() == content
        assert reader.attributes.size == size
        obj.delete()
    obj.get_writer().put_content(content)
    with obj.get_reader().raw() as raw:
        assert raw.readable()
        assert raw.read(3) + raw.read() == content
        assert raw.read() == raw.read(1) == b""
    with obj.get_reader().as_file() as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == content
    assert b"".join(obj.get_reader()) == content
    written = io.BytesIO()
    obj.get_reader(writer=written)
    assert written.getvalue() == content


def test_pieces(bucket: Bucket) -> None:
    put(bucket, "o", bytes(range(100)))
    pieces = list(bucket.object("o").get_reader(chunk_size=30))
    assert [len(piece) for piece in pieces] == [30, 30, 30, 10]
    assert b"".join(pieces) == bytes(range(100))
    reading = iter(bucket.object("o").get_reader(chunk_size=30))
    assert next(reading) == bytes(range(30))
    reading.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=90-", slice(90, 100)),
        ("bytes=-7", slice(93, 100)),
    ],
)
def test_byte_ranges(bucket: Bucket, byte_range: str, expected: slice) -> None:
    put(bucket, "o", bytes(range(100)))
    reader = bucket.object("o").get_reader(byte_range=byte_range)
    assert reader.read_all() == bytes(range(100))[expected]
    assert b"".join(reader) == bytes(range(100))[expected]


def test_bad_byte_ranges(bucket: Bucket) -> None:
    put(bucket, "o", b"1234")
    for text in ("0-3", "bytes=", "bytes=3", "bytes=1-2,3-4", "bytes=a-b", "bytes=1-2\r\nX: y"):
        with pytest.raises(ValueError, match="byte_range"):
            bucket.object("o").get_reader(byte_range=text)
    with pytest.raises(ErrRangeNotSatisfiable, match="inside the object"):
        bucket.object("o").get_reader(byte_range="bytes=4-").read_all()


def test_properties(bucket: Bucket) -> None:
    obj = bucket.object("o")
    obj.get_writer().put_content(b"12345")
    assert obj.props_cached is None
    assert obj.head().size == 5
    props = obj.props
    assert obj.props_cached is props
    assert (props.name, props.bucket_name, props.bucket_provider) == ("o", bucket.name, "ais")
    assert (props.size, props.obj_version, props.present) == (5, "1", True)
    assert len(props.checksum_value) >= 16
    assert props.checksum_type
    assert obj.get_reader().head().checksum_value == props.checksum_value
    assert pickle.loads(pickle.dumps(props)).size == 5
    writer = obj.get_writer()
    writer.set_custom_props({"a": "1", "b": "x=y"})
    assert obj.props.custom_metadata == {"a": "1", "b": "x=y"}
    writer.set_custom_props({"c": "3"})
    assert obj.props.custom_metadata == {"a": "1", "b": "x=y", "c": "3"}
    writer.set_custom_props({"d": "ü"}, replace_existing=True)
    assert obj.props.custom_metadata == {"d": "ü"}


def test_attributes_of_nothing() -> None:
    nothing = ObjectAttributes({"Content-Length": "many", "Ais-Custom-Md": "a=1, b=2,c"})
    assert (nothing.size, nothing.checksum_value, nothing.mirror_copies, nothing.mirror_paths) == (
        0,
        "",
        0,
        [],
    )
    assert nothing.custom_metadata == {"a": "1", "b": "2"}
    assert ObjectAttributes({"ais-mirror-paths": "[/a,/b]", "etag": '"x"'}).mirror_paths == ["/a", "/b"]


def test_append(bucket: Bucket) -> None:
    obj = bucket.object("o")
    writer = obj.get_writer()
    handle = ""
    for piece in (b"one,", b"two," * 50_000, b"three"):
        handle = writer.append_content(piece, handle)
        assert handle
    with pytest.raises(ErrObjNotFound):
        obj.head()
    writer.append_content(b"", handle, flush=True)
    assert obj.get_reader().read_all() == b"one," + b"two," * 50_000 + b"three"


def test_a_missing_object(bucket: Bucket) -> None:
    obj = bucket.object("no such")
    for call in (
        obj.head,
        obj.delete,
        obj.get_reader().read_all,
        obj.get_reader().raw,
        lambda: list(obj.get_reader()),
    ):
        with pytest.raises(ErrObjNotFound, match=f"ais://{bucket.name}/no such") as caught:
            call()
        assert caught.value.status_code == 404
        assert isinstance(caught.value, FileNotFoundError)


def test_archives(bucket: Bucket) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("m/1.txt", "m/2.txt", "other.log"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    put(bucket, "shard.tar", made.getvalue())
    assert [(entry.name, entry.size) for entry in bucket.list_archive("shard.tar")] == [
        ("shard.tar/m/1.txt", 7),
        ("shard.tar/m/2.txt", 7),
        ("shard.tar/other.log", 9),
    ]
    with_shard = bucket.list_archive("shard.tar", include_archive_obj=True, page_size=2)
    assert [entry.name for entry in with_shard][:2] == ["shard.tar", "shard.tar/m/1.txt"]
    shard = bucket.object("shard.tar")
    assert shard.get_reader(archive_config=ArchiveConfig("m/2.txt")).read_all() == b"m/2.txt"
    some = shard.get_reader(archive_config=ArchiveConfig(regex="m/", mode=ArchiveMode.PREFIX)).read_all()
    with tarfile.open(fileobj=io.BytesIO(some)) as tar:
        assert tar.getnames() == ["m/1.txt", "m/2.txt"]
    with pytest.raises(ErrObjNotFound, match=r"no\.txt"):
        shard.get_reader(archive_config=ArchiveConfig("no.txt")).read_all()
    assert shard.get_url("m/1.txt").endswith(
        f"/v1/objects/{bucket.name}/shard.tar?provider=ais&archpath=m%2F1.txt"
    )


@pytest.mark.parametrize("name", ["", "a/", "../x", "a/../b", "a/./b", ".", "..", 3, None])
def test_names_that_are_none(name: str) -> None:
    obj = Client("http://127.0.0.1:1").bucket("b").object(name)
    for call in (obj.head, obj.delete, obj.get_reader, obj.get_writer, obj.get_url):
        with pytest.raises(ValueError, match=r"object name .* in bucket 'b'"):
            call()


@pytest.mark.parametrize("name", ["", "a/b", None])
def test_buckets_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="bucket name"):
        Client("http://h").bucket(name)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    writer = Client("http://127.0.0.1:1").bucket("b").object("o").get_writer()
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="is not a file"):
            writer.put_file(path)


# ------------------------------------------------------------------------------ reading that breaks


class Breaking:
    """Serves an object of 1000 bytes; each of the first answers ends early, by so many bytes less."""

    content = bytes(i % 251 for i in range(1000))

    def __init__(self, *cuts: int) -> None:
        self.cuts = list(cuts)
        self.checksum = "c"
        self.ranges = True

    def __call__(self, request: Request) -> bytes:
        start = int(request.headers.get("range", "bytes=0-")[6:-1]) if self.ranges else 0
        whole = answer(206 if start else 200, self.content[start:], Ais_Checksum_Value=self.checksum)
        return Last(whole[: -self.cuts.pop(0)]) if self.cuts else whole


def test_content_that_breaks_off_is_an_error() -> None:
    with Scripted(Breaking(1)) as server, Client(server.url) as client:
        raw = client.bucket("b").object("o").get_reader().raw()
        with raw, pytest.raises(AISConnectionError, match="the connection broke"):
            raw.read()
        server.script = Breaking(900)
        with pytest.raises(AISConnectionError):
            list(client.bucket("b").object("o").get_reader(chunk_size=10))


def test_a_file_goes_on_where_it_broke() -> None:
    with Scripted(Breaking(900, 500, 1)) as server, Client(server.url) as client:
        with client.bucket("b").object("o").get_reader().as_file() as file:
            assert b"".join(iter(lambda: file.read(64), b"")) == Breaking.content
        assert len(server.requests) == 4
        server.script = Breaking(900, 500, 1)
        reader = client.bucket("b").object("o").get_reader()
        with reader.as_file(max_resume=2) as file, pytest.raises(AISConnectionError):
            file.read()
        with pytest.raises(ValueError, match="max_resume"):
            client.bucket("b").object("o").get_reader().as_file(max_resume=-1)


def test_a_file_that_changed_meanwhile_is_an_error() -> None:
    for change in ({"checksum": "d"}, {"ranges": False}):
        script = Breaking(900)
        with (
            Scripted(script) as server,
            Client(server.url) as client,
            client.bucket("b").object("o").get_reader().as_file() as file,
        ):
            assert file.read(50) == Breaking.content[:50]
            vars(script).update(change)
            with pytest.raises(AISError, match="changed while it was read"):
                file.read()


# ------------------------------------------------------------------------------------------- client


def test_objects_of_urls() -> None:
    client = Client("http://h")
    obj = client.get_object_from_url("s3://bucket/dir/o?#")
    assert (obj.bucket_name, obj.bucket_provider, obj.name) == ("bucket", Provider.AMAZON, "dir/o?#")
    assert obj.get_semantic_url() == "aws://bucket/dir/o?#"
    for url in ("bucket/o", "ais://bucket", "ais://", "ais:///o", ""):
        with pytest.raises(InvalidURLException):
            client.get_object_from_url(url)
    with pytest.raises(InvalidURLException, match="5"):
        client.get_object_from_url(5)  # type: ignore[arg-type]


def test_arguments_that_are_none() -> None:
    client = Client("http://h")
    for objects in (["a"], "a", None):
        with pytest.raises(ValueError, match=r"bucket='photos' must be a Bucket: pass client\.bucket\(name\)"):
            client.batch(objects, bucket="photos")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="namespace='ns' must be a Namespace"):
        client.bucket("b", namespace="ns")  # type: ignore[arg-type]


def test_settings_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_ENDPOINT", "http://from-environment:1234/")
    assert Client().settings.endpoint == "http://from-environment:1234"
    kept = RetryConfig.default()
    client = Client("h:80", True, None, None, 5, kept, "token", 7, policy=Policy(redirect_hosts=["T1"]))
    assert client.settings.endpoint == "http://h:80"
    assert (client.settings.skip_verify, client.settings.read_timeout, client.settings.max_pool) == (
        True,
        5,
        7,
    )
    assert (client.retry_config, client.session.token) == (kept, "token")
    assert client.session.redirect_hosts == ("t1",)
    assert "token" not in repr(client)


def test_everything_pickles(client: Client, bucket: Bucket) -> None:
    put(bucket, "o", b"content")
    for copy in (
        pickle.loads(pickle.dumps(client)).bucket(bucket.name).object("o"),
        pickle.loads(pickle.dumps(bucket)).object("o"),
        pickle.loads(pickle.dumps(bucket.object("o"))),
        pickle.loads(pickle.dumps(bucket.list_all_objects()[0])).object,
    ):
        assert copy.get_reader().read_all() == b"content"
        copy._client.close()
