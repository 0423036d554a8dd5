"""What `import aisfast` costs and offers, and what distributions hold."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import aisfast

ROOT = Path(__file__).parent.parent
NOT_IN_WHEELS = (".c", ".h", ".pyx", ".pxd", ".html", ".o")
LIGHT = ["aisfast", "aisfast.accelerate", "aisfast.errors", "aisfast.policy", "aisfast.version"]


def loaded_by(code: str) -> list[str]:
    """Modules beside the standard library's that a fresh interpreter loads for some code."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\n") if name and name.partition(".")[0] not in sys.stdlib_module_names]


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_by("import aisfast") == LIGHT


def test_names_bring_what_they_need() -> None:
    assert "aisfast._items" in loaded_by("from aisfast import Item")
    assert not [name for name in loaded_by("from aisfast import Client") if name.startswith(("urllib3", "numpy"))]


def test_the_command_is_as_light() -> None:
    code = "from aisfast.cli import main\ntry: main(['--version'])\nexcept SystemExit: print()"
    assert [name for name in loaded_by(code) if not name.startswith("aisfast 0")] == sorted(
        [*LIGHT, "aisfast.cli", "aisfast.messages"]
    )


def test_import_time(record_property: Callable[[str, object], None]) -> None:
    """Told, not judged: how busy the machine is, is not the package's doing."""
    times = []
    for _ in range(3):
        program = "import time; t = time.perf_counter(); import aisfast; print(time.perf_counter() - t)"
        times.append(float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout))
    record_property("import_ms", round(min(times) * 1e3, 1))
    print(f"import aisfast: {min(times) * 1e3:.1f} ms (at most 50 wanted)")
    assert min(times) < 1


def test_public_names() -> None:
    assert set(aisfast.__all__) >= {"Client", "Bucket", "Object", "Batch", "Item", "Columns", "Policy", "__version__"}
    assert sorted(aisfast.__all__) == dir(aisfast)
    for name in aisfast.__all__:
        assert getattr(aisfast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        aisfast.Clinet  # noqa: B018


def test_version_in_one_place() -> None:
    try:
        installed = importlib.metadata.version("aisfast")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("aisfast runs from its sources, not installed")
    assert installed == aisfast.__version__


def test_metadata_names_a_licence_and_no_person() -> None:
    try:
        told = importlib.metadata.metadata("aisfast")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("aisfast runs from its sources, not installed")
    assert told["License-Expression"] == "MIT"
    assert told.get_all("License-File") == ["LICENSE"]
    assert told.get_all("Author") == ["The aisfast authors"]
    assert not {"Author-email", "Maintainer", "Maintainer-email", "Home-page", "Project-URL"} & set(told)
    assert not [one for one in told.get_all("Classifier") or [] if one.startswith("License")]  # the expression says it
    assert "The aisfast authors" in (ROOT / "LICENSE").read_text("utf-8")


def test_the_compiled_modules_are_compiled() -> None:
    for name in ("_blocks", "_decode", "_delivery", "_items", "_request"):
        module = importlib.import_module(f"aisfast.{name}")
        assert not str(module.__file__).endswith(".py")


def test_what_is_shipped_is_typed() -> None:
    home, sources = Path(aisfast.__file__).parent, ROOT / "src" / "aisfast"
    assert (home / "py.typed").exists()
    assert {path.stem for path in home.glob("_*.pyi")} == {path.stem for path in sources.glob("_*.pyx")}


# --------------------------------------------------------------------- distributions, which `make dist` leaves in dist/


def built(pattern: str) -> Path:
    found = list((ROOT / "dist").glob(pattern))
    if not found:
        pytest.skip("`make dist` builds distributions and checks them")
    assert len(found) == 1
    return found[0]


def test_the_source_distribution_has_the_sources() -> None:
    with tarfile.open(built("aisfast-*.tar.gz")) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the sources is known from git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in listed if not name.startswith(".git")} <= names
    made = (".so", ".pyd", ".pyc", "__pycache__", ".hypothesis", ".benchmarks")
    assert [name for name in names if name.endswith(made) or (name.endswith(".c") and "src/" in name)] == []


def test_a_wheel_distribution_has_what_runs(record_property: Callable[[str, object], None]) -> None:
    wheel = built("aisfast-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    sources = ROOT / "src"
    for path in sources.rglob("*.py*"):
        name = path.relative_to(sources).as_posix()
        assert (name in names) == (path.suffix in (".py", ".pyi")), name
    assert "aisfast/py.typed" in names
    for path in sources.glob("aisfast/*.pyx"):
        assert [name for name in names if name.startswith(f"aisfast/{path.stem}.") and name.endswith((".so", ".pyd"))]
    assert [name for name in names if not name.startswith("aisfast") or name.endswith(NOT_IN_WHEELS)] == []
    assert [name for name in names if re.search(r"(^|/)(tests?|fuzz)/|(^|/)(test_\w+|conftest)\.py$", name)] == []
    size = wheel.stat().st_size
    record_property("wheel_bytes", size)
    print(f"{wheel.name}: {size / 1024:.0f} KiB")
    assert size < 1 << 20


# ------------------------------------------------------------------------------ the workflows that build and check them

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))  # a source distribution has none


def jobs_of(workflow: str) -> dict[str, str]:
    """The text of each job by its name."""
    parts = re.split(r"^  ([\w-]+):\n", workflow.partition("\njobs:\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_strict(path: Path) -> None:
    """Jobs may do what they ask for and no more, actions do not change, no job hangs, the gate waits for all."""
    workflow = path.read_text("utf-8")
    assert "\npermissions: {}\n" in workflow
    used = re.findall(r"\buses: (.+)", workflow)
    pinned = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d|\./\.github/workflows/")
    assert used
    assert [one for one in used if not pinned.match(one)] == []
    jobs = jobs_of(workflow)
    bounded = re.compile(r"^    (timeout-minutes: \d|uses: \.)", re.MULTILINE)
    assert [name for name, job in jobs.items() if not bounded.search(job)] == []
    needs = re.search(r"^    needs: \[(.*)\]$", jobs["gate"], re.MULTILINE)
    assert needs is not None
    assert {*needs[1].split(", "), "gate"} == {name for name, job in jobs.items() if "needs: [gate]" not in job}
