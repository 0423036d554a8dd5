"""Connections and REST calls against scripted servers: redirects, tokens, tries, TLS, proxies."""

from __future__ import annotations

import json
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

import aisfast
from aisfast import session as session_module
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrBckAlreadyExists,
    ErrBckNotFound,
    ErrObjNotFound,
    ErrRemoteBckNotFound,
    SentRequest,
    WireError,
    error_from_answer,
)
from aisfast.session import SMALL_BODY, FileBody, Origin, Session, origin_of
from aisfast.settings import MAX_ERROR_BODY, MAX_REDIRECTS, resolve
from scripted import Last, Request, Scripted, answer

TOKEN = "eyJsecret"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from the environment, and no waiting between tries."""
    for name in list(os.environ):
        if name.startswith("AIS") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(session_module, "BACKOFF", 0)


def smap(*urls: str) -> bytes:
    """A cluster map with a target at each URL."""

    def node(name: str, url: str) -> dict[str, object]:
        return {"daemon_id": name, "daemon_type": "target", "public_net": {"direct_url": url}}

    nodes = {f"t{i}": node(f"t{i}", url) for i, url in enumerate(urls)}
    return json.dumps({"tmap": nodes, "pmap": {}, "proxy_si": node("p", urls[0]), "version": "3"}).encode()


class Pair:
    """A gateway that redirects all but the map to one target; its redirects are numbered, as single-use."""

    def __init__(self, script=lambda _: answer(body=b"payload"), status: int = 307) -> None:
        self.map = lambda: answer(body=smap(self.target.url))
        self.location = lambda request: f"{self.target.url}{request.target}&utm={len(self.gateway.requests)}"
        self.status = status
        self.gateway = Scripted(self._redirect)
        self.target = Scripted(script)

    def _redirect(self, request: Request) -> bytes:
        if "what=smap" in request.target:
            return self.map()
        return answer(self.status, b"moved", Location=self.location(request))

    def __enter__(self) -> Pair:
        self.gateway.__enter__()
        self.target.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.__exit__()
        self.target.__exit__()

    @property
    def redirected(self) -> list[Request]:
        """What the gateway redirected."""
        return [request for request in self.gateway.requests if "what=smap" not in request.target]

    @property
    def maps(self) -> int:
        """How often the map was asked for."""
        return len(self.gateway.requests) - len(self.redirected)


def session(url: str, hosts: tuple[str, ...] | None = None, **settings: object) -> Session:
    return Session(resolve(url, **settings), hosts)  # type: ignore[arg-type]


P = {"provider": "ais"}


# ---------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_redirect_keeps_method_and_body_and_drops_the_token(status: int, method: str) -> None:
    with Pair(status=status) as pair:
        mine = session(pair.gateway.url, token=TOKEN)
        body = None if method == "GET" else b"body"
        assert mine.request(method, "objects/b/o", params=P, body=body).data == b"payload"
        (first,), (second,) = pair.redirected, pair.target.requests
        assert (first.method, first.body) == (second.method, second.body) == (method, body or b"")
        assert first.target == "/v1/objects/b/o?provider=ais"
        assert second.target == first.target + "&utm=1"
        assert first.headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in second.headers
        mine.close()


def test_large_body_goes_to_the_target_only() -> None:
    with Pair() as pair:
        mine = session(pair.gateway.url)
        body = os.urandom(SMALL_BODY + 1)
        mine.request("PUT", "objects/b/o", params=P, body=body)
        (first,), (second,) = pair.redirected, pair.target.requests
        assert (first.headers["content-length"], first.headers["connection"]) == (str(len(body)), "close")
        assert second.body == body
        assert "connection" not in second.headers
        mine.close()


@pytest.mark.parametrize("size", [0, 10, SMALL_BODY, 3 * SMALL_BODY + 1])
def test_file_body_is_sent_whole_at_every_leg(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    with Pair() as pair, path.open("rb") as file:
        mine = session(pair.gateway.url)
        mine.request("PUT", "objects/b/o", params=P, body=FileBody(file))
        assert pair.target.requests[0].body == path.read_bytes()
        assert pair.redirected[0].body in (b"", path.read_bytes())
        mine.close()


def test_file_that_shrinks_is_an_error_and_one_that_grows_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with Pair() as pair, path.open("rb") as file:
        mine = session(pair.gateway.url)
        body = FileBody(file)
        with path.open("ab") as more:
            more.write(b"more")
        mine.request("PUT", "objects/b/o", params=P, body=body)
        assert pair.target.requests[0].body == bytes(1000)
        with path.open("rb") as again:
            body = FileBody(again)
            os.truncate(path, 10)
            with pytest.raises(ValueError, match="became shorter"):
                mine.request("PUT", "objects/b/o", params=P, body=body)
        mine.close()


def test_map_is_read_once_and_only_for_an_unknown_host() -> None:
    with Pair() as pair:
        mine = session(pair.gateway.url)
        for _ in range(3):
            mine.request("GET", "objects/b/o", params=P)
        assert pair.maps == 1
        mine.close()


def test_a_host_outside_the_map_is_refused() -> None:
    with Pair() as pair:
        pair.map = lambda: answer(body=smap("http://127.0.0.1:1"))
        mine = session(pair.gateway.url)
        with pytest.raises(
            AISConnectionError, match=r"which is no host of the cluster.*redirect_hosts"
        ) as caught:
            mine.request("GET", "objects/b/o", params=P)
        assert caught.value.kind == "redirect"
        assert pair.target.requests == []
        mine.close()


def test_a_node_that_joined_later_is_found() -> None:
    with Pair() as pair:
        pair.map = lambda: answer(body=smap("http://127.0.0.1:1"))
        mine = session(pair.gateway.url)
        with pytest.raises(AISConnectionError):
            mine.request("GET", "objects/b/o", params=P)
        pair.map = lambda: answer(body=smap(pair.target.url))
        assert mine.request("GET", "objects/b/o", params=P).data == b"payload"
        mine.close()


@pytest.mark.parametrize("hosts", [("127.0.0.1",), ("127.0.0.1:PORT",)])
def test_redirect_hosts_take_the_place_of_the_map(hosts: tuple[str, ...]) -> None:
    with Pair() as pair:
        mine = session(pair.gateway.url, tuple(h.replace("PORT", str(pair.target.port)) for h in hosts))
        assert mine.request("GET", "objects/b/o", params=P).data == b"payload"
        assert pair.maps == 0
        mine.close()
        other = session(pair.gateway.url, ("elsewhere",))
        with pytest.raises(AISConnectionError, match="no host of the cluster"):
            other.request("GET", "objects/b/o", params=P)
        other.close()


@pytest.mark.parametrize("status", [401, 403])
def test_where_the_map_is_refused_redirects_are_followed_without_a_token(status: int) -> None:
    with Pair() as pair:
        pair.map = lambda: answer(status, b"no")
        mine = session(pair.gateway.url, token=TOKEN)
        for _ in range(2):
            assert mine.request("GET", "objects/b/o", params=P).data == b"payload"
        assert pair.maps == 1
        assert all("authorization" not in request.headers for request in pair.target.requests)
        mine.close()


def test_a_map_that_is_none_is_an_error() -> None:
    with Pair() as pair:
        pair.map = lambda: answer(body=b'{"tmap": 1}')
        mine = session(pair.gateway.url)
        with pytest.raises(WireError, match=r"not the JSON that a cluster answers.*AIStore gateway"):
            mine.request("GET", "objects/b/o", params=P)
        mine.close()


def test_redirects_end() -> None:
    with Pair() as pair:
        pair.location = lambda _: pair.gateway.url + "/v1/again"
        mine = session(pair.gateway.url)
        with pytest.raises(AISConnectionError, match=f"more than {MAX_REDIRECTS} redirects"):
            mine.request("GET", "objects/b/o")
        assert len(pair.redirected) == MAX_REDIRECTS + 1
        mine.close()


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "http://", "http://127.0.0.1:port/", None])
def test_a_location_that_is_no_url(location: str | None) -> None:
    script = lambda _: answer(302, **({"Location": location} if location else {}))  # noqa: E731
    with Scripted(script) as server:
        mine = session(server.url)
        why = "which is no URL" if location else r"without saying where \(no Location\)"
        with pytest.raises(WireError, match=rf"/v1/objects/b/o redirects .*{why}.*AIStore gateway\?"):
            mine.request("GET", "objects/b/o")
        mine.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_an_error_without_a_text(method: str) -> None:
    with Scripted(lambda _: answer(400)) as server:
        mine = session(server.url)
        with pytest.raises(AISError, match=r"400.*without a text.*/v1/objects/b/o.*AIStore gateway\?"):
            mine.request(method, "objects/b/o")
        mine.close()


def test_relative_location() -> None:
    script = lambda r: answer(body=b"there") if r.target == "/v1/b" else answer(307, Location="/v1/b#x")  # noqa: E731
    with Scripted(script) as server:
        mine = session(server.url)
        assert mine.request("GET", "a").data == b"there"
        mine.close()


def test_a_redirect_is_never_repeated_the_gateway_is() -> None:
    replies = [None, answer(503, b"starting"), answer(body=b"at last")]
    with Pair(lambda _: replies.pop(0)) as pair:
        mine = session(pair.gateway.url)
        assert mine.request("GET", "objects/b/o", params=P).data == b"at last"
        assert len(pair.redirected) == 3
        assert len({request.target for request in pair.target.requests}) == 3
        mine.close()


# -------------------------------------------------------------------------------------------- tries


@pytest.mark.parametrize("status", [429, 503])
def test_a_read_is_tried_again_and_a_write_is_not(status: int) -> None:
    with Scripted(lambda _: answer(status, b"busy")) as server:
        mine = session(server.url)
        for method, times in (("GET", 3), ("HEAD", 3), ("PUT", 1), ("POST", 1), ("DELETE", 1)):
            server.requests.clear()
            with pytest.raises(AISError) as caught:
                mine.request(method, "x", body=b"b" if method == "PUT" else None)
            assert caught.value.status_code == status
            assert len(server.requests) == times, method
        mine.close()


@pytest.mark.parametrize("status", [400, 404, 500])
def test_other_errors_are_final(status: int) -> None:
    with Scripted(lambda _: answer(status, b"no")) as server:
        mine = session(server.url)
        with pytest.raises(AISError):
            mine.request("GET", "x")
        assert len(server.requests) == 1
        mine.close()


def test_a_connection_that_breaks() -> None:
    with Scripted(lambda _: None) as server:
        mine = session(server.url)
        with pytest.raises(AISConnectionError, match=r"GET http://127.*: the connection broke") as caught:
            mine.request("GET", "x?token=1")
        assert caught.value.kind == "broken"
        assert "token" not in str(caught.value)
        assert len(server.requests) == 3
        with pytest.raises(AISConnectionError):
            mine.request("DELETE", "x")
        assert len(server.requests) == 4
        mine.close()


@pytest.mark.parametrize("length", [100, 10**15])
def test_a_short_answer_is_an_error_whatever_length_it_claims(length: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nshort" % length
    with Scripted(lambda _: head) as server:
        mine = session(server.url, timeout=(3.0, 0.05))
        with pytest.raises(AISTimeoutError, match=r"no answer in time \(3 s to connect, 0.05 s to answer\)"):
            mine.request("GET", "x")
        mine.close()
    with Scripted(lambda _: Last(head)) as server:
        mine = session(server.url)
        with pytest.raises(AISConnectionError, match="the connection broke"):
            mine.request("GET", "x")
        assert len(server.requests) == 3
        mine.close()


def test_no_answer_at_all() -> None:
    release = threading.Event()
    with Scripted(lambda _: release.wait() and None) as server:
        mine = session(server.url, timeout=(3.0, 0.05))
        with pytest.raises(AISTimeoutError, match="AIS_READ_TIMEOUT"):
            mine.request("GET", "x")
        assert len(server.requests) == 3
        with pytest.raises(AISTimeoutError, match=r"0\.01 s to answer"):
            mine.request("PUT", "x", body=b"", read_timeout=0.01)
        assert len(server.requests) == 4
        release.set()
        mine.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_an_endpoint_that_never_answered_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    url = f"http://127.0.0.1:{free_port()}"
    text = f"cannot connect to {url}: connection refused"
    for call in (lambda: session(url).request("GET", "x"), lambda: session(url).connect(*origin_of(url))):
        with pytest.raises(AISConnectionError) as caught:
            call()
        assert caught.value.message == text
        assert caught.value.remedy == "is the cluster running? set AIS_ENDPOINT or pass endpoint="
        assert (caught.value.kind, caught.value.status_code) == ("refused", 0)


def test_a_refused_target_is_tried_again_even_for_a_write() -> None:
    with Pair() as pair:
        gone = f"http://127.0.0.1:{free_port()}"
        pair.map = lambda: answer(body=smap(gone, pair.target.url))
        locations = [gone + "/v1/x", gone + "/v1/x", pair.target.url + "/v1/x"]
        pair.location = lambda _: locations.pop(0)
        mine = session(pair.gateway.url)
        assert mine.request("PUT", "x", body=b"data").data == b"payload"
        assert len(pair.redirected) == 3
        locations += [gone + "/v1/x"] * 3
        with pytest.raises(AISConnectionError, match="can this machine reach the cluster's nodes"):
            mine.request("PUT", "x", body=b"data")
        mine.close()


def test_an_unknown_host() -> None:
    with pytest.raises(
        AISConnectionError, match=r"cannot find the host of http://no-such-host\.invalid:80"
    ) as caught:
        session("http://no-such-host.invalid").request("GET", "x")
    assert caught.value.kind == "dns"


# -------------------------------------------------------------------------------- tokens and errors


def write_token(path: Path, token: str) -> None:
    path.write_text(json.dumps({"token": token}))


def test_a_401_has_the_token_file_read_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth.token"
    write_token(path, "old")
    monkeypatch.setenv("AIS_AUTHN_TOKEN_FILE", str(path))
    good = lambda r: answer() if r.headers.get("authorization") == "Bearer new" else answer(401, b"expired")  # noqa: E731
    with Scripted(good) as server:
        mine = session(server.url)
        with pytest.raises(AISError, match="AIS_AUTHN_TOKEN"):
            mine.request("GET", "x")  # the file has not changed
        assert len(server.requests) == 1
        write_token(path, "new")
        mine.request("PUT", "x", body=b"data")
        assert len(server.requests) == 3
        write_token(path, "worse")
        server.script = lambda _: answer(401, b"expired")
        with pytest.raises(AISError):
            mine.request("GET", "x")
        assert len(server.requests) == 5
        path.unlink()
        with pytest.raises(AISError) as caught:
            mine.request("GET", "x")
        assert caught.value.status_code == 401
        mine.close()


def test_a_token_that_the_server_echoes_is_not_shown() -> None:
    token = "not-a-jwt-but-secret"
    with Scripted(lambda _: answer(401, b"invalid token: " + token.encode())) as server:
        mine = session(server.url, token=token)
        with pytest.raises(AISError, match="<token>") as caught:
            mine.request("GET", "x")
        assert token not in str(caught.value) + repr(caught.value.__dict__) + repr(mine.settings)
        mine.close()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="the token") as caught:
        resolve("http://h", token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["ftp://h", "http://", "http://h:port", "http://h:99999", "http://a b", "http://h?x"]
)
def test_bad_endpoints(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        aisfast.Client(endpoint)


def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="pass token=") as caught:
        aisfast.Client("http://user:hunter2@h")
    assert "hunter2" not in str(caught.value)


def test_error_texts_are_bounded() -> None:
    with Scripted(lambda _: answer(400, b"x" * (3 * MAX_ERROR_BODY))) as server:
        mine = session(server.url)
        with pytest.raises(AISError) as caught:
            mine.request("GET", "x")
        assert len(caught.value.message) == MAX_ERROR_BODY
        mine.close()


def test_the_error_of_a_head_is_in_a_header() -> None:
    text = '{"message":"t[x]: ais://b/ü does not exist","status":404}'
    with Scripted(lambda _: b"HTTP/1.1 404 NF\r\nHdr-Error: " + text.encode() + b"\r\n\r\n") as server:
        mine = session(server.url)
        with pytest.raises(ErrObjNotFound) as caught:
            mine.request("HEAD", "x")
        assert caught.value.message == text
        mine.close()


@pytest.mark.parametrize(
    ("status", "text", "method", "kind"),
    [
        (404, 'bucket "ais://b" does not exist', "GET", ErrBckNotFound),
        (404, 'bucket "ais://#ns/b" does not exist', "GET", ErrBckNotFound),
        (404, 'bucket "ais://@#ns/b" does not exist', "GET", ErrBckNotFound),
        (404, 'bucket "ais://@uuid#ns/b" does not exist', "GET", ErrRemoteBckNotFound),
        (404, 'aws bucket "s3://b" does not exist', "GET", ErrRemoteBckNotFound),
        (404, "t[x]: ais://b/o does not exist", "GET", ErrObjNotFound),
        (404, "t[x]: ais://#ns/b/o does not exist", "GET", ErrObjNotFound),
        (404, "t[x]: a/b.txt in ais://b/shard.tar does not exist", "GET", ErrObjNotFound),
        (409, 'bucket "ais://b" already exists', "POST", ErrBckAlreadyExists),
        (409, 'bucket "ais://#ns/b" already exists', "POST", ErrBckAlreadyExists),
    ],
)
def test_what_kind_of_error(status: int, text: str, method: str, kind: type[AISError]) -> None:
    error = error_from_answer(status, json.dumps({"message": text}), SentRequest(method, "http://h/x", {}))
    assert type(error) is kind
    assert error.message == json.dumps({"message": text})


def test_json_that_is_none() -> None:
    with Scripted(lambda _: answer(body=b"<html>")) as server:
        mine = session(server.url)
        with pytest.raises(WireError, match=r"not the JSON.*AIStore gateway"):
            mine.get_json("x", dict)
        mine.close()


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A CA, contexts of servers that it certifies, and a client's certificate."""
    folder = tmp_path_factory.mktemp("pki")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    ca.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))

    def context(name: str, *, client_cert: bool = False) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.set_alpn_protocols(["h2", "http/1.1"])
        ca.issue_cert(name).configure_cert(made)
        if client_cert:
            made.verify_mode = ssl.CERT_REQUIRED
            ca.configure_trust(made)
        return made

    return SimpleNamespace(
        context=context,
        ca=str(folder / "ca.pem"),
        other=str(folder / "other.pem"),
        client=str(folder / "client.pem"),
    )


