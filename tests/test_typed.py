"""A user's program over the public names. It runs here, and `make lint` shows it to pyright, in strict mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from numpy import bool_, int64, uint8
from numpy.typing import NDArray

import aisfast
from aisfast.emulator import Cluster

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, _: Any) -> Any:
        return value


@pytest.fixture
def client(ais_cluster: Cluster) -> Iterator[aisfast.Client]:
    with aisfast.Client(ais_cluster.endpoint, policy=aisfast.Policy(max_entry=1 << 20)) as client:
        client.bucket("typed").create()
        for name in ("a", "b"):
            client.bucket("typed").object(name).get_writer().put_content(name.encode())
        yield client


def test_one_by_one(client: aisfast.Client) -> None:
    bucket = assert_type(client.bucket("typed"), aisfast.Bucket)
    item = assert_type(bucket.object("a"), aisfast.Object)
    assert assert_type(item.get_reader().read_all(), bytes) == b"a"
    assert assert_type([entry.name for entry in bucket.list_all_objects()], list[str]) == ["a", "b"]


def test_batches(client: aisfast.Client) -> None:
    batch = assert_type(client.batch(["a", "b"], client.bucket("typed")), aisfast.Batch)
    assert [assert_type(data, bytes) for _, data in batch.get(clear_batch=False)] == [b"a", b"b"]
    names = [assert_type(info.obj_name, str) for info, _ in batch.get(clear_batch=False)]
    assert names == ["a", "b"]
    for item in batch.stream():
        assert_type(item, aisfast.Item)
        assert assert_type(item.data, memoryview) == assert_type(item.tobytes(), bytes)
        assert assert_type(item.numpy(), NDArray[uint8]).shape == (assert_type(item.size, int),)


def test_columns(client: aisfast.Client) -> None:
    columns = assert_type(client.batch(["a", "b"], client.bucket("typed")).fetch(), aisfast.Columns)
    assert assert_type(columns.data, NDArray[uint8]).shape == (2,)
    assert assert_type(columns.offsets, NDArray[int64]).tolist() == [0, 1, 2]
    assert assert_type(columns.ok, NDArray[bool_]).all()
    assert assert_type(columns[0], aisfast.Item).name == "a"
    assert assert_type(columns.names, list[str]) == ["a", "b"]


def test_pipelines(client: aisfast.Client) -> None:
    with client.pipeline([["a"], ["b"]], bucket=client.bucket("typed")) as batches:
        for columns in batches:
            assert_type(columns, aisfast.Columns)


def test_errors(client: aisfast.Client) -> None:
    with pytest.raises(aisfast.ErrObjNotFound) as caught:
        client.batch(["none"], client.bucket("typed")).fetch()
    error: aisfast.AISError = caught.value
    assert assert_type(error.status_code, int) in (0, 404)
    assert assert_type(error.message, str)
