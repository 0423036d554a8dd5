"""`aisfast bench`: percentiles, open-loop arrivals, a short run on the emulator, and the files it writes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import aisfast
from aisfast import cli
from aisfast.bench import Options, harness, run, ways
from aisfast.bench.arrivals import arrivals, closed_loop, open_loop, percentile, summary
from aisfast.bench.page import page
from aisfast.bench.report import text
from aisfast.emulator import Cluster
from aisfast.errors import AISError

SECONDS = 0.2  # for each way


class Clock:
    """Time that only goes on when somebody sleeps, or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


# ---------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("count", "percent", "rank"),
    [(1, 50, 1), (1, 99.9, 1), (2, 50, 1), (2, 90, 2), (10, 90, 9), (100, 99, 99), (100, 99.9, 100), (1000, 99.9, 999)],
)
def test_percentiles_are_nearest_ranks(count: int, percent: float, rank: int) -> None:
    assert percentile(range(1, count + 1), percent) == rank


def test_summary_sorts() -> None:
    values = [float(i) for i in range(1, 1001)]
    random.Random(1).shuffle(values)
    assert summary(values) == {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
    assert summary([]) == {}


def test_arrivals_come_at_their_rate() -> None:
    found = list(arrivals(200, 50, random.Random(7)))
    assert found == sorted(found)
    assert 0 < found[0] < found[-1] < 50
    assert 9_500 < len(found) < 10_500
    gaps = [b - a for a, b in pairwise(found)]
    assert sum(gap > 1 / 200 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # e**-1: without memory


def test_a_stall_is_seen_by_all_that_arrive_in_it() -> None:
    """No coordinated omission: one call of 1 s among calls of 10 ms delays those that arrive meanwhile."""
    clock = Clock()
    took = iter([1.0] + [0.01] * 9)
    starts = [i / 10 for i in range(10)]
    taken = open_loop(lambda: clock.sleep(next(took)), starts, 1.0, clock, clock.sleep)
    expected = [1.0, *(1.0 + 0.01 * i - i / 10 for i in range(1, 10))]
    assert taken.latencies == pytest.approx(expected)
    assert taken.unserved == 0


def test_what_is_early_waits() -> None:
    clock = Clock()
    taken = open_loop(lambda: clock.sleep(0.01), [0.5, 2.0], 3.0, clock, clock.sleep)
    assert taken.latencies == pytest.approx([0.01, 0.01])
    assert taken.seconds == pytest.approx(2.01)


def test_a_loop_that_cannot_keep_up_ends_and_says_so() -> None:
    clock = Clock()
    taken = open_loop(lambda: clock.sleep(1.0), [i / 100 for i in range(100)], 1.0, clock, clock.sleep)
    assert len(taken.latencies) == 4
    assert taken.unserved == 96


def test_a_closed_loop_runs_once_at_least() -> None:
    clock = Clock()
    assert len(closed_loop(lambda: clock.sleep(5), 0.0, clock).latencies) == 1
    assert closed_loop(lambda: clock.sleep(0.3), 1.0, clock).latencies == pytest.approx([0.3] * 4)


# ----------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AIS") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    paths = [str(Path(aisfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """With a bucket `things` of objects of many sizes."""
    with Cluster(targets=2, tail_delay=0.0) as cluster:
        with aisfast.Client(cluster.endpoint) as client:
            bucket = client.bucket("things").create()
            for i in range(40):
                bucket.object(f"{'ab'[i % 2]}/{i:03}").get_writer().put_content(bytes([i]) * i * 100)
        yield cluster


class Balanced(HTMLParser):
    """Sees that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "rect", "line", "polyline"):
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href")  # it needs nothing else
            assert "http" not in (value or "")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(made: str) -> None:
    parser = Balanced()
    parser.feed(made)
    parser.close()
    assert parser.open == []
    assert {"html", "svg", "table", "rect", "polyline"} <= parser.seen
    for plot in re.findall(r"<svg.*?</svg>", made, re.DOTALL):
        for element in ET.fromstring(plot).iter():
            for name in ("x", "y", "width", "x1", "x2", "y1", "y2"):
                assert -1 <= float(element.get(name, 0)) <= 600, ET.tostring(element)
    assert "<script" not in made


def test_on_an_emulator_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    assert cli.main(["bench", "--seconds", str(SECONDS), "--batch", "8", *files]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "This is the emulator: a server written in Python" in out
    assert "Nothing is gained where one large object is got" in out
    report = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert out == text(report) + "\n"
    assert {*report["ways"], *report["left_out"]} == set(ways.WAYS)
    for name, row in report["ways"].items():
        assert row["objects"] == 8 * row["batches"] > 0
        assert 0 < row["latency"]["p50"] <= row["latency"]["p90"] <= row["latency"]["max"]
        assert name == ways.DRAIN or row["bytes"] == row["objects"] * 10 * 1024
    assert report["ways"]["get()"]["split"].keys() == {"build", "first byte", "wait", "receive", "decode", "hand-off"}
    made = (tmp_path / "a.html").read_text("utf-8")
    assert made == page(report)
    check_page(made)


def test_several_processes_on_a_bucket_at_a_rate(cluster: Cluster) -> None:
    told: list[str] = []
    options = Options(
        cluster.endpoint, "things", prefix="a/", batch=5, seconds=0.5, procs=2, rate=40, seed=3,
        ways=("get()", "pipeline()", ways.DRAIN),
    )  # fmt: skip
    report = run(options, told.append)
    assert report["objects"]["count"] == 20
    assert report["left_out"] == {"pipeline()": "with --rate batches arrive one by one"}
    assert not report["environment"]["emulator"]
    assert "20 objects listed" in told
    row = report["ways"]["get()"]
    assert row["batches"] + row["unserved"] < 60  # a closed loop makes hundreds
    assert row["stats"]["requests"] >= row["batches"]
    assert any(note.startswith("Open loop, 40 batches a second") for note in report["notes"])
    with aisfast.Client(cluster.endpoint) as client:
        assert [bucket.name for bucket in client.cluster().list_buckets()] == ["things"]
    check_page(page(report))


def test_a_batch_of_more_than_there_is(cluster: Cluster) -> None:
    report = run(Options(cluster.endpoint, "things", prefix="b/", batch=1000, seconds=0.1, ways=("fetch()",)))
    assert report["ways"]["fetch()"]["objects"] == 20 * report["ways"]["fetch()"]["batches"]


def test_other_bytes_are_not_timed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that tell of other bytes: nothing else is asked of them."""
    asked: list[dict[str, Any]] = []

    def answers(workers: list[Any], commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked.extend(commands)
        return [{"left_out": {}, "digests": {"get()": "00", "stream()": "01"}, "versions": {}}]

    monkeypatch.setattr(harness, "_all", answers)
    with pytest.raises(AISError, match="do not get the same bytes") as caught:
        run(Options(cluster.endpoint, "things", ways=("get()", "stream()")))
    assert caught.value.remedy == "nothing was timed"
    assert len(asked) == 1


def test_digests_tell_names_and_bytes_apart(cluster: Cluster) -> None:
    way = ways.make("stream()", cluster.endpoint, "things", "ais")
    one, other = ["a/002", "b/003"], ["b/003", "a/002"]
    assert ways.digest(way, one) == ways.digest(way, one)
    assert ways.digest(way, one) != ways.digest(way, other)
    way.close()


@pytest.mark.parametrize("name", ways.OURS)
def test_the_parts_are_the_whole(cluster: Cluster, name: str) -> None:
    way = ways.make(name, cluster.endpoint, "things", "ais")
    parts = ways.split(way, ["a/002", "b/039"])
    assert all(seconds >= 0 for seconds in parts.values())
    assert parts["first byte"] > 0
    assert sum(parts.values()) < 5
    way.close()


def test_without_the_official_sdk(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aistore.sdk", None)
    with pytest.raises(ways.LeftOut, match="aistore is not installed"):
        ways.make(ways.OFFICIAL, cluster.endpoint, "things", "ais")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "0"], "--batch must be more than 0"),
        (["--rate", "-1"], "--rate must be more than 0"),
        (["--bucket", "b"], "--bucket needs a cluster"),
        (["--bucket", "s4://b", "--endpoint", "http://localhost:1"], "s4"),
    ],
)
def test_wrong_command_lines(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_failures_are_one_line(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["bench", "--seconds", "0.1", "--endpoint", cluster.endpoint]
    assert cli.main([*there, "--bucket", "things", "--prefix", "zzz"]) == 1
    assert capsys.readouterr().err.startswith("aisfast: no objects in ais://things/zzz")
    assert cli.main([*there, "--bucket", "ais://nothing"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_worker_that_dies_is_an_error(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a reader that has left, which ends a command without a word."""
    monkeypatch.setattr(harness, "_COMMAND", ["-c", "raise SystemExit(3)"])
    with pytest.raises(AISError, match=r"a process of the bench ended \(code 3\)"):
        run(Options(cluster.endpoint, "things", seconds=0.1))


def test_importing_aisfast_loads_none_of_it() -> None:
    code = "import sys, aisfast, aisfast.cli; print([name for name in sys.modules if 'bench' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
