"""Makes docs/faults.md of the fault matrix: what the official SDK makes of every fault, and what aisfast does.

    python tests/fault_table.py --write docs/faults.md

Both are run, against the same emulated clusters. Where the official SDK is not installed its column stays as the page
has it.
"""

from __future__ import annotations

import argparse
import logging
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aisfast
from aisfast.emulator import Cluster
from aisfast.stats import Stats
from fault_matrix import (
    BUCKET,
    DATA,
    DEADLINE,
    FAULTS,
    LARGE,
    NAMES,
    READ_TIMEOUT,
    SCENES,
    Entry,
    Row,
    Scene,
    fill,
    make_cluster,
    new_client,
)

try:
    import aistore
    import aistore.sdk
except ImportError:
    aistore = None

AT_ONCE = 48
OURS = "`Policy("  # in the name of what the official SDK has no option for
PATIENT = aisfast.Policy(patience=20)


class Play(NamedTuple):
    """What takes longer than one answer: told in the third table."""

    name: str
    prepare: Callable[[Cluster], threading.Timer | None]
    entries: list[Entry]
    whole: list[bytes | None]
    pause: float = 0.0  # of the consumer, after the first entry
    policy: aisfast.Policy = PATIENT
    modes: tuple[bool, ...] = (True, False)


MANY = [Entry(str(index)) for index in range(40)]
FEW = [str(index).encode() if index % 2 else None for index in range(40)]
LARGE_ONES = [bytes([index]) * (1 << 18) for index in range(16)]
ALL = [Entry(name) for name in NAMES]


def put(cluster: Cluster, payloads: Sequence[bytes | None]) -> None:
    for index, payload in enumerate(payloads):
        if payload is not None:
            cluster.put(BUCKET, str(index), payload)


def few(cluster: Cluster) -> None:
    put(cluster, FEW)


def large(cluster: Cluster) -> None:
    put(cluster, LARGE_ONES)
    cluster.faults.add("slow_reader", seconds=0.8)


def death(answers: bool) -> Callable[[Cluster], threading.Timer]:
    def prepare(cluster: Cluster) -> threading.Timer:
        fill(cluster)
        timer = threading.Timer(0.7, cluster.restore, (1,))
        cluster.next_dt = 1 if answers else 0
        cluster.faults.add("kill", entry=LARGE, victim=1)
        cluster.faults.add("call", entry=LARGE, run=lambda _: timer.start())
        return timer

    return prepare


def dripping(cluster: Cluster) -> None:
    fill(cluster)
    cluster.faults.add("drip", entry=LARGE, size=5000, every=0.2)


PLAYS = [
    Play("more than 8 entries are missing (20 of 40)", few, MANY, FEW),
    Play(
        "the consumer pauses for longer than the server waits for it",
        large,
        [Entry(str(index)) for index in range(16)],
        list(LARGE_ONES),
        2.0,
        modes=(True,),
    ),
    Play("slow: 3 s in all", dripping, ALL, list(DATA)),
    Play("the same, with `Policy(deadline=1.5)`", dripping, ALL, list(DATA), policy=aisfast.Policy(deadline=DEADLINE)),
    Play("the target that answers dies, and is back 0.7 s later", death(True), ALL, list(DATA)),
    Play("another target dies, and is back 0.7 s later", death(False), ALL, list(DATA)),
]

# ------------------------------------------------------------------------------------------------------------ run them


class Result(NamedTuple):
    """How a call went: payloads, each with whether it was marked as missing; the name of an error; requests sent."""

    got: list[tuple[bytes, bool]]
    error: str
    requests: int

    def text(self, whole: Sequence[bytes | None]) -> str:
        right = [(b"", True) if data is None else (data, False) for data in whole]
        count = len(self.got)
        if self.got == right and not self.error:
            holes = whole.count(None)
            return f"whole, {holes} marked as missing" if holes else "whole"
        wrong = "" if self.got == right[:count] else "**wrong data**, "
        if not self.error:
            return f"{wrong}{count} of {len(whole)}, **no error**"
        return f"{wrong}{count} of {len(whole)}, then `{self.error}`" if count else f"`{self.error}`"


def get(client: Any, entries: Sequence[Entry], streaming: bool, coer: bool, pause: float = 0.0) -> Result:
    """`Batch.get()` of either, read to its end."""
    got: list[tuple[bytes, bool]] = []
    error = ""
    stats = client.stats if isinstance(client, aisfast.Client) else Stats()
    before = stats.requests
    try:
        batch = client.batch(bucket=client.bucket(BUCKET), cont_on_err=coer, streaming_get=streaming)
        for name, archpath, start, length in entries:
            batch.add(name, archpath=archpath, start=start, length=length)
        for info, data in batch.get():
            got.append((bytes(data), bool(info.err_msg)))
            if len(got) == 1:
                time.sleep(pause)
    except Exception as raised:
        error = type(raised).__name__
    return Result(got, error, stats.requests - before)


