"""`aisfast.events`: what is told of a batch, in which order, without a secret; `aisfast.otel` on top; who logs."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import subprocess
import sys
import types
from typing import Any

import pytest

import aisfast
import wire
from aisfast import events
from aisfast.errors import this_process
from aisfast.events import Event
from scripted import ONE_ANSWER, Last, Request, Scripted, answer

NAMES = [f"o{i}" for i in range(20)]
DATA = [bytes([i]) * 100 for i in range(20)]
ONCE = ["begun", "sent", "answered", "sent", "answered", "ended", "whole"]
TOKEN = "top-secret/token=="


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


# ------------------------------------------------------------------------------------------------------------- secrets


def error_body(text: str) -> bytes:
    return f'{{"message":"{text}"}}'.encode()


REPLIES = {
    "401": answer(401, error_body(f"invalid token: {TOKEN}")),
    "Bearer": answer(403, error_body(f"Authorization: Bearer {TOKEN}")),
    "503": answer(503, error_body(f"{TOKEN}, eyJhbGci.eyJleHAi.c00kie")),
    "userinfo": answer(307, Location="http://u:c00kie@127.0.0.1:9/v1/ml/moss/b/1"),
    "no URL": answer(307, Location="http://u:c00kie@[/v1?sig=c00kie"),
    "204": answer(204, b"", Set_Cookie="sid=c00kie", Authorization=f"Bearer {TOKEN}"),
    "member": Last(answer(200, f"a member {TOKEN}".encode().ljust(1024, b"."), Content_Type="application/x-tar")),
    "no archive": Last(answer(200, TOKEN.encode().ljust(1024, b"."), Content_Type="application/x-tar")),
    "garbage": Last(f"garbage with {TOKEN} in it\r\n\r\n".encode()),
    "only": Last(f"{TOKEN}\r\n\r\n".encode()),
    "status": Last(f"HTTP/1.1 {TOKEN}\r\n\r\n".encode()),
    "reason": Last(f"HTTP/1.1 204 {TOKEN}\r\n\r\n".encode()),
    "length": Last(f"HTTP/1.1 200 OK\r\nContent-Length: {TOKEN}\r\n\r\n".encode()),
    "chunk": Last(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{TOKEN}\r\n\r\n".encode()
    ),
    "header": Last(f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n".encode()),
    "nothing": None,
}


@pytest.mark.parametrize("reply", list(REPLIES.values()), ids=list(REPLIES))
def test_no_secret_is_told(reply, told, caplog):
    """In no error, its cause, its attributes, no line of the log, no event."""
    caplog.set_level(logging.DEBUG)
    policy = aisfast.Policy(patience=1, deadline=1, redirect_hosts=("127.0.0.1",))
    with Scripted(lambda request: reply) as server, aisfast.Client(server.url, token=TOKEN, policy=policy) as client:
        with pytest.raises(aisfast.AISError) as caught:
            client.batch(NAMES, bucket=client.bucket("b")).fetch()
        assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        seen = f"{client!r} {client.session.settings!r} {told} {caplog.text} {[vars(r) for r in caplog.records]}"
    error: BaseException | None = caught.value
    while error is not None:
        seen += f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    assert told[-1].kind == "failed"
    assert TOKEN not in seen
    assert "c00kie" not in seen


def test_a_redirect_with_a_password_is_not_followed():
    def script(request: Request) -> bytes:
        return answer(307, Location=f"http://u:c00kie@127.0.0.1:{server.port}/v1/ml/moss/b/1/2/3")

    with Scripted(script) as server, aisfast.Client(server.url) as client:
        with pytest.raises(aisfast.WireError, match="which is no URL of a node") as caught:
            client.batch(NAMES, bucket=client.bucket("b")).fetch()
        assert "c00kie" not in f"{caught.value} {vars(caught.value)}"
        assert len(server.requests) == 1


def test_an_endpoint_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ValueError, match="token=") as caught:
        aisfast.Client("http://ann:c00kie@127.0.0.1:8080")
    assert "c00kie" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_the_log_of_a_mended_batch_has_no_secret(caplog):
    caplog.set_level(logging.DEBUG)
    whole = wire.streaming([wire.Entry(name, data) for name, data in zip(NAMES, DATA, strict=True)])
    replies = [Last(whole.raw[: whole.ends[3]]), answer(503, error_body(f"no {TOKEN}")), None]
    rest = wire.streaming([wire.Entry(name, data) for name, data in zip(NAMES[4:], DATA[4:], strict=True)]).raw
    with (
        Scripted(lambda _: replies.pop(0) if replies else rest) as server,
        aisfast.Client(server.url, token=TOKEN) as client,
    ):
        assert len(client.batch(NAMES, bucket=client.bucket("b")).fetch()) == 20
    assert "an answer ended early" in caplog.text
    assert "was mended" in caplog.text
    assert TOKEN not in caplog.text


# ------------------------------------------------------------------------------------------------------ rank and worker


RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


@pytest.fixture
def no_rank(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.data", raising=False)
    return monkeypatch


def as_worker(number: int | None) -> Any:
    info = None if number is None else types.SimpleNamespace(id=number)
    return types.SimpleNamespace(get_worker_info=lambda: info)


@pytest.mark.parametrize("name", RANKS)
def test_rank(no_rank, name):
    assert this_process() == ""
    for wrong in ("", "three", "-1"):
        no_rank.setenv(name, wrong)
        assert this_process() == ""
    no_rank.setenv(name, "3")
    assert this_process() == "RANK:3"
    no_rank.setenv("RANK", "5")  # of a launcher inside another
    assert this_process() == "RANK:5"


def test_worker(no_rank):
    no_rank.setitem(sys.modules, "torch.utils.data", as_worker(None))
    assert this_process() == ""
    no_rank.setitem(sys.modules, "torch.utils.data", as_worker(1))
    assert this_process() == "WORKER:1"
    no_rank.setenv("RANK", "3")
    assert this_process() == "RANK:3, WORKER:1"


def test_a_real_worker():
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed")

    class Which(data.IterableDataset):
        def __iter__(self):
            yield this_process()

    assert [*data.DataLoader(Which(), batch_size=None, num_workers=2)] == ["WORKER:0", "WORKER:1"]


def test_errors_tell_which_process_made_them(no_rank, client):
    with pytest.raises(aisfast.ErrBckNotFound) as caught:
        client.batch(NAMES, bucket=client.bucket("nowhere")).fetch()
    plain = str(caught.value)
    assert "RANK" not in plain
    no_rank.setenv("RANK", "3")
    with pytest.raises(aisfast.ErrBckNotFound) as caught:
        client.batch(NAMES, bucket=client.bucket("nowhere")).fetch()
    error = caught.value
    assert error.message.endswith("}")  # the server's text, as it is
    assert str(error) == f"{plain}, RANK:3"
    no_rank.setenv("RANK", "0")
    again = pickle.loads(pickle.dumps(error))
    assert (again.process, str(again)) == ("RANK:3", str(error))
    assert str(type(error)(str(error))) == str(error)  # how a DataLoader raises it in another process


def test_logs_tell_which_process_wrote_them(no_rank, caplog):
    log = logging.getLogger("aisfast")
    no_rank.setenv("RANK", "3")
    log.warning("%d%% of %s", 5, "all")
    log.warning("100%")
    no_rank.delenv("RANK")
    log.warning("here")
    assert [record.getMessage() for record in caplog.records] == ["5% of all (RANK:3)", "100% (RANK:3)", "here"]


def test_a_program_that_configures_no_log_is_not_written_to():
    program = "import aisfast, logging; logging.getLogger('aisfast').warning('silent')"
    environment = {**os.environ, "RANK": "3"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -------------------------------------------------------------------------------------------------------- OpenTelemetry


def test_without_opentelemetry_the_extra_is_named():
    program = "import sys; sys.modules['opentelemetry'] = None\nimport aisfast.otel"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.endswith("ImportError: aisfast.otel needs opentelemetry-api: pip install 'aisfast[otel]'\n")


@pytest.fixture
def tracing():
    """A provider of tracers, and the spans that have ended."""
    pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter.get_finished_spans
    provider.shutdown()


@WAYS
def test_a_span_for_each_batch(client, cluster, tracing, way):
    from aisfast import otel

    provider, ended = tracing
    cluster.faults.add("short", entry=6)
    cluster.faults.add("error", kind="busy", nth=2)
    with otel.trace(provider), provider.get_tracer("test").start_as_current_span("step"):
        assert take(client, way) == DATA
        assert take(client, way) == DATA
    first, second, step = ended()
    assert [span.name for span in (first, second)] == [otel.SPAN] * 2
    assert first.parent.span_id == second.parent.span_id == step.context.span_id
    assert first.kind.name == "CLIENT"
    endpoint, port = cluster.endpoint.rpartition(":")[::2]
    assert first.attributes == {
        "http.request.method": "GET",
        "server.address": endpoint.removeprefix("http://"),
        "server.port": int(port),
        "http.response.status_code": 200,
        "http.request.resend_count": 2,
        "aisfast.batch.size": 20,
        "aisfast.batch.entries": 20,
        "aisfast.batch.payload_bytes": 2000,
        "aisfast.batch.outcome": "whole",
    }
    names = [event.name for event in first.events]
    assert [name for name in names if name not in ("aisfast.sent", "aisfast.answered")] == [
        "aisfast.ended", "aisfast.resumed", "aisfast.throttled", "aisfast.retried", "aisfast.ended",
    ]  # fmt: skip
    assert "found 6" in first.events[names.index("aisfast.resumed")].attributes["aisfast.reason"]
    assert first.events[0].attributes["url.full"] == f"{cluster.endpoint}/v1/ml/moss/b"
    assert (first.status.is_ok, "http.request.resend_count" in second.attributes) == (True, False)
    assert first.start_time <= first.events[0].timestamp <= first.events[-1].timestamp <= first.end_time
    assert events.listeners == []


def test_spans_of_batches_that_fail_or_are_given_up(client, tracing):
    from aisfast import otel

    provider, ended = tracing
    with otel.trace(provider):
        with pytest.raises(aisfast.ErrBckNotFound):
            client.batch(NAMES, bucket=client.bucket("nowhere")).fetch()
        stream = client.batch(NAMES, bucket=client.bucket("b")).stream()
        next(stream)
        before = client.batch(NAMES, bucket=client.bucket("b")).stream()
        del stream
        gc.collect()
        with otel.trace(provider):  # a batch that was begun before has no span there
            assert len(list(before)) == 20
    failed, closed, whole = ended()
    assert (failed.attributes["error.type"], failed.attributes["http.response.status_code"]) == ("ErrBckNotFound", 404)
    assert not failed.status.is_ok
    assert "nowhere" in failed.status.description
    assert (closed.attributes["aisfast.batch.outcome"], closed.attributes["aisfast.batch.entries"]) == ("closed", 1)
    assert closed.status.is_ok
    assert whole.attributes["aisfast.batch.outcome"] == "whole"