def exchange(mine: Session, url: str) -> bytes:
    """A request over a raw connection; the answer."""
    sock, forward = mine.connect(*origin_of(url))
    with sock:
        assert not forward
        sock.sendall(b"GET /raw HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        read = b""
        while piece := sock.recv(1000):
            read += piece
    return read


def test_plain_connection() -> None:
    with Scripted(lambda _: answer(body=b"raw")) as server:
        mine = session(server.url)
        sock, forward = mine.connect("http", "127.0.0.1", server.port)
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.gettimeout() == mine.settings.connect_timeout
            assert not forward
        assert exchange(mine, server.url).endswith(b"\r\n\r\nraw")


def test_tls_verified_by_our_ca(pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(body=b"raw"), pki.context("127.0.0.1")) as server:
        mine = session(server.url, ca_cert=pki.ca)
        assert mine.request("GET", "x").data == b"raw"
        sock, _ = mine.connect(*origin_of(server.url))
        with sock:
            assert sock.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]
        assert exchange(mine, server.url).endswith(b"raw")
        mine.close()


def test_tls_of_an_unknown_ca(pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(), pki.context("127.0.0.1")) as server:
        for ca in (pki.other, None):
            mine = session(server.url, ca_cert=ca)
            for call in (
                lambda m=mine: m.request("GET", "x"),
                lambda m=mine: m.connect(*origin_of(server.url)),
            ):
                with pytest.raises(
                    AISConnectionError, match=r"TLS: the certificate of https.*AIS_CLIENT_CA"
                ) as caught:
                    call()
                assert caught.value.kind == "tls"
        assert server.connections == 4  # not tried again


