"""The black box: what ends a batch in a `WireError` is kept, and served again it ends it in the same way."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import aisfast
from aisfast import blackbox
from aisfast.blackbox import Record, load
from aisfast.emulator import Cluster, server_main
from aisfast.emulator.replay import Replay
from aisfast.errors import AISError, LimitError, WireError
from aisfast.settings import resolve
from scripted import Last, Request, Scripted, answer

NAMES = [f"{i}.bin" for i in range(12)]
DATA = {name: bytes([i]) * (700 + 517 * i) for i, name in enumerate(NAMES)}
TOKEN = "eyJ0b2tlbg.c2VjcmV0.c2lnbmF0dXJl-of-ours"
FIELDS = ("layer", "offset", "expected", "found", "entry")
ONCE = aisfast.Policy(resume=False)

FAULTS: dict[str, dict[str, Any]] = {
    "garbage": {"action": "garbage"},
    "garbage from the gateway": {"action": "garbage", "leg": "proxy"},
    "garbage in the body": {"action": "garbage", "offset": 9000},
    "corrupt": {"action": "corrupt", "entry": "3.bin"},
    "rename": {"action": "rename", "entry": "3.bin", "name": "b/x"},
    "duplicate": {"action": "duplicate", "entry": "3.bin"},
    "204": {"action": "reply", "status": 204},
    "out": {"action": "out"},
    "short": {"action": "short", "entry": "5.bin"},
    "cut, clean end": {"action": "cut", "entry": "5.bin", "part": "data", "clean": True},
}


@pytest.fixture(autouse=True)
def _first_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackbox, "_written", {})


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory that AISFAST_BLACKBOX names; it is not there yet."""
    monkeypatch.setenv("AISFAST_BLACKBOX", str(tmp_path / "box"))
    return tmp_path / "box"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3, 0, seed=3, token=TOKEN) as cluster:
        for name in NAMES:
            cluster.put("b", name, DATA[name])
        yield cluster


def only(box: Path) -> Path:
    (path,) = box.iterdir()
    return path


def failing(endpoint: str, way: str = "fetch", streaming: bool = True, policy: aisfast.Policy = ONCE) -> AISError:
    """The error that all of a batch ends in."""
    with aisfast.Client(endpoint, token=TOKEN) as client:
        batch = client.batch(NAMES, bucket=client.bucket("b"), streaming_get=streaming)
        with pytest.raises(AISError) as caught:
            list(getattr(batch, way)(policy=policy))
    return caught.value


def wire_error(error: BaseException | None) -> WireError:
    wire = error if isinstance(error, WireError) else error and error.__cause__
    assert isinstance(wire, WireError)
    return wire


def fields(error: BaseException) -> tuple[object, ...]:
    return type(error), *(getattr(wire_error(error), name) for name in FIELDS)


CASES = [
    (fault, mode) for fault in FAULTS for mode in ("streaming", "buffered") if (fault, mode) != ("out", "streaming")
]


@pytest.mark.parametrize("way", ["get", "stream", "fetch"])
@pytest.mark.parametrize(("fault", "mode"), CASES)
def test_replay_ends_as_the_batch_did(
    cluster: Cluster, box: Path, monkeypatch: pytest.MonkeyPatch, fault: str, mode: str, way: str
) -> None:
    streaming = mode == "streaming"
    planned = cluster.faults.add(**FAULTS[fault])
    error = failing(cluster.endpoint, way, streaming)
    assert planned.hits == 1
    path = only(box)
    assert f"`aisfast emulator --replay {path}`" in str(error)
    kept = load(str(path))
    assert [kept.about["error"][name] for name in FIELDS] == [getattr(wire_error(error), name) for name in FIELDS]
    assert kept.about["error"]["raised"] == type(error).__name__
    assert kept.about["answer"]["redirected"] == ("leg" not in FAULTS[fault])
    monkeypatch.delenv("AISFAST_BLACKBOX")
    with Replay(str(path)) as replay:
        for _ in range(2):
            again = failing(replay.endpoint, way, streaming)
            assert fields(again) == fields(error)
            assert again.message == error.message


