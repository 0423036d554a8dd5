"""GetBatch on sockets: what is kept, replaced, followed, sent again, given up; and what never is."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

import aisfast
import scripted
import wire
from aisfast import settings
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    IncompleteBatchError,
    LimitError,
    WireError,
)
from scripted import ONE_ANSWER, Last, Scripted, answer

ENTRIES = [wire.Entry("a", b"first"), wire.Entry("b", b"last")]
WHOLE = wire.streaming(ENTRIES)
RIGHT = [b"first", b"last"]
ANYWHERE = aisfast.Policy(redirect_hosts=("127.0.0.1",))
PATIENT = 30  # seconds: what a test waits for comes at once, or never


class Connection:
    """One connection of a client's, as the server sees it."""

    def __init__(self, sock, number):
        self.sock = sock
        self.file = sock.makefile("rb")
        self.number = number  # of the server's connections, from 0

    def request(self):
        """The next request, None when the client has closed."""
        with suppress(OSError):
            return scripted._read(self.file)

    def send(self, *pieces):
        for piece in pieces:
            self.sock.sendall(piece)


class Talking(Scripted):
    """Runs `talk(connection)` for each connection, then closes it."""

    def __init__(self, talk):
        super().__init__(None)
        self.talk = talk

    def _serve(self, sock):
        connection = Connection(sock, self.connections - 1)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.talk(connection)
        except OSError:
            pass  # the client went away
        finally:
            self._open.discard(sock)
            connection.file.close()
            sock.close()


def redirect(to, status=307):
    return answer(status, b"<a>Temporary Redirect</a>\n", Location=to)


@contextmanager
def client_of(server, **options):
    options.setdefault("policy", ONE_ANSWER)
    with aisfast.Client(server if isinstance(server, str) else server.url, **options) as client:
        yield client


def batch_of(client, names=("a", "b")):
    return client.batch(list(names), bucket=client.bucket("b"))


def fetch(client, **options):
    return [item.tobytes() for item in batch_of(client).fetch(**options)]


# ------------------------------------------------------------------------------------------------- kept connections


def test_connections_are_kept():
    with Scripted(lambda request: WHOLE.raw) as server, client_of(server) as client:
        for _ in range(5):
            assert fetch(client) == RIGHT
            assert [data for _, data in batch_of(client).get()] == RIGHT
            assert [item.tobytes() for item in batch_of(client).stream()] == RIGHT
        assert server.connections == 1
        assert len(server.requests) == 15
        stats = client.stats
        assert (stats.requests, stats.connections, stats.reconnects, stats.unclean_ends) == (15, 1, 0, 0)
        assert (stats.members, stats.payload_bytes) == (30, 15 * 9)
        client.close()
        assert fetch(client) == RIGHT
        assert server.connections == 2


def test_both_legs_are_kept():
    with Scripted(lambda request: WHOLE.raw) as target:
        where = f"{target.url}/v1/ml/moss/b/gbt-x/y/3?pid=p&utm=1"
        with Scripted(lambda request: redirect(where)) as proxy, client_of(proxy, policy=ANYWHERE) as client:
            for _ in range(4):
                assert fetch(client) == RIGHT
            assert (proxy.connections, target.connections) == (1, 1)
            assert (client.stats.redirects, client.stats.targets, client.stats.connections) == (4, 3, 2)


@pytest.mark.parametrize("what", ["Connection: close", "connection: Close", "Connection: keep-alive, close"])
def test_connection_that_is_to_be_closed(what):
    raw = WHOLE.raw.replace(b"\r\n", b"\r\n" + what.encode() + b"\r\n", 1)
    with Scripted(lambda request: raw) as server, client_of(server) as client:
        for _ in range(3):
            assert fetch(client) == RIGHT
        assert server.connections == 3


def test_body_until_close():
    raw = wire.head(headers=[("Content-Type", "application/x-tar")]) + WHOLE.body
    with Scripted(lambda request: Last(raw)) as server, client_of(server) as client:
        assert [fetch(client) for _ in range(2)] == [RIGHT] * 2
        assert server.connections == 2