def test_tls_of_another_name(pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(), pki.context("elsewhere.example")) as server:
        with pytest.raises(AISConnectionError, match=r"certificate is not valid for '127\.0\.0\.1'"):
            session(server.url, ca_cert=pki.ca).connect(*origin_of(server.url))
        with pytest.raises(AISConnectionError, match=r"certificate is not valid for '127\.0\.0\.1'"):
            session(server.url, ca_cert=pki.ca).request("GET", "x")


def test_tls_unverified(pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(body=b"raw"), pki.context("elsewhere.example")) as server:
        mine = session(server.url, skip_verify=True)
        assert mine.request("GET", "x").data == b"raw"
        assert exchange(mine, server.url).endswith(b"raw")
        mine.close()


def test_tls_with_a_client_certificate(pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(body=b"raw"), pki.context("127.0.0.1", client_cert=True)) as server:
        mine = session(server.url, ca_cert=pki.ca, client_cert=pki.client)
        assert mine.request("GET", "x").data == b"raw"
        assert exchange(mine, server.url).endswith(b"raw")
        mine.close()
        with pytest.raises(
            AISConnectionError, match=r"TLS|connection broke"
        ):  # told in the handshake, or cut after it
            session(server.url, ca_cert=pki.ca).request("GET", "x")


def test_https_to_a_server_that_speaks_http() -> None:
    with (
        Scripted(lambda _: answer()) as server,
        pytest.raises(AISConnectionError, match="does it speak https"),
    ):
        session(server.url.replace("http:", "https:"), skip_verify=True).request("GET", "x")