@pytest.mark.parametrize("way", ["get", "stream", "fetch"])
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_a_limit(cluster: Cluster, box: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool, way: str) -> None:
    policy = aisfast.Policy(resume=False, max_entry=3000)
    error = failing(cluster.endpoint, way, streaming, policy)
    assert isinstance(error, LimitError)
    monkeypatch.delenv("AISFAST_BLACKBOX")
    with Replay(str(only(box))) as replay:
        assert fields(failing(replay.endpoint, way, streaming, policy)) == fields(error)


def test_the_answer_is_kept_byte_for_byte(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interim answer, framing and what follows the fault included; and served so."""
    raw = b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"200;x=y\r\n" + bytes(range(256)) * 2 + b"\r\n0\r\nTrailer: t\r\n\r\n"
    with Scripted(lambda request: Last(raw)) as server:
        error = failing(server.url)
        sent = server.requests[0]
    kept = load(str(only(box)))
    assert kept.answer == raw
    assert kept.request == sent.body
    assert kept.about["request"] == {"url": server.url + sent.target, "bytes": len(sent.body), "first": 0}
    monkeypatch.delenv("AISFAST_BLACKBOX")
    with Replay(str(only(box))) as replay:
        assert fields(failing(replay.endpoint)) == fields(error)
        with urlopen(f"{replay.endpoint}/request") as response:
            assert response.read() == sent.body


def test_damage_that_stays_is_raised_of_the_second_answer(
    cluster: Cluster, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for again begins at the entry that came wrong; so does the request that is kept."""
    planned = cluster.faults.add("rename", entry="3.bin", name="b/x", times=None)
    error = failing(cluster.endpoint, policy=aisfast.Policy())
    assert planned.hits == 2
    kept = load(str(only(box)))
    assert kept.about["request"]["first"] == 3
    assert [entry["objname"] for entry in json.loads(kept.request or b"")["in"]] == NAMES[3:]
    monkeypatch.delenv("AISFAST_BLACKBOX")
    with Replay(str(only(box))) as replay, aisfast.Client(replay.endpoint) as client:
        assert "entry 3 there" in str(replay)
        with pytest.raises(WireError) as caught:
            client.batch(NAMES[3:], bucket=client.bucket("b")).fetch()
    assert caught.value.found == wire_error(error).found
    assert caught.value.entry == wire_error(error).entry.replace("entry 3 ", "entry 0 ")


@pytest.mark.parametrize(
    "plan", [{"action": "error", "kind": "busy"}, {"action": "reset"}, {"action": "reset", "offset": 9000}]
)
def test_what_is_no_wire_error_is_not_kept(cluster: Cluster, box: Path, plan: dict[str, Any]) -> None:
    cluster.faults.add(**plan)
    error = failing(cluster.endpoint)
    assert not isinstance(error.__cause__ or error, WireError)
    assert not box.exists()


def test_what_is_mended_is_not_kept(cluster: Cluster, box: Path) -> None:
    planned = cluster.faults.add("rename", entry=3, name="b/x")
    with aisfast.Client(cluster.endpoint, token=TOKEN) as client:
        assert list(map(bytes, client.batch(NAMES, bucket=client.bucket("b")).fetch())) == list(DATA.values())
    assert planned.hits == 1
    assert not box.exists()


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, b"x" * 600, Set_Cookie="sid=c00kie; Path=/", Content_Type="text/html", X_Echo=TOKEN),
        answer(204, b"", Set_Cookie="sid=c00kie", Authorization=f"Bearer {TOKEN}"),
        answer(206, f"invalid token: {TOKEN}; Bearer c00kie; other eyJh.YmM.c00kie".encode()),
        answer(200, f"a member called {TOKEN}".encode().ljust(1024, b"."), Content_Type="application/x-tar"),
        answer(307, b'<a href="http://h/?pid=p&amp;u=c00kie">', Location="http://u:c00kie@[/?pid=p&u=c00kie"),
        f"garbage with {TOKEN} in it\r\n\r\n".encode(),
    ],
    ids=["200", "204", "text", "body", "redirect", "garbage"],
)
def test_no_secrets(box: Path, reply: bytes) -> None:
    with Scripted(lambda request: Last(reply)) as server:
        error = failing(server.url)
        assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    raw = only(box).read_bytes()
    assert TOKEN.encode() not in raw
    assert b"c00kie" not in raw
    assert TOKEN.encode() not in str(error).encode()
    kept = load(str(only(box)))
    assert len(kept.answer) == len(reply)  # every other byte is at its place
    same = sum(a == b for a, b in zip(kept.answer, reply, strict=True))
    assert same + kept.answer.count(b"*") - reply.count(b"*") == len(reply)


