"""The emulator itself: life cycle, HTTP, redirects, tail, stores. Its GetBatch bytes: test_emulator_captures.py."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from aisfast.emulator import Cluster, server_main, shards, tar
from aisfast.emulator.errors import Failure
from aisfast.emulator.httpd import Connection, Listeners
from aisfast.emulator.zip import ZipWriter


def talk(url: str, request: bytes) -> bytes:
    """Send bytes, read until the other side closes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        sock.sendall(request)
        out = bytearray()
        while data := sock.recv(1 << 16):
            out += data
    return bytes(out)


def ask(
    url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Status, head and body of one answer."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    answer = talk(url, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        rest = dechunk(rest)
    return int(head.split()[1]), head, rest


def dechunk(body: bytes) -> bytes:
    out = []
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        out.append(body[:size])
        body = body[size + 2 :]
    return b"".join(out)


def moss(*names: str | dict[str, Any], **top: Any) -> bytes:
    entries = [{"objname": name} if isinstance(name, str) else name for name in names]
    return json.dumps({"in": entries, "coer": True, "onob": False, "strm": True, **top}).encode()


def redirect(cluster: Cluster, body: bytes, path: str = "/v1/ml/moss/b") -> str:
    status, head, _ = ask(cluster.endpoint, "GET", path, body)
    assert status == 307, head
    return re.search(rb"Location: (\S+)", head)[1].decode()


def batch(cluster: Cluster, body: bytes, path: str = "/v1/ml/moss/b") -> tuple[int, bytes, bytes]:
    where = urlsplit(redirect(cluster, body, path))
    return ask(where.geturl(), "GET", f"{where.path}?{where.query}", body)


def chunk_sizes(cluster: Cluster, body: bytes) -> list[int]:
    where = urlsplit(redirect(cluster, body))
    head = [f"GET {where.path}?{where.query} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    raw = talk(where.geturl(), "\r\n".join(head).encode() + b"\r\n\r\n" + body).partition(b"\r\n\r\n")[2]
    sizes = []
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        sizes.append(int(line, 16))
        raw = raw[sizes[-1] + 2 :]
    return sizes


def members(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [(info.name, archive.extractfile(info).read()) for info in archive]


def message(answer: tuple[int, bytes, bytes]) -> str:
    return json.loads(answer[2])["message"]


# -- life


def test_fixture_has_three_targets(ais_cluster):
    ais_cluster.put("b", "o", b"data")
    assert len(ais_cluster.smap.targets) == 3
    assert members(batch(ais_cluster, moss("o"))[2]) == [("b/o", b"data")]


@pytest.mark.parametrize("targets", [1, 4])
def test_stop_leaves_nothing(targets):
    before = set(threading.enumerate())
    cluster = Cluster(targets, tail_delay=30)
    with pytest.raises(RuntimeError, match="has not been started"):
        cluster.endpoint  # noqa: B018
    cluster.start()
    cluster.put("b", "o", b"x" * 5000)
    waiting = threading.Event()
    pause = cluster.pause
    cluster.pause = lambda seconds: (waiting.set(), pause(seconds))
    idle = socket.create_connection(urlsplit(cluster.endpoint).netloc.split(":"))
    idle.sendall(b"GET /v1/health HTTP/1.1\r\n\r\n")
    assert idle.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    reader = threading.Thread(target=batch, args=(cluster, moss("o")))
    reader.start()
    if targets > 1:
        assert waiting.wait(10)  # an answer is in its tail, for half a minute if stop() did not end it
    else:
        reader.join()
    began = time.monotonic()
    cluster.stop()
    assert time.monotonic() - began < 10
    reader.join()
    assert idle.recv(100) == b""
    idle.close()
    assert set(threading.enumerate()) <= before
    for node in (cluster.smap.proxy, *cluster.smap.targets):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((node.host, node.port))


def test_start_again_and_stop_twice():
    cluster = Cluster()
    for _ in range(2):
        with cluster:
            cluster.put("b", "o", b"kept in memory")
            assert ask(cluster.endpoint, "GET", "/v1/health")[0] == 200
            with pytest.raises(RuntimeError, match="running"):
                cluster.start()
        cluster.stop()


def test_ports_of_ones_own():
    for port in range(20080, 30000, 101):  # the first three in a row that are free
        cluster = Cluster(2, port=port)
        with contextlib.suppress(OSError):
            cluster.start()
            break
    try:
        assert cluster.endpoint == f"http://127.0.0.1:{port}"
        assert [target.port for target in cluster.smap.targets] == [port + 1, port + 2]
        with pytest.raises(OSError, match="in use"):
            Cluster(port=port).start()
    finally:
        cluster.stop()


def test_bad_arguments():
    with pytest.raises(ValueError, match="targets=0"):
        Cluster(0)
    with pytest.raises(ValueError, match="tail_delay"):
        Cluster(tail_delay=-1)
    for port, targets in ((65536, 1), (99999, 1), (-1, 1), (65535, 1), (65533, 3)):
        with pytest.raises(ValueError, match=f"port={port} must be 1 to {65535 - targets}"):
            Cluster(targets, port=port)
    Cluster(3, port=65532)


@pytest.mark.parametrize("options", [["--port", "99999"], ["--port", "65535", "--targets", "3"]])
def test_program_with_a_port_that_cannot_be(options, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ending:
        server_main(options)
    assert ending.value.code == 2
    assert re.fullmatch(r"aisfast emulator: port=\d+ must be 1 to .+\n", capsys.readouterr().err)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_start_that_fails_leaves_nothing(monkeypatch):
    """Whatever goes wrong, at whichever node: the ports that were taken are free again."""
    taken = []
    listen = Listeners.listen

    def third_fails(self, *args):
        if len(taken) == 2:
            raise MemoryError
        taken.append(listen(self, *args))
        return taken[-1]

    monkeypatch.setattr(Listeners, "listen", third_fails)
    cluster = Cluster(3)
    with pytest.raises(MemoryError):
        cluster.start()
    for port in taken:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port))
    with pytest.raises(RuntimeError, match="has not been started"):
        cluster.endpoint  # noqa: B018
    monkeypatch.undo()
    with cluster:
        assert ask(cluster.endpoint, "GET", "/v1/health")[0] == 200


def test_seed_makes_choices_repeatable():
    def choices() -> list[str]:
        with Cluster(4, tail_delay=0, seed=11) as cluster:
            cluster.bucket("b")
            return [
                cluster.smap.targets[0].id,
                *(urlsplit(redirect(cluster, moss("o"))).path for _ in range(5)),
                *(str(cluster.owner("b", str(i))) for i in range(20)),
            ]

    assert choices() == choices()


def test_program():
    code = "import sys; from aisfast.emulator import server_main; sys.exit(server_main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--targets", "2", "--port", "0", "--tail-delay", "0", "--token", "t0p"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        line = process.stdout.readline()
        endpoint = line.split()[0]
        assert "ready" in line
        assert ask(endpoint, "GET", "/v1/daemon?what=smap")[0] == 401
        status, _, body = ask(endpoint, "GET", "/v1/daemon?what=smap", headers={"Authorization": "Bearer t0p"})
        assert status == 200
        assert len(json.loads(body)["tmap"]) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# -- HTTP


@pytest.fixture
def single():
    with Cluster(tail_delay=0) as cluster:
        cluster.put("b", "o", b"data")
        yield cluster


def test_tls_at_a_port_without(single):
    """A client that is mistaken about it learns so at once: the answer is no TLS."""
    context = ssl.create_default_context()
    with (
        socket.create_connection(urlsplit(single.endpoint).netloc.split(":"), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record layer failure"),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    answer = talk(single.endpoint, b"\x16\x03\x01\x02\x00\x01")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\n400 Bad Request")
    assert talk(single.endpoint, b"\r\nGET /v1/health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_no_tls_at_a_port_with(tmp_path):
    trustme = pytest.importorskip("trustme")
    path = str(tmp_path / "node.pem")
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    with Cluster(tail_delay=0, tls=(path, path)) as cluster:
        answer = talk(cluster.endpoint, b"GET /v1/health HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server")


def test_many_requests_on_one_connection(single):
    one = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = talk(single.endpoint, one * 20 + last)  # all at once
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 21
    assert answer.count(b"Connection: close\r\n") == 1


def test_chunked_request_body(single):
    body = moss("o")
    head = b"GET /v1/ml/moss/b HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    assert talk(single.endpoint, head + parts + b"0\r\nTrailer: x\r\n\r\n").startswith(b"HTTP/1.1 307 ")


def test_put_is_redirected_before_its_body_is_read(single):
    """As clients need it that send an empty body with a real length first."""
    head = b"PUT /v1/objects/b/new HTTP/1.1\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n"
    parts = urlsplit(single.endpoint)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        sock.sendall(head)
        assert sock.recv(1000).startswith(b"HTTP/1.1 307 Temporary Redirect\r\n")


def test_continue_is_said_by_the_target_only(single):
    head = b"PUT /v1/objects/b/new HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    answer = talk(single.endpoint, head)
    assert answer.startswith(b"HTTP/1.1 307 ")
    assert b"Connection: close\r\n" in answer
    where = urlsplit(re.search(rb"Location: (\S+)", answer)[1].decode())
    with socket.create_connection((where.hostname, where.port), timeout=10) as sock:
        sock.sendall(
            f"PUT {where.path}?{where.query} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert single.bucket("b").objects["new"].data == b"abc"


@pytest.mark.parametrize("request_line", [b"nonsense", b"GET /", b"GET / HTTP/1.1 x"])
def test_nonsense_gets_400(single, request_line):
    assert talk(single.endpoint, request_line + b"\r\n\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_head_errors_are_in_a_header(single):
    status, head, body = ask(single.endpoint, "HEAD", "/v1/buckets/nope?provider=ais")
    assert (status, body) == (404, b"")
    assert json.loads(re.search(rb"Hdr-Error: (.*)\r", head)[1])["message"] == 'bucket "ais://nope" does not exist'


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/", 400, "invalid request URI: 'GET /' from "),
        ("GET", "/v1/nope", 400, "invalid request URI: 'GET /v1/nope' from "),
        ("GET", "/v1/objects/b", 400, "URL 'v1/objects/b' is too short: expected 4 items, got 3"),
        ("GET", "/v1/objects/b/a/../c", 400, 'invalid object name "a/../c"'),
        ("GET", "/v1/objects/c/o?provider=s3", 404, 'aws bucket "s3://c" does not exist'),
        ("GET", "/v1/daemon?what=x", 400, "invalid '/v1/daemon' request: unrecognized 'what=x' query"),
        ("POST", "/v1/buckets/b", 400, "failed to unmarshal [*apc.ActMsg] (POST)"),
        ("GET", "/v1/ml/moss/b?coloc=x", 400, "dpq: 'coloc=x', err: invalid syntax"),
    ],
)
def test_errors(single, method, path, status, text):
    answer = ask(single.endpoint, method, path)
    assert answer[0] == status
    assert text in message(answer)


def test_targets_want_redirects(single):
    target = single.smap.targets[0].url
    assert ask(target, "GET", "/v1/objects/b/o")[2] == b"data"
    answer = ask(target, "PUT", "/v1/objects/b/o", b"x")
    assert answer[0] == 400
    assert "is expected to be redirected" in message(answer)
    answer = ask(target, "GET", "/v1/ml/moss/b/gbt-xxxxxxxxx/abc-def/1", moss("o"))
    assert (answer[0], message(answer)) == (401, "direct target access denied")


def test_location_keeps_the_query_or_encodes_it_anew(single):
    """As it came; but sorted and encoded where the path has a special character."""
    head = ask(single.endpoint, "GET", "/v1/objects/b/o%C3%A9?z=%20&provider=ais")[1]
    assert re.search(rb"/v1/objects/b/o%c3%a9\?z=%20&provider=ais&pid=\w{9}&utm=\w{12}\r", head)
    head = ask(single.endpoint, "GET", "/v1/objects/b/o%20%C3%A9?z=%20&provider=ais")[1]
    assert re.search(rb"/v1/objects/b/o%20%C3%A9\?pid=\w{9}&provider=ais&utm=\w{12}&z=\+\r", head)
    status, head, _ = ask(single.endpoint, "HEAD", "/v1/objects/b/o")
    assert status == 307
    assert b"text/html" in head


def test_token(single):
    single.token = "s3cret"
    assert message(ask(single.endpoint, "GET", "/v1/ml/moss/b", moss("o"))) == "token required"
    answer = ask(single.endpoint, "GET", "/v1/ml/moss/b", moss("o"), {"Authorization": "Bearer wrong"})
    assert answer[0] == 401
    assert message(answer).startswith('invalid token from header "Authorization": invalid token ')
    assert ask(single.endpoint, "GET", "/v1/health")[0] == 200
    for header, value in (("Authorization", "Bearer s3cret"), ("X-Amz-Security-Token", "s3cret")):
        status, head, _ = ask(single.endpoint, "GET", "/v1/ml/moss/b", moss("o"), {header: value})
        assert status == 307
    where = urlsplit(re.search(rb"Location: (\S+)", head)[1].decode())
    assert ask(where.geturl(), "GET", f"{where.path}?{where.query}", moss("o"))[0] == 200  # targets ask for none


def test_tls(tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "node.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Cluster(2, 0, tls=(str(tmp_path / "node.pem"), str(tmp_path / "node.pem"))) as cluster:
        cluster.put("b", "o", b"secret")
        assert cluster.endpoint.startswith("https://")
        with urllib.request.urlopen(f"{cluster.endpoint}/v1/objects/b/o", context=context) as answer:
            assert answer.url.startswith("https://")
            assert answer.read() == b"secret"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"{cluster.endpoint}/v1/health")


# -- GetBatch beyond the recordings


def test_a_location_is_good_once(single):
    body = moss("o")
    where = urlsplit(redirect(single, body))
    target = f"{where.path}?{where.query}"
    assert members(ask(where.geturl(), "GET", target, body)[2]) == [("b/o", b"data")]
    answer = ask(where.geturl(), "GET", target, body)
    assert answer[0] == 404
    job, _, rest = message(answer).partition(": ")
    assert re.fullmatch(r"x-get-batch\[gbt-\w{9}\]-ais://b-\d\d:\d\d:\d\d\.\d{6}", job)
    assert re.fullmatch(r'wid="[\w-]{13}" \(prep-rx not done\?\) does not exist', rest)


def test_the_target_answers_the_body_it_gets(single):
    where = urlsplit(redirect(single, moss("o")))
    body = moss("gone", "o")
    assert [name for name, _ in members(ask(where.geturl(), "GET", f"{where.path}?{where.query}", body)[2])] == [
        "__404__/b/gone",
        "b/o",
    ]


@pytest.mark.parametrize("mime", [".tgz", "tgz", ".tar.gz"])
def test_gzip_output(ais_cluster, mime):
    ais_cluster.put("b", "o", b"data" * 100)
    status, head, body = batch(ais_cluster, moss("o", "gone", mime=mime))
    assert (status, b"Content-Type: application/gzip" in head) == (200, True)
    assert body[:10] == bytes.fromhex("1f8b08000000000004ff")
    assert members(body) == [("b/o", b"data" * 100), ("__404__/b/gone", b"")]


def test_gzip_stores_what_does_not_become_smaller(single):
    """As Go does, and it shows: what is compressed comes in small chunks, what is stored in large ones."""
    data = random.Random(1).randbytes(200_000)
    single.put("b", "o", data)
    assert 65535 - 2048 + 5 in chunk_sizes(single, moss("o", mime=".tgz"))
    assert members(batch(single, moss("o", mime=".tgz"))[2]) == [("b/o", data)]
    single.put("b", "zeros", bytes(9_000_000))
    *chunks, last, end = chunk_sizes(single, moss("zeros", mime=".tgz"))
    assert (set(chunks), last <= 2048, end) == ({2048}, True, 0)


def test_lz4_output(single):
    lz4 = pytest.importorskip("lz4.frame")
    data = random.Random(1).randbytes(300_000) + bytes(500_000)
    single.put("b", "o", data)
    status, head, body = batch(single, moss("o", "gone", mime=".tar.lz4"))
    assert (status, b"Content-Type: application/x-lz4" in head) == (200, True)
    assert body[:7] == bytes.fromhex("04224d186050fb")
    assert members(lz4.decompress(body)) == [("b/o", data), ("__404__/b/gone", b"")]
    sizes, at = [], 7
    while size := int.from_bytes(body[at : at + 4], "little"):
        sizes.append(size)
        at += 4 + (size & 0x7FFFFFFF)
    assert (at + 4, len(sizes), sizes[0]) == (len(body), 4, 1 << 31 | 256 << 10)  # the first one is stored


def test_lz4_output_without_the_package(ais_cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4", None)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    ais_cluster.bucket("b")
    answer = ask(ais_cluster.endpoint, "GET", "/v1/ml/moss/b", moss("o", mime=".tar.lz4"))
    text = "writing .tar.lz4 needs the lz4 package (pip install 'aisfast[lz4]')"
    assert (answer[0], message(answer)) == (501, text)


def test_zip_output(single):
    payloads = {"o": b"data", "empty": b"", "ü~": b"name", "large": bytes(100_000)}
    for name, data in payloads.items():
        single.put("b", name, data)
    names = [*payloads, "o", "gone"]
    status, head, body = batch(single, moss(*names, mime=".zip"))
    assert (status, b"Content-Type: application/zip" in head) == (200, True)
    with zipfile.ZipFile(io.BytesIO(body)) as pack:
        infos = pack.infolist()
        assert [info.filename for info in infos] == [f"b/{name}" for name in names[:-1]] + ["__404__/b/gone"]
        assert [pack.read(info) for info in infos] == [payloads.get(name, b"") for name in names]
        assert [info.comment.decode() for info in infos] == [info.filename for info in infos]
        assert [info.flag_bits for info in infos] == [8, 8, 8 | 0x800, 8, 8, 8]
    assert infos[0].date_time[0] > 2000


def test_zip_chunks(single):
    """A buffer of 4096 bytes stands before the answer's; sizes as a real target sent them."""
    sizes = {"aaaa": 32768, "bbbb": 100_000, "cccc": 0, "dddd": 5000}
    for name, size in sizes.items():
        single.put("b", name, bytes(size))
    seen = [4096, 28717, 4096, 28733, 32768, 32768, 4096, 3028, 0]
    assert chunk_sizes(single, moss(*sizes, mime=".zip")) == seen


def test_zip64():
    """More members than the end record can count."""
    out = io.BytesIO()
    writer = ZipWriter(out)
    for index in range(66_000):
        writer.member(str(index), 0, 0, ())
    writer.close()
    with zipfile.ZipFile(out) as pack:
        assert pack.namelist() == [str(index) for index in range(66_000)]


def test_zip_name_that_is_too_long():
    """The directory names a member without a local header, as Go's does."""
    out = io.BytesIO()
    writer = ZipWriter(out)
    writer.member("a", 1, 0, [b"x"])
    with pytest.raises(Failure, match=r"zip: FileHeader\.Name too long"):
        writer.member("n" * 65_536, 0, 0, ())
    writer.close()
    assert out.getvalue().count(b"PK\3\4") == 1
    assert int.from_bytes(out.getvalue()[-12:-10], "little") == 2


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"objname": 5}, "json: cannot unmarshal number into Go struct field alias.objname of type string"),
        (
            {"objname": "o", "start": "1"},
            "json: cannot unmarshal string into Go struct field alias.start of type int64",
        ),
        ({"objname": "o", "opaque": "abc"}, "illegal base64 data at input byte 0"),
        ({"objname": "o", "start": 3}, 'not satisfiable range [start=3,length=0 (oname: "o")]'),
        ({"objname": "o", "length": -2}, 'not satisfiable range [start=0,length=-2 (oname: "o")]'),
        ({"objname": "o", "start": -1, "length": -1}, 'not satisfiable range [start=-1 (oname: "o")]'),
        ("ö/", 'invalid object name "ö/"'),
    ],
)
def test_bad_entries(single, entry, text):
    answer = ask(single.endpoint, "GET", "/v1/ml/moss/b", moss("o", entry, "o"))
    assert answer[0] == 400
    assert message(answer).startswith(f"unmarshalerDecoder: {text}, error found in #10 byte of ...|")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "ReadObjectCB: expect { or n, but found \0, error found in #0 byte of ...||..., bigger context ...||..."),
        (
            b"[1]",
            "ReadObjectCB: expect { or n, but found [, error found in #1 byte of ...|[1]|..., bigger context ...|[1]|",
        ),
        (b'{"in":[', "ReadArrayCB: "),
        (b"null", "moss: empty input"),
        (b"{}", "moss: empty input"),
        (b'{"in":null}', "moss: empty input"),
    ],
)
def test_bad_bodies(single, body, text):
    answer = ask(single.endpoint, "GET", "/v1/ml/moss/b", body)
    assert answer[0] == 400
    assert message(answer).startswith(text)


