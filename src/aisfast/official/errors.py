"""Our errors as the installed official SDK's: each is an instance of both, and of urllib3's `TimeoutError`.

Those are what programs of that SDK catch to repair a batch. The classes are made when this module is imported, which
needs `aistore`; being found here by their names, they pickle.
"""

from __future__ import annotations

from typing import Any

import requests.exceptions
import urllib3.exceptions
from aistore.sdk import errors as official

from aisfast import errors as ours


class _Ends(Exception):
    """Ends the chain of constructors at ours: the official one wants other arguments."""

    def __init__(self, *args: Any) -> None:
        Exception.__init__(self, *args)


# What requests raised out of the official client, programs may catch as well.
_OF_REQUESTS = {
    ours.AISConnectionError: (requests.exceptions.ConnectionError,),
    ours.AISTimeoutError: (requests.exceptions.Timeout,),
}


def _made(own: type[ours.AISError]) -> type[ours.AISError]:
    role = next(getattr(official, kind.__name__) for kind in own.__mro__ if hasattr(official, kind.__name__))
    bases = (own, _Ends, role, *_OF_REQUESTS.get(own, ()), urllib3.exceptions.TimeoutError)
    return type(
        own.__name__, bases, {"__module__": __name__, "__doc__": own.__doc__, "request": None, "response": None}
    )


_CLASSES = {
    own: _made(own)
    for own in vars(ours).values()
    if isinstance(own, type) and issubclass(own, ours.AISError) and own is not ours.NoTargetError
}
globals().update({kind.__name__: kind for kind in _CLASSES.values()})


def translate(error: ours.AISError) -> None:
    """Make an error, in place, one of the official SDK's too."""
    error.__class__ = _CLASSES.get(type(error), type(error))
