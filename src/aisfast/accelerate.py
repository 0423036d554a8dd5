"""`accelerate()`: the installed official SDK's batches take our path, and nothing else changes.

Importing this costs nothing; the official SDK is loaded by the call.
"""

from __future__ import annotations

import os
import threading
import warnings
from types import TracebackType
from typing import TYPE_CHECKING

from aisfast.errors import UnsupportedVersionError
from aisfast.policy import Policy

if TYPE_CHECKING:
    from aisfast.official.patch import Patch

_lock = threading.RLock()
_active: list[Acceleration] = []  # those not undone, in order; the last one's options count
_patch: Patch | None = None
_warned = False


class Acceleration:
    """What `accelerate()` did. A context manager that undoes it.

    Attributes:
        policy: Options of the batches, or None.
        shadow: Share of the batches that are fetched both ways.
        shadowed: Batches that were.
        differences: Those of them where we handed out something else than the official code.
        mended: Those where the official code failed or ended early, and we did not.
    """

    def __init__(self, policy: Policy | None, shadow: float) -> None:
        self.policy = policy
        self.shadow = shadow
        self.shadowed = self.differences = self.mended = 0

    @property
    def active(self) -> bool:
        """It holds: it was neither undone, nor switched off by AISFAST_DISABLE, nor without an SDK that we know."""
        return any(one is self for one in _active)

    def undo(self) -> None:
        """Take it back. When no other acceleration holds, the SDK is as it was; a second time nothing happens."""
        global _patch
        with _lock:
            if not self.active:
                return
            _active.remove(self)
            if not _active and _patch is not None:
                patch, _patch = _patch, None
                patch.undo()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<Acceleration {'active' if self.active else 'not active'}>"


def accelerate(*, policy: Policy | None = None, on_unsupported: str = "raise", shadow: float = 0.0) -> Acceleration:
    """Let the batches of the installed official SDK (`aistore` 1.16 to 2.x) take our path, in this process.

    `Batch.get` and `BatchLoader.get_batch` then go through this package, with the official client's settings; so do
    batches made before. It may be called again: the latest call's options count, and each is undone for itself.
    With AISFAST_DISABLE=1 in the environment nothing happens.

    Args:
        policy: Options of the batches; None: the defaults.
        on_unsupported: "raise", or "warn" once and change nothing, where the SDK is not one that we know.
        shadow: Share of the batches, 0 to 1, that are fetched both ways and compared; a difference is logged as a
            WARNING and counted.
    Returns:
        A handle with `undo()`, also a context manager.
    Raises:
        UnsupportedVersionError: No SDK is installed, or one that we do not know. Nothing was changed.
        ValueError: An argument is wrong.
    """
    global _patch, _warned
    if on_unsupported not in ("raise", "warn"):
        raise ValueError(f"on_unsupported={on_unsupported!r} must be 'raise' or 'warn'")
    if policy is not None and not isinstance(policy, Policy):
        raise ValueError(f"policy={policy!r} must be a Policy")
    if isinstance(shadow, bool) or not isinstance(shadow, (int, float)) or not 0 <= shadow <= 1:
        raise ValueError(f"shadow={shadow!r} must be a share from 0 to 1")
    done = Acceleration(policy, float(shadow))
    if os.environ.get("AISFAST_DISABLE", "").strip().lower() in ("1", "t", "true", "y", "yes", "on"):
        return done
    with _lock:
        if _patch is None:
            try:
                _patch = _applied()
            except UnsupportedVersionError as error:
                if on_unsupported == "raise":
                    raise
                if not _warned:
                    _warned = True
                    warnings.warn(str(error), RuntimeWarning, stacklevel=2)
                return done
        _active.append(done)
    return done


def _applied() -> Patch:
    from aisfast.official.shape import examine

    shape = examine()
    from aisfast.official.patch import Patch  # needs what was examined

    patch = Patch(shape, _active)
    patch.apply()
    return patch
