"""Every recorded answer of a real cluster, asked for as it was, delivers what is right and nothing else."""

import hashlib
import json
import random
from base64 import b64decode
from urllib.parse import parse_qs, urlsplit

import pytest

import aisfast
import captures
from aisfast._delivery import Form
from aisfast._request import Entries
from aisfast.errors import (
    AISConnectionError,
    AISError,
    ErrBckNotFound,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    WireError,
)
from delivering import FORMS, deliver
from scripted import ONE_ANSWER, Last, Scripted, answer

# A file that is shorter than its metadata is a whole member of a streamed ZIP: no client can see that.
UNSEEN = "3t-fault-cut-file-zip"
ALL = [name for name in captures.names() if name != UNSEEN]
ANSWERS = [name for name in ALL if captures.load(name)[1]["status"] == 200]
REDIRECTS = [name for name in ALL if captures.load(name)[1]["status"] == 307]
REFUSALS = [name for name in ALL if name not in ANSWERS and name not in REDIRECTS]
KINDS = [
    "1t-mp-one-0",  # Content-Length
    "3t-mp-misses",
    "1t-mp-sizes",
    "1t-tar-names",  # PAX, prefixes
    "3t-shards",
    "1t-coer-misses",
    "1t-strict-first",
    "1t-damaged-cut-tar",
    "3t-fault-kill-dt",
    "3t-badrange-remote",
    "3t-mp-badrange-remote",
    "3t-mixed-1-buffered",
]
ASKED_OF_THE_SERVER = {
    ErrObjNotFound: ["1t-mp-strict-arch-miss", "1t-mp-strict-miss", "3t-mp-strict-local-miss"],
    ErrBckNotFound: ["1t-err-unknown-bucket", "1t-err-unknown-entry-bucket"],
    ErrRangeNotSatisfiable: ["1t-mp-badrange"],
}


def test_all_of_them():
    assert len(ALL) == 271
    assert (len(ANSWERS), len(REDIRECTS), len(REFUSALS)) == (212, 12, 47)


def asked(meta):
    """The entries of the request, and the batch's own bucket: the one in its path."""
    entries = Entries()
    path = urlsplit(meta["path"]).path.split("/")
    entries.bucket = path[4] if len(path) > 4 else None
    for one in meta["request"]["in"]:
        entries.append(
            one["objname"], one.get("bucket"), one.get("provider"), one.get("archpath"),
            b64decode(one["opaque"]) if "opaque" in one else None, one.get("start") or 0, one.get("length") or 0,
            one.get("uname"),
        )  # fmt: skip
    return entries


def right(meta):
    """(size, hash) of each entry that comes right, None where it is missing; and whether something wrong follows."""
    found = []
    for entry in meta["entries"][: meta["delivered"]]:
        if entry.get("got"):
            return found, True
        found.append(None if entry["missing"] else (entry["size"], entry["sha256"]))
    return found, False


def facts(items):
    return [None if payload is None else (len(payload), hashlib.sha256(payload).hexdigest()) for payload, _ in items]


def take(meta, pieces, form, **options):
    request = meta["request"]
    asked_for = {"streaming": request["strm"], "only_obj_name": request["onob"], "mime": request.get("mime") or ".tar"}
    options = {**asked_for, **options}
    return deliver(asked(meta), pieces, form, **options)


def pieces(raw, seed):
    """Cut into random pieces, most of them small."""
    draw, at = random.Random(seed), 0
    while at < len(raw):
        size = draw.choice([1, 2, 3, 10, 100, 511, 512, 513, 2048, 5000])
        yield raw[at : at + size]
        at += size


def check(meta, got):
    """What came is what is right, and the error is the documented one."""
    expected, wrong = right(meta)
    count = len(meta["entries"])
    assert facts(got.items) == [fact and (fact[0], fact[1] or hashlib.sha256().hexdigest()) for fact in expected]
    for (payload, err_msg), entry in zip(got.items, meta["entries"], strict=False):
        assert (payload is None) == bool(err_msg) == entry["missing"]
    if wrong:
        assert type(got.error) is WireError
        assert got.error.layer == "batch"
        assert meta["entries"][len(expected)]["name"] in got.error.entry
    elif len(expected) < count:
        error = got.error
        assert type(error) is IncompleteBatchError
        assert (error.requested, error.received, error.attempts) == (count, len(expected), 1)
        assert error.missing == tuple(range(len(expected), count))
        assert error.rest().names == [entry["name"] for entry in meta["entries"][len(expected) :]]
        cause = error.__cause__
        assert type(cause) is (AISConnectionError if meta["end"] == "eof" else WireError)
        assert meta["entries"][len(expected)]["name"] in str(error)
    else:
        assert got.error is None
        assert got.feed.reusable == (meta["outcome"] == "complete")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("name", ANSWERS)
def test_answer(name, form):
    raw, meta = captures.load(name)
    whole = take(meta, [raw], form)
    check(meta, whole)
    for cut in ([raw[i : i + 1] for i in range(len(raw))], pieces(raw, name)):
        got = take(meta, cut, form)
        check(meta, got)
        assert got.items == whole.items  # err_msg too