def test_keys_in_any_case_and_unknown_ones(single):
    body = json.dumps({"IN": [{"ObjName": "o", "other": 1}], "STRM": True, "x": {}}).encode()
    assert members(batch(single, body)[2]) == [("b/o", b"data")]


def test_uname_without_names_only(ais_cluster):
    """A known flaw of the server: such members have no names."""
    ais_cluster.put("b", "o", b"data")
    for owner in (0, 1):
        ais_cluster.place("b", "o", owner)
        ais_cluster.next_dt = 0
        assert members(batch(ais_cluster, moss({"objname": "o", "uname": "ais/@#/b/"}), "/v1/ml/moss")[2]) == [
            ("", b"data")
        ]


def test_recovery_ends_after_five(ais_cluster):
    """A peer whose sender gave up at a bad range costs a wait for each entry, and no more than five of them."""
    waits = []
    ais_cluster.pause = waits.append
    names = [f"o{i}" for i in range(8)]
    for name in names:
        ais_cluster.put("b", name, name.encode())
        ais_cluster.place("b", name, 1)
    ais_cluster.next_dt = 0
    asked = [{"objname": "o0", "start": 100, "length": 1}, *names[1:]]
    answer = members(batch(ais_cluster, moss(*asked))[2])
    assert answer == [(f"b/o{i}", f"o{i}".encode()) for i in range(5)]  # the first one whole
    assert waits == [ais_cluster.max_wait] * 6
    ais_cluster.next_dt = 0
    answer = batch(ais_cluster, moss(*asked, strm=False))
    assert answer[0] == 400
    assert "timed out waiting for missing entry at index 5" in message(answer)


