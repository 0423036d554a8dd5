"""Multipart: the metadata part, then the archive part, never searched, whose end is the body's end."""

import json
import time

import pytest

import wire
from aisfast._decode import Multipart, boundary_of
from aisfast.errors import LimitError, WireError
from feeding import check_bad, check_good, run, splits

B = wire.BOUNDARY.encode()
HEADERS_1 = b'Content-Disposition: form-data; name="metadata"\r\n'
HEADERS_2 = b"Content-Type: application/octet-stream\r\n"
JSON = b'{"uuid":"x","out":[]}\n'


def multipart():
    return Multipart(B)


def body(metadata=JSON, archive=b"archive", boundary=B, headers_1=HEADERS_1, headers_2=HEADERS_2, close=None):
    """A body whose every piece can be wrong."""
    close = b"\r\n--%b--\r\n" % boundary if close is None else close
    return (
        b"--%b\r\n%b\r\n%b\r\n--%b\r\n%b\r\n" % (boundary, headers_1, metadata, boundary, headers_2)
        + archive
        + close
    )


def events(metadata=JSON, archive=b"archive"):
    return [("metadata", metadata)] + ([("archive", archive)] if archive else [])


# ------------------------------------------------------------------------------------------ lawful


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"x",
        wire.TRAILER,
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n--",
        b"\r\n--" + B,
        b"\r\n--" + B + b"\r\n",
        b"--" + B + b"--\r\n",
        b"\r\n--" + B + b"-",
        b"\r\n--" + B[:-1] + b"x--\r\n",
        b"\r\n" * 60,
        b"line\r\n-line\r\n--line",
    ],
)
def test_archive_is_never_searched(archive):
    check_good(multipart, body(archive=archive), events(archive=archive))


@pytest.mark.parametrize(
    "inside", [b"\r\n--" + B + b"--", b"\r\n--" + B + b"--\r\n", (b"\r\n--" + B + b"--\r\n") * 2 + b"x"]
)
def test_archive_may_hold_the_close_delimiter(inside):
    for pieces in splits(body(archive=inside)):
        outcome = run(multipart, pieces)
        assert outcome.done
        assert outcome.events == events(archive=inside)


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{}",
        JSON,
        b"\r",
        b"\r\n",
        b"\r\n--",
        b"--" + B,
        b"\n--" + B,
        b"\r\n--" + B[:-1],
        "é\u2028".encode(),
    ],
)
def test_metadata_runs_to_its_delimiter(metadata):
    check_good(multipart, body(metadata), events(metadata))


def test_headers_of_parts():
    check_good(multipart, body(headers_1=b"", headers_2=b""), events())
    many = b"".join(b"X-%d: y\r\n" % i for i in range(40))
    check_good(multipart, body(headers_1=many, headers_2=many), events())


@pytest.mark.parametrize("boundary", [b"a", b"-", b"--", b"a--", b"0" * 70, b"'()+_,-./:=? x"])
def test_boundaries(boundary):
    archive = b"\r\n--" + boundary + b"\r\n"
    check_good(lambda: Multipart(boundary), body(archive=archive, boundary=boundary), events(archive=archive))


def test_answer_as_a_cluster_writes_it():
    entries = [wire.Entry("a", b"x" * 700), wire.Entry("<&>", b""), wire.Entry("gone", missing=True)]
    answer = wire.buffered(entries)
    outcome = run(multipart, [answer.body])
    assert outcome.done
    (_, metadata), (_, archive) = outcome.events
    assert [out["size"] for out in json.loads(metadata)["out"]] == [700, 0, 0]
    assert archive == b"".join(wire.tar(entries)[0])


def test_metadata_comes_before_the_archive_does():
    whole = body()
    front = whole[: whole.index(b"archive")]
    for stop in range(len(front)):
        assert [event[0] for event in run(multipart, [whole[:stop]]).events] in ([], ["metadata"])
    assert run(multipart, [front]).events == [("metadata", JSON)]


def test_archive_is_held_back_by_no_more_than_the_close_delimiter():
    decoder = multipart()
    decoder.feed(body(archive=b"", close=b""))
    held = len(b"\r\n--" + B + b"--\r\n")
    got = 0
    for i in range(5000):
        got += sum(len(data) for _, data in decoder.feed(b"x" * 7))
        assert got >= 7 * (i + 1) - held


# ---------------------------------------------------------------------------------------- unlawful


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"preamble\r\n" + body(), id="preamble"),
        pytest.param(b"\r\n" + body(), id="empty-preamble"),
        pytest.param(body(boundary=B[:-1] + b"x"), id="other-boundary"),
        pytest.param(body(boundary=B[:-1]), id="shorter-boundary"),
        pytest.param(body(boundary=B + b"0"), id="longer-boundary"),
        pytest.param(body().replace(b"--" + B + b"\r\n", b"--" + B + b"\n", 1), id="lf-after-first"),
        pytest.param(body().replace(b"--" + B + b"\r\n", b"--" + B + b" \r\n", 1), id="padding-after-first"),
        pytest.param(b"--" + B + b"--\r\n", id="no-part"),
        pytest.param(b"-" + body(), id="dash"),
        pytest.param(body()[1:], id="one-dash"),
        pytest.param(b'{"message":"not multipart"}' + b" " * 100, id="json"),
        pytest.param(wire.TRAILER, id="tar"),
    ],
)
def test_opening_refused(raw):
    error = check_bad(multipart, raw, events=[], offset=range(len(raw) + 1))
    assert error.layer == "multipart"
    assert error.expected


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            b"--" + B + b"\r\n" + HEADERS_1 + b"\r\n" + JSON + b"\r\n--" + B + b"--\r\n", id="one-part-only"
        ),
        pytest.param(body().replace(b"\r\n--" + B + b"\r\n", b"\r\n--" + B + b"\n"), id="lf-after-second"),
        pytest.param(body().replace(b"\r\n--" + B + b"\r\n", b"\r\n--" + B + b"x\r\n"), id="longer-second"),
        pytest.param(
            body().replace(b"\r\n--" + B + b"\r\n", b"\r\n--" + B + b"\r\r\n"), id="cr-after-second"
        ),
    ],
)
def test_second_delimiter_refused(raw):
    assert check_bad(multipart, raw, events=events(archive=b"")).layer == "multipart"


