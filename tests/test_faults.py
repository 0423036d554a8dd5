"""The fault matrix: what the emulator can do wrong, in both modes, against every way to get a batch.

Each ends whole and byte-exact, or in the documented exception with the right indices. Never silently short, never with
wrong data, never in an exception that is not ours. (One answer per batch: asking again is not in this release.)
"""

from __future__ import annotations

import pytest

import aisfast
from aisfast.emulator import Cluster
from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrGETConflict,
    IncompleteBatchError,
    WireError,
)

NAMES = [f"{i}.bin" for i in range(40)]
DATA = {name: bytes([i]) * (1000 + 317 * i) for i, name in enumerate(NAMES)}

# what is planned -> what may come of it, streaming and buffered; () stands for a whole batch
SHORT, WIRE = (IncompleteBatchError,), (WireError,)
REFUSED = (AISError,)
FAULTS = {
    "short": ({"action": "short", "entry": 5}, SHORT, SHORT),
    "short at once": ({"action": "short", "entry": 0}, SHORT, SHORT),
    "cut in a header": ({"action": "cut", "entry": 3, "part": "header"}, SHORT, SHORT),
    "cut in data": ({"action": "cut", "entry": 3, "part": "data"}, SHORT, SHORT),
    "cut in padding": ({"action": "cut", "entry": 3, "part": "padding"}, SHORT, SHORT),
    "cut in data, clean end": ({"action": "cut", "entry": 3, "part": "data", "clean": True}, SHORT, SHORT),
    "cut in a header, clean end": ({"action": "cut", "entry": 3, "part": "header", "clean": True}, SHORT, SHORT),
    "cut in the last padding": ({"action": "cut", "entry": -1, "part": "padding"}, (), ()),
    "cut before the trailer": ({"action": "cut", "part": "trailer"}, (), ()),
    "cut before the terminal chunk": ({"action": "cut", "part": "end"}, (), ()),
    "reset": ({"action": "reset", "offset": 9999}, SHORT, SHORT),
    "reset at the head": ({"action": "reset"}, (AISConnectionError,), (AISConnectionError,)),
    "reset by the gateway": ({"action": "reset", "leg": "proxy"}, (AISConnectionError,), (AISConnectionError,)),
    "stall": ({"action": "stall", "seconds": 5, "entry": 7}, SHORT, (AISTimeoutError,)),
    "drip": ({"action": "drip", "size": 4000, "every": 0.001, "entry": 4}, (), ()),
    "empty": ({"action": "empty"}, SHORT, SHORT),
    "garbage": ({"action": "garbage"}, WIRE, WIRE),
    "garbage from the gateway": ({"action": "garbage", "leg": "proxy"}, WIRE, WIRE),
    "garbage in the body": ({"action": "garbage", "offset": 9000}, WIRE, WIRE),
    "corrupt header": ({"action": "corrupt", "entry": 3}, WIRE, WIRE),
    "rename": ({"action": "rename", "entry": 3, "name": "b/x"}, WIRE, WIRE),
    "duplicate": ({"action": "duplicate", "entry": 3}, WIRE, WIRE),
    "swap": ({"action": "swap", "entry": 3}, WIRE, WIRE),
    "skip": ({"action": "skip", "entry": 3}, WIRE, WIRE),
    "skip the last": ({"action": "skip", "entry": -1}, SHORT, SHORT),
    "fewer records": ({"action": "out", "by": -1}, (), SHORT),
    "more records": ({"action": "out"}, (), WIRE),
    "abort": ({"action": "abort", "entry": 9}, SHORT, SHORT),
    "abort between the legs": ({"action": "abort"}, REFUSED, REFUSED),
    "kill the answering target": ({"action": "kill", "entry": 20}, SHORT, (AISConnectionError,)),
    "bad gateway": ({"action": "reply", "status": 502, "body": b"<html>"}, REFUSED, REFUSED),
    "busy": ({"action": "error", "kind": "busy"}, REFUSED, REFUSED),
    "redirect used before": ({"action": "error", "kind": "consumed"}, REFUSED, REFUSED),
    "job not active": ({"action": "error", "kind": "not-active"}, (ErrGETConflict,), (ErrGETConflict,)),
    "starting": ({"action": "error", "kind": "not-ready"}, REFUSED, REFUSED),
    "target refuses connections": ({"action": "error", "kind": "refused"}, REFUSED, REFUSED),
    "no targets": ({"action": "error", "kind": "no-targets"}, REFUSED, REFUSED),
}


def take(batch: aisfast.Batch, way: str, got: list[bytes]) -> None:
    if way == "get":
        for info, data in batch.get():
            assert (info.obj_name, info.err_msg, info.size) == (NAMES[len(got)], None, len(data))
            got.append(data)
    elif way == "stream":
        with batch.stream() as items:
            for item in items:
                assert (item.index, item.name) == (len(got), NAMES[len(got)])
                got.append(bytes(item))
    else:
        try:
            got += map(bytes, batch.fetch())
        except IncompleteBatchError as error:
            got += map(bytes, error.partial)
            raise


@pytest.mark.parametrize("way", ["get", "stream", "fetch"])
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault: str, streaming: bool, way: str) -> None:
    plan, *outcomes = FAULTS[fault]
    outcome = outcomes[0 if streaming else 1]
    policy = aisfast.Policy(resume=False)
    with Cluster(3, 0, seed=3, max_wait=0.05) as cluster:
        for name in NAMES:
            cluster.put("b", name, DATA[name])
        planned = cluster.faults.add(**plan)
        with aisfast.Client(cluster.endpoint, timeout=(3, 0.5), policy=policy) as client:
            batch = client.batch(NAMES, bucket=client.bucket("b"), streaming_get=streaming)
            got: list[bytes] = []
            error: AISError | None = None
            try:
                take(batch, way, got)
            except AISError as caught:
                error = caught
            assert planned.hits == (0 if fault.endswith("records") and streaming else 1)
            assert got == [DATA[name] for name in NAMES[: len(got)]]
            if not outcome:
                assert error is None
                assert len(got) == len(NAMES)
            else:
                assert isinstance(error, outcome)
                assert error.remedy
                assert str(error)
            if isinstance(error, IncompleteBatchError):
                assert (error.requested, error.received) == (len(NAMES), len(got))
                assert error.missing == tuple(range(len(got), len(NAMES)))
                assert error.__cause__ is not None
                if "kill" not in fault:  # the cluster is well again, and the rest is all that lacks
                    assert got + [bytes(item) for item in error.rest().stream()] == list(DATA.values())