def test_damaged_shard_of_a_peer_aborts_the_job(ais_cluster):
    """What was assembled so far counts as the answer; the next request gets a new job."""
    ais_cluster.put("b", "o", b"data")
    ais_cluster.put("b", "cut.tar", tar.header("x", 3000) + b"x" * 1000)
    ais_cluster.place("b", "o", 0)
    ais_cluster.place("b", "cut.tar", 1)
    jobs = []
    for streaming in (True, False):
        ais_cluster.next_dt = 0
        body = moss("o", {"objname": "cut.tar", "archpath": "x"}, "o", strm=streaming)
        where = urlsplit(redirect(ais_cluster, body))
        jobs.append(where.path.split("/")[5])
        status, _, answer = ask(where.geturl(), "GET", f"{where.path}?{where.query}", body)
        assert status == 200
        if streaming:
            assert members(answer) == [("b/o", b"data")]
        else:
            out = json.loads(re.search(rb'{"uuid.*\n', answer)[0])["out"]
            assert [item["objname"] for item in out] == ["o"]
    assert jobs[0] != jobs[1]


def test_429_when_too_many_wait(single):
    for _ in range(256):
        redirect(single, moss("o"))
    answer = ask(single.endpoint, "GET", "/v1/ml/moss/b", moss("o"))
    assert answer[0] == 429
    assert message(answer).endswith(" rejected: pending=256")


