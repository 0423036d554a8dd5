"""The official SDK works against the emulator: 2.0 in full, and the legacy batch loader of 1.15 and 1.16.

Skipped without the package `aistore`; which tests run follows its version.
"""

from __future__ import annotations

import importlib.metadata
import io
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from aisfast.emulator import Cluster

with warnings.catch_warnings():  # of its own dependencies, at import
    warnings.simplefilter("ignore")
    pytest.importorskip("aistore")
    from aistore.sdk import Client
    from aistore.sdk.archive_config import ArchiveConfig, ArchiveMode
    from aistore.sdk.errors import AISError, ErrBckAlreadyExists, ErrBckNotFound

VERSION = tuple(int(part) for part in importlib.metadata.version("aistore").split(".")[:2])
new = pytest.mark.skipif(VERSION < (2, 0), reason="needs aistore 2.0")
legacy = pytest.mark.skipif(not (1, 15) <= VERSION < (1, 17), reason="needs aistore 1.15 or 1.16")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FILES = {f"file_{i}.txt": f"content of file {i}\n".encode() * (i * 40) for i in range(1, 6)}


@pytest.fixture(params=[1, 3], ids=["1 target", "3 targets"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(targets=request.param, tail_delay=0, seed=7) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Any]:
    made = Client(cluster.endpoint)
    yield made
    made._request_client.session_manager.session.close()


@pytest.fixture
def bucket(client: Any) -> Any:
    return client.bucket("official").create()


def tar(mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_cluster(client, bucket, cluster):
    assert client.cluster().is_ready()
    info = client.cluster().get_info()
    assert len(info.tmap) == len(cluster.smap.targets)
    assert info.proxy_si.public_net.direct_url == cluster.endpoint
    assert [b.name for b in client.cluster().list_buckets()] == ["official"]


def test_buckets(client, bucket, monkeypatch):
    monkeypatch.setattr("aistore.sdk.bucket.time.sleep", lambda seconds: None)  # between two questions for a summary
    with pytest.raises(ErrBckAlreadyExists):
        client.bucket("official").create()
    client.bucket("official").create(exist_ok=True)
    assert '"provider":"ais"' in bucket.head()["ais-bucket-props"]
    bucket.object("a").get_writer().put_content(b"12345")
    bucket.object("b").get_writer().put_content(b"678")
    _, summary = bucket.info()
    assert summary["ObjCount"]["obj_count_present"] == "2"
    assert bucket.summary()["TotalSize"]["size_all_present_objs"] == "8"
    bucket.delete()
    with pytest.raises(ErrBckNotFound):
        bucket.delete()
    bucket.delete(missing_ok=True)
    with pytest.raises(AISError):
        bucket.head()


def test_objects(bucket, tmp_path):
    thing = bucket.object("dir/ö & o.bin")
    data = bytes(range(256)) * 500
    thing.get_writer().put_content(data)
    assert thing.get_reader().read_all() == data
    assert b"".join(thing.get_reader(chunk_size=1000)) == data
    assert thing.get_reader().raw().read() == data
    with thing.get_reader().as_file() as stream:
        assert stream.read() == data
    assert thing.get_reader(byte_range="bytes=10-19").read_all() == data[10:20]
    assert thing.get_reader(byte_range="bytes=-7").read_all() == data[-7:]
    with pytest.raises(AISError, match="416"):
        thing.get_reader(byte_range=f"bytes={len(data)}-").read_all()
    assert thing.head() is not None
    assert thing.props.size == len(data)
    assert thing.props.checksum_type == "md5"
    assert thing.props.obj_version == "1"

    path = tmp_path / "file"
    path.write_bytes(b"from a file")
    thing.get_writer().put_file(str(path))
    assert thing.get_reader().read_all() == b"from a file"
    thing.get_writer().set_custom_props({"k": "v"})
    assert bucket.object(thing.name).props.custom_metadata == {"k": "v"}
    thing.delete()
    with pytest.raises(AISError):
        thing.get_reader().read_all()
    with pytest.raises(AISError):
        thing.head()


def test_append(bucket):
    writer = bucket.object("appended").get_writer()
    handle = writer.append_content(b"one ")
    handle = writer.append_content(b"two ", handle=handle)
    handle = writer.append_content(b"three", handle=handle)
    assert bucket.list_all_objects() == []
    writer.append_content(b"", handle=handle, flush=True)
    assert bucket.object("appended").get_reader().read_all() == b"one two three"


def test_lists(bucket, cluster):
    names = sorted(f"p{i % 3}/o{i:03}" for i in range(25))
    for name in names:
        cluster.put("official", name, b"x" * 7)
    assert [entry.name for entry in bucket.list_all_objects()] == names
    assert {entry.size for entry in bucket.list_all_objects()} == {7}
    assert [entry.name for entry in bucket.list_all_objects(prefix="p1/")] == [n for n in names if n.startswith("p1/")]
    assert [entry.name for entry in bucket.list_objects_iter(page_size=10)] == names
    page = bucket.list_objects(page_size=25)
    assert page.continuation_token == names[-1]
    rest = bucket.list_objects(page_size=25, uuid=page.uuid, continuation_token=page.continuation_token)
    assert rest.entries == []
    assert rest.continuation_token == ""
    entry = bucket.list_objects(props="name,size,version,checksum,atime,location,copies").entries[0]
    assert (entry.version, entry.copies) == ("1", 1)
    assert entry.checksum == cluster.bucket("official").objects[names[0]].checksum[1]
    assert [item.name for item in bucket.list_all_objects_iter()] == names


@pytest.mark.parametrize("ext", ["tar", "tgz", "tar.gz", "zip", "tar.lz4"])
def test_archives(bucket, cluster, ext):
    data = tar("w:gz") if ext in ("tgz", "tar.gz") else zipped() if ext == "zip" else tar()
    if ext == "tar.lz4":
        data = pytest.importorskip("lz4.frame").compress(data)
    name = f"shard.{ext}"
    bucket.object(name).get_writer().put_content(data)
    cluster.put("official", "other", b"")
    listed = bucket.list_archive(name)
    assert [(entry.name, entry.size) for entry in listed] == [(f"{name}/{file}", len(d)) for file, d in FILES.items()]
    assert bucket.list_archive(name, include_archive_obj=True)[0].name == name
    shard = bucket.object(name)
    for file, content in FILES.items():
        assert shard.get_reader(archive_config=ArchiveConfig(archpath=file)).read_all() == content
    with pytest.raises(AISError, match="nope in ais://official"):
        shard.get_reader(archive_config=ArchiveConfig(archpath="nope")).read_all()
    found = shard.get_reader(archive_config=ArchiveConfig(regex="_3.txt", mode=ArchiveMode.SUFFIX)).read_all()
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        assert archive.getnames() == ["file_3.txt"]


def store(bucket: Any, cluster: Cluster) -> list[tuple[dict[str, Any], bytes | None]]:
    """Entries as keywords of `Batch.add`, each with what must come; None for a miss."""
    for i in range(6):
        cluster.put("official", f"o{i}", bytes([i]) * (i * 700))
    cluster.put("official", "s.tgz", tar("w:gz"))
    cluster.put("official", "s.tar", tar())
    cluster.put("elsewhere", "o0", b"another bucket")
    third = FILES["file_3.txt"]
    return [
        ({"obj": "o1"}, b"\1" * 700),
        ({"obj": "s.tgz", "archpath": "file_3.txt"}, third),
        ({"obj": "o0"}, b""),
        ({"obj": "gone", "opaque": b"who\xff"}, None),
        ({"obj": "o5", "start": 100, "length": 50}, b"\5" * 50),
        ({"obj": "o5", "start": 3400, "length": -1}, b"\5" * 100),
        ({"obj": "s.tar", "archpath": "file_3.txt", "start": 4, "length": 9}, third[4:13]),
        ({"obj": "s.tar", "archpath": "absent"}, None),
        ({"obj": "o1"}, b"\1" * 700),
        ({"obj": "o1", "opaque": b"\0again"}, b"\1" * 700),
        ({"obj": "o0", "bck": "elsewhere", "provider": "ais"}, b"another bucket"),
    ]


@new
@pytest.mark.parametrize("onob", [False, True], ids=["with bucket", "names only"])
@pytest.mark.parametrize("coloc", [0, 1])
@pytest.mark.parametrize("mode", ["streaming", "buffered", "buffered as stream"])
@pytest.mark.parametrize("output", [".tar", ".tgz", ".tar.gz", ".zip"])
def test_batch(client, bucket, cluster, mode, onob, coloc, output):
    from aistore.sdk.enums import Colocation

    wanted = store(bucket, cluster)
    batch = client.batch(
        bucket=bucket,
        streaming_get=mode == "streaming",
        only_obj_name=onob,
        colocation=Colocation(coloc),
        output_format=output,
    )
    for keywords, _ in wanted:
        batch.add(**keywords)
    results = list(batch.get(decode_as_stream=mode == "buffered as stream"))
    assert [data for _, data in results] == [data or b"" for _, data in wanted]
    assert [info.err_msg is not None for info, _ in results] == [data is None for _, data in wanted]
    assert [info.opaque for info, _ in results] == [keywords.get("opaque") for keywords, _ in wanted]
    assert [info.size for info, _ in results] == [len(data or b"") for _, data in wanted]


@new
def test_batch_large(client, bucket, cluster):
    payloads = {f"big{i}": bytes([i]) * (100_000 + 30_000 * i) for i in range(12)}
    for name, data in payloads.items():
        cluster.put("official", name, data)
    names = list(payloads) * 4
    for streaming in (True, False):
        batch = client.batch(names, bucket=bucket, streaming_get=streaming)
        assert [data for _, data in batch.get()] == [payloads[name] for name in names]


@new
def test_batch_errors(client, bucket, cluster):
    from aistore.sdk.errors import ErrObjNotFound

    cluster.put("official", "o", b"data")
    for name in ("o", "gone"):
        cluster.place("official", name, 0)
    cluster.next_dt = 0
    with pytest.raises(ErrObjNotFound):
        client.batch(["o", "gone"], bucket=bucket, cont_on_err=False, streaming_get=False).get()
    with pytest.raises(ErrBckNotFound):
        client.batch(["o"], bucket=client.bucket("nope")).get()
    with pytest.raises(AISError, match=r"invalid object name \\\"a/\\\""):
        client.batch(["a/"], bucket=bucket).get()


@new
def test_direct_reads(client, bucket, cluster):
    """The SDK computes the owner itself; the emulator chooses by the same rule."""
    for i in range(20):
        name = f"direct/{i}"
        cluster.put("official", name, str(i).encode())
        node = client.cluster().get_info().get_target_for_object(f"{bucket.get_path()}{name}")
        assert node.daemon_id == cluster.smap.targets[cluster.owner("official", name)].id
        assert bucket.object(name).get_reader(direct=True).read_all() == str(i).encode()


@new
def test_parallel_reader(bucket, cluster):
    data = bytes(range(256)) * 4096
    cluster.put("official", "large", data)
    assert b"".join(bucket.object("large").get_reader(num_workers=2, chunk_size=100_000)) == data


@new
def test_https(tmp_path, monkeypatch):
    """Uploads go to the proxy with an empty body and a real length first; lists, reads and batches follow redirects."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # `requests` prefers them to what the client was given
        monkeypatch.delenv(variable, raising=False)
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    pair.write_to_path(str(tmp_path / "node.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Cluster(3, 0, tls=(str(tmp_path / "node.pem"), str(tmp_path / "node.pem")), token="t0p") as cluster:
        client = Client(cluster.endpoint, ca_cert=str(tmp_path / "ca.pem"), token="t0p")
        bucket = client.bucket("official").create()
        for i in range(5):
            bucket.object(f"o{i}").get_writer().put_content(bytes([i]) * 50_000 * i)
        assert [entry.size for entry in bucket.list_all_objects()] == [50_000 * i for i in range(5)]
        assert bucket.object("o2").get_reader().read_all() == b"\2" * 100_000
        batch = client.batch([f"o{i}" for i in range(5)], bucket=bucket)
        assert [data for _, data in batch.get()] == [bytes([i]) * 50_000 * i for i in range(5)]
        client._request_client.session_manager.session.close()
        with pytest.raises(AISError, match="token required"):
            Client(cluster.endpoint, ca_cert=str(tmp_path / "ca.pem")).bucket("official").list_all_objects()


@legacy
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_legacy_batch(client, bucket, cluster, streaming):
    from aistore.sdk import BatchRequest

    wanted = [(keywords, data) for keywords, data in store(bucket, cluster) if "bck" not in keywords]
    request = BatchRequest(output_format=".tar", continue_on_err=True, streaming=streaming)
    for keywords, _ in wanted:
        rest = {key: value for key, value in keywords.items() if key != "obj"}
        request.add_object_request(bucket.object(keywords["obj"]), **rest)
    results = list(client.batch_loader().get_batch(request))
    assert [data for _, data in results] == [data or b"" for _, data in wanted]
    if streaming:
        assert [item.obj_name for item, _ in results] == [keywords["obj"] for keywords, _ in wanted]
        assert results[3][0].is_missing
    else:
        assert "does not exist" in results[3][0].err_msg
