"""`aisfast.events`: what is told of a batch, in which order."""

from __future__ import annotations

import pytest

import aisfast
from aisfast import events
from aisfast.events import Event
from scripted import ONE_ANSWER

NAMES = [f"o{i}" for i in range(20)]
DATA = [bytes([i]) * 100 for i in range(20)]
ONCE = ["begun", "sent", "answered", "sent", "answered", "ended", "whole"]


@pytest.fixture
def cluster(ais_cluster):
    for name, data in zip(NAMES, DATA, strict=True):
        ais_cluster.put("b", name, data)
    return ais_cluster


@pytest.fixture
def client(cluster):
    with aisfast.Client(cluster.endpoint) as client:
        yield client


@pytest.fixture
def told():
    """The events of a test."""
    told: list[Event] = []
    with events.subscribe(told.append):
        yield told
    assert events.listeners == []


def kinds(told: list[Event]) -> list[str]:
    return [event.kind for event in told]


def take(client, way):
    batch = client.batch(NAMES, bucket=client.bucket("b"))
    if way == "pipeline":
        return [bytes(item) for columns in client.pipeline([batch]) for item in columns]
    if way == "get":
        return [data for _, data in batch.get()]
    return [bytes(item) for item in getattr(batch, way)()]


WAYS = pytest.mark.parametrize("way", ["get", "stream", "fetch", "pipeline"])


@WAYS
def test_a_batch(client, told, way):
    assert take(client, way) == DATA
    assert kinds(told) == ONCE
    assert len({event.call for event in told}) == 1
    assert {event.size for event in told} == {20}
    assert [event.time for event in told] == sorted(event.time for event in told)
    assert [event.status for event in told if event.kind == "answered"] == [307, 200]
    gateway, target = (event.url for event in told if event.kind == "sent")
    assert gateway == f"{client.session.settings.endpoint}/v1/ml/moss/b"
    assert target.startswith("http://127.0.0.1:")
    assert "?" not in target
    assert (told[-1].entries, told[-1].payload_bytes) == (20, 2000)
    assert {event.error + event.reason for event in told} == {""}


@WAYS
def test_an_answer_that_ends_early(client, cluster, told, way):
    cluster.faults.add("short", entry=6)
    assert take(client, way) == DATA
    assert kinds(told) == [*ONCE[:6], "resumed", *ONCE[1:]]
    ended, resumed = told[5:7]
    assert (ended.entries, ended.payload_bytes, ended.error) == (6, 600, "WireError")
    assert "expected 20 entries, found 6" in ended.reason == resumed.reason
    assert (client.stats.resumes, client.stats.retries) == (1, 0)


@WAYS
def test_a_busy_cluster(client, cluster, told, way):
    cluster.faults.add("error", kind="busy", times=2)
    assert take(client, way) == DATA
    refused = ["sent", "answered", "throttled", "retried"]
    assert [kind for kind in kinds(told) if kind in {*refused, "whole"}].count("throttled") == 2
    assert kinds(told).count("retried") == client.stats.retries == 2
    assert [event.status for event in told if event.kind == "throttled"] == [429, 429]
    retried = next(event for event in told if event.kind == "retried")
    assert (retried.error, "status 429" in retried.reason) == ("AISError", True)
    assert (told[-1].kind, told[-1].entries) == ("whole", 20)


def test_a_batch_that_fails_and_one_that_is_given_up(client, cluster, told):
    with pytest.raises(aisfast.ErrBckNotFound):
        client.batch(NAMES, bucket=client.bucket("nowhere")).fetch()
    assert (told[-1].kind, told[-1].error, told[-1].entries) == ("failed", "ErrBckNotFound", 0)
    assert "nowhere" in told[-1].reason
    told.clear()
    stream = client.batch(NAMES, bucket=client.bucket("b")).stream()
    next(stream)
    stream.close()
    assert (told[-1].kind, told[-1].entries, told[-1].error) == ("closed", 1, "")
    told.clear()
    cluster.faults.add("short", entry=6)
    with pytest.raises(aisfast.IncompleteBatchError):
        list(client.batch(NAMES, bucket=client.bucket("b")).stream(policy=ONE_ANSWER))
    assert kinds(told) == [*ONCE[:6], "failed"]
    assert (told[-1].error, told[-1].entries) == ("IncompleteBatchError", 6)


def test_nobody_listens_any_more(client):
    told: list[Event] = []
    subscription = events.subscribe(told.append)
    other = events.subscribe(told.append)
    subscription.close()
    subscription.close()
    take(client, "fetch")
    assert kinds(told) == ONCE  # by the other one
    other.close()
    take(client, "fetch")
    assert len(told) == len(ONCE)
    assert events.listeners == []


def test_a_subscriber_that_raises_is_logged(client, caplog):
    with events.subscribe(lambda event: 1 / 0):
        assert take(client, "fetch") == DATA
    assert "a subscriber of aisfast.events failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