def test_clients_at_once(ais_cluster):
    names = [f"o{i}" for i in range(200)]
    for i, name in enumerate(names):
        ais_cluster.put("b", name, name.encode() * (i % 50 * 20))
    body = moss(*names)
    wanted = members(batch(ais_cluster, body)[2])
    failed = []

    def run() -> None:
        for _ in range(3):
            if members(batch(ais_cluster, body)[2]) != wanted:
                failed.append(1)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [data for _, data in wanted] == [name.encode() * (i % 50 * 20) for i, name in enumerate(names)]
    assert not failed


# -- what is held back at the end: bytes that came after the silence on a real cluster of three targets


@pytest.mark.parametrize(
    ("sizes", "held"),
    [
        ([10240] * 8, 1038),
        ([1024] * 8, 1078),
        ([100] * 4, 1050),
        ([5000] * 2, 4136),
        ([100000], 3093),
        ([3000] * 40, 1504),
        ([1] * 100, 1386),
        ([2048] * 3, 552),
        ([10000] * 32, 1278),
        ([40000, 100], 1565),
        ([33000] * 3, 1550),
        ([0] * 3, 2579),
    ],
)
def test_tail(sizes, held, monkeypatch):
    sent = [0]
    send = Connection.send
    monkeypatch.setattr(Connection, "send", lambda self, data: (sent.append(sent[-1] + len(data)), send(self, data)))
    with Cluster(3, tail_delay=0.1) as cluster:
        pauses = []
        cluster.pause = lambda seconds: pauses.append((seconds, sent[-1]))
        for i, size in enumerate(sizes):
            cluster.put("tail", f"z{i}", b"x" * size)
        names = [f"z{i}" for i in range(len(sizes))]
        answer = batch(cluster, moss(*names), "/v1/ml/moss/tail")
    assert [len(data) for _, data in members(answer[2])] == sizes
    [(seconds, before)] = pauses
    assert sent[-1] - before == held
    assert 0 < seconds <= 0.1


