"""The fault matrix: what can go wrong with a batch, and what has to come of it.

`FAULTS` are of the answer: one row is one fault, planned for the emulator and met by every way to get a batch. It
happens

    once        and aisfast asks again, as it does unless told otherwise;
    always      in every answer that it can happen to, until the deadline;
    alone       once, to Policy(resume=False).

Faults name their entry, so that the answer to a later request can meet them again. `SCENES` are of entries: some lack,
cannot be read, or come as what was not asked for. The table of docs/faults.md is made of both (`fault_table.py`).
"""

from __future__ import annotations

import io
import random
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import aisfast
from aisfast.emulator import Cluster
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrBckNotFound,
    ErrGETConflict,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    WireError,
)
from aisfast.sdk import BatchRequest
from aisfast.stats import Stats

WAYS = ("get", "stream", "fetch", "pipeline", "legacy")
AS_A_WHOLE = ("fetch", "pipeline")  # these hand out a batch as a whole
BUCKET = "train"
SIZES = (700, 5000, 1024, 0, 3000, 1, 70_000, 0, 512, 2000, 300, 1500)
NAMES = [f"{index:02}.bin" for index in range(len(SIZES))]
DATA = [bytes([65 + index]) * size for index, size in enumerate(SIZES)]
FIRST, FIFTH, LARGE, LAST = NAMES[0], NAMES[5], NAMES[6], NAMES[-1]
DEADLINE = 2.5  # seconds, for a batch whose fault does not go away
READ_TIMEOUT = 0.8  # of a client that is to meet a silence; else it is long, and the machine may be slow


class Ends(NamedTuple):
    """A documented exception, and how many entries come before it."""

    error: type[Exception]
    received: int = 0
    words: str = ""  # in its text


class Entry(NamedTuple):
    """What is asked for."""

    name: str
    archpath: str | None = None
    start: int | None = None
    length: int | None = None


# ------------------------------------------------------------------------------------------------ faults of the answer

Cost = tuple[int, int, int]  # requests, resumes, retries
Expected = Ends | None  # None: the batch is whole, in order, byte by byte
WHOLE = None
CLEAN, RESUMED, RETRIED = (1, 0, 0), (2, 1, 0), (2, 0, 1)


class Row(NamedTuple):
    """One fault of the answer.

    Attributes:
        name: What the docs call it.
        plan: Arguments of `cluster.faults.add`.
        cost: What it costs if it happens once and is mended.
        once, always, alone: What comes of it. A list where modes differ, as for `cost`: streaming, buffered.
        modes: Modes in which there is such a fault; True: streaming.
        known: The client has had an answer of the endpoint before.
        probed: A `get()` without cont_on_err asks first for the entry that the answer stopped at: is it missing?
    """

    name: str
    plan: dict[str, Any]
    cost: Any
    always: Any
    alone: Any
    once: Any = WHOLE
    modes: tuple[bool, ...] = (True, False)
    known: bool = False
    probed: bool = False

    @property
    def read_timeout(self) -> float:
        return READ_TIMEOUT if self.plan.get("seconds", 0) > 1 else 20.0

    def of(self, what: str, streaming: bool) -> Any:
        """One of its attributes, in one mode."""
        value = getattr(self, what)
        return value[0 if streaming else 1] if isinstance(value, list) else value


def at(action: str, entry: str, part: str | None = None, **options: Any) -> dict[str, Any]:
    return {"action": action, "entry": entry, **({"part": part} if part else {}), **options}


def mended(name: str, plan: dict[str, Any], received: int, always: Any = ..., **more: Any) -> Row:
    """A short answer, whose rest is asked for again."""
    lacking = Ends(IncompleteBatchError, received)
    return Row(name, plan, RESUMED, lacking if always is ... else always, lacking, **more)


def retried(name: str, plan: dict[str, Any], error: type[Exception] = AISError, words: str = "", **more: Any) -> Row:
    """No answer, or one that refuses: asked for again."""
    return Row(name, plan, RETRIED, Ends(error, 0, words), Ends(error, 0, words), **more)


