"""`get(raw=True)`: the body as it comes, readable and closable, and no foreign exception."""

from __future__ import annotations

import io
import tarfile

import pytest

import aisfast
import wire
from aisfast.emulator import Cluster
from scripted import Last, Scripted

ENTRIES = [wire.Entry("a", b"first"), wire.Entry("b", bytes(100_000))]


@pytest.mark.parametrize("mime", [".tar", ".tgz"])
def test_an_archive_for_tarfile(ais_cluster: Cluster, mime: str) -> None:
    names = [f"{i:04}" for i in range(3000)]  # a request of more bytes than fit into one write
    for name in names:
        ais_cluster.put("b", name, name.encode())
    with aisfast.Client(ais_cluster.endpoint) as client:
        batch = client.batch(names, bucket=client.bucket("b"), output_format=mime)
        with batch.get(raw=True) as answer, tarfile.open(fileobj=answer, mode="r|*") as tar:
            assert [tar.extractfile(member).read().decode() for member in tar] == names  # type: ignore[union-attr]
        assert answer.status == 200
        assert answer.closed
        assert len(batch) == 0


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_every_way_to_read(streaming: bool) -> None:
    made = (wire.streaming if streaming else wire.buffered)(ENTRIES)
    with Scripted(lambda request: made.raw) as server, aisfast.Client(server.url) as client:
        batch = client.batch(["a", "b"], bucket=client.bucket("b"), streaming_get=streaming)

        def ask() -> aisfast.raw.RawAnswer:
            return batch.get(raw=True, clear_batch=False)

        with ask() as answer:
            assert answer.read() == made.body
            assert answer.read() == b""
        with ask() as answer:
            assert b"".join(answer.stream(1000)) == made.body
        with ask() as answer:
            assert (answer.read(10), answer.data) == (made.body[:10], made.body[10:])
        with ask() as answer:
            assert io.BufferedReader(answer).read(70_000) == made.body[:70_000]
        answer = ask()
        answer.release_conn()
        with pytest.raises(ValueError, match="closed"):
            answer.read()
        assert len(batch) == 2


@pytest.mark.parametrize("lacks", [5, 60_000])
def test_cut(lacks: int) -> None:
    raw = wire.streaming(ENTRIES).raw
    with Scripted(lambda request: Last(raw[:-lacks])) as server, aisfast.Client(server.url) as client:
        batch = client.batch(["a", "b"], bucket=client.bucket("b"))
        with batch.get(raw=True) as answer, pytest.raises(aisfast.errors.AISConnectionError):
            answer.read()


def test_refused(ais_cluster: Cluster) -> None:
    with aisfast.Client(ais_cluster.endpoint) as client:
        batch = client.batch(["a"], bucket=client.bucket("none"))
        with pytest.raises(aisfast.errors.ErrBckNotFound):
            batch.get(raw=True)
        assert len(batch) == 1


def test_the_calls_own_policy() -> None:
    """Its redirect hosts hold, as for every other way to get a batch."""
    made = wire.streaming(ENTRIES)
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b/v1/x\r\nContent-Length: 0\r\n\r\n"
    with Scripted(lambda request: made.raw) as target, Scripted(lambda r: moved % target.url.encode()) as gateway:
        for known in (None, ("127.0.0.1",)):
            with aisfast.Client(gateway.url, policy=aisfast.Policy(redirect_hosts=known)) as client:
                batch = client.batch(["a", "b"], bucket=client.bucket("b"))
                here = aisfast.Policy(redirect_hosts=["127.0.0.1"])
                with batch.get(raw=True, policy=here, clear_batch=False) as answer:
                    assert answer.read() == made.body
                with pytest.raises(aisfast.errors.AISConnectionError, match="no host of the cluster"):
                    batch.get(raw=True, policy=aisfast.Policy(redirect_hosts=["elsewhere"]), clear_batch=False)
                with pytest.raises(ValueError, match="must be a Policy"):
                    batch.get(raw=True, policy="fast")
