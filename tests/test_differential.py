"""Random batches, the official SDK's way and ours, compared item by item and field by field. Skipped without `aistore`.

Each batch is drawn from a number and sent three times: by the installed official SDK, by `aisfast.sdk`, and by the
official SDK under `accelerate()`. Ours is held against what was stored as well. Where the official one differs, a row
of `differences.py` must say so: nothing else may differ. A failure tells its number:

    AISFAST_DIFFERENTIAL_SEED=1234 AISFAST_DIFFERENTIAL_COUNT=1 python -m pytest tests/test_differential.py

and a larger count runs more. With AIS_ENDPOINT the same batches go to that cluster, but for what costs it 20 s each.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import io
import logging
import os
import random
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import aisfast
import aisfast.sdk
from aisfast.emulator import Cluster
from differences import DIFFERENCES, GROUPS, Difference, Mismatch, Stage, with_table

with warnings.catch_warnings():  # of its own dependencies, at import
    warnings.simplefilter("ignore")
    official = pytest.importorskip("aistore.sdk", reason="the official SDK is not installed: nothing to compare with")
    from aistore.sdk import errors as official_errors

try:
    import lz4.frame as lz4
except ImportError:  # then there is nothing to compare in that format
    lz4 = None

VERSION = tuple(int(part) for part in importlib.metadata.version("aistore").split(".")[:2])
LEGACY = VERSION < (1, 17)
FIRST = int(os.environ.get("AISFAST_DIFFERENTIAL_SEED", "0"))
STEP = 100  # batches in one test
BUDGET = 8  # misses that the server bears in one answer
FORMATS = [".tar", ".tgz", ".tar.gz", ".zip"]
BUCKETS = ["aisfast-test-differential-a", "aisfast-test-differential-b"]
NOWHERE = "aisfast-test-differential-none"
FIELDS = ("obj_name", "archpath", "bucket", "provider", "opaque", "err_msg", "size")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

# ------------------------------------------------------------------------------------------------------- what is stored

NAMES = [
    "a.txt",
    "empty",
    "dir/b.bin",
    "dir/x y&z=?#%25+.bin",
    "é/ü-ж.txt",
    "日本/" + 40 * "語",
    "long/" + 110 * "n",  # a TAR header has room for it in two parts
    130 * "q",  # and for this it has not
    "l/" + 90 * "m" + "/" + 150 * "k",
    "__404__/odd",
    "big.bin",
]
MEMBERS = ["m/0.txt", "m/é.txt", "m/empty", "m/" + 120 * "p", "big"]
SHARDS = ["s.tar", "dir/s.tgz", "s.zip"]


def size_of(name: str) -> int:
    return 0 if "empty" in name else 70_000 if "big" in name else 100 + 37 * len(name)


@cache
def content(bucket: str, name: str, member: str = "") -> bytes:
    """What an object or a member of it holds."""
    return random.Random(bucket + name + member).randbytes(size_of(member or name))


def shard(bucket: str, name: str) -> bytes:
    """An archive of MEMBERS."""
    made = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(made, "w") as archive:
            for member in MEMBERS:
                archive.writestr(member, content(bucket, name, member))
        return made.getvalue()
    with tarfile.open(fileobj=made, mode="w:gz" if name.endswith("gz") else "w") as tar:
        for member in MEMBERS:
            info = tarfile.TarInfo(member)
            info.size = size_of(member)
            tar.addfile(info, io.BytesIO(content(bucket, name, member)))
    return made.getvalue()


def fill(endpoint: str) -> None:
    with aisfast.Client(endpoint) as client:
        for name in BUCKETS:
            bucket = client.bucket(name)
            bucket.delete(missing_ok=True)
            bucket.create()
            for obj in NAMES:
                bucket.object(obj).get_writer().put_content(content(name, obj))
            for obj in SHARDS:
                bucket.object(obj).get_writer().put_content(shard(name, obj))


# -------------------------------------------------------------------------------------------------------- what is asked


class Ask(NamedTuple):
    """An entry, and what it must give.

    Attributes:
        how: "string", "object", or "bck": a string with a bucket of its own.
        payload: What comes; None: it is missing, or its range is outside.
        outside: Its range is.
    """

    name: str
    bucket: str
    how: str
    more: dict[str, Any]
    payload: bytes | None
    outside: bool = False


@dataclass
class Case:
    """A batch."""

    seed: int
    asks: list[Ask]
    options: dict[str, Any]
    bucket: str | None
    begin: int  # so many entries are given to the batch when it is made
    decode_as_stream: bool
    clear: bool
    target: int  # that answers

    @property
    def streaming(self) -> bool:
        return bool(self.options["streaming_get"])

    @property
    def strict(self) -> bool:
        return not self.options["cont_on_err"]

    @property
    def bad(self) -> list[int]:
        """Entries that give nothing."""
        return [i for i, ask in enumerate(self.asks) if ask.payload is None]

    @property
    def outside(self) -> bool:
        return any(ask.outside for ask in self.asks)

    def __str__(self) -> str:
        rows = [
            f"  {i}: {ask.how} {ask.bucket[-1]}/{ask.name[:24]} {str(ask.more)[:90]}{' none' * (ask.payload is None)}"
            for i, ask in enumerate(self.asks)
        ]
        told = {**self.options, "decode_as_stream": self.decode_as_stream, "bucket": self.bucket}
        return "\n".join([f"seed {self.seed}, target {self.target}: {told}", *rows])


def draw_case(seed: int, *, outside: bool, takes: Takes) -> Case:
    """The batch of a number. Same number, same version of the official SDK: same batch."""
    draw = random.Random(seed)
    own = draw.choice([BUCKETS[0], BUCKETS[0], BUCKETS[0], None])
    misses = draw.choice([0, 0, 0, 2, 8, 30])  # at most
    strict = draw.random() < 0.25
    outside = outside and draw.random() < 0.03
    asks: list[Ask] = []
    for _ in range(draw.choice([1, 2, 5] if outside else [1, 2, 5, 12, 30])):  # each may cost `max_wait`
        ask = _draw_ask(draw, own, outside, misses > sum(ask.payload is None for ask in asks), takes)
        asks += [ask] * draw.choice([1, 1, 1, 1, 2])
    limit = misses
    kept = []
    for ask in asks:
        limit -= ask.payload is None
        if ask.payload is not None or limit >= 0:
            kept.append(ask)
    asks = kept or [Ask("a.txt", BUCKETS[0], "object", {}, content(BUCKETS[0], "a.txt"))]
    begin = 0
    if own and draw.random() < 0.5:
        begin = next((i for i, ask in enumerate(asks) if ask.more or ask.how == "bck"), len(asks))
    case = Case(
        seed,
        asks,
        {
            "output_format": draw.choice(FORMATS),
            "cont_on_err": not strict,
            "only_obj_name": draw.random() < 0.4,
            "streaming_get": draw.random() < 0.5,
        },
        own,
        begin,
        draw.random() < 0.5,
        draw.random() < 0.8,
        draw.randrange(3),
    )
    if not takes.parts and not case.streaming:
        case.decode_as_stream = False
    if takes.colocation and draw.random() < 0.2:
        case.options["colocation"] = 1
    if draw.random() < 0.02:
        case.bucket = NOWHERE
        case.asks = [ask._replace(bucket=NOWHERE, how="object", payload=None, outside=False) for ask in case.asks]
        case.begin = 0
    return case


def _draw_ask(draw: random.Random, own: str | None, outside: bool, miss: bool, takes: Takes) -> Ask:
    bucket = draw.choice([own or BUCKETS[0], own or BUCKETS[0], BUCKETS[1]])
    ways = ["object"]
    if takes.names and bucket == own:
        ways.append("string")
    if takes.bck:
        ways.append("bck")
    how = draw.choice(ways)
    more: dict[str, Any] = {}
    if draw.random() < 0.35:
        name, member = draw.choice(SHARDS), draw.choice(MEMBERS)
        more["archpath"] = draw.choice(["", "", "", "/"]) + member
        payload: bytes | None = content(bucket, name, member)
    else:
        name = draw.choice(NAMES)
        payload = content(bucket, name)
    if miss and draw.random() < 0.4:
        payload = None
        if "archpath" in more and draw.random() < 0.5:
            more["archpath"] = draw.choice(["", "/"]) + "no/é.txt"
        else:
            name = draw.choice(["no/é", "none", 130 * "z"]) + (".tar" if more else "")
    if draw.random() < 0.3:
        more["opaque"] = draw.choice([b"id 7", b"\xfb\xff", b"\x00", b"", draw.randbytes(20), draw.randbytes(300)])
        if not takes.opaque and draw.random() < 0.95:  # else most batches are refused
            more["opaque"] = b"plain"
    is_outside = False
    if payload and takes.ranges and draw.random() < 0.3:
        start = draw.randrange(len(payload))
        length = draw.choice([-1, 0 if start == 0 else 1, draw.randint(1, len(payload) - start)])
        if outside and draw.random() < 0.3:
            start, length = draw.choice([(len(payload), 1), (len(payload), -1), (start, len(payload) - start + 1)])
            is_outside = True
        more |= {"start": start, "length": length}
        payload = None if is_outside else payload[start : start + length if length > 0 else None]
    return Ask(name, bucket, how, more, payload, is_outside)


class Takes(NamedTuple):
    """What the installed official SDK takes."""

    names: bool
    bck: bool
    ranges: bool
    colocation: bool
    opaque: bool  # of any bytes
    parts: bool  # buffered, with decode_as_stream; before, some answers keep it in a loop for ever


def takes() -> Takes:
    if LEGACY:
        return Takes(False, False, True, False, True, False)
    from aistore.sdk.batch.batch import Batch

    add = inspect.signature(Batch.add).parameters
    return Takes(
        VERSION >= (1, 18),
        "bck" in add,
        hasattr(Batch, "_validate_byte_range"),
        "colocation" in inspect.signature(Batch.__init__).parameters,
        VERSION >= (2, 0),
        VERSION >= (1, 26),
    )


# ---------------------------------------------------------------------------------------------------------- what is got


@dataclass
class Outcome:
    """What came of a batch: fields and payloads, and how it ended.

    Attributes:
        place: Where it ended: "batch", "add", "get", "iteration", "end".
        left: Entries left in the batch.
    """

    items: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    place: str = "batch"
    error: Exception | None = None
    left: int = 0

    @property
    def role(self) -> str:
        """What the official SDK calls the error, with its status; "" is none."""
        if self.error is None:
            return ""
        if isinstance(self.error, (official_errors.AISError, aisfast.AISError)):
            kinds = [kind.__name__ for kind in type(self.error).__mro__]
            return f"{next(name for name in kinds if hasattr(official_errors, name))} {self.error.status_code}"
        return type(self.error).__name__

    @property
    def end(self) -> tuple[int, str, str, int]:
        """`left` does not count where an error came of the call: of which answer it came decides."""
        return len(self.items), self.place, self.role, 0 if self.error and self.place == "get" else self.left

    def __str__(self) -> str:
        return f"{len(self.items)} items, {self.left} left, ended at {self.place}: {self.error!r}"


def run(client: Any, case: Case, **policy: Any) -> Outcome:
    """Make the batch, send it, read it to its end."""
    got = Outcome()
    batch = None
    try:
        buckets = {name: client.bucket(name) for name in (*BUCKETS, NOWHERE)}
        if LEGACY and not isinstance(client, aisfast.Client):
            pairs = _legacy(client, buckets, case, got)
        else:
            begin = [_obj(buckets, ask) for ask in case.asks[: case.begin]]
            bucket = buckets[case.bucket] if case.bucket else None
            batch = client.batch(begin or None, bucket=bucket, **case.options)
            got.place = "add"
            for ask in case.asks[case.begin :]:
                place = {"bck": ask.bucket, "provider": "ais"} if ask.how == "bck" else {}
                batch.add(_obj(buckets, ask), **ask.more, **place)
            got.place = "get"
            clear = {} if VERSION < (1, 18) else {"clear_batch": case.clear}
            pairs = batch.get(decode_as_stream=case.decode_as_stream, **clear, **policy)
        got.place = "iteration"
        for info, data in pairs:
            told = {name: getattr(info, name) for name in FIELDS}
            if VERSION >= (2, 0) and info.model_dump() != told:
                told["model_dump"] = info.model_dump()
            got.items.append((told, data))
        got.place = "end"
    except Exception as error:
        got.error = error
    got.left = 0 if batch is None else len(batch)
    return got


def _obj(buckets: dict[str, Any], ask: Ask) -> Any:
    return buckets[ask.bucket].object(ask.name) if ask.how == "object" else ask.name


def _legacy(client: Any, buckets: dict[str, Any], case: Case, got: Outcome) -> Any:
    options = case.options
    request = official.BatchRequest(
        options["output_format"], options["cont_on_err"], options["only_obj_name"], options["streaming_get"]
    )
    for ask in case.asks:
        request.add_object_request(buckets[ask.bucket].object(ask.name), **ask.more)
    got.place = "get"
    return client.batch_loader().get_batch(request, decode_as_stream=case.decode_as_stream)


# -------------------------------------------------------------------------------------------------------- what is right


def assert_right(case: Case, got: Outcome, *, primed: bool) -> None:
    """Ours is what was stored, and what design says of the rest.

    Args:
        primed: An error at the first entry is one at the call.
    """
    bad = case.bad
    ends = len(case.asks)
    if case.bucket == NOWHERE or {ask.bucket for ask in case.asks} == {NOWHERE}:
        assert got.end[:3] == (0, "get", "ErrBckNotFound 404")
        return
    if case.strict and bad:
        role = "AISError" if case.asks[bad[0]].outside else "ErrObjNotFound"
        ends = bad[0]
        if not case.streaming and not case.outside:
            ends = 0
            assert got.place == "get"
        elif case.streaming:
            assert got.place == ("get" if primed and not ends else "iteration")
        assert got.role.split()[0] == role
        if not case.streaming and case.outside:
            ends = len(got.items)
            assert ends <= bad[0]
    else:
        assert got.end == (ends, "end", "", 0 if case.clear and VERSION >= (1, 18) else got.left)
    assert len(got.items) == ends
    for i, (info, data) in enumerate(got.items):
        ask = case.asks[i]
        archpath = ask.more.get("archpath") or ("" if case.streaming or LEGACY else None)
        assert (i, info["obj_name"], info["archpath"]) == (i, ask.name, archpath)
        assert (info["bucket"], info["provider"]) == (ask.bucket, "ais")
        assert info["opaque"] == (ask.more.get("opaque") or None)
        assert type(data) is bytes
        assert data == (ask.payload or b"")
        assert info["size"] == (0 if LEGACY and primed and case.streaming else len(data))
        assert bool(info["err_msg"]) is (ask.payload is None)
        assert "model_dump" not in info


# ----------------------------------------------------------------------------------------------------- what is the same


def _values(case: Case, got: Outcome, i: int) -> dict[str, Any]:
    info, data = got.items[i]
    values = {**info, "payload": data}
    if values["err_msg"]:  # which target tells it is another matter each time
        values["err_msg"] = re.sub(r"\bt\[\w+\]", "t[..]", values["err_msg"])
    return values


def mismatches(case: Case, theirs: Outcome, ours: Outcome) -> Iterator[Mismatch]:
    """All that is not the same."""
    for i in range(min(len(theirs.items), len(ours.items))):
        official_ones, own = _values(case, theirs, i), _values(case, ours, i)
        for name in own | official_ones:
            if official_ones.get(name) != own.get(name):
                yield Mismatch(case, name, i, official_ones.get(name), own.get(name), VERSION)
    if theirs.end != ours.end:
        yield Mismatch(case, "end", len(ours.items), theirs, ours, VERSION)


def compare(case: Case, theirs: Outcome, ours: Outcome, seen: set[str]) -> None:
    """No mismatch that no row explains.

    Args:
        seen: Takes the names of the rows that were needed.
    """
    for its in mismatches(case, theirs, ours):
        rows = [row.name for row in DIFFERENCES if row.excuses and row.excuses(its)]
        seen.update(rows)
        assert rows, f"entry {its.at}, {its.what}: official {its.theirs!s}, ours {its.ours!s}"


# ------------------------------------------------------------------------------------------------------------ the tests


class World(NamedTuple):
    """A cluster that holds what the batches ask for, and the clients. `emulated`: None for a real one."""

    emulated: Cluster | None
    official: Any
    ours: aisfast.Client


@contextmanager
def world(endpoint: str, emulated: Cluster | None) -> Iterator[World]:
    fill(endpoint)
    client = official.Client(endpoint)
    with aisfast.sdk.Client(endpoint) as ours:
        yield World(emulated, client, ours)
        for name in BUCKETS:
            ours.bucket(name).delete()
    client._request_client.session_manager.session.close()


@pytest.fixture(scope="module")
def emulated() -> Iterator[World]:
    # a real target waits for 1 s or more, and a client that sees no silence suspects no recovery
    with Cluster(targets=3, tail_delay=0, max_wait=1.2, seed=7) as cluster, world(cluster.endpoint, cluster) as made:
        yield made


@pytest.fixture(scope="module")
def live() -> Iterator[World]:
    endpoint = os.environ.get("AIS_ENDPOINT")
    if not endpoint:
        pytest.skip("AIS_ENDPOINT is not set: no real cluster")
    with world(endpoint, None) as made:
        yield made


def check(its: World, seeds: range) -> set[str]:
    """Batches, three ways each. The rows of the table that were needed."""
    cases = [draw_case(seed, outside=its.emulated is not None, takes=takes()) for seed in seeds]
    seen: set[str] = set()

    def ask(client: Any, case: Case) -> Outcome:
        if its.emulated:
            its.emulated.next_dt = case.target
        return run(client, case)

    theirs = [ask(its.official, case) for case in cases]
    with aisfast.accelerate():
        accelerated = [ask(its.official, case) for case in cases]
    for case, official_one, own in zip(cases, theirs, accelerated, strict=True):
        with told(case):
            assert_right(case, own, primed=True)
            compare(case, official_one, own, seen)
            if VERSION < (2, 0):
                continue
            own = ask(its.ours, case)
            assert_right(case, own, primed=False)
            compare(case, official_one, own, seen)
            if case.options["output_format"] == ".tar" and lz4 is not None:
                case.options["output_format"] = ".tar.lz4"
                packed = ask(its.ours, case)
                assert_right(case, packed, primed=False)
                assert packed.end == own.end
    return seen


@contextmanager
def told(case: Case) -> Iterator[None]:
    """An error tells which batch it is about, and how to send it again."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"{case}\nAISFAST_DIFFERENTIAL_SEED={case.seed} AISFAST_DIFFERENTIAL_COUNT=1 sends it again")
        raise


