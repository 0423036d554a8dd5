"""`aisfast run -- COMMAND`: programs that nobody edits, and what they start. Those with an SDK need `aistore`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import aisfast
from aisfast.run import HOOK, environment

SOURCES = Path(aisfast.__file__).parent.parent
sdk = pytest.mark.skipif(importlib.util.find_spec("aistore") is None, reason="the official SDK is not installed")
posix = pytest.mark.skipif(os.name == "nt", reason="fork, signals and shebangs are of POSIX")

ACTIVE = """
import sys, warnings
warnings.simplefilter("ignore")
assert not [name for name in sys.modules if name.split(".")[0] in ("aistore", "aisfast", "urllib3")]

def active():
    from aistore.sdk import Client
    home = sys.modules.get("aisfast.accelerate")
    return bool(home and home._active)
"""


def run(*command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    places = [str(SOURCES), more.pop("path", ""), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), **more}
    line = [sys.executable, "-m", "aisfast", "run", *command]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(f"{ACTIVE}\nif __name__ == '__main__':\n    print(active(), sys.argv[1:])\n")
    return tmp_path


@sdk
@pytest.mark.parametrize(
    "command",
    [
        ["--", sys.executable, "program.py", "--flag", "--"],
        ["program.py", "--flag", "--"],
        ["-m", "program", "--flag", "--"],
        ["--", "-m", "program", "--flag", "--"],
    ],
    ids=["python", "script", "module", "module after --"],
)
def test_programs(program: Path, command: list[str]) -> None:
    done = run(*command, cwd=program)
    assert (done.stdout, done.stderr, done.returncode) == ("True ['--flag', '--']\n", "", 0)


@sdk
@posix
def test_console_scripts(program: Path) -> None:
    script = program / "tool"
    script.write_text(f"#!{sys.executable}\n{(program / 'program.py').read_text()}")
    script.chmod(0o755)
    assert run("--", "./tool", "x", cwd=program).stdout == "True ['x']\n"


@sdk
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_workers(program: Path, start: str) -> None:
    if os.name == "nt" and start != "spawn":
        pytest.skip("Windows only spawns")
    (program / "workers.py").write_text(
        "import multiprocessing, program\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({start!r}).Pool(1) as pool: print(pool.apply(program.active))\n"
    )
    done = run("-W", "ignore", "workers.py", cwd=program)
    assert done.stdout == "True\n", done.stderr


@sdk
def test_launchers(program: Path) -> None:
    """As torchrun does: a Python that starts ranks with its own environment and more."""
    (program / "launcher.py").write_text(
        "import os, subprocess, sys\n"
        "for rank in range(2):\n"
        "    env = {**os.environ, 'RANK': str(rank)}\n"
        "    subprocess.run([sys.executable, '-u', 'program.py', str(rank)], env=env, check=True)\n"
    )
    assert run("launcher.py", cwd=program).stdout == "True ['0']\nTrue ['1']\n"


@sdk
def test_disabled(program: Path) -> None:
    assert run("program.py", cwd=program, AISFAST_DISABLE="1").stdout == "False []\n"


@sdk
def test_a_version_that_we_do_not_know(program: Path) -> None:
    (program / "future.py").write_text(
        "import program, sys, types, warnings\n"
        "sys.modules['aistore.version'] = types.ModuleType('aistore.version')\n"
        "sys.modules['aistore.version'].__version__ = '9.0'\n"
        "warnings.simplefilter('always', RuntimeWarning)\n"
        "print(program.active())\n"
    )
    done = run("future.py", cwd=program)
    assert done.stdout == "False\n"
    assert "aistore 9.0 is not one that this aisfast can accelerate" in done.stderr
    assert done.returncode == 0


def test_a_sitecustomize_of_its_own(program: Path) -> None:
    own = program / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import os; MARK = os.getpid()\n")
    (program / "asks.py").write_text(
        "import os, sitecustomize, sys; print(sitecustomize.MARK == os.getpid(), sys.path)\n"
    )
    done = run("asks.py", cwd=program, path=str(own))
    assert done.stdout.startswith("True"), done.stderr
    assert str(HOOK) not in done.stdout


def test_programs_without_an_sdk_load_nothing(program: Path) -> None:
    (program / "plain.py").write_text(
        "import sys; print([m for m in sys.modules if m.startswith(('ais', 'urllib3'))])\n"
    )
    assert run("plain.py", cwd=program).stdout == "[]\n"


def test_a_python_without_aisfast(program: Path) -> None:
    package = program / "aistore" / "sdk"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("LOADED = True\n")
    line = [sys.executable, "-S", "-c", "import sitecustomize, aistore.sdk; print(aistore.sdk.LOADED)"]
    env = environment({**os.environ, "PYTHONPATH": str(program)})
    done = subprocess.run(line, env=env, cwd=program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0)
    assert "runs without acceleration: No module named 'aisfast'" in done.stderr


def test_exit_codes(tmp_path: Path) -> None:
    assert run("--", sys.executable, "-c", "raise SystemExit(7)", cwd=tmp_path).returncode == 7
    missing = run("--", "no-such-program", cwd=tmp_path)
    assert (missing.returncode, missing.stderr) == (127, "aisfast: no program 'no-such-program'\n")
    (tmp_path / "data.txt").write_text("")
    assert run("./data.txt", cwd=tmp_path).returncode == (126 if os.name != "nt" else 127)
    assert run(cwd=tmp_path).returncode == 2
    assert run("--help", cwd=tmp_path).stdout.startswith("usage: aisfast run")


@posix
def test_signals_pass(tmp_path: Path) -> None:
    program = (
        "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(9)); "
        "print('up', flush=True); signal.pause()"
    )
    line = [sys.executable, "-m", "aisfast", "run", "--", sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": str(SOURCES)}
    with subprocess.Popen(line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 9
    if shutil.which("sh"):
        assert run("--", "sh", "-c", "kill -KILL $$", cwd=tmp_path).returncode == -signal.SIGKILL


def test_run_inside_run() -> None:
    once = environment({"PYTHONPATH": os.pathsep.join(["a", "b"])})
    assert once["PYTHONPATH"] == os.pathsep.join([str(HOOK), "a", "b"])
    assert environment(once) == once
    assert environment({})["PYTHONPATH"] == str(HOOK)
