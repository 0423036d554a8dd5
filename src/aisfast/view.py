"""What a client has learnt of its cluster from the answers: all that flows back from one batch to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aisfast.tail import Tails

if TYPE_CHECKING:
    import random

MOST_SPREAD = 4.0  # seconds within which a first retry comes, at most: as long as answers take, so that no herd comes
GAP = 1.0  # seconds between a client's first retry and its next, at most; then doubled for each that does not help ...
MOST_GAP = 15.0  # ... up to this
LONGEST = 40.0  # seconds that a call waits for its turn, at most
OPEN = 256.0  # batches a target admits: more are never kept open
SHAKY = 300.0  # seconds for which a target that has just come back may be one that brings nothing
AVOIDED = 30.0  # seconds for which a target that stalled is avoided; doubled each time it stalls again ...
MOST_AVOIDED = 480.0  # ... up to this


class ClusterView:
    """One per client; shared by its calls, pickled with it. Times are monotonic seconds, told by the caller.

    Attributes:
        targets: The most targets seen; a lower count becomes the normal one after a while (`Policy.target_memory`).
        entry_bytes: Mean payload of an entry in the latest whole batch; 0.0 before it.
        answered: The endpoint has answered at least once.
        open: Batches whose answers are under way, or drain.
        pace: Seconds that whole answers take, lately.
        recoveries: How often what had kept calls waiting was over: who waits may ask at once.
        tails: What was learnt about ends that come late.
    """

    def __init__(self, targets: int = 0) -> None:
        self.targets = targets
        self.entry_bytes = 0.0
        self.answered = False
        self.open = 0
        self.told_cold = False  # the warning about cold objects was given
        self._now = 0.0
        self._whole_at = float("-inf")  # when lost targets were back
        self._sound: set[str] = set()  # hosts that worked since
        self._fewer_since: float | None = None
        self._waited = False  # for the targets that are gone, as long as a batch's patience allows
        self.tails = Tails()
        self.recoveries = 0
        self.pace = 0.0
        self._turn = 0.0  # of the latest retry
        self._gap = 0.0  # from it to the next one; 0.0: nothing fails
        self._most_open = OPEN
        self._stalled: dict[str, tuple[float, float]] = {}  # host -> avoided until, and for how long

    def __getstate__(self) -> dict[str, Any]:
        return {"targets": self.targets, "entry_bytes": self.entry_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["targets"])  # type: ignore[misc]
        self.entry_bytes = state["entry_bytes"]

    # ---------------------------------------------------------------------------------------------------------- targets

    def saw_targets(self, count: int, now: float, memory: float) -> None:
        """A redirect told how many targets the cluster has; a lower count is normal after `memory` seconds."""
        self._now = now
        if count <= 0:
            return
        if count >= self.targets or (self._fewer_since is not None and now - self._fewer_since >= memory):
            if self._fewer_since is not None:
                self._whole_at = now
                self._sound.clear()
            self.targets = count
            self._fewer_since = None
            self._waited = False
        elif self._fewer_since is None:
            self._fewer_since = now

    @property
    def lost_targets(self) -> bool:
        """The cluster has fewer targets than it had: an entry reported missing may only be out of reach."""
        return self._fewer_since is not None

    @property
    def worth_waiting(self) -> bool:
        """Nobody has waited for them yet until patience was spent."""
        return self.lost_targets and not self._waited

    def give_up_waiting(self) -> None:
        """Patience is spent: until the loss is over, nobody waits for it again."""
        self._waited = True
        self.recovered()

    def stalled(self, host: str, now: float) -> None:
        """A target has been silent for as long as we bear: one that has just come back may be so for many minutes."""
        for_long = min(MOST_AVOIDED, 2 * self._stalled.get(host, (0.0, AVOIDED / 2))[1])
        self._stalled[host] = (now + for_long, for_long)

    def worked(self, host: str) -> None:
        """A target has answered as it should."""
        self._stalled.pop(host, None)
        self._sound.add(host)

    def suspect(self, host: str) -> bool:
        """The target has stalled, or it may be one that has just come back; and it has not worked since."""
        return host in self._stalled or (self._now - self._whole_at < SHAKY and host not in self._sound)

    def avoided(self, host: str, now: float) -> bool:
        """The target has stalled lately: better to be given another one."""
        return host in self._stalled and now < self._stalled[host][0]

    # ------------------------------------------------------------------------------------------------------------- load

    def bears(self) -> None:
        """The cluster has accepted a batch: it may bear a little more."""
        self._most_open = min(OPEN, self._most_open + 1.0 / self._most_open)

    def throttled(self) -> None:
        """The cluster has refused a batch for its load."""
        self._most_open = max(1.0, min(self._most_open, self.open) / 2)

    @property
    def full(self) -> bool:
        """As many batches are open as the cluster bears."""
        return self.open >= self._most_open

    def took(self, seconds: float) -> None:
        """An answer has come whole."""
        self.pace += (seconds - self.pace) / 8

    def turn(self, now: float, base: float, rng: random.Random) -> float:
        """When a call that has failed may ask again. A client's calls take turns, with gaps that grow until one of them
        has got what it had failed to get: many that wait for one thing ask no more often than one."""
        spread = max(base, min(MOST_SPREAD, self.pace))
        wait = self._gap * rng.uniform(0.5, 1.0) if self._gap else rng.uniform(0, spread)
        self._turn = max(now, self._turn) + wait
        self._gap = min(MOST_GAP, max(2 * self._gap, min(GAP, 2 * spread)))
        return min(self._turn, now + LONGEST * rng.uniform(0.5, 1.0))

    def recovered(self) -> None:
        """A call has got what it had failed to get: who waits need not."""
        if self._gap:
            self.recoveries += 1
            self._turn = self._gap = 0.0
