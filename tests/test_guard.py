"""What must not get worse, by counting: page faults, allocations, copies, connections, requests, instructions.

Counts are exact and say the same on every machine; the ratios at the end have slack. Nothing here is a time.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import aisfast
from aisfast import _delivery
from aisfast.emulator import Cluster
from isolated.counts import CASES, batches

HERE = Path(__file__).parent
SCRIPT = HERE / "isolated" / "counts.py"
BASELINE = HERE / "guard.json"
SLACK = 0.03
KIB = 1024
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

COUNTING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static long count;
long allocated(void) { return count; }
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t n) { count++; return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count++; return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count++; return __libc_realloc(p, n); }
"""
TELLING = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""

# Payload bytes that are copied after they were received. A read brings as much as there is room for. PAIRS copies what
# is smaller than 64 KiB, and of what is larger the beginning; ITEMS what is cut by the end of a block; COLUMNS moves
# all that does not come alone.
COPIED = {
    "pairs 1k": 400 * 1 * KIB,
    "pairs 10k": 100 * 10 * KIB,
    "pairs 100k": 1_041_921,
    "pairs 1m": 784_760,
    "items 1k": 0,
    "items 10k": 14_669,
    "items 100k": 18_510,
    "items 1m": 784_760,
    "columns 1k": 400 * 1 * KIB,
    "columns 10k": 1_016_854,
    "columns 100k": 1_181_992,
    "columns 1m": 784_184,
}


def compiled(source: str, path: Path) -> Path:
    """A shared library; skips the test where it cannot be made."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip("needs a C compiler")
    code = path.with_suffix(".c")
    code.write_text(source)
    done = subprocess.run([*compiler, "-O1", "-shared", "-fPIC", code, "-o", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot be compiled here: {done.stderr[:200]}")
    return path


def run(*arguments: object, before: tuple[object, ...] = (), **variables: object) -> dict[str, object]:
    """What `counts.py` prints, in an interpreter of its own."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONHASHSEED": "0",
        **{name: str(value) for name, value in variables.items()},
    }
    command = [str(part) for part in (*before, sys.executable, SCRIPT, *arguments)]
    done = subprocess.run(command, env=env, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@LINUX
def test_no_page_faults_from_the_second_batch_on():
    """Fresh memory for a block or a slab would cost some in every batch; Python's own arenas come and go."""
    for case, counts in run("faults").items():
        assert sorted(counts)[5] == 0, (case, counts)


@LINUX
def test_no_allocation_for_a_read(tmp_path):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    library = compiled(COUNTING, tmp_path / "counting.so")
    for case, count in run("allocations", library, LD_PRELOAD=library).items():
        assert count == 0, case


def test_bytes_copied():
    copied = {case: batch().delivery.bytes_copied for case, batch in batches().items()}
    assert copied == COPIED


@pytest.mark.parametrize("targets", [1, 3])
def test_connections_and_requests(targets):
    """One connection to each node for any number of batches, one request and one redirect for each batch."""
    with Cluster(targets=targets, tail_delay=0) as cluster, aisfast.Client(cluster.endpoint) as client:
        bucket = client.bucket("b").create()
        names = [f"o{i}" for i in range(10)]
        for name in names:
            bucket.object(name).get_writer().put_content(b"x" * 5000)

        def some(times):
            for _ in range(times):
                batch = client.batch(names, bucket=bucket)
                assert len(list(batch.get(clear_batch=False))) == len(list(batch.stream())) == len(batch.fetch()) == 10

        some(5)
        before = client.stats.connections
        some(20)
        stats = client.stats
        assert stats.connections == before
        assert before <= 1 + 3 * targets  # those of answers whose end had not come yet
        assert (stats.requests, stats.redirects, stats.members) == (75, 75, 750)
        assert (stats.retries, stats.resumes, stats.reconnects, stats.singles) == (0, 0, 0, 0)


def key() -> str:
    """What instruction counts depend on, besides the code."""
    found = re.search(rb"(GCC|clang)[^\0]*? ([\d]+)\.[\d.]+", Path(_delivery.__file__).read_bytes())
    compiler = "unknown" if found is None else f"{found[1].decode().lower()} {found[2].decode()}"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"Python {version}, {compiler}, {platform.machine()}, {' '.join(platform.libc_ver())}"


def counted(directory: Path) -> dict[str, float]:
    """Instructions for each object, by callgrind."""
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind")
    library = compiled(TELLING, directory / "telling.so")
    command = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={directory}/out.%p")
    # a copy counts by its vectors, not by its bytes; and malloc does the same whatever was freed before
    tunables = "glibc.cpu.x86_rep_movsb_threshold=0x7fffffff:glibc.malloc.tcache_count=0:glibc.malloc.top_pad=0x4000000"
    objects = run("instructions", library, before=command, GLIBC_TUNABLES=tunables)
    counts = {}
    for path in directory.glob("out.*"):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
        if name is not None and total is not None:
            counts[name[1]] = int(total[1]) / objects[name[1]]  # type: ignore[operator]
    assert counts.keys() == objects.keys()
    return counts


@LINUX
def test_instructions_per_object(tmp_path):
    """Within 3 % of what they were; `python tests/test_guard.py` writes new ones down, if they are meant to change."""
    baseline = json.loads(BASELINE.read_text()).get(key())
    if baseline is None:
        pytest.skip(f"no baseline for {key()}")
    counts = counted(tmp_path)
    assert counts.keys() == baseline.keys()
    changed = {
        case: f"{baseline[case]:.0f} -> {count:.0f}"
        for case, count in counts.items()
        if abs(count - baseline[case]) > SLACK * baseline[case]
    }
    assert not changed


@pytest.mark.parametrize(("size", "count", "least"), [("1k", 3000, 20), ("10k", 1000, 7), ("100k", 200, 2.5)])
def test_cpu_of_the_official_sdk(size, count, least):
    """Less than 0.4 of what is aimed at would be a fault, on any machine."""
    pytest.importorskip("aistore")
    if os.name != "posix" or shutil.which(shlex.split(os.environ.get("CC", "cc"))[0]) is None:
        pytest.skip("needs POSIX and a C compiler")
    sys.path.insert(0, str(HERE.parent / "bench"))
    try:
        import getbatch
        import payloads
        import replay
    finally:
        sys.path.pop(0)
    workload = payloads.Workload(f"guard-{size}", count, CASES[size][0])
    with replay.Replay({workload.name: payloads.answer_file(workload)}) as server:
        calls = {
            name: getbatch.loop(name, getbatch.results_of(name, server.endpoint, workload, True), "drop")
            for name in ("official", "get")
        }
        spent: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(6):
            for name, call in calls.items():
                before = time.process_time()
                call()
                spent[name].append(time.process_time() - before)
    assert min(spent["official"]) >= least * min(spent["get"])


def main() -> None:
    """Write the baseline of this machine's Python and compiler down."""
    from tempfile import TemporaryDirectory

    baselines = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    with TemporaryDirectory() as directory:
        counts = counted(Path(directory))
    baselines[key()] = {case: round(count, 1) for case, count in sorted(counts.items())}
    BASELINE.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
