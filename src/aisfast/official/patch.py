"""Our methods in the place of the official SDK's, put there and taken away."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aisfast._official import stand_for
from aisfast.official import batch, legacy
from aisfast.official.client import Clients
from aisfast.official.shadow import compared, recorded
from aisfast.official.shape import Shape

if TYPE_CHECKING:
    from aisfast.accelerate import Acceleration
    from aisfast.policy import Policy

MOST_REASONS = 50  # that are told

logger = logging.getLogger("aisfast")


class Patch:
    """What is changed in the installed SDK.

    Args:
        shape: Of the SDK.
        active: The accelerations that hold; the last one's options count. The official code runs while there is none.
    """

    def __init__(self, shape: Shape, active: list[Acceleration]) -> None:
        self.shape = shape
        self.clients = Clients(shape)
        self._active = active
        self._told: set[str] = set()
        self._replaced: dict[str, Any] = {}  # name -> what stood in the class itself, if anything did
        stand_for(shape.record)

    def apply(self) -> None:
        """Put ours in."""
        ours = (legacy if self.shape.legacy else batch).methods(self.shape, self)
        for name, value in ours.items():
            self._replaced[name] = vars(self.shape.batch).get(name)
            setattr(self.shape.batch, name, value)

    def undo(self) -> None:
        """Take ours out. Iterators that are under way end as they would have."""
        batch.fill_lists(self.shape)
        for name, value in self._replaced.items():
            if value is None:
                delattr(self.shape.batch, name)
            else:
                setattr(self.shape.batch, name, value)
        self.clients.close()

    @property
    def on(self) -> bool:
        """Whether a batch takes our path."""
        return bool(self._active)

    @property
    def policy(self) -> Policy | None:
        """Options of the batches, or None: the client's settings tell."""
        how = self._latest()
        return how.policy if how else None

    def _latest(self) -> Acceleration | None:
        """None: another thread has just undone the last one."""
        return next(iter(self._active[-1:]), None)

    def leave(self, what: str, reason: Exception) -> None:
        """Tell that a call goes the official way, once for each reason."""
        text = f"{what} takes the official way: {reason}"
        if text not in self._told and len(self._told) < MOST_REASONS:
            self._told.add(text)
            logger.warning("%s", text)

    def send(
        self,
        fast: Any,
        theirs: Callable[[], Any],
        *,
        streaming: bool,
        legacy: bool = False,
        named: bool = True,
    ) -> Any:
        """Send a batch, and, if its lot falls, send it the official way too and compare.

        Args:
            fast: The batch of ours.
            theirs: Sends it the official way, and leaves it uncleared.
            streaming, legacy, named: See `Pairs`.
        """

        def ours() -> Any:
            return batch.send(fast, legacy=legacy, named=named, sized=not (legacy and streaming))

        how = self._latest()
        if how and how.shadow and random.random() < how.shadow:
            return compared(ours, recorded(theirs), how, names=streaming)
        return ours()
