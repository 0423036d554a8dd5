"""`accelerate()`: programs of the installed official SDK get the same, from us. Skipped without `aistore`."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import io
import logging
import pickle
import random
import subprocess
import sys
import tarfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

import aisfast
from aisfast.emulator import Cluster

with warnings.catch_warnings():  # of its own dependencies, at import
    warnings.simplefilter("ignore")
    pytest.importorskip("aistore", reason="the official SDK is not installed: nothing to accelerate")
    import urllib3
    from aistore.sdk import Client, errors

VERSION = tuple(int(part) for part in importlib.metadata.version("aistore").split(".")[:2])
LEGACY = VERSION < (1, 17)
modern = pytest.mark.skipif(LEGACY, reason="aistore 1.16 has no Batch")
clears = pytest.mark.skipif(VERSION < (1, 18), reason="aistore 1.16 has no Batch, that of 1.17 is never cleared")
tells = pytest.mark.skipif(VERSION < (2, 0), reason="needs aistore 2.0: ranges, buckets of names, err_msg")
legacy = pytest.mark.skipif(not LEGACY, reason="needs aistore 1.16")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FILES = {f"f{i:02}.txt": random.Random(i).randbytes(i * 700) for i in range(12)} | {
    "é/ü.txt": b"x" * 600,
    "long/" + 120 * "n": b"y",
}


def shard() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture(params=[1, 3], ids=["1 target", "3 targets"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(targets=request.param, tail_delay=0, seed=7) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Any]:
    made = Client(cluster.endpoint)
    yield made
    made._request_client.session_manager.session.close()


@pytest.fixture
def bucket(client: Any) -> Any:
    made = client.bucket("official").create()
    for name, data in FILES.items():
        made.object(name).get_writer().put_content(data)
    made.object("shard.tar").get_writer().put_content(shard())
    return made


@pytest.fixture
def fast() -> Iterator[aisfast.accelerate.__class__]:  # type: ignore[name-defined]
    with aisfast.accelerate(policy=aisfast.Policy(patience=5)) as handle:
        yield handle


def entries(seed: int) -> list[tuple[str, dict[str, Any]]]:
    """A batch drawn at random: name and what `add` is told of it."""
    draw = random.Random(seed)
    drawn: list[tuple[str, dict[str, Any]]] = []
    for _ in range(draw.randint(1, 30)):
        kind = draw.choice(["object", "object", "member", "opaque", "missing", "missing member"])
        name = draw.choice(list(FILES))
        if kind == "object":
            drawn.append((name, {}))
        elif kind == "member":
            drawn.append(("shard.tar", {"archpath": name}))
        elif kind == "opaque":
            drawn.append((name, {"opaque": draw.choice([b"id 7", b"abc", b"\x01\x02\x03"])}))
        elif kind == "missing":
            drawn.append((f"no/{draw.randint(0, 9)}", {}))
        elif sum("no" in str(entry) for entry in drawn) < 8:
            drawn.append(("shard.tar", {"archpath": "no.txt"}))
    misses = [entry for entry in drawn if entry[0].startswith("no/") or entry[1].get("archpath") == "no.txt"]
    return [entry for entry in drawn if entry not in misses[8:]]  # the official client ends short at the ninth


def send(client: Any, bucket: Any, asked: list[tuple[str, dict[str, Any]]], **options: Any) -> Any:
    """A batch the way this version makes one; what its get returns."""
    decode = {"decode_as_stream": options.pop("decode_as_stream", False)}
    if LEGACY:
        from aistore.sdk import BatchRequest

        request = BatchRequest(
            options.get("output_format", ".tar"),
            options.get("cont_on_err", True),
            options.get("only_obj_name", False),
            options.get("streaming_get", True),
        )
        for name, more in asked:
            request.add_object_request(bucket.object(name), **more)
        return client.batch_loader().get_batch(request, **decode)
    batch = client.batch(bucket=bucket, **options)
    for i, (name, more) in enumerate(asked):
        batch.add(bucket.object(name) if i % 3 == 1 else name, **more)
    return batch.get(**decode)


def told(info: Any) -> dict[str, Any]:
    return {name: getattr(info, name) for name in dir_of(info)}


def dir_of(info: Any) -> list[str]:
    return list(getattr(type(info), "model_fields", None) or info.__fields__) if type(info) is info.__class__ else [
        "obj_name", "archpath", "bucket", "provider", "opaque", "err_msg", "size", *(["is_missing"] if LEGACY else [])
    ]  # fmt: skip


def assert_same(ours: list[Any], theirs: list[Any], streaming: bool) -> None:
    """Item by item, field by field, but for what the server or older versions get wrong."""
    assert len(ours) == len(theirs)
    for (our_info, our_data), (their_info, their_data) in zip(ours, theirs, strict=True):
        assert our_data == their_data
        assert type(our_data) is bytes
        mine, official = told(our_info), told(their_info)
        if streaming and VERSION < (2, 0):  # these do not tell of a miss, and from 1.17 on of no opaque
            assert official.pop("err_msg") is None
            assert (mine.pop("err_msg") is None) == (
                bool(our_data) or our_info.obj_name == "f00.txt" or our_info.archpath == "f00.txt"
            )
            if not LEGACY:
                official["opaque"] = mine["opaque"]
        if not streaming:  # of a remote entry the server tells its member's path as its name, and no archpath
            for name in ("obj_name", "archpath", "is_missing"):
                mine.pop(name, None), official.pop(name, None)
            assert bool(mine.pop("err_msg")) == bool(official.pop("err_msg"))
        if VERSION == (1, 17) and not (official["bucket"] and official["provider"]):
            # its names have no bucket, here they have the batch's
            official |= {"bucket": mine["bucket"], "provider": mine["provider"]}
        assert mine == official


# ------------------------------------------------------------------------------------------------------------ the same


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_same_results(client: Any, bucket: Any, streaming: bool, seed: int) -> None:
    asked = entries(seed)
    options = {
        "streaming_get": streaming,
        "only_obj_name": bool(seed % 2),
        "decode_as_stream": bool(seed % 3) and (streaming or VERSION >= (2, 0)),  # older ones fail, or never end
        "output_format": [".tar", ".tgz", ".tar.gz", ".zip"][seed % 4],
    }
    theirs = list(send(client, bucket, asked, **options))
    with aisfast.accelerate():
        ours = list(send(client, bucket, asked, **options))
    assert type(ours[0][0]) is not type(theirs[0][0])
    assert_same(ours, theirs, streaming)


@tells
def test_ranges_and_other_buckets(client: Any, bucket: Any, cluster: Cluster) -> None:
    other = client.bucket("other").create()
    other.object("o").get_writer().put_content(b"0123456789")

    def run() -> list[Any]:
        batch = client.batch(["f05.txt", "f06.txt"], bucket=bucket)
        batch.add("o", bck="other", provider="ais").add(other.object("o"), start=3, length=4)
        batch.add("f07.txt", start=100, length=-1).add("shard.tar", archpath="f03.txt", start=1, length=7)
        return list(batch.get())

    theirs = run()
    with aisfast.accelerate():
        ours = run()
    assert [data for _, data in ours][2:4] == [b"0123456789", b"3456"]
    assert_same(ours, theirs, True)


@modern
def test_raw(client: Any, bucket: Any, fast: Any) -> None:
    batch = client.batch(["f05.txt"], bucket=bucket)
    answer = batch.get(raw=True)
    assert isinstance(answer, urllib3.response.HTTPResponse)
    with tarfile.open(fileobj=answer, mode="r|*") as archive:
        assert [member.size for member in archive] == [len(FILES["f05.txt"])]
    answer.close()
    assert len(batch) == (1 if VERSION < (1, 18) else 0)


@clears
def test_clearing(client: Any, bucket: Any, fast: Any) -> None:
    batch = client.batch(["f01.txt", "f02.txt"], bucket=bucket)
    first = batch.get(clear_batch=False)
    assert len(batch) == 2
    second = batch.add("f03.txt").get()  # the first one keeps what it asked for
    assert len(batch) == 0
    assert [info.obj_name for info, _ in first] == ["f01.txt", "f02.txt"]
    batch.add("f04.txt")
    assert [info.obj_name for info, _ in second] == ["f01.txt", "f02.txt", "f03.txt"]
    assert [info.obj_name for info, _ in batch.get()] == ["f04.txt"]


@tells
def test_tar_buffer_size(client: Any, bucket: Any, fast: Any) -> None:
    batch = client.batch(["f01.txt"], bucket=bucket)
    for wrong in (0, -1, True, "64"):
        with pytest.raises(ValueError, match="must be a positive integer"):
            batch.get(tar_buffer_size=wrong)
    with pytest.raises(ValueError, match="requires TAR extraction"):
        batch.get(raw=True, tar_buffer_size=512)
    with pytest.raises(ValueError, match="requires TAR extraction"):
        client.batch(["f01.txt"], bucket=bucket, output_format=".zip").get(tar_buffer_size=512)
    assert [data for _, data in batch.get(tar_buffer_size=512)] == [FILES["f01.txt"]]


@modern
def test_a_batch_that_was_made_before(client: Any, bucket: Any) -> None:
    batch = client.batch(["f01.txt"], bucket=bucket)
    with aisfast.accelerate():
        batch.add("f02.txt")
        assert len(batch.request.moss_in) == 2
        assert [data for _, data in batch.get()] == [FILES["f01.txt"], FILES["f02.txt"]]


# -------------------------------------------------------------------------------------------------------- list and adds


@clears
def test_the_list_is_real(client: Any, bucket: Any, fast: Any) -> None:
    from aistore.sdk.batch.types import MossIn, MossReq

    batch = client.batch(["f01.txt"], bucket=bucket)
    batch.add("f02.txt", opaque=b"\xfb\xff", archpath=None).add(bucket.object("f03.txt"))
    assert len(batch) == 3
    listed = batch.requests_list if hasattr(batch, "requests_list") else batch.request.moss_in
    assert type(listed) is list
    assert listed is batch.request.moss_in
    assert type(batch.request) is MossReq
    assert [type(entry) for entry in listed] == [MossIn] * 3
    assert listed[1].opaque == ("+/8=" if VERSION >= (2, 0) else "-_8=")
    listed.append(MossIn(obj_name="f04.txt", bck=bucket.name, provider="ais"))
    batch.add("f05.txt")
    assert len(batch) == 5
    assert repr(batch) == "Batch(objects=5, format=.tar)"
    assert [info.obj_name for info, _ in batch.get()] == [f"f0{i}.txt" for i in range(1, 6)]
    assert batch.request.moss_in == []
    batch.request.moss_in.append(MossIn(obj_name="f06.txt", bck=bucket.name, provider="ais"))
    assert [info.obj_name for info, _ in batch.get()] == ["f06.txt"]


@modern
def test_what_add_makes_is_what_the_official_one_makes(client: Any, bucket: Any) -> None:
    def made() -> list[Any]:
        batch = client.batch([*FILES], bucket=bucket)
        batch.add("a", b"opaque", "in/side").add(bucket.object("b"), opaque=b"").add("c", archpath="")
        batch.add(obj="d", start=0, length=0).add("")
        if VERSION >= (2, 0):
            batch.add("e", start=5, length=-1).add("f", bck="x", provider="s3").add("g", None, None, None, 7)
        return [entry.dict() for entry in batch.request.moss_in]

    theirs = made()
    with aisfast.accelerate():
        assert made() == theirs


@modern
@pytest.mark.parametrize(
    "given",
    [
        {"obj": 5},
        {"obj": None},
        {"obj": "a", "archpath": 5},
        {"obj": "a", "opaque": "text"},
        {"obj": "a", "start": -1, "length": 5},
        {"obj": "a", "start": 5},
        {"obj": "a", "bck": "x"},
        {"obj": "a", "unknown": 1},
    ],
    ids=str,
)
def test_add_refuses_what_the_official_one_refuses(client: Any, bucket: Any, given: dict[str, Any]) -> None:
    def outcome() -> tuple[type, str]:
        try:
            client.batch(bucket=bucket).add(**given)
        except Exception as error:
            return type(error), str(error)
        return type(None), "taken: older versions check less"

    theirs = outcome()
    with aisfast.accelerate():
        assert outcome() == theirs
    assert theirs[0] is not type(None) or VERSION < (1, 26)


@modern
@pytest.mark.parametrize("kind", ["one name", "one object", "objects", "mixed", "tuple", "no name"])
def test_what_a_batch_begins_with(client: Any, bucket: Any, kind: str) -> None:
    def made() -> object:
        given: Any = {
            "one name": "a",
            "one object": bucket.object("a"),
            "objects": [bucket.object("a"), bucket.object("é")],
            "mixed": ["a", bucket.object("b")],
            "tuple": ("a", "b"),
            "no name": ["a", 5],
        }[kind]
        try:
            return [entry.dict() for entry in client.batch(given, bucket=bucket).request.moss_in]
        except ValueError as error:
            return str(error)

    theirs = made()
    with aisfast.accelerate():
        assert made() == theirs


@modern
def test_names_without_a_bucket(client: Any, fast: Any) -> None:
    if VERSION < (1, 18):
        pytest.skip("aistore 1.17 takes names without a bucket")
    with pytest.raises(ValueError, match="Bucket must be provided"):
        client.batch(["a"])
    with pytest.raises(ValueError, match="Bucket must be provided"):
        client.batch().add("a")
    with pytest.raises(ValueError, match="No objects added"):
        client.batch().get()


@modern
def test_batches_copy_and_pickle(client: Any, bucket: Any, fast: Any) -> None:
    batch = client.batch(["f01.txt"], bucket=bucket)
    batch.extractor = None  # of no class that pickles in every version
    twin = copy.copy(batch)
    assert twin.request is batch.request
    assert not [name for name in vars(twin) if name.startswith("_aisfast")]
    assert [entry.obj_name for entry in copy.deepcopy(batch.request).moss_in] == ["f01.txt"]


@modern
def test_a_subclass_keeps_its_own_add(client: Any, bucket: Any, fast: Any) -> None:
    from aistore.sdk.batch.batch import Batch

    class Prefixed(Batch):  # type: ignore[misc]
        def add(self, obj: Any, *args: Any, **more: Any) -> Any:
            return super().add(f"f0{obj}.txt", *args, **more)

    batch = Prefixed(client._request_client, bucket=bucket)
    batch.add("1").add("2")
    assert [data for _, data in batch.get()] == [FILES["f01.txt"], FILES["f02.txt"]]


# ------------------------------------------------------------------------------------------------------------- records


def test_records(client: Any, bucket: Any, fast: Any) -> None:
    pairs = send(client, bucket, [("f01.txt", {"opaque": b"abc"}), ("f02.txt", {})])
    info, _ = next(pairs)
    record = type(copy.copy(info))
    assert record.__module__.startswith("aistore.sdk")
    assert record.__name__ == ("BatchResponseItem" if LEGACY else "MossOut")
    assert isinstance(info, record)
    assert info.__class__ is record
    assert not isinstance(info, Client)
    for real in (copy.copy(info), copy.deepcopy(info), pickle.loads(pickle.dumps(info))):
        assert type(real) is record
        assert info == real
        assert real == info
        assert (info != real) is False
        assert repr(info) == repr(real)
        assert str(info) == str(real)
        assert info.dict() == real.dict()
        assert dict(info) == dict(real)
        assert vars(info) == vars(real)
        if hasattr(real, "model_dump"):
            assert info.model_dump(by_alias=True) == real.model_dump(by_alias=True)
            assert info.model_dump_json(include={"obj_name"}) == '{"obj_name":"f01.txt"}'
    other, _ = next(pairs)
    assert info != other
    assert info != "f01.txt"
    with pytest.raises(TypeError):
        hash(info)
    with pytest.raises(AttributeError):
        info.no_such_field  # noqa: B018
    info.err_msg = "my own"
    assert info.err_msg == copy.copy(info).err_msg == "my own"
    assert list(pairs) == []


def test_results_are_an_iterator_that_closes(client: Any, bucket: Any, fast: Any) -> None:
    pairs = send(client, bucket, [(name, {}) for name in FILES])
    assert iter(pairs) is pairs
    assert next(pairs)[0].obj_name == next(iter(FILES))
    assert pairs.send(None)[0].obj_name == [*FILES][1]
    pairs.close()
    assert list(pairs) == []
    pairs = send(client, bucket, [(name, {}) for name in FILES])
    with pytest.raises(KeyError, match="mine"):
        pairs.throw(KeyError("mine"))
    assert list(pairs) == []


# -------------------------------------------------------------------------------------------------------------- errors


def test_errors_are_official_too(client: Any, bucket: Any, fast: Any) -> None:
    with pytest.raises(errors.ErrBckNotFound) as caught:
        send(client, client.bucket("nowhere"), [("a", {})])
    assert isinstance(caught.value, aisfast.ErrBckNotFound)
    assert isinstance(caught.value, errors.AISError)
    assert isinstance(caught.value, urllib3.exceptions.TimeoutError)
    assert not isinstance(caught.value, ValueError)
    assert caught.value.status_code == 404
    assert "nowhere" in caught.value.message
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert str(again) == str(caught.value)


def test_every_error_has_its_official_class() -> None:
    from aisfast import errors as ours
    from aisfast.official.errors import translate

    kinds = [kind for kind in vars(ours).values() if isinstance(kind, type) and issubclass(kind, ours.AISError)]
    assert len(kinds) > 12
    for kind in kinds:
        if kind is ours.NoTargetError:  # of REST calls, which stay the official client's
            continue
        error = kind(404, "what", "http://x", remedy="do")
        translate(error)
        assert isinstance(error, (getattr(errors, kind.__name__, errors.AISError), kind)) is True
        assert isinstance(error, getattr(errors, kind.__name__, errors.AISError))
        assert isinstance(error, urllib3.exceptions.TimeoutError)
        assert not isinstance(error, ValueError)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.status_code) == (type(error), str(error), 404)
        assert str(type(error)("of a worker")) == str(type(error)(message="of a worker")) == "of a worker"


def test_no_connection(cluster: Cluster) -> None:
    import requests

    client = Client("http://127.0.0.1:9", timeout=1)
    with aisfast.accelerate(), pytest.raises(errors.AISError) as caught:
        send(client, client.bucket("b"), [("a", {})])
    assert isinstance(caught.value, aisfast.AISConnectionError)
    assert isinstance(caught.value, requests.exceptions.ConnectionError)
    client._request_client.session_manager.session.close()


@pytest.mark.parametrize("part", ["header", "data"])
def test_cut_answers_are_mended(client: Any, bucket: Any, cluster: Cluster, fast: Any, part: str) -> None:
    fault = cluster.faults.add("cut", entry="f05.txt", part=part)
    assert [data for _, data in send(client, bucket, [(name, {}) for name in FILES])] == [*FILES.values()]
    assert fault.hits == 1


@pytest.mark.parametrize("clean", [True, False])
def test_without_resume_a_cut_answer_is_an_error_to_repair(
    client: Any, bucket: Any, cluster: Cluster, clean: bool
) -> None:
    cluster.faults.add(*(("short",) if clean else ("cut",)), entry="f05.txt", times=None)
    with aisfast.accelerate(policy=aisfast.Policy(resume=False)):
        pairs = send(client, bucket, [(name, {}) for name in FILES])
        got = [data for _, data in zip(range(5), (pair[1] for pair in pairs), strict=False)]
        with pytest.raises(urllib3.exceptions.TimeoutError) as caught:
            next(pairs)
        assert isinstance(caught.value, errors.AISError)
        assert isinstance(caught.value, aisfast.IncompleteBatchError)
        assert got == [*FILES.values()][:5]
        assert caught.value.missing[0] == 5
        assert list(pairs) == []


@modern
def test_what_can_fail_before_the_first_entry_fails_at_the_call(client: Any, bucket: Any, cluster: Cluster) -> None:
    cluster.faults.add("short", entry=0, times=None)
    with aisfast.accelerate(policy=aisfast.Policy(resume=False)):
        batch = client.batch([*FILES], bucket=bucket)
        with pytest.raises(errors.AISError):
            batch.get()
        assert len(batch) == len(FILES)  # nothing was handed out: it may be sent again
        cluster.faults.clear()
        assert len(list(batch.get())) == len(FILES)


@modern
def test_a_missing_entry_that_ends_the_batch(client: Any, bucket: Any, fast: Any) -> None:
    pairs = client.batch(["f01.txt", "no"], bucket=bucket, cont_on_err=False).get()
    assert next(pairs)[0].obj_name == "f01.txt"
    with pytest.raises(errors.ErrObjNotFound, match="no"):
        next(pairs)


# ------------------------------------------------------------------------------------------------------------ settings


def settings_of(client: Any, policy: aisfast.Policy | None = None) -> aisfast.Client:
    from aisfast.official.client import Clients
    from aisfast.official.shape import examine

    return Clients(examine()).of(client._request_client, policy)


def test_settings_are_taken_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import requests

    for name in ("AIS_CONNECT_TIMEOUT", "AIS_READ_TIMEOUT", "AIS_CLIENT_CA", "AIS_AUTHN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("AIS_AUTHN_TOKEN_FILE", str(tmp_path / "not there"))  # the official one does not read it
    plain = settings_of(Client("http://a:1")).settings
    assert (plain.endpoint, plain.token, plain.max_pool) == ("http://a:1", None, 10)
    assert (plain.connect_timeout, plain.read_timeout, plain.batch_read_timeout) == (3, 20, 90)
    assert plain.ca_cert == requests.certs.where()
    told = Client("https://a:1/", token="t", timeout=(5, 7), max_pool_size=3, client_cert=("c", "k"), ca_cert="ca")
    mine = settings_of(told).settings
    assert (mine.endpoint, mine.token, mine.max_pool) == ("https://a:1", "t", 3)
    assert (mine.connect_timeout, mine.read_timeout, mine.batch_read_timeout) == (5, 7, 7)
    assert (mine.ca_cert, mine.client_cert, mine.skip_verify) == ("ca", ("c", "k"), False)
    assert settings_of(Client("http://a:1", skip_verify=True)).settings.skip_verify
    assert settings_of(Client("http://a:1", timeout=4.0)).settings.batch_read_timeout == 4
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "bundle")
    assert settings_of(Client("http://a:1")).settings.ca_cert == "bundle"


def test_retries_that_are_turned_off() -> None:
    import tenacity
    from aistore.sdk import RetryConfig

    off = RetryConfig(
        http_retry=urllib3.Retry(total=0), network_retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(1))
    )
    assert settings_of(Client("http://a:1")).policy == aisfast.Policy()
    assert settings_of(Client("http://a:1", retry_config=off)).policy == aisfast.Policy(resume=False)
    given = aisfast.Policy(patience=3)
    assert settings_of(Client("http://a:1", retry_config=off), given).policy == given


def test_settings_that_change(cluster: Cluster, client: Any, bucket: Any, fast: Any) -> None:
    def fetched() -> int:
        return len(list(send(client, bucket, [("f01.txt", {})])))

    assert fetched() == 1
    cluster.token = "secret"
    with pytest.raises(errors.AISError) as caught:
        fetched()
    assert caught.value.status_code == 401
    client._request_client.token = "secret"
    assert fetched() == 1
    assert "secret" not in str(caught.value)


def test_tls(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trustme = pytest.importorskip("trustme")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to what the client was told
        monkeypatch.delenv(name, raising=False)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = ca.issue_cert("127.0.0.1")
    cert.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    with Cluster(tls=(str(tmp_path / "node.pem"), str(tmp_path / "node.pem")), tail_delay=0) as cluster:
        for options in ({"ca_cert": str(tmp_path / "ca.pem")}, {"skip_verify": True}):
            client = Client(cluster.endpoint, **options)
            bucket = client.bucket("b").create() if "ca_cert" in options else client.bucket("b")
            bucket.object("o").get_writer().put_content(b"data")
            with aisfast.accelerate():
                assert [data for _, data in send(client, bucket, [("o", {})])] == [b"data"]
            client._request_client.session_manager.session.close()
        stranger = Client(cluster.endpoint)
        with aisfast.accelerate(), pytest.raises(errors.AISError, match="certificate"):
            send(stranger, stranger.bucket("b"), [("o", {})])
        stranger._request_client.session_manager.session.close()


@modern
def test_a_namespace_is_kept(cluster: Cluster, fast: Any) -> None:
    """The official client drops it, and finds nothing."""
    from aistore.sdk.namespace import Namespace

    ours = aisfast.Client(cluster.endpoint)
    ours.bucket("b", namespace=aisfast.models.Namespace("", "ns")).create().object("o").get_writer().put_content(b"in")  # type: ignore[attr-defined]
    client = Client(cluster.endpoint)
    bucket = client.bucket("b", namespace=Namespace(name="ns"))
    ((info, data),) = client.batch(["o"], bucket=bucket).get()
    assert (info.obj_name, info.bucket, data) == ("o", "b", b"in")
    ours.close()
    client._request_client.session_manager.session.close()


# ---------------------------------------------------------------------------------- what is left to the official code


@modern
def test_a_client_that_is_not_the_sdks_own(client: Any, bucket: Any, fast: Any, caplog: Any) -> None:
    from aistore.sdk.batch.batch import Batch

    stub = mock.Mock()
    stub.request.side_effect = errors.AISError(500, "stub", "", None)
    for _ in range(2):
        with pytest.raises(errors.AISError, match="stub"):
            Batch(stub, ["f01.txt"], bucket).get()
    assert stub.request.call_count == 2
    assert [record.getMessage() for record in caplog.records] == [
        "Batch.get takes the official way: request_client is Mock, not the SDK's own RequestClient"
    ]
    with (
        mock.patch.object(client._request_client, "request", stub.request),
        pytest.raises(errors.AISError, match="stub"),
    ):
        client.batch(["f01.txt"], bucket=bucket).get()
    with mock.patch.object(type(client._request_client), "request", stub.request), pytest.raises(errors.AISError):
        client.batch(["f01.txt"], bucket=bucket).get()
    assert stub.request.call_count == 4


def test_a_session_with_headers_of_its_own(client: Any, bucket: Any, fast: Any, caplog: Any) -> None:
    client._request_client.session_manager.session.headers["X-Mine"] = "1"
    got = list(send(client, bucket, [("f01.txt", {})]))
    assert got[0][1] == FILES["f01.txt"]
    assert type(got[0][0]) is got[0][0].__class__  # a record of theirs
    assert "headers or hooks of its own" in caplog.text


@modern
@pytest.mark.parametrize("given", [{"opaque": "%%%"}, {"obj_name": "\ud800"}], ids=str)
def test_entries_that_we_cannot_say(client: Any, bucket: Any, given: dict[str, Any]) -> None:
    """The official client says them, as it can; there is no ValueError of ours."""
    from aistore.sdk.batch.types import MossIn

    def outcome() -> tuple[type, object]:
        batch = client.batch(bucket=bucket)
        batch.request.moss_in.append(MossIn(**{"obj_name": "f01.txt", "bck": bucket.name, "provider": "ais", **given}))
        try:
            return list, list(batch.get())
        except errors.AISError as error:
            return type(error), error.status_code

    theirs = outcome()
    with aisfast.accelerate():
        assert outcome() == theirs
    assert theirs == (errors.AISError, 400) or "obj_name" in given


# ----------------------------------------------------------------------------------------------------- on and off again


def target() -> Any:
    if LEGACY:
        from aistore.sdk.batch.batch_loader import BatchLoader

        return BatchLoader
    from aistore.sdk.batch.batch import Batch

    return Batch


def test_undo_leaves_nothing() -> None:
    before = dict(vars(target()))
    handle = aisfast.accelerate()
    assert handle.active
    assert dict(vars(target())) != before
    handle.undo()
    assert not handle.active
    assert dict(vars(target())) == before
    handle.undo()
    assert dict(vars(target())) == before


def test_signatures_stay() -> None:
    names = ("get_batch",) if LEGACY else ("__init__", "add", "get", *(["clear"] if VERSION > (1, 17) else []))
    before = {name: inspect.signature(getattr(target(), name)) for name in names}
    with aisfast.accelerate():
        assert {name: inspect.signature(getattr(target(), name)) for name in names} == before
        assert {getattr(target(), name).__doc__ for name in names} != {None}


def test_nested() -> None:
    before = dict(vars(target()))
    outer = aisfast.accelerate()
    with aisfast.accelerate() as inner:
        assert outer.active
        outer.undo()
        assert inner.active
        assert dict(vars(target())) != before
        ours = dict(vars(target()))
        with aisfast.accelerate():
            assert dict(vars(target())) == ours  # the same methods, not methods around methods
    assert dict(vars(target())) == before


@modern
def test_undo_in_the_middle(client: Any, bucket: Any) -> None:
    handle = aisfast.accelerate()
    under_way = client.batch([*FILES], bucket=bucket).get()
    waiting = client.batch(["f01.txt"], bucket=bucket).add("f02.txt")
    handle.undo()
    assert [data for _, data in under_way] == [*FILES.values()]
    assert [entry.obj_name for entry in waiting.request.moss_in] == ["f01.txt", "f02.txt"]
    assert not [name for name in vars(waiting) if name.startswith("_aisfast")]
    assert [data for _, data in waiting.get()] == [FILES["f01.txt"], FILES["f02.txt"]]


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(vars(target()))
    monkeypatch.setenv("AISFAST_DISABLE", "1")
    with aisfast.accelerate() as handle:
        assert not handle.active
        assert dict(vars(target())) == before


@pytest.mark.parametrize("version", ["1.14.2", "3.0.0", "1.15.1", "what"])
def test_versions_that_we_do_not_know(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    before = dict(vars(target()))
    monkeypatch.setattr("aistore.version.__version__", version)
    with pytest.raises(aisfast.UnsupportedVersionError, match=version):
        aisfast.accelerate()
    assert dict(vars(target())) == before


def test_shapes_that_we_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_batch(self: Any, new_argument: int) -> None: ...

    def get(self: Any, raw: bool = False, new_argument: int = 0) -> None: ...

    monkeypatch.setattr(target(), "get_batch" if LEGACY else "get", get_batch if LEGACY else get)
    before = dict(vars(target()))
    with pytest.raises(aisfast.UnsupportedVersionError, match="new_argument"):
        aisfast.accelerate()
    assert dict(vars(target())) == before


def test_warn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aistore.version.__version__", "9.9.9")
    monkeypatch.setattr(sys.modules["aisfast.accelerate"], "_warned", False)
    with pytest.warns(RuntimeWarning, match=r"9\.9\.9"):
        handle = aisfast.accelerate(on_unsupported="warn")
    assert not handle.active
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not aisfast.accelerate(on_unsupported="warn").active


@pytest.mark.parametrize(
    "wrong", [{"on_unsupported": "ignore"}, {"shadow": 2}, {"shadow": True}, {"policy": {}}], ids=str
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        aisfast.accelerate(**wrong)


def test_threads(client: Any, bucket: Any, fast: Any) -> None:
    wrong: list[object] = []

    def work() -> None:
        for _ in range(5):
            got = [data for _, data in send(client, bucket, [(name, {}) for name in FILES])]
            if got != [*FILES.values()]:
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_importing_loads_no_sdk() -> None:
    program = "import aisfast, sys; aisfast.accelerate; sys.exit('aistore' in sys.modules or 'urllib3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -------------------------------------------------------------------------------------------------------------- shadow


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_shadow_finds_no_difference(client: Any, bucket: Any, streaming: bool) -> None:
    with aisfast.accelerate(shadow=1) as handle:
        for seed in range(4):
            asked = entries(seed)
            got = list(send(client, bucket, asked, streaming_get=streaming))
            assert len(got) == len(asked)
    assert (handle.shadowed, handle.differences, handle.mended) == (4, 0, 0)


def test_shadow_counts_what_we_mend(client: Any, bucket: Any, cluster: Cluster) -> None:
    cluster.faults.add("short", entry=5)  # the official client's answer, which is the first
    with aisfast.accelerate(shadow=1) as handle:
        assert len(list(send(client, bucket, [(name, {}) for name in FILES]))) == len(FILES)
    assert (handle.shadowed, handle.differences, handle.mended) == (1, 0, 1)


def test_shadow_tells_a_difference(
    client: Any, bucket: Any, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    changed = b"z" * len(FILES["f03.txt"])
    cluster.faults.add("call", nth=2, run=lambda _: bucket.object("f03.txt").get_writer().put_content(changed))
    with aisfast.accelerate(shadow=1) as handle, caplog.at_level(logging.WARNING, "aisfast"):
        got = [data for _, data in send(client, bucket, [(name, {}) for name in FILES])]
    assert got[3] == changed
    assert (handle.shadowed, handle.differences, handle.mended) == (1, 1, 0)
    assert "entry 3 (official/f03.txt)" in caplog.text


def test_shadow_takes_its_share(client: Any, bucket: Any) -> None:
    with aisfast.accelerate(shadow=0.5) as handle:
        for _ in range(40):
            list(send(client, bucket, [("f01.txt", {})]))
    assert 5 < handle.shadowed < 35


# --------------------------------------------------------------------------------------------------------------- 1.16


@legacy
def test_a_request_is_sent_again(client: Any, bucket: Any, fast: Any) -> None:
    from aistore.sdk import BatchRequest

    request = BatchRequest()
    request.add_object_request(bucket.object("f01.txt"))
    loader = client.batch_loader()
    assert len(list(loader.get_batch(request))) == 1
    request.add_object_request(bucket.object("f02.txt"))
    assert [data for _, data in loader.get_batch(request)] == [FILES["f01.txt"], FILES["f02.txt"]]
    with pytest.raises(ValueError, match="must not be empty"):
        loader.get_batch(BatchRequest())
    assert isinstance(loader.get_batch(request, return_raw=True), urllib3.response.HTTPResponse)
