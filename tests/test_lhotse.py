"""lhotse's `AISBatchLoader`, unmodified, under `accelerate()`: the same cuts; its own repairs where we cannot help.

Skipped without `lhotse` and `aistore`. Against the emulator, and the cluster at `AIS_ENDPOINT`.
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
import os
import random
import re
import tarfile
import warnings
import wave
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisfast
from aisfast.emulator import Cluster

with warnings.catch_warnings():  # of their own dependencies, at import
    warnings.simplefilter("ignore")
    pytest.importorskip("aistore", reason="the official SDK is not installed")
    pytest.importorskip("lhotse", reason="lhotse is not installed")
    pytest.importorskip("lhotse.ais", reason="this lhotse has no AISBatchLoader: it came with 1.32")
    from lhotse import CutSet, Features, MonoCut, Recording
    from lhotse.ais import AISBatchLoader
    from lhotse.array import Array, TemporalArray
    from lhotse.audio import AudioSource
    from lhotse.serialization import get_aistore_client

VERSION = tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("lhotse"))[:2])
points = pytest.mark.skipif(VERSION < (2, 0), reason="lhotse before 2.0 has no pointers and no such repair")
repairs = pytest.mark.skipif(VERSION < (1, 33), reason="lhotse before 1.33 repairs nothing")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
BUCKET = "aisfast-test-lhotse"
RATE = 16000
CUTS = 12
EMPTY_HANDED = "Returning unmodified cuts"  # what lhotse says of a ValueError at `get()`


# --------------------------------------------------------------------------------------------------------------- data


def samples(i: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(i).integers(-3000, 3000, 800 + 100 * i, dtype=np.int16)


def audio(i: int) -> bytes:
    """A WAV file."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples(i).tobytes())
    return made.getvalue()


