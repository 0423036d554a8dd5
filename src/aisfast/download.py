"""Where `aisfast get` puts entries: files below one directory, or one tar archive.

Laws: no name leads out of the directory; a file appears under its name when all of it is written, not before.
"""

from __future__ import annotations

import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TypeAlias

Write: TypeAlias = Callable[[int, memoryview], None]  # index of an entry, its payload


def relative_path(name: str, archpath: str = "") -> str:
    """The relative path, with '/', under which an entry is written: `name`, or `name/archpath`.

    Slashes that are leading or doubled, and '.', count for nothing.

    Raises:
        ValueError: The name would lead elsewhere, or no file can have it.
    """
    full = f"{name}/{archpath}" if archpath else name
    parts = [part for part in full.split("/") if part not in ("", ".")]
    strange = "\0" if os.sep == "/" else '\0\\:*?"<>|'
    if not parts or ".." in parts or any(char in strange for char in full):
        raise ValueError(f"{full!r} cannot be written as a file below a directory")
    return "/".join(parts)


def check_apart(paths: Sequence[str]) -> None:
    """See that all of them can be files below one directory.

    Raises:
        ValueError: One would have to be both a file and a directory.
    """
    files = set(paths)
    for path in paths:
        for end in (i for i, char in enumerate(path) if char == "/"):
            if path[:end] in files:
                raise ValueError(f"{path[:end]!r} would be a file and the directory of {path!r}: get them in two calls")


@contextmanager
def folder(root: Path, paths: Sequence[str]) -> Iterator[Write]:
    """Write each entry as a file of its own below `root`, which is made if it is not there.

    Args:
        root: The directory.
        paths: Of each entry, by index: as `relative_path` gives them.
    Raises:
        OSError: While writing; the path is named.
    """
    root.mkdir(parents=True, exist_ok=True)
    root = root.resolve()
    seen: set[Path] = set()

    def write(index: int, payload: memoryview) -> None:
        path = root / paths[index]
        if path.parent not in seen:
            if not path.parent.resolve().is_relative_to(root):
                raise PermissionError(1, f"a symbolic link leads out of {root}", str(path.parent))
            path.parent.mkdir(parents=True, exist_ok=True)
            seen.add(path.parent)
        with _written_whole(path) as file:
            file.write(payload)

    yield write


@contextmanager
def tar_file(file: str, paths: Sequence[str]) -> Iterator[Write]:
    """Write all entries as members of one tar archive, in order.

    Args:
        file: Path of the archive; "-": standard output.
        paths: Name of each entry's member, by index.
    Raises:
        OSError: While writing; the path is named.
    """
    opened = nullcontext(sys.stdout.buffer) if file == "-" else _written_whole(Path(file).resolve())
    with opened as out:

        def write(index: int, payload: memoryview) -> None:
            info = tarfile.TarInfo(paths[index])
            info.size = payload.nbytes
            info.mtime = int(time.time())
            out.write(info.tobuf())
            out.write(payload)
            out.write(bytes(-payload.nbytes % tarfile.BLOCKSIZE))

        yield write
        out.write(bytes(2 * tarfile.BLOCKSIZE))
        out.flush()


@contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes its name when it is complete. A pipe or a device is written as it is."""
    special = path.exists() and not path.is_file()  # opening a directory is the OSError that says so
    target = path if special else path.with_name(f".aisfast-{os.getpid()}.part")
    try:
        file = target.open("wb" if special else "xb")
        try:
            with file:
                yield file
            if not special:
                target.replace(path)
        except BaseException:
            if not special:
                target.unlink()
            raise
    except OSError as error:
        if error.errno is not None:  # not one of the library's, which has none and speaks for itself
            error.filename = str(path)
        raise