def test_no_tail_with_one_target():
    with Cluster(1, tail_delay=30) as cluster:
        cluster.put("b", "o", b"data")
        assert members(batch(cluster, moss("o"))[2]) == [("b/o", b"data")]


# -- stores


@pytest.mark.parametrize(
    "name", ["a.bin", "d/e/f.bin", "ü/ö ☃.bin", "x//y", "/lead", "q?%41&<>:|*.bin", "-._~", "n" * 250]
)
def test_objects_survive_in_a_directory(tmp_path, name):
    path = "/v1/objects/b/" + quote(name)
    with Cluster(2, 0, dir=tmp_path) as cluster:
        cluster.bucket("b")
        cluster.bucket("empty", namespace="@uuid#space")
        put(cluster, path, b"first")
        put(cluster, path, b"second")
        assert get(cluster, path)[2] == b"second"
    with Cluster(3, 0, dir=tmp_path) as cluster:
        assert get(cluster, path)[2] == b"second"
        assert list(cluster.store.buckets) == [("ais", "@uuid#space", "empty"), ("ais", "@#", "b")]
        assert members(batch(cluster, moss(name))[2]) == [(f"b/{name}", b"second")]
        assert follow(cluster, "DELETE", path)[0] == 200
        assert get(cluster, path)[0] == 404
        assert [file for _, _, files in os.walk(tmp_path) for file in files] == []
        status = ask(cluster.endpoint, "DELETE", "/v1/buckets/b", b'{"action":"destroy-bck"}')[0]
        assert status == 200
    with Cluster(dir=tmp_path) as cluster:
        assert [key[2] for key in cluster.store.buckets] == ["empty"]