def final(name: str, plan: dict[str, Any], error: type[Exception] = AISError, words: str = "", **more: Any) -> Row:
    """Not asked again."""
    ends = Ends(error, 0, words)
    return Row(name, plan, CLEAN, ends, ends, ends, **more)


def damaged(name: str, plan: dict[str, Any], received: int, always: Any = ..., **more: Any) -> Row:
    """Wrong bytes: asked for again, once."""
    ends = Ends(WireError, received)
    return Row(name, plan, RESUMED, ends if always is ... else always, ends, **more)


def refused(kind: str) -> dict[str, Any]:
    return {"action": "error", "kind": kind}


BUFFERED = (False,)
NO_ANSWER = Ends(AISTimeoutError)

FAULTS = {
    "The answer is too short": [
        mended("ends before an entry as if it were complete", at("short", FIFTH), 5, probed=True),
        mended("ends before the first entry as if it were complete", at("short", FIRST), 0, probed=True),
        mended("ends before the last entry as if it were complete", at("short", LAST), 11),
        mended("200 without a body", {"action": "empty"}, 0, probed=True),
        mended("the job is aborted, and all answers of its bucket end", at("abort", FIFTH), 5, probed=True),
        mended("closed inside a TAR header", at("cut", FIFTH, "header"), 5),
        mended("closed inside a payload", at("cut", LARGE, "data"), 6, WHOLE),
        mended("closed inside the first payload", at("cut", FIRST, "data"), 0, WHOLE),
        mended("closed inside the last payload", at("cut", LAST, "data"), 11, WHOLE),
        mended("closed behind a payload", at("cut", LARGE, "padding"), 7, WHOLE),
        mended("reset inside a payload", at("reset", LARGE, "data"), 6, WHOLE),
        mended(
            "archive cut inside a TAR header, complete around it",
            at("cut", FIFTH, "header", clean=True),
            5,
            probed=True,
        ),
        mended(
            "archive cut inside a payload, complete around it",
            at("cut", LARGE, "data", clean=True),
            6,
            WHOLE,
            probed=True,
        ),
        Row("closed behind the last payload", at("cut", LAST, "padding"), CLEAN, WHOLE, WHOLE),
        Row("closed before the archive's trailer", {"action": "cut", "part": "trailer"}, CLEAN, WHOLE, WHOLE),
        Row("closed before the terminal chunk", {"action": "cut", "part": "end"}, CLEAN, WHOLE, WHOLE),
        mended("metadata with a record too few", {"action": "out", "by": -1}, 11, modes=BUFFERED),
    ],
    "Slow, or silent": [
        retried("closed before the status line", {"action": "cut"}, AISConnectionError),
        retried("reset before the status line", {"action": "reset"}, AISConnectionError),
        retried("reset by the gateway", {"action": "reset", "leg": "proxy"}, AISConnectionError),
        retried("silence before the status line", {"action": "stall", "seconds": 60}, AISTimeoutError),
        retried("silence of the gateway", {"action": "stall", "seconds": 60, "leg": "proxy"}, AISTimeoutError),
        Row(
            *("silence before an entry", at("stall", FIFTH, seconds=60)),
            [RESUMED, RETRIED],  # buffered: before the status line
            *([Ends(IncompleteBatchError, 5), NO_ANSWER], [Ends(IncompleteBatchError, 5), NO_ANSWER]),
        ),
        Row("a pause, shorter than the read timeout", at("stall", FIFTH, seconds=0.1), CLEAN, WHOLE, WHOLE),
        Row("slow, but in time", at("drip", LARGE, size=8000, every=0.002), CLEAN, WHOLE, WHOLE),
    ],
    "Wrong bytes": [
        damaged("TAR header with a wrong checksum", at("corrupt", FIFTH), 5),
        damaged("a member under another name", at("rename", FIFTH, name=f"{BUCKET}/other"), 5),
        damaged("a member twice", at("duplicate", FIFTH), 6, WHOLE),  # the request that follows no longer asks for it
        damaged("two members in each other's place", at("swap", FIFTH), 5),
        damaged("a member left out", at("skip", FIFTH), 5),
        mended("the last member left out", at("skip", LAST), 11),
        damaged("garbage among the chunks", at("garbage", FIFTH), 5),
        damaged("metadata with a record too many", {"action": "out", "by": 1}, 0, modes=BUFFERED),
        retried("garbage in place of a status line", {"action": "garbage"}, WireError),
        retried(
            "garbage of a gateway that answered before", {"action": "garbage", "leg": "proxy"}, WireError, known=True
        ),
        final("garbage of a gateway that never answered", {"action": "garbage", "leg": "proxy"}, WireError),
        retried(
            "a web page with status 200",
            {"action": "reply", "status": 200, "body": b"<html>", "headers": [("Content-Type", "text/html")]},
            WireError,
        ),
    ],
    "Refused": [
        retried("the gateway cannot connect to a target", refused("refused"), AISError, "connection refused"),
        retried("the gateway waits in vain for a target", refused("timeout"), AISError, "deadline exceeded"),
        retried("the gateway cannot look up a target", refused("dns"), AISError, "no such host"),
        retried("no targets in the cluster map", refused("no-targets"), AISError, "no storage targets"),
        retried("429: too many batches", refused("busy"), AISError, "pending=256"),
        retried("429: memory is short", refused("pressure"), AISError, "resource pressure"),
        retried("503: a target is starting", refused("not-ready"), AISError, "not ready yet"),
        retried("409: the job is being replaced", refused("renewal"), ErrGETConflict, "renewal"),
        retried("409: cluster maps differ", refused("map"), ErrGETConflict, "different Smap"),
        retried("400: the count of targets has changed", refused("target-count"), AISError, "expecting 3 targets"),
        retried("404: the redirect was used before", refused("consumed"), AISError, "prep-rx not done?"),
        retried("409: the job has ended", refused("not-active"), ErrGETConflict, "not active"),
        retried("404: the job is forgotten", refused("pruned"), AISError, "not active"),
        retried("the job is aborted between the two legs", {"action": "abort"}, AISError, "user abort"),
        retried("400: a peer has aborted the job", refused("peer-abort"), AISError, "remote target aborted"),
        retried("400: the work item was abandoned", refused("abandoned"), AISError, "abandoned"),
        retried("400: a peer died", refused("neighbour"), AISError, "connection reset by peer", modes=BUFFERED),
        retried("400: an entry did not come from a peer", refused("hole"), AISError, "timed out", modes=BUFFERED),
        retried("400: the cluster map has changed", refused("membership"), AISError, "membership", modes=BUFFERED),
        retried("502 with a web page", {"action": "reply", "status": 502, "body": b"<html>Bad Gateway</html>"}),
        retried("500 without a text, of the gateway", {"action": "reply", "status": 500, "leg": "proxy"}),
        final("401: the token has expired", refused("token"), AISError, "token expired"),
        final("403: no access to the bucket", refused("forbidden"), AISError, "access denied"),
        final("404 with a web page", {"action": "reply", "status": 404, "body": b"<html>Not Found</html>"}),
        final(
            "404: no such bucket",
            {
                "action": "reply",
                "leg": "proxy",
                "status": 404,
                "body": b'{"tcode":"ErrBckNotFound","message":"bucket \\"ais://train\\" does not exist","method":"GET",'
                b'"url_path":"/v1/ml/moss/train","remote_addr":"","caller":"","node":"p[x]","status":404}',
            },
            ErrBckNotFound,
            "does not exist",
        ),
        final(
            "redirected to a host that is not of the cluster",
            {"action": "reply", "leg": "proxy", "status": 307, "headers": [("Location", "http://127.0.0.1:9/v1/x")]},
            AISConnectionError,
            "127.0.0.1:9",
        ),
    ],
}
ROWS = [row for rows in FAULTS.values() for row in rows]