@contextmanager
def client_of(cluster: Cluster, policy: aisfast.Policy | None, timeout: float) -> Iterator[Any]:
    """A client of ours, or, without a policy, the official one."""
    if policy is not None:
        with new_client(cluster, policy, timeout) as client:
            yield client
        return
    client = aistore.sdk.Client(cluster.endpoint, timeout=(3, timeout))
    yield client
    client._request_client.session_manager.session.close()


def fault(row: Row, policy: aisfast.Policy | None, times: int | None, streaming: bool) -> Result:
    with make_cluster() as cluster, client_of(cluster, policy, row.read_timeout) as client:
        fill(cluster)
        if row.known:
            get(client, ALL[:1], streaming, True)
        cluster.faults.add(**row.plan, times=times)
        return get(client, ALL, streaming, True)


def scene(its: Scene, policy: aisfast.Policy | None, coer: bool, streaming: bool) -> Result:
    if policy is not None:
        policy = policy.replace(get_missing=its.get_missing)
    with make_cluster(its.targets, max_wait=its.max_wait) as cluster, client_of(cluster, policy, 20.0) as client:
        its.prepare(cluster)
        return get(client, its.entries, streaming, coer)


def play(its: Play, policy: aisfast.Policy | None, streaming: bool) -> Result:
    with make_cluster(death_notice=0.3) as cluster, client_of(cluster, policy, 20.0) as client:
        timer = its.prepare(cluster)
        try:
            return get(client, its.entries, streaming, True, its.pause)
        finally:
            if timer is not None:
                timer.cancel()


# ------------------------------------------------------------------------------------------------------------ the page

HEAD = """\
# When something goes wrong

AIStore answers a GetBatch request with one archive, and begins to send it before it knows whether it can finish. What
goes wrong after that has no status code any more: an answer of status 200 that ends properly, and is a valid archive,
may lack entries, and this is how most failures of a cluster look to a client. The tables below show what comes of each
with the official SDK and with aisfast, when `Batch.get()` is read to its end. "Whole" means every payload, in order,
byte by byte; "5 of 12, no error" that five entries were handed out and nothing told that more were due. Where a cell
names no mode, both modes (streaming and buffered) end alike.

aisfast counts. It checks every member against the entry that was asked for, keeps what is right, and asks the gateway
for the rest until the batch is whole, within `Policy(patience=120.0, deadline=None)`: seconds of silence, and seconds
in all. What cannot be mended ends in an exception that says what is missing. `Policy(resume=False)` leaves the asking
to you: `IncompleteBatchError.rest()` is a batch of what did not come.

## Test your own loader with it

All these faults come from `aisfast.emulator`: a cluster on real sockets that fails as planned, in a server's own words.
It speaks AIStore's protocol, so that any client can be held against it, the official SDK too. The data loaders of
lhotse, NeMo and DLIO are tested with a mock of the client: that shows what a loader does with the answers that the
mock's author thought of. The emulator shows what it does with an answer that ends after seven files and says nothing:

```python
import aisfast
from aisfast.emulator import Cluster

names = [f"{i}.wav" for i in range(100)]
with Cluster(targets=3) as cluster:
    for i, name in enumerate(names):
        cluster.put("train", name, bytes(i))
    cluster.faults.add("short", entry="7.wav")          # an answer ends before this entry, as if it were complete
    cluster.faults.add("reset", entry=50, nth=2)        # the next one that has so many entries breaks off
    cluster.faults.add("error", kind="busy", times=3)   # before all that: 429, three times
    with aisfast.Client(cluster.endpoint) as client:    # your loader, in place of these two lines
        sizes = [len(data) for _, data in client.batch(names, bucket=client.bucket("train")).get()]
    assert sizes == list(range(100))
    assert all(fault.hits for fault in cluster.faults)  # all of it happened
```

`help(aisfast.emulator.faults)` lists all faults and the places where they can happen. `cluster.kill(1)` is `kill -9` of
a target, `cluster.restore(1)` brings it back.
"""
FAULTS_HEAD = """
| the answer to a batch of 12 entries | official SDK{version} | aisfast | aisfast, if it is so every time |
| --- | --- | --- | --- |
"""
SCENES_HEAD = """
| one of 5 entries | official SDK{version}, `cont_on_err=True` | `cont_on_err=False` | aisfast, `cont_on_err=True` \
| `cont_on_err=False` |
| --- | --- | --- | --- | --- |
"""
PLAYS_HEAD = """
| what happens | official SDK{version} | aisfast |
| --- | --- | --- |
"""
TAIL = """
## How this was measured

By `python tests/fault_table.py --write docs/faults.md`, on the emulator. Each fault of an answer happens once; in the
last column of its table in every answer, with a deadline of {deadline} s. Clients have their default settings, but for
the read timeout where a server falls silent ({timeout} s). `tests/test_faults.py` holds every way to get a batch
against all of it: `get()`, `stream()`, `fetch()` and the older API, in both modes, with `cont_on_err` and without, and
with `Policy(resume=False)`.
"""


