"""`aisfast run -- COMMAND`: a program that nobody edits, with its official SDK accelerated.

The program gets one thing from us: a directory at the head of PYTHONPATH, with a `sitecustomize` that every Python
loads at its start. So it reaches what the program starts, too: workers by fork, spawn and forkserver, launchers and
their ranks, console scripts. It does not reach a Python that ignores PYTHONPATH (`-E`, `-I`, `-S`) or another machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HOOK = Path(__file__).parent / "hook"
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as a shell says it


def command_line(command: Sequence[str]) -> list[str]:
    """What to start: the command itself; a script or Python's own options with this Python.

    Raises:
        FileNotFoundError: There is no such program.
        PermissionError: It is one that cannot be executed.
    """
    first = command[0]
    if first.startswith("-") or (first.endswith(".py") and Path(first).is_file() and not os.access(first, os.X_OK)):
        return [sys.executable, *command]
    found = shutil.which(first)
    if found is None:
        if Path(first).is_file():
            raise PermissionError(f"{first} is not executable")
        raise FileNotFoundError(f"no program {first!r}")
    return [found, *command[1:]]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment with our hook in it."""
    places = given.get("PYTHONPATH", "").split(os.pathsep) if given.get("PYTHONPATH") else []
    hook = str(HOOK)
    return {**given, "PYTHONPATH": os.pathsep.join([hook, *(place for place in places if place != hook)])}


def run(command: Sequence[str]) -> int:
    """Become the command. Its exit code and the signals are its own.

    Raises:
        OSError: It cannot be started.
    """
    line, env = command_line(command), environment(os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":  # there the shell would go on at once
        os.execve(line[0], line, env)
    return subprocess.run(line, env=env).returncode