def make_cluster(targets: int = 3, **options: Any) -> Cluster:
    return Cluster(targets, 0, seed=5, **{"max_wait": 0.05, **options})


def fill(cluster: Cluster) -> None:
    for name, data in zip(NAMES, DATA, strict=True):
        cluster.put(BUCKET, name, data)


# -------------------------------------------------------------------------------------------------- entries at fault


class Scene(NamedTuple):
    """A batch some of whose entries are at fault.

    Attributes:
        name: What the docs call it.
        prepare: Makes the cluster's content and plans its faults.
        entries: What is asked for.
        marked: What comes where such entries are marked: payloads, or None.
        strict: What comes of it where they are an error: after the entries before it.
        alone: What comes of it with Policy(resume=False), marked or not, where that differs; a list where modes do.
        at_call: In buffered mode `get()` raises before anything comes.
        unsaid: A streaming `get()` without cont_on_err learns why the answer ended only by asking again.
        targets, max_wait: Of the cluster. The first one answers the first request.
        get_missing: What the policy says.
    """

    name: str
    prepare: Callable[[Cluster], None]
    entries: list[Entry]
    marked: list[bytes | None]
    strict: Ends | None
    alone: Any = None
    at_call: bool = False
    unsaid: bool = False
    targets: int = 1
    max_wait: float = 0.05
    get_missing: bool = False

    def expected(self, way: str, *, streaming: bool, mark: bool, resume: bool) -> Ends | None:
        """What comes of it, in one cell of the matrix; None: `marked`."""
        alone = self.alone[0 if streaming else 1] if isinstance(self.alone, list) else self.alone
        if not resume and alone is not None:
            return alone  # type: ignore[no-any-return]
        if mark or self.strict is None:
            return None
        official = way in ("get", "legacy")
        if not resume and official and streaming and self.unsaid:
            return Ends(IncompleteBatchError, self.strict.received)
        if self.at_call and official and not streaming:
            return self.strict._replace(received=0)
        return self.strict


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