def steps(default: int) -> Any:
    """Decorator: so many batches, in tests of STEP."""
    stop = FIRST + int(os.environ.get("AISFAST_DIFFERENTIAL_COUNT", default))
    ranges = [range(first, min(first + STEP, stop)) for first in range(FIRST, stop, STEP)]
    return pytest.mark.parametrize("seeds", ranges, ids=lambda its: f"{its.start}-{its.stop - 1}")


@steps(400)
def test_random_batches(emulated: World, caplog: pytest.LogCaptureFixture, seeds: range) -> None:
    caplog.set_level(logging.CRITICAL)
    check(emulated, seeds)


@pytest.mark.cluster
@steps(100)
def test_random_batches_on_a_cluster(live: World, caplog: pytest.LogCaptureFixture, seeds: range) -> None:
    caplog.set_level(logging.CRITICAL)
    check(live, seeds)


# ------------------------------------------------------------------------------------------------------ what may differ


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Cluster(targets=2, tail_delay=0, max_wait=0.05, seed=7) as cluster:
        made = Stage(cluster)
        yield made
        made.close()


@pytest.mark.skipif(VERSION < (2, 0), reason="the table is about aistore 2.0")
@pytest.mark.parametrize("row", [row for row in DIFFERENCES if row.show], ids=lambda row: row.name[:60])
def test_what_differs(stage: Stage, row: Difference, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    assert row.show
    row.show(stage)


def test_the_table() -> None:
    assert len({row.name for row in DIFFERENCES}) == len(DIFFERENCES)
    assert {row.group for row in DIFFERENCES} == set(GROUPS)
    assert all(row.show or row.excuses for row in DIFFERENCES if row.group != GROUPS[-1])
    cells = [cell for row in DIFFERENCES for cell in (row.case, row.theirs, row.ours, row.why)]
    assert all(cells)
    assert not [cell for cell in cells if "|" in cell or "\n" in cell]


def test_the_page_has_the_table() -> None:
    """Else: python tests/differences.py --write docs/compatibility.md"""
    page = Path(__file__).parent.parent / "docs" / "compatibility.md"
    text = page.read_text(encoding="utf-8")
    assert with_table(text) == text


# ------------------------------------------------------------------------------------------------------ what is refused

WRONG: dict[str, Callable[[Any, Any], object]] = {
    "no entries": lambda client, bucket: client.batch(bucket=bucket).get(),
    "a tuple": lambda client, bucket: client.batch(("a", "b"), bucket=bucket),
    "a number": lambda client, bucket: client.batch(5, bucket=bucket),
    "a number among names": lambda client, bucket: client.batch(["a", 5], bucket=bucket),
    "a name without a bucket": lambda client, bucket: client.batch(["a"]),
    "a name added without a bucket": lambda client, bucket: client.batch().add("a"),
    "a format": lambda client, bucket: client.batch(bucket=bucket, output_format=".rar"),
    "no format": lambda client, bucket: client.batch(bucket=bucket, output_format=None),
    "a colocation": lambda client, bucket: client.batch(bucket=bucket, colocation=3),
    "a colocation below": lambda client, bucket: client.batch(bucket=bucket, colocation=-1),
    "a colocation to come": lambda client, bucket: client.batch(bucket=bucket, colocation=2),
    "a start": lambda client, bucket: client.batch(bucket=bucket).add("a", start=5),
    "a start below 0": lambda client, bucket: client.batch(bucket=bucket).add("a", start=-1, length=2),
    "a length": lambda client, bucket: client.batch(bucket=bucket).add("a", length=-2),
    "a bucket alone": lambda client, bucket: client.batch(bucket=bucket).add("a", bck="b"),
    "a provider alone": lambda client, bucket: client.batch(bucket=bucket).add("a", provider="ais"),
    "a bucket of an object": lambda client, bucket: client.batch().add(bucket.object("a"), bck="b", provider="ais"),
    "an archpath": lambda client, bucket: client.batch(bucket=bucket).add("a", archpath=5),
    "an object": lambda client, bucket: client.batch(bucket=bucket).add(5),
    "a buffer size": lambda client, bucket: client.batch(["a"], bucket=bucket).get(tar_buffer_size=0),
    "a buffer size that is true": lambda client, bucket: client.batch(["a"], bucket=bucket).get(tar_buffer_size=True),
    "a buffer size and raw": lambda client, bucket: client.batch(["a"], bucket=bucket).get(True, tar_buffer_size=9),
    "a buffer size and zip": lambda client, bucket: client.batch(["a"], bucket, ".zip").get(tar_buffer_size=9),
    "an argument": lambda client, bucket: client.batch(bucket=bucket).get(no_such=1),
}


@pytest.mark.skipif(VERSION < (2, 0), reason="aisfast.sdk is as aistore 2.0")
@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_refused_alike(emulated: World, what: str) -> None:
    """The same class, and a text that begins alike, before anything is sent."""

    def outcome(client: Any) -> Exception:
        with pytest.raises((ValueError, TypeError, NotImplementedError)) as caught:
            WRONG[what](client, client.bucket(BUCKETS[0]))
        return caught.value

    theirs, ours = outcome(emulated.official), outcome(emulated.ours)
    with aisfast.accelerate():
        accelerated = outcome(emulated.official)
    assert (type(accelerated), str(accelerated)) == (type(theirs), str(theirs))
    known = next(kind for kind in type(theirs).__mro__ if kind.__module__ == "builtins")  # pydantic's is a ValueError
    assert isinstance(ours, known)
    if type(theirs) is known is not TypeError:
        assert str(ours).startswith(str(theirs))
