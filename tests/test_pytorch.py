"""`aisfast.pytorch`, and everything else that PyTorch does with us. Skipped without `torch`; parts need `aistore`."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisfast
from aisfast import errors
from aisfast.emulator import Cluster

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch.utils.data import DataLoader, Dataset  # noqa: E402  # only where it is

from aisfast.pytorch import AISBatchIterDataset, EntryError  # noqa: E402

PAGE = Path(__file__).parent.parent / "docs" / "pytorch.md"
SOURCES = Path(aisfast.__file__).parent.parent
FILES = {f"{'ab'[i % 2]}/{i:02}": bytes([i]) * (i * 37) for i in range(23)}
FORMATS = [".tar", ".tgz", ".tar.gz", ".zip"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # the emulator's threads
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]
posix = pytest.mark.skipif(os.name == "nt", reason="there is no fork here")


def needs_sdk() -> Any:
    """The official module, or the test is skipped."""
    with warnings.catch_warnings():  # of its own dependencies, at import
        warnings.simplefilter("ignore")
        pytest.importorskip("alive_progress", reason="the official class needs alive-progress")
        return pytest.importorskip("aistore.pytorch.batch_iter_dataset", reason="the official SDK is not installed")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(targets=2, tail_delay=0, seed=3) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[aisfast.Client]:
    with aisfast.Client(cluster.endpoint) as made:
        yield made


@pytest.fixture
def bucket(client: aisfast.Client) -> aisfast.Bucket:
    made = client.bucket("train").create()
    for name, data in FILES.items():
        made.object(name).get_writer().put_content(data)
    return made


@pytest.fixture
def more(client: aisfast.Client) -> aisfast.Bucket:
    made = client.bucket("more").create()
    for i in range(5):
        made.object(f"m{i}").get_writer().put_content(b"more" * i)
    return made


@pytest.fixture
def theirs(cluster: Cluster, bucket: Any, more: Any) -> Iterator[Any]:
    """The official client of the same cluster."""
    needs_sdk()
    from aistore.sdk import Client

    made = Client(cluster.endpoint)
    yield made
    made._request_client.session_manager.session.close()


@contextmanager
def loading(dataset: Any, workers: int = 0, start: str | None = None) -> Iterator[Iterator[Any]]:
    """A DataLoader's iterator. A worker's error keeps it alive; let go by the garbage collector it waits for 5 s."""
    results = iter(DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context=start))
    try:
        yield results
    finally:
        if workers:
            results._shutdown_workers()


def loaded(dataset: Any, workers: int = 0, start: str | None = None) -> list[tuple[str, bytes]]:
    """All that a DataLoader makes of a dataset."""
    with loading(dataset, workers, start) as results:
        return [tuple(pair) for pair in results]


# ------------------------------------------------------------------------------------------------------------ dataset


def test_arguments_are_the_official_ones() -> None:
    official = needs_sdk().AISBatchIterDataset
    ours, known = (inspect.signature(kind.__init__).parameters for kind in (AISBatchIterDataset, official))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [(p.name, p.kind, p.default) for p in known.values()]


WAYS = {
    "plain": {},
    "small batches": {"max_batch_size": 4},
    "one batch": {"max_batch_size": 0},
    "prefix": {"prefix_map": "a/"},
    "prefixes": {"prefix_map": ["b/0", "a/1", "nothing"]},
    "all of it": {"prefix_map": None, "streaming": False, "max_batch_size": 7},
    "partitioned": {"partition_sources_by_worker": True, "max_batch_size": 5},
    "colocation": {"colocation": 1},
    **{f"{form}, {mode}": {"output_format": form, "streaming": mode == "streaming", "max_batch_size": 9}
       for form in FORMATS for mode in ("streaming", "buffered")},
}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1, pytest.param(2, marks=posix)])
@pytest.mark.parametrize("way", WAYS)
def test_same_as_official(client: aisfast.Client, bucket: Any, more: Any, theirs: Any, way: str, workers: int) -> None:
    def made(kind: Any, of: Any) -> Any:
        sources = [of.bucket("train"), of.bucket("more")]
        options = dict(WAYS[way])
        if "prefix_map" in options:
            options["prefix_map"] = {sources[0]: options["prefix_map"]}
        return kind(sources, of, **options)

    official, ours = made(needs_sdk().AISBatchIterDataset, theirs), made(AISBatchIterDataset, client)
    start = "fork" if workers else None
    expected = loaded(official, workers, start)
    assert loaded(ours, workers, start) == expected
    assert loaded(ours, workers, start) == expected  # and again
    assert len(ours) == len(official) == len(expected) > 0
    with aisfast.accelerate():
        assert loaded(official, workers, start) == expected


def test_spawned_workers(client: aisfast.Client, bucket: Any, more: Any) -> None:
    """The dataset, with its client, buckets and prefixes, pickles, also after it was iterated here."""
    dataset = AISBatchIterDataset([bucket, more], client, {bucket: ["a/", "b/0"]}, max_batch_size=6)
    here = list(dataset)
    assert sorted(loaded(dataset, 2, "spawn")) == sorted(here)
    assert len(here) == 12 + 5 + 5


def test_one_source_or_none(client: aisfast.Client, bucket: Any) -> None:
    assert dict(AISBatchIterDataset(bucket, client)) == dict(AISBatchIterDataset((bucket,), client)) == FILES
    for nothing in ([], None):
        with pytest.raises(ValueError, match="<AISBatchIterDataset> ais_source_list must be provided"):
            AISBatchIterDataset(nothing, client)


@pytest.mark.parametrize("entry", ["a/04", "b/05"])  # of each target
@pytest.mark.parametrize("streaming", [True, False])
def test_failed_objects(
    cluster: Cluster, client: aisfast.Client, bucket: Any, streaming: bool, entry: str, caplog: Any
) -> None:
    cluster.faults.add("miss", entry=entry, times=None)
    names = [name for name in sorted(FILES) if name != entry]
    skipping = AISBatchIterDataset(bucket, client, streaming=streaming, cont_on_err=True)
    with caplog.at_level(logging.WARNING, "aisfast"):
        assert [name for name, _ in skipping] == names
    assert f"Skipping {entry}: " in caplog.text
    pairs = iter(AISBatchIterDataset(bucket, client, streaming=streaming))
    assert [next(pairs)[0] for _ in range(names.index(max(n for n in names if n < entry)) + 1)][-1] < entry
    with pytest.raises(RuntimeError, match=f"^{entry}: ") as caught:
        next(pairs)
    assert isinstance(caught.value, aisfast.AISError)
    assert next(pairs, None) is None
    with pytest.raises(EntryError, match=f"{entry}: "):
        loaded(AISBatchIterDataset(bucket, client, streaming=streaming), 1)


@pytest.mark.parametrize("cont_on_err", [True, False])
def test_the_official_class_fails_alike(cluster: Cluster, theirs: Any, cont_on_err: bool, caplog: Any) -> None:
    """Of two targets it tells of a missing object that is not on the one that answers; we tell of each."""
    cluster.faults.add("miss", entry="a/04", times=None)
    dataset = needs_sdk().AISBatchIterDataset(theirs.bucket("train"), theirs, cont_on_err=cont_on_err)
    with aisfast.accelerate():
        if cont_on_err:
            assert len(list(dataset)) == len(FILES) - 1
            assert "Skipping a/04: " in caplog.text
        else:
            with pytest.raises(aisfast.ErrObjNotFound, match="a/04"):
                list(dataset)


def test_cut_answers_are_mended(cluster: Cluster, client: aisfast.Client, bucket: Any, caplog: Any) -> None:
    fault = cluster.faults.add("cut", entry="b/05", part="data")
    assert dict(AISBatchIterDataset(bucket, client)) == FILES
    assert fault.hits == 1


def test_progress(client: aisfast.Client, bucket: Any, capsys: Any) -> None:
    pytest.importorskip("alive_progress")
    assert len(list(AISBatchIterDataset(bucket, client, show_progress=True))) == len(FILES)
    assert "AISBatchIterDataset" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- what is missing here


def outcome_of(code: str, *hidden: str) -> str:
    """The last line that a fresh interpreter prints, where some packages are not installed."""
    program = f"import sys\nfor name in {hidden!r}: sys.modules[name] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    return (done.stderr or done.stdout).strip().splitlines()[-1]


def test_without_torch() -> None:
    blocked = (
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError(f'No module {name}', name='torch')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    wanted = "ImportError: aisfast.pytorch needs PyTorch: pip install torch"
    assert outcome_of(f"{blocked}import aisfast.pytorch") == wanted
    assert outcome_of(f"{blocked}import aisfast; print('fine')") == "fine"


def test_without_a_progress_bar() -> None:
    code = "from aisfast.pytorch import AISBatchIterDataset; AISBatchIterDataset([1], None, show_progress={})"
    assert outcome_of(code.format(False) + "; print('fine')", "alive_progress") == "fine"
    wanted = "ImportError: show_progress=True needs alive-progress: pip install alive-progress"
    assert outcome_of(code.format(True), "alive_progress") == wanted


def test_the_rest_of_the_official_package() -> None:
    import aisfast.pytorch as package

    assert not hasattr(package, "AISMapDataset")
    for code in ("from aisfast.pytorch import AISMapDataset", "import aisfast.pytorch.map_dataset"):
        with pytest.raises(ImportError, match=r"aistore\.pytorch\.\w+ is not part of aisfast.*aisfast\.accelerate\(\)"):
            exec(code)
    with pytest.raises(AttributeError):
        _ = package.no_such_name


# ------------------------------------------------------------------------------------------------- errors of workers


def error_classes() -> list[type[Exception]]:
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return [*ours, EntryError]


def role_classes() -> list[type[Exception]]:
    from aisfast.official import errors as roles

    return list(roles._CLASSES.values())


class Raises(Dataset):  # type: ignore[type-arg,misc]
    """Raises an error of each class in turn."""

    def __init__(self, accelerated: bool) -> None:
        self.accelerated = accelerated

    def __len__(self) -> int:
        return len(self.kinds())

    def kinds(self) -> list[type[Exception]]:
        return role_classes() if self.accelerated else error_classes()

    def __getitem__(self, index: int) -> None:
        kind = self.kinds()[index]
        if issubclass(kind, aisfast.AISError):
            raise kind(404, f"what happened to {index}", "http://x/v1/y", remedy="what to do")
        raise kind(f"what happened to {index}")


@pytest.mark.parametrize("start", [pytest.param("fork", marks=posix), "spawn"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_errors_of_workers_stay_themselves(start: str, accelerated: bool) -> None:
    if accelerated:
        needs_sdk()
    dataset = Raises(accelerated)
    kinds = dataset.kinds()
    assert len(kinds) > 15
    with loading(dataset, 1, start) as results:
        for index, kind in enumerate(kinds):
            with pytest.raises(kind) as caught:
                next(results)
            check_error(caught.value, kind, index)


def check_error(error: Any, kind: Any, index: int) -> None:
    assert type(error) is kind
    assert f"what happened to {index}" in str(error)
    assert "DataLoader worker process 0" in str(error)
    if not isinstance(error, aisfast.AISError):
        return
    assert "REQ_URL:http://x/v1/y, REMEDY:what to do" in str(error)
    fresh = kind()  # PyTorch brings the text alone: all else has its default
    names = {*vars(fresh), *(name for name in vars(kind) if not name.startswith("_"))} - {"message", "rest"}
    assert names >= {"status_code", "req_url", "req", "remedy"}
    assert {name: getattr(error, name) for name in names} == {name: getattr(fresh, name) for name in names}
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# ------------------------------------------------------------------------------------------------------ our own calls


class Fetching(Dataset):  # type: ignore[type-arg,misc]
    """A batch of two objects at each index, through a client that came along."""

    def __init__(self, client: aisfast.Client, bucket: aisfast.Bucket, names: list[str]) -> None:
        self.client, self.bucket, self.names = client, bucket, names

    def __len__(self) -> int:
        return len(self.names) // 2

    def __getitem__(self, index: int) -> tuple[int, list[bytes]]:
        names = self.names[2 * index : 2 * index + 2]
        return os.getpid(), [item.tobytes() for item in self.client.batch(names, bucket=self.bucket).stream()]


@pytest.mark.parametrize("start", [pytest.param("fork", marks=posix), "spawn"])
def test_a_client_in_a_dataset(client: aisfast.Client, bucket: Any, start: str) -> None:
    names = sorted(FILES)[:12]
    dataset = Fetching(client, bucket, names)
    here = [dataset[i][1] for i in range(len(dataset))]  # the client has open connections when the workers begin
    assert [payload for payloads in here for payload in payloads] == [FILES[name] for name in names]
    with loading(dataset, 2, start) as results:
        there = list(results)
    assert [payloads for _, payloads in there] == here
    assert len({pid for pid, _ in there} - {os.getpid()}) == 2
    assert dataset[0][1] == here[0]  # and here goes on


def test_a_missing_object_in_a_worker(client: aisfast.Client, bucket: Any) -> None:
    with pytest.raises(aisfast.ErrObjNotFound, match="train/no"):
        loaded(Fetching(client, bucket, ["a/00", "no"]), 1)


def test_tensors(client: aisfast.Client, bucket: Any) -> None:
    names = sorted(FILES)
    slab = torch.empty(1 << 16, dtype=torch.uint8)
    columns = client.batch(names, bucket=bucket).fetch(into=slab.numpy())  # no copy, no warning
    assert columns.data.ctypes.data == slab.data_ptr()
    ends = torch.from_numpy(columns.offsets.copy())
    for i, name in enumerate(names):
        assert bytes(slab[ends[i] : ends[i + 1]].tolist()) == FILES[name]
    payloads = client.batch(names, bucket=bucket).fetch()
    with warnings.catch_warnings():  # once in a process it says that the array cannot be written to
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        assert torch.equal(torch.from_numpy(payloads.data), slab[: len(payloads.data)])
        item = payloads[5]
        assert torch.equal(torch.from_numpy(item.numpy()), slab[ends[5] : ends[6]])
    assert torch.equal(torch.tensor(payloads.data.copy()), slab[: len(payloads.data)])


def test_pinned_memory(client: aisfast.Client, bucket: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("memory is pinned for CUDA, which is not here")
    slab = torch.empty(1 << 16, dtype=torch.uint8, pin_memory=True)
    columns = client.batch(sorted(FILES), bucket=bucket).fetch(into=slab.numpy())
    assert slab.is_pinned()
    moved = slab[: len(columns.data)].to("cuda", non_blocking=True).cpu()
    assert np.array_equal(moved.numpy(), columns.data)


@posix  # a program that is not in a file cannot spawn
def test_the_page(client: aisfast.Client, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    photos = client.bucket("photos").create()
    for name in ("a.jpg", "b.jpg"):
        photos.object(name).get_writer().put_content(name.encode())
    monkeypatch.setenv("AIS_ENDPOINT", client.settings.endpoint)
    start = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    try:
        for block in blocks:
            exec(block, names)
    finally:
        multiprocessing.set_start_method(start, force=True)
    assert capsys.readouterr().out == "a.jpg 5\nb.jpg 5\n"
    assert [bytes(payload.tolist()) for payload in names["payloads"]] == [b"a.jpg", b"b.jpg"]
    names["client"].close()


# -------------------------------------------------------------------------------------------------------- aisfast run

TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
from torch.utils.data import DataLoader, Dataset

def active():
    from aistore.sdk import Client
    home = sys.modules.get("aisfast.accelerate")
    return bool(home and home._active)

class Asks(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return active()

if __name__ == "__main__":
    loader = DataLoader(Asks(), batch_size=None, num_workers=2, multiprocessing_context=sys.argv[1])
    print([active(), *loader], flush=True)
"""


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    places = [str(SOURCES), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "aisfast", "run", "--", *command]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(importlib.util.find_spec("aistore") is None, reason="the official SDK is not installed")
class TestRun:
    @pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
    def test_workers(self, tmp_path: Path, start: str) -> None:
        if os.name == "nt" and start != "spawn":
            pytest.skip("Windows only spawns")
        (tmp_path / "train.py").write_text(TRAIN)
        done = run(sys.executable, "train.py", start, cwd=tmp_path)
        assert done.stdout == f"{[True] * 5}\n", done.stderr

    @posix
    def test_torchrun(self, tmp_path: Path) -> None:
        """Two ranks, each with spawned workers."""
        (tmp_path / "train.py").write_text(TRAIN)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = run(sys.executable, *launcher, "train.py", "spawn", cwd=tmp_path)
        assert done.stdout.count(str([True] * 5)) == 2, done.stderr