@pytest.mark.parametrize("name", [n for n in ANSWERS if any(e["missing"] for e in captures.load(n)[1]["entries"])])
def test_missing_entries_that_are_an_error(name):
    raw, meta = captures.load(name)
    expected, _ = right(meta)
    holes = [i for i, fact in enumerate(expected) if fact is None]
    for form in FORMS:
        got = take(meta, pieces(raw, name), form, missing_raises=True)
        if not holes:
            check(meta, got)
        elif form == Form.COLUMNS and len(expected) < len(meta["entries"]):
            assert type(got.error) is IncompleteBatchError
        else:
            assert type(got.error) is ErrObjNotFound
            assert got.error.missing == (tuple(holes) if form == Form.COLUMNS else (holes[0],))
            if form != Form.COLUMNS:
                assert len(got.items) == holes[0]
            assert meta["entries"][holes[0]]["name"] in str(got.error)


def test_out_of_a_buffered_answer_goes_into_the_items():
    """The server's text for what is missing, here and there."""
    for name in ("1t-mp-misses", "3t-mp-misses"):
        raw, meta = captures.load(name)
        texts = [err_msg for _, err_msg in take(meta, [raw], Form.ITEMS).items]
        assert any(text and "does not exist" in text for text in texts)


@pytest.mark.parametrize("name", KINDS)
def test_answer_at_every_split_of_its_beginning(name):
    raw, meta = captures.load(name)
    for at in range(1, min(len(raw), 4096)):
        check(meta, take(meta, [raw[:at], raw[at:]], FORMS[at % 3]))
    if len(raw) < 12000:
        for form in FORMS:
            for at in range(1, min(len(raw), 4096)):
                check(meta, take(meta, [raw[:at], raw[at:]], form))


# ------------------------------------------------------------------------------------------------ refusals, redirects


def batch_at(endpoint, meta):
    """A batch that reaches the server as little changed as our own checks allow."""
    client = aisfast.Client(endpoint, policy=ONE_ANSWER)
    batch = client.batch(["x", "y"], bucket=client.bucket("cap-a"))
    batch.request.streaming_get = bool((meta["request"] or {}).get("strm", True))
    return client, batch


def ask(batch, how):
    if how == "get":
        return list(batch.get(clear_batch=False))
    return list(batch.stream()) if how == "stream" else batch.fetch()


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    raw, meta = captures.load(name)
    target = "/v1/ml/moss/cap-a/gbt-x/y/1?pid=p&utm=1"

    def script(request):
        if meta["answered_by"] == "target" and "utm=" not in request.target:
            return answer(307, Location=server.url + target)
        return Last(raw) if meta["end"] == "eof" else raw

    with Scripted(script) as server:
        client, batch = batch_at(server.url, meta)
        with client:
            for how in ("get", "stream", "fetch"):
                with pytest.raises(AISError) as caught:
                    ask(batch, how)
                error = caught.value
                if meta["status"] is None:
                    assert type(error) is AISConnectionError
                    assert error.status_code == 0
                    continue
                body = raw.split(b"\r\n\r\n", 1)[1].decode()
                assert (error.status_code, error.message) == (meta["status"], body.rstrip())
                kinds = [kind for kind, names in ASKED_OF_THE_SERVER.items() if name in names]
                assert type(error) is (kinds or [AISError])[0]
                assert error.req_url.startswith(server.url)
                assert error.req.url == error.req_url
            if meta["status"] is not None:
                assert server.connections == 1  # both legs, three times: an error's connection is kept
                assert client.stats.requests == 3


@pytest.mark.parametrize("name", REDIRECTS)
def test_redirect(name):
    """Followed to the letter, with method and body as they were."""
    raw, meta = captures.load(name)
    location = raw.split(b"Location: ", 1)[1].split(b"\r\n", 1)[0].decode()
    place = "{0.scheme}://{0.netloc}".format(urlsplit(location))
    refusal = b'HTTP/1.1 404 Not Found\r\nContent-Length: 33\r\n\r\n{"message":"no bucket ais://b/x"}\n'

    def script(request):
        return refusal if "utm=" in request.target else raw.replace(place.encode(), server.url.encode()[: len(place)])

    with Scripted(script) as server:
        assert len(server.url) <= len(place) + 1
        raw = raw.replace(place.encode(), server.url.encode())
        body = raw.split(b"\r\n\r\n", 1)[1]
        raw = raw.replace(captures.load(name)[0].split(b"Content-Length: ")[1].split(b"\r\n")[0], b"%d" % len(body), 1)
        client, batch = batch_at(server.url, meta)
        with client, pytest.raises(ErrObjNotFound):
            batch.fetch()
        first, second = server.requests
        assert second.target == location.removeprefix(place)
        assert (second.method, second.body) == ("GET", first.body) == ("GET", first.body)
        assert json.loads(first.body)["in"][0]["objname"] == "x"
        assert client.stats.redirects == 1
        nat = urlsplit(location).path.rpartition("/")[2]
        assert client.stats.targets == int(nat)
        assert parse_qs(urlsplit(second.target).query).keys() >= {"pid", "utm"}