def test_files_of_others_are_objects(tmp_path):
    (tmp_path / "ais" / "mine" / "sub").mkdir(parents=True)
    (tmp_path / "ais" / "mine" / "sub" / "file.txt").write_bytes(b"by hand")
    with Cluster(dir=tmp_path) as cluster:
        assert get(cluster, "/v1/objects/mine/sub/file.txt")[2] == b"by hand"
        (tmp_path / "ais" / "mine" / "sub" / "file.txt").unlink()
        answer = get(cluster, "/v1/objects/mine/sub/file.txt")
        assert (answer[0], message(answer)) == (
            400,
            "ais://mine/sub/file.txt: cannot be read: No such file or directory",
        )


def test_a_name_that_no_file_can_have(tmp_path):
    with Cluster(dir=tmp_path) as cluster:
        cluster.bucket("b")
        answer = put(cluster, "/v1/objects/b/" + "n" * 300, b"x")
        assert answer[0] == 400
        assert "cannot be stored as a file" in message(answer)


def follow(cluster: Cluster, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, bytes]:
    status, head, rest = ask(cluster.endpoint, method, path, body if method != "PUT" else b"")
    if status not in (301, 307):
        return status, head, rest
    where = urlsplit(re.search(rb"Location: (\S+)", head)[1].decode())
    return ask(where.geturl(), method, f"{where.path}?{where.query}", body, headers)