def test_kept_connection_that_has_ended_is_not_used():
    with Scripted(lambda request: Last(WHOLE.raw)) as server, client_of(server) as client:
        for _ in range(3):
            assert fetch(client) == RIGHT
        assert len(server.requests) == 3


@pytest.mark.parametrize("how", ["end", "reset"])
def test_stale_connection_is_replaced_once(how):
    """The server gives up a kept connection just when the next request comes."""

    def talk(connection):
        connection.request()
        connection.send(WHOLE.raw)
        if connection.number == 0:
            seen.append(connection.request())
            if how == "reset":
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return
        while connection.request():
            connection.send(WHOLE.raw)

    seen = []
    with Talking(talk) as server, client_of(server, policy=aisfast.Policy(resume=False)) as client:
        assert [fetch(client) for _ in range(3)] == [RIGHT] * 3
        assert server.connections == 2
        assert seen[0].target == "/v1/ml/moss/b?provider=ais"
        assert (client.stats.requests, client.stats.reconnects) == (3, 1)


def test_fresh_connection_that_ends_without_an_answer_is_an_error():
    with Scripted(lambda request: None) as server, client_of(server) as client:
        with pytest.raises(AISConnectionError, match="broke") as caught:
            fetch(client)
        assert len(server.requests) == 1
        assert caught.value.kind == "broken"
        assert caught.value.status_code == 0
        assert caught.value.req_url.startswith(server.url)


def test_stale_connection_replaced_by_one_that_ends_too():
    def talk(connection):
        connection.request()
        if connection.number == 0:
            connection.send(WHOLE.raw)
            connection.request()

    with Talking(talk) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
        with pytest.raises(AISConnectionError):
            fetch(client)
        assert server.connections == 2


def test_connection_that_ends_in_its_head_is_not_replaced():
    def talk(connection):
        connection.request()
        connection.send(WHOLE.raw)
        connection.request()
        connection.send(WHOLE.raw[:20])

    with Talking(talk) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
        with pytest.raises(AISConnectionError):
            fetch(client)
        assert server.connections == 1


def test_consumed_redirect_is_never_repeated():
    """The target's kept connection is stale: the endpoint is asked again, and its new redirect followed."""

    def talk(connection):
        while request := connection.request():
            asked.append(request.target)
            if connection.number == 0 and len(asked) == 2:
                return
            connection.send(WHOLE.raw)

    def script(request):
        return redirect(f"{target.url}/v1/ml/moss/b/gbt-x/{len(proxy.requests)}/3?pid=p&utm=1")

    asked: list[str] = []
    with Talking(talk) as target, Scripted(script) as proxy, client_of(proxy, policy=ANYWHERE) as client:
        assert [fetch(client) for _ in range(2)] == [RIGHT] * 2
        assert [target.split("/")[6] for target in asked] == ["1", "2", "3"]
        assert (client.stats.requests, client.stats.reconnects) == (2, 1)
        assert len({request.body for request in proxy.requests}) == 1


def test_byte_on_an_idle_connection():
    """Nobody asked for it: the connection is not used."""

    def talk(connection):
        while connection.request():
            connection.send(WHOLE.raw + (b"H" if connection.number == 0 else b""))

    with Talking(talk) as server, client_of(server) as client:
        assert [fetch(client) for _ in range(3)] == [RIGHT] * 3
        assert server.connections == 2
        assert client.stats.unclean_ends == 1


def test_at_most_the_pool_is_kept():
    def talk(connection):
        while connection.request():
            connection.send(WHOLE.raw[: WHOLE.ends[0]])
            together.wait(PATIENT)
            connection.send(WHOLE.raw[WHOLE.ends[0] :])
        with over:
            ended.append(connection.number)
            over.notify()

    ended: list[int] = []
    over = threading.Condition()
    together = threading.Barrier(6)
    with Talking(talk) as server, client_of(server, max_pool_size=2) as client:
        streams = [batch_of(client).stream() for _ in range(6)]
        for stream in streams:
            threading.Thread(target=list, args=(stream,)).start()
        with over:
            assert over.wait_for(lambda: len(ended) == 4, PATIENT)
        assert server.connections == 6


# --------------------------------------------------------------------------------------------------- what is drained


