"""What the official SDK has and this package has not: each such name raises one clear error."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol


class Unsupported(Protocol):
    """A callable that only raises."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn: ...


def why_not(what: str) -> str:
    """The text of the error."""
    return (
        f"{what} is not part of aisfast. Keep it by staying with the official SDK and speeding that up in "
        "place with aisfast.accelerate()"
    )


def refuse(what: str) -> NoReturn:
    """Raise the error for a part that is not here.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError(why_not(what))


def unsupported(what: str) -> Unsupported:
    """A method that is not here."""

    def method(*_args: Any, **_kwargs: Any) -> NoReturn:
        refuse(what)

    method.__doc__ = f"Not part of aisfast: raises `NotImplementedError` ({what})."
    return method
