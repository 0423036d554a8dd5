"""The shell of `get`, `stream` and `fetch`: waits for what one call waits for."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic, sleep

from aisfast.call import Call
from aisfast.exchange import Exchange

WAKE = 0.1  # seconds


class Blocking:
    """Drives a call in the thread that wants its entries."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._steps = call.steps()
        self._left = monotonic()  # when the caller was given control

    def __del__(self) -> None:
        if not self.call.over:
            self.close()

    def open(self) -> None:
        """Send the request and see it accepted: a 200's head is in, and bytes of its body may be.

        Raises:
            AISError: The server refused, as its answer says.
            AISConnectionError, AISTimeoutError: There was no answer.
            WireError: What answers does not speak GetBatch.
        """
        try:
            while not self.call.begun:
                self.pump()
        except BaseException as error:
            self.close(error)
            raise

    def pump(self, returned: bool = False) -> None:
        """On to where something may have come.

        Args:
            returned: The caller of the iterator had control since the latest step: that time is not ours.
        Raises:
            AISError: The batch cannot be made whole.
        """
        steps = self._steps
        entered = monotonic()
        if returned:
            self.call.was_away(entered - self._left, entered)
        try:
            need = next(steps)
            while need is not None:
                if type(need) is Exchange:
                    need.wait()
                    need = next(steps)
                elif type(need) is float:
                    self._sleep(need)
                    need = next(steps)
                else:
                    try:
                        value = need()  # type: ignore[operator]
                    except BaseException as error:
                        need = steps.throw(error)
                    else:
                        need = steps.send(value)
        except StopIteration:
            raise RuntimeError("this batch is closed") from None
        finally:
            self._left = monotonic()
            self.call.stats.wait += self._left - entered

    def _sleep(self, until: float) -> None:
        while not self.call.over and (left := until - monotonic()) > 0:  # another thread may close us
            sleep(min(left, WAKE))

    def finish(self) -> None:
        """The batch is whole."""
        self.call.finish()

    def close(self, error: BaseException | None = None) -> None:
        """Give up: the connection is closed.

        Args:
            error: Why, if it failed.
        """
        self.call.close(error)
        with suppress(ValueError):  # another thread is inside, and will find it closed
            self._steps.close()