def test_connection_is_of_use_again_once_its_trail_came():
    """The batch is over with its last payload byte; the server ends its answer when it likes."""

    def talk(connection):
        while connection.request():
            connection.send(WHOLE.raw[: WHOLE.end])
            assert go_on.wait(PATIENT)
            connection.send(WHOLE.raw[WHOLE.end :])
            sent.release()

    go_on, sent = threading.Event(), threading.Semaphore(0)
    with Talking(talk) as server, client_of(server) as client:
        assert fetch(client) == RIGHT  # not held up
        assert fetch(client) == RIGHT
        assert server.connections == 2
        go_on.set()
        for _ in range(2):
            assert sent.acquire(timeout=PATIENT)
        for _ in range(4):
            assert fetch(client) == RIGHT
            assert sent.acquire(timeout=PATIENT)
        assert server.connections == 2
        assert client.stats.unclean_ends == 0


WRONG_TRAILS = {
    "another member": wire.chunked(WHOLE.body + wire.member(b"b/c", b"more") + wire.TRAILER),
    "damage": b"nonsense" * 200,
    "end": b"",
    "cut": WHOLE.raw[WHOLE.end : -7],
}


@pytest.mark.parametrize("what", WRONG_TRAILS)
def test_connection_with_a_wrong_trail_is_dropped(what):
    def talk(connection):
        connection.request()
        if what == "another member":
            body = WHOLE.body[: -len(wire.TRAILER)] + wire.member(b"b/c", b"more") + wire.TRAILER
            connection.send(WHOLE.raw[: WHOLE.head_size] + wire.chunked(body))
            connection.request()
            return
        connection.send(WHOLE.raw[: WHOLE.end])
        assert go_on.wait(PATIENT)
        connection.send(WRONG_TRAILS[what])
        if what not in ("end", "cut"):
            sent.set()
            connection.request()
        sent.set()

    go_on, sent = threading.Event(), threading.Event()
    with Talking(talk) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
        go_on.set()
        if what != "another member":
            assert sent.wait(PATIENT)
        assert fetch(client) == RIGHT
        assert server.connections == 2
        if what not in ("end", "cut"):  # an end may be still on its way
            assert client.stats.unclean_ends >= 1


def test_so_many_connections_are_drained_and_no_more():
    def talk(connection):
        connection.request()
        connection.send(WHOLE.raw[: WHOLE.end])
        connection.request()
        with over:
            ended.append(connection.number)
            over.notify()

    ended: list[int] = []
    over = threading.Condition()
    more = 5
    with Talking(talk) as server, client_of(server) as client:
        for _ in range(settings.MAX_DRAINING + more):
            assert fetch(client) == RIGHT
        with over:
            assert over.wait_for(lambda: len(ended) >= more, PATIENT)
        assert sorted(ended) == list(range(more))  # the oldest
        assert server.connections == settings.MAX_DRAINING + more
        client.close()
        with over:
            assert over.wait_for(lambda: len(ended) == settings.MAX_DRAINING + more, PATIENT)


def test_client_closed_under_a_running_batch():
    """Its connection is closed when the batch is over, not left to the garbage collector."""

    def talk(connection):
        connection.request()
        connection.send(WHOLE.raw[: WHOLE.ends[0]])
        assert go_on.wait(PATIENT)
        connection.send(WHOLE.raw[WHOLE.ends[0] :])
        assert connection.request() is None
        ended.set()

    go_on, ended = threading.Event(), threading.Event()
    with Talking(talk) as server:
        client = aisfast.Client(server.url, policy=ONE_ANSWER)
        stream = batch_of(client).stream()
        assert next(stream).tobytes() == b"first"
        client.close()
        go_on.set()
        assert next(stream).tobytes() == b"last"
        assert ended.wait(5)
        del client, stream