def both(results: dict[bool, Result], whole: Sequence[bytes | None], counted: bool = False) -> str:
    """What came of it, in the modes there are."""
    texts = {}
    for streaming, result in results.items():
        text = result.text(whole)
        if counted and result.requests > 1 and not result.error:
            text += f", {result.requests} requests"
        texts["streaming" if streaming else "buffered"] = text
    if len(texts) == 2 and len(set(texts.values())) == 1:
        return texts["streaming"]
    return "; ".join(f"{mode}: {text}" for mode, text in texts.items())


def recorded(page: Path) -> dict[str, list[str]]:
    """Cells of the page as it is, by their row's name."""
    rows = re.findall(r"^\| (.+) \|$", page.read_text(encoding="utf-8") if page.is_file() else "", re.MULTILINE)
    return {cells[0]: cells[1:] for cells in (row.split(" | ") for row in rows)}


def make(page: Path) -> str:
    """The page's text."""
    old = recorded(page)
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def ask(run: Callable[..., Result], its: Any, policy: aisfast.Policy | None, *how: Any) -> dict[bool, Any]:
            modes = getattr(its, "modes", (True, False))
            return {mode: pool.submit(run, its, policy, *how, mode) for mode in modes}

        def theirs(its: Any, run: Callable[..., Result], *how: Any) -> dict[bool, Any]:
            return ask(run, its, None, *how) if aistore is not None and OURS not in its.name else {}

        always = aisfast.Policy(deadline=DEADLINE)
        faults = {
            row.name: [theirs(row, fault, 1), ask(fault, row, PATIENT, 1), ask(fault, row, always, None)]
            for rows in FAULTS.values()
            for row in rows
        }
        scenes = {
            its.name: [
                *(theirs(its, scene, True), theirs(its, scene, False)),
                *(ask(scene, its, PATIENT, True), ask(scene, its, PATIENT, False)),
            ]
            for group in SCENES.values()
            for its in group
        }
        plays = {its.name: [theirs(its, play), ask(play, its, its.policy)] for its in PLAYS}

        def line(name: str, columns: list[dict[bool, Any]], whole: Sequence[bytes | None], counted: int = -1) -> str:
            cells = []
            for place, column in enumerate(columns):
                results = {mode: future.result() for mode, future in column.items()}
                if results:
                    cells.append(both(results, whole, place == counted))
                else:
                    cells.append(
                        "has no such option" if OURS in name else old[name][place] if name in old else "not measured"
                    )
            return "| " + " | ".join([name, *cells]) + " |\n"

        version = f" {aistore.version.__version__}" if aistore is not None else old_version(page)
        out = [HEAD]
        for title, rows in FAULTS.items():
            out += [f"\n## {title}\n", FAULTS_HEAD.format(version=version)]
            out += [line(row.name, faults[row.name], DATA, 1) for row in rows]
        for title, group in SCENES.items():
            out += [f"\n## {title}\n", SCENES_HEAD.format(version=version)]
            out += [line(its.name, scenes[its.name], its.marked) for its in group]
        out += ["\n## Targets and consumers\n", PLAYS_HEAD.format(version=version)]
        out += [line(its.name, plays[its.name], its.whole) for its in PLAYS]
    out.append(TAIL.format(deadline=DEADLINE, timeout=READ_TIMEOUT))
    return "".join(out)


def old_version(page: Path) -> str:
    found = re.search(r"official SDK( \d[\d.]*)", page.read_text(encoding="utf-8") if page.is_file() else "")
    return found[1] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", type=Path, required=True, metavar="PAGE", help="the page, which may exist")
    page = parser.parse_args().write
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    page.write_text(make(page), encoding="utf-8")


if __name__ == "__main__":
    main()
