"""All that differs between the official SDK and aisfast, with its reason: rows of a table, each shown by a function.

    python tests/differences.py --write docs/compatibility.md

writes the table into the page. `test_differential.py` runs every function against the installed official SDK: each
asserts what the official one does and what ours does, so that a new release shows what changed. A row may excuse a
mismatch of the random batches there; what none excuses is a fault.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import aisfast
import aisfast.sdk
from aisfast.emulator import Cluster
from scripted import Scripted, answer

# ------------------------------------------------------------------------------------------------------------ the table


class Mismatch(NamedTuple):
    """Something that came of a random batch and is not the same.

    Attributes:
        case: The batch (`test_differential.Case`).
        what: Name of a field, "payload", or "end": how many entries came, and what ended them.
        at: Index of the entry.
        theirs, ours: The two values; of "end" the two outcomes.
        version: Of the official SDK.
    """

    case: Any
    what: str
    at: int
    theirs: Any
    ours: Any
    version: tuple[int, ...]


class Difference(NamedTuple):
    """A row.

    Attributes:
        group: Heading that it stands under.
        case, theirs, ours, why: What the page says.
        show: Shows it on a `Stage`. None: only older versions do it, and a random batch shows it.
        excuses: Whether it explains a mismatch.
    """

    group: str
    case: str
    theirs: str
    ours: str
    why: str
    show: Callable[[Stage], None] | None
    excuses: Callable[[Mismatch], bool] | None = None

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.case.lower()).strip("-")


DIFFERENCES: list[Difference] = []
GROUPS = [
    "Answers that lack something",
    "Entries that cannot be had",
    "What comes with a payload",
    "Errors",
    "Arguments and settings",
    "Only under `accelerate()`",
    "Older versions of the official SDK",
]


def row(
    group: str, case: str, theirs: str, ours: str, why: str, excuses: Callable[[Mismatch], bool] | None = None
) -> Callable[[Callable[[Stage], None] | None], None]:
    """Decorator: the function shows this row."""
    assert group in GROUPS

    def add(show: Callable[[Stage], None] | None) -> None:
        DIFFERENCES.append(Difference(group, case, theirs, ours, why, show, excuses))

    return add


# ------------------------------------------------------------------------------------------------------------ the stage

BUCKET = "b"
FILES = {f"f{i}": bytes([65 + i]) * (700 * i + 5) for i in range(8)}
FAR = "far"  # lives on the target that does not answer
NAMES = [*FILES]
WHOLE = [*FILES.values()]


@dataclass
class Got:
    """What a batch gave: payloads (None: marked as missing), records, and how it ended."""

    payloads: list[bytes | None] = field(default_factory=list)
    infos: list[Any] = field(default_factory=list)
    error: Exception | None = None
    at_call: bool = True
    requests: int = 0

    @property
    def whole(self) -> bool:
        return self.payloads == WHOLE and self.error is None

    @property
    def kind(self) -> str:
        return type(self.error).__name__ if self.error else ""


class Stage:
    """An emulated cluster of two targets, the first of which answers, and a client of either kind."""

    def __init__(self, cluster: Cluster) -> None:
        import aistore.sdk

        self.cluster = cluster
        self.sdk = aistore.sdk
        self.clients: list[Any] = []
        self.theirs = self.official(cluster.endpoint)
        self.ours = aisfast.sdk.Client(cluster.endpoint)
        for name, data in {**FILES, FAR: b"far away"}.items():
            cluster.put(BUCKET, name, data)
        cluster.put(BUCKET, "s.tar", _shard({"m": b"member"}))
        for name in (*FILES, "s.tar", "gone"):
            cluster.place(BUCKET, name, 0)
        for name in (FAR, "far-gone"):
            cluster.place(BUCKET, name, 1)

    def official(self, endpoint: str, **options: Any) -> Any:
        """A client of the official SDK. Two tries, no pauses."""
        import tenacity
        import urllib3

        retry = self.sdk.RetryConfig(
            http_retry=urllib3.Retry(total=1, status_forcelist=[429, 500, 502, 503, 504], allowed_methods=None),
            network_retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(2), reraise=True),
        )
        self.clients.append(self.sdk.Client(endpoint, **{"retry_config": retry, **options}))
        return self.clients[-1]

    def close(self) -> None:
        for client in self.clients:
            client._request_client.session_manager.session.close()
        self.ours.close()

    def get(
        self, client: Any, asks: list[Any] | None = None, *, fault: dict[str, Any] | None = None, **how: Any
    ) -> Got:
        """What a batch gives. `asks`: names, or (name, what `add` is told); `fault`: of its answer."""
        calls = {name: how.pop(name) for name in ("decode_as_stream", "policy") if name in how}
        got = Got()
        self.cluster.next_dt = 0
        if fault:
            self.cluster.faults.add(**fault)
        asked: list[Any] = []
        count = self.cluster.faults.add("call", run=asked.append, leg="proxy", times=None)
        try:
            bucket = how.pop("bucket", None) or client.bucket(BUCKET)
            batch = client.batch(bucket=bucket, **how)
            for ask in NAMES if asks is None else asks:
                name, more = ask if isinstance(ask, tuple) else (ask, {})
                batch.add(name, **more)
            pairs = batch.get(**calls)
            got.at_call = False
            for info, data in pairs:
                got.infos.append(info)
                got.payloads.append(None if info.err_msg else data)
        except Exception as error:
            got.error = error
        got.requests = count.hits
        self.cluster.faults.clear()
        return got

    def both(self, asks: list[Any] | None = None, **how: Any) -> tuple[Got, Got]:
        """What the official client gives, and ours."""
        return self.get(self.theirs, asks, **how), self.get(self.ours, asks, **how)

    @contextmanager
    def scripted(self, reply: bytes, **options: Any) -> Iterator[tuple[Any, Any]]:
        """The two clients of a server that answers everything with these bytes."""
        with Scripted(lambda request: reply) as server:
            ours = aisfast.sdk.Client(server.url)
            yield self.official(server.url, **options), ours
            ours.close()


def _shard(files: dict[str, bytes], trailer: bool = True) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = made.tell()
    return made.getvalue() if trailer else made.getvalue()[:end]


def _buffered(files: dict[str, bytes], boundary: str = "0f1e", trailer: bool = True, out: Any = ()) -> bytes:
    """A buffered answer, whole."""
    told = [
        {"objname": name, "bucket": BUCKET, "provider": "ais", "size": len(data)} for name, data in files.items()
    ] if out == () else out  # fmt: skip
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode()
    head += json.dumps({"uuid": "gbt-x", "out": told}).encode() + f"\n\r\n--{boundary}\r\n".encode()
    head += b'Content-Disposition: form-data; name="archive"; filename="x"\r\n'
    head += b"Content-Type: application/octet-stream\r\n\r\n"
    body = head + _shard({f"{BUCKET}/{name}": data for name, data in files.items()}, trailer)
    body += f"\r\n--{boundary}--\r\n".encode()
    return answer(200, body, Content_Type=f"multipart/mixed; boundary={boundary}")


# ------------------------------------------------------------------------------------------ answers that lack something

LACKS = GROUPS[0]
COUNT = "status 200 and a clean end do not say that all has come: entries are counted, and the rest is asked for"


@row(
    LACKS,
    "an answer ends early, as if complete (a job was aborted, a target died)",
    "the entries before, no error",
    "all entries, in a second request",
    COUNT,
)
def _(stage: Stage) -> None:
    for streaming in (True, False):
        theirs, ours = stage.both(fault={"action": "short", "entry": 3}, streaming_get=streaming)
        assert (theirs.payloads, theirs.error) == (WHOLE[:3], None)
        assert ours.whole
        assert ours.requests == 2


@row(
    LACKS,
    "status 200 without a body (a job that was just stopped)",
    "`RuntimeError`; buffered: `MultipartDecodeError`",
    "all entries, in a second request",
    COUNT,
)
def _(stage: Stage) -> None:
    for streaming, kind in ((True, "RuntimeError"), (False, "MultipartDecodeError")):
        theirs, ours = stage.both(fault={"action": "empty"}, streaming_get=streaming)
        assert (theirs.payloads, theirs.kind) == ([], kind)
        assert ours.whole


@row(
    LACKS,
    "an archive that stops inside a header, or has a wrong one",
    "the entries before, no error",
    "all entries, in a second request; the same again: an error that says so",
    "what is no header is no end of the archive either",
)
def _(stage: Stage) -> None:
    for fault in ({"action": "cut", "clean": True}, {"action": "corrupt"}):
        for streaming in (True, False):
            theirs, ours = stage.both(fault={"entry": 3, "part": "header", **fault}, streaming_get=streaming)
            assert (theirs.payloads, theirs.error) == (WHOLE[:3], None)
            assert ours.whole


@row(
    LACKS,
    "an archive that stops inside a payload",
    "`RuntimeError`, its text by `cont_on_err`",
    "all entries",
    "the entries before it stand; the one cut is asked for again, by ranges if it is cut again",
)
def _(stage: Stage) -> None:
    texts = set()
    for cont_on_err in (True, False):
        fault = {"action": "cut", "clean": True, "entry": 3, "part": "data"}
        theirs, ours = stage.both(fault=fault, cont_on_err=cont_on_err)
        assert theirs.kind == "RuntimeError"
        texts.add(str(theirs.error))
        assert ours.whole
    assert len(texts) == 2


@row(
    LACKS,
    "a connection that breaks while the answer comes",
    "`ProtocolError` of urllib3, `ChunkedEncodingError` of requests; what had come is lost",
    "all entries; or an `AISError` (`IncompleteBatchError`) when it cannot be mended",
    "what has been verified is kept, the gateway is asked for the rest",
)
def _(stage: Stage) -> None:
    for streaming, kind in ((True, "ProtocolError"), (False, "ChunkedEncodingError")):
        theirs, ours = stage.both(fault={"action": "reset", "entry": 5, "part": "data"}, streaming_get=streaming)
        assert theirs.kind == kind
        assert ours.whole


@row(
    LACKS,
    "a connection that ends after the last payload, before the end of the answer",
    "an error of urllib3 or requests",
    "all entries; the connection is not used again",
    "nothing that was asked for lacks",
)
def _(stage: Stage) -> None:
    for streaming, kind in ((True, "ProtocolError"), (False, "ChunkedEncodingError")):
        theirs, ours = stage.both(fault={"action": "cut", "part": "end"}, streaming_get=streaming)
        assert theirs.kind == kind
        assert ours.whole
        assert ours.requests == 1


@row(
    LACKS,
    "silence for longer than the read timeout while the answer comes",
    "`ReadTimeoutError` of urllib3. The default of 20 s is what the server itself waits for a peer",
    "all entries, in a second request. The default for batches is 90 s",
    "silence is normal while the server waits for a peer; a silent answer is an incomplete one",
)
def _(stage: Stage) -> None:
    assert stage.theirs._request_client.timeout == (3, 20)
    assert stage.ours.settings.batch_read_timeout == 90
    fault = {"action": "stall", "entry": 3, "seconds": 0.4}
    theirs = stage.get(stage.official(stage.cluster.endpoint, timeout=(3, 0.2)), fault=fault)
    assert theirs.kind == "ReadTimeoutError"
    with aisfast.sdk.Client(stage.cluster.endpoint, timeout=(3, 0.2)) as ours:
        assert stage.get(ours, fault=fault).whole


@row(
    LACKS,
    "members in a wrong order, or one left out",
    "payloads under other entries' names, no error",
    "all entries, in a second request; the same again: `WireError`",
    "a member's name and, buffered, its size are held against the entry at its position",
)
def _(stage: Stage) -> None:
    for action in ("swap", "skip"):
        theirs, ours = stage.both(fault={"action": action, "entry": 3})
        assert theirs.error is None
        assert theirs.payloads != WHOLE[: len(theirs.payloads)]
        assert ours.whole


@row(
    LACKS,
    "more members than entries",
    "wrong payloads, then `RuntimeError`",
    "all entries",
    "a member that is not due is not handed out",
)
def _(stage: Stage) -> None:
    theirs, ours = stage.both(fault={"action": "duplicate", "entry": 3})
    assert theirs.kind == "RuntimeError"
    assert theirs.payloads[4] == WHOLE[3]
    assert ours.whole


@row(
    LACKS,
    "metadata that lists fewer entries than the archive has",
    "the entries listed, then `RuntimeError`",
    "all entries, in a second request",
    COUNT,
)
def _(stage: Stage) -> None:
    theirs, ours = stage.both(fault={"action": "out", "by": -1}, streaming_get=False)
    assert (theirs.payloads, theirs.kind) == (WHOLE[:-1], "RuntimeError")
    assert ours.whole


@row(
    LACKS,
    "metadata whose list is null",
    "`ValidationError` of pydantic",
    "as an empty list: `IncompleteBatchError` if it stays so",
    "null is how Go writes an empty list",
)
def _(stage: Stage) -> None:
    with stage.scripted(_buffered({}, out=None)) as (official, client):
        assert stage.get(official, ["f0"], streaming_get=False).kind == "ValidationError"
        ours = stage.get(client, ["f0"], streaming_get=False, policy=aisfast.Policy(resume=False))
        assert ours.kind == "IncompleteBatchError"


@row(
    LACKS,
    "a buffered payload that holds the answer's boundary",
    "the archive is cut there: the entries before, no error, or `RuntimeError`",
    "all entries",
    "sizes tell where a part ends; the boundary only where it stands alone",
)
def _(stage: Stage) -> None:
    data = b"x" * 600 + b"--0f1e" + b"y" * 3000
    for decode_as_stream in (True, False):
        with stage.scripted(_buffered({"f0": data, "f1": b"z"})) as (official, client):
            how = {"streaming_get": False, "decode_as_stream": decode_as_stream}
            theirs = stage.get(official, ["f0", "f1"], **how)
            assert theirs.error is not None or theirs.payloads != [data, b"z"]
            assert stage.get(client, ["f0", "f1"], **how).payloads == [data, b"z"]


@row(
    LACKS,
    "`decode_as_stream=True`, and an archive without trailer that ends in line ends or spaces",
    "they are cut off: `RuntimeError`",
    "all entries",
    "they are payload",
)
def _(stage: Stage) -> None:
    data = b" " * 512
    with stage.scripted(_buffered({"f0": data}, trailer=False)) as (official, client):
        how = {"streaming_get": False, "decode_as_stream": True}
        assert stage.get(official, ["f0"], **how).kind == "RuntimeError"
        assert stage.get(client, ["f0"], **how).payloads == [data]


# ------------------------------------------------------------------------------------------- entries that cannot be had

CANNOT = GROUPS[1]


def _over_budget(its: Mismatch) -> bool:
    case = its.case
    if its.what != "end" or case.strict or len(case.bad) <= 8 or its.ours.error is not None:
        return False
    if case.streaming:
        return its.theirs.error is None and len(its.theirs.items) < len(case.asks)
    return its.theirs.place == "get" and its.theirs.role == "AISError 400"


@row(
    CANNOT,
    "more entries are missing than the server bears in one answer (8)",
    "the entries before, no error; buffered: `AISError`",
    "all entries, the missing ones with `err_msg`, in a few requests",
    "the server's budget is one for each request",
    _over_budget,
)
def _(stage: Stage) -> None:
    asks = [*NAMES, *(f"no{i}" for i in range(20)), "f0"]
    theirs, ours = stage.both(asks)
    assert len(theirs.payloads) < len(asks)
    assert theirs.error is None
    assert ours.payloads == [*WHOLE, *[None] * 20, WHOLE[0]]
    theirs, ours = stage.both(asks, streaming_get=False)
    assert theirs.kind == "AISError"
    assert ours.payloads == [*WHOLE, *[None] * 20, WHOLE[0]]


def _strict(its: Mismatch) -> bool:
    case = its.case
    if not case.strict or not case.bad or case.outside:
        return False
    if its.what != "end" or its.ours.role.split()[0] != "ErrObjNotFound":
        return False
    if case.streaming:
        return its.theirs.error is None and len(its.theirs.items) >= case.bad[0]
    whole = its.theirs.error is None and len(its.theirs.items) == len(case.asks)
    return whole or (its.theirs.role == "AISError 400" and len(case.bad) > 8)


@row(
    CANNOT,
    "`cont_on_err=False`, streaming, an entry is missing on the target that answers",
    "the entries before, no error",
    "the entries before, then `ErrObjNotFound`",
    "the server ends the answer there and says no more; a short one is not whole",
    _strict,
)
def _(stage: Stage) -> None:
    theirs, ours = stage.both(["f0", "gone", "f1"], cont_on_err=False)
    assert (theirs.payloads, theirs.error) == (WHOLE[:1], None)
    assert (ours.payloads, ours.kind) == (WHOLE[:1], "ErrObjNotFound")


@row(
    CANNOT,
    "`cont_on_err=False`, an entry is missing on another target",
    "all entries, the missing one empty, no error",
    "the entries before (buffered: none, at the call), then `ErrObjNotFound`",
    "what was asked for does not depend on where an object would live",
    _strict,
)
def _(stage: Stage) -> None:
    for streaming in (True, False):
        theirs, ours = stage.both(["f0", "far-gone", "f1"], cont_on_err=False, streaming_get=streaming)
        assert (theirs.payloads, theirs.error) == ([WHOLE[0], None, WHOLE[1]], None)
        assert (ours.payloads, ours.kind) == (WHOLE[:1] if streaming else [], "ErrObjNotFound")
        assert ours.at_call is not streaming


def _outside(its: Mismatch) -> bool:
    """The official client gives fewer entries or none, or the whole object."""
    case = its.case
    if its.what == "end":
        return case.outside
    return its.at >= next(i for i, ask in enumerate(case.asks) if ask.outside) if case.outside else False


@row(
    CANNOT,
    "a range outside its object",
    "the entries before, no error; buffered: `AISError`; from another target: the whole object in place of the range",
    "the entry with `err_msg`; `cont_on_err=False`: `ErrRangeNotSatisfiable` that names it",
    "it is that entry's fault, and no reason to lose the others; the length of a range is checked",
    _outside,
)
def _(stage: Stage) -> None:
    asks = ["f0", ("f1", {"start": 9000, "length": 1}), "f2"]
    theirs, ours = stage.both(asks)
    assert (theirs.payloads, theirs.error) == (WHOLE[:1], None)
    assert ours.payloads == [WHOLE[0], None, WHOLE[2]]
    theirs, ours = stage.both(asks, cont_on_err=False)
    assert (theirs.payloads, theirs.error) == (WHOLE[:1], None)
    assert (ours.payloads, ours.kind) == (WHOLE[:1], "ErrRangeNotSatisfiable")
    theirs, ours = stage.both(asks, streaming_get=False)
    assert theirs.kind == "AISError"
    assert ours.payloads == [WHOLE[0], None, WHOLE[2]]
    theirs, ours = stage.both(["f0", (FAR, {"start": 9000, "length": 1})])
    assert (theirs.payloads, theirs.error) == ([WHOLE[0], b"far away"], None)
    assert ours.payloads == [WHOLE[0], None]


@row(
    CANNOT,
    "a range from the start to the end (`length=-1`) of an empty object",
    "the entries before, no error; buffered: `AISError`",
    "the entry, empty",
    "it is the whole object",
    _outside,
)
def _(stage: Stage) -> None:
    stage.cluster.put(BUCKET, "none", b"")
    stage.cluster.place(BUCKET, "none", 0)
    asks = ["f0", ("none", {"length": -1}), "f2"]
    theirs, ours = stage.both(asks)
    assert (theirs.payloads, theirs.error) == (WHOLE[:1], None)
    assert ours.payloads == [WHOLE[0], b"", WHOLE[2]]
    theirs, ours = stage.both(asks, streaming_get=False)
    assert theirs.kind == "AISError"
    assert ours.payloads == [WHOLE[0], b"", WHOLE[2]]


@row(
    CANNOT,
    "the whole object comes in place of a range (a peer was slow)",
    "the whole object",
    "the range",
    "the length of a range is checked; the server recovers an entry without its range",
)
def _(stage: Stage) -> None:
    asks = ["f0", (FAR, {"start": 4, "length": 2})]
    theirs, ours = stage.both(asks, fault={"action": "recover", "entry": 1})
    assert theirs.payloads == [WHOLE[0], b"far away"]
    assert ours.payloads == [WHOLE[0], b"aw"]


@row(
    CANNOT,
    "an archive that the server cannot read",
    "the entries before, no error; buffered: `AISError`",
    "the entry with `err_msg`; `cont_on_err=False`: `AISError` that names it",
    "it is that entry's fault, and no reason to lose the others",
)
def _(stage: Stage) -> None:
    stage.cluster.put(BUCKET, "noise.tar", b"noise" * 999)
    stage.cluster.place(BUCKET, "noise.tar", 0)
    asks = ["f0", ("noise.tar", {"archpath": "m"}), "f1"]
    theirs, ours = stage.both(asks)
    assert (theirs.payloads, theirs.error) == (WHOLE[:1], None)
    assert ours.payloads == [WHOLE[0], None, WHOLE[1]]
    theirs, ours = stage.both(asks, streaming_get=False)
    assert theirs.kind == "AISError"
    assert ours.payloads == [WHOLE[0], None, WHOLE[1]]


@row(
    CANNOT,
    "objects of a bucket in a namespace",
    "the namespace is dropped: not found, or objects of another bucket",
    "the objects asked for",
    "the request is told the namespace; an `Object` of another namespace than the batch's is a `ValueError`",
)
def _(stage: Stage) -> None:
    stage.cluster.bucket(BUCKET, namespace="@#ns").put("only-here", b"in")
    for client, space, expected in (
        (stage.theirs, stage.sdk.namespace.Namespace(name="ns"), [None]),
        (stage.ours, aisfast.sdk.Namespace(name="ns"), [b"in"]),
    ):
        got = stage.get(client, ["only-here"], bucket=client.bucket(BUCKET, namespace=space))
        assert (got.payloads, got.error) == (expected, None)


# -------------------------------------------------------------------------------------------- what comes with a payload

FIELDS = GROUPS[2]


def _names_of_server(its: Mismatch) -> bool:
    if its.case.streaming or its.what not in ("obj_name", "archpath"):
        return False
    ask = its.case.asks[its.at]
    asked = ask.more.get("archpath")
    if its.what == "archpath":
        return bool(asked) and its.ours == asked and not its.theirs
    return bool(asked) and its.ours == ask.name and its.theirs == f"{ask.name}/{asked}"


@row(
    FIELDS,
    "buffered, a member of an archive on another target",
    "`obj_name` is `archive/member`, `archpath` None, as the server tells them",
    "`obj_name` and `archpath` as asked for",
    "a record tells what was asked for, wherever it lives",
    _names_of_server,
)
def _(stage: Stage) -> None:
    stage.cluster.put(BUCKET, "far.tar", _shard({"m": b"member"}))
    stage.cluster.place(BUCKET, "far.tar", 1)
    theirs, ours = stage.both([("far.tar", {"archpath": "m"})], streaming_get=False)
    assert [(info.obj_name, info.archpath) for info in theirs.infos] == [("far.tar/m", None)]
    assert [(info.obj_name, info.archpath) for info in ours.infos] == [("far.tar", "m")]


@row(
    FIELDS,
    "an attribute that a model has not is set, or one of `MossIn` is changed",
    "`ValidationError` or `ValueError` of pydantic",
    "`AttributeError`",
    "the models need no pydantic. Under `accelerate()` they are the official ones",
)
def _(stage: Stage) -> None:
    official = pytest.importorskip("aistore.sdk.batch.types")
    for types, kind in ((official, ValueError), (importlib.import_module("aisfast.sdk.batch.types"), AttributeError)):
        with pytest.raises(kind):
            types.MossOut(obj_name="o", bucket="b", provider="ais").no_such_field = 1
        with pytest.raises(kind):
            types.MossIn(obj_name="o").obj_name = "p"


# --------------------------------------------------------------------------------------------------------------- errors

ERRORS = GROUPS[3]


@row(
    ERRORS,
    "an error's text, and its `req`",
    "`STATUS:…, MESSAGE:…, REQ_URL:…`; a `PreparedRequest`",
    "the same and `REMEDY:…`, of an entry's error with its place and name; method, URL and headers without secrets",
    "who reads a log needs to know which entry it was, and what to do",
)
def _(stage: Stage) -> None:
    errors: list[Any] = [
        stage.get(client, ["f0"], bucket=client.bucket("nowhere")).error for client in (stage.theirs, stage.ours)
    ]
    for error in errors:
        assert type(error).__name__ == "ErrBckNotFound"
        assert error.status_code == 404
        assert str(error).startswith('STATUS:404, MESSAGE:{"tcode":"ErrBckNotFound"')
        assert f", REQ_URL:{stage.cluster.endpoint}/v1/ml/moss/nowhere?provider=ais" in str(error)
        assert error.req.method == "GET"
    assert ["REMEDY:" in str(error) for error in errors] == [False, True]
    ours: Any = stage.get(stage.ours, ["f0", "gone"], cont_on_err=False).error
    assert ours.message.startswith("entry 1 (b/gone)")


@row(
    ERRORS,
    "a token in an error's text (the server repeats one that has expired)",
    "shown",
    "taken out",
    "logs are read by others",
)
def _(stage: Stage) -> None:
    token = "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl"
    fault = {"action": "error", "kind": "token"}
    theirs = stage.get(stage.official(stage.cluster.endpoint, token=token), ["f0"], fault=fault)
    assert token in str(theirs.error)
    with aisfast.sdk.Client(stage.cluster.endpoint, token=token) as client:
        ours = stage.get(client, ["f0"], fault=fault)
    assert ours.kind == theirs.kind == "AISError"
    assert token not in str(ours.error)


@row(
    ERRORS,
    "a refusal that passes: the job is being replaced (409), was aborted (400), a target cannot be reached (400)",
    "`ErrGETConflict`, `AISError`",
    "asked again, until `patience` is spent",
    "a server's 400 is not always the request's fault, and 409 passes in a second",
)
def _(stage: Stage) -> None:
    for kind, role in (("renewal", "ErrGETConflict"), ("user-abort", "AISError"), ("refused", "AISError")):
        theirs, ours = stage.both(fault={"action": "error", "kind": kind})
        assert theirs.kind == role
        assert ours.whole


@row(
    ERRORS,
    "a target that fails (5xx) after the redirect",
    "asked again at the same URL, which serves once: an error",
    "asked again at the gateway: all entries",
    "a redirect is for one use",
)
def _(stage: Stage) -> None:
    theirs, ours = stage.both(fault={"action": "reply", "status": 500, "body": b"", "leg": "target"})
    assert theirs.error is not None
    assert theirs.requests == 1
    assert ours.whole
    assert ours.requests == 2


@row(
    ERRORS,
    "`Object.head()` of an object that is not there",
    "`AISError` without a text",
    "`ErrObjNotFound` with the server's text",
    "an answer to HEAD has its error in a header",
)
def _(stage: Stage) -> None:
    for client, kind, text in ((stage.theirs, "AISError", ""), (stage.ours, "ErrObjNotFound", "does not exist")):
        error: Any = None
        try:
            client.bucket(BUCKET).object("gone").head()
        except Exception as caught:
            error = caught
        assert type(error).__name__ == kind
        assert error.status_code == 404
        assert bool(error.message) is bool(text)
        assert text in error.message


@row(
    ERRORS,
    "`create(exist_ok=True)` of a bucket in a namespace that exists",
    "`AISError`",
    "nothing",
    "a `#` in the server's text is no part of an object's name",
)
def _(stage: Stage) -> None:
    stage.cluster.bucket("there", namespace="@#ns")
    for client, space in (
        (stage.theirs, stage.sdk.namespace.Namespace(name="ns")),
        (stage.ours, aisfast.sdk.Namespace(name="ns")),
    ):
        raised = None
        with suppress(Exception):
            try:
                client.bucket("there", namespace=space).create(exist_ok=True)
            except Exception as error:
                raised = type(error).__name__
        assert raised == ("AISError" if client is stage.theirs else None)


# ----------------------------------------------------------------------------------------------- arguments and settings

ARGUMENTS = GROUPS[4]


@row(
    ARGUMENTS,
    "`output_format='.tar.lz4'`",
    "`ValueError`",
    "works, with the extra `lz4`",
    "the server has it, and it is the cheapest compression",
)
def _(stage: Stage) -> None:
    pytest.importorskip("lz4.frame")
    theirs, ours = stage.both(output_format=".tar.lz4")
    assert theirs.kind == "ValueError"
    assert ours.whole


@row(
    ARGUMENTS,
    "a name that no object can have: empty, `a/`, `a/../b`, lone surrogates",
    "the server refuses the whole batch: `AISError`, or `UnicodeEncodeError`, at `get()`",
    "`ValueError` that names the entry, at `add()`; under `accelerate()` as the official one",
    "the server's text does not tell which entry it was",
)
def _(stage: Stage) -> None:
    for name in ("a/", "a/../b"):
        theirs, ours = stage.both(["f0", name])
        assert (theirs.kind, theirs.at_call) == ("AISError", True)
        assert ours.kind == "ValueError"
        assert repr(name) in str(ours.error)


@row(
    ARGUMENTS,
    "`Client()` without an endpoint, tokens in files",
    "`TypeError`; `AIS_AUTHN_TOKEN_FILE` is not read",
    "`AIS_ENDPOINT`, else `http://localhost:8080`; the token file is read, again on a 401",
    "what AIStore's own tools do",
)
def _(stage: Stage) -> None:
    import os

    with pytest.raises(TypeError):
        stage.sdk.Client()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AIS_")]:
            patch.delenv(name)
        patch.setenv("AIS_ENDPOINT", "http://some:1")
        assert aisfast.sdk.Client().settings.endpoint == "http://some:1"


@row(
    ARGUMENTS,
    "lists of objects from a gateway that answers in JSON",
    "an error of msgspec",
    "read",
    "the server has both forms",
)
def _(stage: Stage) -> None:
    page = {"uuid": "u", "continuation_token": "", "entries": [{"name": "n", "size": "12", "flags": 64}], "flags": 0}
    with stage.scripted(answer(200, json.dumps(page).encode(), Content_Type="application/json")) as (theirs, ours):
        with pytest.raises(Exception, match=r"."):
            theirs.bucket(BUCKET).list_objects()
        assert [entry.name for entry in ours.bucket(BUCKET).list_objects().entries] == ["n"]


@row(
    ARGUMENTS,
    "a redirect to a host that is not of the cluster",
    "followed",
    "`AISConnectionError`; `Policy(redirect_hosts=...)` allows it",
    "names and ranges of a training set are told to the cluster alone",
)
def _(stage: Stage) -> None:
    with Cluster(tail_delay=0) as other:
        headers = [("Location", f"{other.endpoint}/v1/ml/moss")]
        fault = {"action": "reply", "status": 307, "headers": headers, "leg": "proxy"}
        theirs, ours = stage.both(["f0"], fault=fault)
    assert f"REQ_URL:{other.endpoint}" in str(theirs.error)
    assert ours.kind == "AISConnectionError"


@row(
    ARGUMENTS,
    "`policy=`, `Batch.stream()`, `Batch.fetch()`, `IncompleteBatchError.rest()`",
    "not there",
    "ours",
    "the fast ways, and what an incomplete batch lacks",
)
def _(stage: Stage) -> None:
    names = ("stream", "fetch")
    assert not any(hasattr(stage.theirs.batch(), name) for name in names)
    assert all(hasattr(stage.ours.batch(), name) for name in names)


# ---------------------------------------------------------------------------------------------- only under accelerate()

UNDER = GROUPS[5]


@row(
    UNDER,
    "`get()` of a streaming batch",
    "returns at the status line: what fails, fails while iterating",
    "returns when the first entry is decoded: what fails before it, fails at the call",
    "a program that repairs a batch finds the error where it looks for one",
)
def _(stage: Stage) -> None:
    fault = {"action": "empty"}
    theirs = stage.get(stage.theirs, fault=fault)
    assert (theirs.kind, theirs.at_call) == ("RuntimeError", False)
    with aisfast.accelerate(policy=aisfast.Policy(resume=False)):
        ours = stage.get(stage.theirs, fault=fault)
    assert (ours.kind, ours.at_call) == ("IncompleteBatchError", True)


@row(
    UNDER,
    "`type(info)`",
    "`MossOut`",
    "a class of ours. `isinstance`, attributes, `model_dump`, `==`, copies and pickles are `MossOut`'s",
    "a pydantic object costs more than all the rest of an entry",
)
def _(stage: Stage) -> None:
    record = pytest.importorskip("aistore.sdk.batch.types").MossOut
    theirs = stage.get(stage.theirs)
    with aisfast.accelerate():
        ours = stage.get(stage.theirs)
    assert {type(info) for info in theirs.infos} == {record}
    assert record not in {type(info) for info in ours.infos}
    assert all(isinstance(info, record) for info in ours.infos)
    assert ours.infos == theirs.infos


@row(
    UNDER,
    "what catches an error",
    "`RuntimeError`, errors of urllib3, requests, pydantic",
    "the official `AISError`, and urllib3's `TimeoutError`: every error of ours is one of both",
    "what repairs a batch today catches them; `except RuntimeError` does not",
)
def _(stage: Stage) -> None:
    import urllib3
    from aistore.sdk import errors

    fault = {"action": "cut", "clean": True, "entry": 3, "part": "data"}
    assert type(stage.get(stage.theirs, fault=fault).error) is RuntimeError
    with aisfast.accelerate(policy=aisfast.Policy(resume=False)):
        error = stage.get(stage.theirs, fault=fault).error
    assert isinstance(error, errors.AISError)
    assert isinstance(error, urllib3.exceptions.TimeoutError)
    assert not isinstance(error, RuntimeError)


# ------------------------------------------------------------------------------------------------------- older versions

OLDER = GROUPS[6]

row(
    OLDER,
    "1.17 to 1.26, streaming",
    "`err_msg` and `opaque` are None: what is missing comes as an empty object",
    "both are told",
    "an empty object and a missing one are not the same",
    lambda its: (
        (1, 17) <= its.version < (2, 0)
        and its.case.streaming
        and its.theirs is None
        and (its.what == "opaque" or (its.what == "err_msg" and its.at in its.case.bad))
    ),
)(None)

row(
    OLDER,
    "1.16, streaming",
    "`err_msg` is None; `is_missing` is True for some missing entries",
    "`err_msg` is told",
    "the server names a missing member of an archive in another way",
    lambda its: (
        its.version < (1, 17)
        and its.case.streaming
        and its.what == "err_msg"
        and its.theirs is None
        and its.at in its.case.bad
    ),
)(None)

row(
    OLDER,
    "1.17 to 1.26, an `opaque` whose base64 has a `+` or `/`",
    "sent with `-` and `_`: the server refuses the whole batch",
    "sent as the server reads it",
    "the server reads standard base64 only",
    lambda its: (
        (1, 17) <= its.version < (2, 0)
        and its.what == "end"
        and its.theirs.role == "AISError 400"
        and any(set(b"+/") & set(base64.b64encode(ask.more.get("opaque", b""))) for ask in its.case.asks)
    ),
)(None)

row(
    OLDER,
    "1.16 to 1.25, buffered, `decode_as_stream=True`",
    "headers and data that come in one piece are confused: some answers are never read to their end (a loop for ever)",
    "all entries",
    "no random batch asks for it there",
)(None)

row(
    OLDER,
    "1.16 to 1.26, `.zip`, buffered, `decode_as_stream=True`",
    "`RuntimeError`",
    "all entries",
    "a ZIP is kept until its directory has come",
    lambda its: (
        its.version < (2, 0)
        and its.what == "end"
        and its.theirs.role == "RuntimeError"
        and its.case.options["output_format"] == ".zip"
        and its.case.decode_as_stream
        and not its.case.streaming
    ),
)(None)

row(
    OLDER,
    "1.16 to 1.26, `.zip`, an entry that is asked for twice, or in two ranges",
    "the payload of the last one, for each of them",
    "each entry's own",
    "members of one name are told apart by their position",
    lambda its: (
        its.version < (2, 0)
        and its.what in ("payload", "size")
        and its.case.options["output_format"] == ".zip"
        and sum(ask.name == its.case.asks[its.at].name for ask in its.case.asks) > 1
    ),
)(None)


# ------------------------------------------------------------------------------------------------------------- the page

BEGIN = "<!-- begin: made by tests/differences.py -->\n"
END = "<!-- end -->\n"


def table() -> str:
    """The part of the page that is made from the rows."""
    out = [BEGIN]
    for group in GROUPS:
        out.append(f"\n### {group}\n\n| | official SDK | aisfast | why |\n| --- | --- | --- | --- |\n")
        out += [
            f"| {its.case} | {its.theirs} | {its.ours} | {its.why} |\n" for its in DIFFERENCES if its.group == group
        ]
    return "".join([*out, "\n", END])


def with_table(text: str) -> str:
    """A page's text with the table as it is now."""
    before, rest = text.split(BEGIN)
    return before + table() + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", type=Path, required=True, metavar="PAGE", help="the page, which has the two marks")
    page = parser.parse_args().write
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