def test_stream_left_early_closes_its_connection_and_no_other():
    def talk(connection):
        while connection.request():
            connection.send(WHOLE.raw[: WHOLE.ends[0]])
            if connection.number:
                connection.send(WHOLE.raw[WHOLE.ends[0] :])
        with over:
            ended.append(connection.number)
            over.notify()

    ended: list[int] = []
    over = threading.Condition()
    with Talking(talk) as server, client_of(server) as client:
        with batch_of(client).stream() as early:
            assert next(early).name == "a"
            with batch_of(client).stream() as late:
                assert next(late).name == "a"
                early.close()
                with over:
                    assert over.wait_for(lambda: ended == [0], PATIENT)
                assert next(late).name == "b"
            assert list(early) == []
        assert fetch(client) == RIGHT
        assert server.connections == 2
        assert ended == [0]


# ------------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_followed_with_method_and_body(status):
    with Scripted(lambda request: WHOLE.raw) as target:
        where = f"{target.url}/v1/ml/moss/b/gbt-x/y/12?provider=ais&pid=p&utm=1&u=%2B%20x"
        with Scripted(lambda request: redirect(where, status)) as proxy:
            with client_of(proxy, policy=ANYWHERE) as client:
                assert fetch(client) == RIGHT
            (first,), (second,) = proxy.requests, target.requests
            assert second.target == where.removeprefix(target.url)
            assert (first.method, first.body) == (second.method, second.body)
            assert first.headers["content-length"] == second.headers["content-length"]
            assert second.headers["host"] == f"127.0.0.1:{target.port}"
            assert second.headers["content-type"] == "application/json"
            assert json.loads(first.body)["strm"] is True


def test_relative_redirect():
    def script(request):
        return WHOLE.raw if "utm" in request.target else redirect("/v1/ml/moss/b/x/y/2?pid=p&utm=1")

    with Scripted(script) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
        assert server.requests[1].target == "/v1/ml/moss/b/x/y/2?pid=p&utm=1"


@pytest.mark.parametrize("tail", ["", "?pid=p&utm=1", "#fragment", "/x#fragment", "?pid=p#f"])
@pytest.mark.parametrize("policy", [ANYWHERE, None], ids=["hosts given", "hosts of the map"])
def test_redirect_to_a_url_without_a_path(tail, policy):
    """Each request has a target, and no fragment, the first time and the next."""

    def script(request):  # the map is kept from us
        return redirect(target.url + tail) if "moss" in request.target else answer(404)

    with Scripted(lambda request: WHOLE.raw) as target, Scripted(script) as proxy:
        with client_of(proxy, policy=policy) as client:
            assert [fetch(client) for _ in range(2)] == [RIGHT] * 2
        for request in target.requests:
            assert request.target.startswith("/")
            assert "#" not in request.target


def test_token_goes_to_the_endpoint_alone():
    with (
        Scripted(lambda request: WHOLE.raw) as target,
        Scripted(lambda request: redirect(f"{target.url}/v1/x?utm=1")) as proxy,
    ):
        with client_of(proxy, policy=ANYWHERE, token="top-secret") as client:
            for _ in range(2):
                assert fetch(client) == RIGHT
        assert {request.headers["authorization"] for request in proxy.requests} == {"Bearer top-secret"}
        assert all("top-secret" not in repr(request) for request in target.requests)


def test_token_is_in_no_error():
    message = b'{"message":"invalid token from header: top-secret","status":401}'
    with (
        Scripted(lambda request: answer(401, message)) as server,
        client_of(server, token="top-secret") as client,
        pytest.raises(AISError) as caught,
    ):
        fetch(client)
    assert "top-secret" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert caught.value.status_code == 401


def test_redirects_without_end():
    with Scripted(lambda request: redirect(f"{server.url}/v1/x/{len(server.requests)}")) as server:
        with client_of(server) as client, pytest.raises(AISError, match="more than 5 redirects") as caught:
            fetch(client)
        assert len(server.requests) == settings.MAX_REDIRECTS + 1
        assert caught.value.kind == "redirect"


@pytest.mark.parametrize(
    "location", [None, "", "ftp://127.0.0.1/x", "http://", "//", "mailto:x", "http://[/x", "http://h:99999/"]
)
def test_redirect_to_nowhere(location):
    reply = answer(307) if location is None else answer(307, Location=location)
    with Scripted(lambda request: reply) as server, client_of(server, policy=ANYWHERE) as client:
        with pytest.raises(AISError):
            fetch(client)
        assert len(server.requests) <= settings.MAX_REDIRECTS + 1


