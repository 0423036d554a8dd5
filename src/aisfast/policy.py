"""What a caller may choose about one batch, or all of a client's: one frozen, picklable set of options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

GIB = 1 << 30


@dataclass(frozen=True)
class Policy:
    """How a batch is fetched. Given to `Client` it holds for all its calls; given to a call it replaces the client's.

    Attributes:
        resume: Ask again for what a short, cut or damaged answer lacks. False: the first incomplete answer raises.
        patience: Seconds of silence that one batch may cost before it is given up. Silence is every stretch of a second
            or more between two payload bytes that were kept, with the failed requests and waits inside it; an answer
            that brings no new entry counts whole. A cluster takes some 30 s to notice a dead target. The same time is
            given, once for each loss, to targets that are gone: until then what they held is asked for again and again.
        deadline: Seconds that one batch may take, the consumer's time not counted (nor is it in `patience`); None: no
            limit.
        get_missing: Ask for entries reported missing by object GETs before they count as missing: for cold objects of a
            cloud bucket, which GetBatch does not fetch, and misplaced ones. Sends `coer: true`.
        tail: Repeat entries behind the last one (at most 16 KiB or 5 % of the bytes) where that is seen to make answers
            end earlier: clusters of several targets hold the end of a streaming answer back for 100 ms.
        low_water: Let the kernel gather bytes, for 5 ms at most, before a read wakes, where that saves CPU.
        max_entry: Largest payload, in bytes, accepted for one entry. Larger: `LimitError`, before memory is taken.
        redirect_hosts: Hosts (`"name"` or `"name:port"`) that answers may redirect to; None: those of the cluster map.
        target_memory: Seconds after which a lower count of targets is normal; until then the targets above it count as
            lost.
    Raises:
        ValueError: An option is out of its range.
    """

    resume: bool = True
    patience: float = 120.0
    deadline: float | None = None
    get_missing: bool = False
    tail: bool = True
    low_water: bool = True
    max_entry: int = 8 * GIB
    redirect_hosts: tuple[str, ...] | None = None
    target_memory: float = 600.0

    def __post_init__(self) -> None:
        if not self.patience >= 0:
            raise ValueError(f"Policy: patience={self.patience!r} must be 0 or more seconds")
        if self.deadline is not None and not self.deadline > 0:
            raise ValueError(f"Policy: deadline={self.deadline!r} must be a positive number of seconds, or None")
        if isinstance(self.max_entry, bool) or not isinstance(self.max_entry, int) or self.max_entry < 1:
            raise ValueError(f"Policy: max_entry={self.max_entry!r} must be a positive number of bytes")
        if not self.target_memory >= 0:
            raise ValueError(f"Policy: target_memory={self.target_memory!r} must be 0 or more seconds")
        hosts = self.redirect_hosts
        if hosts is not None:
            if isinstance(hosts, str) or not isinstance(hosts, Iterable):
                raise ValueError(f"Policy: redirect_hosts={hosts!r} must be a list of host names, or None")
            object.__setattr__(self, "redirect_hosts", tuple(str(host).lower() for host in hosts))

    def replace(self, **changes: object) -> Policy:
        """A copy with some options changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