TEXT = b"".join(number.to_bytes(2, "big") for number in range(2048))  # no part of it is like another
MEMBERS = {"x": b"x" * 900, "y": TEXT[:3000], "z": b"z" * 10}
SHARD = tar_of(MEMBERS)


def content(lost: dict[str, bytes | None], owner: int = 0, *faults: dict[str, Any]) -> Callable[[Cluster], None]:
    """Objects a, b, c, d, and the ones at fault, which live on another target if `owner` is 1; None: not there."""

    def prepare(cluster: Cluster) -> None:
        for name in "abcd":
            cluster.put(BUCKET, name, name.encode() * 600)
            cluster.place(BUCKET, name, 0)
        for name, data in lost.items():
            if data is not None:
                cluster.put(BUCKET, name, data)
            cluster.place(BUCKET, name, owner)
        for fault in faults:
            cluster.faults.add(**fault)
        cluster.next_dt = 0

    return prepare


A, B, C, D = (name.encode() * 600 for name in "abcd")
ALL = [Entry("a"), Entry("b"), Entry("c"), Entry("d")]


def among(entry: Entry, place: int = 2) -> list[Entry]:
    return [*ALL[:place], entry, *ALL[place:]]


def instead(data: bytes | None, place: int = 2) -> list[bytes | None]:
    return [*[A, B, C, D][:place], data, *[A, B, C, D][place:]]


RANGED = Entry("s.bin", None, 1000, 96)
HERE = {"at_call": True, "unsaid": True}
THERE = {"at_call": True, "targets": 2}
SLOW = {"targets": 2, "max_wait": 1.2}  # so long that a client suspects recovery
NOISE = {"s.tar": b"no archive, but noise" * 99}
CUT_SHARD = {"s.tar": SHARD[: 512 + 1024 + 512 + 1000]}  # inside y
UNREAD = Ends(AISError, 2, f"{BUCKET}/s.tar/")
LACKING = Ends(IncompleteBatchError, 2, f"{BUCKET}/s.")
WHOLE_OBJECT = Ends(WireError, 2, "the whole object")


def absent(name: str, entry: Entry, lost: dict[str, bytes | None], owner: int = 0, place: int = 2) -> Scene:
    named = f"{BUCKET}/{entry.name}" + f"/{entry.archpath}" * (entry.archpath is not None)
    strict = Ends(ErrObjNotFound, place, named)
    return Scene(
        name, content(lost, owner), among(entry, place), instead(None, place), strict, **(THERE if owner else HERE)
    )


