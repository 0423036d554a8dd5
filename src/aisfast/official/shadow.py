"""A batch fetched both ways, entry by entry: do the official code and ours hand out the same?

The official code goes first and is read to its end, as it is cut off when its consumer takes its time. What it gave is
kept as fields and a hash.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aisfast.errors import AISError

if TYPE_CHECKING:
    from aisfast.accelerate import Acceleration

Entry = tuple[tuple[str, ...], tuple[Any, ...], Any, bool]  # names, size and hash, opaque, whether it is missing
NAMES = ("obj_name", "archpath", "bucket", "provider")

logger = logging.getLogger("aisfast")


@dataclass
class Recorded:
    """What the official code gave.

    Attributes:
        entries: Of each what is compared.
        error: What ended it, or None.
    """

    entries: list[Entry] = field(default_factory=list)
    error: Exception | None = None


def recorded(theirs: Callable[[], Any]) -> Recorded:
    """What the official code gives."""
    seen = Recorded()
    try:
        for info, data in theirs():
            seen.entries.append(_entry(info, data))
    except Exception as error:  # of whatever kind: it must not reach the program, which is served by us
        seen.error = error
    return seen


def _entry(info: Any, data: bytes) -> Entry:
    names = tuple(getattr(info, name) or "" for name in NAMES)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return names, (info.size, digest), info.opaque, info.err_msg is not None


def compared(ours: Callable[[], Any], seen: Recorded, counts: Acceleration, *, names: bool) -> Iterator[Any]:
    """What we give, compared with what the official code gave.

    Args:
        names: The names count too: in buffered mode the server's are not always those asked for.
    """
    counts.shadowed += 1
    try:
        pairs = ours()
    except AISError as error:
        _tell_end(seen, 0, error, counts)
        raise
    return _compared(pairs, seen, counts, names)


def _compared(pairs: Any, seen: Recorded, counts: Acceleration, names: bool) -> Iterator[Any]:
    differs = False
    i = 0
    try:
        for info, data in pairs:
            if i < len(seen.entries) and not differs:
                why = _difference(_entry(info, data), seen.entries[i], names)
                if why:
                    differs = True
                    _tell(f"entry {i} ({info.bucket}/{info.obj_name}): {why}", counts)
            i += 1
            yield info, data
    except AISError as error:
        if not differs:
            _tell_end(seen, i, error, counts)
        raise
    finally:
        pairs.close()
    if not differs:
        _tell_end(seen, i, None, counts)


def _difference(ours: Entry, theirs: Entry, names: bool) -> str:
    if names and any(name and name != own for own, name in zip(ours[0], theirs[0], strict=True)):
        return f"names: official {theirs[0]!r}, ours {ours[0]!r}"
    if ours[1] != theirs[1]:
        return f"size, hash: official {theirs[1]!r}, ours {ours[1]!r}"
    # Older versions, when streaming, tell neither the opaque nor that an entry is missing.
    if theirs[2] is not None and ours[2] != theirs[2]:
        return f"opaque: official {theirs[2]!r}, ours {ours[2]!r}"
    if theirs[3] and not ours[3]:
        return "official: missing, ours: not"
    return ""


def _tell_end(seen: Recorded, count: int, error: AISError | None, counts: Acceleration) -> None:
    """How the two ended, after `count` entries of ours that did not differ."""
    short = seen.error is not None or len(seen.entries) < count
    if error is None and short:
        counts.mended += 1
        ended = f"{type(seen.error).__name__}: {seen.error}" if seen.error else "nothing said"
        logger.info("shadow: official %d of %d entries (%s), ours all", len(seen.entries), count, ended)
    elif error is not None and seen.error is None and len(seen.entries) > count:
        _tell(f"official {len(seen.entries)} entries, ours {count} and then {type(error).__name__}: {error}", counts)
    elif error is None and len(seen.entries) > count:
        _tell(f"official {len(seen.entries)} entries, ours {count}", counts)


def _tell(what: str, counts: Acceleration) -> None:
    counts.differences += 1
    logger.warning("shadow: the official client and ours differ: %s", what)