def test_a_handshake_that_is_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mine = session(f"https://127.0.0.1:{port}", timeout=(0.05, 20))
        told = rf"TLS: https://127.0.0.1:{port} does not answer the handshake in time .*AIS_CONNECT_TIMEOUT"
        with pytest.raises(AISTimeoutError, match=told) as caught:
            mine.request("PUT", "x", body=b"")
        assert "AIS_READ_TIMEOUT" not in str(caught.value)
        with pytest.raises(AISTimeoutError, match=told):
            mine.connect("https", "127.0.0.1", port)
        mine.close()


def test_certificate_files_that_cannot_be_used(tmp_path: Path, pki: SimpleNamespace) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(ValueError, match=r"ca_cert=.*cannot be used"):
            session("https://127.0.0.1:1", ca_cert=str(tmp_path / name)).request("GET", "x")
        with pytest.raises(ValueError, match=r"client_cert=.*cannot be used"):
            session("https://127.0.0.1:1", client_cert=str(tmp_path / name)).request("GET", "x")


def test_from_https_to_http_is_not_followed(pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(body=b"plain")) as plain:
        with Scripted(
            lambda _: answer(307, Location=plain.url + "/v1/x"), pki.context("127.0.0.1")
        ) as gateway:
            mine = session(gateway.url, ("127.0.0.1",), ca_cert=pki.ca)
            with pytest.raises(AISConnectionError, match="from https to http"):
                mine.request("GET", "x")
            mine.close()
        assert plain.requests == []