def test_redirect_to_a_host_that_is_not_of_the_cluster():
    with Scripted(lambda request: WHOLE.raw) as stranger:
        with Scripted(lambda request: redirect(f"{stranger.url}/v1/x?utm=1")) as proxy:
            with (
                client_of(proxy, policy=aisfast.Policy(redirect_hosts=("elsewhere",))) as client,
                pytest.raises(AISConnectionError, match="no host of the cluster") as caught,
            ):
                fetch(client)
            assert caught.value.kind == "redirect"
        assert stranger.connections == 0


def test_call_whose_policy_allows_less_than_another_did():
    """What one call may follow is not remembered for the next."""
    with (
        Scripted(lambda request: WHOLE.raw) as target,
        Scripted(lambda request: redirect(f"{target.url}/v1/x?utm=1")) as proxy,
        client_of(proxy) as client,
    ):
        assert fetch(client, policy=ANYWHERE) == RIGHT
        with pytest.raises(AISConnectionError):
            fetch(client, policy=aisfast.Policy(redirect_hosts=("elsewhere",)))


# ------------------------------------------------------------------------------------------------- response heads


def test_interim_answers():
    interim = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    for pieces in (
        [interim[0], WHOLE.raw],
        [interim[0] + WHOLE.raw],
        [*interim, *interim, WHOLE.raw],
        [interim[0][:9], interim[0][9:] + interim[1] + WHOLE.raw[:3], WHOLE.raw[3:]],
    ):

        def talk(connection, pieces=pieces):
            while connection.request():
                connection.send(*pieces)

        with Talking(talk) as server, client_of(server) as client:
            assert [fetch(client) for _ in range(2)] == [RIGHT] * 2
            assert server.connections == 1


def test_interim_answers_without_end():
    """They are bounded as one head is."""

    def talk(connection):
        connection.request()
        for _ in range(100):
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    with Talking(talk) as server, client_of(server) as client, pytest.raises(LimitError):
        fetch(client)


def test_answer_byte_by_byte():
    def talk(connection):
        while connection.request():
            connection.send(*(WHOLE.raw[i : i + 1] for i in range(len(WHOLE.raw))))

    with Talking(talk) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
        assert [data for _, data in batch_of(client).get()] == RIGHT
        assert [item.tobytes() for item in batch_of(client).stream()] == RIGHT


@pytest.mark.parametrize("shape", ["one header", "many headers", "a status line", "no line end"])
def test_head_without_end(shape):
    piece = {
        "one header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000,
        "a status line": b"HTTP/1.1 200 " + b"x" * 200_000,
        "no line end": b"HTTP/1.1 200 OK",
    }[shape]

    def talk(connection):
        connection.request()
        connection.send(piece)
        while shape == "no line end":
            connection.send(b"\r\nA: b" * 1000)
        connection.request()

    with Talking(talk) as server, client_of(server) as client, pytest.raises(LimitError, match="head") as caught:
        fetch(client)
    assert caught.value.layer == "http"
    assert caught.value.req_url


def test_longest_head():
    filler = b"x" * (settings.MAX_HEAD - WHOLE.head_size - len(b"X: \r\n"))
    raw = WHOLE.raw.replace(b"\r\n", b"\r\nX: " + filler + b"\r\n", 1)
    with Scripted(lambda request: raw) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
    with (
        Scripted(lambda request: raw.replace(b"X: ", b"X: x")) as server,
        client_of(server) as client,
        pytest.raises(LimitError),
    ):
        fetch(client)


