"""Types of the ZIP reader. C callers use `_zip.pxd`."""

from typing import final

@final
class ZipReader:
    @property
    def count(self) -> int: ...