@pytest.mark.parametrize(
    "close",
    [
        b"",
        b"\r\n",
        b"\r\n--" + B,
        b"\r\n--" + B + b"\r\n",
        b"\r\n--" + B + b"--",
        b"\r\n--" + B + b"-\r\n",
        b"\r\n--" + B + b"--\n",
        b"\n--" + B + b"--\r\n",
        b"--" + B + b"--\r\n",
        b"\r\n--" + B[:-1] + b"x--\r\n",
        b"\r\n--" + B[1:] + b"--\r\n",
        b"\r\n--" + B.upper() + b"--\r\n",
        b"\r\n--" + B + b"--\r\n\r\n",
        b"\r\n--" + B + b"--\r\nepilogue",
        b"\r\n--" + B + b"-- \r\n",
    ],
)
def test_close_delimiter_refused(close):
    archive = b"archive"
    error = check_bad(multipart, body(archive=archive, close=close), events=events(archive=archive + close))
    assert error.layer == "multipart"
    assert error.offset == len(body(archive=archive, close=close))


def test_nothing_behind_the_end():
    decoder = multipart()
    decoder.feed(body())
    assert not decoder.done
    decoder.close()
    assert decoder.done
    with pytest.raises(WireError):
        decoder.feed(b"x")


# ------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("piece", [1, 17, 1000])
def test_metadata_over_the_limit(piece):
    def decode(raw, limit):
        return run(lambda: Multipart(B, limit), [raw[i : i + piece] for i in range(0, len(raw), piece)])

    assert decode(body(b"m" * 100), 100).done
    over = decode(body(b"m" * 101), 100)
    assert isinstance(over.error, LimitError)
    assert over.error.layer == "multipart"
    assert over.events == []
    endless = decode(body(b"m" * 5000)[:4000], 100)
    assert isinstance(endless.error, LimitError)
    assert endless.fed
    assert endless.error.offset <= len(body(b"")) + 100 + piece + 70


@pytest.mark.parametrize("where", ["headers_1", "headers_2"])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_part_headers_over_the_limit(where, piece):
    raw = body(**{where: b"X: " + b"y" * (70 << 10) + b"\r\n"})
    outcome = run(multipart, [raw[i : i + piece] for i in range(0, len(raw), piece)])
    assert isinstance(outcome.error, LimitError)
    assert outcome.error.layer == "multipart"


@pytest.mark.parametrize("unit", [b"\r", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--" + B[:-1], b"-"])
def test_near_misses_take_linear_time(unit):
    metadata = unit * ((4 << 20) // len(unit))
    raw = body(metadata, archive=metadata)
    started = time.process_time()
    outcome = run(multipart, [raw[i : i + 1000] for i in range(0, len(raw), 1000)])
    assert outcome.done
    assert outcome.events == events(metadata, metadata)
    assert time.process_time() - started < 5  # rescanning from the start would take minutes


# -------------------------------------------------------------------------------- the content type


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/mixed; boundary=abc", b"abc"),
        ('multipart/mixed; boundary="abc"', b"abc"),
        ("multipart/mixed;boundary=abc", b"abc"),
        ("multipart/mixed; boundary=abc; charset=x", b"abc"),
        ("multipart/mixed; charset=x; boundary=abc", b"abc"),
        ('multipart/mixed; charset="a;boundary=no"; boundary=abc', b"abc"),
        ("Multipart/Mixed; Boundary=aBc", b"aBc"),
        ("multipart/mixed ; boundary=abc ", b"abc"),
        ('multipart/mixed; boundary="a b;c=d"', b"a b;c=d"),
        (r'multipart/mixed; boundary="a\"b\\c"', b'a"b\\c'),
        ("multipart/mixed; boundary=" + "0" * 70, b"0" * 70),
        ("multipart/mixed; boundary=a=b", b"a=b"),
        (f"multipart/mixed; boundary={wire.BOUNDARY}", B),
    ],
)
def test_boundary_of(content_type, boundary):
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/mixed",
        "multipart/mixed;",
        "multipart/mixed; boundary",
        "multipart/mixed; boundary=",
        'multipart/mixed; boundary=""',
        "multipart/mixed; charset=x",
        "multipart/mixed; xboundary=abc",
        'multipart/mixed; charset="boundary=abc"',
        "multipart/mixed; boundary=é",
        'multipart/mixed; boundary="a\r\nb"',
        'multipart/mixed; boundary="a "',
        "multipart/mixed; boundary=" + "0" * 71,
        "multipart/mixed; boundary=" + "0" * 100_000,
        "application/x-tar",
    ],
)
def test_no_boundary(content_type):
    with pytest.raises(WireError) as info:
        boundary_of(content_type)
    assert info.value.layer == "multipart"
    assert len(str(info.value)) < 1000
