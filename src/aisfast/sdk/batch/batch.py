"""The official module path of `Batch`."""

from collections.abc import Iterator
from typing import TypeAlias

from aisfast._items import MossOut
from aisfast.batch import Batch
from aisfast.unsupported import absent

BatchResult: TypeAlias = Iterator[tuple[MossOut, bytes]]

__all__ = ["Batch", "BatchResult"]
__path__, __getattr__ = absent(__name__)