def get(cluster: Cluster, path: str, **headers: str) -> tuple[int, bytes, bytes]:
    return follow(cluster, "GET", path, **headers)


def put(cluster: Cluster, path: str, body: bytes, **headers: str) -> tuple[int, bytes, bytes]:
    return follow(cluster, "PUT", path, body, **headers)


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=3-", 206, b"3456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=10-", 416, "size=10: not satisfiable range [10-]"),
        ("bytes=5-3", 416, 'read range "bytes=5-3" is invalid'),
        ("bytes=x", 416, 'read range "bytes=x" is invalid'),
        ("bytes=0-1,4-5", 416, "cannot multi-range read ais://b/digits"),
    ],
)
def test_ranges(single, asked, status, body):
    single.put("b", "digits", b"0123456789")
    answer = get(single, "/v1/objects/b/digits", Range=asked)
    assert answer[0] == status
    if status == 206:
        assert answer[2] == body
        assert b"Accept-Ranges: bytes\r\n" in answer[1]
    else:
        assert message(answer).startswith(body)


def test_checksums_are_checked(single):
    wrong = {"Ais-Checksum-Type": "md5", "Ais-Checksum-Value": "0" * 32}
    answer = put(single, "/v1/objects/b/o", b"new", **wrong)
    assert answer[0] == 400
    assert "BAD DATA CHECKSUM" in message(answer)
    assert get(single, "/v1/objects/b/o")[2] == b"data"
    right = {"Ais-Checksum-Type": "md5", "Ais-Checksum-Value": "22af645d1859cb5ca6da0c484f1f37ea"}
    assert put(single, "/v1/objects/b/o", b"new", **right)[0] == 200
    assert b"Ais-Version: 2\r\n" in get(single, "/v1/objects/b/o")[1]


@pytest.mark.parametrize(
    "query", ["append_type=append&append_handle=nope", "append_type=flush&append_handle=", "append_type=x"]
)
def test_bad_appends(single, query):
    assert put(single, f"/v1/objects/b/o?{query}", b"x")[0] == 400


def listed(cluster: Cluster, **asked: Any) -> tuple[list[str], str]:
    body = json.dumps({"action": "list", "value": asked}).encode()
    status, _, answer = ask(cluster.endpoint, "GET", "/v1/buckets/b?provider=ais", body)
    assert status == 200
    document = json.loads(answer)
    return [entry["name"] for entry in document["entries"]], document["continuation_token"]


def test_lists(single):
    single.bucket("b").delete("o")
    names = ["a", "b/1", "b/2", "b/c/3", "z"]
    for name in names:
        single.put("b", name, b"")
    assert listed(single) == (names, "")
    assert listed(single, prefix="b/") == (["b/1", "b/2", "b/c/3"], "")
    assert listed(single, flags=str(1 << 11)) == (["a", "b/", "z"], "")
    assert listed(single, flags=str(1 << 11), prefix="b/") == (["b/1", "b/2", "b/c/"], "")
    assert listed(single, start_after="b/2") == (["b/c/3", "z"], "")
    assert listed(single, pagesize=2) == (["a", "b/1"], "b/1")
    assert listed(single, pagesize=2, continuation_token="b/1") == (["b/2", "b/c/3"], "b/c/3")
    assert listed(single, pagesize=2, continuation_token="b/c/3") == (["z"], "")
    assert listed(single, pagesize=5) == (names, "z")


# -- archives


