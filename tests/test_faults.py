"""The fault matrix over real sockets: every fault, in both modes, against every way to get a batch.

Each ends whole and byte-exact, or in the documented exception with the right indices, in time. Never silently short,
never with wrong data, never in an exception that is not ours.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import aisfast
from aisfast.errors import AISError, ErrObjNotFound, IncompleteBatchError, WireError
from aisfast.testing import bypass_proxies
from fault_matrix import (
    AS_A_WHOLE,
    BUCKET,
    CLEAN,
    DATA,
    DEADLINE,
    FIFTH,
    LARGE,
    NAMES,
    READ_TIMEOUT,
    RESUMED,
    RETRIED,
    ROWS,
    SCENES,
    WAYS,
    WHOLE,
    Ends,
    Entry,
    Outcome,
    at,
    fill,
    make_cluster,
    new_client,
    take,
)

ENTRIES = [Entry(name) for name in NAMES]
SLACK = 3.0  # seconds that a busy machine may take longer
AT_ONCE = 64  # cells that run at a time: most of their time is waiting


class Cell(NamedTuple):
    """One field of a matrix, and what it takes to fill it."""

    run: Callable[..., Any]
    name: str
    kind: str
    streaming: bool
    mark: bool  # cont_on_err=True, or missing="mark"
    way: str

    def __str__(self) -> str:
        mode, missing = "streaming" if self.streaming else "buffered", "mark" if self.mark else "raise"
        return f"{self.name}-{self.kind}-{mode}-{missing}-{self.way}"


def cells(run: Callable[..., Any], name: str, kinds: tuple[str, ...], modes: tuple[bool, ...] = (True, False)) -> Any:
    return [
        pytest.param(cell := Cell(run, name, kind, streaming, mark, way), id=str(cell))
        for kind in kinds
        for streaming in modes
        for mark in (True, False)
        for way in WAYS
    ]


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[dict[Cell, Future[Any]]]:
    """All cells that were selected, some of them at a time."""
    with pytest.MonkeyPatch.context() as patch:
        bypass_proxies(patch)
        pool = ThreadPoolExecutor(AT_ONCE)
        selected = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
        todo = [callspec.params["cell"] for callspec in selected if callspec and "cell" in callspec.params]
        yield {cell: pool.submit(cell.run, cell) for cell in todo}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def outcome(running: dict[Cell, Future[Any]], cell: Cell) -> Any:
    return running[cell].result(timeout=60)


def check(outcome: Outcome, expected: Ends | None, whole: list[Any], way: str) -> None:
    """What came is the beginning of `whole`, and what did not is told by the documented exception."""
    error, got = outcome.error, outcome.got
    assert got == whole[: len(got)]
    if expected is None:
        assert error is None
        assert len(got) == len(whole)
        return
    assert type(error) is expected.error
    assert expected.words in str(error)
    assert error.remedy
    if isinstance(error, IncompleteBatchError):
        assert (error.requested, error.received) == (len(whole), len(got))
        assert error.missing == tuple(range(len(got), len(whole)))
        assert error.attempts == outcome.stats.requests
        assert isinstance(error.__cause__, AISError)
    elif way in AS_A_WHOLE:
        assert got == []
        return
    assert len(got) == expected.received


# ------------------------------------------------------------------------------------------------ faults of the answer

POLICIES = {
    "once": aisfast.Policy(deadline=30),
    "always": aisfast.Policy(deadline=DEADLINE),
    "alone": aisfast.Policy(resume=False),
    "impatient": aisfast.Policy(patience=1.2),
}
BY_NAME = {row.name: row for row in ROWS}
IMPATIENT = (  # one of each kind that goes on until patience is spent
    "ends before an entry as if it were complete",
    "closed inside a TAR header",
    "reset before the status line",
    "silence before an entry",
    "429: too many batches",
    "409: cluster maps differ",
)


def run_fault(cell: Cell) -> Outcome:
    row = BY_NAME[cell.name]
    how: dict[str, Any] = {"streaming": cell.streaming, "mark": cell.mark}
    mended = cell.kind == "always" and row.of("always", cell.streaming) is WHOLE
    policy = POLICIES["once" if mended else cell.kind]
    with make_cluster() as cluster, new_client(cluster, policy, row.read_timeout) as client:
        fill(cluster)
        if row.known:
            take(client, "fetch", ENTRIES[:1], **how)
        fault = cluster.faults.add(**row.plan, times=None if cell.kind in ("always", "impatient") else 1)
        outcome = take(client, cell.way, ENTRIES, **how)
        outcome.hits = fault.hits
        if cell.kind == "alone" and isinstance(outcome.error, IncompleteBatchError):
            outcome.rest = [bytes(item) for item in outcome.error.rest().stream()]
        return outcome


@pytest.mark.parametrize(
    "cell",
    [
        cell
        for row in ROWS
        for cell in cells(
            *(run_fault, row.name, ("once", "always", "alone", *("impatient",) * (row.name in IMPATIENT)), row.modes)
        )
    ],
)
def test_fault(cell: Cell, outcome: Outcome) -> None:
    row, stats = BY_NAME[cell.name], outcome.stats
    expected = row.of("always" if cell.kind == "impatient" else cell.kind, cell.streaming)
    check(outcome, expected, DATA, cell.way)
    if cell.kind in ("always", "impatient"):
        assert 1 <= outcome.hits <= stats.requests
        if expected is WHOLE:
            assert stats.requests <= 4
        elif issubclass(expected.error, WireError):  # the same damage again
            assert stats.requests == (1 if row.once else 2)
        elif row.once:
            assert stats.requests == 1
        else:
            least = DEADLINE if cell.kind == "always" else 1.0
            assert least <= outcome.seconds < least + SLACK
            assert 2 <= stats.requests <= 20
        return
    assert outcome.hits == 1
    if cell.kind == "alone" or expected is not WHOLE:
        assert stats.requests == 1
        incomplete = isinstance(outcome.error, IncompleteBatchError)
        assert outcome.rest == (DATA[len(outcome.got) :] if incomplete and cell.kind == "alone" else None)
    else:
        requests, resumes, retries = row.of("cost", cell.streaming)
        requests += row.probed and not cell.mark and cell.way in ("get", "legacy")
        assert (stats.requests, stats.resumes, stats.retries) == (requests, resumes, retries)
        assert stats.members == len(NAMES)
        assert stats.throttled == ("429" in cell.name)


SHAPES = {"one entry": [LARGE], "one object three times": [LARGE] * 3, "empty objects": [NAMES[3], NAMES[7], NAMES[3]]}
SHAPE_FAULTS: dict[str, tuple[dict[str, Any], Any]] = {
    "short": ({"action": "short", "entry": 0}, RESUMED),
    "short at its end": ({"action": "short", "entry": -1}, RESUMED),
    "cut header": ({"action": "cut", "entry": 0, "part": "header"}, RESUMED),
    "cut last header": ({"action": "cut", "entry": -1, "part": "header"}, RESUMED),
    "reset": ({"action": "reset", "entry": -1}, RESUMED),
    "empty": ({"action": "empty"}, RESUMED),
    "corrupt": ({"action": "corrupt", "entry": -1}, RESUMED),
    "busy": ({"action": "error", "kind": "busy"}, RETRIED),
    "no trailer": ({"action": "cut", "part": "trailer"}, CLEAN),
}


def run_shape(cell: Cell) -> Outcome:
    with make_cluster() as cluster, new_client(cluster, POLICIES["once"]) as client:
        fill(cluster)
        fault = cluster.faults.add(**SHAPE_FAULTS[cell.name][0])
        outcome = take(
            client, cell.way, [Entry(name) for name in SHAPES[cell.kind]], streaming=cell.streaming, mark=cell.mark
        )
        outcome.hits = fault.hits
        return outcome


@pytest.mark.parametrize("cell", [cell for name in SHAPE_FAULTS for cell in cells(run_shape, name, tuple(SHAPES))])
def test_batches_of_other_shapes(cell: Cell, outcome: Outcome) -> None:
    names, stats = SHAPES[cell.kind], outcome.stats
    check(outcome, WHOLE, [DATA[NAMES.index(name)] for name in names], cell.way)
    assert (outcome.hits, stats.resumes, stats.retries) == (1, *SHAPE_FAULTS[cell.name][1][1:])


# --------------------------------------------------------------------------------------------------- entries at fault

SCENE = {scene.name: scene for scenes in SCENES.values() for scene in scenes}


def run_scene(cell: Cell) -> Outcome:
    scene = SCENE[cell.name]
    policy = aisfast.Policy(deadline=30, resume=cell.kind == "resume", get_missing=scene.get_missing)
    with make_cluster(scene.targets, max_wait=scene.max_wait) as cluster, new_client(cluster, policy) as client:
        scene.prepare(cluster)
        return take(client, cell.way, scene.entries, streaming=cell.streaming, mark=cell.mark)


@pytest.mark.parametrize("cell", [cell for name in SCENE for cell in cells(run_scene, name, ("resume", "alone"))])
def test_entries_at_fault(cell: Cell, outcome: Outcome) -> None:
    scene = SCENE[cell.name]
    expected = scene.expected(cell.way, streaming=cell.streaming, mark=cell.mark, resume=cell.kind == "resume")
    check(outcome, expected, scene.marked, cell.way)
    assert outcome.seconds < 10
    if expected is None:
        assert outcome.reasons.keys() == {index for index, data in enumerate(scene.marked) if data is None}
        assert all(outcome.reasons.values())
    elif isinstance(outcome.error, ErrObjNotFound):
        assert outcome.error.missing == (scene.strict.received,)
    if cell.kind == "alone":
        assert outcome.stats.requests == 1


def run_misses(cell: Cell) -> tuple[Outcome, list[bytes | None]]:
    """300 entries are missing, among 1,000 or 3,000."""
    count = int(cell.kind)
    there = [bytes([index % 251]) * (index % 7) for index in range(count)]
    data = [None if index % (count // 100) in (1, 4, 7) else payload for index, payload in enumerate(there)]
    with make_cluster(1) as cluster, new_client(cluster, POLICIES["once"]) as client:
        for index, payload in enumerate(data):
            if payload is not None:
                cluster.put(BUCKET, str(index), payload)
        entries = [Entry(str(index)) for index in range(count)]
        return take(client, cell.way, entries, streaming=cell.streaming, mark=cell.mark), data


@pytest.mark.parametrize("cell", cells(run_misses, "300 missing", ("1000", "3000")))
def test_requests_grow_with_the_misses_and_not_with_the_entries(
    cell: Cell, outcome: tuple[Outcome, list[bytes | None]]
) -> None:
    came, data = outcome
    missing = [index for index, payload in enumerate(data) if payload is None]
    assert len(missing) == 300
    assert came.stats.requests <= 300 / 4
    if cell.mark:
        check(came, WHOLE, data, cell.way)
        assert came.stats.misses == 300
        return
    at_call = cell.way in ("get", "legacy") and not cell.streaming
    check(came, Ends(ErrObjNotFound, 0 if at_call else missing[0]), data, cell.way)
    assert came.error.missing == tuple(missing if cell.way in AS_A_WHOLE else missing[:1])


def run_cold(cell: Cell) -> tuple[Outcome, int]:
    """All objects, or two of them, are reported missing, and object GETs bring them."""
    policy = aisfast.Policy(get_missing=True, deadline=30)
    with make_cluster() as cluster, new_client(cluster, policy) as client:
        fill(cluster)
        if cell.kind == "cold":
            for name in NAMES:
                cluster.faults.add("miss", entry=name, times=None)
        else:
            for index in (5, 40):
                cluster.faults.add("miss", entry=index)
        outcome = take(client, cell.way, ENTRIES * 4, streaming=cell.streaming, mark=cell.mark)
        return outcome, 4 * len(NAMES) if cell.kind == "cold" else 2


@pytest.mark.parametrize("cell", cells(run_cold, "get_missing", ("cold", "partly cold")))
def test_a_cold_bucket(cell: Cell, outcome: tuple[Outcome, int]) -> None:
    came, cold = outcome
    check(came, WHOLE, DATA * 4, cell.way)
    assert cold <= came.stats.singles <= cold + 4  # on a busy machine one may come too late, and is tried again
    halves = 3 if cell.kind == "cold" and not cell.streaming else 0  # refused for its misses: half of it is asked for
    assert (came.stats.requests, came.stats.misses) == (1 + halves, 0)


OBJECT_FAULTS: dict[str, dict[str, Any]] = {
    "reset": {"action": "reset", "leg": "target"},
    "reset by the gateway": {"action": "reset", "leg": "proxy"},
    "closed": {"action": "cut", "leg": "target"},
    "garbage": {"action": "garbage", "leg": "target"},
    "429": {"action": "error", "kind": "rate-limit"},
    "503": {"action": "reply", "status": 503, "leg": "target"},
    "silence": {"action": "stall", "seconds": 60, "leg": "target"},
}


def run_object(cell: Cell) -> Outcome:
    timeout = READ_TIMEOUT if cell.name == "silence" else 20
    with make_cluster() as cluster, new_client(cluster, POLICIES["once"], timeout) as client:
        fill(cluster)
        cluster.faults.add("cut", entry=LARGE, part="data", times=None)
        fault = cluster.faults.add(**OBJECT_FAULTS[cell.name], request="object")
        outcome = take(client, cell.way, ENTRIES, streaming=cell.streaming, mark=cell.mark)
        outcome.hits = fault.hits
        return outcome


@pytest.mark.parametrize("cell", [cell for name in OBJECT_FAULTS for cell in cells(run_object, name, ("object",))])
def test_an_entry_that_only_an_object_get_brings(cell: Cell, outcome: Outcome) -> None:
    check(outcome, WHOLE, DATA, cell.way)
    assert outcome.hits == 1
    assert outcome.stats.resumes == 2
    assert outcome.stats.singles >= 1


def run_drip(cell: Cell) -> Outcome:
    with make_cluster() as cluster, new_client(cluster, POLICIES["always"]) as client:
        fill(cluster)
        cluster.faults.add("drip", entry=LARGE, every=0.05)  # a byte at a time: no silence
        return take(client, cell.way, ENTRIES, streaming=cell.streaming, mark=cell.mark)


@pytest.mark.parametrize("cell", cells(run_drip, "drip", ("deadline",)))
def test_so_slow_that_the_deadline_passes(cell: Cell, outcome: Outcome) -> None:
    check(outcome, Ends(IncompleteBatchError, 6), DATA, cell.way)
    assert DEADLINE <= outcome.seconds < DEADLINE + SLACK
    assert outcome.stats.requests == 1


LARGE_PAYLOAD = b"m" * (1 << 18)
PAUSE = 3.0  # longer than the policy's patience, and than the server's


def run_pause(cell: Cell) -> tuple[Outcome, list[bytes]]:
    data = [bytes([index]) + LARGE_PAYLOAD for index in range(16)]  # more than all socket buffers take

    def pause(index: int) -> None:
        if index == 0:
            time.sleep(PAUSE)

    with make_cluster() as cluster, new_client(cluster, aisfast.Policy(patience=2.5)) as client:
        for index, payload in enumerate(data):
            cluster.put(BUCKET, str(index), payload)
        cluster.faults.add("slow_reader", seconds=1.5)
        entries = [Entry(str(index)) for index in range(len(data))]
        return take(client, cell.way, entries, streaming=cell.streaming, mark=cell.mark, each=pause), data


@pytest.mark.parametrize("cell", cells(run_pause, "pause", ("slow reader",)))
def test_a_consumer_that_pauses_loses_nothing(cell: Cell, outcome: tuple[Outcome, list[bytes]]) -> None:
    came, data = outcome
    check(came, WHOLE, data, cell.way)
    cut = cell.streaming and cell.way not in AS_A_WHOLE  # which have the whole batch before the consumer has any of it
    assert (came.stats.requests, came.stats.resumes, came.stats.retries) == (RESUMED if cut else CLEAN)


# ------------------------------------------------------------------------------------------------- targets that die

VICTIM = 1


def run_death(cell: Cell) -> tuple[Outcome, set[int]]:
    """The outcome, and the entries that live on the target that dies."""
    how: dict[str, Any] = {"streaming": cell.streaming, "mark": cell.mark}
    policy = aisfast.Policy(patience=2.0 if cell.kind == "for good" else 20.0)
    with make_cluster(death_notice=0.3) as cluster, new_client(cluster, policy) as client:
        fill(cluster)
        take(client, "fetch", ENTRIES[:1], **how)  # it has seen three targets
        lost = {index for index, name in enumerate(NAMES) if cluster.owner(BUCKET, name) == VICTIM}
        timer = threading.Timer(0.7, cluster.restore, (VICTIM,))
        if cell.name == "comes back while an answer runs":
            cluster.smap.death_notice = 0.0
            cluster.kill(VICTIM)
            cluster.faults.add("call", entry=FIFTH, run=lambda cluster: cluster.restore(VICTIM))
        else:
            cluster.next_dt = VICTIM if cell.name == "the target that answers dies" else 0
            cluster.faults.add("kill", entry=LARGE, victim=VICTIM)
            if cell.kind == "comes back":
                cluster.faults.add("call", entry=LARGE, run=lambda _: timer.start())
        outcome = take(client, cell.way, ENTRIES, **how)
        if timer.ident is not None:
            timer.join()
        elif cell.kind == "for good":
            outcome.rest = take(client, cell.way, ENTRIES, **how)
        return outcome, lost


@pytest.mark.parametrize(
    "cell",
    [
        *cells(run_death, "the target that answers dies", ("comes back",)),
        *cells(run_death, "another target dies", ("comes back",)),
        *cells(run_death, "comes back while an answer runs", ("comes back",)),
    ],
)
def test_a_target_that_dies_and_comes_back(cell: Cell, outcome: tuple[Outcome, set[int]]) -> None:
    came, _ = outcome
    check(came, WHOLE, DATA, cell.way)
    assert came.reasons == {}
    assert came.seconds < 15
    assert 2 <= came.stats.requests <= 20


@pytest.mark.parametrize(
    "cell",
    [
        *cells(run_death, "the target that answers dies", ("for good",)),
        *cells(run_death, "another target dies", ("for good",)),
    ],
)
def test_a_target_that_dies_for_good(cell: Cell, outcome: tuple[Outcome, set[int]]) -> None:
    """Its entries are asked for until patience is spent, then count as missing; the next batch does not wait."""
    came, lost = outcome
    before = set(range(6)) if cell.streaming and cell.name == "another target dies" else set()  # had come when it died
    whole = [None if index in lost - before else data for index, data in enumerate(DATA)]
    assert 2.0 <= came.seconds < 2.0 + SLACK
    again = came.rest
    assert again.seconds < 1.0
    if cell.mark:
        check(came, WHOLE, whole, cell.way)
        assert came.reasons.keys() == lost - before
        assert all("out of reach" in reason for reason in came.reasons.values())
        check(again, WHOLE, [None if index in lost else data for index, data in enumerate(DATA)], cell.way)
        assert again.stats.requests == 1
        return
    official = cell.way in ("get", "legacy") and not cell.streaming
    for one, first in ((came, min(lost - before)), (again, min(lost))):
        check(one, Ends(ErrObjNotFound, 0 if official else first), DATA, cell.way)
        assert "out of reach" in str(one.error)


def test_how_many_targets_there_were_is_remembered_by_a_pickled_client() -> None:
    with make_cluster(death_notice=0.0) as cluster:
        fill(cluster)
        lost = [index for index, name in enumerate(NAMES) if cluster.owner(BUCKET, name) == VICTIM]
        with new_client(cluster, aisfast.Policy(patience=1)) as client:
            take(client, "fetch", ENTRIES, streaming=True, mark=True)
            pickled = pickle.dumps(client)
        cluster.kill(VICTIM)
        with new_client(cluster, aisfast.Policy(patience=1)) as newcomer:  # it does not know better
            came = take(newcomer, "fetch", ENTRIES, streaming=True, mark=True)
        assert [index for index, data in enumerate(came.got) if data is None] == lost
        assert came.seconds < 1
        threading.Timer(0.3, cluster.restore, (VICTIM,)).start()
        with pickle.loads(pickled) as client:
            client.policy = aisfast.Policy(patience=20)
            check(take(client, "fetch", ENTRIES, streaming=True, mark=True), WHOLE, DATA, "fetch")


def test_what_was_mended_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with make_cluster() as cluster, new_client(cluster, POLICIES["once"]) as client:
        fill(cluster)
        for fault in (at("short", FIFTH), {"action": "error", "kind": "busy"}, None):
            caplog.clear()
            if fault is not None:
                cluster.faults.add(**fault)
            with caplog.at_level(logging.WARNING, "aisfast"):
                take(client, "fetch", ENTRIES, streaming=True, mark=True)
            told = [record for record in caplog.records if record.thread == threading.get_ident()]
            assert [record.levelname for record in told] == (["WARNING"] if fault is not None else [])


DOCS = (Path(__file__).parent.parent / "docs" / "faults.md").read_text(encoding="utf-8")


def test_the_docs_name_every_fault() -> None:
    assert [name for name in (*BY_NAME, *SCENE) if f"| {name} |" not in DOCS] == []
    assert "not measured" not in DOCS


def test_the_example_of_the_docs() -> None:
    exec(compile(DOCS.partition("```python\n")[2].partition("```")[0], "faults.md", "exec"), {})