NO_HTTP = {
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "html": b"<html>hello</html>\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x16",
    "HTTP/2": b"\0\0\x12\x04\0\0\0\0\0",
    "zeros": bytes(5000),
    "LF alone": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length in words": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nxxxxx",
    "a length too long": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("what", NO_HTTP)
def test_answer_that_is_not_http(what):
    with Scripted(lambda request: NO_HTTP[what]) as server, client_of(server) as client:
        for ask in (fetch, lambda client: list(batch_of(client).get()), lambda client: list(batch_of(client).stream())):
            with pytest.raises(WireError) as caught:
                ask(client)
            assert caught.value.layer == "http"
            assert caught.value.req_url.startswith(server.url)
        assert server.connections == 3


@pytest.mark.parametrize("status", [201, 202, 204, 206, 300, 303, 304])
def test_status_that_no_batch_has(status):
    with (
        Scripted(lambda request: answer(status)) as server,
        client_of(server) as client,
        pytest.raises(WireError, match=f"status {status}"),
    ):
        fetch(client)


@pytest.mark.parametrize(
    "body", [b"", b"plain text\n", b"\xff\xfe", b'{"message":5}', b'{"message":"x"', b"[]", b"x" * 3_000_000]
)
def test_error_answer_of_any_body(body):
    for framed in (
        answer(500, body),
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n" + wire.chunked(body, [7]),
    ):
        with Scripted(lambda request, framed=framed: framed) as server, client_of(server) as client:
            with pytest.raises(AISError) as caught:
                fetch(client)
            assert caught.value.status_code == 500
            assert len(caught.value.message) <= settings.MAX_ERROR_BODY
            assert type(caught.value) is AISError


def test_error_answer_that_is_cut_or_has_no_end():
    for raw in (b"HTTP/1.1 400 Bad\r\nContent-Length: 999\r\n\r\nbecause", b"HTTP/1.1 400 Bad\r\n\r\nbecause"):
        with Scripted(lambda request, raw=raw: Last(raw)) as server, client_of(server) as client:
            with pytest.raises(AISError, match="because") as caught:
                fetch(client)
            assert caught.value.status_code == 400


# ----------------------------------------------------------------------------------------------- time and failures


def test_no_answer_in_time():
    with (
        Talking(lambda connection: (connection.request(), connection.request())) as server,
        client_of(server, timeout=(3, 0.05)) as client,
    ):
        for ask in (fetch, lambda client: batch_of(client).get(), lambda client: batch_of(client).stream()):
            with pytest.raises(AISTimeoutError, match=r"0\.05 s") as caught:
                ask(client)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.req_url.startswith(server.url)
        assert server.connections == 3


def test_limit_in_the_message_of_a_batch_is_that_of_a_batch(monkeypatch):
    monkeypatch.setattr(settings, "BATCH_READ_TIMEOUT", 0.05)
    with (
        Talking(lambda connection: (connection.request(), connection.request())) as server,
        client_of(server) as client,
        pytest.raises(AISTimeoutError, match=r"0\.05 s to answer"),
    ):
        fetch(client)


def test_silence_in_the_middle():
    def talk(connection):
        connection.request()
        connection.send(WHOLE.raw[: WHOLE.ends[0]])
        connection.request()

    with Talking(talk) as server, client_of(server, timeout=(3, 0.05)) as client:
        stream = batch_of(client).stream()
        assert next(stream).tobytes() == b"first"
        with pytest.raises(IncompleteBatchError) as caught:
            next(stream)
        assert isinstance(caught.value.__cause__, AISTimeoutError)
        assert caught.value.missing == (1,)
        assert list(stream) == []


@pytest.mark.parametrize("how", ["end", "reset"])
def test_connection_that_breaks_in_the_middle(how):
    def talk(connection):
        connection.request()
        connection.send(WHOLE.raw[: WHOLE.ends[0] + 30])
        if how == "reset":
            assert received.wait(PATIENT)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    received = threading.Event()
    with Talking(talk) as server, client_of(server) as client:
        pairs = batch_of(client).get()
        assert next(pairs)[1] == b"first"
        received.set()
        with pytest.raises(IncompleteBatchError, match="entry 1") as caught:
            next(pairs)
        error = caught.value
        assert isinstance(error.__cause__, AISConnectionError)
        assert (error.requested, error.received, error.missing, error.attempts) == (2, 1, (1,), 1)
        assert len(error.rest()) == 1
        assert list(pairs) == []


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}") as client, pytest.raises(AISConnectionError, match="refused") as caught:
        fetch(client)
    assert caught.value.kind == "refused"
    assert str(port) in str(caught.value)


LARGE = [f"{i:06}/{'x' * 200}" for i in range(60_000)]  # a body of 15 MB: no socket buffer holds it