def test_headers_are_what_tarfile_reads():
    names = [
        "a",
        "d/" + "n" * 98,
        "p" * 155 + "/" + "s" * 100,
        "p" * 156 + "/s",
        "x" * 101,
        "ü.bin",
        "☃" * 90,
        "/lead/é",
    ]
    for name in names:
        for size, mtime in ((0, 0), (5, 1_700_000_000), (3, -1_755_800_000), (1, 1 << 33)):
            data = tar.header(name, size, mtime) + b"x" * size + tar.padding(size) + bytes(1024)
            assert len(data) % 512 == 0
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                [info] = archive.getmembers()
                assert (info.name, info.size, info.mtime, info.mode) == (name, size, mtime, 0o644)
                assert archive.extractfile(info).read() == b"x" * size
    large = tar.header("large", 1 << 33)
    assert large[124:136] == b"00000000023\0"  # of the records, 19 bytes
    assert large[512:1024].rstrip(b"\0") == b"19 size=8589934592\n"
    assert large[1024 + 124 :][:12] == b"00000000000\0"


FILES = {"one": b"1" * 700, "dir/two": b"2" * 100_000, "ü": b"3", "long/" + "n" * 200: b"4"}


def tarred(layout: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        folder = tarfile.TarInfo("dir")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def gzipped(data: bytes) -> bytes:
    pack = zlib.compressobj(6, zlib.DEFLATED, 31)
    return pack.compress(data) + pack.flush()


def zipped(_: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("dir") if hasattr(archive, "mkdir") else archive.writestr("dir/", b"")
        for name, data in FILES.items():
            archive.writestr(name, data)
    return out.getvalue()


def lz4ed(data: bytes) -> bytes:
    return pytest.importorskip("lz4.frame").compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tgz": gzipped,
    "tar.gz": gzipped,
    "zip": zipped,
    "tar.lz4": lz4ed,
}


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("ext", PACKERS)
def test_shards(ext, layout):
    if layout == tarfile.USTAR_FORMAT:
        with pytest.MonkeyPatch.context() as patch:
            patch.delitem(FILES, "long/" + "n" * 200)
            check_shard(ext, layout)
    else:
        check_shard(ext, layout)


def check_shard(ext: str, layout: int) -> None:
    shard = shards.read(f"s.{ext}", PACKERS[ext](tarred(layout)), "ais://b/s")
    assert shard.error is None
    for name, data in FILES.items():
        for asked in (name, "/" + name):
            member = shard.find(asked)
            assert (member.size, bytes(member.load()[0]), member.load()[1]) == (len(data), data, None)
    assert shard.find("two") is None


@pytest.mark.parametrize("ext", PACKERS)
def test_shards_are_known_by_their_first_bytes(ext):
    assert (
        shards.read("no-extension", PACKERS[ext](tarred(tarfile.PAX_FORMAT)), "ais://b/no-extension").find("one").size
        == 700
    )


@pytest.mark.parametrize("ext", PACKERS)
@pytest.mark.parametrize("kind", ["noise", "empty", "cut", "flipped"])
def test_damaged_shards(ext, kind):
    """What stands before the damage is there; the rest is an error, or a member with less than its size."""
    whole = PACKERS[ext](tarred())
    data = {
        "noise": b"\xa5" * 4096,
        "empty": b"",
        "cut": whole[: len(whole) * 2 // 3],
        "flipped": whole[:1024] + bytes(255 - byte for byte in whole[1024:1536]) + whole[1536:],
    }[kind]
    member = None
    with contextlib.suppress(Failure):
        member = shards.read(f"s.{ext}", data, "ais://b/s").find("long/" + "n" * 200)
    if kind in ("noise", "empty"):
        assert member is None
    elif member is not None:
        assert member.load()[1] or kind == "flipped"


def test_long_damage_gives_what_is_before_it(single):
    """A gzip stream that ends inside a member: the answer is cut at the same byte, without a trailer."""
    data = gzipped(tarred())
    pack = zlib.compressobj(0, zlib.DEFLATED, 31)
    plain = tarred()
    at = plain.index(b"2" * 512) + 40_000
    data = pack.compress(plain[:at]) + pack.flush(zlib.Z_SYNC_FLUSH)
    single.put("b", "cut.tgz", data)
    asked = moss("o", {"objname": "cut.tgz", "archpath": "one"}, {"objname": "cut.tgz", "archpath": "dir/two"}, "o")
    body = batch(single, asked)[2]
    assert body.startswith(tar.header("b/o", 4, round(single.bucket("b").objects["o"].atime / 1e9)))
    assert body.endswith(tar.header("b/cut.tgz/dir/two", 100_000) + b"2" * 40_000)
    answer = batch(single, asked.replace(b'"strm": true', b'"strm": false'))
    assert (answer[0], message(answer)) == (400, "unexpected EOF")
