"""The cluster's nodes, which of them are well, and the choice of the target that owns an object.

The owner has the highest random weight over xxhash64 among the targets in the map. A target that dies stays in the map
until its death is noticed; one that comes back is in it at once, but takes a while until it answers.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Any

SEED = 1103515245
GLOBAL_NAMESPACE = "@#"

_MASK = (1 << 64) - 1
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass
class Node:
    """One node of the cluster."""

    id: str
    kind: str  # "proxy" or "target"
    digest: int
    host: str = "127.0.0.1"
    port: int = 0
    scheme: str = "http"

    @property
    def name(self) -> str:
        """As texts name it: `t[id]`, `p[id]`."""
        return f"{self.kind[0]}[{self.id}]"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def document(self) -> dict[str, Any]:
        net = {"node_ip_addr": self.host, "daemon_port": str(self.port), "direct_url": self.url}
        return {
            "public_net": net,
            "intra_control_net": net,
            "intra_data_net": net,
            "daemon_type": self.kind,
            "daemon_id": self.id,
            "flags": 0,
            "id_digest": self.digest,
        }


class Smap:
    """The cluster map: one proxy and its targets.

    Attributes:
        targets: All targets there ever were; an index names one of them for good.
        troubled: Those that are not well: index → state and time of its beginning. Empty as long as all are.
        death_notice: Seconds from a target's death until the map loses it.
        settle: Seconds from a target's return until it answers.
    """

    def __init__(self, targets: int, rng: random.Random, first_port: int, scheme: str):
        self.proxy = _node("proxy", rng, first_port, scheme)
        self.targets = [_node("target", rng, first_port + 1 + i, scheme) for i in range(targets)]
        self.uuid = "".join(rng.choices(_LETTERS, k=9))
        self.created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        self.death_notice = 0.5
        self.settle = 0.2
        self.troubled: dict[int, tuple[str, float]] = {}
        self._all = list(range(targets))
        self._version = targets + 1
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        self.present()
        return self._version

    def __str__(self) -> str:
        """As texts name it."""
        return f"Smap v{self.version}[{self.uuid}, {self.proxy.name}, t={len(self.present())}, p=1]"

    def state(self, index: int) -> tuple[str, float]:
        """Whether it is "well", "dead" (and in the map), "gone" (from the map) or "starting"; for how many seconds."""
        if index not in self.troubled:
            return "well", 0.0
        now = time.monotonic()
        with self._lock:
            state, since = self.troubled.get(index, ("well", now))
            if state == "dead" and now - since >= self.death_notice:
                state = "gone"
                self.troubled[index] = state, since
                self._version += 1
            elif state == "starting" and now - since >= self.settle:
                state = "well"
                del self.troubled[index]
        return state, now - since

    def present(self) -> list[int]:
        """Indices of the targets in the map."""
        if not self.troubled:
            return self._all
        return [index for index in self._all if self.state(index)[0] != "gone"]

    def kill(self, index: int) -> None:
        """A target is dead from now on."""
        if self.state(index)[0] in ("dead", "gone"):
            raise ValueError(f"target {index} is dead already")
        with self._lock:
            self.troubled[index] = "dead", time.monotonic()

    def restore(self, index: int) -> None:
        """A dead target is starting again."""
        if self.state(index)[0] not in ("dead", "gone"):
            raise ValueError(f"target {index} is not dead")
        with self._lock:
            self._version += 1
            self.troubled[index] = "starting", time.monotonic()

    def owner(self, uname: str) -> int:
        """Index of the target that owns the object `<provider>/<namespace>/<bucket>/<name>`."""
        present = self.present()
        if len(present) <= 1:
            return present[0] if present else 0
        digest = xxhash64(uname.encode("utf-8", "replace"), SEED)
        weights = [_mix(self.targets[index].digest ^ digest) for index in present]
        return present[weights.index(max(weights))]

    def document(self) -> dict[str, Any]:
        proxy = self.proxy.document()
        targets = [self.targets[index] for index in self.present()]
        return {
            "version": str(self.version),
            "uuid": self.uuid,
            "creation_time": self.created,
            "proxy_si": proxy,
            "pmap": {self.proxy.id: proxy},
            "tmap": {target.id: target.document() for target in targets},
        }


def _node(kind: str, rng: random.Random, number: int, scheme: str) -> Node:
    name = "".join(rng.choices(_LETTERS, k=3)) + kind[0] + str(number)
    return Node(name, kind, xxhash64(name.encode(), SEED), scheme=scheme)


def xxhash64(data: bytes, seed: int) -> int:
    """XXH64 of `data`; for short inputs (it is pure Python)."""
    size = len(data)
    at = 0
    if size >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at + 32 <= size:
            for i in range(4):
                lanes[i] = _round(lanes[i], int.from_bytes(data[at + 8 * i : at + 8 * i + 8], "little"))
            at += 32
        h = (_rotate(lanes[0], 1) + _rotate(lanes[1], 7) + _rotate(lanes[2], 12) + _rotate(lanes[3], 18)) & _MASK
        for lane in lanes:
            h = ((h ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        h = (seed + _P5) & _MASK
    h = (h + size) & _MASK
    while at + 8 <= size:
        h = (_rotate(h ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= size:
        h = (_rotate(h ^ (int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        h = _rotate(h ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    h = (h ^ (h >> 33)) * _P2 & _MASK
    h = (h ^ (h >> 29)) * _P3 & _MASK
    return h ^ (h >> 32)


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def _mix(value: int) -> int:
    """Two splitmix64 steps scrambled as in xoshiro256**; what the cluster and its clients weigh targets with."""
    golden = 0x9E3779B97F4A7C15
    z = (value + golden) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    z = (z ^ z >> 31) + golden & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    z = (z ^ z >> 31) * 5 & _MASK
    return _rotate(z, 7) * 9 & _MASK