def test_refusal_while_a_large_body_is_sent():
    """The server answers and closes long before it has all: its answer is the error, not the broken pipe."""

    def talk(connection):
        connection.sock.recv(1000)
        connection.send(answer(400, b'{"message":"too much"}', Connection="close"))
        connection.sock.shutdown(socket.SHUT_WR)
        while connection.sock.recv(1 << 20):
            pass

    with Talking(talk) as server, client_of(server) as client:
        with pytest.raises(AISError, match="too much") as caught:
            batch_of(client, LARGE).fetch()
        assert caught.value.status_code == 400


def test_redirect_while_a_large_body_is_sent():
    def talk(connection):
        request = connection.request()
        assert len(request.body) > 10_000_000
        connection.send(redirect(f"{target.url}/v1/x?utm=1"))

    def script(request):
        return answer(400, str(len(request.body)).encode())

    once = ANYWHERE.replace(resume=False)
    with Scripted(script) as target, Talking(talk) as proxy, client_of(proxy, policy=once) as client:
        with pytest.raises(AISError) as caught:
            batch_of(client, LARGE).fetch()
        assert int(caught.value.message) == len(target.requests[0].body)


def test_connection_on_which_half_a_request_was_sent_is_not_used_again():
    """The server refused in the middle, and would take the next request for the rest of the body."""

    def talk(connection):
        if connection.number == 0:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sock.recv(1000)
            connection.send(answer(413, b'{"message":"too much"}'))
            assert go_on.wait(PATIENT)
            while connection.sock.recv(1 << 20):
                pass
            return
        while connection.request():
            connection.send(WHOLE.raw)

    go_on = threading.Event()
    with Talking(talk) as server, client_of(server, timeout=(3, 0.3)) as client:
        with pytest.raises(AISError) as caught:
            batch_of(client, LARGE).fetch()
        assert caught.value.status_code == 413
        go_on.set()
        assert fetch(client) == RIGHT
        assert server.connections == 2


# ----------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture
def token_file(tmp_path, monkeypatch):
    path = tmp_path / "auth.token"
    path.write_text('{"token":"old"}')
    monkeypatch.setenv("AIS_AUTHN_TOKEN_FILE", str(path))
    monkeypatch.delenv("AIS_AUTHN_TOKEN", raising=False)
    return path


def with_token(request):
    return (
        WHOLE.raw if request.headers["authorization"] == "Bearer new" else answer(401, b'{"message":"token expired"}')
    )


