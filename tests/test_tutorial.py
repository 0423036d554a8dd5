"""The tutorial of AIStore's GetBatch notebook (official SDK 1.16) with this package's import.

On the cluster at `AIS_ENDPOINT` if that is set, else on the emulator.
"""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from aisfast.sdk import BatchObjectRequest, BatchRequest, BatchResponseItem, Client, Namespace


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    return os.environ.get("AIS_ENDPOINT") or request.getfixturevalue("ais_cluster").endpoint


def text_of(i: int) -> bytes:
    return f"This is the content of test object {i}.".encode().ljust(37, b".")


def archive_of(i: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for j in range(1, 6):
            content = f"archive {i}, file {j}".encode()
            info = tarfile.TarInfo(f"file_{j}.txt")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize("streaming", [True, False])
def test_tutorial(endpoint: str, streaming: bool) -> None:
    client = Client(endpoint)
    bucket = client.bucket("aisfast-tutorial-objects")
    bucket.delete(missing_ok=True)
    bucket.create(exist_ok=True)
    archives = client.bucket("aisfast-tutorial-archives")
    archives.delete(missing_ok=True)
    archives.create(exist_ok=True)

    # Objects: written, listed, fetched in one request.
    for i in range(1, 6):
        bucket.object(f"test-obj-{i}").get_writer().put_content(text_of(i))
    entries = bucket.list_all_objects()
    assert [(entry.name, entry.size) for entry in entries] == [(f"test-obj-{i}", 37) for i in range(1, 6)]

    batch_request = BatchRequest(output_format=".tar", continue_on_err=True, streaming=streaming)
    for entry in entries:
        batch_request.add_object_request(bucket.object(entry.name))
    assert [item["objname"] for item in batch_request.to_dict()["in"]] == [entry.name for entry in entries]

    names, contents = [], []
    for resp_item, data in client.batch_loader().get_batch(batch_request):
        assert isinstance(resp_item, BatchResponseItem)
        assert not resp_item.is_missing
        names.append(resp_item.obj_name)
        contents.append(data)
    assert names == [f"test-obj-{i}" for i in range(1, 6)]
    assert contents == [text_of(i) for i in range(1, 6)]

    # Archives: written, listed, and one file of each added to the same request.
    for i in range(1, 4):
        archives.object(f"archive-{i}.tar").get_writer().put_content(archive_of(i))
    listed = archives.list_archive(archives.object("archive-1.tar").name)
    assert [entry.name for entry in listed] == [f"archive-1.tar/file_{j}.txt" for j in range(1, 6)]

    for i in range(1, 4):
        batch_request.add_object_request(archives.object(f"archive-{i}.tar"), archpath="file_1.txt")
    items = list(client.batch_loader().get_batch(batch_request))
    assert len(items) == 8
    assert [item.obj_name for item, _ in items] == [f"test-obj-{i}" for i in range(1, 6)] + [
        f"archive-{i}.tar" for i in range(1, 4)
    ]
    assert [item.archpath for item, _ in items] == [""] * 5 + ["file_1.txt"] * 3
    assert [data for _, data in items] == [text_of(i) for i in range(1, 6)] + [
        f"archive {i}, file 1".encode() for i in range(1, 4)
    ]
    assert [item.bucket for item, _ in items] == [bucket.name] * 5 + [archives.name] * 3
    assert [item.size for item, _ in items] == [0 if streaming else len(data) for _, data in items]

    # What is missing is marked, in its place.
    batch_request.add_object_request(bucket.object("no-such"))
    batch_request.obj_requests.insert(2, batch_request.obj_requests.pop())
    batch_request.add_object_request(archives.object("archive-1.tar"), archpath="no-such.txt")
    items = list(client.batch_loader().get_batch(batch_request))
    assert len(items) == 10
    assert [i for i, (item, _) in enumerate(items) if item.is_missing] == [2]
    assert [i for i, (item, _) in enumerate(items) if item.err_msg] == [2, 9]

    bucket.delete()
    archives.delete()
    client.close()


def test_an_empty_request(endpoint: str) -> None:
    with pytest.raises(ValueError, match="Batch request must not be empty"):
        Client(endpoint).batch_loader().get_batch(BatchRequest())


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("only_obj_name", [True, False])
def test_a_bucket_in_a_namespace(endpoint: str, streaming: bool, only_obj_name: bool) -> None:
    with Client(endpoint) as client:
        name = "aisfast-tutorial-same"
        everywhere = client.bucket(name)
        named = client.bucket(name, namespace=Namespace(name="aisfast"))
        for bucket, content in ((everywhere, b"global"), (named, b"named")):
            bucket.delete(missing_ok=True)
            bucket.create().object("o").get_writer().put_content(content)

        request = BatchRequest(streaming=streaming, only_obj_name=only_obj_name)
        request.add_object_request(named.object("o"), opaque=b"id")
        request.add_object_request(everywhere.object("o"))
        request.obj_requests.append(BatchObjectRequest("o", name, "ais", start=1, length=2))
        request.obj_requests.append(BatchObjectRequest("o"))
        request.obj_requests.append(BatchObjectRequest("o", uname=f"ais/@#/{name}/"))
        for asked in (request, BatchRequest.from_json(request.to_json())):
            answer = list(client.batch_loader().get_batch(asked))
            assert [data for _, data in answer] == [b"named", b"global", b"lo", b"named", b"global"]
            assert {item.bucket for item, _ in answer} == {name}
            assert answer[0][0].opaque == b"id"
        for bucket in (everywhere, named):
            bucket.delete()
