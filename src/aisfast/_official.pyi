"""Types of what a call delivers to programs of the official SDK."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from typing_extensions import Self, disjoint_base

from aisfast._request import Entries
from aisfast.errors import AISError

def entries_of(models: Iterable[Any]) -> Entries: ...
def stand_for(record: Any) -> None: ...

@disjoint_base
class Info:
    obj_name: str
    archpath: str | None
    bucket: str
    provider: str
    opaque: bytes | None
    err_msg: str | None
    size: int
    def __getattr__(self, name: str, /) -> Any: ...
    def __iter__(self) -> Iterator[tuple[str, Any]]: ...
    def __copy__(self) -> Any: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> Any: ...

@disjoint_base
class LegacyInfo(Info):
    is_missing: bool

@disjoint_base
class Pairs:
    def __init__(
        self,
        results: Any,
        translate: Callable[[AISError], None],
        legacy: bool = False,
        named: bool = True,
        sized: bool = True,
    ) -> None: ...
    def prime(self) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[Info, bytes]: ...
    def close(self) -> None: ...
    def send(self, value: Any) -> tuple[Info, bytes]: ...
    def throw(
        self,
        kind: BaseException | type[BaseException],
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None: ...
