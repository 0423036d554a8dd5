"""Many clients on a cluster that loses a target and gets it back: do they take what the survivors can serve, without a
storm? Discrete events on a virtual clock; `ClusterView`, `Resume` and `Delivery` are the real ones.

Each client keeps some batches under way, each of entries that live on some targets. A target reads its entries at a
fixed rate, one after the other, for whoever asks; it admits 256 batches that it assembles, and refuses more (429). The
lost target shows the faces that live ones do (`simulated.py`).

What is *needed* is measured, not guessed: the same clients on the same cluster run once more as oracles, which send no
request whose first entry is out of reach, and go on the moment it is back. Goodput and requests for each batch are held
against theirs.

    python -m tests.simulate_load
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from aisfast._decode import parse_head
from aisfast._delivery import Delivery, Form, Want
from aisfast._request import Entries
from aisfast.errors import AISError, AISTimeoutError
from aisfast.exchange import framing_of
from aisfast.policy import Policy
from aisfast.resume import Ask, Read, Resume, Wait
from aisfast.view import ClusterView
from simulated import BUFFERED_HEAD, HEAD, LAST, REFUSALS, TERMINAL, Member, chunk, member_bytes, multipart, refusal

UNCLAIMED = 300.0  # seconds for which a redirect that nobody follows counts as a batch
OBJECTS = 64  # on each target
REFUSED = refusal(400, 'Post "http://t": dial tcp 10.0.0.1:1: connect: connection refused', "p[sim]", tcode="Error")
UNREACHED = refusal(400, 'GFN(ais://b/o, t[x]): Get "http://t": read tcp: connection reset by peer', tcode="wrapError")
THROTTLED, STARTING, SKEWED = (refusal(*REFUSALS[kind]) for kind in ("429", "503", "409"))


@dataclass(frozen=True)
class Load:
    """What is simulated. Times are seconds; the target is lost from `death` to `back`.

    Attributes:
        calls: Batches that each client keeps under way.
        spread: Targets that the entries of one batch live on.
        rate: Entries that a target reads in a second.
        admitted: Batches that a target assembles at a time.
        crawls: What the returned target assembles takes 20 s for each entry for so long.
    """

    clients: int = 512
    targets: int = 20
    calls: int = 4
    entries: int = 32
    spread: int = 20
    rate: float = 800.0
    admitted: int = 256
    death: float = 30.0
    back: float = 75.0
    crawls: float = 60.0
    end: float = 240.0
    seed: int = 1

    @property
    def noticed(self) -> float:
        return self.death + 30.0

    @property
    def settled(self) -> float:
        """When the rebalance that follows the return has cut what was running."""
        return self.back + 2.2


@dataclass
class Tally:
    """What was seen, by second."""

    requests: list[int]
    delivered: list[int]  # entries
    refused: dict[int, int] = field(default_factory=dict)  # by status
    batches: int = 0
    failures: list[str] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)


class Cluster:
    """The targets: when each is done with what it has been asked to read."""

    def __init__(self, load: Load, oracle: bool) -> None:
        self.load = load
        self.oracle = oracle
        self.rng = random.Random(load.seed)
        self.free_at = [0.0] * load.targets
        self.pending: list[list[float]] = [[] for _ in range(load.targets)]  # ends of what each assembles
        self.lost = load.targets - 1

    def out(self, now: float) -> bool:
        return self.load.death <= now < self.load.back

    def count(self, now: float) -> int:
        return self.load.targets - (self.load.noticed <= now < self.load.back)

    def choose(self, now: float) -> int:
        gone = self.oracle and self.load.death <= now < self.load.back + self.load.crawls
        return self.rng.randrange(self.load.targets - gone if gone else self.count(now))

    def admits(self, target: int, now: float) -> bool:
        pending = self.pending[target]
        while pending and pending[0] <= now:
            heappop(pending)
        return len(pending) < self.load.admitted

    def read(self, homes: list[int], now: float) -> dict[int, float]:
        """Have these entries read where they live: when each target is done with its own."""
        done: dict[int, float] = {}
        for home in homes:
            done[home] = done.get(home, 0) + 1
        for home, entries in done.items():
            if home == self.lost and self.out(now):
                done[home] = now
                continue
            self.free_at[home] = done[home] = max(now, self.free_at[home]) + entries / self.load.rate
        return done

    def assemble(self, homes: list[int], target: int, now: float) -> tuple[float, int, bool]:
        """When an answer ends, with how many entries, and whether those of the lost target are reported missing."""
        load = self.load
        done = self.read(homes, now)
        whole = len(homes)
        if self.out(now) and self.lost in homes:
            if now >= load.noticed:
                return max(done.values()) + 0.001, whole, True
            whole = homes.index(self.lost)
            silent = 0.1 if now < load.death + 15 else 20.0
            end = max((done[home] for home in homes[:whole]), default=now) + silent
        elif target == self.lost and load.settled <= now < load.back + load.crawls:
            end = min(now + 20.0 * whole, max(load.back + load.crawls, max(done.values())))
        else:
            end = max(done.values()) + 0.001
        for cut in (load.death, load.settled):
            if now < cut < end and (cut == load.settled or self.lost in (target, *homes)):
                there = (i for i, home in enumerate(homes) if done[home] > cut or home == self.lost)
                return cut, min(whole, next(there, whole)), False
        heappush(self.pending[target], end)
        return end, whole, False


class Call:
    """One batch after the other, through a real `Resume`."""

    def __init__(self, world: World, view: ClusterView, rng: random.Random) -> None:
        self.world = world
        self.view = view
        self.rng = rng
        self.homes: list[int] = []
        self.answer: bytes | None = None
        self.begin()

    def begin(self) -> None:
        """A new batch."""
        load, rng = self.world.load, self.rng
        homes = rng.sample(range(load.targets), load.spread) if load.spread < load.targets else range(load.targets)
        self.homes = [rng.choice(homes) for _ in range(load.entries)]
        self.names = [f"{home}/{rng.randrange(OBJECTS)}" for home in self.homes]
        entries = Entries()
        entries.bucket = "b"
        entries.extend(self.names, "b", "ais")
        self.delivery = Delivery(
            entries, Form.COLUMNS, streaming=True, only_obj_name=False, missing_raises=False, max_entry=1 << 33
        )
        self.resume = Resume(
            self.delivery,
            self.world.policy,
            self.view,
            body=lambda *_: b"",
            streaming=True,
            coer=True,
            rest=lambda rest: rest,
            rng=rng,
        )

    def step(self, now: float) -> float:
        """Go on. When to be called again."""
        tally = self.world.tally
        before = self.delivery.index
        try:
            if self.delivery.fill():
                self.resume.next(now)
                self.resume.end()
                self.leave()
                tally.batches += 1
                tally.delivered[int(now)] += self.delivery.index - before
                self.begin()
                return now
            tally.delivered[int(now)] += self.delivery.index - before
            return self.carry_out(now)
        except AISError as error:
            self.fail(error)
            return now

    def fail(self, error: AISError) -> None:
        self.leave()
        self.resume.end()
        self.world.tally.failures.append(f"{type(error).__name__}: {error.message}")
        self.begin()

    def leave(self) -> None:
        if self.answer is not None:
            self.answer = None
            self.view.open -= 1

    def carry_out(self, now: float) -> float:
        step = self.resume.next(now)
        if isinstance(step, Read):
            return self.read(step.until, now)
        if self.delivery.want == Want.ANSWER:
            self.leave()
        if isinstance(step, Wait):
            return max(step.until, now)
        assert isinstance(step, Ask), step
        homes = self.homes[self.delivery.index : step.stop]
        if self.world.cluster.oracle and homes[0] == self.world.cluster.lost and self.world.load.death <= now:
            now = max(now, self.world.load.settled)
        self.asked = step
        self.world.later(now, self.ask)
        return -1.0

    def ask(self, now: float) -> float:
        """The request arrives."""
        world, delivery, step = self.world, self.delivery, self.asked
        cluster, load, tally = world.cluster, world.load, world.tally
        tally.requests[int(now)] += 1
        tally.arrivals.append(now)
        delivery.begin(step.streaming, step.stop, now)
        target = cluster.choose(now)
        error = None
        if target == cluster.lost and load.death <= now < load.back + 1.5:
            error = REFUSED if now < load.back else STARTING if now < load.back + 0.5 else SKEWED
        elif not cluster.admits(target, now):
            error = THROTTLED
        if error is not None:
            tally.refused[error.status_code] = tally.refused.get(error.status_code, 0) + 1
            try:
                self.resume.on_refused(error, now)
            except AISError as fatal:
                self.fail(fatal)
            return now
        self.resume.on_redirect(cluster.count(now), now)
        while self.resume.follows(f"http://t{target}", now) is None:
            heappush(cluster.pending[target], now + UNCLAIMED)
            tally.requests[int(now)] += 1
            tally.arrivals.append(now)
            target = cluster.choose(now)
            self.resume.on_redirect(cluster.count(now), now)
        homes = self.homes[delivery.index : step.stop]
        self.end, n, missing = cluster.assemble(homes, target, now)
        names = self.names[delivery.index : delivery.index + n]
        if not step.streaming and n < len(homes):
            world.later(self.end, self.refuse)
            return -1.0
        members = [member(name, missing and home == cluster.lost) for name, home in zip(names, homes, strict=False)]
        if step.streaming:
            head, body, last = HEAD, b"".join(map(written, members)), LAST
        else:
            head, body, last = BUFFERED_HEAD, multipart(members), TERMINAL
        self.answer = chunk((0.0, body))[1] + last
        parsed = parse_head(head)
        assert parsed is not None
        with delivery.get_buffer() as buffer:
            buffer[: len(head)] = head
        delivery.on_head(parsed, framing_of(parsed), "http://t", now)
        delivery.commit(len(head), now, len(head))
        self.view.open += 1
        self.resume.on_accepted()
        return now

    def refuse(self, now: float) -> float:
        """A buffered request is refused, when that is known."""
        self.world.tally.refused[400] = self.world.tally.refused.get(400, 0) + 1
        self.resume.on_refused(UNREACHED, now)
        return now

    def read(self, until: float, now: float) -> float:
        """Wait for the answer, which comes all at once."""
        if now < self.end:
            if until < self.end:
                self.world.later(until, self.give_up)
                return -1.0
            return self.end
        assert self.answer is not None
        with self.delivery.get_buffer() as buffer:
            n = min(len(buffer), len(self.answer))
            buffer[:n] = self.answer[:n]
        self.answer = self.answer[n:]
        self.delivery.commit(n, now)
        return now

    def give_up(self, now: float) -> float:
        self.delivery.on_error(AISTimeoutError(0, "no byte in time"))
        return now


@cache
def member(name: str, missing: bool) -> Member:
    return Member(f"__404__/b/{name}", b"", 0.0, "does not exist") if missing else Member(f"b/{name}", b"x", 0.0)


@cache
def written(member: Member) -> bytes:
    return member_bytes(member)


class World:
    """The clock, and all that goes by it."""

    def __init__(self, load: Load, oracle: bool = False) -> None:
        self.load = load
        self.policy = Policy()
        self.cluster = Cluster(load, oracle)
        self.tally = Tally([0] * (int(load.end) + 2), [0] * (int(load.end) + 2))
        self.events: list[tuple[float, int, Any]] = []
        self.sequence = 0
        rng = random.Random(load.seed)
        for _ in range(load.clients):
            view = ClusterView(load.targets)
            view.answered = True
            for _ in range(load.calls):
                self.later(rng.random(), Call(self, view, random.Random(rng.random())).step)

    def later(self, at: float, what: Any) -> None:
        self.sequence += 1
        heappush(self.events, (at, self.sequence, what))

    def run(self) -> Tally:
        while self.events:
            now, _, what = heappop(self.events)
            if now > self.load.end:
                break
            at = what(now)
            if at >= 0:
                self.later(at, what.__self__.step)
        return self.tally


@dataclass
class Figures:
    goodput: float  # of what the oracles get
    excess: float  # requests for each batch, of what the oracles send
    peak: float  # requests in the busiest second after the return, of the mean before the loss
    failed: int


def measure(load: Load, tell: bool = False) -> Figures:
    real, best = World(load).run(), World(load, oracle=True).run()
    first, last = int(load.death), int(load.end)
    goodput = sum(real.delivered[first:last]) / sum(best.delivered[first:last])
    entries = [sum(tally.delivered[first:last]) / load.entries for tally in (real, best)]
    requests = [sum(tally.requests[first:last]) for tally in (real, best)]
    excess = requests[0] / entries[0] / (requests[1] / entries[1])
    if tell:
        print(" second  requests  oracle's   entries  oracle's")
        for second in range(0, last, 5):
            rows = (real.requests, best.requests, real.delivered, best.delivered)
            print(f"{second:7}" + "".join(f"{sum(row[second : second + 5]) / 5:10.0f}" for row in rows))
        print("refused", real.refused, "oracles'", best.refused, "failed", len(real.failures), len(best.failures))
        print(*sorted(set(real.failures))[:5], sep="\n")
        print("the oracles' busiest second after the return:", f"{herd(best, load):.2f} x")
    return Figures(goodput, excess, herd(real, load), len(real.failures))


def herd(tally: Tally, load: Load) -> float:
    """The busiest second after the return, of the mean before the loss."""
    calm = [at for at in tally.arrivals if load.death / 3 <= at < load.death]
    tenths = Counter(int(at * 10) for at in tally.arrivals if at >= load.back)
    busiest = max(sum(tenths[i + k] for k in range(10)) for i in list(tenths))
    return busiest / (len(calm) / (load.death * 2 / 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    load = Load()
    logging.getLogger("aisfast").disabled = True
    for name in ("clients", "targets", "calls", "spread", "admitted", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(load, name))
    for name in ("rate", "back", "end"):
        parser.add_argument(f"--{name}", type=float, default=getattr(load, name))
    figures = measure(Load(**vars(parser.parse_args())), tell=True)
    print(f"goodput {figures.goodput:.1%} of the oracles', {figures.excess:.3f} x their requests for a batch")
    print(f"busiest second after the return: {figures.peak:.2f} x the mean before the loss")
    print(f"{figures.failed} batches failed")


if __name__ == "__main__":
    main()
