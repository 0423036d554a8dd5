"""What the official SDK has and this package has not: each such name raises one clear error."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    method.unsupported = what  # type: ignore[attr-defined]
    return method


def absent(module: str) -> tuple[list[str], Callable[[str], NoReturn]]:
    """`__path__` and `__getattr__` for a module of `aisfast.sdk` that has some of the official one's names.

    A name that it has not is an AttributeError, so that hasattr() tells the truth. `from module import name` hides
    the text of that; but where a module has a path, be it an empty one, it goes on to look for a module of that name,
    which `aisfast.sdk` refuses with an ImportError that tells why.
    """

    def getattr(name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise AttributeError(why_not(f"{module.replace('aisfast', 'aistore', 1)}.{name}"), name=name)

    return [], getattr


class NotHere:
    """A finder that is asked when all others have not found a module, and refuses those of the official SDK's.

    Why a finder: `from aisfast.sdk import X` hides the text of an AttributeError, but not of the ImportError
    of the module X that it looks for next. So hasattr() tells the truth and the import tells why.
    """

    def __init__(self, package: str, official: str) -> None:
        self._package = package
        self._official = official

    @classmethod
    def below(cls, package: str, official: str) -> None:
        """Refuse public modules below `package`, which stands for `official`, unless they are found."""
        sys.meta_path.append(cls(package, official))

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> None:
        """Refuse a public module below the package; any other may still be found."""
        part = fullname.removeprefix(f"{self._package}.")
        if part != fullname and not part.startswith("_"):
            raise ImportError(why_not(f"{self._official}.{part}"), name=fullname)