def test_large_put_over_tls(pki: SimpleNamespace) -> None:
    body = os.urandom(2 << 20)
    with (
        Scripted(lambda _: answer(), pki.context("127.0.0.1")) as target,
        Scripted(lambda _: answer(307, Location=target.url + "/v1/x"), pki.context("127.0.0.1")) as gateway,
    ):
        mine = session(gateway.url, ("127.0.0.1",), ca_cert=pki.ca, token=TOKEN)
        mine.request("PUT", "x", body=body)
        assert target.requests[0].body == body
        assert "authorization" not in target.requests[0].headers
        mine.close()


# ------------------------------------------------------------------------------------------ proxies


class TunnelProxy:
    """A proxy that opens tunnels (CONNECT) and asks for a user, who is ann."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> TunnelProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        tunnels: list[threading.Thread] = []
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                break
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.heads.append(head.decode())
            if self.status != 200:
                client.sendall(b"HTTP/1.1 %d Proxy Authentication Required\r\n\r\n" % self.status)
                client.close()
                continue
            host, _, port = head.split()[1].decode().partition(":")
            server = socket.create_connection((host, int(port)))
            client.sendall(b"HTTP/1.1 200 Established\r\n\r\n")
            tunnels.append(threading.Thread(target=_join, args=(client, server)))
            tunnels[-1].start()
        for tunnel in tunnels:
            tunnel.join()


def _join(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until both ends have ended."""
    with client, server:
        back = threading.Thread(target=_carry, args=(server, client))
        back.start()
        _carry(client, server)
        back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_https_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, pki: SimpleNamespace) -> None:
    with Scripted(lambda _: answer(body=b"raw"), pki.context("127.0.0.1")) as server, TunnelProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:s%20ecret@127.0.0.1:{proxy.port}")
        mine = session(server.url, ca_cert=pki.ca, token=TOKEN)
        assert mine.request("GET", "x").data == b"raw"
        assert exchange(mine, server.url).endswith(b"raw")
        assert mine.proxy_headers(*origin_of(server.url)) == {}
        mine.close()
        assert len(proxy.heads) == 2
        for head in proxy.heads:
            assert head.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.")
            assert "Basic YW5uOnMgZWNyZXQ=" in head
            assert TOKEN not in head
        assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_that_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    with TunnelProxy(407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:secret@127.0.0.1:{proxy.port}")
        mine = session("https://cluster.example:443")
        for call in (lambda: mine.request("GET", "x"), lambda: mine.connect("https", "cluster.example", 443)):
            with pytest.raises(
                AISConnectionError, match=r"through the proxy http://127.*407.*HTTPS_PROXY"
            ) as caught:
                call()
            assert caught.value.kind == "proxy"
            assert "secret" not in str(caught.value)
        assert len(proxy.heads) == 2


def test_http_through_a_forward_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scripted(lambda _: answer(body=b"by proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:secret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "other.example")
        mine = session("http://cluster.example:8080")
        assert mine.request("GET", "x").data == b"by proxy"
        assert proxy.requests[0].target == "http://cluster.example:8080/v1/x"
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic YW5uOnNlY3JldA=="
        sock, forward = mine.connect("http", "cluster.example", 8080)
        sock.close()
        assert forward
        assert mine.proxy_headers("http", "cluster.example", 8080) == {
            "proxy-authorization": "Basic YW5uOnNlY3JldA=="
        }
        assert mine.proxy_headers("http", "other.example", 8080) == {}
        mine.close()


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{free_port()}")
    mine = session("http://cluster.example:8080")
    for call in (lambda: mine.request("GET", "x"), lambda: mine.connect("http", "cluster.example", 8080)):
        with pytest.raises(AISConnectionError, match=r"through the proxy http://127.*connection refused"):
            call()


def test_a_kind_of_proxy_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(AISConnectionError, match=r"is of the kind 'socks5'; only http and https"):
        session("http://cluster.example:8080").request("GET", "x")


@pytest.mark.parametrize(
    ("no_proxy", "host", "bypassed"),
    [
        ("", "cluster.example", False),
        ("*", "cluster.example", True),
        ("cluster.example", "cluster.example", True),
        ("example", "cluster.example", True),
        (".example", "cluster.example", True),
        ("luster.example", "cluster.example", False),
        ("cluster.example:8080", "cluster.example", True),
        ("cluster.example:9090", "cluster.example", False),
        ("a, cluster.example ,b", "cluster.example", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("::1/128", "::1", True),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, bypassed: bool) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:password@proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (session("http://h").proxy_headers("http", host, 8080) == {}) is bypassed


# ------------------------------------------------------------------------- processes, threads, lazy


def test_pickles_without_connections() -> None:
    with Scripted(lambda _: answer(body=b"x")) as server:
        mine = session(server.url, ("t1",), token=TOKEN)
        mine.request("GET", "x")
        copy = pickle.loads(pickle.dumps(mine))
        assert (copy.settings, copy.redirect_hosts, copy.token) == (mine.settings, ("t1",), TOKEN)
        assert copy.request("GET", "x").data == b"x"
        mine.close()
        assert mine.request("GET", "x").data == b"x"  # closing closed what was idle
        mine.close()
        copy.close()


def test_shared_by_threads() -> None:
    with Scripted(lambda r: answer(body=r.target.encode())) as server:
        mine = session(server.url)
        wrong = []

        def work(i: int) -> None:
            for j in range(10):
                if mine.request("GET", f"{i}/{j}").data != f"/v1/{i}/{j}".encode():
                    wrong.append((i, j))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(server.requests) == 80
        assert server.connections <= 8
        mine.close()


FORKS = """
import os, sys
from aisfast.session import Session
from aisfast.settings import resolve
mine = Session(resolve(sys.argv[1]))
mine.request("GET", "parent")
child = os.fork()
if child == 0:
    mine.request("GET", "child")
    mine.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
mine.request("GET", "parent-again")
mine.close()
"""


def run(code: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_opens_its_own_connection() -> None:
    with Scripted(lambda _: answer()) as server:
        run(FORKS, server.url)
        assert [request.target for request in server.requests] == [
            "/v1/parent",
            "/v1/child",
            "/v1/parent-again",
        ]
        assert server.connections == 2


FORKS_WHILE_BUSY = """
import faulthandler, os, sys, threading, urllib3, warnings
from aisfast import Client, transport
warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks
inside, leave, parent = threading.Event(), threading.Event(), os.getpid()

def busy(make):
    def slowly(*args, **options):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            leave.wait()
        return make(*args, **options)
    return slowly

urllib3.PoolManager = busy(urllib3.PoolManager)
transport.Transport = busy(transport.Transport)
client = Client(sys.argv[1])
work = {
    "request": lambda: client.session.request("GET", "x"),
    "close": client.session.close,
    "transport": lambda: client.transport,
}
first, second = sys.argv[2:]
thread = threading.Thread(target=work[first])
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(10, exit=True)
    work[second]()
    os._exit(0)
status = os.waitpid(child, 0)[1]
leave.set()
thread.join()
client.close()
assert status == 0, status
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    ("first", "second"), [("request", "request"), ("request", "close"), ("transport", "transport")]
)
def test_a_child_does_not_wait_for_a_thread_of_its_parent(first: str, second: str) -> None:
    with Scripted(lambda _: answer()) as server:
        run(FORKS_WHILE_BUSY, server.url, first, second)


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    code = """
import sys, aisfast, aisfast.sdk, aisfast.client
print([name for name in ("urllib3", "numpy", "ssl", "http.client", "pydantic") if name in sys.modules])
aisfast.Client("http://h").bucket("b").object("o")
print([name for name in ("urllib3", "numpy", "pydantic") if name in sys.modules])
"""
    assert run(code).split("\n") == ["[]", "[]", ""]


def test_origin() -> None:
    assert origin_of("HTTPS://Host.Example/x") == Origin("https", "host.example", 443)
    assert str(origin_of("http://[::1]:8080/x")) == "http://[::1]:8080"
    with pytest.raises(ValueError, match="no http or https URL"):
        origin_of("ais://b/o")