def matrix(i: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(i).random((len(samples(i)) // 160, 8), dtype=np.float32)


def array(i: int) -> bytes:
    """A .npy file."""
    made = io.BytesIO()
    np.save(made, matrix(i))
    return made.getvalue()


def shard(extension: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w" if extension == ".tar" else "w:gz") as tar:
        for i in range(CUTS):
            for name, data in ((f"in/{i}.wav", audio(i)), (f"in/{i}.json", b"{}")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


OBJECTS = {
    **{f"audio/{i}.wav": audio(i) for i in range(CUTS)},
    **{f"feats/{i}.npy": array(i) for i in range(CUTS)},
    **{f"shard{extension}": shard(extension) for extension in (".tar", ".tgz", ".tar.gz")},
}


def pointer(i: int) -> str:
    """lhotse's name for a range of a shard: a member with its header, to where the next sample begins."""
    with tarfile.open(fileobj=io.BytesIO(OBJECTS["shard.tar"])) as tar:
        at = [*(member.offset for member in list(tar)[::2]), len(OBJECTS["shard.tar"])]
    return f"ais://{BUCKET}/shard.tar?o={at[i]}&e={at[i + 1]}"


def recording(i: int, place: str, kind: str = "url") -> Recording:
    n = len(samples(i))
    return Recording(f"r{i}", [AudioSource(kind, [0], place)], RATE, n, n / RATE)


def cut(i: int, **more: Any) -> MonoCut:
    return MonoCut(f"c{i}", 0, len(samples(i)) / RATE, 0, **more)


def features(i: int) -> Features:
    n = len(samples(i)) // 160
    place = f"ais://{BUCKET}/feats"
    return Features("fbank", n, 8, 0.01, RATE, 0, n * 0.01, "numpy_files", place, f"{i}.npy", f"r{i}", 0)


def arrays(i: int) -> dict[str, Any]:
    stored = Array("numpy_files", f"ais://{BUCKET}/feats", f"{i}.npy", list(matrix(i).shape))
    again = Array("numpy_files", f"ais://{BUCKET}/feats", f"{i}.npy", list(matrix(i).shape))
    return {"one": stored, "other": TemporalArray(again, 0, 0.01, 0)}


MAKERS: dict[str, Callable[[int], MonoCut]] = {
    "recordings": lambda i: cut(i, recording=recording(i, f"ais://{BUCKET}/audio/{i}.wav")),
    "members": lambda i: cut(i, recording=recording(i, f"ais://{BUCKET}/shard.tar/in/{i}.wav")),
    "members of .tgz": lambda i: cut(i, recording=recording(i, f"ais://{BUCKET}/shard.tgz/in/{i}.wav")),
    "members of .tar.gz": lambda i: cut(i, recording=recording(i, f"ais://{BUCKET}/shard.tar.gz/in/{i}.wav")),
    "features": lambda i: cut(i, features=features(i)),
    "both and arrays": lambda i: cut(
        i,
        recording=recording(i, f"ais://{BUCKET}/audio/{i}.wav"),
        features=features(i),
        custom=arrays(i),
    ),
    "pointers": lambda i: cut(i, recording=recording(i, pointer(i), "shar_ptr")),
}


def cuts(shape: str = "recordings") -> CutSet:
    """A minibatch. The loader changes it: one for each call."""
    order = [*range(CUTS), 3, 3]  # some of it twice
    random.Random(5).shuffle(order)
    made = [MAKERS[shape](i) for i in order]
    for place, one in enumerate(made):
        one.id = f"{one.id}-{place}"
    return CutSet.from_cuts(made).to_eager()


def contents(loaded: CutSet) -> list[Any]:
    """What has been put into the manifests, and that it is what was stored."""
    found = []
    for one in loaded:
        i = int(re.findall(r"\d+", one.id)[0])
        for key, manifest in one.iter_data():
            if isinstance(manifest, Recording):
                (source,) = manifest.sources
                assert source.type == "memory"
                assert np.array_equal(manifest.load_audio()[0] * 32768, samples(i))
                found.append((one.id, key, source.source))
            else:
                inner = manifest.array if isinstance(manifest, TemporalArray) else manifest
                assert inner.storage_type == "memory_raw"
                assert inner.storage_key == array(i)
                found.append((one.id, key, inner.storage_key))
    return found


# ------------------------------------------------------------------------------------------------------------ clusters


def store(endpoint: str) -> Any:
    with aisfast.Client(endpoint) as client:
        bucket = client.bucket(BUCKET)
        bucket.delete(missing_ok=True)
        bucket.create()
        for name, data in OBJECTS.items():
            bucket.object(name).get_writer().put_content(data)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An emulated cluster that holds the data; lhotse is told of it."""
    with Cluster(targets=3, tail_delay=0, seed=11) as running:
        store(running.endpoint)
        monkeypatch.setenv("AIS_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture(params=["emulator", pytest.param("cluster", marks=pytest.mark.cluster)])
def some_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "emulator":
        request.getfixturevalue("cluster")
        yield
        return
    endpoint = os.environ.get("AIS_ENDPOINT")
    if not endpoint:
        pytest.skip("AIS_ENDPOINT is not set: no real cluster")
    store(endpoint)
    yield
    with aisfast.Client(endpoint) as client:
        client.bucket(BUCKET).delete()


@pytest.fixture
def loader() -> Iterator[AISBatchLoader]:
    getattr(get_aistore_client, "cache_clear", lambda: None)()  # it keeps the client of the endpoint that was
    made = AISBatchLoader()
    yield made
    made.client._request_client.session_manager.session.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What lhotse has logged since it was asked last."""
    caplog.set_level(logging.WARNING)

    def text() -> str:
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("lhotse")]
        caplog.clear()
        assert EMPTY_HANDED not in str(lines)
        return "\n".join(lines)

    return text


# ------------------------------------------------------------------------------------------------------------ the same


@pytest.mark.parametrize("shape", [pytest.param(name, marks=points if name == "pointers" else []) for name in MAKERS])
def test_same_cuts(some_cluster: None, loader: AISBatchLoader, shape: str, said: Callable[[], str]) -> None:
    theirs = contents(loader(cuts(shape)))
    with aisfast.accelerate(policy=aisfast.Policy(resume=False)) as handle:
        ours = contents(loader(cuts(shape)))
        assert handle.active
    assert ours == theirs
    assert len(ours) >= len(cuts(shape))
    assert said() == ""


def test_it_takes_our_path(cluster: Cluster, loader: AISBatchLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both its way to add entries and its `get()`."""
    asked: list[int] = []
    whole = aisfast.Batch.get

    def get(self: aisfast.Batch, *args: Any, **options: Any) -> Any:
        asked.append(len(self))
        return whole(self, *args, **options)

    monkeypatch.setattr(aisfast.Batch, "get", get)
    with aisfast.accelerate():
        contents(loader(cuts()))
    assert asked == [CUTS + 2]


# ------------------------------------------------------------------------------------------------------ answers cut off


@pytest.mark.parametrize(
    "fault",
    [
        ("cut", {"entry": 7, "part": "data"}),
        ("cut", {"entry": 0}),
        ("short", {"entry": 5}),
        ("error", {"kind": "busy"}),
    ],
    ids=str,
)
def test_cut_answers_are_mended_by_us(
    cluster: Cluster, loader: AISBatchLoader, fault: tuple[str, dict[str, Any]], said: Callable[[], str]
) -> None:
    planned = cluster.faults.add(fault[0], **fault[1])
    repaired = cluster.faults.add("call", request="object", times=None, run=lambda _: None)
    with aisfast.accelerate():
        assert len(contents(loader(cuts()))) == CUTS + 2
    assert planned.hits == 1
    assert said() == ""
    assert repaired.hits == 0  # lhotse asked for no object


SEVENTH = "audio/{}.wav".format(*re.findall(r"\d+", list(cuts())[7].id))
ONCE = aisfast.Policy(resume=False)
ITERATING, AT_GET = "Timeout while fetching batch result at index 7", "batch.get() failed"
CANNOT_MEND = {  # what goes wrong each time, our options, what lhotse says
    "cut": (("cut", {"entry": 7, "part": "data"}), ONCE, ITERATING),
    "short": (("short", {"entry": 7}), ONCE, ITERATING),
    "nothing": (("short", {"entry": 0}), ONCE, AT_GET),
    "wrong checksum": (("corrupt", {"entry": SEVENTH}), aisfast.Policy(patience=1), ITERATING),
    "wrong checksum of the first": (("corrupt", {"entry": 0}), aisfast.Policy(patience=1), AT_GET),
    "no answer": (("error", {"kind": "busy"}), aisfast.Policy(patience=0.2), AT_GET),
    "garbage": (("garbage", {}), aisfast.Policy(patience=0.2), AT_GET),
}


@repairs
@pytest.mark.parametrize("case", CANNOT_MEND)
def test_its_own_repair_runs_where_we_cannot_mend(
    cluster: Cluster, loader: AISBatchLoader, case: str, said: Callable[[], str]
) -> None:
    (action, where), policy, words = CANNOT_MEND[case]
    fault = cluster.faults.add(action, times=None, **where)
    repaired = cluster.faults.add("call", request="object", leg="proxy", times=None, run=lambda _: None)
    with aisfast.accelerate(policy=policy):
        assert len(contents(loader(cuts()))) == CUTS + 2
    assert fault.hits >= 1
    assert words in said()
    assert repaired.hits == CUTS + 2 - (7 if words == ITERATING else 0)


@repairs
@pytest.mark.parametrize("name", ["audio/4.wav", "audio/9.wav", "audio/10.wav"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_an_entry_out_of_reach(
    cluster: Cluster, loader: AISBatchLoader, name: str, accelerated: bool, said: Callable[[], str]
) -> None:
    """It comes empty, with `err_msg`; lhotse gets it alone. Before 2.0 it asks a record for `bck`, which has none."""
    fault = cluster.faults.add("miss", entry=name, times=None)
    with aisfast.accelerate() if accelerated else nullcontext():
        if VERSION < (2, 0):
            with pytest.raises(AttributeError, match="bck"):
                loader(cuts())
        else:
            assert len(contents(loader(cuts()))) == CUTS + 2
            assert f"Object {name}/None from bucket ais://{BUCKET} returned empty content" in said()
    assert fault.hits == 1


@points
@pytest.mark.parametrize("accelerated", [False, True])
def test_skipping_what_is_gone(
    cluster: Cluster, loader: AISBatchLoader, accelerated: bool, said: Callable[[], str]
) -> None:
    with aisfast.Client(cluster.endpoint) as client:
        client.bucket(BUCKET).object("audio/4.wav").delete()
    loader.skip_failed_fetches = True
    with aisfast.accelerate() if accelerated else nullcontext():
        loaded = loader(cuts())
    assert len(contents(loaded)) == CUTS + 1
    assert "dropping 1/14 cuts" in said()


@repairs
def test_a_bucket_that_is_not_there(cluster: Cluster, loader: AISBatchLoader, said: Callable[[], str]) -> None:
    with aisfast.Client(cluster.endpoint) as client:
        client.bucket(BUCKET).delete()
    with aisfast.accelerate(), pytest.raises(Exception, match="fallback failed for audio/"):
        loader(cuts())
    assert "batch.get() failed" in said()


def test_nothing_to_load(cluster: Cluster, loader: AISBatchLoader) -> None:
    """Cuts without data: the one `ValueError` that there is, the official one's. Before 1.33 nobody catches it."""

    def outcome() -> object:
        nothing = CutSet.from_cuts([cut(0)]).to_eager()
        try:
            return list(loader(nothing)) == list(nothing)
        except ValueError as error:
            return str(error)

    loader.client  # noqa: B018  # made by the first access
    theirs = outcome()
    with aisfast.accelerate():
        assert outcome() == theirs
    assert theirs == ("No objects added to batch" if VERSION < (1, 33) else True)


def test_the_page(cluster: Cluster, loader: AISBatchLoader, capsys: pytest.CaptureFixture[str]) -> None:
    with aisfast.Client(cluster.endpoint) as client:
        client.bucket("speech").create().object("a.wav").get_writer().put_content(audio(72))
    text = (Path(__file__).parent.parent / "docs" / "lhotse.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec(blocks[0].replace("aisfast.accelerate()", "handle = aisfast.accelerate()"), names)
    with names["handle"]:
        exec(blocks[1], names)
    assert capsys.readouterr().out == "(1, 8000)\n"
    loader.client  # noqa: B018  # the same one, closed by the fixture