def test_token_file_is_read_again_once(token_file):
    with Scripted(with_token) as server, client_of(server) as client:
        token_file.write_text('{"token":"new"}')
        assert fetch(client) == RIGHT
        assert [request.headers["authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]
    with Scripted(with_token) as server, client_of(server) as client:
        client.session.token = "old"
        token_file.write_text('{"token":"newer"}')
        with pytest.raises(AISError) as caught:
            fetch(client)
        assert caught.value.status_code == 401
        assert len(server.requests) == 2


def test_connection_that_goes_stale_behind_a_401(token_file):
    """The second request finds the connection closed: it is sent again on a new one."""

    def talk(connection):
        request = connection.request()
        connection.send(with_token(request))
        if connection.number == 0:
            connection.request()

    with Talking(talk) as server, client_of(server) as client:
        token_file.write_text('{"token":"new"}')
        assert fetch(client) == RIGHT
        assert server.connections == 2


def test_401_behind_a_stale_connection(token_file):
    """The connection is replaced, and the new one hears that the token has expired."""

    def talk(connection):
        if connection.number == 0:
            connection.request()
            connection.send(WHOLE.raw)
            connection.request()
            return
        while request := connection.request():
            connection.send(with_token(request))

    with Talking(talk) as server, client_of(server) as client:
        assert fetch(client) == RIGHT
        token_file.write_text('{"token":"new"}')
        assert fetch(client) == RIGHT
        assert server.connections == 2


# ------------------------------------------------------------------------------------------------------- TLS, proxies


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def test_tls(authority, tmp_path):
    """Kept, replaced when stale, drained: as without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    large = wire.streaming([wire.Entry("a", b"x" * 3_000_000), wire.Entry("b", b"last")])
    replies = [WHOLE.raw, large.raw, WHOLE.raw, Last(WHOLE.raw), large.raw, Last(large.raw), WHOLE.raw]

    with Scripted(lambda request: replies[len(server.requests) - 1], tls=context) as server:
        with client_of(server, ca_cert=str(tmp_path / "ca.pem")) as client:
            got = [fetch(client) for _ in replies]
        assert [len(payloads[0]) for payloads in got] == [5, 3_000_000, 5, 5, 3_000_000, 3_000_000, 5]
        assert all(payloads[1] == b"last" for payloads in got)
        assert server.connections == 3
        assert client.stats.unclean_ends == 0


def test_tls_that_is_not_trusted(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Scripted(lambda request: WHOLE.raw, tls=context) as server, client_of(server) as client:
        with pytest.raises(AISConnectionError, match="certificate") as caught:
            fetch(client)
        assert caught.value.kind == "tls"
        assert server.requests == []


def test_https_is_never_left(authority, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        Scripted(lambda request: WHOLE.raw) as target,
        Scripted(lambda request: redirect(f"{target.url}/v1/x?utm=1"), tls=context) as proxy,
        client_of(proxy, ca_cert=str(tmp_path / "ca.pem"), policy=ANYWHERE) as client,
    ):
        with pytest.raises(AISConnectionError, match="from https to http"):
            fetch(client)
        assert target.connections == 0


def test_plain_http_to_a_server_that_speaks_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Scripted(lambda request: WHOLE.raw, tls=context) as server:
        with client_of(f"http://127.0.0.1:{server.port}") as client, pytest.raises((WireError, AISConnectionError)):
            fetch(client)
        with (
            Scripted(lambda request: WHOLE.raw) as plain,
            client_of(f"https://127.0.0.1:{plain.port}") as client,
            pytest.raises(AISConnectionError, match="TLS"),
        ):
            fetch(client)


def test_forward_proxy(monkeypatch):
    """Both legs pass through it, naming the whole URL; the token goes with the first alone."""

    def script(request):
        return WHOLE.raw if "utm" in request.target else redirect("http://target.example:81/v1/ml/moss/b/x/y/2?utm=1")

    with Scripted(script) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:pass@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        policy = aisfast.Policy(redirect_hosts=("target.example",))
        with client_of("http://gateway.example:80", policy=policy, token="top-secret") as client:
            for _ in range(2):
                assert fetch(client) == RIGHT
        for first, second in (proxy.requests[:2], proxy.requests[2:]):
            assert first.target == "http://gateway.example:80/v1/ml/moss/b?provider=ais"
            assert second.target == "http://target.example:81/v1/ml/moss/b/x/y/2?utm=1"
            assert first.headers["authorization"] == "Bearer top-secret"
            assert "authorization" not in second.headers
            assert first.headers["proxy-authorization"] == second.headers["proxy-authorization"]
            assert (first.headers["host"], second.headers["host"]) == ("gateway.example:80", "target.example:81")


# --------------------------------------------------------------------------------------------------- threads, forks


def test_threads_share_a_client():
    wanted = [wire.Entry(f"o{i}", bytes([i]) * 20_000) for i in range(20)]
    raw = wire.streaming(wanted).raw
    failures: list[BaseException] = []

    def work(client):
        try:
            for _ in range(10):
                got = [item.tobytes() for item in batch_of(client, [e.name for e in wanted]).stream()]
                assert got == [e.payload for e in wanted]
        except BaseException as error:
            failures.append(error)

    with Scripted(lambda request: raw) as server, client_of(server) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert server.connections <= 8
        assert client.stats.requests == 80
        assert client.stats.members == 1600


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("script", "says"), [("fork.py", "parent child stream parent"), ("fork_locked.py", "")])
def test_fork(script, says):
    """Child and parent each on connections of their own; what one closes, or holds, disturbs the other in nothing."""
    raw = wire.streaming([wire.Entry("a", b"first"), wire.Entry("b", bytes(8_000_000))]).raw
    with Scripted(lambda request: raw) as server:
        path = Path(__file__).parent / "isolated" / script
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, path, server.url], env=env, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == says.split()
        assert server.connections == 2
