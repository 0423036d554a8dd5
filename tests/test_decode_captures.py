"""Every recorded TAR answer gives exactly the entries it holds, however the network cuts it."""

import hashlib
import json
import random

import pytest

import captures
from aisfast.errors import WireError
from feeding import AnswerDecoder, assert_beginning, run

NAMES = [name for name in captures.names() if captures.load(name)[0]]
TAR = [name for name in NAMES if captures.is_tar(name)]
KINDS = [
    "1t-307-bucket",
    "1t-err-name-dots",
    "1t-mp-one-0",  # Content-Length
    "3t-mp-misses",
    "1t-mp-sizes",
    "1t-tar-names",  # PAX, prefixes
    "3t-shards",
    "1t-coer-misses",
    "1t-strict-first",
    "1t-damaged-cut-tar",
    "3t-fault-kill-dt",
    "3t-mixed-1-buffered",
]


def test_all_of_them():
    assert len(captures.names()) == 272
    assert len(TAR) + 1 == 216  # one recording is empty: the target died before its first byte


def members(events):
    """(name, payload) of the whole members; a last one that is cut is left out."""
    found = []
    for event in events:
        if event[0] == "member":
            found.append([event[1].decode(), event[2], b""])
        elif event[0] == "data":
            found[-1][2] = event[1]
    return [(name, payload) for name, size, payload in found if len(payload) == size]


def pieces(raw, seed):
    """Cut into random pieces, most of them small."""
    draw, at = random.Random(seed), 0
    while at < len(raw):
        size = draw.choice([1, 2, 3, 10, 100, 511, 512, 513, 2048, 5000])
        yield raw[at : at + size]
        at += size


@pytest.mark.parametrize("name", TAR)
def test_capture(name):
    raw, meta = captures.load(name)
    whole = run(AnswerDecoder, [raw])
    status, *events = whole.events
    assert status == ("status", meta["status"])
    if meta["status"] == 200:
        found = members(events)
        assert len(found) == meta["delivered"]
        for (member, payload), entry in zip(found, meta["entries"], strict=False):
            right = entry.get("got", entry)
            assert member == entry["member"]
            assert len(payload) == right["size"]
            assert right["sha256"] in (None, hashlib.sha256(payload).hexdigest())
        assert (events[-1:] == [("end",)]) == meta["trailer"]
        assert whole.done == (meta["trailer"] and meta["end"] != "eof")
        assert (whole.error is None) == meta["trailer"]
        if "cut_member" in meta:
            assert sum(event[0] == "member" for event in events) == meta["delivered"] + 1
            assert whole.error.layer == "tar"
        if "out" in meta:
            assert len(json.loads(events[0][1])["out"]) == meta["out"]
    else:
        assert whole.done
        assert whole.error is None
    for cut in ([raw[i : i + 1] for i in range(len(raw))], pieces(raw, name)):
        outcome = run(AnswerDecoder, cut)
        assert (outcome.events, outcome.done) == (whole.events, whole.done)
        assert repr(outcome.error) == repr(whole.error)


@pytest.mark.parametrize("name", KINDS)
def test_capture_at_every_split_of_its_beginning(name):
    raw, _ = captures.load(name)
    whole = run(AnswerDecoder, [raw])
    for at in range(1, min(len(raw), 4096)):
        outcome = run(AnswerDecoder, [raw[:at], raw[at:]])
        assert (outcome.events, outcome.done) == (whole.events, whole.done)
        assert repr(outcome.error) == repr(whole.error)
        prefix = run(AnswerDecoder, [raw[:at]])
        assert not prefix.done
        assert not prefix.fed
        assert_beginning(prefix.events, whole.events)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TAR])
def test_other_formats_are_no_tar(name):
    raw, meta = captures.load(name)
    if meta["status"] == 200:
        outcome = run(AnswerDecoder, [raw])
        assert isinstance(outcome.error, WireError)
        assert members(outcome.events[1:]) == []