def outside(name: str, start: int, length: int, *, alone: Any = None, **more: Any) -> Scene:
    prepare = content({"s.bin": TEXT}, more.get("targets", 1) - 1)
    ends = Ends(ErrRangeNotSatisfiable, 2, f"{BUCKET}/s.bin")
    return Scene(name, prepare, among(Entry("s.bin", None, start, length)), instead(None), ends, alone, **more)


def ranged(name: str, entry: Entry, data: bytes, *faults: dict[str, Any], alone: Any = None) -> Scene:
    prepare = content({"s.bin": TEXT, "s.tar": SHARD}, 0, *faults)
    return Scene(name, prepare, among(entry), instead(data), None, alone)


THE_REST = Entry("s.bin", None, 1000, -1)
REFUSED_HERE = [LACKING, Ends(ErrRangeNotSatisfiable)]

SCENES = {
    "Entries that are not there": [
        absent("missing", Entry("gone"), {"gone": None}),
        absent("missing on a target that does not answer itself", Entry("gone"), {"gone": None}, 1),
        absent("the first one is missing", Entry("gone"), {"gone": None}, 0, 0),
        absent("the last one is missing", Entry("gone"), {"gone": None}, 0, 4),
        absent("the last one is missing, on another target", Entry("gone"), {"gone": None}, 1, 4),
        absent("a file that is not in its archive", Entry("s.tar", "no"), {"s.tar": SHARD}),
        absent("a file that is not in its archive, on another target", Entry("s.tar", "no"), {"s.tar": SHARD}, 1),
        absent("a file whose archive is missing", Entry("s.tar", "x"), {"s.tar": None}),
        absent("a file whose archive is missing, on another target", Entry("s.tar", "x"), {"s.tar": None}, 1),
        absent("no archive, on another target", Entry("s.tar", "x"), NOISE, 1),
        Scene(
            *(
                "there, and reported missing: misplaced, or cold",
                content({"s": b"s" * 50}, 0, at("miss", "s", times=None)),
            ),
            *(among(Entry("s")), instead(None), Ends(ErrObjNotFound, 2, f"{BUCKET}/s")),
            **HERE,
        ),
        Scene(
            *("the same, with `Policy(get_missing=True)`", content({"s": b"s" * 50}, 0, at("miss", "s", times=None))),
            *(among(Entry("s")), instead(b"s" * 50), None),
            get_missing=True,
        ),
    ],
    "Entries that cannot be read": [
        Scene(
            *("no archive", content(NOISE), among(Entry("s.tar", "x")), instead(None)),
            Ends(AISError, 2, "train/s.tar/x) cannot be read: archive/tar: invalid tar header"),
            [LACKING, Ends(AISError, 0, "invalid tar header")],
        ),
        Scene(
            *("an archive that ends inside the file", content(CUT_SHARD), among(Entry("s.tar", "y")), instead(None)),
            *(UNREAD, [LACKING, Ends(AISError, 0, "unexpected EOF")]),
        ),
        Scene(
            *("an archive that ends inside the file, on another target", content(CUT_SHARD, 1)),
            *(among(Entry("s.tar", "y")), instead(None), UNREAD, LACKING),
            targets=2,
        ),
    ],
    "Byte ranges": [
        outside("outside the object", 5000, 10, alone=REFUSED_HERE),
        outside("outside the object, to the end", 5000, -1, alone=REFUSED_HERE),
        outside("partly outside the object", 4000, 200, alone=REFUSED_HERE),
        outside("outside the object, on another target", 5000, 10, alone=WHOLE_OBJECT, **SLOW),
        outside("outside the object, to the end, on another target", 5000, -1, **SLOW),
        outside("as long as the object, on another target", 100, len(TEXT), **SLOW),
        ranged("the whole object comes", RANGED, TEXT[1000:1096], at("recover", "s.bin"), alone=WHOLE_OBJECT),
        ranged(
            *("the whole object comes, in every answer", RANGED, TEXT[1000:1096], at("recover", "s.bin", times=None)),
            alone=WHOLE_OBJECT,
        ),
        ranged(
            *("the whole file of an archive comes", Entry("s.tar", "y", 100, 200), MEMBERS["y"][100:300]),
            at("recover", "s.tar"),
            alone=WHOLE_OBJECT,
        ),
        ranged("to the end: the whole object comes", THE_REST, TEXT[1000:], at("recover", "s.bin", seconds=1.2)),
        ranged("to the end: right, after a silence", THE_REST, TEXT[1000:], at("stall", "s.bin", seconds=1.2)),
    ],
}

