"""What a client has learnt of its cluster from the answers: all that flows back from one batch to the next."""

from __future__ import annotations

from typing import Any

RETRIES = 10.0  # retries in hand; each costs one ...
EARNED = 0.1  # ... and each accepted answer earns back so much
MOST_COST = 16.0  # waiting times are stretched by no more than this
OPEN = 256.0  # batches a target admits: more are never kept open
AVOIDED = 30.0  # seconds for which a target that stalled is avoided; doubled each time it stalls again ...
MOST_AVOIDED = 480.0  # ... up to this


class ClusterView:
    """One per client; shared by its calls, pickled with it. Times are monotonic seconds, told by the caller.

    Attributes:
        targets: The most targets seen; a lower count becomes the normal one after a while (`Policy.target_memory`).
        entry_bytes: Mean payload of an entry in the latest whole batch; 0.0 before it.
        answered: The endpoint has answered at least once.
        open: Batches whose answers are under way, or drain.
    """

    def __init__(self, targets: int = 0) -> None:
        self.targets = targets
        self.entry_bytes = 0.0
        self.answered = False
        self.open = 0
        self.told_cold = False  # the warning about cold objects was given
        self._fewer_since: float | None = None
        self._waited = False  # for the targets that are gone, as long as a batch's patience allows
        self._retries = RETRIES
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
        if count <= 0:
            return
        if count >= self.targets or (self._fewer_since is not None and now - self._fewer_since >= memory):
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

    def stalled(self, host: str, now: float) -> None:
        """A target has been silent for as long as we bear: one that has just come back may be so for many minutes."""
        for_long = min(MOST_AVOIDED, 2 * self._stalled.get(host, (0.0, AVOIDED / 2))[1])
        self._stalled[host] = (now + for_long, for_long)

    def worked(self, host: str) -> None:
        """A target has answered as it should."""
        self._stalled.pop(host, None)

    def suspect(self, host: str) -> bool:
        """The target has stalled, and not yet worked again."""
        return host in self._stalled

    def avoided(self, host: str, now: float) -> bool:
        """The target has stalled lately: better to be given another one."""
        return host in self._stalled and now < self._stalled[host][0]

    # ------------------------------------------------------------------------------------------------------------- load

    def bears(self) -> None:
        """The cluster has accepted a batch: it may bear a little more."""
        self._retries = min(RETRIES, self._retries + EARNED)
        self._most_open = min(OPEN, self._most_open + 1.0 / self._most_open)

    def throttled(self) -> None:
        """The cluster has refused a batch for its load."""
        self._most_open = max(1.0, min(self._most_open, self.open) / 2)

    @property
    def full(self) -> bool:
        """As many batches are open as the cluster bears."""
        return self.open >= self._most_open

    def retry_cost(self) -> float:
        """Spend a retry. By how much its waiting time is to be stretched: 1.0 while there are retries in hand."""
        self._retries = max(1.0 - MOST_COST, self._retries - 1.0)
        return max(1.0, 1.0 - self._retries)
