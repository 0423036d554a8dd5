"""What must hold of every batch in the simulation, however it ends.

The truth is the cluster's. Of the machine's own accounts nothing is believed but what it handed out, and when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from aisfast._delivery import Form
from aisfast.errors import (
    AISError,
    AISTimeoutError,
    ErrBckNotFound,
    ErrObjNotFound,
    ErrRangeNotSatisfiable,
    IncompleteBatchError,
    WireError,
)
from aisfast.policy import Policy
from simulated import DAMAGE, FINAL, Cluster, Thing

if TYPE_CHECKING:
    from simulate import Shell

OUT_OF_REACH = "out of reach"


class Wrong(AssertionError):
    """The judge objects."""


def hold(right: object, *what: object) -> None:
    if not right:
        raise Wrong(" ".join(map(str, what)))


class Fact(NamedTuple):
    """What the cluster was like when an entry was handed out."""

    gone: bool  # its target is out of the map
    lost: bool  # and it can be known that the cluster was larger
    unknowing: bool  # it has left the map since the latest redirect, which is a few seconds old
    given_up: bool  # it was waited for

    def known_lost(self, thing: Thing) -> bool:
        """It must be waited for. But when a batch has reported it missing (it is misplaced), and then its target leaves
        the map before an object GET can bring it, nothing tells."""
        return self.lost and not (self.unknowing and thing.kind == "elsewhere")


@dataclass
class How:
    """One batch of a schedule, and what came of it."""

    form: int = Form.PAIRS
    streaming: bool = True
    strict: bool = False
    policy: Policy = field(default_factory=Policy)
    pauses: float = 0.0  # how often the consumer pauses
    got: list[tuple[bytes | None, str | None]] = field(default_factory=list)
    error: Exception | None = None


def judge(cluster: Cluster, how: How, shell: Shell) -> None:
    """Compare what came with the truth, and what it cost with what happened."""
    things, error, policy = cluster.things, how.error, how.policy
    for i, (came, fact) in enumerate(zip(how.got, shell.facts, strict=False)):
        judge_entry(i, things[i], came, fact, policy)
    judge_time(cluster, how, shell)
    judge_requests(cluster, how, shell)
    first = shell.delivery.index
    hold(len(how.got) == first, len(how.got), "entries came, and", first, "count as handed out")
    if error is None:
        hold(first == len(things), "silently short:", first, "of", len(things))
        hold(not how.strict or all(reason is None for _, reason in how.got), "a miss is an error, and there was none")
    else:
        judge_error(cluster, how, shell, error)


def judge_entry(i: int, thing: Thing, came: tuple[bytes | None, str | None], fact: Fact, policy: Policy) -> None:
    payload, reason = came
    there = may_come(thing, policy)
    if payload is not None:
        hold(there and payload == thing.part, "entry", i, "is wrong")
        return
    hold(reason, "entry", i, "is missing, without a reason")
    if not there or thing.part is None:
        return
    hold(fact.gone, "entry", i, "is there, and counts as missing")
    if fact.known_lost(thing):
        hold(OUT_OF_REACH in str(reason), "entry", i, "is out of reach, and counts as missing")
        hold(fact.given_up or not policy.resume, "entry", i, "was not waited for")


def judge_time(cluster: Cluster, how: How, shell: Shell) -> None:
    policy, silence = how.policy, shell.silence_of_entries()
    for waited, patience in shell.view.given_up:
        hold(waited >= patience - 0.01, "a lost target was waited for", waited, "s of", patience)
    hold(len(shell.view.given_up) <= 1, "a lost target was waited for twice")
    hold(silence <= policy.patience + 2.0 + len(cluster.things) * 0.01, silence, "s of silence")
    if policy.deadline is not None:
        took = shell.now - shell.began
        hold(took <= policy.deadline + 0.01, "it took", took, "s of", policy.deadline)


def judge_requests(cluster: Cluster, how: How, shell: Shell) -> None:
    slow = len(cluster.things) * cluster.pace > how.policy.patience / 2
    odd = sum(thing.kind != "here" or thing.part is None for thing in cluster.things)
    odd += sum(fact.gone for fact in shell.facts)
    if not cluster.happened and cluster.victim < 0 and not odd and not slow:
        hold(cluster.requests == 1, cluster.requests, "requests for a clean batch")
    halvings = 1 if how.streaming else len(cluster.things).bit_length()
    allowed = 12 + 2 * len(cluster.happened) + (1 + 2 * halvings) * odd + 0.6 * (shell.now - shell.began)
    hold(cluster.requests <= allowed, cluster.requests, "requests, and what happened explains", allowed)


def judge_error(cluster: Cluster, how: How, shell: Shell, error: Exception) -> None:
    things, policy = cluster.things, how.policy
    first = shell.delivery.index
    entry = things[first] if first < len(things) else None
    spent = shell.silence_of_payload() >= policy.patience - 0.01
    if spent and policy.deadline is None and isinstance(error, IncompleteBatchError | AISTimeoutError):
        idle = shell.now - shell.active_at
        hold(idle <= policy.patience / 4 + 1, "given up after", idle, "s without a try")
    if policy.deadline is not None:
        spent = spent or shell.now - shell.began >= policy.deadline - 0.01
    if isinstance(error, IncompleteBatchError):
        hold(error.received == first, error.received, "received")
        hold(error.missing == tuple(range(first, len(things))), "the wrong ones are missing:", error.missing)
        rest = error.rest()
        hold([rest.row(i)[0] for i in range(len(rest))] == [thing.name for thing in things[first:]], "a wrong rest")
        hold(shell.accepted, "incomplete, and no 200 came")
        judge_end(cluster, how, shell, error.__cause__, spent)
    elif isinstance(error, ErrObjNotFound):
        judge_misses(things, how, shell, getattr(error, "missing", (first,)))
    elif isinstance(error, ErrRangeNotSatisfiable):
        outside = how.strict and entry is not None and entry.part is None
        if not policy.resume:  # a buffered answer does not tell which
            outside = any(thing.part is None for thing in things)
        hold(outside, "its range is right")
    elif not (entry is not None and entry.kind == "damaged" and how.strict and f"o/{first}" in str(error)):
        judge_end(cluster, how, shell, error, spent)


def judge_misses(things: list[Thing], how: How, shell: Shell, named: tuple[int, ...]) -> None:
    """An `ErrObjNotFound` names these."""
    first = shell.delivery.index
    hold(how.strict, "a miss is no error here")
    for i in named:
        fact = shell.facts[i] if i < len(shell.facts) else shell.fact(i)
        there = may_come(things[i], how.policy) and not fact.gone
        hold(not there, "entry", i, "is not missing")
        if fact.known_lost(things[i]) and how.policy.resume and may_come(things[i], how.policy):
            hold(fact.given_up, "entry", i, "is not missing, and was not waited for")
    if how.form != Form.COLUMNS and how.streaming:
        hold(named == (first,), named, "are named, and", first, "is the next one")
    if how.form == Form.COLUMNS and first == len(things):
        hold(named == tuple(i for i, (payload, _) in enumerate(how.got) if payload is None), "not all are named")


def may_come(thing: Thing, policy: Policy) -> bool:
    """Is it a thing that can be had, if its target is there?"""
    return thing.kind in ("here", "slow") or (thing.kind == "elsewhere" and policy.get_missing)


def judge_end(cluster: Cluster, how: How, shell: Shell, cause: BaseException | None, spent: bool) -> None:
    """May this end a batch?"""
    happened = cluster.happened
    new_here = shell.fresh and how.error is cause and happened[-1:] in (["refused"], ["nonsense"])
    if spent or new_here or not how.policy.resume:
        return
    if isinstance(cause, WireError):
        damage = DAMAGE if how.streaming else DAMAGE | {"cut clean"}
        hold(sum(fault in damage for fault in happened) >= 2, "given up:", cause)
        return
    hold(isinstance(cause, AISError), "given up for no reason")
    assert isinstance(cause, AISError)
    final = cause.status_code in (401, 403) or isinstance(cause, ErrBckNotFound)
    hold(final and FINAL & set(happened), "given up:", cause)
