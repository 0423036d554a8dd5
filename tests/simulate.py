"""A simulated cluster with a virtual clock: `Delivery` and `Resume` against seeded schedules of faults.

The cluster is in `simulated.py`, what must hold of every end in `judging.py`.

    python -m tests.simulate --seed 7          one schedule, told step by step
    python -m tests.simulate --count 1000000   many
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from aisfast._decode import parse_head
from aisfast._delivery import Delivery, Form, Results, Want
from aisfast._request import Entries
from aisfast.errors import (
    AISError,
    AISTimeoutError,
)
from aisfast.exchange import framing_of
from aisfast.policy import Policy
from aisfast.resume import Ask, Read, Resume, Several, Single, Wait
from aisfast.view import ClusterView
from delivering import URL, entries_of
from judging import Fact, How, Wrong, hold, judge
from simulated import (
    CUTS,
    DAMAGE,
    MAX_WAIT,
    NO_ANSWER,
    NOISE,
    NOTICED,
    REFUSALS,
    SINGLES,
    Cluster,
    Lost,
    Refused,
    Thing,
)

READ_TIMEOUT = 90.0
FAULTS = (*CUTS, *sorted(DAMAGE.difference(CUTS, NO_ANSWER)), *NO_ANSWER, *REFUSALS)


class Watched(ClusterView):
    """What a client knows, and when it gave up waiting for a target."""

    def __init__(self, targets: int = 0) -> None:
        super().__init__(targets)
        self.most = targets  # the highest count told, as the memory of it has not yet ended
        self.fewer_since = inf
        self.given_up: list[tuple[float, float]] = []  # silence of the batch that gave up, and its patience
        self.shell: Shell | None = None

    def saw_targets(self, count: int, now: float, memory: float) -> None:
        super().saw_targets(count, now, memory)
        if count >= self.most or (count > 0 and now - self.fewer_since >= memory):
            self.most, self.fewer_since = count, inf
        elif count > 0:
            self.fewer_since = min(self.fewer_since, now)

    def give_up_waiting(self) -> None:
        super().give_up_waiting()
        assert self.shell is not None
        self.shell.note()
        self.given_up.append((self.shell.silence_of_payload(), self.shell.resume.policy.patience))
        self.shell.forgive()


class Shell:
    """Carries out the steps of a `Resume` on a virtual clock, as `transport.Call` does on a real one.

    Attributes:
        wall: Seconds; `now` is the shell's clock, which stands still while the consumer works.
        facts: Of each entry handed out.
    """

    def __init__(
        self,
        cluster: Cluster,
        delivery: Delivery,
        resume: Resume,
        view: Watched,
        wall: float,
        room: int,
        behind: list[Thing],
    ) -> None:
        self.cluster = cluster
        self.behind = behind  # what the latest request asks for behind its last entry
        self.delivery = delivery
        self.resume = resume
        self.view = view
        self.now = self.began = wall
        self.away = 0.0
        self.asked_at = self.active_at = wall
        self.known = view.most  # targets, as of the latest redirect
        self.fresh = not view.answered
        self.room = room  # bytes that the sockets hold for a reader that does not read
        self.grain = cluster.rng.choice((1 << 20, 1 << 20, 700))  # bytes that one read brings, at most
        self.nosy = cluster.rng.random() < 0.2  # another call of the client sees every change of the map at once
        self.answer: Any = None
        self.accepted = False
        self.steps = 0
        self.facts: list[Fact] = []
        self.largest_wait = 0.0
        # silence, as two clocks measure it that are never right but never wrong to the same side
        self.verified = [0, wall, 0.0]  # entries handed out, when, and the silence between them ...
        self.payload = [0, wall, 0.0]  # ... the same for bytes of payload handed out
        view.shell = self

    @property
    def wall(self) -> float:
        return self.now + self.away

    def wait_until(self, wall: float) -> None:
        self.now = max(self.now, wall - self.away)

    def pause(self, seconds: float) -> None:
        """The consumer works."""
        self.away += seconds
        answer = self.answer
        if answer is not None and answer.deadline and seconds > 30.0:
            unwritten = sum(len(data) for _, data in answer.pieces)
            if unwritten > self.room:
                answer.cut(self.wall - seconds + 30.0, self.room)
                self.cluster.happened.append("slow reader")

    # ---------------------------------------------------------------------------------------------------------- silence

    def note(self) -> None:
        """See what was handed out since the last step."""
        delivery, now = self.delivery, self.now
        if self.verified[0] != delivery.index:
            self.facts += [self.fact(i) for i in range(int(self.verified[0]), delivery.index)]
        for clock, value in ((self.verified, delivery.index), (self.payload, delivery.payload_bytes)):
            if clock[0] != value:
                clock[0] = value
                if now - clock[1] >= 1.0:
                    clock[2] += now - clock[1]
                clock[1] = now

    def fact(self, index: int) -> Fact:
        cluster = self.cluster
        gone = cluster.death + NOTICED <= self.wall and self.asked_at < cluster.back
        gone = gone and cluster.things[index].home == cluster.victim
        noticed = cluster.death + NOTICED
        unknowing = self.asked_at < noticed <= self.wall < self.asked_at + 25.0
        lost = gone and min(self.known, self.view.most) >= cluster.targets
        return Fact(gone, lost, unknowing, bool(self.view.given_up))

    def silence_of_payload(self) -> float:
        """No less than the true silence."""
        return self.payload[2] + self.now - self.payload[1]

    def silence_of_entries(self) -> float:
        """No more than the true silence, but for what an answer takes in steps of less than a second."""
        return self.verified[2] + self.now - self.verified[1]

    def forgive(self) -> None:
        self.payload[1:] = self.verified[1:] = [self.now, 0.0]

    # ------------------------------------------------------------------------------------------------------------ steps

    def open(self) -> None:
        while not self.accepted and not self.delivery.supplied:
            self.pump()

    def pump(self, returned: bool = False) -> None:
        self.steps += 1
        hold(self.steps < 20_000, "it does not end")
        self.note()
        if self.nosy:
            self.view.saw_targets(self.cluster.count(self.wall), self.wall, self.resume.policy.target_memory)
        self.resume.away = self.away
        step = self.resume.next(self.now)
        if not isinstance(step, Read) and self.delivery.want == Want.ANSWER:
            self.end_answer()
        if isinstance(step, Wait):
            hold(step.until >= self.now, "a wait for what is over")
            self.now = step.until
            return
        try:
            if isinstance(step, Read):
                self.read(step.until)
            elif isinstance(step, Ask):
                self.ask(step)
            elif isinstance(step, Single):
                self.single(step)
            elif isinstance(step, Several):
                self.several(step)
            else:
                raise Wrong(f"{step}: the batch is not whole")
        finally:
            self.active_at = self.now

    def end_answer(self) -> None:
        if self.answer is not None:
            self.view.open -= 1
            if self.delivery.drains:
                self.delivery.leftover()
        self.answer = None

    def ask(self, step: Ask) -> None:
        delivery, resume = self.delivery, self.resume
        hold(step.until > self.now, "a request for which no time is left")
        self.asked_at = self.wall
        self.now += 0.001
        delivery.begin(step.streaming, step.stop, self.wall, step.extra)
        hold(step.extra == len(self.behind), step.extra, "entries behind the last one are not those in the request")
        until = step.until

        def follows(targets: int, to: int) -> bool:
            nonlocal until
            resume.on_redirect(targets, self.now)
            self.known = self.view.most
            wait = resume.follows(f"http://t{to}", self.now)
            until = until if wait is None else wait
            return wait is not None

        outcome = self.cluster.answer(delivery.index, step.stop, step.streaming, self.wall, follows, self.behind)
        most = min(self.now + READ_TIMEOUT, until)
        at = outcome.pieces[0][0] if not isinstance(outcome, Refused | Lost) else outcome.at
        if at - self.away > most:
            self.now = most
            resume.on_lost(AISTimeoutError(0, "no head in time", URL), self.now)
            return
        self.wait_until(at)
        if isinstance(outcome, Refused):
            resume.on_refused(outcome.error, self.now)
        elif isinstance(outcome, Lost):
            resume.on_lost(outcome.error, self.now)
        else:
            raw = outcome.pieces.pop(0)[1]
            head = parse_head(raw)
            assert head is not None
            with delivery.get_buffer() as buffer:
                buffer[: len(raw)] = raw
            delivery.on_head(head, framing_of(head), URL, self.wall)
            delivery.commit(len(raw), self.wall, head.size)
            self.answer = outcome
            self.view.open += 1
            self.accepted = True
            resume.on_accepted()

    def read(self, until: float) -> None:
        delivery, answer = self.delivery, self.answer
        pieces = answer.pieces
        most = max(self.now, min(until, self.now + READ_TIMEOUT))
        while pieces and not pieces[0][1] and pieces[0][0] - self.away <= most:  # only time
            self.wait_until(pieces.pop(0)[0])
        if pieces:
            at = pieces[0][0]
        elif answer.hangs:
            at = inf
        else:
            delivery.on_eof()
            return
        if at - self.away > most:
            self.now = most
            delivery.on_error(AISTimeoutError(0, "no byte in time", URL))
            return
        before = self.now
        self.wait_until(at)
        with delivery.get_buffer() as buffer:
            filled = 0
            most_bytes = min(len(buffer), self.grain)
            while pieces and pieces[0][0] - self.away <= self.now and filled < most_bytes:
                at, data = pieces[0]
                n = min(most_bytes - filled, len(data))
                buffer[filled : filled + n] = data[:n]
                filled += n
                if n < len(data):
                    pieces[0] = (at, data[n:])
                else:
                    del pieces[0]
        delivery.commit(filled, self.wall, waited=self.now - before)

    def single(self, step: Single) -> None:
        hold(step.until > self.now, "a REST call for which no time is left")
        ((value, _),) = self.calls([step.entry], step.kind, step.until)
        if isinstance(value, AISError):
            self.resume.on_single_failed(step.kind, value, self.now)
        else:
            self.resume.on_single(step.kind, value, self.now)

    def several(self, step: Several) -> None:
        hold(step.until > self.now, "REST calls for which no time is left")
        self.asked_at = self.wall
        self.resume.on_several({index: value for value, index in self.calls(step.entries, "payload", step.until)})

    def calls(self, entries: list[int], kind: str, until: float) -> list[tuple[Any, int]]:
        """REST calls, all at once."""
        began = self.wall
        found: list[tuple[Any, int]] = []
        for index in entries:
            end, value = self.cluster.single(kind, index, began)
            if end - self.away > until:
                end, value = until + self.away, AISTimeoutError(0, "no time is left", URL)
            self.wait_until(end)
            found.append((value, index))
        return found

    def finish(self) -> None:
        self.note()
        hold(self.resume.next(self.now) is None, "whole, and something is to be done")
        self.end_answer()

    def close(self, error: BaseException | None = None) -> None:
        if self.answer is not None:
            self.view.open -= 1
        self.answer = None


# ----------------------------------------------------------------------------------------------------------- a schedule


def schedule(seed: int) -> tuple[Cluster, list[How], Watched, float, int]:
    """A cluster, the batches asked of it, what the client knows, when it begins, and how much its sockets hold."""
    rng = random.Random(seed)
    n = rng.choice((1, 2, 3, 5, 8, 13, 30))
    targets = rng.choice((1, 1, 2, 3, 4))
    missing = rng.choice((0.0, 0.0, 0.0, 0.1, 0.5, 1.0))
    odd = rng.choice((0.0, 0.0, 0.0, 0.1))
    absent = rng.choice(("gone", "gone", "elsewhere"))
    things = []
    for i in range(n):
        size = rng.choice((0, 1, 100, 511, 512, 513, 2000, 9000))
        at = rng.randrange(len(NOISE) - size)
        thing = Thing(f"o/{i}", NOISE[at : at + size], home=rng.randrange(targets))
        dice = rng.random()
        if dice < 0.2 and size:
            thing.start = rng.randrange(size)
            thing.length = rng.choice((-1, 1 + rng.randrange(size - thing.start)))
        elif dice > 0.9:
            thing.archpath = "m/x"
        dice = rng.random()
        if dice < missing:
            thing.kind = absent
        elif odd and dice > 1 - odd:
            what = rng.choice(("range", "size", "damaged", "slow"))
            if what in ("damaged", "slow"):
                thing.kind = what
            else:
                thing.start, thing.length = size + rng.randrange(3), rng.choice((-1, 1, max(1, size)))
                if what == "size" and size > 1:  # its whole object is as long as the range
                    thing.start, thing.length = 1 + rng.randrange(size - 1), size
        things.append(thing)
    cluster = Cluster(rng, things, True, targets)
    troubled = rng.random() < 0.6
    if troubled:
        most = rng.choice((1, 2, 3, 6, 12))
        cluster.faults = [rng.choice(FAULTS) if rng.random() < 0.7 else "" for _ in range(most)]
        if rng.random() < 0.3:
            cluster.single_faults = [rng.choice(SINGLES) if rng.random() < 0.7 else "" for _ in range(3)]
    cluster.pace = rng.choice((0.0, 0.0, 0.0, 0.01, 0.3, 2.0))
    if rng.random() < 0.2:
        cluster.aborts = [rng.random() * rng.choice((1, 10, 60)) for _ in range(rng.choice((1, 2)))]
    if rng.random() < 0.25:
        cluster.victim = rng.randrange(targets)
        cluster.death = rng.choice((0.0005, rng.random() * 5, -rng.random() * 40))
        cluster.back = cluster.death + rng.choice((inf, 1.0, rng.random() * 60, rng.random() * 300))
        cluster.crawls = rng.choice((0.0, 0.0, MAX_WAIT, inf))
    known = targets if rng.random() < 0.8 else 0
    view = Watched(known)
    view.answered = bool(known) or rng.random() < 0.5
    batches = [
        How(
            form=rng.choice((Form.PAIRS, Form.ITEMS, Form.COLUMNS)),
            streaming=rng.random() < 0.7,
            strict=rng.random() < 0.3,
            policy=Policy(
                patience=rng.choice((30.0, 120.0, 600.0)),
                deadline=rng.choice((None, None, None, 40.0)),
                get_missing=rng.random() < (0.5 if absent == "elsewhere" else 0.1),
                resume=rng.random() > 0.03,
                target_memory=rng.choice((600.0, 600.0, 50.0)),
            ),
            pauses=rng.choice((0.0, 0.0, 0.0, 0.2)),
        )
        for _ in range(2 if cluster.victim >= 0 and rng.random() < 0.5 else 1)
    ]
    return cluster, batches, view, 0.0, rng.choice((0, 600, 5000, 1 << 20))


def run(seed: int, make: type[Resume] = Resume, tell: bool = False) -> str:
    """Run one schedule; what came of it. Wrong: the judge objects."""
    cluster, batches, view, wall, room = schedule(seed)
    if tell:
        describe(cluster, batches)
        cluster.tell = lambda text: print(f"{shell.wall:9.3f} {text}")
    ends = []
    for how in batches:
        things = cluster.things
        behind: list[Thing] = []
        cluster.coer = how.form != Form.PAIRS or not how.strict or how.policy.get_missing
        asked = entries_of([(t.name, "b", "ais", t.archpath, None, t.start, t.length) for t in things])
        delivery = Delivery(
            asked,
            how.form,
            streaming=how.streaming,
            only_obj_name=False,
            missing_raises=how.strict,
            max_entry=1 << 33,
        )
        resume = make(
            delivery,
            how.policy,
            view,
            body=partial(body, things, behind),
            place="b",
            streaming=how.streaming,
            coer=cluster.coer,
            rest=lambda rest: rest,
            rng=cluster.rng,
        )
        shell = Shell(cluster, delivery, resume, view, wall, room, behind)
        cluster.happened.clear()
        cluster.requests = cluster.calls = 0
        try:
            consume(how, shell, cluster.rng)
        except AISError as caught:
            how.error = caught
            shell.close(caught)
        shell.note()
        if how.form == Form.COLUMNS:
            how.got = columns(delivery)
        if tell:
            print(f"{shell.wall:9.3f} {outcome(how)}: {how.error or ''}")
            print(f"{shell.silence_of_entries():9.3f} s of silence, {cluster.requests} requests, {cluster.calls} calls")
            print(f"          {cluster.happened}")
        judge(cluster, how, shell)
        resume.end()
        hold(not view.open, view.open, "answers are open")
        wall = shell.wall
        ends.append(outcome(how))
    return " + ".join(ends)


def body(things: list[Thing], behind: list[Thing], _entries: Entries, _streaming: bool, tail: Entries | None) -> bytes:
    """No body; but what its tail asks for."""
    of = {(thing.name, thing.archpath): thing for thing in things}
    rows = [tail.row(i) for i in range(len(tail))] if tail else []
    behind[:] = [replace(of[row[0], row[3]], start=row[5], length=row[6]) for row in rows]
    return b""


def consume(how: How, shell: Shell, rng: random.Random) -> None:
    """What `Batch.get`, `stream` and `fetch` do."""
    delivery = shell.delivery
    shell.open()
    if how.form == Form.COLUMNS:
        while not delivery.fill():
            shell.pump()
        shell.finish()
        return
    if how.form == Form.PAIRS and not how.streaming:
        while not delivery.metadata_ready():
            shell.pump()
    for item in Results(delivery, shell):
        if how.form == Form.PAIRS:
            info, payload = item
            hold(info.size == len(payload), "its size is wrong")
            how.got.append((payload if info.err_msg is None else None, info.err_msg))
        else:
            how.got.append((item.tobytes() if item.ok else None, item.err_msg))
        if how.pauses and rng.random() < how.pauses:
            shell.note()
            seconds = rng.choice((0.4, 3.0, 25.0, 40.0, 300.0))
            if shell.cluster.tell:
                shell.cluster.tell(f"the consumer pauses for {seconds} s")
            shell.pause(seconds)


def columns(delivery: Delivery) -> list[tuple[bytes | None, str | None]]:
    data, offsets, ok = delivery.columns()
    at = memoryview(offsets).cast("q").tolist()
    view = memoryview(data)
    return [
        (bytes(view[at[i] : at[i + 1]]) if there else None, delivery.errors.get(i))
        for i, there in enumerate(bytes(memoryview(ok)))
    ]


def outcome(how: How) -> str:
    return type(how.error).__name__ if how.error else "whole"


def describe(cluster: Cluster, batches: list[How]) -> None:
    for i, t in enumerate(cluster.things):
        asked = f"start={t.start}, length={t.length}, archpath={t.archpath}"
        print(f"entry {i}: {len(t.payload)} bytes, {t.kind} on t{t.home}, {asked}")
    print(f"faults {cluster.faults[::-1]} to batches, {cluster.single_faults[::-1]} to REST calls")
    print(f"aborts at {cluster.aborts}, an entry every {cluster.pace} s")
    if cluster.victim >= 0:
        print(f"t{cluster.victim} of {cluster.targets} dies at {cluster.death:.1f}, is back at {cluster.back:.1f}")
    for how in batches:
        print(f"{Form(how.form).name}, streaming={how.streaming}, strict={how.strict}, {how.policy}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="run this one, and tell of it")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("aisfast").disabled = arguments.seed is None
    if arguments.seed is not None:
        print(run(arguments.seed, tell=True))
        return
    ends: dict[str, int] = {}
    wrong = 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            end = run(seed)
        except Exception as error:
            wrong += 1
            end = f"WRONG {type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
            if wrong <= 20:
                print(f"seed {seed}: {end}", file=sys.stderr)
        ends[end] = ends.get(end, 0) + 1
    for end, times in sorted(ends.items(), key=lambda pair: -pair[1]):
        print(f"{times:8} {end}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