# ------------------------------------------------------------------------------------------------------ ways to get it


class Outcome:
    """What came of one call: payloads by entry (None: marked as missing, `reasons` says why) and how it ended."""

    def __init__(self) -> None:
        self.got: list[bytes | None] = []
        self.reasons: dict[int, str] = {}
        self.error: Any = None
        self.stats = Stats()
        self.seconds = 0.0
        self.hits = 0  # of the fault
        self.rest: Any = None  # of `error.rest()`, asked for once the fault is over

    def add(self, data: bytes | None, reason: str | None) -> None:
        if reason is not None:
            self.reasons[len(self.got)] = reason
        self.got.append(data)


def new_client(cluster: Cluster, policy: aisfast.Policy, read_timeout: float = 20.0) -> aisfast.Client:
    client = aisfast.Client(cluster.endpoint, timeout=(3, read_timeout), policy=policy)
    client.transport.rng = random.Random(1)
    return client


def take(
    client: aisfast.Client,
    way: str,
    entries: Sequence[Entry],
    *,
    streaming: bool,
    mark: bool,
    each: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Get a batch.

    Args:
        mark: What is missing is marked; else it is an error. (cont_on_err, or missing=)
        each: Called for every entry that came, while the rest is due.
    """
    outcome = Outcome()
    before = replace(client.stats)
    began = time.monotonic()
    try:
        for index, (data, reason) in enumerate(_taken(client, way, entries, streaming, mark, outcome)):
            outcome.add(data, reason)
            each(index)
    except AISError as error:
        outcome.error = error
    outcome.seconds = time.monotonic() - began
    after = client.stats
    for name in ("requests", "resumes", "retries", "singles", "misses", "members", "throttled"):
        setattr(outcome.stats, name, getattr(after, name) - getattr(before, name))
    return outcome


def _taken(
    client: aisfast.Client, way: str, entries: Sequence[Entry], streaming: bool, mark: bool, outcome: Outcome
) -> Any:
    bucket = client.bucket(BUCKET)
    if way == "legacy":
        request = BatchRequest(continue_on_err=mark, streaming=streaming)
        for name, archpath, start, length in entries:
            request.add_object_request(bucket.object(name), None, archpath, start, length)
        for at, (info, data) in enumerate(client.batch_loader().get_batch(request)):
            assert (info.obj_name, info.size) == (entries[at].name, 0 if streaming else len(data))
            yield (data if info.err_msg is None else None), info.err_msg
        return
    batch = client.batch(bucket=bucket, cont_on_err=mark, streaming_get=streaming)
    for name, archpath, start, length in entries:
        batch.add(name, archpath=archpath, start=start, length=length)
    if way == "get":
        for at, (info, data) in enumerate(batch.get()):
            assert (info.obj_name, info.size) == (entries[at].name, len(data))
            yield (data if info.err_msg is None else None), info.err_msg
        return
    missing = "mark" if mark else "raise"
    if way == "stream":
        with batch.stream(missing=missing) as items:
            for at, item in enumerate(items):
                assert (item.index, item.name) == (at, entries[at].name)
                yield (bytes(item) if item.ok else None), item.err_msg
        return
    try:
        if way == "pipeline":
            (columns,) = client.pipeline([batch], missing=missing)
        else:
            columns = batch.fetch(missing=missing)
    except IncompleteBatchError as error:
        for item in error.partial:
            outcome.add(bytes(item) if item.ok else None, item.err_msg)
        raise
    for item in columns:
        yield (bytes(item) if item.ok else None), item.err_msg