def test_the_redirects_query_is_not_kept(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither an endpoint's path nor that of a redirect need be AIStore's own."""

    def script(request: Request) -> bytes:
        if "u=" in request.target:
            return Last(b"no HTTP at all\r\n\r\n")
        return answer(307, Location=f"http://127.0.0.1:{server.port}/any/where/1?pid=p&u=c00kie")

    with Scripted(script) as server:
        error = failing(f"{server.url}/some/where")
    assert b"c00kie" not in only(box).read_bytes()
    kept = load(str(only(box))).about
    assert kept["request"]["url"] == f"{server.url}/some/where/v1/ml/moss/b?provider=ais"
    assert kept["answer"]["url"] == f"{server.url}/any/where/1"
    monkeypatch.delenv("AISFAST_BLACKBOX")
    with Replay(str(only(box))) as replay:
        for endpoint in (replay.endpoint, f"{replay.endpoint}/some/where"):
            assert fields(failing(endpoint)) == fields(error)


# --------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("pieces", [1, 7, 100, 1000])
@pytest.mark.parametrize("size", [0, 99, 100, 101, 500, 501, 1300, 5000])
def test_first_and_last_bytes_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, pieces: int) -> None:
    monkeypatch.setattr(blackbox, "KEEP_FIRST", 100)
    monkeypatch.setattr(blackbox, "KEEP_LAST", 400)
    data = random.Random(size).randbytes(size)
    record = Record(str(tmp_path), "http://h:1/v1/ml/moss/b", "http://h:1/v1/ml/moss/b", b"{}", 0)
    for at in range(0, size, pieces):
        record.read(memoryview(data)[at : at + pieces])
    record.write(error := WireError(0, "wrong", offset=7), error, None)
    kept = load(str(only(tmp_path)))
    left_out = max(0, size - 500)
    assert kept.about["answer"]["left_out"] == left_out
    assert kept.answer == (data[:100] if left_out else data)
    assert kept.last == (data[-400:] if left_out else b"")


def test_memory_is_bounded() -> None:
    record = Record("", "http://h:1", "http://h:1", b"", 0)
    piece = memoryview(bytes(1 << 18))
    for _ in range(200):
        record.read(piece)
        assert len(record._head) + len(record._tail) <= blackbox.KEEP_FIRST + 2 * blackbox.KEEP_LAST


def test_an_answer_that_is_not_whole_is_not_served(
    box: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blackbox, "KEEP_FIRST", 1000)
    monkeypatch.setattr(blackbox, "KEEP_LAST", 2000)
    cluster.faults.add("rename", entry=9, name="b/x")
    failing(cluster.endpoint)
    kept = load(str(only(box)))
    assert kept.answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(kept.answer) + len(kept.last) == 3000
    with pytest.raises(SystemExit) as ending:
        server_main(["--replay", str(only(box)), "--port", "0"])
    assert ending.value.code == 2
    assert f"the {kept.about['answer']['left_out']} behind the first 1000 were not kept" in capsys.readouterr().err


def test_a_large_request_is_left_out(box: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackbox, "KEEP_REQUEST", 100)
    cluster.faults.add("rename", entry=2, name="b/x")
    error = failing(cluster.endpoint)
    monkeypatch.delenv("AISFAST_BLACKBOX")
    with Replay(str(only(box))) as replay:
        assert re.search(r"the request of \d+ bytes was not kept", str(replay))
        assert fields(failing(replay.endpoint)) == fields(error)


def test_so_many_files_and_no_more(
    box: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blackbox, "MAX_FILES", 3)
    cluster.faults.add("rename", entry=2, name="b/x", times=None)
    with caplog.at_level(logging.WARNING, "aisfast"):
        errors = [failing(cluster.endpoint) for _ in range(6)]
    assert len({fields(error) for error in errors}) == 1
    assert len(list(box.iterdir())) == 3
    assert [sum(str(path) in str(error) for path in box.iterdir()) for error in errors] == [1, 1, 1, 0, 0, 0]
    assert [record.message for record in caplog.records if "no more" in record.message] == [
        "this process has written 3 black boxes and writes no more"
    ]


@pytest.mark.parametrize("fault", ["a file in the way", "no room"])
def test_a_file_that_cannot_be_written(
    box: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    planned = cluster.faults.add("rename", entry=2, name="b/x", times=None)
    if fault == "a file in the way":
        box.write_text("mine")
    else:
        monkeypatch.setattr(os, "rename", _no_room)
    with caplog.at_level(logging.WARNING, "aisfast"):
        error = failing(cluster.endpoint)
    assert isinstance(error, WireError)
    assert error.found == "b'b/x'"
    assert "--replay" not in str(error)
    assert [record.message for record in caplog.records if "no black box could be written" in record.message]
    assert planned.hits == 1
    assert box.read_text() == "mine" if box.is_file() else not list(box.iterdir())


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


# ------------------------------------------------------------------------------------------------- settings, processes


def test_without_the_variable_nothing_is_kept(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISFAST_BLACKBOX", "")
    assert resolve().blackbox is None
    made: list[object] = []
    monkeypatch.setattr(blackbox, "Record", lambda *given: made.append(given))
    cluster.faults.add("rename", entry=2, name="b/x")
    assert "--replay" not in str(failing(cluster.endpoint))
    assert not made


def test_the_variable_counts_when_a_client_is_made(
    box: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.faults.add("rename", entry=2, name="b/x", times=None)
    with aisfast.Client(cluster.endpoint, token=TOKEN) as before:
        monkeypatch.delenv("AISFAST_BLACKBOX")
        copy = pickle.loads(pickle.dumps(before))
        with aisfast.Client(cluster.endpoint, token=TOKEN) as after, copy:
            for client, files in ((before, 1), (copy, 2), (after, 2)):
                with pytest.raises(WireError):
                    client.batch(NAMES, bucket=client.bucket("b")).fetch(policy=ONCE)
                assert len(list(box.iterdir())) == files


_FORKING = """
import os, sys, warnings
import aisfast
warnings.simplefilter("ignore", DeprecationWarning)
client = aisfast.Client(sys.argv[1], token=sys.argv[2])
def fail(times):
    for _ in range(times):
        try:
            client.batch(["2.bin"], bucket=client.bucket("b")).fetch(policy=aisfast.Policy(resume=False))
        except aisfast.WireError:
            pass
fail(14)
child = os.fork() if hasattr(os, "fork") else 0
fail(4)
if child:
    _, status = os.waitpid(child, 0)
    print(os.getpid(), child)
    assert status == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_processes_write_their_own_files(box: Path, cluster: Cluster) -> None:
    """16 each: two that were started, and their children; a child counts anew."""
    cluster.faults.add("rename", entry="2.bin", name="b/x", times=None)
    command = [sys.executable, "-c", _FORKING, cluster.endpoint, TOKEN]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    expected: dict[str, int] = {}
    for process in running:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        parent, child = output.split()
        expected |= {parent: 16, child: 4}
    names = [path.name for path in box.iterdir()]
    assert {pid: sum(f"-{pid}-" in name for name in names) for pid in expected} == expected
    assert len(names) == 40
    for path in box.iterdir():
        assert load(str(path)).about["error"]["found"] == "b'b/x'"


# --------------------------------------------------------------------------------------------------------- the program


def _replaying(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "aisfast", "emulator", "--replay", str(path), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _told(process: subprocess.Popen[str]) -> str:
    """What it prints, up to the end of the Python that it proposes."""
    assert process.stdout is not None
    lines: list[str] = []
    while lines[-1:] != ["EOF\n"]:
        line = process.stdout.readline()
        assert line, lines
        lines.append(line)
    return "".join(lines)


def _names(batch: aisfast.Batch) -> None:
    for name in NAMES:
        batch.add(name)


def _members_and_ranges(batch: aisfast.Batch) -> None:
    batch.add("s.tar", archpath="no", opaque=b"\xff\x00")
    batch.add("5.bin", start=10, length=100)
    batch.add("ünï'code", bck="c-d", provider="ais")
    batch.add("4.bin")


def _many(batch: aisfast.Batch) -> None:
    for i in range(200):
        batch.add(NAMES[i % 12])


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
@pytest.mark.parametrize("fill", [_names, _members_and_ranges, _many])
def test_program(
    box: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, fill: Callable[[aisfast.Batch], None], streaming: bool
) -> None:
    """`aisfast emulator --replay FILE`, and what it says is to be run."""
    cluster.put("c-d", "ünï'code", b"data")
    with aisfast.Client(cluster.endpoint, token=TOKEN) as client:
        batch = client.batch(bucket=client.bucket("b"), streaming_get=streaming, only_obj_name=True)
        fill(batch)
        cluster.faults.add("rename", entry="4.bin", name="x")
        with pytest.raises(WireError) as caught:
            batch.fetch(missing="mark", policy=ONCE)
    monkeypatch.delenv("AISFAST_BLACKBOX")
    process = _replaying(only(box))
    try:
        told = _told(process)
        assert told.split()[1:4] == ["is", "ready:", "it"]
        assert caught.value.message in told
        assert ("client.batch(['0.bin', '1.bin'" in told) == (fill is _names)
        assert len(told) < 4000
        if shutil.which("sh") and os.access(sys.executable, os.X_OK):
            script = told[told.index("AIS_ENDPOINT=") :].replace(" python - ", f" {sys.executable} - ")
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_PROXY": "127.0.0.1"}
            ran = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=60)
            assert ran.returncode == 1
            assert f"aisfast.errors.WireError: STATUS:0, MESSAGE:{caught.value.message}, REQ_URL:" in ran.stderr
        if shutil.which("curl"):
            command = next(line for line in told.splitlines() if line.startswith("curl"))
            subprocess.run(["sh", "-c", command], cwd=box, timeout=60, check=False, stderr=subprocess.DEVNULL)
            body = (box / "answer.bin").read_bytes()
            assert b"2.bin" in body or b"code" in body
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_program_with_what_is_no_black_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"a tar, perhaps")
    for options, code, says in (
        (["--replay", str(other)], 2, "is no black box of this version"),
        (["--replay", str(tmp_path / "nowhere")], 1, "No such file"),
        (["--replay", str(other), "--targets", "3"], 2, "--replay FILE does not go with --targets"),
    ):
        with pytest.raises(SystemExit) as ending:
            server_main(options)
        assert ending.value.code == code
        told = capsys.readouterr().err
        assert told.startswith("aisfast emulator: ")
        assert told.count("\n") == 1
        assert says in told


def test_every_damaged_file_is_refused(tmp_path: Path) -> None:
    record = Record(str(tmp_path), "http://h:1/v1/ml/moss/b", "http://h:2/v1/ml/moss/b/x/y/1", b'{"in":[]}', 0)
    record.read(memoryview(b"HTTP/1.1 200 OK\r\n\r\n-- answer from byte 7: 3 bytes\n123\n"))
    record.write(error := WireError(0, "wrong"), error, None)
    path = only(tmp_path)
    whole = path.read_bytes()
    assert load(str(path)).request == b'{"in":[]}'
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="black box"):
            load(str(path))
    path.write_bytes(whole.replace(b"\r\n", b"\n"))  # as a mailer does
    with pytest.raises(ValueError, match="damaged"):
        load(str(path))


def test_a_replay_has_nothing_else(box: Path, cluster: Cluster) -> None:
    cluster.faults.add("rename", entry=2, name="b/x")
    failing(cluster.endpoint)
    with (
        Replay(str(only(box))) as replay,
        aisfast.Client(replay.endpoint) as client,
        pytest.raises(AISError, match="it holds one answer to GetBatch"),
    ):
        client.cluster().list_buckets()
